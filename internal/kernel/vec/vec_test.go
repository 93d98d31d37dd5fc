package vec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
)

// lengths are those around one and several vectors, where tails begin and end, and a block.
func lengths() []int {
	var ns []int
	for n := range 72 {
		ns = append(ns, n)
	}
	return append(ns, 127, 128, 129, 1000, 1024)
}

// guarded is a slice of n elements that starts at an odd place in a larger array filled with a sentinel.
type guarded[T comparable] struct {
	all      []T
	x        []T
	offset   int
	sentinel T
}

func guard[T comparable](n, offset int, sentinel T) *guarded[T] {
	g := &guarded[T]{all: make([]T, n+offset+40), offset: offset, sentinel: sentinel}
	Fill(g.all, sentinel)
	g.x = g.all[offset : offset+n : offset+n]
	return g
}

// check fails the test if anything outside x was written.
func (g *guarded[T]) check(t *testing.T, what string) {
	t.Helper()
	for i, v := range g.all {
		inside := i >= g.offset && i < g.offset+len(g.x)
		if !inside && v != g.sentinel {
			t.Fatalf("%s wrote outside its slice, at %d", what, i-g.offset)
		}
	}
}

// values are ordinary numbers with special ones strewn in.
func values(r *rand.Rand, n int) []float32 {
	special := ends()
	x := make([]float32, n)
	for i := range x {
		switch r.IntN(8) {
		case 0:
			x[i] = special[r.IntN(len(special))]
		case 1:
			x[i] = math.Float32frombits(r.Uint32())
		default:
			x[i] = float32(r.NormFloat64() * 3)
		}
	}
	return x
}

func same(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || (a != a && b != b)
}

// each runs f for every instruction set, length and a few offsets.
func each(t *testing.T, f func(t *testing.T, what string, n, offset int, r *rand.Rand)) {
	for _, l := range isa.Levels() {
		restore := isa.Use(l)
		r := rand.New(rand.NewPCG(1, 2))
		for _, n := range lengths() {
			for offset := range 4 {
				f(t, fmt.Sprintf("%v n=%d offset=%d", l, n, offset), n, offset, r)
			}
		}
		restore()
	}
}

func TestUnary(t *testing.T) {
	each(t, func(t *testing.T, what string, n, offset int, r *rand.Rand) {
		for op := range NumUnary {
			what := what + " " + op.String()
			leaf := Unary(op)
			a := values(r, n)
			dst := guard(n, offset, float32(-77))
			Fill(dst.x, float32(math.NaN()))
			leaf(dst.x, a)
			dst.check(t, what)
			whole := guard(n, 3-offset, float32(-77)) // in place
			copy(whole.x, a)
			leaf(whole.x, whole.x)
			whole.check(t, what+" in place")
			e, approximate := exact[op]
			for i, x := range a {
				if !same(whole.x[i], dst.x[i]) {
					t.Fatalf("%s in place: [%d] = %g, apart %g", what, i, whole.x[i], dst.x[i])
				}
				if want := unaryScalar[op](x); !approximate && !same(dst.x[i], want) {
					t.Fatalf("%s(%g) = %g, want %g", what, x, dst.x[i], want)
				}
				if approximate {
					if d := ulps(dst.x[i], e.f(float64(x))); d > e.bound {
						t.Fatalf("%s(%g) = %g, want %g: off by %g ulp", what, x, dst.x[i], e.f(float64(x)), d)
					}
				}
			}
		}
	})
}

