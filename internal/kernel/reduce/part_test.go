package reduce

import (
	"fmt"
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
