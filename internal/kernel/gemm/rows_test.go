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

func TestGrid(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(19, 20))
		for m := 1; m < 16; m++ {
			for n := 1; n < 10; n++ {
				for _, k := range []int{1, 7, 8, 15, 16, 17, 33, 64, 600} {
					ldx, ldb, ldy := k+rng.IntN(3), k+rng.IntN(3), n+rng.IntN(3)
					x, _ := guarded(extent(m, k, ldx), rng.IntN(16))
					b, _ := guarded(extent(n, k, ldb), rng.IntN(16))
					for i := range m {
						fill(rng, x[i*ldx:][:k])
					}
					for r := range n {
						fill(rng, b[r*ldb:][:k])
					}
					y, intact := guarded(extent(m, n, ldy), rng.IntN(16))
					grid(isa.Current(), y, x, b, ldy, ldx, ldb, m, n, k)
					if !intact() {
						t.Fatalf("%dx%dx%d: wrote outside of y", m, k, n)
					}
					for i := range m {
						for r := range n {
							var want, abs float64
							for j := range k {
								v := float64(x[i*ldx+j]) * float64(b[r*ldb+j])
								want, abs = want+v, abs+math.Abs(v)
							}
							if got := y[i*ldy+r]; !near(got, want, abs, k) {
								t.Fatalf("%dx%dx%d: y[%d][%d] = %v, want %v", m, k, n, i, r, got, want)
							}
						}
						if i < m-1 {
							for _, v := range y[i*ldy+n : (i+1)*ldy] {
								if math.Float32bits(v) != math.Float32bits(sentinel) {
									t.Fatalf("%dx%dx%d: wrote between the rows of y", m, k, n)
								}
							}
						}
					}
					// The same pair among others, in another place.
					two := make([]float32, 2)
					grid(isa.Current(), two, x[(m-1)*ldx:], b[(n-1)*ldb:], 1, 0, ldb, 2, 1, k)
					if last := y[len(y)-1]; m > 1 && (two[0] != last || two[1] != last) {
						t.Fatalf("%dx%dx%d: %v among others, %v alone", m, k, n, last, two)
					}
				}
			}
		}
	})
}

func TestAxpys(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(21, 22))
		for k := 1; k < 10; k++ {
			for n := 1; n < 60; n++ {
				ldb, step := n+rng.IntN(3), 1+rng.IntN(3)
				b, _ := guarded(extent(k, n, ldb), rng.IntN(16))
				x, _ := guarded((k-1)*step+1, rng.IntN(16))
				for i := range k {
					fill(rng, b[i*ldb:][:n])
					x[i*step] = float32(rng.NormFloat64())
				}
				y, intact := guarded(n, rng.IntN(16))
				fill(rng, y)
				before := append([]float32(nil), y...)
				axpys(isa.Current(), y, x, b, step, ldb, k)
				if !intact() {
					t.Fatalf("k=%d n=%d: wrote outside of y", k, n)
				}
				for j := range n {
					want, abs := float64(before[j]), math.Abs(float64(before[j]))
					for i := range k {
						v := float64(x[i*step]) * float64(b[i*ldb+j])
						want, abs = want+v, abs+math.Abs(v)
					}
					if !near(y[j], want, abs, k) {
						t.Fatalf("k=%d n=%d: y[%d] = %v, want %v", k, n, j, y[j], want)
					}
				}
			}
		}
	})
}
