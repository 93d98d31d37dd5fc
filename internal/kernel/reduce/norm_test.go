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

func TestLayerNorm(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, size := range [][2]int{{0, 4}, {1, 1}, {3, 5}, {2, 15}, {2, 16}, {2, 17}, {2, 31}, {2, 33}, {70, 100}, {300, 64}, {3, 9000}} {
		for _, rms := range []bool{false, true} {
			for _, bare := range []bool{false, true} {
				rows, n := size[0], size[1]
				const eps = 1e-3
				x, dy, gamma, beta := normal(r, rows*n), normal(r, rows*n), normal(r, n), normal(r, n)
				for i := range x {
					x[i] += 3
				}
				if bare {
					gamma, beta = nil, nil
				}
				at := func(a []float32, i int, none float64) float64 {
					if a == nil {
						return none
					}
					return float64(a[i])
				}
				y, dx := make([]float64, rows*n), make([]float64, rows*n)
				dgamma, dbeta := make([]float64, n), make([]float64, n)
				for r := range rows {
					var m, v, c1, c2 float64
					for j := range n {
						m += float64(x[r*n+j]) / float64(n)
					}
					if rms {
						m = 0
					}
					for j := range n {
						d := float64(x[r*n+j]) - m
						v += d * d / float64(n)
					}
					s := 1 / math.Sqrt(v+eps)
					for j := range n {
						xhat, d := (float64(x[r*n+j])-m)*s, float64(dy[r*n+j])
						y[r*n+j] = at(gamma, j, 1)*xhat + at(beta, j, 0)
						dgamma[j] += d * xhat
						dbeta[j] += d
						if !rms {
							c1 += d * at(gamma, j, 1) / float64(n)
						}
						c2 += d * at(gamma, j, 1) * xhat / float64(n)
					}
					for j := range n {
						xhat := (float64(x[r*n+j]) - m) * s
						dx[r*n+j] = s * (at(gamma, j, 1)*float64(dy[r*n+j]) - c1 - xhat*c2)
					}
				}
				// A row of one element has variance 0, so r = 1/√ε ≈ 32 enlarges rounding errors of x of 3 or so.
				bound := 1e-5 * math.Sqrt(1+float64(rows)/10)
				if n == 1 {
					bound = 1e-3
				}
				threads(t, func(what string, pool *par.Pool) [][]float32 {
					what = fmt.Sprintf("%s %dx%d rms=%v bare=%v", what, rows, n, rms, bare)
					p := NewLayerNorm(rows, n, eps)
					if rms {
						p = NewRMSNorm(rows, n, eps)
					}
					gotY, checkY := guarded(t, rows*n, 1)
					mean, checkM := guarded(t, rows, 2)
					rstd, checkR := guarded(t, rows, 3)
					if rms {
						mean = nil
					}
					p.Run(pool, gotY, mean, rstd, x, gamma, beta)
					close64(t, what+" y", gotY, y, bound)
					in := append([]float32{}, x...)
					p.Run(pool, in, mean, rstd, in, gamma, beta)
					close64(t, what+" y in place", in, y, bound)
					gotDX, checkDX := guarded(t, rows*n, 1)
					dg, checkG := guarded(t, n, 1)
					db, checkB := guarded(t, n, 2)
					p.Backward(pool, gotDX, dg, db, dy, x, gamma, mean, rstd)
					close64(t, what+" dx", gotDX, dx, bound)
					close64(t, what+" dgamma", dg, dgamma, bound)
					close64(t, what+" dbeta", db, dbeta, bound)
					in = append(in[:0], dy...)
					p.Backward(pool, in, nil, nil, in, x, gamma, mean, rstd)
					close64(t, what+" dx in place", in, dx, bound)
					for _, c := range []func(string){checkY, checkM, checkR, checkDX, checkG, checkB} {
						c(what)
					}
					return [][]float32{gotY, rstd, gotDX, dg, db}
				})
			}
		}
	}
}

