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

var argSizes = [][3]int{{0, 3, 1}, {3, 1, 1}, {5, 10, 1}, {2, 17, 1}, {3000, 40, 1}, {1, 30000, 1}, {2, 5, 3}, {1, 9, 200}, {3, 100, 128}, {2, 7, 0}, {1, 20000, 2}}

func TestArg(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for _, s := range argSizes {
		outer, n, inner := s[0], s[1], s[2]
		for _, least := range []bool{false, true} {
			for _, values := range []int{4, 1000} { // few values, so that there are equals
				x := make([]float32, outer*n*inner)
				for i := range x {
					x[i] = float32(r.IntN(values)) - 2
					if values > 4 && r.IntN(300) == 0 {
						x[i] = float32(math.NaN())
					}
				}
				threads(t, func(what string, pool *par.Pool) [][]float32 {
					got := make([]int32, outer*inner)
					for i := range got {
						got[i] = -7
					}
					NewArg(outer, n, inner, least).Run(pool, got, x)
					for o := range outer {
						for j := range inner {
							best := 0
							at := func(k int) float32 { return x[(o*n+k)*inner+j] }
							for k := 1; k < n; k++ {
								b, v := at(best), at(k)
								if b == b && (v != v || !least && v > b || least && v < b) {
									best = k
								}
							}
							if got[o*inner+j] != int32(best) {
								t.Fatalf("%s %v least=%v: [%d,%d] = %d, want %d", what, s, least, o, j, got[o*inner+j], best)
							}
						}
					}
					return nil
				})
			}
		}
	}
}

func TestCumSum(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	for _, s := range append(argSizes, [3]int{2, 0, 3}) {
		outer, n, inner := s[0], s[1], s[2]
		x := normal(r, outer*n*inner)
		for mode := range 4 {
			exclusive, reverse := mode&1 != 0, mode&2 != 0
			want := make([]float64, len(x))
			for o := range outer {
				for j := range inner {
					sum := 0.0
					for k := range n {
						if reverse {
							k = n - 1 - k
						}
						i := (o*n+k)*inner + j
						if want[i] = sum; !exclusive {
							want[i] += float64(x[i])
						}
						sum += float64(x[i])
					}
				}
			}
			threads(t, func(what string, pool *par.Pool) [][]float32 {
				what = fmt.Sprint(what, " ", s, " exclusive=", exclusive, " reverse=", reverse)
				y, check := guarded(t, len(x), 1)
				p := NewCumSum(outer, n, inner, exclusive, reverse)
				p.Run(pool, y, x)
				check(what)
				for i := range y {
					if y[i] != float32(want[i]) {
						t.Fatalf("%s: [%d] = %g, want %g", what, i, y[i], want[i])
					}
				}
				in := append([]float32{}, x...)
				p.Run(pool, in, in)
				close64(t, what+" in place", in, want, 1e-4)
				return [][]float32{y, in}
			})
		}
	}
}

func TestSquareSumAndDot(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	lens := []int{0, 1, 7, 16, 33, 5000, chunkLen, 3*chunkLen + 1}
	arrays, sum := make([][]float32, len(lens)), 0.0
	for i, n := range lens {
		arrays[i] = normal(r, n)
		for _, x := range arrays[i] {
			sum += float64(x) * float64(x)
		}
	}
	const rows, n = 30, 9001
	a, b := normal(r, rows*n), normal(r, rows*n)
	dots := make([]float64, rows)
	for i := range a {
		dots[i/n] += float64(a[i]) * float64(b[i])
	}
	threads(t, func(what string, pool *par.Pool) [][]float32 {
		p := NewSquareSum(lens)
		got := p.Run(pool, arrays)
		if math.Abs(got-sum) > 1e-6*sum {
			t.Fatalf("%s: sum of squares %g, want %g", what, got, sum)
		}
		d, check := guarded(t, rows, 1)
		NewDot(rows, n).Run(pool, d, a, b)
		check(what)
		close64(t, what+" dot", d, dots, 1e-3) // Σ|ab| is about 6000; a term meets some 70 additions
		return [][]float32{{float32(got)}, d}
	})
}

