package qgemm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/internal/race"
)

// Products of bytes are exact on every instruction set, for any number of threads, in a batch, with operands either way around, at the ends of their range and where sums wrap around.
func TestInts(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, s := range []IntSpec{
		{M: 1, N: 1, K: 1}, {M: 6, N: 64, K: 4}, {M: 7, N: 65, K: 5, Batch: 3}, {M: 70, N: 33, K: 131}, {M: 200, N: 16, K: 64}, {M: 3, N: 130, K: 1600}, {M: 1, N: 2, K: 140000},
	} {
		for mode := range 8 {
			s.Signed, s.TransA, s.TransB = mode&1 != 0, mode&2 != 0, mode&4 != 0
			if s.K > 100000 && (mode > 1 || race.Enabled) { // nothing is shared there that is not elsewhere
				continue
			}
			batch := max(1, s.Batch)
			a, b := bytesU(r, batch*s.M*s.K), bytesU(r, batch*s.K*s.N)
			if s.K > 100000 { // sums beyond 32 bits
				for _, x := range [][]uint8{a, b} {
					for i := range x {
						x[i] = 0x7f
						if !s.Signed {
							x[i] = 255
						}
					}
				}
			}
			value := func(x uint8) int32 {
				if s.Signed {
					return int32(int8(x))
				}
				return int32(x)
			}
			want := make([]int32, batch*s.M*s.N)
			for i := range want {
				z, row, col := i/(s.M*s.N), i/s.N%s.M, i%s.N
				for k := range s.K {
					ia, ib := row*s.K+k, k*s.N+col
					if s.TransA {
						ia = k*s.M + row
					}
					if s.TransB {
						ib = col*s.K + k
					}
					want[i] += value(a[z*s.M*s.K+ia]) * value(b[z*s.K*s.N+ib])
				}
			}
			for _, l := range isa.ByteLevels() {
				for threads := range 3 {
					if s.K > 100000 && threads > 1 {
						continue
					}
					what := fmt.Sprintf("%+v %v threads=%d", s, l, threads)
					restore := isa.Use(l)
					var pool *par.Pool
					if threads > 0 {
						pool = par.New(threads)
					}
					p := NewInts(s)
					got := make([]int32, len(want)+1)
					got[len(want)] = 77
					p.Run(pool, got, a, b)
					if !slices.Equal(got[:len(want)], want) || got[len(want)] != 77 {
						t.Fatalf("%s: wrong", what)
					}
					if batch == 1 { // b as the last time
						clear(got)
						p.Run(pool, got, a, nil)
						if !slices.Equal(got[:len(want)], want) {
							t.Fatalf("%s: wrong with b as it was", what)
						}
					}
					if n := allocs.PerRun(func() { p.Run(pool, got, a, b) }); n != 0 {
						t.Errorf("%s: %v allocations", what, n)
					}
					pool.Close()
					restore()
				}
			}
		}
	}
}

func BenchmarkInts(b *testing.B) {
	pool := par.New(2)
	defer pool.Close()
	r := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{128, 512, 1024} {
		for _, signed := range []bool{false, true} {
			p := NewInts(IntSpec{M: n, N: n, K: n, Signed: signed})
			x, y, c := bytesU(r, n*n), bytesU(r, n*n), make([]int32, n*n)
			b.Run(fmt.Sprintf("%d/signed=%v", n, signed), func(b *testing.B) {
				for b.Loop() {
					p.Run(pool, c, x, y)
				}
				b.ReportMetric(2*float64(n)*float64(n)*float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GOP/s")
			})
		}
	}
}
