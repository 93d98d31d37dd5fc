package conv

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// cases are the geometries that every direction is tested on.
var cases = []Spec{
	{N: 2, H: 6, W: 7, Cin: 5, Cout: 4, KH: 3, KW: 3},
	{N: 2, H: 8, W: 8, Cin: 1, Cout: 32, KH: 3, KW: 3},                                                                            // first layer
	{N: 3, H: 5, W: 5, Cin: 3, Cout: 17, KH: 3, KW: 3, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1},                          // same
	{N: 1, H: 1, W: 1, Cin: 7, Cout: 9, KH: 3, KW: 3, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1},                           // only the middle tap
	{N: 3, H: 5, W: 7, Cin: 40, Cout: 260, KH: 1, KW: 1},                                                                          // its gradient too
	{N: 4, H: 3, W: 3, Cin: 8, Cout: 16, KH: 1, KW: 1},                                                                            // a matrix product
	{N: 2, H: 7, W: 6, Cin: 8, Cout: 130, KH: 1, KW: 1, StrideH: 2, StrideW: 2},                                                   // pixels left out
	{N: 2, H: 7, W: 6, Cin: 3, Cout: 5, KH: 3, KW: 2, StrideH: 2, StrideW: 2, PadTop: 1, PadBottom: 1, PadRight: 1},               // odd padding
	{N: 2, H: 9, W: 8, Cin: 4, Cout: 6, KH: 3, KW: 3, StrideH: 2, StrideW: 3, PadTop: 1, PadLeft: 1},                              // two strides
	{N: 2, H: 15, W: 17, Cin: 3, Cout: 8, KH: 7, KW: 7, StrideH: 2, StrideW: 2, PadTop: 3, PadBottom: 3, PadLeft: 3, PadRight: 3}, // 7×7
	{N: 1, H: 11, W: 9, Cin: 6, Cout: 20, KH: 5, KW: 5, PadTop: 2, PadBottom: 2, PadLeft: 2, PadRight: 2},
	{N: 1, H: 8, W: 9, Cin: 2, Cout: 3, KH: 3, KW: 3, DilH: 2, DilW: 3, PadTop: 2, PadBottom: 2, PadLeft: 1, PadRight: 2},
	{N: 1, H: 11, W: 12, Cin: 2, Cout: 3, KH: 3, KW: 4, StrideH: 2, StrideW: 4, DilH: 2, DilW: 2, PadTop: 2, PadLeft: 3}, // stride and dilation
	{N: 1, H: 9, W: 10, Cin: 2, Cout: 3, KH: 2, KW: 3, StrideH: 3, StrideW: 2, DilH: 2, DilW: 3},
	{N: 1, H: 4, W: 5, Cin: 4, Cout: 6, KH: 2, KW: 2, Groups: 2},
	{N: 2, H: 5, W: 4, Cin: 12, Cout: 9, KH: 3, KW: 3, Groups: 3, PadTop: 1, PadLeft: 1, PadRight: 1},
	{N: 2, H: 5, W: 4, Cin: 5, Cout: 5, KH: 3, KW: 3, Groups: 5, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1}, // depthwise
	{N: 2, H: 9, W: 8, Cin: 35, Cout: 35, KH: 3, KW: 3, Groups: 35, StrideH: 2, StrideW: 2, PadBottom: 1, PadRight: 1},
	{N: 1, H: 9, W: 14, Cin: 64, Cout: 64, KH: 3, KW: 3, Groups: 64, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1},
	{N: 1, H: 7, W: 9, Cin: 17, Cout: 17, KH: 5, KW: 3, Groups: 17, DilW: 2, PadTop: 2, PadBottom: 2},
	{N: 2, H: 5, W: 4, Cin: 5, Cout: 10, KH: 3, KW: 3, Groups: 5, PadTop: 1, PadBottom: 1}, // two filters a channel
	{N: 2, H: 1, W: 9, Cin: 4, Cout: 8, KH: 1, KW: 3},                                      // one axis
	{N: 1, H: 2, W: 2, Cin: 3, Cout: 4, KH: 2, KW: 2, PadTop: 4, PadLeft: 3, PadBottom: 5}, // pixels that meet only padding
	{N: 1, H: 5, W: 5, Cin: 3, Cout: 4, KH: 1, KW: 2, StrideH: 3, StrideW: 4},              // pixels of x that nothing reads
	{N: 2, H: 10, W: 10, Cin: 33, Cout: 65, KH: 3, KW: 3, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1},
	{N: 5, H: 4, W: 4, Cin: 130, Cout: 70, KH: 3, KW: 3, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1},
	{N: 1, H: 13, W: 11, Cin: 32, Cout: 48, KH: 3, KW: 3},
	{N: 3, H: 7, W: 5, Cin: 19, Cout: 260, KH: 3, KW: 2, StrideH: 2, StrideW: 1, PadTop: 1, PadBottom: 1, PadLeft: 1}, // patches
	{N: 4, H: 15, W: 15, Cin: 16, Cout: 256, KH: 1, KW: 1, StrideH: 2, StrideW: 2},                                    // 256 pixels of them
	{N: 1, H: 3, W: 4, Cin: 288, Cout: 144, KH: 3, KW: 3, DilW: 2, PadTop: 1, PadBottom: 1, PadLeft: 2, PadRight: 2},  // filters larger than L2
	{N: 0, H: 4, W: 4, Cin: 3, Cout: 4, KH: 3, KW: 3},
}

