package gemm

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/internal/isa"
)

func TestDots(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(17, 18))
		for rows := 1; rows < 10; rows++ {
			for k := 1; k < 60; k++ {
				ldb := k + rng.IntN(3)
				b, _ := guarded(extent(rows, k, ldb), rng.IntN(16))
				for r := range rows {
					fill(rng, b[r*ldb:][:k])
				}
				x, _ := guarded(k, rng.IntN(16))
				fill(rng, x)
				y, intact := guarded(rows, rng.IntN(16))
				dots(isa.Current(), y, x, b, ldb)
				if !intact() {
					t.Fatalf("rows=%d k=%d: wrote outside of y", rows, k)
				}
				for r := range rows {
					var want, abs float64
					for i := range k {
						v := float64(x[i]) * float64(b[r*ldb+i])
						want, abs = want+v, abs+math.Abs(v)
					}
					if !near(y[r], want, abs, k) {
						t.Fatalf("rows=%d k=%d: y[%d] = %v, want %v", rows, k, r, y[r], want)
					}
					// The same row alone.
					one := make([]float32, 1)
					dots(isa.Current(), one, x, b[r*ldb:], ldb)
					if one[0] != y[r] {
						t.Fatalf("rows=%d k=%d: row %d is %v among others, %v alone", rows, k, r, y[r], one[0])
					}
				}
			}
		}
	})
}
