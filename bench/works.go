package bench

import (
	"fmt"
	"math/rand/v2"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// works lists every work.
func works() []work {
	var out []work
	for _, n := range []int{32, 128} {
		out = append(out, cnn("train_cnn", n))
	}
	for _, n := range []int{1, 32, 128} {
		out = append(out, cnn("infer_cnn", n))
	}
	for _, s := range [][3]int{{256, 256, 256}, {512, 512, 512}, {1024, 1024, 1024}, {2048, 2048, 2048}, {32, 128, 1600}} {
		out = append(out, product(s[0], s[1], s[2]))
	}
	return out
}

// cnn is a step of the main network: training with rate 0, so that the batch is not learnt by heart (the squares of its gradients would become
// denormal numbers, which no real training meets), or prediction.
func cnn(name string, batch int) work {
	w := work{name: fmt.Sprintf("%s batch %d", name, batch), request: Request{"work": name, "batch": batch}}
	w.setup = func(threads int) (func() error, error) {
		spec := data.Spec{
			Inputs:  []data.Field{{Name: "image", Shape: shape.Of(28, 28, 1), DType: dtype.F32}},
			Targets: []data.Field{{Name: "label", Shape: shape.Of(), DType: dtype.I32}}, Classes: 10,
		}
		net := nn.Sequential(nn.Conv2D(32, 3, nn.ReLU), nn.MaxPool2D(2), nn.Conv2D(64, 3, nn.ReLU), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(128, nn.ReLU), nn.Dense(10, nn.Softmax))
		m, err := train.Compile(net, spec, optim.Adam(), train.SparseCategoricalCrossentropy, train.Threads(threads))
		if err != nil {
			return nil, err
		}
		x, y := spec.Tensors(batch)
		random(x[0])
		for i := range y[0].I32() {
			y[0].I32()[i] = int32(i % 10)
		}
		if name == "infer_cnn" {
			return func() error { _, err := m.PredictBatch(x...); return err }, nil
		}
		return func() error { _, err := m.Step(x, y, 0); return err }, nil
	}
	return w
}

func random(t *tensor.Tensor) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range t.F32() {
		t.F32()[i] = rng.Float32()
	}
}

func product(m, n, k int) work {
	return work{
		name: fmt.Sprintf("sgemm %dx%dx%d", m, k, n), request: Request{"work": "sgemm", "m": m, "n": n, "k": k}, flops: 2 * float64(m) * float64(n) * float64(k),
		setup: func(threads int) (func() error, error) {
			a, b, c := tensor.New(dtype.F32, m, k), tensor.New(dtype.F32, k, n), tensor.New(dtype.F32, m, n)
			random(a)
			random(b)
			p, pool := gemm.New(gemm.Spec{M: m, N: n, K: k}), par.New(threads)
			return func() error { p.Run(pool, a.F32(), b.F32(), c.F32(), nil, nil); return nil }, nil
		},
	}
}
