package folder

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
)

// plain is a picture of one colour.
func plain(h, w int, c color.Color) image.Image {
	m := image.NewNRGBA(image.Rect(3, 5, 3+w, 5+h)) // bounds need not begin at 0
	for y := range h {
		for x := range w {
			m.Set(3+x, 5+y, c)
		}
	}
	return m
}

func asPNG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asJPEG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 100}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// write makes a folder of the given files.
func write(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOpen(t *testing.T) {
	red, blue := color.NRGBA{255, 0, 0, 255}, color.NRGBA{0, 0, 255, 255}
	dir := write(t, map[string][]byte{
		"red/b.png":        asPNG(t, plain(2, 3, red)),
		"red/sub/a.JPG":    asJPEG(t, plain(8, 8, red)),
		"red/notes.txt":    []byte("no picture"),
		"blue/x.png":       asPNG(t, plain(5, 7, blue)),
		".thumbs/y.png":    []byte("not looked at"),
		"blue/.hidden.png": []byte("nor this"),
		"readme.md":        []byte("nor this"),
	})
	ds, err := Open(dir, Size{Height: 4, Width: 6})
	if err != nil {
		t.Fatal(err)
	}
	spec := ds.Spec()
	if fmt.Sprint(ds.Len(), spec.ClassNames, spec.Inputs[0].Shape) != "3 [blue red] [4 6 3]" {
		t.Fatal(ds.Len(), spec)
	}
	x, y := spec.Tensors(4)
	for i := range x[0].F32() {
		x[0].F32()[i] = float32(math.NaN())
	}
	if err := ds.Fill([]int{2, 0, 1, 0}, x, y); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(y[0].I32(), []int32{1, 0, 1, 0}) {
		t.Errorf("classes %v", y[0].I32())
	}
	for i, v := range x[0].F32() {
		isBlue := i/(4*6*3)%2 == 1
		want := 0.0
		if i%3 == 0 && !isBlue || i%3 == 2 && isBlue {
			want = 1
		}
		if !(math.Abs(float64(v)-want) <= 0.01) { // JPEG's red is 254 of 255
			t.Fatalf("value %d is %v, want %v", i, v, want)
		}
	}
	if ds, err = Open(dir, Size{Channels: 1}); err != nil {
		t.Fatal(err)
	}
	if sh := ds.Spec().Inputs[0].Shape; sh.String() != "[5 7 1]" {
		t.Errorf("the size of the first picture is 5×7: %v", sh)
	}
}

func TestColours(t *testing.T) {
	dst := make([]float32, 3)
	for name, c := range map[string]struct {
		m        image.Image
		channels int
		want     []float32
	}{
		"colour":       {plain(1, 1, color.NRGBA{255, 51, 0, 255}), 3, []float32{1, 0.2, 0}},
		"grey of red":  {plain(1, 1, color.NRGBA{255, 0, 0, 255}), 1, []float32{76. / 255}}, // 0.299 of 255
		"transparent":  {plain(1, 1, color.NRGBA{255, 255, 255, 51}), 3, []float32{0.2, 0.2, 0.2}},
		"grey file":    {&image.Gray{Pix: []byte{51}, Stride: 1, Rect: image.Rect(0, 0, 1, 1)}, 3, []float32{0.2, 0.2, 0.2}},
		"grey to grey": {&image.Gray{Pix: []byte{51}, Stride: 1, Rect: image.Rect(0, 0, 1, 1)}, 1, []float32{0.2}},
		"16 bits":      {&image.Gray16{Pix: []byte{51, 51}, Stride: 2, Rect: image.Rect(0, 0, 1, 1)}, 1, []float32{0.2}},
	} {
		if err := decode(name, bytes.NewReader(asPNG(t, c.m)), Size{1, 1, c.channels}, dst[:c.channels]); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(dst[:c.channels], c.want) {
			t.Errorf("%s: %v, want %v", name, dst[:c.channels], c.want)
		}
	}
}

// TestResize compares with sums written out by hand, and with a direct double sum.
func TestResize(t *testing.T) {
	row := &image.Gray{Pix: []byte{0, 255, 0, 255}, Stride: 4, Rect: image.Rect(0, 0, 4, 1)}
	for _, c := range []struct {
		width int
		want  []float32
	}{
		// Half: the filter reaches 2 to either side, with weights 0.75, 0.75, 0.25 in the middle of what there is.
		{2, []float32{0.75 / 1.75, 1 / 1.75}},
		// Double: weights of a quarter and three quarters.
		{8, []float32{0, 0.25, 0.75, 0.75, 0.25, 0.25, 0.75, 1}},
		{4, []float32{0, 1, 0, 1}},
	} {
		got := make([]float32, c.width)
		resize(got, Size{1, c.width, 1}, row)
		for i := range got {
			if math.Abs(float64(got[i]-c.want[i])) > 1e-6 {
				t.Errorf("4 to %d: %v, want %v", c.width, got, c.want)
				break
			}
		}
	}

	const h, w = 13, 9
	m := image.NewGray(image.Rect(0, 0, w, h))
	for i := range m.Pix {
		m.Pix[i] = byte(i * 37)
	}
	for _, s := range []Size{{5, 4, 1}, {13, 4, 1}, {26, 20, 1}, {1, 1, 1}, {7, 30, 1}} {
		got := make([]float32, s.Height*s.Width)
		resize(got, s, m)
		for y := range s.Height {
			for x := range s.Width {
				want, sum := 0.0, 0.0
				for sy := range h {
					for sx := range w {
						weight := tent(sy, h, y, s.Height) * tent(sx, w, x, s.Width)
						want += weight * float64(m.Pix[sy*w+sx]) / 255
						sum += weight
					}
				}
				if d := math.Abs(float64(got[y*s.Width+x]) - want/sum); d > 1e-5 {
					t.Fatalf("%v at %d, %d: %v, want %v", s, y, x, got[y*s.Width+x], want/sum)
				}
			}
		}
	}
}

// tent is the weight of source position i of n for position o of m.
func tent(i, n, o, m int) float64 {
	scale := float64(n) / float64(m)
	return max(0, 1-math.Abs(float64(i)+0.5-(float64(o)+0.5)*scale)/max(1, scale))
}

func TestOpenRefuses(t *testing.T) {
	good := asPNG(t, plain(2, 2, color.White))
	for want, c := range map[string]struct {
		files map[string][]byte
		size  Size
	}{
		"no folders in it":                  {map[string][]byte{"a.png": good}, Size{}},
		"no .png, .jpg or .jpeg file":       {map[string][]byte{"a/x.png": good, "b/notes.txt": nil}, Size{}},
		"with 2 channels":                   {map[string][]byte{"a/x.png": good}, Size{Channels: 2}},
		"pictures of -1×4":                  {map[string][]byte{"a/x.png": good}, Size{Height: -1, Width: 4}},
		"x.png: image: unknown format":      {map[string][]byte{"a/x.png": []byte("GIF89a")}, Size{}},
		"pictures of 4611686018427387904×4": {map[string][]byte{"a/x.png": good}, Size{Height: 1 << 62, Width: 4}},
	} {
		dir := write(t, c.files)
		if _, err := Open(dir, c.size); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v", want, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), Size{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

// huge is the head of a PNG file that claims a great size.
func huge(h, w uint32) []byte {
	chunk := append([]byte("IHDR"), binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)...)
	chunk = append(chunk, 8, 0, 0, 0, 0)
	b := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), chunk...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(chunk))
}

