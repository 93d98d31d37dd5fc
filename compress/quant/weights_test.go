package quant_test

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/text"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// language is a small language model of recurrent layers and attention, trained a little.
func language(t *testing.T) (*train.Model, *data.Set) {
	t.Helper()
	set := letters(t)
	n := set.Spec().Classes
	in := nn.InputOf("tokens", dtype.I32, 16)
	table := nn.Embedding(n, 40)
	h := nn.TransformerBlock(4, nn.CausalAttention()).On(nn.PositionEmbedding(16).On(table.On(in)))
	h = nn.Dense(40).On(nn.GRU(24, nn.ReturnSequences()).On(nn.LSTM(24, nn.ReturnSequences()).On(h)))
	net, err := nn.Functional([]*nn.Value{in}, []*nn.Value{nn.Activate(nn.Softmax).On(nn.Add().On(table.On(h), nn.Dense(n).On(h)))})
	if err != nil {
		t.Fatal(err)
	}
	m, err := train.Compile(net, set.Spec(), optim.Adam(optim.Rate(0.01)), train.SparseCategoricalCrossentropy, train.Threads(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Fit(context.Background(), set.Train, train.Epochs(4), train.BatchSize(8)); err != nil {
		t.Fatal(err)
	}
	return m, set
}

func letters(t *testing.T) *data.Set {
	t.Helper()
	set, err := text.Chars("letters", strings.Repeat("the quick brown fox jumps over the lazy dog and runs away from it, ", 60), text.Config{Length: 16, Test: 0.2})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func loss(t *testing.T, m *train.Model, d data.Dataset) float64 {
	t.Helper()
	logs, err := m.Evaluate(context.Background(), d, 16)
	if err != nil {
		t.Fatal(err)
	}
	return logs[0].Value
}

// Weights of few bits keep the loss of a model with embeddings, attention and recurrent layers; it saves, loads, decodes as it predicts, and gives the same bits on every instruction set.
func TestWeights(t *testing.T) {
	m, set := language(t)
	before := loss(t, m, set.Test)
	for _, c := range []struct {
		quant.WeightOptions
		more float64 // loss
	}{
		{quant.WeightOptions{Bits: 8}, 0.02}, {quant.WeightOptions{Bits: 8, Group: 8, Smooth: 0.5}, 0.02}, {quant.WeightOptions{Bits: 4, Group: 8}, 0.1},
		{quant.WeightOptions{Bits: 4, Group: 8, Method: quant.GPTQ}, 0.1}, {quant.WeightOptions{Bits: 4, Group: 16, Method: quant.AWQ, Keep: []string{"gru"}}, 0.1},
	} {
		q, r, err := quant.Weights(context.Background(), m, set.Train, c.WeightOptions)
		if err != nil {
			t.Fatal(err)
		}
		after := loss(t, q, set.Test)
		t.Logf("%+v: loss %.4f, was %.4f", c.WeightOptions, after, before)
		if !(after < before+c.more) {
			t.Errorf("%+v: loss %g, was %g", c.WeightOptions, after, before)
		}
		old, now := r.Bytes()
		if now >= old/2 {
			t.Errorf("%+v: %d bytes, were %d", c.WeightOptions, now, old)
		}
		path := filepath.Join(t.TempDir(), "q.safetensors")
		if err := q.Save(path); err != nil {
			t.Fatal(err)
		}
		back, err := train.Load(path, train.Threads(2))
		if err != nil {
			t.Fatal(err)
		}
		if a, b := predict(t, q, set.Test, 3), predict(t, back, set.Test, 3); !slices.Equal(a, b) {
			t.Errorf("%+v: the loaded model predicts something else", c.WeightOptions)
		}
	}
}

// A matrix of weights gives the same bits on every instruction set where nothing else computes.
func TestWeightsBits(t *testing.T) {
	m, set := trained(t, nn.Flatten(), nn.Dense(70, nn.NoBias()), nn.Dense(10, nn.NoBias()))
	for _, bits := range []int{8, 4} {
		q, _, err := quant.Weights(context.Background(), m, set.Train, quant.WeightOptions{Bits: bits})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "q.safetensors")
		if err := q.Save(path); err != nil {
			t.Fatal(err)
		}
		var first []float32
		for _, l := range isa.ByteLevels() {
			restore := isa.Use(l)
			back, err := train.Load(path)
			if err != nil {
				t.Fatal(err)
			}
			p := predict(t, back, set.Test, 9)
			if restore(); first == nil {
				first = p
			} else if !slices.Equal(p, first) {
				t.Errorf("%d bits, %v: other results than plain Go", bits, l)
			}
		}
	}
}

// What GPTQ makes of correlated inputs is nearer to the product than rounding to the nearest; AWQ too where few inputs are great.
func TestMethodsHelp(t *testing.T) {
	set := letters(t)
	m, err := train.Compile(nn.Sequential(nn.Embedding(set.Spec().Classes, 64), nn.Dense(64, nn.Tanh), nn.Dense(set.Spec().Classes, nn.Softmax)), set.Spec(), optim.Adam(optim.Rate(0.02)), train.SparseCategoricalCrossentropy)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Fit(context.Background(), set.Train, train.Epochs(3), train.BatchSize(16)); err != nil {
		t.Fatal(err)
	}
	// Few inputs of the second layer are great.
	w, err := m.State().Get("embedding/embeddings")
	if err != nil {
		t.Fatal(err)
	}
	for i := range w.F32() {
		if i%64 < 4 {
			w.F32()[i] *= 30
		}
	}
	if err := m.State().Set("embedding/embeddings", w); err != nil {
		t.Fatal(err)
	}
	want := predict(t, m, set.Test, 8)
	errors := map[quant.Method]float64{}
	for _, method := range quant.Methods {
		q, _, err := quant.Weights(context.Background(), m, set.Train, quant.WeightOptions{Bits: 4, Method: method, Keep: []string{"embedding", "dense_1"}})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range predict(t, q, set.Test, 8) {
			errors[method] += math.Pow(float64(v-want[i]), 2)
		}
	}
	t.Log(errors)
	if errors[quant.GPTQ] >= errors[quant.RTN] || errors[quant.AWQ] >= errors[quant.RTN] {
		t.Errorf("squared errors %v: gptq and awq should be below rtn", errors)
	}
}

// Weights that are all zero, and an input that is always zero, do no harm.
func TestWeightsOfNothing(t *testing.T) {
	m, set := trained(t, nn.Flatten(), nn.Dense(16, nn.ReLU), nn.Dense(10, nn.Softmax))
	if err := m.State().Set("dense/kernel", tensor.New(dtype.F32, 784, 16)); err != nil {
		t.Fatal(err)
	}
	for _, o := range []quant.WeightOptions{{Bits: 8, Smooth: 0.5}, {Bits: 4, Method: quant.GPTQ}, {Bits: 4, Method: quant.AWQ}} {
		q, r, err := quant.Weights(context.Background(), m, set.Train, o)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range predict(t, q, set.Test, 2) {
			if v-v != 0 {
				t.Fatalf("%+v: prediction %d is %v", o, i, v)
			}
		}
		if len(r.Warnings) == 0 {
			t.Errorf("%+v: 128 examples for 784 inputs, and no warning", o)
		}
	}
}

func TestWeightMistakes(t *testing.T) {
	m, set := trained(t, nn.Conv2D(2, 3), nn.GlobalMaxPool2D(), nn.Activate(nn.Softmax), nn.Reshape(2), nn.Dense(10, nn.Softmax))
	for want, o := range map[string]quant.WeightOptions{
		"5 bits": {Bits: 5}, "multiple of 8": {Bits: 4, Group: 12}, "unknown method": {Bits: 4, Method: "gpt"}, "from 0 to 1": {Bits: 8, Smooth: 2}, "nothing is left": {Bits: 8, Keep: []string{"*"}}, "of its own": {Bits: 8, Smooth: 1, Method: quant.AWQ},
	} {
		if _, _, err := quant.Weights(context.Background(), m, set.Train, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
	if _, _, err := quant.Weights(context.Background(), m, nil, quant.WeightOptions{Bits: 4, Method: quant.GPTQ}); err == nil || !strings.Contains(err.Error(), "needs examples") {
		t.Errorf("gptq without examples: %v", err)
	}
	conv, set := trained(t, nn.Conv2D(10, 28), nn.Flatten(), nn.Activate(nn.Softmax))
	if _, _, err := quant.Weights(context.Background(), conv, set.Train, quant.WeightOptions{Bits: 4}); err == nil || !strings.Contains(err.Error(), "no matrix of weights") {
		t.Errorf("a model of convolutions: %v", err)
	}
}