func TestBatchNorm(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, size := range [][2]int{{1, 3}, {5, 0}, {7, 1}, {33, 3}, {100, 8}, {50, 15}, {50, 16}, {50, 17}, {513, 31}, {2000, 33}, {1500, 64}, {40, 300}, {9000, 2}} {
		for _, kind := range []string{"plain", "relu", "add relu"} {
			rows, c := size[0], size[1]
			relu, add := kind != "plain", kind == "add relu"
			const eps = 1e-3
			x, dy, gamma, beta := normal(r, rows*c), normal(r, rows*c), normal(r, c), normal(r, c)
			z, other := normal(r, rows*c), normal(r, rows*c)
			for i := range x {
				x[i] += float32(i%c) * 10 // means far from 0 in units of the deviation
			}
			mean, variance, dgamma, dbeta := make([]float64, c), make([]float64, c), make([]float64, c), make([]float64, c)
			y, dx, dz := make([]float64, rows*c), make([]float64, rows*c), make([]float64, rows*c)
			for j := range c {
				for i := range rows {
					mean[j] += float64(x[i*c+j]) / float64(rows)
				}
				for i := range rows {
					d := float64(x[i*c+j]) - mean[j]
					variance[j] += d * d / float64(rows)
				}
				s := 1 / math.Sqrt(variance[j]+eps)
				for i := range rows {
					at := i*c + j
					xhat := (float64(x[at]) - mean[j]) * s
					v := float64(gamma[j])*xhat + float64(beta[j])
					if add {
						v += float64(z[at])
					}
					if math.Abs(v) < 1e-3 { // where rounding may decide on which side of 0 it is, no gradient
						dy[at], other[at] = 0, 0
					}
					if dz[at] = float64(dy[at]); add {
						dz[at] += float64(other[at])
					}
					if relu && v <= 0 {
						v, dz[at] = 0, 0
					}
					y[at] = v
					dgamma[j] += dz[at] * xhat
					dbeta[j] += dz[at]
				}
				for i := range rows {
					xhat := (float64(x[i*c+j]) - mean[j]) * s
					dx[i*c+j] = float64(gamma[j]) * s * (dz[i*c+j] - dbeta[j]/float64(rows) - xhat*dgamma[j]/float64(rows))
				}
			}
			// x up to 10·c carries a rounding error of 10·c/2^24 deviations into everything.
			unit := 1e-5 + float64(c)*3e-6
			threads(t, func(what string, pool *par.Pool) [][]float32 {
				what = fmt.Sprintf("%s %dx%d %s", what, rows, c, kind)
				p := NewBatchNorm(rows, c, eps, relu)
				gotY, checkY := guarded(t, rows*c, 1)
				m, checkM := guarded(t, c, 2)
				v, checkV := guarded(t, c, 3)
				if add {
					p.Run(pool, gotY, m, v, x, gamma, beta, z)
				} else {
					p.Run(pool, gotY, m, v, x, gamma, beta, nil)
				}
				close64(t, what+" mean", m, mean, unit)
				close64(t, what+" variance", v, variance, unit)
				bound := unit
				if rows == 1 {
					bound = 1e-3 // variance 0: r = 1/√ε
				}
				close64(t, what+" y", gotY, y, bound)
				in := append([]float32{}, x...)
				if !add {
					p.Infer(pool, in, in, gamma, beta, m, v)
					close64(t, what+" y in place from given statistics", in, y, bound)
				} else {
					in = append(in[:0], z...)
					p.Run(pool, in, m, v, x, gamma, beta, in)
					close64(t, what+" y in the place of z", in, y, bound)
				}
				gotDX, checkDX := guarded(t, rows*c, 1)
				gotDZ, checkDZ := guarded(t, rows*c, 1)
				dg, checkG := guarded(t, c, 1)
				db, checkB := guarded(t, c, 2)
				sums := bound * math.Sqrt(float64(rows))
				if !add {
					p.Backward(pool, gotDX, dg, db, dy, x, gamma, beta, m, v)
					in = append(in[:0], dy...)
					p.Backward(pool, in, dg, db, in, x, gamma, beta, m, v)
					close64(t, what+" dx in place", in, dx, bound)
					in = append(in[:0], x...)
					p.Backward(pool, in, dg, db, dy, in, gamma, beta, m, v)
					close64(t, what+" dx in the place of x", in, dx, bound)
				} else {
					p.BackwardAdd(pool, gotDX, dg, db, gotDZ, gotY, dy, other, x, gamma, m, v)
					close64(t, what+" dz", gotDZ, dz, bound)
					in = append(in[:0], x...)
					at := append([]float32{}, dy...)
					for i, d := range other {
						at[i] += d
					}
					p.BackwardAdd(pool, in, dg, db, at, gotY, at, nil, in, gamma, m, v)
					close64(t, what+" dz in place, of a sum", at, dz, bound)
					close64(t, what+" dx in the place of x", in, dx, bound)
					checkDZ(what)
				}
				close64(t, what+" dgamma", dg, dgamma, sums)
				close64(t, what+" dbeta", db, dbeta, sums)
				close64(t, what+" dx", gotDX, dx, bound)
				for _, f := range []func(string){checkY, checkM, checkV, checkDX, checkG, checkB} {
					f(what)
				}
				return [][]float32{gotY, m, v, gotDX, dg, db}
			})
		}
	}
}