func TestBinary(t *testing.T) {
	each(t, func(t *testing.T, what string, n, offset int, r *rand.Rand) {
		for op := range NumBinary {
			a, b := values(r, n), values(r, n)
			s := values(r, 1)[0]
			if n > 0 {
				b[0], a[0] = 0, float32(math.Copysign(0, -1))
			}
			f := binaryScalar[op]
			try := func(form string, run func(dst []float32), want func(i int) float32) {
				what := fmt.Sprint(what, " ", op, form)
				dst := guard(n, offset, float32(-77))
				Fill(dst.x, float32(math.NaN()))
				run(dst.x)
				dst.check(t, what)
				for i := range n {
					if op == Pow && ulps(dst.x[i], float64(want(i))) <= 1 { // TestPow has the narrower bound
						continue
					}
					if !same(dst.x[i], want(i)) {
						t.Fatalf("%s of %g, %g, %g = %g, want %g", what, a[i], b[i], s, dst.x[i], want(i))
					}
				}
			}
			vv := func(i int) float32 { return f(a[i], b[i]) }
			try("VV", func(d []float32) { Binary(op)(d, a, b) }, vv)
			try("VV in place of a", func(d []float32) { copy(d, a); Binary(op)(d, d, b) }, vv)
			try("VV in place of b", func(d []float32) { copy(d, b); Binary(op)(d, a, d) }, vv)
			try("VS", func(d []float32) { BinaryVS(op)(d, a, s) }, func(i int) float32 { return f(a[i], s) })
			try("SV", func(d []float32) { BinarySV(op)(d, b, s) }, func(i int) float32 { return f(s, b[i]) })
			if op == Add {
				c := values(r, n)
				try("MulAdd", func(d []float32) { MulAdd()(d, a, b, c) }, func(i int) float32 { return mulAdd(a[i], b[i], c[i]) })
				try("MulAdd in place of c", func(d []float32) { copy(d, c); MulAdd()(d, a, b, d) }, func(i int) float32 { return mulAdd(a[i], b[i], c[i]) })
				try("MulAddVSV", func(d []float32) { MulAddVSV()(d, a, c, s) }, func(i int) float32 { return mulAdd(a[i], s, c[i]) })
				try("MulAddVSS", func(d []float32) { MulAddVSS()(d, a, s, 2) }, func(i int) float32 { return mulAdd(a[i], s, 2) })
				try("Select", func(d []float32) { Select()(d, signs(a), b, c) }, func(i int) float32 { return pick(a[i] < 0, b[i], c[i]) })
				try("Select in place of a", func(d []float32) { copy(d, b); Select()(d, signs(a), d, c) }, func(i int) float32 { return pick(a[i] < 0, b[i], c[i]) })
				try("Select in place of b", func(d []float32) { copy(d, c); Select()(d, signs(a), b, d) }, func(i int) float32 { return pick(a[i] < 0, b[i], c[i]) })
				try("SelectVS", func(d []float32) { SelectVS()(d, signs(a), b, s) }, func(i int) float32 { return pick(a[i] < 0, b[i], s) })
				try("SelectSV", func(d []float32) { copy(d, b); SelectSV()(d, signs(a), d, s) }, func(i int) float32 { return pick(a[i] < 0, s, b[i]) })
			}
		}
	})
}

// mulAdd rounds once but for a double rounding that values never meets.
func mulAdd(a, b, c float32) float32 { return float32(math.FMA(float64(a), float64(b), float64(c))) }

func signs(a []float32) []uint8 {
	m := make([]uint8, len(a))
	for i, x := range a {
		m[i] = holds(Lt, x, 0) * uint8(1+i) // any byte but 0 counts
		if x < 0 && m[i] == 0 {
			m[i] = 255
		}
	}
	return m
}

func pick(yes bool, a, b float32) float32 {
	if yes {
		return a
	}
	return b
}

func TestCompare(t *testing.T) {
	each(t, func(t *testing.T, what string, n, offset int, r *rand.Rand) {
		for op := range NumCompare {
			a, b := values(r, n), values(r, n)
			for i := range n {
				if i%3 == 0 {
					b[i] = a[i]
				}
			}
			s := float32(0.5)
			for _, form := range []string{"VV", "VS"} {
				dst := guard(n, offset, uint8(99))
				if form == "VV" {
					Compare(op)(dst.x, a, b)
				} else {
					CompareVS(op)(dst.x, a, s)
				}
				dst.check(t, what)
				for i := range n {
					y := s
					if form == "VV" {
						y = b[i]
					}
					if want := holds(op, a[i], y); dst.x[i] != want {
						t.Fatalf("%s %v%s(%g, %g) = %d, want %d", what, op, form, a[i], y, dst.x[i], want)
					}
				}
			}
		}
	})
}

