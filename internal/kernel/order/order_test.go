package order

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/par"
)

var sizes = [][3]int{{0, 3, 1}, {3, 1, 1}, {1, 0, 4}, {5, 10, 1}, {2, 47, 3}, {2, 48, 1}, {2, 49, 2}, {300, 77, 1}, {1, 30000, 1}, {1, 9, 200}, {3, 1000, 0}}

func TestSort(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	float := func() float64 {
		switch r.IntN(12) {
		case 0:
			return math.NaN()
		case 1:
			return math.Copysign(0, -1)
		case 2:
			return math.Inf(1 - 2*r.IntN(2))
		case 3, 4, 5:
			return float64(r.IntN(5) - 2)
		}
		return r.NormFloat64()
	}
	check(t, func() float32 { return float32(float()) }, func(x float32) float64 { return float64(x) })
	check(t, float, func(x float64) float64 { return x })
	check(t, func() dtype.BFloat16 { return dtype.ToBFloat16(float32(float())) }, func(x dtype.BFloat16) float64 { return float64(x.Float32()) })
	whole := func() int64 { return int64(r.Uint64()) >> r.IntN(60) } // some small, so that there are equals
	check(t, func() int8 { return int8(whole()) }, func(x int8) int8 { return x })
	check(t, func() uint8 { return uint8(whole()) }, func(x uint8) uint8 { return x })
	check(t, func() int32 { return int32(whole()) }, func(x int32) int32 { return x })
	check(t, whole, func(x int64) int64 { return x })
}

// check compares with a stable sort of positions, for every k that changes the algorithm, and for 1 to 3 threads.
func check[T Element, O cmp.Ordered](t *testing.T, draw func() T, ordered func(T) O) {
	t.Helper()
	for _, s := range sizes {
		outer, n, inner := s[0], s[1], s[2]
		x := make([]T, outer*n*inner)
		for i := range x {
			x[i] = draw()
		}
		for _, descending := range []bool{false, true} {
			want := make([]int32, len(x))
			for o := range outer {
				for j := range inner {
					ix := make([]int32, n)
					for k := range ix {
						ix[k] = int32(k)
					}
					slices.SortStableFunc(ix, func(a, b int32) int {
						u, v := ordered(x[(o*n+int(a))*inner+j]), ordered(x[(o*n+int(b))*inner+j])
						c := cmp.Compare(u, v)
						if u != u || v != v { // cmp puts NaN first
							c = -c
						}
						if descending {
							c = -c
						}
						return c
					})
					for k, p := range ix {
						want[(o*n+k)*inner+j] = p
					}
				}
			}
			for threads := 1; threads <= 3; threads++ {
				pool := par.New(threads)
				at, pos := NewSort[T](outer, n, inner, descending, threads), make([]int32, len(x))
				got := make([]T, len(x))
				at.Run(pool, got, pos, x)
				what := fmt.Sprintf("%T %v descending=%v, %d threads", x, s, descending, threads)
				if !slices.Equal(pos, want) {
					t.Fatalf("%s: positions are not those of a stable sort", what)
				}
				same(t, what, got, pos, x, outer, n, n, inner)
				for _, k := range []int{0, 1, n / 9, n / 8, n / 2, n} {
					if !descending || inner != 1 || k > n {
						continue
					}
					best, from := make([]T, outer*k), make([]int32, outer*k)
					NewTopK[T](outer, n, k, threads).Run(pool, best, from, x)
					for o := range outer {
						if !slices.Equal(from[o*k:][:k], want[o*n:][:k]) {
							t.Fatalf("%s: the %d greatest differ from the first of the sorted", what, k)
						}
					}
					same(t, what, best, from, x, outer, n, k, 1)
				}
				pool.Close()
			}
		}
	}
}

// same checks that values are those at the positions.
func same[T Element](t *testing.T, what string, got []T, pos []int32, x []T, outer, n, k, inner int) {
	t.Helper()
	for i, v := range got {
		o, j := i/(k*inner), i%inner
		if w := x[(o*n+int(pos[i]))*inner+j]; v != w && (v == v || w == w) {
			t.Fatalf("%s: element %d is %v, at its position is %v", what, i, v, w)
		}
	}
}

func TestAllocs(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	x, y, at := make([]float32, 1<<16), make([]float32, 1<<16), make([]int32, 1<<16)
	rows, cols, top := NewSort[float32](64, 1<<10, 1, false, 2), NewSort[float32](1, 1<<10, 64, true, 2), NewTopK[float32](64, 1<<10, 5, 2)
	if n := allocs.PerRun(func() {
		rows.Run(pool, y, at, x)
		cols.Run(pool, y, at, x)
		top.Run(pool, y, at, x)
	}); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}

func BenchmarkSort(b *testing.B) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{16, 32, 48, 64, 1 << 10, 1 << 16} {
		x, y, at := make([]float32, 1<<16), make([]float32, 1<<16), make([]int32, 1<<16)
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := NewSort[float32](len(x)/n, n, 1, false, 1)
			for b.Loop() {
				p.Run(nil, y, at, x)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(x)), "ns/element")
		})
		b.Run(fmt.Sprint("top ", n/16, " of ", n), func(b *testing.B) {
			p := NewTopK[float32](len(x)/n, n, n/16, 1)
			for b.Loop() {
				p.Run(nil, y, at, x)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(x)), "ns/element")
		})
	}
}