func (s Spec) label() string {
	l := fmt.Sprintf("%dx%dx%dx%d_%dx%dx%d", s.N, s.H, s.W, s.Cin, s.KH, s.KW, s.Cout)
	if s.StrideH > 1 || s.StrideW > 1 {
		l += fmt.Sprintf("_s%d,%d", s.StrideH, s.StrideW)
	}
	if p := [4]int{s.PadTop, s.PadBottom, s.PadLeft, s.PadRight}; p != [4]int{} {
		l += fmt.Sprintf("_p%d,%d,%d,%d", p[0], p[1], p[2], p[3])
	}
	if s.DilH > 1 || s.DilW > 1 {
		l += fmt.Sprintf("_d%d,%d", s.DilH, s.DilW)
	}
	if s.Groups > 1 {
		l += fmt.Sprintf("_g%d", s.Groups)
	}
	return l
}

// walk visits every product of a convolution: positions in x, w and y.
func (s Spec) walk(f func(xi, wi, yi int)) {
	s = s.normal()
	oh, ow, cg, og := s.OH(), s.OW(), s.Cin/s.Groups, s.Cout/s.Groups
	for n := range s.N {
		for oy := range oh {
			for ox := range ow {
				for ky := range s.KH {
					for kx := range s.KW {
						iy, ix := oy*s.StrideH-s.PadTop+ky*s.DilH, ox*s.StrideW-s.PadLeft+kx*s.DilW
						if iy < 0 || iy >= s.H || ix < 0 || ix >= s.W {
							continue
						}
						for o := range s.Cout {
							for c := range cg {
								f(((n*s.H+iy)*s.W+ix)*s.Cin+o/og*cg+c, ((ky*s.KW+kx)*cg+c)*s.Cout+o, ((n*oh+oy)*ow+ox)*s.Cout+o)
							}
						}
					}
				}
			}
		}
	}
}

// want is a result in float64, with the sum of the magnitudes of what was added up: what a rounding error is relative to.
type want struct{ sum, mag []float64 }

func newWant(n int) want { return want{make([]float64, n), make([]float64, n)} }

func (w want) add(i int, v float64) {
	w.sum[i] += v
	w.mag[i] += math.Abs(v)
}

// level makes the magnitudes of all elements that of the greatest, for algorithms that mix neighbours.
func (w want) level() {
	m := slices.Max(w.mag)
	for i := range w.mag {
		w.mag[i] = m
	}
}

// check compares got: each element may be off by tol times the magnitude of what was added up.
func (w want) check(t *testing.T, what string, got []float32, tol float64) {
	t.Helper()
	for i, g := range got {
		if !(math.Abs(float64(g)-w.sum[i]) <= tol*w.mag[i]) {
			t.Fatalf("%s[%d] = %v, want %v ± %.2g", what, i, g, w.sum[i], tol*w.mag[i])
		}
	}
}

