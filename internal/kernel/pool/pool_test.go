package pool

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

var geometries = []Spec{
	{N: 2, H: 6, W: 4, KH: 2, KW: 2},
	{N: 3, H: 5, W: 7, KH: 2, KW: 2}, // a row and a column left over
	{N: 2, H: 5, W: 6, KH: 3, KW: 2, StrideH: 2, StrideW: 1, PadTop: 1, PadBottom: 1, PadRight: 1},
	{N: 2, H: 9, W: 9, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1},
	{N: 1, H: 5, W: 5, KH: 5, KW: 5},
	{N: 1, H: 7, W: 8, KH: 2, KW: 1, StrideH: 3, StrideW: 4}, // pixels that no window has
	{N: 1, H: 1, W: 10, KH: 1, KW: 3, StrideH: 1, StrideW: 2, PadLeft: 2, PadRight: 2},
	{N: 1, H: 40, W: 40, KH: 2, KW: 2, PadTop: 1},
	{N: 1, H: 1, W: 1, KH: 3, KW: 3, PadTop: 2, PadBottom: 2, PadLeft: 2, PadRight: 2, StrideH: 1, StrideW: 1},
	{N: 0, H: 4, W: 4, KH: 2, KW: 2},
}

// eachCase runs f for every geometry, number of channels around the widths of vectors, and instruction set.
func eachCase(t *testing.T, f func(t *testing.T, s Spec)) {
	for _, l := range isa.Levels() {
		t.Run(l.String(), func(t *testing.T) {
			defer isa.Use(l)()
			for i, s := range geometries {
				for _, c := range []int{1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 64, 65, 100} {
					s.C = c
					t.Run(fmt.Sprintf("%d/C%d", i, c), func(t *testing.T) { f(t, s) })
				}
			}
		})
	}
}

// walk visits each window: the position in y, and the positions in x of its pixels in row-major order.
func (s Spec) walk(f func(y int, x []int)) {
	s = s.normal()
	y := 0
	for n := range s.N {
		for oy := range s.OH() {
			for ox := range s.OW() {
				for c := range s.C {
					var px []int
					for ky := range s.KH {
						for kx := range s.KW {
							iy, ix := oy*s.StrideH-s.PadTop+ky, ox*s.StrideW-s.PadLeft+kx
							if iy >= 0 && iy < s.H && ix >= 0 && ix < s.W {
								px = append(px, ((n*s.H+iy)*s.W+ix)*s.C+c)
							}
						}
					}
					f(y, px)
					y++
				}
			}
		}
	}
}

func argmax(x []float32, at []int) int {
	best := at[0]
	for _, i := range at[1:] {
		if x[i] > x[best] {
			best = i
		}
	}
	return best
}

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

// random has many equal elements, so that ties happen, and both zeros.
func random(n int, seed uint64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	s, _ := guarded(n)
	for i := range s {
		s[i] = float32(rng.IntN(7)-3) / 2
		if s[i] == 0 && rng.IntN(2) == 0 {
			s[i] = float32(math.Copysign(0, -1))
		}
	}
	return s
}

func same(t *testing.T, what string, got []float32, want []float64, tol float64, intact func() bool) {
	t.Helper()
	for i, g := range got {
		if !(math.Abs(float64(g)-want[i]) <= tol) {
			t.Fatalf("%s[%d] = %v, want %v", what, i, g, want[i])
		}
	}
	if !intact() {
		t.Fatalf("%s: wrote outside of the result", what)
	}
}

func TestMax(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	eachCase(t, func(t *testing.T, s Spec) {
		x, v, dy := random(s.SizeX(), 1), random(s.SizeX(), 2), random(s.SizeY(), 3)
		wy, wv, wdx := make([]float64, len(dy)), make([]float64, len(dy)), make([]float64, len(x))
		s.walk(func(y int, px []int) {
			at := argmax(x, px)
			wy[y], wv[y] = float64(x[at]), float64(v[at])
			wdx[at] += float64(dy[y])
		})
		p := New(s)
		got, ok := guarded(len(dy))
		p.MaxForward(pool, x, got)
		same(t, "y", got, wy, 0, ok)
		got, ok = guarded(len(dy))
		p.MaxPick(pool, x, v, got)
		same(t, "picked", got, wv, 0, ok)
		got, ok = guarded(len(x))
		p.MaxBackward(pool, x, dy, got)
		same(t, "dx", got, wdx, 0, ok) // sums of halves are exact
	})
}

