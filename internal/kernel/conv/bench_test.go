package conv

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jouleml/joule/internal/par"
)

func square(n, size, cin, cout, k, stride int) Spec {
	p := (k - 1) / 2
	return Spec{N: n, H: size, W: size, Cin: cin, Cout: cout, KH: k, KW: k, StrideH: stride, StrideW: stride,
		PadTop: p, PadBottom: p, PadLeft: p, PadRight: p}
}

func depthwiseSpec(n, size, c, stride int) Spec {
	s := square(n, size, c, c, 3, stride)
	s.Groups = c
	return s
}

// benchmarks are the shapes that the comparison with other libraries uses.
var benchmarks = []struct {
	name string
	s    Spec
}{
	{"resnet stem 3x3 3-64 32", square(64, 32, 3, 64, 3, 1)},
	{"resnet 3x3 64-64 32", square(64, 32, 64, 64, 3, 1)},
	{"resnet 3x3s2 64-128 32", square(64, 32, 64, 128, 3, 2)},
	{"resnet 3x3 128-128 16", square(64, 16, 128, 128, 3, 1)},
	{"resnet 3x3s2 128-256 16", square(64, 16, 128, 256, 3, 2)},
	{"resnet 3x3 256-256 8", square(64, 8, 256, 256, 3, 1)},
	{"resnet 3x3s2 256-512 8", square(64, 8, 256, 512, 3, 2)},
	{"resnet 3x3 512-512 4", square(64, 4, 512, 512, 3, 1)},
	{"resnet 1x1s2 64-128 32", square(64, 32, 64, 128, 1, 2)},
	{"resnet 1x1s2 256-512 8", square(64, 8, 256, 512, 1, 2)},
	{"1x1 256-256 14", square(16, 14, 256, 256, 1, 1)},
	{"1x1 64-256 28", square(16, 28, 64, 256, 1, 1)},
	{"1x1 256-64 56 batch 32", square(32, 56, 256, 64, 1, 1)},
	{"1x1 128-512 28 batch 64", square(64, 28, 128, 512, 1, 1)},
	{"5x5 32-64 14", square(32, 14, 32, 64, 5, 1)},
	{"7x7s2 3-64 112", square(4, 112, 3, 64, 7, 2)},
	{"odd 3x3 48-80 27", square(8, 27, 48, 80, 3, 1)},
	{"depthwise 3x3 64 56", depthwiseSpec(16, 56, 64, 1)},
	{"depthwise 3x3 256 14", depthwiseSpec(16, 14, 256, 1)},
	{"depthwise 3x3s2 128 28", depthwiseSpec(16, 28, 128, 2)},
	{"mnist 3x3 1-32 28", Spec{N: 32, H: 28, W: 28, Cin: 1, Cout: 32, KH: 3, KW: 3}},
	{"one 3x3 1-32 28", Spec{N: 1, H: 28, W: 28, Cin: 1, Cout: 32, KH: 3, KW: 3}},
	{"one 3x3 32-64 13", Spec{N: 1, H: 13, W: 13, Cin: 32, Cout: 64, KH: 3, KW: 3}},
	{"one 3x3 64-64 32", square(1, 32, 64, 64, 3, 1)},
	{"one 3x3 256-256 14", square(1, 14, 256, 256, 3, 1)},
	{"one 3x3 512-512 7", square(1, 7, 512, 512, 3, 1)},
	{"mnist 3x3 32-64 13", Spec{N: 32, H: 13, W: 13, Cin: 32, Cout: 64, KH: 3, KW: 3}},
}

// aligned is n random numbers at the start of a cache line, as the memory plan of a graph places them.
func aligned(rng *rand.Rand, n int) []float32 {
	s := make([]float32, max(n, 1<<14))[:n] // large allocations start on a page
	copy(s, random(rng, n))
	return s
}

// BenchmarkConv reports the FLOPs that the convolution asks for over the time of the best run: neighbours only ever slow it down.
func BenchmarkConv(b *testing.B) {
	for _, threads := range []int{1, 2} {
		pool := par.New(threads)
		for _, c := range benchmarks {
			rng := rand.New(rand.NewPCG(1, 2))
			s := c.s
			x, w, dy := aligned(rng, s.SizeX()), aligned(rng, s.SizeW()), aligned(rng, s.SizeY())
			y, dx, dw := make([]float32, s.SizeY()), make([]float32, s.SizeX()), make([]float32, s.SizeW())
			p := New(s)
			for _, d := range []struct {
				name string
				run  func()
			}{
				{"fwd", func() { p.Forward(pool, x, w, nil, y) }},
				{"fixed", func() { p.Forward(pool, x, nil, nil, y) }},
				{"bwdx", func() { p.BackwardInput(pool, w, dy, dx) }},
				{"bwdw", func() { p.BackwardFilter(pool, x, dy, dw) }},
			} {
				b.Run(c.name+"/"+d.name+"/threads"+string('0'+rune(threads)), func(b *testing.B) {
					d.run()
					best := time.Duration(1 << 62)
					for b.Loop() {
						start := time.Now()
						d.run()
						best = min(best, time.Since(start))
					}
					b.ReportMetric(float64(s.FLOPs())/float64(best.Nanoseconds()), "GFLOP/s")
				})
			}
		}
		pool.Close()
	}
}

// BenchmarkTransforms reports what one 64-channel tile costs when its points stay in L1 (dense) or go to as many places as in
// a block of tiles (block).
func BenchmarkTransforms(b *testing.B) {
	tr := newTransforms()
	const c = 64
	tmp := make([]float32, tmpFloats)
	bias := make([]float32, c)
	for _, block := range []int{1, 24} {
		point := block*c + skew
		points := make([]float32, 36*point)
		img := make([]float32, 6*6*c)
		var rows [6][]float32
		for i := range rows {
			rows[i] = img[i*6*c:]
		}
		name := map[int]string{1: "dense", 24: "block"}[block]
		b.Run("points/"+name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				tr.points(&points[i%block*c], point, &rows[0], c, 0, 6, c, &tmp[0])
			}
		})
		b.Run("filter4/"+name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				tr.filter[4](&points[i%block*c], point, &rows[0], c, 0, 4, c, &tmp[0])
			}
		})
		b.Run("result4/"+name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				tr.result[4](&img[0], 32*c, c, &points[i%block*c], point, 4, 4, c, &bias[0], 1, &tmp[0])
			}
		})
	}
}