func TestConvert(t *testing.T) {
	each(t, func(t *testing.T, what string, n, offset int, r *rand.Rand) {
		a := values(r, n)
		for i := range a {
			if i%5 == 0 {
				a[i] = []float32{1 << 31, -1 << 31, 1<<31 - 128, -1<<31 - 256, 2.5, -2.5}[r.IntN(6)]
			}
		}
		h := guard(n, offset, dtype.BFloat16(0x1234))
		ToBFloat16()(h.x, a)
		h.check(t, what+" ToBFloat16")
		f := guard(n, offset, float32(-77))
		FromBFloat16()(f.x, h.x)
		f.check(t, what+" FromBFloat16")
		w := guard(n, offset, int32(-77))
		ToInt32()(w.x, a)
		w.check(t, what+" ToInt32")
		for i, x := range a {
			if h.x[i] != dtype.ToBFloat16(x) {
				t.Fatalf("%s ToBFloat16(%g) = %#x, want %#x", what, x, h.x[i], dtype.ToBFloat16(x))
			}
			if !same(f.x[i], h.x[i].Float32()) {
				t.Fatalf("%s FromBFloat16(%#x) = %g", what, h.x[i], f.x[i])
			}
			if w.x[i] != toInt32(x) {
				t.Fatalf("%s ToInt32(%g) = %d, want %d", what, x, w.x[i], toInt32(x))
			}
		}
		i32, u8, i8 := make([]int32, n), make([]uint8, n), make([]int8, n)
		for i := range n {
			i32[i], u8[i], i8[i] = int32(r.Uint32()), uint8(r.Uint32()), int8(r.Uint32())
		}
		check := func(name string, run func([]float32), want func(i int) float32) {
			f := guard(n, offset, float32(-77))
			run(f.x)
			f.check(t, what+name)
			for i := range n {
				if f.x[i] != want(i) {
					t.Fatalf("%s %s: [%d] = %g, want %g", what, name, i, f.x[i], want(i))
				}
			}
		}
		check("FromInt32", func(d []float32) { FromInt32()(d, i32) }, func(i int) float32 { return float32(i32[i]) })
		check("FromUint8", func(d []float32) { FromUint8()(d, u8, 1./255) }, func(i int) float32 { return float32(u8[i]) * float32(1./255) })
		check("FromInt8", func(d []float32) { FromInt8()(d, i8, 0.3) }, func(i int) float32 { return float32(i8[i]) * 0.3 })
	})
}

// TestShortest: a leaf handles as many elements as its shortest slice has, whichever that is.
func TestShortest(t *testing.T) {
	for _, l := range isa.Levels() {
		defer isa.Use(l)()
		for _, n := range [][4]int{{20, 40, 40, 40}, {40, 20, 40, 40}, {40, 40, 20, 40}, {40, 40, 40, 20}} {
			dst := make([]float32, n[0])
			Fill(dst, -77)
			a, b, c := make([]float32, n[1]), make([]float32, n[2]), make([]float32, n[3])
			MulAdd()(dst, a, b, c)
			for i := range dst {
				if (i < 20) != (dst[i] == 0) {
					t.Fatalf("%v lengths %v: dst[%d] = %g", l, n, i, dst[i])
				}
			}
		}
	}
}

func TestMasks(t *testing.T) {
	for n := range 40 {
		a, b := make([]uint8, n), make([]uint8, n)
		for i := range n {
			a[i], b[i] = uint8(i&1), uint8(i>>1&1)
		}
		and, or, not := guard(n, 1, uint8(9)), guard(n, 1, uint8(9)), guard(n, 1, uint8(9))
		And(and.x, a, b)
		Or(or.x, a, b)
		Not(not.x, a)
		and.check(t, "And")
		or.check(t, "Or")
		not.check(t, "Not")
		for i := range n {
			if and.x[i] != a[i]&b[i] || or.x[i] != a[i]|b[i] || not.x[i] != 1-a[i] {
				t.Fatalf("n=%d: masks differ at %d", n, i)
			}
		}
	}
}

