package optim_test

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// Ten steps on ten batches with each optimizer of Keras 3: the loss before each step, and the weights after the last.
func TestOptimizersAgainstKeras(t *testing.T) {
	raw, err := os.ReadFile("testdata/training.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		X     backendtest.Array
		Y     [][]int32
		First []backendtest.Array
		Cases []struct {
			Name    string
			Losses  []float64
			Weights []backendtest.Array
		}
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	optimizers := map[string]func() *optim.Optimizer{
		"sgd":                       func() *optim.Optimizer { return optim.SGD(0, false, optim.Rate(0.1)) },
		"sgd momentum":              func() *optim.Optimizer { return optim.SGD(0.9, false, optim.Rate(0.05)) },
		"sgd nesterov":              func() *optim.Optimizer { return optim.SGD(0.9, true, optim.Rate(0.05)) },
		"adam":                      func() *optim.Optimizer { return optim.Adam(optim.Rate(0.01)) },
		"adamw":                     func() *optim.Optimizer { return optim.AdamW(optim.Rate(0.01), optim.Decay(0.1)) },
		"rmsprop":                   func() *optim.Optimizer { return optim.RMSprop(0, false, optim.Rate(0.005)) },
		"rmsprop momentum centered": func() *optim.Optimizer { return optim.RMSprop(0.5, true, optim.Rate(0.005)) },
		"lion":                      func() *optim.Optimizer { return optim.Lion(optim.Rate(0.002)) },
		"clipvalue":                 func() *optim.Optimizer { return optim.SGD(0, false, optim.Rate(0.1), optim.ClipValue(0.02)) },
		"clipnorm":                  func() *optim.Optimizer { return optim.SGD(0, false, optim.Rate(0.1), optim.ClipNorm(0.1)) },
		"global_clipnorm":           func() *optim.Optimizer { return optim.SGD(0, false, optim.Rate(0.1), optim.GlobalClipNorm(0.1)) },
	}
	if len(golden.Cases) != len(optimizers) {
		t.Fatalf("%d cases in the file, %d optimizers", len(golden.Cases), len(optimizers))
	}
	x := golden.X.Tensor(dtype.F32)
	spec := data.Spec{
		Inputs:  []data.Field{{Name: "x", Shape: shape.Of(4), DType: dtype.F32}},
		Targets: []data.Field{{Name: "y", DType: dtype.I32}}, Classes: 3,
	}
	for _, c := range golden.Cases {
		for _, b := range []backend.Backend{ref.Backend{}, cpu.Backend{}} {
			t.Run(c.Name+"/"+b.Name(), func(t *testing.T) {
				o := optimizers[c.Name]()
				m, err := train.Compile(nn.Sequential(nn.Dense(5, nn.Tanh), nn.Dense(3, nn.Softmax)), spec, o, train.SparseCategoricalCrossentropy, train.On(b))
				if err != nil {
					t.Fatal(err)
				}
				for i, p := range m.Params() {
					if err := m.State().Set(p.Name, golden.First[i].Tensor(dtype.F32)); err != nil {
						t.Fatal(err)
					}
				}
				for i, want := range c.Losses {
					xi := tensor.New(dtype.F32, 6, 4)
					copy(xi.F32(), x.F32()[i*24:])
					got, err := m.Step([]*tensor.Tensor{xi}, []*tensor.Tensor{tensor.Of(golden.Y[i])}, o.Schedule.At(int64(i)))
					if err != nil {
						t.Fatal(err)
					}
					// Keras worked in float64. Weights here are f32 after each step: an error of 6e-8 a step, which ten steps multiply by little.
					if math.Abs(got-want) > 3e-6*(1+want) {
						t.Errorf("step %d: loss %.9g, Keras %.9g", i, got, want)
					}
				}
				for i, p := range m.Params() {
					got, err := m.State().Get(p.Name)
					if err != nil {
						t.Fatal(err)
					}
					want := c.Weights[i].Tensor(dtype.F32)
					for j := range want.Len() {
						// Where a gradient nearly vanishes Adam divides roundings by it: 1e-5 of a weight.
						if math.Abs(got.At(j)-want.At(j)) > 1e-5 {
							t.Errorf("%s [%d] = %.9g, Keras %.9g", p.Name, j, got.At(j), want.At(j))
						}
					}
				}
			})
		}
	}
}