func TestArgAllocs(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	defer isa.Use(isa.Best())()
	x, y, at := make([]float32, 1<<16), make([]float32, 1<<16), make([]int32, 1<<16)
	arrays := [][]float32{x, y}
	rows, cols, cum, sq, dot := NewArg(1<<10, 64, 1, false), NewArg(1, 1<<10, 64, false), NewCumSum(1<<10, 64, 1, false, false), NewSquareSum([]int{1 << 16, 1 << 16}), NewDot(1<<10, 64)
	if n := allocs.PerRun(func() {
		rows.Run(pool, at, x)
		cols.Run(pool, at, x)
		cum.Run(pool, y, x)
		sq.Run(pool, arrays)
		dot.Run(pool, y, x, x)
	}); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}

func TestPlain(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	plainFolds(t, func() float64 {
		if r.IntN(300) == 0 {
			return math.NaN()
		}
		return float64(r.IntN(9) - 4)
	})
	plainFolds(t, func() int32 { return int32(r.IntN(1<<20) - 1<<19) })
	plainFolds(t, func() uint8 { return uint8(r.IntN(256)) })
	plainFolds(t, func() int64 { return int64(r.Uint64()) })
	plainFolds(t, func() int8 { return int8(r.IntN(256)) })
}

// plainFolds compares each fold with a loop over one column, for 1 to 3 threads.
func plainFolds[T Number](t *testing.T, draw func() T) {
	for _, s := range [][3]int{{0, 3, 1}, {3, 1, 1}, {5, 10, 1}, {900, 40, 1}, {1, 3000, 1}, {2, 5, 3}, {1, 9, 200}, {2, 7, 0}, {1, 2000, 2}, {2, 0, 3}} {
		outer, n, inner := s[0], s[1], s[2]
		x := make([]T, outer*n*inner)
		for i := range x {
			x[i] = draw()
		}
		columns := func(f func(column func(k int) int, to int)) {
			for o := range outer {
				for j := range inner {
					f(func(k int) int { return (o*n+k)*inner + j }, o*inner+j)
				}
			}
		}
		same := func(what string, got, want T, i int) {
			if got != want && (got == got || want == want) {
				t.Fatalf("%T %s of %v: element %d is %v, want %v", x, what, s, i, got, want)
			}
		}
		threads(t, func(_ string, pool *par.Pool) [][]float32 {
			for _, op := range []Op{Sum, Prod, Max, Min} {
				if n == 0 && (op == Max || op == Min) {
					continue
				}
				got := make([]T, outer*inner)
				NewPlain[T](op, outer, n, inner).Run(pool, got, nil, x)
				columns(func(at func(k int) int, to int) {
					var want T
					if op == Prod {
						want = 1
					}
					for k := range n {
						switch v := x[at(k)]; {
						case op == Sum:
							want += v
						case op == Prod:
							want *= v
						case k == 0 || v != v || want == want && (op == Max && v > want || op == Min && v < want):
							want = v
						}
					}
					same(op.String(), got[to], want, to)
				})
			}
			for _, least := range []bool{false, true} {
				if n == 0 {
					continue
				}
				got := make([]int32, outer*inner)
				NewPlainArg[T](outer, n, inner, least).Run(pool, nil, got, x)
				columns(func(at func(k int) int, to int) {
					best := 0
					for k := 1; k < n; k++ {
						if b, v := x[at(best)], x[at(k)]; b == b && (v != v || !least && v > b || least && v < b) {
							best = k
						}
					}
					same("position", T(got[to]%100), T(best%100), to)
				})
			}
			for mode := range 4 {
				exclusive, reverse := mode&1 != 0, mode&2 != 0
				got := append([]T(nil), x...)
				NewPlainCumSum[T](outer, n, inner, exclusive, reverse).Run(pool, got, nil, got)
				columns(func(at func(k int) int, _ int) {
					var sum T
					for k := range n {
						if reverse {
							k = n - 1 - k
						}
						want := sum
						if sum += x[at(k)]; !exclusive {
							want = sum
						}
						same("running sum", got[at(k)], want, at(k))
					}
				})
			}
			return nil
		})
	}
}