// TestMaxNaN holds what a NaN does: first in its window it stays and takes the gradient, elsewhere it is passed over.
func TestMaxNaN(t *testing.T) {
	eachCase(t, func(t *testing.T, s Spec) {
		x, dy := random(s.SizeX(), 1), random(s.SizeY(), 3)
		for i := 0; i < len(x); i += 5 {
			x[i] = float32(math.NaN())
		}
		p := New(s)
		y, dx := make([]float32, len(dy)), make([]float32, len(x))
		p.MaxForward(nil, x, y)
		p.MaxBackward(nil, x, dy, dx)
		wdx := make([]float32, len(x))
		s.walk(func(i int, px []int) {
			at := argmax(x, px)
			wdx[at] += dy[i]
			if y[i] != x[at] && (y[i] == y[i] || x[at] == x[at]) {
				t.Fatalf("y[%d] = %v, want %v", i, y[i], x[at])
			}
		})
		if !slices.Equal(dx, wdx) {
			t.Fatal("the gradient went elsewhere")
		}
	})
}

func TestAvg(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	eachCase(t, func(t *testing.T, s Spec) {
		for _, s.CountPad = range []bool{false, true} {
			x, dy := random(s.SizeX(), 1), random(s.SizeY(), 3)
			wy, wdx := make([]float64, len(dy)), make([]float64, len(x))
			s.walk(func(y int, px []int) {
				n := float64(len(px))
				if s.CountPad {
					n = float64(s.KH * s.KW)
				}
				for _, i := range px {
					wy[y] += float64(x[i]) / n
					wdx[i] += float64(dy[y]) / n
				}
			})
			p := New(s)
			got, ok := guarded(len(dy))
			p.AvgForward(pool, x, got)
			same(t, "y", got, wy, 1e-6, ok) // sums of halves are exact; two roundings of numbers below 2
			got, ok = guarded(len(x))
			p.AvgBackward(pool, dy, got)
			// At most KH·KW windows meet a pixel, each below 2 and rounded three times.
			same(t, "dx", got, wdx, float64(3*s.KH*s.KW)*2e-7, ok)
		}
	})
}

// TestThreads holds that results are the same bits for any number of threads.
func TestThreads(t *testing.T) {
	for _, s := range geometries {
		s.C = 37
		x, dy := random(s.SizeX(), 1), random(s.SizeY(), 3)
		for i := range dy {
			dy[i] /= 3
		}
		var first [5][]float32
		for threads := 1; threads <= 3; threads++ {
			pool := par.New(threads)
			p := New(s)
			var got [5][]float32
			for i, n := range []int{len(dy), len(dy), len(dy), len(x), len(x)} {
				got[i] = make([]float32, n)
			}
			p.MaxForward(pool, x, got[0])
			p.MaxPick(pool, x, x, got[1])
			p.AvgForward(pool, x, got[2])
			p.MaxBackward(pool, x, dy, got[3])
			p.AvgBackward(pool, dy, got[4])
			if threads == 1 {
				first = got
			}
			for i := range got {
				if !slices.Equal(got[i], first[i]) {
					t.Fatalf("result %d: %d threads give other bits", i, threads)
				}
			}
			pool.Close()
		}
	}
}

func TestNoAllocation(t *testing.T) {
	s := Spec{N: 2, H: 12, W: 12, C: 40, KH: 3, KW: 3, StrideH: 2, StrideW: 2}
	pool := par.New(2)
	defer pool.Close()
	p := New(s)
	x, y := make([]float32, s.SizeX()), make([]float32, s.SizeY())
	if n := allocs.PerRun(func() {
		p.MaxForward(pool, x, y)
		p.MaxPick(pool, x, x, y)
		p.AvgForward(pool, x, y)
		p.MaxBackward(pool, x, y, x)
		p.AvgBackward(pool, y, x)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestBadSpecs(t *testing.T) {
	for name, s := range map[string]Spec{
		"empty":   {N: 1, H: 0, W: 4, C: 1, KH: 2, KW: 2},
		"big":     {N: 1, H: 4, W: 4, C: 1, KH: 5, KW: 2},
		"padding": {N: 1, H: 4, W: 4, C: 1, KH: 2, KW: 2, PadTop: 2},
		"stride":  {N: 1, H: 4, W: 4, C: 1, KH: 2, KW: 2, StrideH: -1},
	} {
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
