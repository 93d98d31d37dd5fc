package tabs_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/data/tabs"
)

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tsv")
	for _, c := range []struct {
		text, err string
		want      []string
	}{
		{"a\tb c\r\n\n d \te\tf\n", "", []string{"a|b c", " d |e\tf"}},
		{"a\tb\nc\n", "line 2 is not two texts with a tab between them", nil},
		{"a\tb\n\n \tc\n", "line 3 is not two texts", nil},
		{"a\t \n", "line 1 is not two texts", nil},
		{"a\t\xff\n", "line 1 is not UTF-8", nil},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var got []string
		err := tabs.Read(path, "two texts", func(a, b string) { got = append(got, a+"|"+b) })
		if c.err == "" && (err != nil || !slices.Equal(got, c.want)) {
			t.Errorf("%q: %q, %v, want %q", c.text, got, err, c.want)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), path)) {
			t.Errorf("%q: error %v, want one that names the file and says %q", c.text, err, c.err)
		}
	}
	if err := tabs.Read(path+"x", "two texts", nil); !os.IsNotExist(err) {
		t.Errorf("a file that is not there: %v", err)
	}
}
