package reduce

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/internal/par"
)

// What parts of the classes bring to a cross-entropy, and its gradient, are those of float64; labels of other parts bring nothing.
func TestPartEntropy(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, size := range [][2]int{{0, 10}, {1, 1}, {33, 16}, {5, 17}, {500, 100}, {2, 5000}} {
		rows, n := size[0], size[1]
		x, d := normal(r, rows*n), normal(r, 3*rows)
		labels := make([]int32, rows)
		for i := range labels {
			labels[i] = int32(r.IntN(2*n) - n/2)
		}
		want, grad := make([]float64, 3*rows), make([]float64, rows*n)
		for i, k := range labels {
			y, lse := softmax64(x[i*n : (i+1)*n])
			want[i] = lse
			for c, p := range y {
				want[2*rows+i] += float64(x[i*n+c])
				grad[i*n+c] = p*float64(d[i]) + float64(d[2*rows+i])
				if int32(c) == k {
					want[rows+i] = float64(x[i*n+c])
					grad[i*n+c] += float64(d[rows+i])
				}
			}
		}
		threads(t, func(what string, pool *par.Pool) [][]float32 {
			what = fmt.Sprintf("%s %dx%d", what, rows, n)
			p := NewPartEntropy(rows, n)
			stats, check := guarded(t, 3*rows, 1)
			p.Run(pool, stats, x, labels)
			check(what)
			close64(t, what, stats, want, 1e-4)
			g, check := guarded(t, rows*n, 2)
			p.Backward(pool, g, x, labels, stats, d)
			check(what)
			close64(t, what+" gradient", g, grad, 2e-6)
			return [][]float32{stats, g}
		})
	}
}

// A row of which all logits are -∞ brings nothing, and its gradient is no NaN; one of several is none of the sum.
func TestPartEntropyRuledOut(t *testing.T) {
	none := float32(math.Inf(-1))
	for _, n := range []int{1, 7, 100} {
		x, labels := make([]float32, 2*n), []int32{-1, int32(n - 1)}
		for i := range x {
			x[i] = none
		}
		x[2*n-1] = 3
		threads(t, func(what string, pool *par.Pool) [][]float32 {
			p := NewPartEntropy(2, n)
			stats, g := make([]float32, 6), make([]float32, 2*n)
			p.Run(pool, stats, x, labels)
			if stats[0] != none || stats[1] != 3 || stats[2] != 0 || stats[3] != 3 {
				t.Errorf("%s: %d logits: %v", what, n, stats)
			}
			p.Backward(pool, g, x, labels, stats, []float32{0.5, 0.5, -1, -1, 0, 0})
			for i, v := range g {
				want := float32(0)
				if i == 2*n-1 {
					want = -0.5
				}
				if !(math.Abs(float64(v-want)) < 1e-6) {
					t.Errorf("%s: gradient %d of %d is %v, not %v", what, i, 2*n, v, want)
				}
			}
			return [][]float32{stats, g}
		})
	}
}