// TestBatchNormFarMean: a mean of a million deviations must not destroy the variance.
func TestBatchNormFarMean(t *testing.T) {
	const rows = 4096
	x := make([]float32, rows)
	for i := range x {
		x[i] = 1 << 20
		if i%2 == 0 {
			x[i]++
		}
	}
	for _, l := range isa.Levels() {
		defer isa.Use(l)()
		m, v := []float32{0}, []float32{0}
		NewBatchNorm(rows, 1, 0, false).Run(nil, make([]float32, rows), m, v, x, []float32{1}, []float32{0}, nil)
		if math.Abs(float64(v[0])-0.25) > 0.01 {
			t.Errorf("%v: mean %g, variance %g, want 0.25", l, m[0], v[0])
		}
	}
}

func TestNormAllocs(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	const rows, c = 2000, 64
	x, y, m, v, g := make([]float32, rows*c), make([]float32, rows*c), make([]float32, rows), make([]float32, rows), make([]float32, c)
	bn, ln := NewBatchNorm(rows, c, 1e-3, true), NewLayerNorm(rows, c, 1e-3)
	if n := allocs.PerRun(func() {
		bn.Run(pool, y, m, v, x, g, g, nil)
		bn.Backward(pool, y, g, g, x, x, g, g, m, v)
		ln.Run(pool, y, m, v, x, g, g)
		ln.Backward(pool, y, g, g, x, x, g, m, v)
	}); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}

func BenchmarkNorm(b *testing.B) {
	pool := par.New(2)
	defer pool.Close()
	for _, size := range [][2]int{{2048, 256}, {64 * 32 * 32, 64}, {64 * 16 * 16, 128}, {64 * 8 * 8, 512}} {
		for _, l := range isa.Levels()[1:] {
			rows, c := size[0], size[1]
			x, y, g := make([]float32, rows*c), make([]float32, rows*c), make([]float32, c)
			m, v := make([]float32, max(rows, c)), make([]float32, max(rows, c))
			restore := isa.Use(l)
			bn, ln := NewBatchNorm(rows, c, 1e-3, true), NewLayerNorm(rows, c, 1e-3)
			restore()
			for name, f := range map[string]func(){
				"batch":         func() { bn.Run(pool, y, m, v, x, g, g, nil) },
				"batchBackward": func() { bn.Backward(pool, y, g, g, x, x, g, g, m, v) },
				"layer":         func() { ln.Run(pool, y, m, v, x, g, g) },
				"layerBackward": func() { ln.Backward(pool, y, g, g, x, x, g, m, v) },
			} {
				b.Run(fmt.Sprintf("%s/%dx%d/%v", name, rows, c, l), func(b *testing.B) {
					b.SetBytes(int64(4 * rows * c))
					for b.Loop() {
						f()
					}
				})
			}
		}
	}
}