// eps is half the distance from 1 to the next float32: a sum of n rounded terms is off by at most n·eps times their magnitude.
const eps = 1.0 / (1 << 24)

const guard = 17

// guarded is n NaNs between sentinels, at an address that no vector is aligned to; intact says whether the sentinels stand.
func guarded(n int) (s []float32, intact func() bool) {
	all := make([]float32, n+2*guard)
	for i := range all {
		all[i] = float32(math.NaN())
	}
	for i := range guard {
		all[i], all[n+guard+i] = 12345, 12345
	}
	return all[guard : n+guard : n+guard], func() bool {
		for i := range guard {
			if all[i] != 12345 || all[n+guard+i] != 12345 {
				return false
			}
		}
		return true
	}
}

func random(rng *rand.Rand, n int) []float32 {
	s, _ := guarded(n)
	for i := range s {
		s[i] = float32(rng.NormFloat64())
	}
	return s
}

// eachLevel runs f once for every instruction set that this CPU has.
func eachLevel(t *testing.T, f func(t *testing.T)) {
	for _, l := range isa.Levels() {
		t.Run(l.String(), func(t *testing.T) {
			defer isa.Use(l)()
			f(t)
		})
	}
}

type operands struct{ x, w, dy, bias []float32 }

func newOperands(s Spec) operands {
	rng := rand.New(rand.NewPCG(1, 2))
	return operands{random(rng, s.SizeX()), random(rng, s.SizeW()), random(rng, s.SizeY()), random(rng, s.Cout)}
}

func TestAgainstReference(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	eachLevel(t, func(t *testing.T) {
		for _, s := range cases {
			t.Run(s.label(), func(t *testing.T) { compare(t, s, New, pool) })
		}
	})
}

// compare runs the three directions of s against sums in float64. The bound on an error is the number of roundings on the way
// to the element, each relative to the magnitude of the sum. Winograd's algorithm has fewer, but larger: see TestWinogradError.
func compare(t *testing.T, s Spec, plan func(Spec) *Plan, pool *par.Pool) {
	for _, e := range []Epilogue{{}, {Bias: true}, {Bias: true, Act: ReLU}} {
		if e.Act == None && e.Bias && s.FLOPs() > 1<<24 {
			continue // the reference is slow
		}
		s.Epilogue = e
		o := newOperands(s)
		y, ok := guarded(s.SizeY())
		p := plan(s)
		p.Forward(pool, o.x, o.w, o.bias, y)
		want := newWant(len(y))
		s.walk(func(xi, wi, yi int) { want.add(yi, float64(o.x[xi])*float64(o.w[wi])) })
		for i := range y {
			if e.Bias {
				want.add(i, float64(o.bias[i%s.Cout]))
			}
			if e.Act == ReLU {
				want.sum[i] = max(0, want.sum[i])
			}
		}
		terms := float64(s.KH*s.KW*s.Cin + 2)
		if p.Algorithm(Forward) == "winograd" {
			want.level()
		}
		want.check(t, "y", y, terms*eps)
		if !ok() {
			t.Fatal("Forward wrote outside of y")
		}
		if e != (Epilogue{}) {
			continue
		}

		dx, ok := guarded(s.SizeX())
		p.BackwardInput(pool, o.w, o.dy, dx)
		want = newWant(len(dx))
		s.walk(func(xi, wi, yi int) { want.add(xi, float64(o.dy[yi])*float64(o.w[wi])) })
		if p.Algorithm(BackwardInput) == "winograd" {
			want.level()
		}
		want.check(t, "dx", dx, float64(s.KH*s.KW*s.Cout)*eps)
		if !ok() {
			t.Fatal("BackwardInput wrote outside of dx")
		}

		dw, ok := guarded(s.SizeW())
		p.BackwardFilter(pool, o.x, o.dy, dw)
		want = newWant(len(dw))
		s.walk(func(xi, wi, yi int) { want.add(wi, float64(o.x[xi])*float64(o.dy[yi])) })
		if p.Algorithm(BackwardFilter) == "winograd" {
			want.level()
		}
		want.check(t, "dw", dw, max(64, float64(s.N*s.OH()*s.OW()))*eps)
		if !ok() {
			t.Fatal("BackwardFilter wrote outside of dw")
		}
	}
}

