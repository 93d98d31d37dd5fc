package text_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/text"
)

// The embedded text is the end of the Go distribution's copy, where that is at hand.
func TestOpticks(t *testing.T) {
	s, err := text.Opticks()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(s, "OPTICKS:") || len(s) < 500_000 || !strings.Contains(s, "Do not Bodies act upon Light at a distance") {
		t.Fatalf("%d bytes that begin %q", len(s), s[:40])
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip(err)
	}
	whole, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "src/testdata/Isaac.Newton-Opticks.txt"))
	if err != nil {
		t.Skip(err)
	}
	if !strings.HasSuffix(string(whole), s) {
		t.Error("differs from the Go distribution's")
	}
}

func TestChars(t *testing.T) {
	s, err := text.Chars("t", "abcdefghij-äöü-klm", text.Config{Length: 3, Stride: 2, Test: 0.3})
	if err != nil {
		t.Fatal(err)
	}
	v, err := text.NewVocabulary(s.Spec().ClassNames)
	if err != nil {
		t.Fatal(err)
	}
	if s.Spec().Classes != 17 || s.Train.Len() != 5 || s.Test.Len() != 1 {
		t.Fatalf("%d classes, %d + %d examples", s.Spec().Classes, s.Train.Len(), s.Test.Len())
	}
	read := func(d data.Dataset, i int) string {
		x, y := d.Spec().Tensors(1)
		if err := d.Fill([]int{i}, x, y); err != nil {
			t.Fatal(err)
		}
		return v.Decode(x[0].I32()) + ">" + v.Decode(y[0].I32())
	}
	for i, want := range []string{"abc>bcd", "cde>def", "efg>fgh", "ghi>hij", "ij->j-ä"} {
		if got := read(s.Train, i); got != want {
			t.Errorf("training example %d is %s, want %s", i, got, want)
		}
	}
	if got := read(s.Test, 0); got != "ü-k>-kl" {
		t.Errorf("test example %s", got)
	}
}

func TestVocabulary(t *testing.T) {
	v := text.Characters("zebra\nzoo ä")
	ids, err := v.Encode("zoo ä\n")
	if err != nil || v.Decode(ids) != "zoo ä\n" {
		t.Fatalf("%v %q %v", ids, v.Decode(ids), err)
	}
	if v.Decode([]int32{-1, 99}) != "\uFFFD\uFFFD" {
		t.Error("tokens outside")
	}
	if _, err := v.Encode("zoo\nzqo"); err == nil || !strings.Contains(err.Error(), "line 2, character 2: 'q'") {
		t.Error(err)
	}
}

func TestMistakes(t *testing.T) {
	for want, f := range map[string]func() error{
		"byte 2 is not UTF-8": func() error { _, err := text.Chars("t", "ab\xff", text.Config{}); return err },
		"too few":             func() error { _, err := text.Chars("t", "abc", text.Config{}); return err },
		"length -1":           func() error { _, err := text.Chars("t", "abc", text.Config{Length: -1}); return err },
		"no such file":        func() error { _, err := text.Open(filepath.Join(t.TempDir(), "x"), text.Config{}); return err },
		"not one character":   func() error { _, err := text.NewVocabulary([]string{"a", "bc"}); return err },
		"no vocabulary":       func() error { _, err := text.NewVocabulary(nil); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
}
