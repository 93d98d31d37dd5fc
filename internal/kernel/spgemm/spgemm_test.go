package spgemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

// operands are random ones for a spec, and the dense weights [K, N] that they stand for.
func operands(s Spec) (x, w []float32, index []int32, places []uint8, dense []float32) {
	r := rand.New(rand.NewPCG(uint64(s.M), uint64(s.N*1000+s.K)))
	x, w, dense = make([]float32, s.M*s.K), make([]float32, s.Panels()*s.Kept*Width), make([]float32, s.K*s.N)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	put := func(p, row, col, k int) {
		if n := p*Width + col; n < s.N {
			v := float32(r.NormFloat64())
			w[(p*s.Kept+row)*Width+col] = v
			dense[k*s.N+n] += v
		}
	}
	for p := range s.Panels() {
		if !s.Pairs {
			ks := r.Perm(s.K)
			for len(ks) < s.Kept { // an input may come twice, as where a pattern is filled up
				ks = append(ks, 0)
			}
			ks = ks[:s.Kept]
			for row, k := range ks {
				index = append(index, int32(k))
				for col := range Width {
					put(p, row, col, k)
				}
			}
			continue
		}
		for g := range s.K / 4 {
			for col := range Width {
				two := r.Perm(4)
				places = append(places, uint8(two[0]|two[1]<<2|r.IntN(4)<<4)) // the upper bits mean nothing
				put(p, 2*g, col, 4*g+two[0])
				put(p, 2*g+1, col, 4*g+two[1])
			}
		}
	}
	return x, w, index, places, dense
}

var specs = func() (out []Spec) {
	for _, m := range []int{0, 1, 2, 5, 6, 12, 13, 31, 100} {
		for _, c := range []Spec{{N: 16, K: 8, Kept: 4}, {N: 40, K: 37, Kept: 20}, {N: 10, K: 100, Kept: 100}, {N: 129, K: 64, Kept: 16}, {N: 16, K: 3, Kept: 4},
			{N: 16, K: 8, Kept: 4, Pairs: true}, {N: 50, K: 72, Kept: 36, Pairs: true}, {N: 7, K: 256, Kept: 128, Pairs: true}} {
			c.M = m
			out = append(out, c)
		}
	}
	return out
}()

// At every level, with any number of threads and in used memory, results are near the plain product in float64, the same bits each time, and nothing is allocated after the first run.
func TestRun(t *testing.T) {
	for _, level := range isa.Levels() {
		restore := isa.Use(level)
		for _, s := range specs {
			t.Run(fmt.Sprintf("%v %+v", level, s), func(t *testing.T) {
				x, w, index, places, dense := operands(s)
				var first []float32
				for threads := 1; threads <= 3; threads++ {
					pool := par.New(threads)
					defer pool.Close()
					p := New(s)
					y := make([]float32, s.M*s.N+1)
					for again := range 2 {
						for i := range y {
							y[i] = float32(math.NaN())
						}
						p.Run(pool, y[:s.M*s.N], x, w, index, places)
						if first == nil {
							first = slices.Clone(y[:s.M*s.N])
						}
						if !slices.Equal(first, y[:s.M*s.N]) {
							t.Fatalf("%d threads, run %d: other bits", threads, again)
						}
						if y[s.M*s.N] == y[s.M*s.N] {
							t.Fatal("written behind the end")
						}
					}
					if n := allocs.PerRun(func() { p.Run(pool, y, x, w, index, places) }); n > 0 {
						t.Errorf("%g allocations", n)
					}
				}
				for m := range s.M {
					for n := range s.N {
						want, size := 0.0, 0.0
						for k := range s.K {
							v := float64(x[m*s.K+k]) * float64(dense[k*s.N+n])
							want, size = want+v, size+math.Abs(v)
						}
						if got := float64(first[m*s.N+n]); math.Abs(got-want) > 1e-6*size+1e-12 {
							t.Fatalf("y[%d][%d] = %g, want %g", m, n, got, want)
						}
					}
				}
			})
		}
		restore()
	}
}

func TestMistakes(t *testing.T) {
	for want, s := range map[string]Spec{"multiple of 4": {M: 1, N: 4, K: 8, Kept: 6}, "multiple of 8": {M: 1, N: 4, K: 12, Kept: 6, Pairs: true}, "half of them": {M: 1, N: 4, K: 16, Kept: 4, Pairs: true}, "-1 rows": {M: -1, N: 4, K: 8, Kept: 4}} {
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: want an error with %q, not %v", s, want, err)
		}
	}
}

// Products beside the dense one of the same sizes; go test -bench Product ./internal/kernel/spgemm.
func BenchmarkProduct(b *testing.B) {
	pool := par.New(2)
	defer pool.Close()
	for _, c := range []struct{ m, k, n int }{{1, 1600, 128}, {1, 1024, 1024}, {1, 4096, 4096}, {1, 8192, 8192}, {4, 1024, 1024}, {4, 4096, 4096}, {32, 1600, 128}, {32, 1024, 1024}, {128, 1024, 1024}, {512, 1024, 1024}} {
		b.Run(fmt.Sprintf("%dx%dx%d", c.m, c.k, c.n), func(b *testing.B) {
			report := func(b *testing.B, flops float64) {
				b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "µs")
			}
			all := 2 * float64(c.m) * float64(c.k) * float64(c.n)
			s := Spec{M: c.m, N: c.n, K: c.k, Kept: c.k / 2, Pairs: true}
			x, w, _, places, dense := operands(s)
			y := make([]float32, c.m*c.n)
			b.Run("dense", func(b *testing.B) {
				few := c.m >= 5 && c.m <= 128 // as package backend/cpu multiplies
				p, packed := gemm.New(gemm.Spec{M: c.m, N: c.n, K: c.k, PackedB: few}), dense
				if few {
					packed = make([]float32, p.PackedLen())
					p.PackB(packed, dense)
				}
				b.ResetTimer()
				for b.Loop() {
					p.Run(pool, x, packed, y, nil, nil)
				}
				report(b, all)
			})
			b.Run("pairs", func(b *testing.B) {
				p := New(s)
				b.ResetTimer()
				for b.Loop() {
					p.Run(pool, y, x, w, nil, places)
				}
				report(b, all/2)
			})
			for _, part := range []int{2, 4, 10} {
				s := Spec{M: c.m, N: c.n, K: c.k, Kept: max(4, c.k/part/4*4)}
				_, w, index, _, _ := operands(s)
				b.Run(fmt.Sprintf("blocks/%d", part), func(b *testing.B) {
					p := New(s)
					b.ResetTimer()
					for b.Loop() {
						p.Run(pool, y, x, w, index, nil)
					}
					report(b, 2*float64(c.m)*float64(s.Kept)*float64(c.n))
				})
			}
		})
	}
}
