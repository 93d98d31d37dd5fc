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

// branched is a trained network with residual sums, branches that are joined, depthwise, grouped and dilated convolutions.
func branched(t *testing.T) (*train.Model, *data.Set) {
	t.Helper()
	in := nn.Input(28, 28, 1)
	norm := func(v *nn.Value, name string) *nn.Value {
		return nn.Activate(nn.ReLU).Named("relu_" + name).On(nn.BatchNormalization(nn.Momentum(0.9)).Named("norm_" + name).On(v))
	}
	x := norm(nn.Conv2D(16, 3, nn.Strides(2), nn.Same, nn.NoBias()).Named("stem").On(in), "stem")
	y := norm(nn.DepthwiseConv2D(3, nn.Same).Named("depthwise").On(x), "depthwise")
	y = nn.BatchNormalization(nn.Momentum(0.9)).Named("norm_point").On(nn.Conv2D(16, 1).Named("point").On(y))
	x = nn.Activate(nn.ReLU).Named("relu_sum").On(nn.Add().Named("sum").On(x, y))
	a := nn.Conv2D(8, 3, nn.Same, nn.Dilation(2), nn.ReLU).Named("dilated").On(x)
	b := nn.Conv2D(8, 3, nn.Same, nn.Groups(2), nn.ReLU).Named("grouped").On(x)
	x = nn.MaxPool2D(2).Named("pool").On(nn.Concatenate().Named("join").On(a, b))
	x = nn.Add().Named("last_sum").On(x, nn.Conv2D(16, 3, nn.Same).Named("last").On(x))
	x = nn.Dense(10, nn.Softmax).Named("scores").On(nn.GlobalAveragePool2D().Named("average").On(x))
	net, err := nn.Functional([]*nn.Value{in}, []*nn.Value{x})
	if err != nil {
		t.Fatal(err)
	}
	set, err := mnist.Load()
	if err != nil {
		t.Fatal(err)
	}
	m, err := train.Compile(net, set.Spec(), optim.Adam(optim.Rate(0.005)), train.SparseCategoricalCrossentropy, train.Accuracy)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Fit(context.Background(), data.Take(set.Train, 4000), train.Epochs(1), train.BatchSize(16)); err != nil {
		t.Fatal(err)
	}
	return m, set
}

// A network of branches becomes one of bytes all through, keeps its accuracy under each calibration, saves and loads, and gives the same bits on every instruction set up to the first floats.
func TestBranches(t *testing.T) {
	m, set := branched(t)
	test := data.Take(set.Test, 400)
	before := accuracy(t, m, test)
	for i, o := range []quant.Options{
		{}, {Calibration: quant.Percentile, Clip: 0.0005}, {Calibration: quant.MSE, Correct: true}, {Calibration: quant.Entropy, Symmetric: true}, {PerTensor: true},
	} {
		o.Examples = 128
		q, r, err := quant.Static(context.Background(), m, set.Train, o)
		if err != nil {
			t.Fatal(err)
		}
		after := accuracy(t, q, test)
		t.Logf("%+v: accuracy %g, was %g", o, after, before)
		if after < before-0.06 || before < 0.5 { // entropy cuts off the most
			t.Errorf("%+v: accuracy %g became %g", o, before, after)
		}
		var classes []string
		for _, l := range q.Net.Layers() {
			classes = append(classes, l.Name()+" "+l.Class())
		}
		want := "stem QuantizedConv2D, depthwise QuantizedConv2D, point QuantizedConv2D, sum QuantizedAdd, dilated QuantizedConv2D, grouped QuantizedConv2D, join Concatenate, pool MaxPooling2D, last QuantizedConv2D, last_sum QuantizedAdd, average GlobalAveragePooling2D, scores QuantizedDense, scores_softmax Activation"
		if got := strings.Join(classes, ", "); got != want {
			t.Errorf("%+v: layers\n%s, want\n%s", o, got, want)
		}
		for _, l := range r.Layers {
			if l.Bytes && l.Name != "sum" && l.Name != "last_sum" && (l.NoiseRatio < 20 || l.After == 0) {
				t.Errorf("%+v: %+v", o, l)
			}
		}
		file := filepath.Join(t.TempDir(), "q.safetensors")
		if err := q.Save(file); err != nil {
			t.Fatal(err)
		}
		var first []float32
		for _, l := range isa.ByteLevels()[:len(isa.ByteLevels())*max(0, 1-i)] { // of the first
			restore := isa.Use(l)
			again, err := train.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			x, y := set.Spec().Tensors(5)
			if err := set.Test.Fill([]int{0, 1, 2, 3, 4}, x, y); err != nil {
				t.Fatal(err)
			}
			in, err := again.LayerInputs(x...)
			if err != nil {
				t.Fatal(err)
			}
			got := slices.Clone(in["average"].F32())
			if restore(); first == nil {
				first = got
			} else if !slices.Equal(first, got) {
				t.Errorf("%v: other bits than plain Go", l)
			}
		}
	}
	// A layer in the middle that stays floats.
	q, _, err := quant.Static(context.Background(), m, set.Train, quant.Options{Keep: []string{"dilated", "sum"}})
	if err != nil {
		t.Fatal(err)
	}
	if after := accuracy(t, q, test); after < before-0.03 {
		t.Errorf("with floats between: accuracy %g became %g", before, after)
	}
}

