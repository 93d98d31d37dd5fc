package gemm

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/internal/isa"
)

func TestCopies(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 8))
		for rows := range 27 {
			for cols := range 35 {
				for _, trans := range []bool{false, true} {
					lds, ldd := cols+rng.IntN(4), cols+rng.IntN(4)
					n := max(0, (rows-1)*ldd+cols)
					if trans {
						ldd = rows + rng.IntN(4)
						n = max(0, (cols-1)*ldd+rows)
					}
					src, _ := guarded(max(0, (rows-1)*lds+cols), rng.IntN(16))
					fill(rng, src)
					dst, intact := guarded(n, rng.IntN(16))
					if trans {
						transpose(isa.Current(), dst, src, ldd, lds, rows, cols)
					} else {
						copyBlock(isa.Current(), dst, src, ldd, lds, rows, cols)
					}
					if !intact() {
						t.Fatalf("%dx%d trans=%v: wrote outside of dst", rows, cols, trans)
					}
					for i := range rows {
						for j := range cols {
							at := i*ldd + j
							if trans {
								at = j*ldd + i
							}
							if dst[at] != src[i*lds+j] {
								t.Fatalf("%dx%d trans=%v: [%d][%d] = %v, want %v", rows, cols, trans, i, j, dst[at], src[i*lds+j])
							}
							dst[at] = sentinel
						}
					}
					for i, x := range dst {
						if math.Float32bits(x) != math.Float32bits(sentinel) {
							t.Fatalf("%dx%d trans=%v: wrote between rows at %d", rows, cols, trans, i)
						}
					}
				}
			}
		}
	})
}
