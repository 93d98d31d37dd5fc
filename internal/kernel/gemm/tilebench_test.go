package gemm

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/peak"
)

// BenchmarkTileShapes is the tile kernel alone, packed columns and rows of A in place, beside the peak of one thread.
func BenchmarkTileShapes(b *testing.B) {
	top := peak.FLOPS(1)
	for _, l := range isa.Levels()[1:] {
		restore := isa.Use(l)
		for _, cols := range []int{8, 16, 32, 48, 64} {
			if cols > NR() {
				continue
			}
			for _, k := range []int{32, 128, 384, 1024} {
				rows := tileRows(l, cols) * 16
				t := &Tile{A: make([]float32, rows*k), B: make([]float32, k*cols), C: make([]float32, rows*cols), Segs: []Seg{{0, k}}, AStride: 1, LDB: cols, Cols: cols}
				for r := range rows {
					t.AOff = append(t.AOff, r*k)
					t.COff = append(t.COff, r*cols)
				}
				rng := rand.New(rand.NewPCG(1, 2))
				for i := range t.A {
					t.A[i] = rng.Float32() - 0.5
				}
				for i := range t.B {
					t.B[i] = rng.Float32() - 0.5
				}
				b.Run(fmt.Sprintf("%v/cols%d/k%d", l, cols, k), func(b *testing.B) {
					best := time.Hour
					for b.Loop() {
						start := time.Now()
						for range 10 {
							t.Run()
						}
						best = min(best, time.Since(start))
					}
					rate := float64(2*10*rows*k*cols) / best.Seconds()
					b.ReportMetric(rate/1e9, "GFLOP/s")
					b.ReportMetric(100*rate/top, "%peak")
				})
			}
		}
		restore()
	}
}