// Sequences: a one-dimensional convolution, and one of causal padding, which stays floats.
func TestSequences(t *testing.T) {
	m, set := trained(t, nn.Reshape(28, 28), nn.Conv1D(16, 3, nn.ReLU), nn.Conv1D(8, 3, nn.Padding("causal"), nn.ReLU), nn.Conv1D(8, 3, nn.Strides(2)), nn.Flatten(), nn.Dense(10, nn.Softmax))
	q, r, err := quant.Static(context.Background(), m, set.Train, quant.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := accuracy(t, m, data.Take(set.Test, 1000)), accuracy(t, q, data.Take(set.Test, 1000)); b < a-0.02 {
		t.Errorf("accuracy %g became %g", a, b)
	}
	for _, l := range r.Layers {
		if l.Name == "conv1d_1" && (l.Bytes || l.Why != "causal padding") {
			t.Errorf("%+v", l)
		}
	}
}

// A layer that is applied twice stays floats, and the others become bytes.
func TestSharedLayer(t *testing.T) {
	in := nn.Input(28, 28, 1)
	shared := nn.Dense(16, nn.ReLU).Named("shared")
	x := nn.Dense(16).Named("first").On(nn.Flatten().On(in))
	net, err := nn.Functional([]*nn.Value{in}, []*nn.Value{nn.Dense(10, nn.Softmax).Named("scores").On(shared.On(shared.On(x)))})
	if err != nil {
		t.Fatal(err)
	}
	set, err := mnist.Load()
	if err != nil {
		t.Fatal(err)
	}
	m, err := train.Compile(net, set.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Accuracy)
	if err != nil {
		t.Fatal(err)
	}
	q, r, err := quant.Static(context.Background(), m, set.Train, quant.Options{Examples: 50})
	if err != nil {
		t.Fatal(err)
	}
	a, b := predict(t, m, set.Test, 4), predict(t, q, set.Test, 4)
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > 0.02 {
			t.Errorf("prediction %d: %g and %g", i, a[i], b[i])
		}
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "50 examples alone") {
		t.Errorf("warnings: %q", r.Warnings)
	}
}

// Channels that are always zero, weights that are all zero, and inputs that never change do no harm.
func TestNothing(t *testing.T) {
	m, set := trained(t, nn.Conv2D(4, 3, nn.ReLU), nn.Flatten(), nn.Dense(8, nn.ReLU), nn.Dense(10, nn.Softmax))
	for name, v := range map[string]float32{"conv2d/kernel": 0, "conv2d/bias": 0} {
		w, err := m.State().Get(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range w.F32() {
			w.F32()[i] = v
		}
		if err := m.State().Set(name, w); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range quant.Calibrations {
		q, _, err := quant.Static(context.Background(), m, set.Train, quant.Options{Examples: 64, Calibration: c, Correct: true})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range predict(t, q, set.Test, 2) {
			if v-v != 0 {
				t.Fatalf("%s: prediction %d is %v", c, i, v)
			}
		}
	}
}

// Equalising leaves the model of floats as it is, and makes one scale for all weights do where filters differ in size.
func TestEqualize(t *testing.T) {
	m, set := trained(t, nn.Conv2D(8, 3, nn.NoBias()), nn.BatchNormalization(), nn.Activate(nn.ReLU), nn.MaxPool2D(2), nn.Conv2D(8, 3, nn.ReLU), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(10, nn.Softmax))
	// Filters of the second convolution that differ by a thousand times, made up for in the dense layer.
	scale := func(name string, f func(i int) float64) {
		t.Helper()
		w, err := m.State().Get(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range w.F32() {
			w.F32()[i] *= float32(f(i))
		}
		if err := m.State().Set(name, w); err != nil {
			t.Fatal(err)
		}
	}
	size := func(c int) float64 { return math.Pow(2.7, float64(c%8)) }
	scale("conv2d_1/kernel", size)
	scale("conv2d_1/bias", size)
	scale("dense/kernel", func(i int) float64 { return 1 / size(i/10) })
	e, pairs, err := quant.Equalize(m)
	if err != nil {
		t.Fatal(err)
	}
	if pairs != 2 {
		t.Errorf("%d pairs, want 2", pairs)
	}
	a, b := predict(t, m, set.Test, 16), predict(t, e, set.Test, 16)
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > 1e-4 {
			t.Fatalf("prediction %d of the equalised model is %g, was %g", i, b[i], a[i])
		}
	}
	far := func(m *train.Model) (sum float64) {
		q, _, err := quant.Static(context.Background(), m, set.Train, quant.Options{PerTensor: true})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range predict(t, q, set.Test, 64) {
			sum += math.Pow(float64(v-predict64(t, m, set)[i]), 2)
		}
		return sum
	}
	if plain, equal := far(m), far(e); equal > plain/2 {
		t.Errorf("squared errors %g, and equalised %g", plain, equal)
	}
}

var kept = map[*train.Model][]float32{}

func predict64(t *testing.T, m *train.Model, set *data.Set) []float32 {
	if kept[m] == nil {
		kept[m] = predict(t, m, set.Test, 64)
	}
	return kept[m]
}

// Diverged weights are said to be so.
func TestDiverged(t *testing.T) {
	m, set := trained(t, nn.Flatten(), nn.Dense(10, nn.Softmax))
	w := tensor.New(dtype.F32, 784, 10)
	w.Set(0, math.NaN())
	if err := m.State().Set("dense/kernel", w); err != nil {
		t.Fatal(err)
	}
	if _, _, err := quant.Static(context.Background(), m, set.Train, quant.Options{}); err == nil || !strings.Contains(err.Error(), "has diverged") {
		t.Errorf("%v", err)
	}
}
