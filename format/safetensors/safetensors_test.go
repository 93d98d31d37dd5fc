package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/tensor"
)

// build makes a file of a header and data.
func build(header string, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func open(b []byte) (*File, error) { return NewFile(bytes.NewReader(b), int64(len(b)), "file") }

// TestReference reads what the reference implementation wrote.
func TestReference(t *testing.T) {
	f, err := Open("testdata/python.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := f.Metadata()["made by"]; got != `safetensors <0.8.0> "ä"` {
		t.Errorf("metadata %q", got)
	}
	inf := math.Inf(1)
	for _, want := range []struct {
		name, text string
		values     []float64
	}{
		{"dense/kernel", "f32[2 3]", []float64{-1, -0.75, -0.5, -0.25, 0, 0.25}},
		{"scalar", "f64[]", []float64{math.Pi}},
		{"empty", "f32[0 3]", []float64{}},
		{"bf", "bf16[3]", []float64{1, -2.5, 3.140625}},
		{"half", "f32[9]", []float64{0, math.Copysign(0, -1), 1, -2, 65504, 0x1p-24, 0x1p-14, inf, -inf}},
		{"i8", "i8[3]", []float64{-128, 0, 127}},
		{"u8", "u8[1 2]", []float64{0, 255}},
		{"i32", "i32[2]", []float64{math.MinInt32, math.MaxInt32}},
		{"bool", "bool[3]", []float64{1, 0, 1}},
		{`name "quoted" <ä&>`, "f32[1]", []float64{42}},
	} {
		x, err := f.Load(want.name)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := fmt.Sprint(x.DType(), x.Shape()); got != strings.Replace(want.text, "[", " [", 1) {
			t.Errorf("%s: %s, want %s", want.name, got, want.text)
		}
		if got := x.Floats(); !slices.Equal(got, want.values) {
			t.Errorf("%s: %v, want %v", want.name, got, want.values)
		}
	}
	i64, err := f.Load("i64")
	if err != nil || !slices.Equal(tensor.Data[int64](i64), []int64{math.MinInt64, math.MaxInt64}) {
		t.Error(i64, err)
	}
	half, _ := f.Load("half")
	if !math.Signbit(half.At(1)) {
		t.Error("the sign of -0 is lost")
	}
	if _, err := f.Load("u16"); err == nil || !strings.Contains(err.Error(), "U16") {
		t.Errorf("u16: %v", err)
	}
	if _, err := f.Load("conv/kernel"); err == nil || !strings.Contains(err.Error(), `such as "dense/kernel"`) {
		t.Errorf("a missing name: %v", err)
	}
	if len(f.Tensors()) != 12 {
		t.Error(len(f.Tensors()), "tensors")
	}
}

// TestCanonical: reading and writing gives the reference implementation's bytes again, in whatever order the tensors are given.
func TestCanonical(t *testing.T) {
	want, err := os.ReadFile("testdata/canonical.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	all, meta, err := ReadFile("testdata/canonical.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var b bytes.Buffer
		n, err := Write(&b, all, meta)
		if err != nil || n != int64(b.Len()) {
			t.Fatal(n, b.Len(), err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Fatalf("got\n%q\nwant\n%q", b.Bytes(), want)
		}
	}
}

func sample() []Named {
	return []Named{
		{"w", tensor.Of([]float32{1, 2, 3, 4, 5, 6}, 2, 3)},
		{"steps", tensor.Scalar(int64(7))},
		{"mask", tensor.Of([]bool{true, false, true})},
		{"none", tensor.New(dtype.F64, 0, 4)},
	}
}

// reads counts the bytes that are read.
type reads struct {
	*bytes.Reader
	n int
}

func (r *reads) ReadAt(p []byte, at int64) (int, error) {
	r.n += len(p)
	return r.Reader.ReadAt(p, at)
}

// Parts of tensors are what a slice of the whole is, along any axis, of types that are converted too, and no more of the file is read than they need.
func TestPart(t *testing.T) {
	w := tensor.New(dtype.F32, 6, 50, 700)
	for i := range w.F32() {
		w.F32()[i] = float32(i)
	}
	small := tensor.Of([]int64{1, 2, 3, 4, 5, 6}, 2, 3)
	var b bytes.Buffer
	if _, err := Write(&b, []Named{{"w", w}, {"small", small}, {"mask", tensor.Of([]bool{true, false, true})}, {"half", tensor.New(dtype.BF16, 3, 4)}}, nil); err != nil {
		t.Fatal(err)
	}
	r := &reads{Reader: bytes.NewReader(b.Bytes())}
	f, err := NewFile(r, int64(b.Len()), "file")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name         string
		axis, lo, hi int
		most         int // bytes that are read
	}{{"w", 0, 2, 3, 140000}, {"w", 1, 10, 35, 420000}, {"w", 1, 3, 4, 16800}, {"w", 2, 690, 700, 840000}, {"w", 2, 0, 700, 840000}, {"w", 1, 7, 7, 0}, {"small", 1, 1, 3, 48}, {"small", 0, 1, 2, 24}, {"mask", 0, 1, 3, 2}, {"half", 1, 0, 1, 24}} {
		whole, err := f.Load(c.name)
		if err != nil {
			t.Fatal(err)
		}
		r.n = 0
		got, err := f.Part(c.name, c.axis, c.lo, c.hi)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if r.n > c.most {
			t.Errorf("%+v: %d bytes are read", c, r.n)
		}
		sh := whole.Shape().Clone()
		sh[c.axis] = c.hi - c.lo
		if !got.Shape().Equal(sh) || got.DType() != whole.DType() {
			t.Fatalf("%+v: %v%v", c, got.DType(), got.Shape())
		}
		inner := sh[c.axis+1:].Size()
		for i := range got.Len() {
			at := i%inner + (i/inner%sh[c.axis]+c.lo)*inner + i/inner/max(1, sh[c.axis])*inner*whole.Shape()[c.axis]
			if got.At(i) != whole.At(at) {
				t.Fatalf("%+v: element %d is %v, not %v", c, i, got.At(i), whole.At(at))
			}
		}
	}
	for _, c := range [][3]int{{3, 0, 1}, {-1, 0, 1}, {0, 5, 4}, {0, -1, 2}, {0, 0, 7}} {
		if _, err := f.Part("w", c[0], c[1], c[2]); err == nil {
			t.Errorf("%v is taken", c)
		}
	}
	if _, err := f.Part("v", 0, 0, 1); err == nil {
		t.Error("a tensor that is not there is read")
	}
}

func TestSummed(t *testing.T) {
	// The digits of a checksum inside other metadata or in a tensor's name must not confuse the place of the real one.
	meta := map[string]string{"a": `"joule.checksum":"sha256:0000`, "joule.checksuma": "x", "z": checksumBlank}
	var b bytes.Buffer
	if _, err := WriteSummed(&b, append(sample(), Named{ChecksumKey, tensor.Scalar(float32(1))}), meta); err != nil {
		t.Fatal(err)
	}
	f, err := open(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 5 || got[1].Name != "none" || got[3].Name != "w" || !slices.Equal(got[3].Value.F32(), []float32{1, 2, 3, 4, 5, 6}) {
		t.Errorf("%v", got)
	}
	if f.Metadata()["z"] != checksumBlank {
		t.Error("other metadata changed")
	}
	// Any single bit that flips anywhere is noticed, and so is any truncation.
	for i := range b.Len() {
		bad := bytes.Clone(b.Bytes())
		bad[i] ^= 1 << (i % 8)
		if f, err := open(bad); err == nil {
			if _, summed := f.Metadata()[ChecksumKey]; !summed {
				continue // the key itself was hit; package checkpoint demands it
			}
			if _, err = f.ReadAll(); err == nil {
				t.Fatalf("a flipped bit at offset %d went unnoticed", i)
			} else if !errors.Is(err, ErrChecksum) {
				t.Errorf("offset %d: %v does not wrap ErrChecksum", i, err)
			}
		} else if !errors.Is(err, ErrFormat) {
			t.Errorf("offset %d: %v does not wrap ErrFormat", i, err)
		}
		if _, err := open(b.Bytes()[:i]); !errors.Is(err, ErrFormat) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := WriteSummed(&b, nil, map[string]string{ChecksumKey: "mine"}); err == nil {
		t.Error("a checksum of the caller's own was accepted")
	}
}

func TestBadFiles(t *testing.T) {
	for _, c := range []struct {
		what string
		file []byte
		want string // in the error
	}{
		{"empty", nil, "0 bytes long"},
		{"seven bytes", make([]byte, 7), "7 bytes long"},
		{"huge header", []byte{255, 255, 255, 255, 255, 255, 255, 255, '{'}, "the limit is"},
		{"header beyond the end", []byte{9, 0, 0, 0, 0, 0, 0, 0, '{', '}'}, "only 2 follow"},
		{"no header", build(""), "does not begin with {"},
		{"not JSON", build("{]"), "offset"},
		{"array", build("[]"), "does not begin with {"},
		{"unfinished", build(`{"a":`), `tensor "a"`},
		{"text after", build(`{}x`), "more text"},
		{"not UTF-8", build("{\"\xff\":1}"), "UTF-8"},
		{"unknown dtype", build(`{"a":{"dtype":"F31","shape":[],"data_offsets":[0,4]}}`, 0, 0, 0, 0), `unknown dtype "F31"`},
		{"no dtype", build(`{"a":{"shape":[],"data_offsets":[0,4]}}`, 0, 0, 0, 0), "unknown dtype"},
		{"no shape", build(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, 0, 0, 0, 0), "no shape"},
		{"no offsets", build(`{"a":{"dtype":"F32","shape":[]}}`, 0, 0, 0, 0), "0 numbers"},
		{"three offsets", build(`{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4,4]}}`, 0, 0, 0, 0), "3 numbers"},
		{"fraction", build(`{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}`, 0, 0, 0, 0), `tensor "a"`},
		{"negative axis", build(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, 0, 0, 0, 0), "negative"},
		{"negative offset", build(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}`), "backwards"},
		{"backwards", build(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, 0, 0, 0, 0), "backwards"},
		{"overflow", build(`{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,4]}}`, 0, 0, 0, 0), "too many elements"},
		{"wrong size", build(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 0, 0, 0, 0), "takes 8 bytes"},
		{"huge tensor", build(`{"a":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}`, 0), "cut short"},
		{"half a byte", build(`{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}`, 0, 0), "whole bytes"},
		{"twice", build(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 0, 0), "given twice"},
		{"overlap", build(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 0, 0, 0), `"b" overlaps tensor "a"`},
		{"same bytes", build(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 0, 0), "overlaps"},
		{"gap", build(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 0, 0, 0), "belong to nothing"},
		{"gap at the start", build(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 0, 0), "between the header and"},
		{"trailing bytes", build(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 0, 0), "after tensor"},
		{"metadata is text", build(`{"__metadata__":"x"}`), "object of strings"},
		{"metadata of numbers", build(`{"__metadata__":{"a":1}}`), "not text"},
		{"metadata nested", build(`{"__metadata__":{"a":{}}}`), "not text"},
		{"metadata twice", build(`{"__metadata__":{},"__metadata__":{}}`), "twice"},
		{"metadata key twice", build(`{"__metadata__":{"a":"1","a":"2"}}`), "twice"},
	} {
		_, err := open(c.file)
		if !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", c.what, err)
		} else if !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "file: ") {
			t.Errorf("%s: %q does not say %q", c.what, err, c.want)
		}
	}
	f, err := open(build(`{"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}`, 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load("a"); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "offset 64") {
		t.Errorf("a bool of 2: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := Open(t.TempDir()); err == nil {
		t.Error("opened a folder")
	}
}

func TestGoodFiles(t *testing.T) {
	for what, file := range map[string][]byte{
		"nothing":           build("{}"),
		"only metadata":     build(`{"__metadata__":{}}`),
		"padded":            build("{}      "),
		"empty in between":  build(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"e":{"dtype":"U8","shape":[0,9],"data_offsets":[1,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 1, 2),
		"any order":         build(`{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1, 2),
		"unsupported types": build(`{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]},"b":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[1,2]}}`, 1, 2),
	} {
		f, err := open(file)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if what == "unsupported types" {
			continue
		}
		if _, err := f.ReadAll(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	one := tensor.Scalar(float32(1))
	for what, in := range map[string][]Named{
		"nil":           {{"a", nil}},
		"twice":         {{"a", one}, {"a", one}},
		"metadata name": {{MetadataKey, one}},
		"not UTF-8":     {{"\xff", one}},
	} {
		var b bytes.Buffer
		if _, err := Write(&b, in, nil); err == nil || b.Len() > 0 {
			t.Errorf("%s: error %v, %d bytes written", what, err, b.Len())
		}
	}
	if _, err := Write(&bytes.Buffer{}, nil, map[string]string{"a": "\xff"}); err == nil {
		t.Error("metadata that is not UTF-8 was written")
	}
	if _, err := Write(&bytes.Buffer{}, nil, map[string]string{"a": strings.Repeat("x", MaxHeader)}); err == nil {
		t.Error("a header beyond the limit was written")
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := WriteFile(path, sample(), map[string]string{"k": "v"}); err != nil {
		t.Fatal(err)
	}
	all, meta, err := ReadFile(path)
	if err != nil || len(all) != 4 || meta["k"] != "v" || meta[ChecksumKey] == "" {
		t.Error(all, meta, err)
	}
	if err := WriteFile(filepath.Join(path, "below a file"), nil, nil); err == nil || !strings.Contains(err.Error(), "below a file") {
		t.Error(err)
	}
}

// TestHalf compares every finite half with the definition: (-1)^s · 2^(e-15) · (1 + f/1024), and f · 2^-24 where e is 0.
func TestHalf(t *testing.T) {
	for h := range 1 << 16 {
		e, f := h>>10&31, float64(h&1023)
		want := math.Ldexp(1+f/1024, e-15)
		switch {
		case e == 0:
			want = math.Ldexp(f, -24)
		case e == 31 && f == 0:
			want = math.Inf(1)
		case e == 31:
			want = math.NaN()
		}
		if h >= 1<<15 {
			want = -want
		}
		got := float64(halfToFloat(uint16(h)))
		if got != want && !(got != got && want != want) {
			t.Fatalf("%#04x: %v, want %v", h, got, want)
		}
	}
}

func TestSwap(t *testing.T) {
	b := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	swap(b, 4)
	if !bytes.Equal(b, []byte{4, 3, 2, 1, 8, 7, 6, 5}) {
		t.Error(b)
	}
	swap(b, 1)
	if b[0] != 4 {
		t.Error(b)
	}
}

// FuzzRead: no file makes the reader panic or take more memory than the file allows, and what can be read can be written and read again.
func FuzzRead(f *testing.F) {
	for _, name := range []string{"python", "canonical"} {
		b, err := os.ReadFile("testdata/" + name + ".safetensors")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	var b bytes.Buffer
	if _, err := WriteSummed(&b, sample(), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(build(`{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}`, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := open(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("%v does not wrap ErrFormat", err)
			}
			return
		}
		all, err := file.ReadAll()
		if err != nil {
			return
		}
		size := 0
		for _, x := range all {
			size += len(x.Value.Bytes())
		}
		if size > 2*len(b) {
			t.Fatalf("%d bytes of tensors from a file of %d", size, len(b))
		}
		meta := map[string]string{}
		for k, v := range file.Metadata() {
			if k != ChecksumKey {
				meta[k] = v
			}
		}
		for i := range all {
			if all[i].Name == MetadataKey {
				t.Fatal("metadata came back as a tensor")
			}
		}
		var again bytes.Buffer
		if _, err := WriteSummed(&again, all, meta); err != nil {
			t.Fatal(err)
		}
		file2, err := open(again.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		all2, err := file2.ReadAll()
		if err != nil || len(all2) != len(all) {
			t.Fatal(len(all2), len(all), err)
		}
		for _, x := range all2 {
			i := slices.IndexFunc(all, func(y Named) bool { return y.Name == x.Name })
			if i < 0 || !bytes.Equal(all[i].Value.Bytes(), x.Value.Bytes()) || !all[i].Value.Shape().Equal(x.Value.Shape()) {
				t.Fatalf("tensor %q changed", x.Name)
			}
		}
	})
}

func BenchmarkWriteSummed(b *testing.B) {
	x := []Named{{"w", tensor.New(dtype.F32, 1<<22)}}
	b.SetBytes(1 << 24)
	for b.Loop() {
		if _, err := WriteSummed(discard{}, x, nil); err != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
