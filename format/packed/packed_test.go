package packed

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// filled is a tensor of words that f gives.
func filled(dt dtype.Type, f func(i int) float64, dims ...int) *tensor.Tensor {
	t := tensor.New(dt, dims...)
	for i := range t.Len() {
		t.Set(i, f(i))
	}
	return t
}

var cases = func() map[string]*tensor.Tensor {
	r := rand.New(rand.NewPCG(1, 2))
	normal := func(int) float64 { return r.NormFloat64() }
	few := func(share float64, k int) func(int) float64 {
		return func(int) float64 {
			if r.Float64() < share {
				return 0
			}
			return float64(r.IntN(k)+1) * 0.375
		}
	}
	odd := tensor.New(dtype.F32, 6)
	copy(odd.F32(), []float32{float32(math.NaN()), float32(math.Inf(-1)), float32(math.Copysign(0, -1)), 0, 1e-42, 3e38})
	return map[string]*tensor.Tensor{
		"none": tensor.New(dtype.F32, 0, 5), "one": filled(dtype.F32, normal), "zeros": tensor.New(dtype.F32, 100, 30), "normal": filled(dtype.F32, normal, 300, 17),
		"doubles": filled(dtype.F64, normal, 40), "pruned": filled(dtype.F32, few(0.9, 15), 200, 64), "shared": filled(dtype.F32, few(0, 256), 100, 50), "two values": filled(dtype.F32, few(0.5, 1), 999),
		"bytes": filled(dtype.I8, func(int) float64 { return math.Round(20 * r.NormFloat64()) }, 64, 64), "u8": filled(dtype.U8, func(i int) float64 { return float64(i % 256) }, 2000),
		"numbers": filled(dtype.I64, func(i int) float64 { return float64(i * i) }, 77), "bools": filled(dtype.Bool, func(i int) float64 { return float64(i & 1) }, 50), "odd": odd,
	}
}()

// What was packed comes back bit for bit.
func TestRoundTrip(t *testing.T) {
	for name, v := range cases {
		b := Encode(v)
		got, err := Decode(b, v.DType(), v.Shape())
		if err != nil || !bytes.Equal(got.Bytes(), v.Bytes()) {
			t.Errorf("%s: other values: %v", name, err)
		}
	}
}

// The bytes are close to what the values' entropy says, and never many more than the values themselves.
func TestSize(t *testing.T) {
	for name, v := range cases {
		b := Encode(v)
		if len(b) > len(v.Bytes())*101/100+300 {
			t.Errorf("%s: %d bytes became %d", name, len(v.Bytes()), len(b))
		}
	}
	entropy := func(p float64) float64 { return -p*math.Log2(p) - (1-p)*math.Log2(1-p) }
	v := cases["pruned"] // nine of ten are zero, and there are 15 values else
	want := float64(v.Len()) * (entropy(0.1) + 0.1*math.Log2(15)) / 8
	if got := float64(len(Encode(v))); got > 1.08*want+64 {
		t.Errorf("pruned weights take %g bytes, their entropy is %g", got, want)
	}
	if got := len(Encode(cases["zeros"])); got > 40 {
		t.Errorf("3000 zeros take %d bytes", got)
	}
}

// Bytes that are cut short, or damaged, give an error or other values, never a panic, and nothing great is allocated for them.
func TestDamage(t *testing.T) {
	for name, v := range cases {
		b := Encode(v)
		for cut := range min(len(b), 60) {
			if _, err := Decode(b[:cut], v.DType(), v.Shape()); v.Len() > 0 && !errors.Is(err, ErrFormat) {
				t.Errorf("%s: %d of %d bytes: %v", name, cut, len(b), err)
			}
		}
		for i := range min(len(b), 200) {
			c := bytes.Clone(b)
			c[i] ^= 0x5a
			_, _ = Decode(c, v.DType(), v.Shape())
		}
	}
	if _, err := Decode([]byte{byTable, 1, 0, 0, 0, 0, 0, 0, 0, 0}, dtype.F32, shape.Of(1<<20, 1<<14)); !errors.Is(err, ErrFormat) {
		t.Errorf("ten bytes for 2³⁴ elements: %v", err)
	}
	if _, err := Decode([]byte{9, 9, 9}, dtype.F32, shape.Of(1)); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range cases {
		f.Add(Encode(v), uint8(v.DType()), v.Len())
	}
	f.Fuzz(func(t *testing.T, b []byte, dt uint8, n int) {
		v, err := Decode(b, dtype.Type(dt), shape.Of(n))
		if err == nil && v.Len() != n {
			t.Fatalf("%d elements of %d", v.Len(), n)
		}
	})
}

func Example() {
	weights := tensor.New(dtype.F32, 100, 10) // pruned: nearly all are zero
	weights.Set(7, 0.5)
	weights.Set(300, -0.5)
	b := Encode(weights)
	again, err := Decode(b, weights.DType(), weights.Shape())
	fmt.Println(len(weights.Bytes()), len(b) < 60, err, again.At(7), again.At(300))
	// Output: 4000 true <nil> 0.5 -0.5
}
