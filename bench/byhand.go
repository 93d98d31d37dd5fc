package bench

import (
	"github.com/jouleml/joule/internal/kernel/convpool"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/kernel/reduce"
	"github.com/jouleml/joule/internal/kernel/update"
	"github.com/jouleml/joule/internal/kernel/vec"
	"github.com/jouleml/joule/internal/par"
)

// byHand is a train step of the main network written out as calls of the kernels, in the way in which one would write it without a graph, a compiler and a plan of
// memory: what the general path costs is the difference to it.
type byHand struct {
	pool   *par.Pool
	n      int
	images []float32 // [n 28 28 1]
	labels []int32   // [n]

	w, g, m, v [8][]float32 // filters and biases of both convolutions, weights and biases of both dense layers: values, gradients, moments

	first, second      *convpool.Plan
	h1, h2, d1, d2     []float32 // [n 13 13 32], [n 5 5 64] and their gradients
	at1, at2           []uint8   // positions of the greatest pixels
	h3, d3, d3r        []float32 // [n 128]
	logits, dlogits    []float32 // [n 10]
	loss               []float32 // [n]
	dense, out         *gemm.Plan
	dw3, dx3, dw4, dx4 *gemm.Plan
	db3, db4           *reduce.Plan
	xent               *reduce.CrossEntropy
	rule               update.Spec
	adam               *update.Plan
	params             []update.Param
	steps              int64
}

func newByHand(batch, threads int) *byHand {
	sizes := []int{3 * 3 * 32, 32, 3 * 3 * 32 * 64, 64, 1600 * 128, 128, 128 * 10, 10}
	b := &byHand{n: batch, images: randoms(batch * 28 * 28), labels: make([]int32, batch)}
	if threads > 1 {
		b.pool = par.New(threads)
	}
	for i := range b.labels {
		b.labels[i] = int32(i % 10)
	}
	for i, n := range sizes {
		b.w[i], b.g[i], b.m[i], b.v[i] = randoms(n), make([]float32, n), make([]float32, n), make([]float32, n)
		for j := range b.w[i] {
			b.w[i][j] *= 0.1
		}
		b.params = append(b.params, update.Param{W: b.w[i], Grad: b.g[i], Slots: [3][]float32{b.m[i], b.v[i]}, Scale: 1})
	}
	b.first = convpool.New(convpool.Spec{N: batch, H: 28, W: 28, Cin: 1, Cout: 32, KH: 3, KW: 3})
	b.second = convpool.New(convpool.Spec{N: batch, H: 13, W: 13, Cin: 32, Cout: 64, KH: 3, KW: 3})
	floats := func(each int) []float32 { return make([]float32, batch*each) }
	b.h1, b.d1, b.at1 = floats(13*13*32), floats(13*13*32), make([]uint8, batch*13*13*32)
	b.h2, b.d2, b.at2 = floats(1600), floats(1600), make([]uint8, batch*1600)
	b.h3, b.d3, b.d3r = floats(128), floats(128), floats(128)
	b.logits, b.dlogits, b.loss = floats(10), floats(10), floats(1)
	b.dense = gemm.New(gemm.Spec{M: batch, N: 128, K: 1600, Bias: true, Act: gemm.ReLU})
	b.out = gemm.New(gemm.Spec{M: batch, N: 10, K: 128, Bias: true})
	b.dx4 = gemm.New(gemm.Spec{M: batch, N: 128, K: 10, TransB: true})
	b.dw4 = gemm.New(gemm.Spec{M: 128, N: 10, K: batch, TransA: true})
	b.dx3 = gemm.New(gemm.Spec{M: batch, N: 1600, K: 128, TransB: true})
	b.dw3 = gemm.New(gemm.Spec{M: 1600, N: 128, K: batch, TransA: true})
	b.db3 = reduce.New(reduce.Spec{Op: reduce.Sum, Outer: 1, Reduce: batch, Inner: 128})
	b.db4 = reduce.New(reduce.Spec{Op: reduce.Sum, Outer: 1, Reduce: batch, Inner: 10})
	b.xent = reduce.NewCrossEntropy(reduce.CrossEntropySpec{Rows: batch, Classes: 10})
	b.rule = update.Spec{Kind: update.Adam, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}
	b.adam = update.New(b.rule, sizes)
	return b
}

// step is forward, backward, update; the sum of the losses is its result.
func (b *byHand) step(rate float64) float64 {
	p, w, g := b.pool, &b.w, &b.g
	b.first.Forward(p, b.images, w[0], w[1], b.h1, b.at1)
	b.second.Forward(p, b.h1, w[2], w[3], b.h2, b.at2)
	b.dense.Run(p, b.h2, w[4], b.h3, w[5], nil)
	b.out.Run(p, b.h3, w[6], b.logits, w[7], nil)
	b.xent.Run(p, b.loss, b.dlogits, b.logits, b.labels, 1/float32(b.n))

	b.dw4.Run(p, b.h3, b.dlogits, g[6], nil, nil)
	b.db4.Run(p, g[7], b.dlogits)
	b.dx4.Run(p, b.dlogits, w[6], b.d3, nil, nil)
	vec.Binary(vec.ReluGrad)(b.d3r, b.d3, b.h3)
	b.dw3.Run(p, b.h2, b.d3r, g[4], nil, nil)
	b.db3.Run(p, g[5], b.d3r)
	b.dx3.Run(p, b.d3r, w[4], b.d2, nil, nil)
	b.second.BackwardFilter(p, b.h1, b.at2, b.d2, g[2], g[3])
	b.second.BackwardInput(p, w[2], b.at2, b.d2, b.d1)
	b.first.BackwardFilter(p, b.images, b.at1, b.d1, g[0], g[1])

	b.steps++
	for i := range b.params {
		b.params[i].Rate = b.rule.Rate(rate, b.steps)
	}
	b.adam.Run(p, b.params)
	sum := 0.0
	for _, l := range b.loss {
		sum += float64(l)
	}
	return sum
}

func (b *byHand) stop() {
	if b.pool != nil {
		b.pool.Close()
	}
}
