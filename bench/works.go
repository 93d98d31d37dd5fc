package bench

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
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
	out = append(out, resNet(64))
	return slices.Concat(out, sequences(), recurrences(), decodes(), products(), convolutions())
}

// cnn is a step of the main network (its backend's pool is shared by all models, so nothing is left to stop): training with rate 0, so that the batch is not learnt by heart (the squares of its gradients would become
// denormal numbers, which no real training meets), or prediction.
func cnn(name string, batch int) work {
	w := work{name: fmt.Sprintf("%s batch %d", name, batch), group: name, request: Request{"work": name, "batch": batch}, flops: cnnFLOPs(batch, name == "train_cnn")}
	w.setup = func(threads int) (func() error, func(), error) {
		spec := data.Spec{
			Inputs:  []data.Field{{Name: "image", Shape: shape.Of(28, 28, 1), DType: dtype.F32}},
			Targets: []data.Field{{Name: "label", Shape: shape.Of(), DType: dtype.I32}}, Classes: 10,
		}
		net := nn.Sequential(nn.Conv2D(32, 3, nn.ReLU), nn.MaxPool2D(2), nn.Conv2D(64, 3, nn.ReLU), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(128, nn.ReLU), nn.Dense(10, nn.Softmax))
		m, err := train.Compile(net, spec, optim.Adam(), train.SparseCategoricalCrossentropy, train.Threads(threads))
		if err != nil {
			return nil, nil, err
		}
		x, y := spec.Tensors(batch)
		random(x[0])
		for i := range y[0].I32() {
			y[0].I32()[i] = int32(i % 10)
		}
		if name == "infer_cnn" {
			return func() error { _, err := m.PredictBatch(x...); return err }, func() {}, nil
		}
		return func() error { _, err := m.Step(x, y, 0); return err }, func() {}, nil
	}
	return w
}

// cnnFLOPs is the arithmetic of the main network's products: forward, and in training the gradients for all weights and for all inputs but the images.
func cnnFLOPs(batch int, training bool) float64 {
	first := 2.0 * 26 * 26 * 32 * 9
	rest := 2.0 * (11*11*64*288 + 1600*128 + 128*10)
	if training {
		return float64(batch) * (2*first + 3*rest)
	}
	return float64(batch) * (first + rest)
}

func random(t *tensor.Tensor) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range t.F32() {
		t.F32()[i] = rng.Float32()
	}
}
