package spec_test

import (
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

const sigmoidSpec = `data: mnist
model:
  - Dense: {units: 2, activation: sigmoid}
compile: {optimizer: adam, loss: LOSS}
`

// Label smoothing of binary cross-entropy reaches the loss; losses that have none refuse it.
func TestLabelSmoothing(t *testing.T) {
	d := data.Spec{
		Inputs:  []data.Field{{Name: "x", Shape: shape.Of(3), DType: dtype.F32}},
		Targets: []data.Field{{Name: "y", Shape: shape.Of(2), DType: dtype.F32}},
	}
	x, y := []*tensor.Tensor{tensor.Of([]float32{1, -2, 0.5, 3, 0, 1}, 2, 3)}, []*tensor.Tensor{tensor.Of([]float32{1, 0, 0, 1}, 2, 2)}
	step := func(m *train.Model, err error) float64 {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		l, err := m.Step(x, y, 0)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	of := func(loss string) float64 {
		s, err := spec.Parse([]byte(strings.Replace(sigmoidSpec, "LOSS", loss, 1)), "a.yaml")
		if err != nil {
			t.Fatal(err)
		}
		return step(s.Compile(d, 1))
	}
	net := func() *nn.Model { return nn.Sequential(nn.Dense(2, nn.Sigmoid)) }
	plain := of("binary_crossentropy")
	smoothed := of("{name: binary_crossentropy, label_smoothing: 0.3}")
	if want := step(train.Compile(net(), d, optim.Adam(), train.BinaryCrossentropy)); plain != want {
		t.Errorf("loss %g, want %g", plain, want)
	}
	if want := step(train.Compile(net(), d, optim.Adam(), train.Binary(0.3))); smoothed != want || smoothed == plain {
		t.Errorf("smoothed loss %g, want %g; without smoothing it is %g", smoothed, want, plain)
	}
	for _, bad := range []string{"{name: mse, label_smoothing: 0.3}", "{name: binary_crossentropy, ignore: 1}", "{name: binary_crossentropy, label_smoothing: 1.5}"} {
		if _, err := spec.Parse([]byte(strings.Replace(sigmoidSpec, "LOSS", bad, 1)), "a.yaml"); err == nil || !strings.Contains(err.Error(), "a.yaml:4") {
			t.Errorf("loss %s gives error %v", bad, err)
		}
	}
}

func TestPrecision(t *testing.T) {
	with := func(p string) string {
		return strings.Replace(strings.Replace(sigmoidSpec, "LOSS", "binary_crossentropy", 1), "compile: {", "compile: {precision: "+p+", ", 1)
	}
	if _, err := spec.Parse([]byte(with("mixed_bfloat16")), "a.yaml"); err != nil {
		t.Error(err)
	}
	if _, err := spec.Parse([]byte(with("mixed_float16")), "a.yaml"); err == nil || !strings.Contains(err.Error(), `a.yaml:4: compile: unknown precision "mixed_float16"`) {
		t.Error(err)
	}
}