func TestFillNamesBadFiles(t *testing.T) {
	good := asPNG(t, plain(2, 2, color.White))
	dir := write(t, map[string][]byte{
		"a/1.png": good, "a/2.png": good[:len(good)-20], "a/3.png": good, "a/4.jpg": good[:8],
		"a/5.png": huge(30000, 30000), "a/6.png": huge(1000, 1000), "a/7.png": huge(1, 1<<17),
	})
	ds, err := Open(dir, Size{})
	if err != nil {
		t.Fatal(err)
	}
	x, y := ds.Spec().Tensors(7)
	err = ds.Fill([]int{0, 1, 2, 3, 4, 5, 6}, x, y)
	if err == nil {
		t.Fatal("damaged files are no error")
	}
	for _, want := range []string{
		filepath.Join(dir, "a", "2.png") + ": png: invalid format: unexpected EOF (within the first",
		filepath.Join(dir, "a", "4.jpg") + ": ",
		"5.png: claims a picture of 30000×30000 pixels in 33 bytes",
		"6.png: claims a picture of 1000×1000 pixels in 33 bytes",
		"7.png: claims a picture of 131072×1 pixels",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	for _, not := range []string{"1.png", "3.png"} {
		if strings.Contains(err.Error(), not) {
			t.Errorf("the error names the good file %s: %v", not, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "a", "3.png")); err != nil {
		t.Fatal(err)
	}
	x, y = ds.Spec().Tensors(1)
	if err := ds.Fill([]int{2}, x, y); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that has gone: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	m := plain(3, 4, color.NRGBA{200, 100, 50, 128})
	f.Add(asPNG(f, m), byte(2), byte(5), true)
	f.Add(asJPEG(f, m), byte(9), byte(1), false)
	f.Add(huge(30000, 30000), byte(1), byte(1), true)
	f.Add(huge(300, 300), byte(1), byte(1), true)
	f.Fuzz(func(t *testing.T, b []byte, h, w byte, grey bool) {
		size := Size{int(h)%16 + 1, int(w)%16 + 1, 3}
		if grey {
			size.Channels = 1
		}
		dst := make([]float32, size.Height*size.Width*size.Channels)
		for i := range dst {
			dst[i] = float32(math.NaN())
		}
		if decode("f", bytes.NewReader(b), size, dst) != nil {
			return
		}
		for i, v := range dst {
			if !(v >= 0 && v <= 1) {
				t.Fatalf("value %d is %v", i, v)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	photo := asJPEG(b, plain(480, 640, color.NRGBA{200, 100, 50, 255}))
	dst := make([]float32, 224*224*3)
	b.ReportAllocs()
	for b.Loop() {
		if err := decode("photo", bytes.NewReader(photo), Size{224, 224, 3}, dst); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	for _, class := range []string{"day", "night"} {
		os.Mkdir(filepath.Join(dir, class), 0o777)
		f, err := os.Create(filepath.Join(dir, class, "1.png"))
		if err != nil {
			fmt.Println(err)
			return
		}
		png.Encode(f, plain(20, 30, map[string]color.Color{"day": color.White, "night": color.Black}[class]))
		f.Close()
	}

	var ds data.Dataset
	if ds, err = Open(dir, Size{Height: 1, Width: 2, Channels: 1}); err != nil {
		fmt.Println(err)
		return
	}
	x, y := ds.Spec().Tensors(2)
	if err := ds.Fill([]int{0, 1}, x, y); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ds.Spec().ClassNames, x[0].F32(), y[0].I32())
	// Output: [day night] [1 1 0 0] [0 1]
}