// TestThreads holds that results are the same bits for any number of threads, and from run to run.
func TestThreads(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, s := range slices.Concat(cases, tileCases) {
			o := newOperands(s)
			var first [3][]float32
			for threads := 1; threads <= 3; threads++ {
				pool := par.New(threads)
				p := New(s)
				for range 2 {
					got := [3][]float32{make([]float32, s.SizeY()), make([]float32, s.SizeX()), make([]float32, s.SizeW())}
					p.Forward(pool, o.x, o.w, nil, got[0])
					p.BackwardInput(pool, o.w, o.dy, got[1])
					p.BackwardFilter(pool, o.x, o.dy, got[2])
					if first[0] == nil {
						first = got
					}
					for i := range got {
						if !slices.Equal(got[i], first[i]) {
							t.Fatalf("%s, direction %d: %d threads give other bits", s.label(), i, threads)
						}
					}
				}
				pool.Close()
			}
		}
	})
}

func TestNoAllocation(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	for _, s := range slices.Concat(cases, tileCases) {
		o := newOperands(s)
		p := New(s)
		y, dx, dw := make([]float32, s.SizeY()), make([]float32, s.SizeX()), make([]float32, s.SizeW())
		if n := allocs.PerRun(func() {
			p.Forward(pool, o.x, o.w, nil, y)
			p.BackwardInput(pool, o.w, o.dy, dx)
			p.BackwardFilter(pool, o.x, o.dy, dw)
		}); n != 0 {
			t.Errorf("%s: %v allocations", s.label(), n)
		}
	}
}

// TestSetFilter holds that Forward without filters uses those of SetFilter.
func TestSetFilter(t *testing.T) {
	for _, s := range slices.Concat(cases, tileCases) {
		o := newOperands(s)
		want, got := make([]float32, s.SizeY()), make([]float32, s.SizeY())
		New(s).Forward(nil, o.x, o.w, nil, want)
		p := New(s)
		p.SetFilter(nil, o.w)
		p.Forward(nil, o.x, nil, nil, got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: other results", s.label())
		}
		other := slices.Clone(o.w)
		slices.Reverse(other)
		New(s).Forward(nil, o.x, other, nil, want)
		p.Forward(nil, o.x, other, nil, got) // filters that are given go before those that were set
		if !slices.Equal(got, want) {
			t.Errorf("%s: other results with filters given", s.label())
		}
		clear(got)
		p.Forward(nil, o.x, nil, nil, got) // and stay
		if !slices.Equal(got, want) {
			t.Errorf("%s: other results with filters last given", s.label())
		}
	}
}

// TestExecuted holds Executed to a count of the products that the reference makes, for algorithms that skip just the padding.
func TestExecuted(t *testing.T) {
	for _, s := range slices.Concat(cases, tileCases) {
		p := New(s)
		n := int64(0)
		s.walk(func(_, _, _ int) { n += 2 })
		for _, d := range []Direction{Forward, BackwardInput} {
			if a := p.Algorithm(d); (a == "direct" || a == "depthwise") && p.Executed(d) != n {
				t.Errorf("%s, direction %d: %d executed, want %d", s.label(), d, p.Executed(d), n)
			}
		}
		if s.N > 0 && p.Executed(BackwardFilter) <= 0 {
			t.Errorf("%s: nothing executed", s.label())
		}
	}
}

func TestBadSpecs(t *testing.T) {
	good := Spec{N: 1, H: 4, W: 4, Cin: 4, Cout: 4, KH: 3, KW: 3}
	for name, change := range map[string]func(*Spec){
		"no height":    func(s *Spec) { s.H = 0 },
		"too small":    func(s *Spec) { s.KH = 5 },
		"groups":       func(s *Spec) { s.Groups = 3 },
		"stride":       func(s *Spec) { s.StrideH = -1 },
		"padding":      func(s *Spec) { s.PadLeft = -1 },
		"negative":     func(s *Spec) { s.N = -1 },
		"dilated away": func(s *Spec) { s.DilW = 2 },
	} {
		s := good
		change(&s)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			New(s)
		}()
	}
}
