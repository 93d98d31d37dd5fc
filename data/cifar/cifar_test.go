package cifar

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
)

// record is one picture whose pixel i has red i, green i+1 and blue i+2, modulo 256.
func record(head ...byte) []byte {
	b := append([]byte{}, head...)
	for channel := range 3 {
		for i := range plane {
			b = append(b, byte(i+channel))
		}
	}
	return b
}

func write(t testing.TB, dir, name string, b ...[]byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, bytes.Join(b, nil), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpen(t *testing.T) {
	for _, v := range []*Version{Ten, Hundred} {
		dir := t.TempDir()
		for i, name := range append(append([]string{}, v.Train...), v.Test...) {
			head := []byte{byte(i)}
			if v == Hundred {
				head = []byte{19, byte(i + 90)}
			}
			write(t, dir, name, record(head...), record(head...))
		}
		set, err := Open(dir, v)
		if err != nil {
			t.Fatal(err)
		}
		if set.Train.Len() != 2*len(v.Train) || set.Test.Len() != 2 || len(v.ClassNames) != set.Spec().Classes {
			t.Errorf("%s: %d and %d pictures, %d classes", v.Name, set.Train.Len(), set.Test.Len(), set.Spec().Classes)
		}
		x, y := set.Spec().Tensors(1)
		if err := set.Test.Fill([]int{1}, x, y); err != nil {
			t.Fatal(err)
		}
		if want := int32(map[*Version]int{Ten: 5, Hundred: 91}[v]); y[0].I32()[0] != want {
			t.Errorf("%s: class %d, want %d", v.Name, y[0].I32()[0], want)
		}
		for i := range plane {
			for c := range 3 {
				if got := x[0].F32()[3*i+c]; got != data.Unit[byte(i+c)] {
					t.Fatalf("%s: channel %d of pixel %d is %v", v.Name, c, i, got)
				}
			}
		}
	}
}

func TestClassNames(t *testing.T) {
	for _, v := range []*Version{Ten, Hundred} {
		for i, n := range v.ClassNames[1:] {
			if n <= v.ClassNames[i] {
				t.Errorf("%s: %q after %q: the classes are in alphabetical order", v.Name, n, v.ClassNames[i])
			}
		}
	}
	if len(Ten.ClassNames) != 10 || len(Hundred.ClassNames) != 100 {
		t.Error("number of classes")
	}
}

func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	good := record(1)
	for want, path := range map[string]string{
		"byte 3073: the file ends inside a record": write(t, dir, "short", good, good[:100]),
		"byte 3073: class 10":                      write(t, dir, "class", good, record(10)),
		"no such file":                             filepath.Join(dir, "none"),
	} {
		_, err := Read(Ten, path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: error %v", want, err)
		}
	}
	if _, err := Open(dir, Hundred); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder without the files: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(record(1), false)
	f.Add(record(1, 99), true)
	f.Add(record(200)[:50], false)
	f.Fuzz(func(t *testing.T, b []byte, hundred bool) {
		v := Ten
		if hundred {
			v = Hundred
		}
		pix, labels, err := read(v, "f", bytes.NewReader(b), nil, nil)
		if err == nil && (len(labels)*(v.head+pixels) != len(b) || len(pix) != len(labels)*pixels) {
			t.Errorf("%d bytes make %d pictures", len(b), len(labels))
		}
	})
}

func ExampleRead() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "batch.bin")
	os.WriteFile(path, make([]byte, 3073), 0o666) // one black airplane

	ds, err := Read(Ten, path)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ds.Len(), ds.Spec().Inputs[0].Shape, ds.Spec().ClassNames[0])
	// Output: 1 [32 32 3] airplane
}
