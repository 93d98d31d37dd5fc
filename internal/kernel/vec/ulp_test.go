package vec

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/internal/isa"
)

// exact is each transcendental function in float64, which is 2^29 times finer than what is tested.
var exact = map[UnaryOp]struct {
	f     func(float64) float64
	bound float64 // in units in the last place
}{
	Exp:     {math.Exp, 1},
	Expm1:   {math.Expm1, 1.75},
	Log:     {math.Log, 1},
	Log1p:   {math.Log1p, 1},
	Tanh:    {math.Tanh, 1.5},
	Sigmoid: {func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, 2.5},
	Softplus: {func(x float64) float64 {
		return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x)))
	}, 2},
	Erf:        {math.Erf, 1.25},
	Sin:        {math.Sin, 1.5},
	Cos:        {math.Cos, 1.5},
	Rsqrt:      {func(x float64) float64 { return 1 / math.Sqrt(x) }, 1.5},
	Sqrt:       {math.Sqrt, 0.5},
	Reciprocal: {func(x float64) float64 { return 1 / x }, 0.5},
}

// ulps is how far got lies from want in units in the last place of want as a float32.
func ulps(got float32, want float64) float64 {
	w := float32(want)
	switch {
	case got != got && w != w:
		return 0
	case got == w && math.Signbit(float64(got)) == math.Signbit(want):
		if math.IsInf(want, 0) {
			return 0
		}
		return min(math.Abs(float64(got)-want)/ulp(w), 0.5) // min: an infinity that stands for a finite number
	case got != got || w != w || math.IsInf(float64(w), 0):
		return math.Inf(1)
	}
	return math.Abs(float64(got)-want) / ulp(w)
}

func ulp(x float32) float64 {
	if x = float32(math.Abs(float64(x))); x >= math.MaxFloat32 {
		return 1 << 104
	}
	_, e := math.Frexp(float64(x))
	return math.Ldexp(1, max(e-24, -149))
}

// ends are the arguments at which something changes, and their neighbours.
func ends() []float32 {
	inf := float32(math.Inf(1))
	xs := []float32{0, 1, 2, 0.5, 0.95, 0.625, 1 << 15, math.MaxFloat32, math.SmallestNonzeroFloat32, 0x1p-126, 0x1p-125, 88.72283, 88.72284, 89, 87.33654, 103.27893, 103.97, 104,
		17.3, 18, 16.6, 20, 9.01, 4, 3.9, 0.75, 1.5, math.Ln2, math.Ln2 / 2, math.Pi, math.Pi / 2, math.Pi / 4, 0x1p-12, 0x1p-24, 0x1p-25, 1e10, 1e30, inf}
	for _, x := range xs {
		for range 3 {
			xs = append(xs, math.Nextafter32(x, inf), math.Nextafter32(x, -inf))
		}
	}
	for _, x := range xs {
		xs = append(xs, -x)
	}
	return append(xs, float32(math.NaN()))
}

// TestPow: all pairs of special values, and many others whose power is finite or not.
func TestPow(t *testing.T) {
	const bound = 0.51
	special := append(ends(), 3, -3, 1<<24+2, 1<<23+1, 16777215, 1<<25, 2.5, -2.5, 1./3)
	r := rand.New(rand.NewPCG(1, 2))
	var a, b []float32
	for _, x := range special {
		for _, y := range special {
			a, b = append(a, x), append(b, y)
		}
	}
	for range 300000 {
		x := float32(math.Exp(r.NormFloat64() * 20))
		y := float32(150 * (2*r.Float64() - 1) / (1 + math.Abs(math.Log2(float64(x)))))
		if r.IntN(4) == 0 {
			x, y = -x, float32(math.Round(float64(y)))
		}
		a, b = append(a, x), append(b, y)
	}
	got := make([]float32, len(a))
	for _, l := range isa.Levels() {
		restore := isa.Use(l)
		Binary(Pow)(got, a, b)
		restore()
		worst := 0.0
		for i := range a {
			want := math.Pow(float64(a[i]), float64(b[i]))
			d := ulps(got[i], want)
			worst = max(worst, d)
			if d > bound {
				t.Fatalf("%v: pow(%g, %g) = %g, want %g: off by %.3f ulp", l, a[i], b[i], got[i], want, d)
			}
		}
		t.Logf("%v: %.4f ulp", l, worst)
	}
}

func TestUnaryULP(t *testing.T) {
	// Every 4099th bit pattern, and every 64th of an octave on either side of 1, where most functions are used.
	xs := ends()
	for u := uint64(0); u < 1<<32; u += 4099 {
		xs = append(xs, math.Float32frombits(uint32(u)))
	}
	for u := math.Float32bits(0.25); u < math.Float32bits(8); u += 97 {
		xs = append(xs, math.Float32frombits(u), -math.Float32frombits(u))
	}
	got := make([]float32, len(xs))
	for op, e := range exact {
		want := make([]float64, len(xs))
		for i, x := range xs {
			want[i] = e.f(float64(x))
		}
		for _, l := range isa.Levels() {
			restore := isa.Use(l)
			Unary(op)(got, xs)
			restore()
			worst, at := 0.0, 0
			for i := range xs {
				if d := ulps(got[i], want[i]); d > worst {
					worst, at = d, i
				}
			}
			t.Logf("%-10v %-8v %.3f ulp", op, l, worst)
			if worst > e.bound {
				t.Errorf("%v %v(%g = %#08x) = %g, want %g: off by %.3f ulp, bound %g", l, op, xs[at], math.Float32bits(xs[at]), got[at], want[at], worst, e.bound)
			}
		}
	}
}
