package bench

import (
	"fmt"
	"math/rand/v2"

	"github.com/jouleml/joule/internal/kernel/conv"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/kernel/tgemm"
	"github.com/jouleml/joule/internal/par"
)

// products lists square matrix products and those of dense layers in all three directions.
func products() []work {
	var out []work
	for _, n := range []int{256, 512, 1024, 2048} {
		out = append(out, product("sgemm", fmt.Sprintf("sgemm %d", n), gemm.Spec{M: n, N: n, K: n}))
	}
	// The main network's two layers, then a usual first and a usual inner layer of perceptrons.
	for _, l := range [][2]int{{1600, 128}, {128, 10}, {784, 512}, {1024, 1024}} {
		for _, b := range []int{1, 8, 32, 128, 256} {
			in, width := l[0], l[1]
			name := fmt.Sprintf("dense %d-%d batch %d ", in, width, b)
			out = append(out,
				product("dense", name+"forward", gemm.Spec{M: b, N: width, K: in}),
				product("dense", name+"dX", gemm.Spec{M: b, N: in, K: width, TransB: true}),
				product("dense", name+"dW", gemm.Spec{M: in, N: width, K: b, TransA: true}))
		}
	}
	return out
}

func product(group, name string, s gemm.Spec) work {
	w := work{name: name, group: group, flops: 2 * float64(s.M) * float64(s.N) * float64(s.K),
		request: Request{"work": "sgemm", "m": s.M, "n": s.N, "k": s.K, "ta": s.TransA, "tb": s.TransB}}
	w.setup = func(threads int) (func() error, func(), error) {
		a, b, c := randoms(s.M*s.K), randoms(s.K*s.N), make([]float32, s.M*s.N)
		pool := par.New(threads)
		if p := tgemm.New(s); p != nil { // as the engine chooses
			scratch := make([]uint32, p.Scratch(threads))
			return func() error { p.Run(pool, a, b, c, nil, scratch); return nil }, pool.Close, nil
		}
		p := gemm.New(s)
		return func() error { p.Run(pool, a, b, c, nil, nil); return nil }, pool.Close, nil
	}
	return w
}

// convShape is a convolution with the padding that keeps the size (divided by the stride, rounded up), batch 8.
type convShape struct{ size, stride, h, w, in, out, groups int }

// convShapes are layers of usual image networks, and one of odd sizes.
var convShapes = []convShape{
	{1, 1, 56, 56, 64, 64, 1}, {1, 1, 14, 14, 512, 512, 1},
	{3, 1, 32, 32, 3, 64, 1}, {3, 1, 56, 56, 64, 64, 1}, {3, 1, 28, 28, 128, 128, 1}, {3, 1, 14, 14, 256, 256, 1}, {3, 1, 7, 7, 512, 512, 1},
	{3, 2, 56, 56, 64, 128, 1}, {3, 2, 14, 14, 256, 512, 1},
	{5, 1, 28, 28, 32, 64, 1}, {7, 2, 224, 224, 3, 64, 1},
	{3, 1, 56, 56, 64, 64, 64}, {3, 1, 14, 14, 512, 512, 512},
	{3, 1, 31, 29, 61, 67, 1},
}

func (c convShape) spec() conv.Spec {
	p := c.size / 2
	return conv.Spec{N: 8, H: c.h, W: c.w, Cin: c.in, Cout: c.out, KH: c.size, KW: c.size, StrideH: c.stride, StrideW: c.stride,
		PadTop: p, PadBottom: p, PadLeft: p, PadRight: p, Groups: c.groups}
}

func convolutions() []work {
	var out []work
	for _, c := range convShapes {
		kind := ""
		if c.groups > 1 {
			kind = "depthwise "
		}
		s := c.spec()
		for d, dir := range []string{"forward", "dX", "dW"} {
			w := work{name: fmt.Sprintf("conv %s%dx%d s%d %d-%d %dx%d %s", kind, c.size, c.size, c.stride, c.in, c.out, c.h, c.w, dir), group: "conv", flops: float64(s.FLOPs()),
				request: Request{"work": "conv", "dir": dir, "batch": s.N, "size": c.size, "stride": c.stride, "h": c.h, "w": c.w, "in": c.in, "out": c.out, "groups": c.groups}}
			w.setup = func(threads int) (func() error, func(), error) {
				x, f, y := randoms(s.SizeX()), randoms(s.SizeW()), randoms(s.SizeY())
				p, pool := conv.New(s), par.New(threads)
				run := []func(){
					func() { p.Forward(pool, x, f, nil, y) },
					func() { p.BackwardInput(pool, f, y, x) },
					func() { p.BackwardFilter(pool, x, y, f) },
				}[d]
				return func() error { run(); return nil }, pool.Close, nil
			}
			out = append(out, w)
		}
	}
	return out
}

func randoms(n int) []float32 {
	rng, out := rand.New(rand.NewPCG(1, 2)), make([]float32, n)
	for i := range out {
		out[i] = rng.Float32() - 0.5
	}
	return out
}
