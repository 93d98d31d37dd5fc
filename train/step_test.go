package train_test

import (
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

func mainCNN() *nn.Model {
	return nn.Sequential(
		nn.Conv2D(32, 3, nn.ReLU), nn.MaxPool2D(2),
		nn.Conv2D(64, 3, nn.ReLU), nn.MaxPool2D(2),
		nn.Flatten(), nn.Dense(128, nn.ReLU), nn.Dense(10, nn.Softmax),
	)
}

var digits = data.Spec{
	Inputs:  []data.Field{{Name: "image", Shape: shape.Of(28, 28, 1), DType: dtype.F32}},
	Targets: []data.Field{{Name: "digit", DType: dtype.I32}},
	Classes: 10,
}

func batch(n int) (x, y []*tensor.Tensor) {
	rng := rand.New(rand.NewPCG(1, 2))
	xt, yt := tensor.New(dtype.F32, n, 28, 28, 1), tensor.New(dtype.I32, n)
	for i := range xt.F32() {
		xt.F32()[i] = rng.Float32()
	}
	for i := range yt.I32() {
		yt.I32()[i] = int32(rng.IntN(10))
	}
	return []*tensor.Tensor{xt}, []*tensor.Tensor{yt}
}

// A step on one batch, again and again, must learn it by heart.
func TestStepLearns(t *testing.T) {
	m, err := train.Compile(mainCNN(), digits, optim.Adam(), train.SparseCategoricalCrossentropy, train.Threads(2))
	if err != nil {
		t.Fatal(err)
	}
	x, y := batch(16)
	first, last := 0.0, 0.0
	for i := range 60 {
		l, err := m.Step(x, y, 0.001)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = l
		}
		last = l
	}
	if !(first > 1.8 && last < 0.3) {
		t.Fatalf("loss went from %g to %g", first, last)
	}
}

func TestStepAllocatesNothing(t *testing.T) {
	m, err := train.Compile(mainCNN(), digits, optim.Adam(), train.SparseCategoricalCrossentropy, train.Threads(2))
	if err != nil {
		t.Fatal(err)
	}
	x, y := batch(32)
	if a := allocs.PerRun(func() { _, err = m.Step(x, y, 0.001) }); a != 0 || err != nil {
		t.Fatalf("%v allocations a step (error %v)", a, err)
	}
}

func benchmarkStep(b *testing.B, n int) {
	m, err := train.Compile(mainCNN(), digits, optim.Adam(), train.SparseCategoricalCrossentropy, train.Threads(2))
	if err != nil {
		b.Fatal(err)
	}
	x, y := batch(n)
	for b.Loop() {
		// Rate 0: a batch learnt by heart has gradients so small that their squares are denormal, which no real training meets.
		if _, err := m.Step(x, y, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "images/s")
}

func BenchmarkStep32(b *testing.B)  { benchmarkStep(b, 32) }
func BenchmarkStep128(b *testing.B) { benchmarkStep(b, 128) }
