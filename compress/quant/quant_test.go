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
	"github.com/jouleml/joule/data/mnist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

func trained(t *testing.T, layers ...*nn.Layer) (*train.Model, *data.Set) {
	t.Helper()
	set, err := mnist.Load()
	if err != nil {
		t.Fatal(err)
	}
	m, err := train.Compile(nn.Sequential(layers...), set.Spec(), optim.Adam(optim.Rate(0.003)), train.SparseCategoricalCrossentropy, train.Accuracy)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Fit(context.Background(), data.Take(set.Train, 6400), train.Epochs(1)); err != nil {
		t.Fatal(err)
	}
	return m, set
}

func accuracy(t *testing.T, m *train.Model, d data.Dataset) float64 {
	t.Helper()
	logs, err := m.Evaluate(context.Background(), d, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range logs {
		if l.Name == "accuracy" {
			return l.Value
		}
	}
	t.Fatal("no accuracy")
	return 0
}

func predict(t *testing.T, m *train.Model, d data.Dataset, n int) []float32 {
	t.Helper()
	x, y := d.Spec().Tensors(n)
	idx := make([]int, n)
	for i := range idx {
		idx[i] = i
	}
	if err := d.Fill(idx, x, y); err != nil {
		t.Fatal(err)
	}
	p, err := m.PredictBatch(x...)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(p.F32())
}

// A convolutional network keeps its accuracy, gets nearly four times smaller, gives the same bits on every instruction set, and is a model like any other.
func TestStatic(t *testing.T) {
	m, set := trained(t,
		nn.Conv2D(8, 3, nn.NoBias()), nn.BatchNormalization(), nn.Activate(nn.ReLU), nn.MaxPool2D(2),
		nn.Conv2D(16, 3, nn.Same, nn.ReLU), nn.Dropout(0.1), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(32, nn.Tanh), nn.Dense(10, nn.Softmax))
	test := data.Take(set.Test, 2000)
	before := accuracy(t, m, test)
	q, r, err := quant.Static(context.Background(), m, set.Train, quant.Options{Examples: 300})
	if err != nil {
		t.Fatal(err)
	}
	if after := accuracy(t, q, test); after < before-0.01 || before < 0.85 {
		t.Errorf("accuracy %g became %g", before, after)
	}
	if a, b := r.Bytes(); float64(a)/float64(b) < 3.4 {
		t.Errorf("%d bytes became %d", a, b)
	}
	var classes []string
	for _, l := range q.Net.Layers() {
		classes = append(classes, l.Class())
	}
	want := "QuantizedConv2D MaxPooling2D QuantizedConv2D MaxPooling2D Flatten QuantizedDense Activation QuantizedDense Activation"
	if got := strings.Join(classes, " "); got != want {
		t.Errorf("layers %s, want %s", got, want)
	}
	for _, l := range r.Layers {
		if l.Bytes && l.NoiseRatio < 25 {
			t.Errorf("%s: weights are %g dB above their errors", l.Name, l.NoiseRatio)
		}
	}
	file := filepath.Join(t.TempDir(), "q.safetensors")
	if err := q.Save(file); err != nil {
		t.Fatal(err)
	}
	first := predict(t, q, set.Test, 37)
	for _, l := range isa.ByteLevels() {
		restore := isa.Use(l)
		again, err := train.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		got := predict(t, again, set.Test, 37)
		restore()
		for i := range got { // the scores are the same bits; the softmax behind them is f32 and differs by roundings
			if math.Abs(float64(got[i]-first[i])) > 1e-6 {
				t.Fatalf("%v: prediction %d is %g, was %g", l, i, got[i], first[i])
			}
		}
	}
	if _, err := q.Fit(context.Background(), set.Train); err == nil || !strings.Contains(err.Error(), "no trainable parameter") {
		t.Errorf("training: %v", err)
	}
}

// The layers' own results, without float layers behind them, are the same bits on every instruction set.
func TestSameBits(t *testing.T) {
	m, set := trained(t, nn.Conv2D(5, 3, nn.Strides(2), nn.ReLU), nn.Flatten(), nn.Dense(10, nn.Softmax))
	q, _, err := quant.Static(context.Background(), m, set.Train, quant.Options{Examples: 64, Clip: 0.0005})
	if err != nil {
		t.Fatal(err)
	}
	var first []float32
	for _, l := range isa.ByteLevels() {
		restore := isa.Use(l)
		again, err := q.With(q.Net)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range q.Params() {
			v, err := q.State().Get(p.Name)
			if err != nil {
				t.Fatal(err)
			}
			if err := again.State().Set(p.Name, v); err != nil {
				t.Fatal(err)
			}
		}
		x, y := set.Spec().Tensors(5)
		if err := set.Test.Fill([]int{0, 1, 2, 3, 4}, x, y); err != nil {
			t.Fatal(err)
		}
		in, err := again.LayerInputs(x...)
		if err != nil {
			t.Fatal(err)
		}
		got := slices.Clone(in["dense_softmax"].F32())
		restore()
		if first == nil {
			first = got
		}
		if !slices.Equal(first, got) {
			t.Errorf("%v: other bits", l)
		}
	}
}

// Weights that are all zero and a constant input are no trouble.
func TestDegenerate(t *testing.T) {
	m, set := trained(t, nn.Flatten(), nn.Dense(4, nn.ReLU), nn.Dense(10, nn.Softmax))
	if err := m.State().Set("dense/kernel", tensor.New(dtype.F32, 784, 4)); err != nil {
		t.Fatal(err)
	}
	if err := m.State().Set("dense/bias", tensor.New(dtype.F32, 4)); err != nil {
		t.Fatal(err)
	}
	q, _, err := quant.Static(context.Background(), m, set.Train, quant.Options{Examples: 10})
	if err != nil {
		t.Fatal(err)
	}
	a, b := predict(t, m, set.Test, 3), predict(t, q, set.Test, 3)
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > 0.01 {
			t.Errorf("prediction %d: %g and %g", i, a[i], b[i])
		}
	}
}

