package convpool

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// BenchmarkConvPool reports the best run's milliseconds, and the FLOPs of the direct dense arithmetic over it: neighbours only
// ever slow it down. The gradients have the share of dead windows that the random problem has.
func BenchmarkConvPool(b *testing.B) {
	for _, l := range isa.Levels()[1:] {
		for _, threads := range []int{1, 2} {
			for _, n := range []int{1, 32, 128} {
				for _, s := range []Spec{{n, 28, 28, 1, 32, 3, 3}, {n, 13, 13, 32, 64, 3, 3}} {
					bench(b, l, threads, s)
				}
			}
		}
	}
}

func bench(b *testing.B, l isa.Level, threads int, s Spec) {
	defer isa.Use(l)()
	pool := par.New(threads)
	defer pool.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	x, w, bias, dy := random(rng, s.SizeX(), 1), random(rng, s.SizeW(), 0.1), random(rng, s.Cout, 0.1), random(rng, s.SizeY(), 1)
	y, idx := make([]float32, s.SizeY()), make([]uint8, s.SizeY())
	dw, db, dx := make([]float32, s.SizeW()), make([]float32, s.Cout), make([]float32, s.SizeX())
	p := New(s)
	p.Forward(pool, x, w, bias, y, idx)
	for _, c := range []struct {
		name string
		run  func()
	}{
		{"forward", func() { p.Forward(pool, x, w, bias, y, idx) }},
		{"inference", func() { p.Forward(pool, x, nil, bias, y, nil) }},
		{"filter", func() { p.BackwardFilter(pool, x, idx, dy, dw, db) }},
		{"input", func() { p.BackwardInput(pool, w, idx, dy, dx) }},
	} {
		if c.name == "input" && s.Cin == 1 {
			continue
		}
		b.Run(fmt.Sprintf("%v/%dthreads/%v/%s", l, threads, s, c.name), func(b *testing.B) {
			best := time.Hour
			for b.Loop() {
				t := time.Now()
				c.run()
				best = min(best, time.Since(t))
			}
			b.ReportMetric(best.Seconds()*1e3, "best-ms")
			b.ReportMetric(float64(s.FLOPs())/best.Seconds()/1e9, "GFLOP/s")
		})
	}
}
