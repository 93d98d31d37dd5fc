package series_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/jouleml/joule/data/series"
)

// Whatever stands in the files, opening them gives a set whose every example can be read, or an error.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(head+"1,2,3:4,5,6:10\n-1:0:2\n"), true)
	f.Add([]byte("-1\t1\t2\n1\t3\t4\n"), false)
	f.Add([]byte("@problemName x\n@timeStamps true\n@data\n(1,2):a\n"), true)
	f.Add([]byte("1\tNaN\t?\n"), false)
	f.Fuzz(func(t *testing.T, text []byte, ts bool) {
		name := "a.tsv"
		if ts {
			name = "a.ts"
		}
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := series.Open("x", file, file, true)
		if err != nil {
			return
		}
		x, y := s.Spec().Tensors(1)
		for i := range s.Train.Len() {
			if err := s.Train.Fill([]int{i}, x, y); err != nil {
				t.Fatal(err)
			}
			if c := int(y[0].At(0)); c < 0 || c >= s.Spec().Classes {
				t.Fatalf("class %d of %d", c, s.Spec().Classes)
			}
		}
	})
}
