package gemm

import (
	"math/rand/v2"
	"testing"
)

func TestPanels(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(5, 6))
		for _, n := range []int{0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 80, 127, 128, 200} {
			for _, k := range []int{0, 1, 2, 7, 8, 9, 31, 70} {
				for _, trans := range []bool{false, true} {
					ldb := n + rng.IntN(3)
					lines, line := k, n
					if trans {
						ldb = k + rng.IntN(3)
						lines, line = n, k
					}
					b, _ := guarded(max(0, (lines-1)*ldb+line), rng.IntN(16))
					for i := range lines {
						fill(rng, b[i*ldb:][:line])
					}
					p := NewPanels(k, n)
					dst, intact := guarded(p.Len(), rng.IntN(16))
					p.Pack(dst, b, ldb, trans)
					if !intact() {
						t.Fatalf("k=%d n=%d trans=%v: wrote outside of dst", k, n, trans)
					}
					seen := 0
					for i := range p.Count() {
						off, w, j0, cols := p.Panel(i)
						for kk := range k {
							for j := range w {
								var want float32
								if j < cols {
									if trans {
										want = b[(j0+j)*ldb+kk]
									} else {
										want = b[kk*ldb+j0+j]
									}
									seen++
								}
								if got := dst[off+kk*w+j]; got != want {
									t.Fatalf("k=%d n=%d trans=%v: panel %d [%d][%d] = %v, want %v", k, n, trans, i, kk, j, got, want)
								}
							}
						}
					}
					if seen != k*n {
						t.Fatalf("k=%d n=%d: panels hold %d elements", k, n, seen)
					}
				}
			}
		}
	})
}
