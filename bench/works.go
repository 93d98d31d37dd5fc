package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"

	"github.com/jouleml/joule/compress/quant"
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
	for _, n := range []int{1, 32, 128} {
		out = append(out, int8CNN(n))
	}
	out = append(out, resNet(64))
	out = append(out, work{name: "job", request: Request{"work": "job"}, measure: job})
	for _, n := range []int{1, 8, 32, 128, 512, 1024} {
		w := cnn("train_cnn", n)
		w.name, w.group, w.measure = fmt.Sprintf("scale train_cnn batch %d", n), scaling, alone
		out = append(out, w)
	}
	for _, n := range []int{32, 128} {
		w := cnn("train_cnn", n)
		w.name, w.group, w.flops, w.measure = fmt.Sprintf("threads 1 to 2, train_cnn batch %d", n), "", 0, threaded
		out = append(out, w)
	}
	for _, n := range []int{32, 128} {
		w := cnn("train_cnn", n)
		w.name, w.group, w.request, w.rival = fmt.Sprintf("general path, train_cnn batch %d", n), "", nil, "kernels by hand"
		w.rivalSide = func(threads int) (func() error, func(), error) {
			b := newByHand(n, threads)
			return func() error { b.step(0); return nil }, b.stop, nil
		}
		out = append(out, w)
	}
	for _, name := range []string{"train_cnn", "infer_cnn"} {
		w := cnn(name, 32)
		w.name, w.group, w.request, w.measure = fmt.Sprintf("allocations of %s batch 32", name), "", nil, allocations
		out = append(out, w)
	}
	return slices.Concat(out, sequences(), recurrences(), decodes(), products(), convolutions(), onXLA(), onRanks())
}

// scaling is the group of the works that show how time and memory grow with the batch.
const scaling = "scale"

// allocations counts what an iteration allocates after the first ones, on any goroutine.
func allocations(_ context.Context, s *session, w work) ([]Row, error) {
	run, stop, err := w.setup(s.o.Threads)
	if err != nil {
		return nil, err
	}
	defer stop()
	f := &Figure{Name: "joule"}
	for range 10 {
		if err := run(); err != nil {
			return nil, err
		}
	}
	const iters = 100
	for range s.o.Rounds {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range iters {
			if err := run(); err != nil {
				return nil, err
			}
		}
		runtime.ReadMemStats(&after)
		f.Values = append(f.Values, float64(after.Mallocs-before.Mallocs)/iters)
	}
	return []Row{{Work: w.name, Group: w.group, Unit: Count, Joule: f}}, nil
}

// digitsSpec is the data of the main network.
var digitsSpec = data.Spec{
	Inputs:  []data.Field{{Name: "image", Shape: shape.Of(28, 28, 1), DType: dtype.F32}},
	Targets: []data.Field{{Name: "label", Shape: shape.Of(), DType: dtype.I32}}, Classes: 10,
}

func compileCNN(threads int, on ...train.Option) (*train.Model, error) {
	net := nn.Sequential(nn.Conv2D(32, 3, nn.ReLU), nn.MaxPool2D(2), nn.Conv2D(64, 3, nn.ReLU), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(128, nn.ReLU), nn.Dense(10, nn.Softmax))
	return train.Compile(net, digitsSpec, optim.Adam(), train.SparseCategoricalCrossentropy, append(on, train.Threads(threads))...)
}

// cnn is a step of the main network (its backend's pool is shared by all models, so nothing is left to stop): training with rate 0, so that the batch is not learnt by heart (the squares of its gradients would become
// denormal numbers, which no real training meets), or prediction.
func cnn(name string, batch int, on ...train.Option) work {
	w := work{name: fmt.Sprintf("%s batch %d", name, batch), group: name, request: Request{"work": name, "batch": batch}, flops: cnnFLOPs(batch, name == "train_cnn"), batch: batch}
	w.setup = func(threads int) (func() error, func(), error) {
		m, err := compileCNN(threads, on...)
		if err != nil {
			return nil, nil, err
		}
		x, y := digits(batch)
		if name == "infer_cnn" {
			return func() error { _, err := m.PredictBatch(x...); return err }, func() {}, nil
		}
		return func() error { _, err := m.StepTogether(x, y, 0); return err }, func() {}, nil
	}
	return w
}

// digits are random images with labels.
func digits(batch int) (x, y []*tensor.Tensor) {
	x, y = digitsSpec.Tensors(batch)
	random(x[0])
	for i := range y[0].I32() {
		y[0].I32()[i] = int32(i % 10)
	}
	return x, y
}

// int8CNN is a prediction of the main network as a model of 8-bit integers, its ranges measured on the images that it then sees, as on every side. The share of the peak counts its
// arithmetic as if it were on floats.
func int8CNN(batch int) work {
	w := cnn("infer_cnn", batch)
	w.name, w.group, w.request = fmt.Sprintf("int8_cnn batch %d", batch), "int8_cnn", Request{"work": "int8_cnn", "batch": batch}
	w.setup = func(threads int) (func() error, func(), error) {
		m, err := compileCNN(threads)
		if err != nil {
			return nil, nil, err
		}
		x, y := digits(128)
		ds, err := data.FromTensors(digitsSpec, x, y)
		if err != nil {
			return nil, nil, err
		}
		q, _, err := quant.Static(context.Background(), m, ds, quant.Options{Examples: 128})
		if err != nil {
			return nil, nil, err
		}
		x, _ = digits(batch)
		return func() error { _, err := q.PredictBatch(x...); return err }, func() {}, nil
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
