package bgemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

func random(r *rand.Rand, n int) []dtype.BFloat16 {
	x := make([]dtype.BFloat16, n)
	for i := range x {
		x[i] = dtype.ToBFloat16(float32(r.NormFloat64()))
	}
	return x
}

// Results agree with float64 sums of the products at every instruction set, for sizes around those of tiles, panels and blocks, are the same bits for 1 to 3 threads and on
// used memory, and stay within c.
func TestPlan(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var specs []Spec
	for _, s := range []Spec{{M: 1, N: 1, K: 1}, {M: 7, N: 5, K: 3}, {M: 6, N: 64, K: 2}, {M: 13, N: 70, K: 31}, {M: 100, N: 130, K: 64}, {M: 3, N: 65, K: 2*deep + 77}, {M: 19, N: 33, K: 8, Batch: 3},
		{M: 0, N: 3, K: 4}, {M: 4, N: 3, K: 0}, {M: 20, N: 128, K: 17, Batch: 2}, {M: 32, N: 64, K: 32}, {M: 130, N: 128, K: 160}} {
		for mode := range 4 {
			s.TransA, s.TransB = mode&1 != 0, mode&2 != 0
			specs = append(specs, s)
		}
	}
	for _, l := range isa.Levels() {
		restore := isa.Use(l)
		for _, s := range specs {
			for _, m := range methods() {
				p := plan(s, m)
				what := fmt.Sprintf("%v %v %+v", l, m, s)
				scratch := used(p.Scratch())
				a, b := random(r, p.Batch*s.M*s.K), random(r, p.Batch*s.K*s.N)
				var first []float32
				for threads := 1; threads <= 3; threads++ {
					pool := par.New(threads)
					for range 2 {
						c := make([]float32, p.Batch*s.M*s.N+9)
						for i := range c {
							c[i] = float32(math.NaN())
						}
						p.Run(pool, a, b, c, scratch)
						for _, v := range c[p.Batch*s.M*s.N:] {
							if v == v {
								t.Fatalf("%s: written beyond c", what)
							}
						}
						c = c[:p.Batch*s.M*s.N]
						if first == nil {
							first = c
							compare(t, what, p, a, b, c)
						}
						for i, v := range c {
							if v != first[i] {
								t.Fatalf("%s: %d threads give other bits", what, threads)
							}
						}
					}
					run := func() { p.Run(pool, a, b, first, scratch) }
					if n := allocs.PerRun(run); n != 0 {
						t.Errorf("%s: %v allocations a run", what, n)
					}
					pool.Close()
				}
			}
		}
		restore()
	}
}

// used is memory that something else has left behind: NaNs.
func used(n int) []uint32 {
	x := make([]uint32, n)
	for i := range x {
		x[i] = 0xffffffff
	}
	return x
}

func compare(t *testing.T, what string, p *Plan, a, b []dtype.BFloat16, c []float32) {
	t.Helper()
	ar, ak, bk, bc := p.K, 1, p.N, 1
	if p.TransA {
		ar, ak = 1, p.M
	}
	if p.TransB {
		bk, bc = 1, p.K
	}
	for z := range p.Batch {
		a, b, c := a[z*p.M*p.K:], b[z*p.K*p.N:], c[z*p.M*p.N:]
		for i := range p.M {
			for j := range p.N {
				sum, size := 0.0, 0.0
				for k := range p.K {
					v := float64(a[i*ar+k*ak].Float32()) * float64(b[k*bk+j*bc].Float32())
					sum, size = sum+v, size+math.Abs(v)
				}
				// A rounding for each term, of at most half a unit in 2^-24 of what is added up; a factor of 2 for the instruction, which rounds inside.
				if got := float64(c[i*p.N+j]); math.Abs(got-sum) > size*float64(p.K+2)*math.Pow(2, -24) || got != got {
					t.Fatalf("%s: c[%d,%d] of matrix %d is %v, want %v", what, i, j, z, got, sum)
				}
			}
		}
	}
}

// BenchmarkPlan is a product in bf16 beside the same in f32.
func BenchmarkPlan(b *testing.B) {
	r := rand.New(rand.NewPCG(3, 4))
	pool := par.New(0)
	defer pool.Close()
	for _, s := range []Spec{{M: 1024, N: 1024, K: 1024}, {M: 2048, N: 1024, K: 256}, {M: 256, N: 1024, K: 2048, TransA: true}, {M: 2048, N: 256, K: 1024, TransB: true}, {M: 32, N: 128, K: 1600}} {
		x, y, c := random(r, s.M*s.K), random(r, s.K*s.N), make([]float32, s.M*s.N)
		flops := 2 * float64(s.M) * float64(s.N) * float64(s.K)
		for _, m := range methods() {
			b.Run(fmt.Sprintf("%v %+v", m, s), func(b *testing.B) {
				p := plan(s, m)
				scratch := used(p.Scratch())
				for b.Loop() {
					p.Run(pool, x, y, c, scratch)
				}
				b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
		b.Run(fmt.Sprintf("f32 %+v", s), func(b *testing.B) {
			p := gemm.New(gemm.Spec{M: s.M, N: s.N, K: s.K, TransA: s.TransA, TransB: s.TransB})
			u, v := make([]float32, len(x)), make([]float32, len(y))
			for b.Loop() {
				p.Run(pool, u, v, c, nil, nil)
			}
			b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
