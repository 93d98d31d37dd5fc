package gemm

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/internal/isa"
)

func TestTranspose(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 8))
		for rows := range 27 {
			for cols := range 35 {
				lds, ldd := cols+rng.IntN(4), rows+rng.IntN(4)
				src, _ := guarded(extent(rows, cols, lds), rng.IntN(16))
				fill(rng, src)
				dst, intact := guarded(extent(cols, rows, ldd), rng.IntN(16))
				transpose(isa.Current(), dst, src, ldd, lds, rows, cols)
				if !intact() {
					t.Fatalf("%dx%d: wrote outside of dst", rows, cols)
				}
				checkMoves(t, dst, rows, cols, func(i, j int) int { return j*ldd + i }, func(i, j int) float32 { return src[i*lds+j] })
			}
		}
	})
}

func TestCopyPanels(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(15, 16))
		for _, width := range []int{8, 16, 64} {
			for rows := range 6 {
				for cols := range 200 {
					lds, stride := cols+rng.IntN(4), rows*width+rng.IntN(4)
					src, _ := guarded(extent(rows, cols, lds), rng.IntN(16))
					fill(rng, src)
					panels := ceilDiv(cols, width)
					dst, intact := guarded(max(0, (panels-1)*stride+rows*width), rng.IntN(16))
					copyPanels(isa.Current(), dst, src, width, stride, lds, rows, cols)
					if !intact() {
						t.Fatalf("%dx%d by %d: wrote outside of dst", rows, cols, width)
					}
					checkMoves(t, dst, rows, cols, func(i, j int) int { return j/width*stride + i*width + j%width },
						func(i, j int) float32 { return src[i*lds+j] })
				}
			}
		}
	})
}

// checkMoves checks that dst holds from(i, j) at to(i, j) and nothing else.
func checkMoves(t *testing.T, dst []float32, rows, cols int, to func(i, j int) int, from func(i, j int) float32) {
	t.Helper()
	for i := range rows {
		for j := range cols {
			if got, want := dst[to(i, j)], from(i, j); got != want {
				t.Fatalf("%dx%d: [%d][%d] = %v, want %v", rows, cols, i, j, got, want)
			}
			dst[to(i, j)] = sentinel
		}
	}
	for i, x := range dst {
		if math.Float32bits(x) != math.Float32bits(sentinel) {
			t.Fatalf("%dx%d: wrote between rows at %d", rows, cols, i)
		}
	}
}
