package idx

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
)

// file is an IDX file of the given type and axes.
func file(code byte, axes []uint32, elements ...byte) []byte {
	b := []byte{0, 0, code, byte(len(axes))}
	for _, a := range axes {
		b = binary.BigEndian.AppendUint32(b, a)
	}
	return append(b, elements...)
}

func zip(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

func write(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRead(t *testing.T) {
	long := make([]byte, 4*5000) // more than one buffer of elements
	for i := range 5000 {
		binary.BigEndian.PutUint32(long[4*i:], uint32(-i))
	}
	for want, b := range map[string][]byte{
		"u8[2 3][0 1 2 253 254 255]": file(8, []uint32{2, 3}, 0, 1, 2, 253, 254, 255),
		"i8[2][-1 127]":              file(9, []uint32{2}, 255, 127),
		"i32[2][-2 258]":             file(11, []uint32{2}, 255, 254, 1, 2),
		"i32[1][-256]":               file(12, []uint32{1}, 255, 255, 255, 0),
		"f32[1][1.5]":                file(13, []uint32{1}, binary.BigEndian.AppendUint32(nil, math.Float32bits(1.5))...),
		"f64[1][-0.1]":               file(14, []uint32{1}, binary.BigEndian.AppendUint64(nil, math.Float64bits(-0.1))...),
		"u8[0 3][]":                  file(8, []uint32{0, 3}),
		"i32[5000]":                  file(12, []uint32{5000}, long...),
	} {
		for _, b := range [][]byte{b, zip(b)} {
			got, err := Read(write(t, "f", b))
			if err != nil {
				t.Errorf("%s: %v", want, err)
				continue
			}
			if got.String() != want {
				t.Errorf("read %v, want %s", got, want)
			}
			if got.Len() == 5000 && (got.I32()[4999] != -4999 || got.I32()[2048] != -2048) {
				t.Errorf("elements of the long file are wrong")
			}
		}
	}
}

func TestReadRefuses(t *testing.T) {
	good := file(8, []uint32{2, 3}, 1, 2, 3, 4, 5, 6)
	for want, b := range map[string][]byte{
		"byte 0: the file ends inside the header":             nil,
		"byte 3: the file ends inside the header":             good[:3],
		"byte 9: the file ends inside the lengths":            good[:9],
		"byte 0: begins with 89 50":                           []byte("\x89PNG...."),
		"byte 2: unknown element type 0x0a":                   file(10, []uint32{1}, 1),
		"byte 3: 0 axes":                                      file(8, nil),
		"byte 3: 9 axes":                                      file(8, make([]uint32, 9)),
		"byte 4: axis 0 is 4294967295 long":                   file(8, []uint32{math.MaxUint32}),
		"byte 4: shape [2147483647 2147483647 2147483647]":    file(8, []uint32{math.MaxInt32, math.MaxInt32, math.MaxInt32}),
		"byte 4: the header says [2 3], 6 bytes":              good[:17],
		"byte 4: the header says [1000000], 8000000":          file(14, []uint32{1000000}, 1),
		"byte 18: data after the last element":                append(slices.Clone(good), 0),
		"damaged gzip header":                                 zip(good)[:5],
		"byte 17: the file ends inside the elements":          zip(good[:17]),
		"byte 4: the header says [100000000], 100000000 byte": zip(file(8, []uint32{100000000}, 1)),
		"gzip: invalid checksum":                              damage(zip(good)),
	} {
		path := write(t, "bad.idx", b)
		_, err := Read(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: error %v", want, err)
		}
		if strings.Contains(want, "ends inside") && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q is not io.ErrUnexpectedEOF", want)
		}
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// damage changes the checksum at the end of a gzip file.
func damage(b []byte) []byte {
	b[len(b)-5] ^= 1
	return b
}

func TestOpen(t *testing.T) {
	images, labels := file(8, []uint32{2, 1, 2}, 0, 255, 51, 0), file(8, []uint32{2}, 1, 3)
	ds, err := Open(write(t, "x", images), write(t, "y", zip(labels)), nil)
	if err != nil {
		t.Fatal(err)
	}
	x, y := ds.Spec().Tensors(2)
	if err := ds.Fill([]int{0, 1}, x, y); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(ds.Spec().Inputs[0].Shape, ds.Spec().ClassNames, x[0], y[0]); got != "[1 2 1] [0 1 2 3] f32[2 1 2 1][0 1 0.20000000298023224 0] i32[2][1 3]" {
		t.Error(got)
	}
	for want, paths := range map[string][2][]byte{
		"x: holds u8[2], not u8 pictures":   {labels, labels},
		"y: holds u8[2 1 2], not one u8":    {images, images},
		"2 pictures, but":                   {images, file(8, []uint32{1}, 0)},
		"y: byte 9: class 3, but there are": {images, labels},
	} {
		_, err := Open(write(t, "x", paths[0]), write(t, "y", paths[1]), []string{"a", "b"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v", want, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	good := file(8, []uint32{2, 3}, 1, 2, 3, 4, 5, 6)
	f.Add(good)
	f.Add(zip(good))
	f.Add(file(11, []uint32{1, 2}, 1, 2, 3, 4))
	f.Add(file(14, []uint32{1}, 1, 2, 3, 4, 5, 6, 7, 8))
	f.Add(file(8, []uint32{math.MaxInt32, math.MaxInt32, 4}))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := read("f", bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if x.Len() > len(b)*inflateLimit {
			t.Errorf("%d elements out of %d bytes", x.Len(), len(b))
		}
	})
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	images, labels := filepath.Join(dir, "images"), filepath.Join(dir, "labels")
	// Two pictures of one row of three pixels, with the classes 0 and 1.
	os.WriteFile(images, []byte{0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 51, 255, 255, 51, 0}, 0o666)
	os.WriteFile(labels, []byte{0, 0, 8, 1, 0, 0, 0, 2, 0, 1}, 0o666)

	var ds data.Dataset
	if ds, err = Open(images, labels, []string{"dark to bright", "bright to dark"}); err != nil {
		fmt.Println(err)
		return
	}
	x, y := ds.Spec().Tensors(1)
	if err := ds.Fill([]int{1}, x, y); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(x[0].F32(), ds.Spec().ClassNames[y[0].I32()[0]])
	// Output: [1 0.2 0] bright to dark
}
