package reduce

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// softmax64 is the softmax of a row and the logarithm of its denominator.
func softmax64(x []float32) (y []float64, lse float64) {
	m, sum := math.Inf(-1), 0.0
	for _, v := range x {
		m = max(m, float64(v))
	}
	for _, v := range x {
		sum += math.Exp(float64(v) - m)
	}
	for _, v := range x {
		y = append(y, math.Exp(float64(v)-m)/sum)
	}
	return y, m + math.Log(sum)
}

func close64(t *testing.T, what string, got []float32, want []float64, bound float64) {
	t.Helper()
	for i := range want {
		if d := math.Abs(float64(got[i]) - want[i]); !(d <= bound) {
			t.Fatalf("%s: [%d] = %g, want %g: off by %g, bound %g", what, i, got[i], want[i], d, bound)
		}
	}
}

func TestSoftmax(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, size := range [][2]int{{0, 3}, {3, 1}, {5, 2}, {7, 10}, {3, 15}, {3, 16}, {3, 17}, {4, 31}, {2, 33}, {2, 100}, {300, 64}, {2, 9000}} {
		rows, n := size[0], size[1]
		x, dy := normal(r, rows*n), normal(r, rows*n)
		for i := range x {
			x[i] *= 4
		}
		if n > 2 && rows > 0 {
			x[0], x[1] = 1000, -1000 // must neither overflow nor become NaN
		}
		for _, log := range []bool{false, true} {
			var want, grad []float64
			for r := range rows {
				row, d := x[r*n:(r+1)*n], dy[r*n:(r+1)*n]
				y, lse := softmax64(row)
				var dot, sum float64
				for i := range y {
					dot += y[i] * float64(d[i])
					sum += float64(d[i])
				}
				for i := range y {
					if log {
						want = append(want, float64(row[i])-lse)
						grad = append(grad, float64(d[i])-y[i]*sum)
					} else {
						want = append(want, y[i])
						grad = append(grad, y[i]*(float64(d[i])-dot))
					}
				}
			}
			// Softmax: an exponential (1 ulp of a number below 1), a sum of positive terms, a quotient. The logarithm: half an ulp of x - m, up to 2000.
			bound := 4e-7
			if log {
				bound = 2e-6
				if n > 2 {
					bound = 2e-4
				}
			}
			threads(t, func(what string, pool *par.Pool) [][]float32 {
				what = fmt.Sprintf("%s %dx%d log=%v", what, rows, n, log)
				p := NewSoftmax(rows, n, log)
				y, check := guarded(t, rows*n, 3)
				p.Run(pool, y, x)
				check(what)
				close64(t, what, y, want, bound)
				in := append([]float32{}, x...)
				p.Run(pool, in, in)
				close64(t, what+" in place", in, want, bound)
				dx, check := guarded(t, rows*n, 1)
				p.Backward(pool, dx, y, dy)
				check(what)
				// Σ dy has magnitudes up to about sqrt(n)·3, and y below 1.
				close64(t, what+" backward", dx, grad, 1e-5*math.Sqrt(float64(n)))
				return [][]float32{y, dx}
			})
		}
	}
}

func TestCrossEntropy(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, size := range [][2]int{{0, 10}, {1, 1}, {32, 10}, {33, 16}, {5, 17}, {500, 100}, {2, 5000}} {
		for _, smoothing := range []float32{0, 0.1} {
			s := CrossEntropySpec{Rows: size[0], Classes: size[1], Smoothing: smoothing, HasIgnore: true, Ignore: -1}
			n := s.Classes
			x := normal(r, s.Rows*n)
			labels := make([]int32, s.Rows)
			counted := 0
			for i := range labels {
				if labels[i] = int32(r.IntN(n)); i%5 == 3 {
					labels[i] = -1
				} else {
					counted++
				}
			}
			const scale = 0.25
			e := float64(smoothing)
			var loss, grad []float64
			for r, k := range labels {
				row := x[r*n : (r+1)*n]
				y, lse := softmax64(row)
				sum := 0.0
				for c := range y {
					target := e / float64(n)
					if int32(c) == k {
						target += 1 - e
					}
					if k < 0 {
						grad = append(grad, 0)
						continue
					}
					sum += target * (lse - float64(row[c]))
					grad = append(grad, scale*(y[c]-target))
				}
				loss = append(loss, sum)
			}
			threads(t, func(what string, pool *par.Pool) [][]float32 {
				what = fmt.Sprintf("%s %+v", what, s)
				p := NewCrossEntropy(s)
				if c := p.Counted(labels); c != counted {
					t.Fatalf("%s: counted %d labels, want %d", what, c, counted)
				}
				got, check := guarded(t, s.Rows, 1)
				g, checkG := guarded(t, s.Rows*n, 2)
				p.Run(pool, got, g, x, labels, scale)
				check(what)
				checkG(what)
				close64(t, what+" loss", got, loss, 2e-6)
				close64(t, what+" gradient", g, grad, 2e-7)
				alone, _ := guarded(t, s.Rows, 0)
				p.Run(pool, alone, nil, x, labels, scale)
				close64(t, what+" loss alone", alone, loss, 2e-6)
				in := append([]float32{}, x...)
				p.Run(pool, got, in, in, labels, scale)
				close64(t, what+" gradient in place", in, grad, 2e-7)
				each := make([]float32, s.Rows)
				for i := range each {
					each[i] = float32(i%3) * scale
				}
				p.RunEach(pool, nil, in, x, labels, each)
				for i := range in {
					if w := float64(i/n%3) * grad[i]; math.Abs(float64(in[i])-w) > 4e-7 {
						t.Fatalf("%s: gradient scaled apart: [%d] = %g, want %g", what, i, in[i], w)
					}
				}
				return [][]float32{got, g, alone, in}
			})
		}
	}
}

func TestCrossEntropyBadLabel(t *testing.T) {
	for _, k := range []int32{-1, 3, math.MaxInt32, math.MinInt32} {
		loss, grad := make([]float32, 2), make([]float32, 6)
		NewCrossEntropy(CrossEntropySpec{Rows: 2, Classes: 3}).Run(nil, loss, grad, make([]float32, 6), []int32{k, 1}, 1)
		if loss[0] == loss[0] || grad[2] == grad[2] || loss[1] != loss[1] || grad[3] != grad[3] {
			t.Errorf("label %d: loss %v, gradient %v; want NaN in the first row alone", k, loss, grad)
		}
	}
}

func BenchmarkCrossEntropy(b *testing.B) {
	pool := par.New(2)
	defer pool.Close()
	for _, size := range [][2]int{{32, 10}, {128, 10}, {2048, 1024}} {
		for _, l := range isa.Levels() {
			b.Run(fmt.Sprintf("%dx%d/%v", size[0], size[1], l), func(b *testing.B) {
				defer isa.Use(l)()
				n := size[0] * size[1]
				x, g, loss, labels := make([]float32, n), make([]float32, n), make([]float32, size[0]), make([]int32, size[0])
				p := NewCrossEntropy(CrossEntropySpec{Rows: size[0], Classes: size[1]})
				b.SetBytes(int64(8 * n))
				for b.Loop() {
					p.Run(pool, loss, g, x, labels, 1)
				}
			})
		}
	}
}
