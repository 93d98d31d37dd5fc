package pool

import (
	"testing"
	"time"

	"github.com/jouleml/joule/internal/par"
)

// BenchmarkPool reports the bytes that must be read and written over the time of the best run.
func BenchmarkPool(b *testing.B) {
	pool := par.New(2)
	defer pool.Close()
	for _, c := range []struct {
		name string
		s    Spec
	}{
		{"2x2 26 C32 N32", Spec{N: 32, H: 26, W: 26, C: 32, KH: 2, KW: 2}},
		{"2x2 11 C64 N32", Spec{N: 32, H: 11, W: 11, C: 64, KH: 2, KW: 2}},
		{"3x3s2 112 C64 N4", Spec{N: 4, H: 112, W: 112, C: 64, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1}},
	} {
		p := New(c.s)
		x, y, dx := random(c.s.SizeX(), 1), random(c.s.SizeY(), 2), make([]float32, c.s.SizeX())
		for _, d := range []struct {
			name  string
			run   func()
			bytes int
		}{
			{"max", func() { p.MaxForward(pool, x, y) }, len(x) + len(y)},
			{"max gradient", func() { p.MaxBackward(pool, x, y, dx) }, 2*len(x) + len(y)},
			{"avg", func() { p.AvgForward(pool, x, y) }, len(x) + len(y)},
			{"avg gradient", func() { p.AvgBackward(pool, y, dx) }, len(x) + len(y)},
		} {
			b.Run(c.name+"/"+d.name, func(b *testing.B) {
				best := time.Duration(1 << 62)
				for b.Loop() {
					start := time.Now()
					d.run()
					best = min(best, time.Since(start))
				}
				b.ReportMetric(4*float64(d.bytes)/float64(best.Nanoseconds()), "GB/s")
			})
		}
	}
}
