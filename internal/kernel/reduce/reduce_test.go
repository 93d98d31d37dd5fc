package reduce

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

const sentinel = -12345

// guarded returns n elements of NaN that start at an odd place, with sentinels around, and a check of those.
func guarded(t *testing.T, n, offset int) (x []float32, check func(what string)) {
	all := make([]float32, n+offset+33)
	for i := range all {
		all[i] = sentinel
	}
	x = all[offset : offset+n : offset+n]
	for i := range x {
		x[i] = float32(math.NaN())
	}
	return x, func(what string) {
		t.Helper()
		for i, v := range all {
			if (i < offset || i >= offset+n) && v != sentinel {
				t.Fatalf("%s: wrote outside, at %d", what, i-offset)
			}
		}
	}
}

func normal(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// threads runs f on pools of 1, 2 and 3 threads and on none, for every instruction set, and checks that the float32 slices it
// returns are the same bits on each pool. It returns nothing: f itself compares with a reference.
func threads(t *testing.T, f func(what string, pool *par.Pool) [][]float32) {
	t.Helper()
	for _, l := range isa.Levels() {
		restore := isa.Use(l)
		var first [][]float32
		for n := range 4 {
			var pool *par.Pool
			if n > 0 {
				pool = par.New(n)
			}
			what := fmt.Sprintf("%v threads=%d", l, n)
			got := f(what, pool)
			pool.Close()
			if first == nil {
				first = got
			}
			for i := range got {
				for j := range got[i] {
					if math.Float32bits(got[i][j]) != math.Float32bits(first[i][j]) {
						t.Fatalf("%s: result %d differs at %d: %g, without a pool %g", what, i, j, got[i][j], first[i][j])
					}
				}
			}
		}
		restore()
	}
}

func TestReduce(t *testing.T) {
	specs := []Spec{}
	for n := range 70 {
		specs = append(specs, Spec{Outer: 2, Reduce: n, Inner: 1}, Spec{Outer: 1, Reduce: 5, Inner: n}, Spec{Outer: 2, Reduce: n, Inner: 3})
	}
	specs = append(specs, Spec{Outer: 1, Reduce: 100003, Inner: 1}, Spec{Outer: 3, Reduce: 20000, Inner: 1}, Spec{Outer: 700, Reduce: 70, Inner: 1},
		Spec{Outer: 1, Reduce: 3000, Inner: 64}, Spec{Outer: 1, Reduce: 30000, Inner: 3}, Spec{Outer: 2, Reduce: 700, Inner: 133}, Spec{Outer: 1, Reduce: 70, Inner: 2500},
		Spec{Outer: 0, Reduce: 4, Inner: 4}, Spec{Outer: 4, Reduce: 4, Inner: 0}, Spec{Outer: 3, Reduce: 0, Inner: 5})
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range specs {
		src := normal(r, s.Outer*s.Reduce*s.Inner)
		for op := range numOps {
			s.Op = op
			want, size := reference(s, src)
			threads(t, func(what string, pool *par.Pool) [][]float32 {
				what = fmt.Sprintf("%s %+v", what, s)
				dst, check := guarded(t, s.Outer*s.Inner, s.Reduce%4)
				p := New(s)
				p.Run(pool, dst, src)
				check(what)
				for i := range dst {
					// A block of up to blockLen terms goes into at least 16 accumulators, so a term meets at most 256 additions and 8 merges.
					bound := float64(min(s.Reduce, blockLen)/16+9)*0x1p-24*size[i] + 1e-45
					if d := math.Abs(float64(dst[i]) - want[i]); d > bound || (dst[i] != dst[i]) != (want[i] != want[i]) {
						if math.IsInf(want[i], 0) && float64(dst[i]) == want[i] {
							continue
						}
						t.Fatalf("%s: [%d] = %g, want %g within %g", what, i, dst[i], want[i], bound)
					}
				}
				return [][]float32{dst}
			})
		}
	}
}

// reference is the reduction in float64, and the sum of the magnitudes of the terms, which rounding errors are proportional to.
func reference(s Spec, src []float32) (want, size []float64) {
	for o := range s.Outer {
		for j := range s.Inner {
			acc, mag := scalar[s.Op].start, 0.0
			for i := range s.Reduce {
				x := float64(src[(o*s.Reduce+i)*s.Inner+j])
				acc = scalar[s.Op].fold(acc, x)
				if s.Op == SumSquares {
					x *= x
				}
				mag += math.Abs(x)
			}
			switch s.Op {
			case Mean:
				acc /= float64(s.Reduce)
				mag /= float64(s.Reduce)
			case Prod:
				mag = float64(s.Reduce) * math.Abs(acc) * 16 // every factor may be off by half a unit, in sequence
			case Max, Min:
				mag = 0
			}
			want, size = append(want, acc), append(size, mag)
		}
	}
	return want, size
}

// TestReduceNaN puts a NaN at each place, and infinities: max and min must not lose them.
func TestReduceNaN(t *testing.T) {
	for _, l := range isa.Levels() {
		defer isa.Use(l)()
		for _, inner := range []int{1, 5, 80} {
			for at := range 45 {
				src := make([]float32, 45*inner)
				for i := range src {
					src[i] = float32(i%7) - 3
				}
				src[at*inner] = float32(math.NaN())
				src[(at+7)%45*inner] = float32(math.Inf(1))
				for _, op := range []Op{Max, Min, Sum} {
					dst := make([]float32, inner)
					New(Spec{op, 1, 45, inner}).Run(nil, dst, src)
					if dst[0] == dst[0] {
						t.Fatalf("%v %v inner=%d: NaN at %d gave %g", l, op, inner, at, dst[0])
					}
					if inner > 1 && dst[1] != dst[1] {
						t.Fatalf("%v %v inner=%d: a column without NaN gave one", l, op, inner)
					}
				}
			}
		}
	}
}

// TestAccuracy: the sum of ten million equal numbers has no error that grows with their number.
func TestAccuracy(t *testing.T) {
	const n = 10_000_000
	src := make([]float32, n)
	for i := range src {
		src[i] = 0.1
	}
	for _, l := range isa.Levels() {
		defer isa.Use(l)()
		for _, inner := range []int{1, 4} {
			dst := make([]float32, inner)
			New(Spec{Mean, 1, n / inner, inner}).Run(nil, dst, src)
			if math.Abs(float64(dst[0])-0.1) > 2e-7 {
				t.Errorf("%v inner=%d: mean %.9g", l, inner, dst[0])
			}
		}
	}
}

func TestAllocs(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	src, dst := make([]float32, 1<<18), make([]float32, 1<<18)
	labels := make([]int32, 1<<12)
	for name, run := range map[string]func(){
		"rows":    plan(New(Spec{Sum, 1 << 12, 64, 1}).Run, pool, dst, src),
		"row":     plan(New(Spec{Sum, 1, 1 << 18, 1}).Run, pool, dst, src),
		"cols":    plan(New(Spec{Mean, 1, 1 << 12, 64}).Run, pool, dst, src),
		"softmax": plan(NewSoftmax(1<<12, 64, false).Run, pool, dst, src),
		"xent": func() func() {
			p := NewCrossEntropy(CrossEntropySpec{Rows: 1 << 12, Classes: 10})
			return func() { p.Run(pool, dst[1<<17:], dst, src, labels, 1) }
		}(),
	} {
		if n := allocs.PerRun(run); n != 0 {
			t.Errorf("%s: %v allocations a run", name, n)
		}
	}
}

func plan(run func(pool *par.Pool, dst, src []float32), pool *par.Pool, dst, src []float32) func() {
	return func() { run(pool, dst, src) }
}

func BenchmarkReduce(b *testing.B) {
	pool := par.New(2)
	defer pool.Close()
	for _, s := range []Spec{{Sum, 1, 1 << 20, 1}, {Sum, 4096, 256, 1}, {Max, 4096, 10, 1}, {Sum, 1, 1 << 14, 64}, {Sum, 1, 32, 128}, {Max, 1, 4096, 256}, {Sum, 1, 1 << 16, 10}} {
		for _, l := range isa.Levels() {
			b.Run(fmt.Sprintf("%v/%dx%dx%d/%v", s.Op, s.Outer, s.Reduce, s.Inner, l), func(b *testing.B) {
				defer isa.Use(l)()
				n := s.Outer * s.Reduce * s.Inner
				src, dst := make([]float32, n), make([]float32, s.Outer*s.Inner)
				p := New(s)
				b.SetBytes(int64(4 * n))
				for b.Loop() {
					p.Run(pool, dst, src)
				}
			})
		}
	}
}