// A weight that is no number is named, not the layer that takes what comes of it.
func TestNoNumber(t *testing.T) {
	m, set := trained(t, nn.Flatten(), nn.Dense(4, nn.ReLU), nn.Dense(10, nn.Softmax))
	b := tensor.New(dtype.F32, 4)
	b.F32()[1] = float32(math.NaN())
	if err := m.State().Set("dense/bias", b); err != nil {
		t.Fatal(err)
	}
	_, _, static := quant.Static(context.Background(), m, set.Train, quant.Options{})
	_, _, few := quant.Weights(context.Background(), m, nil, quant.WeightOptions{Bits: 8})
	for _, err := range []error{static, few} {
		if err == nil || !strings.Contains(err.Error(), "dense/bias has the weight NaN") {
			t.Errorf("a weight that is no number: %v", err)
		}
	}
}

func TestMistakes(t *testing.T) {
	ctx := context.Background()
	m, set := trained(t, nn.Flatten(), nn.Dense(10, nn.Softmax))
	empty := data.Take(set.Train, 0)
	for want, f := range map[string]func() error{
		"unknown calibration": func() error {
			_, _, err := quant.Static(ctx, m, set.Train, quant.Options{Calibration: "max"})
			return err
		},
		"no layer matches": func() error {
			_, _, err := quant.Static(ctx, m, set.Train, quant.Options{Keep: []string{"conv9"}})
			return err
		},
		"no examples":   func() error { _, _, err := quant.Static(ctx, m, empty, quant.Options{}); return err },
		"a clip of 0.6": func() error { _, _, err := quant.Static(ctx, m, set.Train, quant.Options{Clip: 0.6}); return err },
		"are kept, such as": func() error {
			_, _, err := quant.Static(ctx, m, set.Train, quant.Options{Keep: []string{"*"}})
			return err
		},
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
}
