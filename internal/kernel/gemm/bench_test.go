package gemm

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/internal/peak"
)

// benchShapes are the products of square matrices, of dense layers (forward, dX, dW) and of a small Transformer.
var benchShapes = []struct {
	name string
	s    Spec
}{
	{"256", Spec{M: 256, K: 256, N: 256}},
	{"512", Spec{M: 512, K: 512, N: 512}},
	{"1024", Spec{M: 1024, K: 1024, N: 1024}},
	{"2048", Spec{M: 2048, K: 2048, N: 2048}},
	{"dense1/batch1", Spec{M: 1, K: 1600, N: 128}},
	{"dense1/batch8", Spec{M: 8, K: 1600, N: 128}},
	{"dense1/batch32", Spec{M: 32, K: 1600, N: 128}},
	{"dense1/batch128", Spec{M: 128, K: 1600, N: 128}},
	{"dense1/batch256", Spec{M: 256, K: 1600, N: 128}},
	{"dense1/dX/batch1", Spec{M: 1, K: 128, N: 1600, TransB: true}},
	{"dense1/dX/batch8", Spec{M: 8, K: 128, N: 1600, TransB: true}},
	{"dense1/dX/batch32", Spec{M: 32, K: 128, N: 1600, TransB: true}},
	{"dense1/dX/batch128", Spec{M: 128, K: 128, N: 1600, TransB: true}},
	{"dense1/dX/batch256", Spec{M: 256, K: 128, N: 1600, TransB: true}},
	{"dense1/dW/batch1", Spec{M: 1600, K: 1, N: 128, TransA: true}},
	{"dense1/dW/batch8", Spec{M: 1600, K: 8, N: 128, TransA: true}},
	{"dense1/dW/batch32", Spec{M: 1600, K: 32, N: 128, TransA: true}},
	{"dense1/dW/batch128", Spec{M: 1600, K: 128, N: 128, TransA: true}},
	{"dense1/dW/batch256", Spec{M: 1600, K: 256, N: 128, TransA: true}},
	{"dense2/batch32", Spec{M: 32, K: 128, N: 10}},
	{"dense2/dX/batch32", Spec{M: 32, K: 10, N: 128, TransB: true}},
	{"dense2/dW/batch32", Spec{M: 128, K: 32, N: 10, TransA: true}},
	{"decode/4096x4096", Spec{M: 1, K: 4096, N: 4096}},
	{"decode/512x512", Spec{M: 1, K: 512, N: 512}},
	{"decode/1024x1024", Spec{M: 1, K: 1024, N: 1024}},
	{"decode/2of4096x4096", Spec{M: 2, K: 4096, N: 4096}},
	{"decode/4of4096x4096", Spec{M: 4, K: 4096, N: 4096}},
	{"decode/8of4096x4096", Spec{M: 8, K: 4096, N: 4096}},
	{"decode/transposed/4096x4096", Spec{M: 1, K: 4096, N: 4096, TransB: true}},
	{"conv/3872x288x64", Spec{M: 3872, K: 288, N: 64}},
	{"conv/dW/288x3872x64", Spec{M: 288, K: 3872, N: 64, TransA: true}},
	{"conv/dW/9x21632x32", Spec{M: 9, K: 21632, N: 32, TransA: true}},
	{"gpt/2048x256x1024", Spec{M: 2048, K: 256, N: 1024}},
	{"gpt/dX/2048x1024x256", Spec{M: 2048, K: 1024, N: 256, TransB: true}},
	{"gpt/dW/256x2048x1024", Spec{M: 256, K: 2048, N: 1024, TransA: true}},
	{"attention/64x128x64x128", Spec{M: 128, K: 64, N: 128, TransB: true, Batch: 64, StrideA: 128 * 64, StrideB: 128 * 64, StrideC: 128 * 128}},
}

// BenchmarkPlan reports the best of many runs, since whatever disturbs the machine only lengthens one, and its share of the
// FMA peak measured just before.
func BenchmarkPlan(b *testing.B) {
	rng := rand.New(rand.NewPCG(13, 14))
	for _, l := range isa.Levels()[1:] {
		for _, threads := range []int{1, 2} {
			restore := isa.Use(l)
			pool := par.New(threads)
			top := peak.FLOPS(threads)
			for _, bench := range benchShapes {
				o := makeOperands(bench.s, rng)
				p := New(bench.s)
				b.Run(fmt.Sprintf("%v/%dthreads/%s", l, threads, bench.name), func(b *testing.B) {
					best := time.Hour
					for b.Loop() {
						start := time.Now()
						p.Run(pool, o.a, o.b, o.c, nil, nil)
						best = min(best, time.Since(start))
					}
					rate := float64(p.FLOPs()) / best.Seconds()
					b.ReportMetric(rate/1e9, "GFLOP/s")
					b.ReportMetric(100*rate/top, "%peak")
					b.ReportMetric(float64(best.Nanoseconds())/1e3, "best-µs")
				})
			}
			pool.Close()
			restore()
		}
	}
}