func TestGeneric(t *testing.T) {
	a, b := []int8{7, -128, 5, 0, -6}, []int8{2, -1, 0, 3, 4}
	want := map[BinaryOp][]int8{Add: {9, 127, 5, 3, -2}, Sub: {5, -127, 5, -3, -10}, Mul: {14, -128, 0, 0, -24}, Div: {3, -128, -1, 0, -1},
		Max: {7, -1, 5, 3, 4}, Min: {2, -128, 0, 0, -6}, ReluGrad: {7, 0, 0, 0, -6}}
	for op, w := range want {
		got := make([]int8, len(a))
		BinaryOf[int8](op)(got, a, b)
		if fmt.Sprint(got) != fmt.Sprint(w) {
			t.Errorf("%v: %v, want %v", op, got, w)
		}
		vs, sv := make([]int8, len(a)), make([]int8, len(a))
		BinaryVSOf[int8](op)(vs, a, b[1])
		BinarySVOf[int8](op)(sv, b, a[1])
		if vs[1] != w[1] || sv[1] != w[1] {
			t.Errorf("%v: VS %d, SV %d, want %d", op, vs[1], sv[1], w[1])
		}
	}
	if BinaryOf[int64](Pow) != nil || UnaryOf[float64](Exp) != nil {
		t.Error("functions that are no plain arithmetic must be nil")
	}
	unary := map[UnaryOp][]int8{Neg: {-7, -128, -5, 0, 6}, Abs: {7, -128, 5, 0, 6}, Sign: {1, -1, 1, 0, -1}, Square: {49, 0, 25, 0, 36}, Relu: {7, 0, 5, 0, 0}}
	for op, w := range unary {
		got := make([]int8, len(a))
		UnaryOf[int8](op)(got, a)
		if fmt.Sprint(got) != fmt.Sprint(w) {
			t.Errorf("%v: %v, want %v", op, got, w)
		}
	}
	m := make([]uint8, len(a))
	CompareOf[int8](Ge)(m, a, b)
	if fmt.Sprint(m) != "[1 0 1 0 0]" {
		t.Errorf("ge: %v", m)
	}
	f := make([]float64, 4)
	Iota(f, 1, 0.5)
	u := make([]uint8, 4)
	Convert(u, f)
	if fmt.Sprint(f, u) != "[1 1.5 2 2.5] [1 1 2 2]" {
		t.Errorf("iota, convert: %v %v", f, u)
	}
	var d [3]float64
	BinaryOf[float64](Div)(d[:], []float64{1, 0, -1}, []float64{0, 0, 0})
	if !math.IsInf(d[0], 1) || d[1] == d[1] || !math.IsInf(d[2], -1) {
		t.Errorf("float division by 0: %v", d)
	}
}

func TestAllocs(t *testing.T) {
	a, m := make([]float32, 1024), make([]uint8, 1024)
	add, exp, sin, lt, sel := Binary(Add), Unary(Exp), Unary(Sin), Compare(Lt), Select()
	if n := allocs.PerRun(func() { add(a, a, a); exp(a, a); sin(a, a); lt(m, a, a); sel(a, m, a, a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkUnary(b *testing.B) {
	for _, l := range isa.Levels() {
		for op := range NumUnary {
			b.Run(fmt.Sprint(l, "/", op), func(b *testing.B) {
				defer isa.Use(l)()
				a, dst := make([]float32, 1024), make([]float32, 1024)
				for i := range a {
					a[i] = float32(i%100)*0.1 + 0.01
				}
				leaf := Unary(op)
				for b.Loop() {
					leaf(dst, a)
				}
				b.ReportMetric(float64(b.N)*1024/float64(b.Elapsed().Nanoseconds()), "elements/ns")
			})
		}
	}
}

func BenchmarkBinary(b *testing.B) {
	for _, l := range isa.Levels() {
		for op := range NumBinary {
			b.Run(fmt.Sprint(l, "/", op), func(b *testing.B) {
				defer isa.Use(l)()
				x, y, dst := make([]float32, 1024), make([]float32, 1024), make([]float32, 1024)
				for i := range x {
					x[i], y[i] = float32(i%100)*0.1+0.01, 2.5
				}
				leaf := Binary(op)
				for b.Loop() {
					leaf(dst, x, y)
				}
				b.ReportMetric(float64(b.N)*1024/float64(b.Elapsed().Nanoseconds()), "elements/ns")
			})
		}
	}
}
