package nn_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// compileFor compiles a model of one f32 input and target.
func compileFor(t *testing.T, m *nn.Model, in, out shape.Shape) *train.Model {
	t.Helper()
	spec := data.Spec{Inputs: []data.Field{{Name: "x", Shape: in, DType: dtype.F32}}, Targets: []data.Field{{Name: "y", Shape: out, DType: dtype.F32}}}
	c, err := train.Compile(m, spec, optim.Adam(), train.MeanSquaredError, train.Threads(1))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What stands for a sequence: its first position, and vectors of length 1, also of zeros.
func TestSentences(t *testing.T) {
	x := tensor.Of([]float32{3, 4, 1, 2, 0, 0, 5, 6}, 2, 2, 2)
	for _, c := range []struct {
		layer *nn.Layer
		out   shape.Shape
		want  []float32
	}{
		{nn.FirstPosition(), shape.Of(2), []float32{3, 4, 0, 0}},
		{nn.UnitNormalization(), shape.Of(2, 2), []float32{0.6, 0.8, 0.4472136, 0.8944272, 0, 0, 0.6401844, 0.7682213}},
	} {
		// A layer without weights cannot be trained alone: a dense layer of ones stands before it.
		one := nn.Dense(2, nn.NoBias(), nn.KernelInit(nn.Zeros)).Named("d")
		m := compileFor(t, nn.Sequential(one, c.layer), shape.Of(2, 2), c.out)
		if err := m.State().Set("d/kernel", tensor.Of([]float32{1, 0, 0, 1}, 2, 2)); err != nil {
			t.Fatal(err)
		}
		y, err := m.PredictBatch(x)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range y.F32() {
			if math.Abs(float64(v-c.want[i])) > 1e-6 {
				t.Errorf("%s: %v, want %v", c.layer.Class(), y.F32(), c.want)
				break
			}
		}
	}
}

// The beginning of a model, put before another head, gives what it gave; layers that are applied twice stay shared.
func TestOnAndUntil(t *testing.T) {
	shared := nn.Dense(3).Named("shared")
	in := nn.Input(3)
	a := shared.On(shared.On(in))
	b := nn.Add().Named("sum").On(a, in)
	whole, err := nn.Functional([]*nn.Value{in}, []*nn.Value{nn.Dense(2).Named("head").On(b)})
	if err != nil {
		t.Fatal(err)
	}
	chain := nn.Sequential(nn.Dense(3).Named("first"), nn.Dense(3, nn.Tanh).Named("sum"), nn.Dense(1).Named("head"))
	for _, m := range []*nn.Model{whole, chain} {
		body, err := m.Until("sum")
		if err != nil {
			t.Fatal(err)
		}
		x := nn.InputOf("x", dtype.F32, 3)
		y, err := body.On(x)
		if err != nil {
			t.Fatal(err)
		}
		other, err := nn.Functional([]*nn.Value{x}, []*nn.Value{nn.Dense(4).Named("new").On(y[0])})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, l := range other.Layers() {
			names = append(names, l.Name())
		}
		if slices.Contains(names, "head") || !slices.Contains(names, "sum") || !slices.Contains(names, "new") {
			t.Errorf("layers %v", names)
		}
		p, q := compileFor(t, body, shape.Of(3), shape.Of(3)), compileFor(t, other, shape.Of(3), shape.Of(4))
		for _, v := range p.Params() {
			w, err := p.State().Get(v.Name)
			if err != nil {
				t.Fatal(err)
			}
			if err := q.State().Set(v.Name, w); err != nil {
				t.Error(err)
			}
		}
		batch := tensor.Of([]float32{1, -2, 0.5}, 1, 3)
		in, err := q.LayerInputs(batch)
		if err != nil {
			t.Fatal(err)
		}
		want, err := p.PredictBatch(batch)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(in["new"].F32(), want.F32()) {
			t.Errorf("%v, want %v", in["new"].F32(), want.F32())
		}
		if _, err := m.Until("summ"); err == nil || !strings.Contains(err.Error(), `did you mean "sum"?`) {
			t.Errorf("error %v", err)
		}
		if _, err := body.On(x, x); err == nil {
			t.Error("two values for one input")
		}
	}
	if _, err := whole.On(nil); err == nil {
		t.Error("nil for an input")
	}
}

// New adapters leave what a block does as it was, and a model without blocks has no place for them.
func TestAdapters(t *testing.T) {
	plain := nn.Sequential(nn.TransformerBlock(2, nn.PostNorm()).Named("b"))
	with, err := plain.WithAdapters(3)
	if err != nil {
		t.Fatal(err)
	}
	p, q := compileFor(t, plain, shape.Of(4, 6), shape.Of(4, 6)), compileFor(t, with, shape.Of(4, 6), shape.Of(4, 6))
	x := tensor.New(dtype.F32, 2, 4, 6)
	for i := range x.F32() {
		x.F32()[i] = float32(i%7) - 3
	}
	a, err := p.PredictBatch(x)
	if err != nil {
		t.Fatal(err)
	}
	b, err := q.PredictBatch(x)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.F32(), b.F32()) || len(q.Params()) != len(p.Params())+8 {
		t.Errorf("adapters change the block: %d parameters, before %d", len(q.Params()), len(p.Params()))
	}
	if j, _ := json.Marshal(plain); strings.Contains(string(j), "adapter") {
		t.Error("the model without adapters has some now")
	}
	if _, err := nn.Sequential(nn.Dense(2)).WithAdapters(3); err == nil {
		t.Error("adapters in a model without blocks")
	}
}
