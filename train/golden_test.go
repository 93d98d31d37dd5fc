package train

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// What Keras 3 says of the same predictions.
func TestLossesAndMetricsAgainstKeras(t *testing.T) {
	raw, err := os.ReadFile("testdata/losses.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Scores, Soft, Bits, Aims, Loose backendtest.Array
		Labels                          []int32
		Ignored                         int32
		Losses, Metrics                 map[string]float64
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	scores, soft, bits, aims, labels := golden.Scores.Tensor(dtype.F32), golden.Soft.Tensor(dtype.F32), golden.Bits.Tensor(dtype.F32), golden.Aims.Tensor(dtype.F32), tensor.Of(golden.Labels)
	loose := golden.Loose.Tensor(dtype.F32)
	hot := tensor.New(dtype.F32, scores.Shape()...)
	for i, l := range golden.Labels {
		hot.Set(i*4+int(l), 1)
	}
	compared := 0
	for name, c := range map[string]struct {
		l      Loss
		last   func(*graph.Node) *graph.Node
		target *tensor.Tensor
	}{
		"categorical of loose":              {CategoricalCrossentropy, identity, soft},
		"categorical of loose smoothed 0.2": {Categorical(0.2), identity, hot},
		"sparse of loose":                   {SparseCategoricalCrossentropy, identity, labels},
		"binary smoothed 0.3":               {Binary(0.3), op.Sigmoid, bits},
		"binary of loose smoothed 0.3":      {Binary(0.3), identity, bits},
		"sparse":                            {SparseCategoricalCrossentropy, op.Softmax, labels},
		"sparse ignoring":                   {SparseCategorical(Ignore(golden.Ignored)), op.Softmax, labels},
		"categorical":                       {CategoricalCrossentropy, op.Softmax, soft},
		"categorical smoothed 0.2":          {Categorical(0.2), op.Softmax, hot},
		"binary":                            {BinaryCrossentropy, op.Sigmoid, bits},
		"mse":                               {MeanSquaredError, identity, aims},
		"mae":                               {MeanAbsoluteError, identity, aims},
		"huber 1.5":                         {Huber(1.5), identity, aims},
		"kl":                                {KLDivergence, op.Softmax, soft},
	} {
		want, ok := golden.Losses[name]
		if !ok {
			t.Errorf("no %s in the file", name)
		}
		compared++
		x := scores
		if strings.Contains(name, "loose") {
			x = loose
		}
		for _, b := range []backend.Backend{ref.Backend{}, cpu.Backend{}} {
			// Keras keeps probabilities 1e-7 away from 0 and 1; else f32 roundings.
			if got, _, _ := lossRun(t, b, c.l, c.last, x, c.target); math.Abs(got-want) > 3e-6*(1+want) {
				t.Errorf("%s on %s: %.9g, Keras %.9g", name, b.Name(), got, want)
			}
		}
	}
	apply := func(f func(*graph.Node) *graph.Node) *tensor.Tensor {
		g, err := graph.Build(func(g *graph.Graph) { g.Output("p", f(g.Input("x", graph.TypeOf(scores)))) })
		if err != nil {
			t.Fatal(err)
		}
		st, _ := ref.Backend{}.NewState(nil)
		e, err := ref.Backend{}.Compile(g, st, backend.Options{})
		if err != nil {
			t.Fatal(err)
		}
		out := backend.NewOutputs(g)
		if err := e.Run([]*tensor.Tensor{scores}, out); err != nil {
			t.Fatal(err)
		}
		return out[0]
	}
	p, q := apply(op.Softmax), apply(op.Sigmoid).Reshape(20, 1)
	b := bits.Reshape(20, 1)
	for name, c := range map[string]struct {
		m            Metric
		pred, target *tensor.Tensor
	}{
		"accuracy": {Accuracy, p, labels}, "top 2": {TopK(2), p, labels},
		"precision": {Precision, q, b}, "recall": {Recall, q, b}, "f1": {F1, q, b},
		"mae": {MAE, scores, aims}, "rmse": {RMSE, scores, aims},
	} {
		want, ok := golden.Metrics[name]
		if !ok || want == 0 {
			t.Errorf("the file has %g for %s", want, name)
		}
		compared++
		if got := measure(c.m, c.pred, c.target, 2); math.Abs(got-want) > 1e-6 {
			t.Errorf("%s: %.9g, Keras %.9g", name, got, want)
		}
	}
	if n := len(golden.Losses) + len(golden.Metrics); n != compared {
		t.Errorf("%d of %d values compared", compared, n)
	}
}
