package train_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// One node updates all parameters; the account gives each layer its part of it, by the size of its parameters, and the parts add up.
func TestUpdatesByLayer(t *testing.T) {
	spec := data.Spec{Inputs: []data.Field{{Name: "x", Shape: []int{20}, DType: dtype.F32}}, Targets: []data.Field{{Name: "y", Shape: []int{}, DType: dtype.I32}}, Classes: 3}
	net := nn.Sequential(nn.Dense(30, nn.ReLU), nn.Dense(3, nn.Softmax))
	m, err := train.Compile(net, spec, optim.Adam(), train.SparseCategoricalCrossentropy)
	if err != nil {
		t.Fatal(err)
	}
	x, y := []*tensor.Tensor{tensor.New(dtype.F32, 4, 20)}, []*tensor.Tensor{tensor.New(dtype.I32, 4)}
	if _, err := m.Step(x, y, 0.1); err != nil {
		t.Fatal(err)
	}
	a, err := m.StartAccount(nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := m.Step(x, y, 0.1); err != nil {
			t.Fatal(err)
		}
	}
	l, err := a.Ledger()
	if err != nil {
		t.Fatal(err)
	}
	seconds, bytes, flops := map[string]float64{}, map[string]float64{}, map[string]int64{}
	for _, e := range l.Lines {
		if e.Phase == "update" {
			flops[e.Layer] += e.Cost.FLOPs
		}
		if e.Phase == "update" && e.Op == "update" {
			seconds[e.Layer] += e.Seconds
			bytes[e.Layer] += float64(e.Cost.Bytes())
		}
	}
	const first, second = 20*30 + 30, 30*3 + 3
	if len(seconds) != 2 || seconds["dense"] <= 0 || flops["dense"] <= flops["dense_1"] || flops["dense_1"] <= 0 {
		t.Fatalf("updates by layer: %v, FLOPs %v", seconds, flops)
	}
	for what, by := range map[string]map[string]float64{"seconds": seconds, "bytes": bytes} {
		if got, want := by["dense"]/by["dense_1"], float64(first)/second; math.Abs(got-want) > 0.02*want {
			t.Errorf("%s of the layers are as %.2f to 1, their parameters as %.2f", what, got, want)
		}
	}
}

// A convolution and the pooling behind it are one kernel, whose time is that of the convolution, which does nearly all of the work; so is that of an activation with a layer of its own.
func TestFusedWithAConvolution(t *testing.T) {
	spec := data.Spec{Inputs: []data.Field{{Name: "x", Shape: []int{28, 28, 1}, DType: dtype.F32}}, Targets: []data.Field{{Name: "y", Shape: []int{}, DType: dtype.I32}}, Classes: 3}
	net := nn.Sequential(nn.Conv2D(32, 3, nn.ReLU), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(16), nn.Activate(nn.ReLU), nn.Dense(3, nn.Softmax))
	m, err := train.Compile(net, spec, optim.Adam(), train.SparseCategoricalCrossentropy)
	if err != nil {
		t.Fatal(err)
	}
	x, y := []*tensor.Tensor{tensor.New(dtype.F32, 4, 28, 28, 1)}, []*tensor.Tensor{tensor.New(dtype.I32, 4)}
	for _, infer := range []bool{true, false} {
		a, err := m.StartAccount(nil)
		if err != nil {
			t.Fatal(err)
		}
		if infer {
			_, err = m.PredictBatch(x...)
		} else {
			_, err = m.Step(x, y, 0.1)
		}
		if err != nil {
			t.Fatal(err)
		}
		l, err := a.Ledger()
		if err != nil {
			t.Fatal(err)
		}
		ran, asked := map[string]int64{}, map[string]int64{}
		for _, e := range l.Lines {
			if e.Phase == "predict" || e.Phase == "forward" {
				ran[e.Layer] += e.Cost.Executed
				asked[e.Layer] += e.Cost.FLOPs
			}
		}
		if ran["conv2d"] < asked["conv2d"]/2 || asked["max_pooling2d"] == 0 || ran["dense"] < asked["dense"]/2 {
			t.Errorf("prediction %v: executed by layer %v, asked for %v", infer, ran, asked)
		}
	}
}

// A batch that is not what the model was compiled for is an error, not a crash.
func TestOtherInputs(t *testing.T) {
	spec := data.Spec{Inputs: []data.Field{{Name: "tokens", Shape: []int{4}, DType: dtype.I32}}, Targets: []data.Field{{Name: "y", Shape: []int{}, DType: dtype.I32}}, Classes: 3}
	net := nn.Sequential(nn.Embedding(3, 2), nn.Flatten(), nn.Dense(3, nn.Softmax))
	m, err := train.Compile(net, spec, optim.Adam(), train.SparseCategoricalCrossentropy)
	if err != nil {
		t.Fatal(err)
	}
	for want, x := range map[string][]*tensor.Tensor{
		"takes 1 inputs, there are 0": {},
		"takes 1 inputs, there are 2": {tensor.New(dtype.I32, 1, 4), tensor.New(dtype.I32, 1)},
		"input 0 (tokens) is f32":     {tensor.New(dtype.F32, 1, 28, 28, 1)},
	} {
		_, predicted := m.PredictBatch(x...)
		_, stepped := m.Step(x, []*tensor.Tensor{tensor.New(dtype.I32, 1)}, 0.1)
		for _, err := range []error{predicted, stepped} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
		}
	}
	if _, err := m.Step([]*tensor.Tensor{tensor.New(dtype.I32, 1, 4)}, nil, 0.1); err == nil || !strings.Contains(err.Error(), "needs 1 targets") {
		t.Errorf("a step without targets: %v", err)
	}
}

// slowly is a data set whose examples take their time.
type slowly struct{ data.Dataset }

func (s slowly) Fill(idx []int, x, y []*tensor.Tensor) error {
	time.Sleep(20 * time.Millisecond)
	return s.Dataset.Fill(idx, x, y)
}

// All that validation takes is booked as such: its programs, and the waiting for its batches.
func TestEvaluationIsApart(t *testing.T) {
	ds, err := data.FromSlices(make([]float32, 40), []int{4}, make([]int32, 10), []int{}, 2)
	if err != nil {
		t.Fatal(err)
	}
	m, err := train.Compile(nn.Sequential(nn.Dense(2, nn.Softmax)), ds.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy)
	if err != nil {
		t.Fatal(err)
	}
	account := func(validation data.Dataset) (evaluate, waited, all float64) {
		t.Helper()
		a, err := m.StartAccount(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Fit(context.Background(), ds, train.Epochs(1), train.BatchSize(5), train.Validate(validation)); err != nil {
			t.Fatal(err)
		}
		l, err := a.Ledger()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range l.Lines {
			switch e.Phase {
			case energy.PhaseEvaluate:
				evaluate += e.Seconds
			case "data":
				waited += float64(e.Calls)
			}
			all += e.Seconds
		}
		if math.Abs(all-l.Seconds) > 1e-6 {
			t.Errorf("lines take %g s, the total %g", all, l.Seconds)
		}
		return evaluate, waited, all
	}
	_, alone, _ := account(nil)
	evaluate, waited, all := account(slowly{ds})
	if evaluate < 0.02 || evaluate > all {
		t.Errorf("evaluation took %g s of %g, its first batch alone 0.02", evaluate, all)
	}
	if waited != alone {
		t.Errorf("%g waits for batches to train on, without validation %g", waited, alone)
	}
	if again, _, _ := account(nil); again != 0 {
		t.Errorf("%g s of evaluation without validation", again)
	}
}
