package nn_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/backend/xla"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

type goldenLayer struct {
	Class            string
	Config           json.RawMessage
	Training, Ints   bool
	Inputs, Weights  []backendtest.Array
	Output           backendtest.Array
	Direction        backendtest.Array
	Gradients, After []backendtest.Array
}

// What Keras 3 computes for the same configuration, inputs and weights: results, gradients, moving averages.
func TestLayersAgainstKeras(t *testing.T) {
	var golden struct{ Cases []goldenLayer }
	var cases []goldenLayer
	for _, file := range []string{"testdata/layers.json", "testdata/transformer.json", "testdata/recurrent.json", "testdata/seq2seq.json"} {
		if err := json.Unmarshal(must(os.ReadFile(file)), &golden); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, golden.Cases...)
		golden.Cases = nil
	}
	backends := []backend.Backend{ref.Backend{}, cpu.Backend{}}
	if os.Getenv(xla.PluginEnv) != "" { // else only backend/xla's own tests say that they skip
		backends = append(backends, backendtest.XLA(t, 1))
	}
	var seen []string
	for i, c := range cases {
		seen = append(seen, c.Class)
		t.Run(fmt.Sprint(c.Class, "/", i), func(t *testing.T) {
			l, err := nn.LayerOf(c.Class, "layer", c.Config)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range backends {
				c.check(t, l, b)
			}
		})
	}
	for _, class := range nn.Classes() {
		if strings.HasPrefix(class, "Quantized") || class == "FirstPosition" || class == "UnitNormalization" || class == "PointerGenerator" {
			continue // TestSentences, TestPointerGenerator
		}
		if !slices.Contains(seen, class) {
			t.Errorf("class %s is not compared", class)
		}
	}
}

func (c goldenLayer) check(t *testing.T, l *nn.Layer, b backend.Backend) {
	call := &nn.Call{Training: c.Training}
	dt := dtype.F32
	if c.Ints {
		dt = dtype.I32
	}
	g, err := graph.Build(func(g *graph.Graph) {
		call.G = g
		var values []*nn.Value
		var xs, wrt []*graph.Node
		for i, a := range c.Inputs {
			values = append(values, nn.InputOf("", dt, a.Shape[1:]...))
			xs = append(xs, g.Input(fmt.Sprint("x", i), graph.T(dt, a.Shape...)))
		}
		if !c.Ints {
			wrt = append(wrt, xs...)
		}
		y := must(nn.Functional(values, []*nn.Value{l.On(values...)})).Call(call, xs)[0]
		g.Output("result", y)
		for _, p := range call.Params {
			if p.Trainable {
				wrt = append(wrt, g.Variable(p.Name, p.Type))
			}
		}
		loss := op.SumAll(op.Mul(y, g.Const(c.Direction.Tensor(dtype.F32))))
		for i, d := range grad.Of(loss, wrt...) {
			g.Output(fmt.Sprint("gradient ", i), d)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(call.Params) != len(c.Weights) {
		t.Fatalf("%d parameters, Keras has %d", len(call.Params), len(c.Weights))
	}
	st := must(b.NewState(nil))
	for i, p := range call.Params {
		if err := st.Add(backend.Var{Name: p.Name, Type: p.Type}); err != nil {
			t.Fatal(err)
		}
		if err := st.Set(p.Name, c.Weights[i].Tensor(dtype.F32)); err != nil {
			t.Fatalf("parameter %d: %v", i, err)
		}
	}
	var in []*tensor.Tensor
	for _, a := range c.Inputs {
		in = append(in, a.Tensor(dt))
	}
	out := backend.NewOutputs(g)
	if err := must(b.Compile(g, st, backend.Options{})).Run(in, out); err != nil {
		t.Fatal(err)
	}
	// Keras computed in float64 on the same f32 inputs and its results were rounded to f32 (6e-8). The CPU works in f32: some tens of roundings.
	const tol = 1e-5
	for i, o := range g.Outputs() {
		want := c.Output
		if i > 0 {
			want = c.Gradients[i-1]
		}
		if err := near(out[i], want.Tensor(dtype.F32), tol); err != nil {
			t.Errorf("%s, %s: %v", b.Name(), o.Name, err)
		}
	}
	for i, a := range c.After {
		if err := backendtest.Close(must(st.Get(call.Params[i].Name)), a.Tensor(dtype.F32), tol); err != nil {
			t.Errorf("%s, %s afterwards: %v", b.Name(), call.Params[i].Name, err)
		}
	}
}
