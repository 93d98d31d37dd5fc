package nn_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// residual has branches, a residual add, a concatenation and a shared layer.
func residual(t *testing.T) *nn.Model {
	t.Helper()
	x, y := nn.Input(8, 8, 2), nn.InputOf("other", dtype.F32, 8, 8, 2)
	shared := nn.Conv2D(4, 3, nn.Same, nn.ReLU).Named("shared")
	a, b := shared.On(x), shared.On(y)
	r := nn.Add().On(a, nn.BatchNormalization().On(nn.Conv2D(4, 3, nn.Same, nn.NoBias()).On(a)))
	c := nn.Concatenate().On(r, b)
	flat := nn.GlobalAveragePool2D().On(c)
	m, err := nn.Functional([]*nn.Value{x, y}, []*nn.Value{nn.Dense(3, nn.Softmax).On(flat), nn.Dense(1).On(flat)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// predict gives a model's outputs for fixed inputs and parameters, on the reference.
func predict(t *testing.T, m *nn.Model, types []graph.Type, training bool) ([]*tensor.Tensor, backend.State) {
	t.Helper()
	call := &nn.Call{Training: training}
	var in []*tensor.Tensor
	g, err := graph.Build(func(g *graph.Graph) {
		call.G = g
		ts, err := m.Inputs(2, types)
		if err != nil {
			panic(err)
		}
		var x []*graph.Node
		for i, ty := range ts {
			x = append(x, g.Input(fmt.Sprint("x", i), ty))
			v := tensor.New(ty.DType, ty.Shape...)
			spread(v, uint64(i), -1, 1)
			in = append(in, v)
		}
		for i, y := range m.Call(call, x) {
			g.Output(fmt.Sprint("y", i), y)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var vars []backend.Var
	for _, v := range g.Variables() {
		vars = append(vars, backend.Var{Name: graph.NameOf(v), Type: v.Type()})
	}
	st := must(ref.Backend{}.NewState(vars))
	for i, p := range call.Params {
		v := tensor.New(p.Type.DType, p.Type.Shape...)
		spread(v, uint64(i)+7, 0.1, 1)
		if err := st.Set(p.Name, v); err != nil {
			t.Fatal(err)
		}
	}
	out := backend.NewOutputs(g)
	e := must(ref.Backend{}.Compile(g, st, backend.Options{}))
	if err := e.Run(in, out); err != nil {
		t.Fatal(err)
	}
	return out, st
}

func TestModelsRoundTrip(t *testing.T) {
	image := f32(8, 8, 2)
	sequential := nn.Sequential(nn.Conv2D(4, 3, nn.ReLU), nn.MaxPool2D(2), nn.Dropout(0.25), nn.Flatten(), nn.Dense(3, nn.Softmax).Named("head"))
	for _, c := range []struct {
		m     *nn.Model
		types []graph.Type
	}{{sequential, in(image)}, {residual(t), in(image, image)}} {
		data, err := json.Marshal(c.m)
		if err != nil {
			t.Fatal(err)
		}
		again, err := nn.ModelOf(data)
		if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		if twice := must(json.Marshal(again)); string(twice) != string(data) {
			t.Errorf("saved as\n%s\nand again as\n%s", data, twice)
		}
		a, _ := predict(t, c.m, c.types, false)
		b, _ := predict(t, again, c.types, false)
		for i := range a {
			if string(a[i].Bytes()) != string(b[i].Bytes()) {
				t.Errorf("%s: output %d differs", c.m.Name, i)
			}
		}
	}
}

func TestNames(t *testing.T) {
	m := nn.Sequential(nn.Conv2D(1, 1), nn.MaxPool2D(2), nn.Conv2D(1, 1), nn.BatchNormalization(), nn.Conv2DTranspose(1, 1),
		nn.GlobalAveragePool2D(), nn.Dense(1), nn.Dense(1).Named("dense_1"), nn.Dense(1), nn.LeakyReLULayer(0.3), nn.ReLULayer())
	var got []string
	for _, l := range m.Layers() {
		got = append(got, l.Name())
	}
	want := "conv2d max_pooling2d conv2d_1 batch_normalization conv2d_transpose global_average_pooling2d dense dense_1 dense_2 leaky_re_lu re_lu"
	if strings.Join(got, " ") != want {
		t.Errorf("names %v, want %s", got, want)
	}
}

func TestSharedLayers(t *testing.T) {
	call := &nn.Call{}
	m := residual(t)
	if _, err := graph.Build(func(g *graph.Graph) {
		call.G = g
		ty := graph.T(dtype.F32, 5, 8, 8, 2)
		m.Call(call, []*graph.Node{g.Input("x", ty), g.Input("y", ty)})
	}); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, p := range call.Params {
		count[p.Name]++
	}
	if count["shared/kernel"] != 1 || len(call.Params) != 11 {
		t.Errorf("parameters %v", count)
	}
}

// A shared BatchNormalization moves its averages once for each application, in order, as Keras does.
func TestSharedBatchNorm(t *testing.T) {
	x, y := nn.Input(3), nn.Input(3)
	bn := nn.BatchNormalization(nn.Momentum(0.75)).Named("bn")
	m := must(nn.Functional([]*nn.Value{x, y}, []*nn.Value{bn.On(x), bn.On(y)}))
	_, st := predict(t, m, in(f32(3), f32(3)), true)
	old := tensor.New(dtype.F32, 3)
	spread(old, 2+7, 0.1, 1) // as predict has set parameter 2
	xs, ys := tensor.New(dtype.F32, 2, 3), tensor.New(dtype.F32, 2, 3)
	spread(xs, 0, -1, 1)
	spread(ys, 1, -1, 1)
	got := must(st.Get("bn/moving_mean"))
	for c := range 3 {
		mean := func(t *tensor.Tensor) float64 { return (t.At(c) + t.At(3+c)) / 2 }
		want := (old.At(c)*0.75+mean(xs)*0.25)*0.75 + mean(ys)*0.25
		if math.Abs(got.At(c)-want) > 1e-6 {
			t.Errorf("channel %d: moving mean %g, want %g", c, got.At(c), want)
		}
	}
}

func TestDropout(t *testing.T) {
	const n, rate = 10000, 0.3
	m := nn.Sequential(nn.Dropout(rate))
	g, err := graph.Build(func(g *graph.Graph) {
		seed := g.Variable("random/state", graph.T(dtype.I64, 2))
		x := g.Input("x", graph.T(dtype.F32, 1, n))
		g.Output("a", m.Call(&nn.Call{G: g, Training: true, Seed: seed}, []*graph.Node{x})[0])
		two := nn.Sequential(nn.Dropout(rate), nn.Rescaling(1, 0), nn.Dropout(rate))
		g.Output("b", two.Call(&nn.Call{G: g, Training: true, Seed: seed}, []*graph.Node{x})[0])
		g.Output("c", m.Call(&nn.Call{G: g, Seed: seed}, []*graph.Node{x})[0])
	})
	if err != nil {
		t.Fatal(err)
	}
	st := must(ref.Backend{}.NewState([]backend.Var{{Name: "random/state", Type: graph.T(dtype.I64, 2)}}))
	x := tensor.New(dtype.F32, 1, n)
	spread(x, 1, 1, 2)
	out := backend.NewOutputs(g)
	if err := must(ref.Backend{}.Compile(g, st, backend.Options{})).Run([]*tensor.Tensor{x}, out); err != nil {
		t.Fatal(err)
	}
	var kept, both float64
	for i := range n {
		switch v := out[0].At(i); v {
		case 0:
		case float64(float32(x.At(i) * float64(float32(1/(1-rate))))):
			kept++
		default:
			t.Fatalf("element %d: %g became %g", i, x.At(i), v)
		}
		if out[1].At(i) != 0 {
			both++
		}
		if out[2].At(i) != x.At(i) {
			t.Fatal("dropout outside training")
		}
	}
	// Five deviations of a binomial variable; two layers drop independently.
	for _, c := range []struct{ got, p float64 }{{kept, 1 - rate}, {both, (1 - rate) * (1 - rate)}} {
		if math.Abs(c.got-n*c.p) > 5*math.Sqrt(n*c.p*(1-c.p)) {
			t.Errorf("%g of %d elements are left, want a share of %g", c.got, n, c.p)
		}
	}
}

func TestDescribe(t *testing.T) {
	m := nn.Sequential(nn.Conv2D(32, 3, nn.ReLU), nn.BatchNormalization(), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(10, nn.Softmax))
	d, err := m.Describe(in(f32(28, 28, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if d.Trainable != 320+64+54090 || d.NonTrainable != 64 {
		t.Errorf("%d trainable parameters, %d others", d.Trainable, d.NonTrainable)
	}
	// A convolution: a product and a sum for each of 9 taps, a bias and a rectifier, for each result.
	if l := d.Layers[0]; l.FLOPs != 26*26*32*(2*9+2) || l.Class != "Conv2D" || !l.Output.Equal([]int{26, 26, 32}) || l.Uses != 1 {
		t.Errorf("first layer: %+v", l)
	}
	var sum int64
	for _, l := range d.Layers {
		sum += l.FLOPs
	}
	if sum != d.FLOPs {
		t.Errorf("FLOPs of layers add up to %d, the model's are %d", sum, d.FLOPs)
	}
	for _, want := range []string{"conv2d (Conv2D)", "(None, 26, 26, 32)", "54,090", "Total params: 54,538 (213.04 KB)", "Non-trainable params: 64 (256.00 B)"} {
		if !strings.Contains(d.String(), want) {
			t.Errorf("no %q in\n%s", want, d)
		}
	}
	lines := strings.Split(d.String(), "\n")
	if len(lines[1]) != len(lines[3]) {
		t.Errorf("the table is not aligned:\n%s", d)
	}
	if _, err := m.Describe(in(f32(2, 2, 1))); err == nil || !strings.Contains(err.Error(), "layer conv2d") {
		t.Errorf("images that are too small: %v", err)
	}
	if d, err := residual(t).Describe(in(f32(8, 8, 2), f32(8, 8, 2))); err != nil || d.Layers[0].Uses != 2 {
		t.Errorf("%v, %+v", err, d.Layers)
	}
}

// What is applied to the wrong thing is refused with the layer, the shapes and the line of the program.
func TestWrongOperands(t *testing.T) {
	for i, c := range []struct {
		layer *nn.Layer
		in    []graph.Type
		want  []string
	}{
		{nn.Conv2D(4, 3), in(f32(28)), []string{"layer conv2d: Conv2D", "images [batch height width channels]", "[2 28]"}},
		{nn.Conv2D(4, 9), in(f32(8, 8, 1)), []string{"layer conv2d", "9×9", "8×8"}},
		{nn.Conv2D(4, 3, nn.Groups(2)), in(f32(8, 8, 3)), []string{"3 channels", "2 groups", "[2 8 8 3]"}},
		{nn.Conv1D(4, 3), in(f32(8, 8, 3)), []string{"layer conv1d", "sequences [batch time features]", "[2 8 8 3]"}},
		{nn.MaxPool2D(9), in(f32(8, 8, 3)), []string{"layer max_pooling2d", "9×9", "8×8"}},
		{nn.Dense(4), in(f32()), []string{"layer dense", "[batch … features]", "[2]"}},
		{nn.Dense(4), in(f32(3), f32(3)), []string{"takes one value, was given 2"}},
		{nn.Dense(0), in(f32(3)), []string{"units must be at least 1, not 0"}},
		{nn.Dense(1 << 40), in(f32(3)), []string{"kernel", "more than"}},
		{nn.Dense(3, nn.Activation("rleu")), in(f32(3)), []string{`did you mean "relu"?`}},
		{nn.Dense(3, nn.KernelInit("he_norml")), in(f32(3)), []string{"kernel_initializer", `did you mean "he_normal"?`}},
		{nn.Reshape(3, -1), in(f32(4)), []string{"[4] (4 elements)", "[3 -1]"}},
		{nn.Permute(1, 2), in(f32(4)), []string{"dims [1 2]", "[4]"}},
		{nn.Permute(1, 1), in(f32(4, 4)), []string{"dims [1 1]"}},
		{nn.RepeatVector(2), in(f32(4, 4)), []string{"vectors", "[2 4 4]"}},
		{nn.Embedding(4, 2), in(f32(4)), []string{"whole numbers", "f32[2 4]"}},
		{nn.Add(), in(f32(4), f32(5)), []string{"layer add", "f32[2 5]", "f32[2 4]"}},
		{nn.Add(), in(f32(4)), []string{"two values or more"}},
		{nn.Concatenate(), in(f32(4, 2), f32(5, 2)), []string{"layer concatenate", "f32[2 5 2]", "f32[2 4 2]", "axis 2"}},
		{nn.Concatenate(nn.Axis(0)), in(f32(4, 2), f32(4, 2)), []string{"is the batch"}},
		{nn.Concatenate(nn.Axis(5)), in(f32(4, 2), f32(4, 2)), []string{"axis 5"}},
		{nn.Dropout(1), in(f32(4)), []string{"rate must be in [0, 1)"}},
		{nn.BatchNormalization(nn.Epsilon(0)), in(f32(4)), []string{"epsilon"}},
		{nn.LayerNormalization(), in(f32()), []string{"layer layer_normalization", "[2]"}},
		{nn.UpSampling2D(2), in(f32(4)), []string{"images"}},
	} {
		_, err := newBench(c.layer, c.in, 2, true, false)
		if err == nil {
			t.Errorf("case %d (%s): no error", i, c.layer.Class())
			continue
		}
		for _, want := range append(c.want, "model_test.go:") {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("case %d: no %q in: %v", i, want, err)
			}
		}
	}
}

func TestSharedLayerOnOtherShapes(t *testing.T) {
	x, y := nn.Input(3), nn.Input(4)
	l := nn.Dense(2)
	m := must(nn.Functional([]*nn.Value{x, y}, []*nn.Value{l.On(x), l.On(y)}))
	_, err := m.Describe(in(f32(3), f32(4)))
	if err == nil || !strings.Contains(err.Error(), "[3 2]") || !strings.Contains(err.Error(), "[4 2]") {
		t.Errorf("error %v", err)
	}
}

func TestWrongModels(t *testing.T) {
	x := nn.Input(3)
	other := nn.Input(3)
	for want, f := range map[string]func() error{
		"not among the model's inputs": func() error {
			_, err := nn.Functional([]*nn.Value{x}, []*nn.Value{nn.Dense(1).On(other)})
			return err
		},
		"inputs are made by nn.Input": func() error {
			y := nn.Dense(1).On(x)
			_, err := nn.Functional([]*nn.Value{y}, []*nn.Value{y})
			return err
		},
		"is nil": func() error { _, err := nn.Functional([]*nn.Value{nil}, []*nn.Value{x}); return err },
		"output 0 of the model is nil": func() error {
			_, err := nn.Functional([]*nn.Value{x}, []*nn.Value{nil})
			return err
		},
		`two layers of model "sequential" are named "a"`: func() error {
			_, err := nn.Sequential(nn.Dense(1).Named("a"), nn.Dense(2).Named("a")).Describe(in(f32(3)))
			return err
		},
		"layer 1 of model": func() error { _, err := nn.Sequential(nn.Dense(1), nil).Describe(in(f32(3))); return err },
		"has no layers":    func() error { _, err := nn.Sequential().Describe(in(f32(3))); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not: %v", want, err)
		}
	}
}

func TestOptionsThatDoNotApply(t *testing.T) {
	for i, f := range []func(){
		func() { nn.MaxPool2D(2, nn.ReLU) },
		func() { nn.MaxPool2D(2, nn.Dilation(2)) },
		func() { nn.Dense(2, nn.Same) },
		func() { nn.Dense(2, nn.Momentum(0.9)) },
		func() { nn.Conv2D(2, 2, nn.Axis(1)) },
		func() { nn.GlobalMaxPool2D(nn.Strides(2)) },
	} {
		func() {
			defer func() {
				if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "does not apply to") {
					t.Errorf("case %d: panic %v", i, r)
				}
			}()
			f()
		}()
	}
}

// Dropout and BatchNormalization in a whole training: the loss falls, moving averages move, and predictions, which use them, are the same each time
// and do not depend on the rest of the batch.
func TestTrainsWithRandomAndMovingLayers(t *testing.T) {
	x, y := tensor.New(dtype.F32, 64, 4), tensor.New(dtype.I32, 64)
	spread(x, 3, -1, 1)
	for i := range 64 {
		if x.At(4*i) > x.At(4*i+1) {
			y.Set(i, 1)
		}
	}
	spec := data.Spec{Inputs: []data.Field{{Name: "x", Shape: []int{4}, DType: dtype.F32}}, Targets: []data.Field{{Name: "y", DType: dtype.I32}}, Classes: 2}
	var weights [2]string
	for run := range weights {
		net := nn.Sequential(nn.Dense(32, nn.ReLU), nn.BatchNormalization(nn.Momentum(0.9)), nn.Dropout(0.2), nn.Dense(2, nn.Softmax))
		m := must(train.Compile(net, spec, optim.Adam(), train.SparseCategoricalCrossentropy, train.Threads(run+1), train.Seed(4)))
		var first, last float64
		for step := range 150 {
			loss := must(m.Step([]*tensor.Tensor{x}, []*tensor.Tensor{y}, 0.01))
			if step == 0 {
				first = loss
			}
			last = loss
		}
		if !(last < 0.5*first) {
			t.Errorf("loss went from %g to %g", first, last)
		}
		all := must(m.PredictBatch(x)).Clone()
		again := must(m.PredictBatch(x)).Clone()
		one := must(m.PredictBatch(x.Slice(7, 8)))
		hits := 0
		for i := range 64 {
			if (all.At(2*i+1) > 0.5) == (y.At(i) == 1) {
				hits++
			}
		}
		if hits < 60 {
			t.Errorf("%d of 64 are right", hits)
		}
		if string(all.Bytes()) != string(again.Bytes()) || math.Abs(one.At(0)-all.At(14)) > 1e-6 {
			t.Errorf("predictions %v, %v again; of one example %v", all, again, one)
		}
		for _, p := range m.Params() {
			weights[run] += string(must(m.State().Get(p.Name)).Bytes())
		}
	}
	if weights[0] != weights[1] {
		t.Error("one thread and two give different weights")
	}
}

// Weights of PyTorch that do not fit are named, with what was wanted.
func TestFromTorchErrors(t *testing.T) {
	f := func(dims ...int) *tensor.Tensor { return tensor.New(dtype.F32, dims...) }
	for _, c := range []struct {
		class          string
		wi, wh, bi, bh *tensor.Tensor
		want           string
	}{
		{"GRUCell", f(6, 3), f(6, 2), f(6), f(6), "unknown class"},
		{"LSTM", f(8, 3), nil, nil, nil, "weight_hh is missing"},
		{"LSTM", f(8, 3), f(6, 2), nil, nil, "weight_hh is f32[6 2]"},
		{"GRU", f(8, 3), f(6, 2), nil, nil, "weight_ih is f32[8 3]"},
		{"GRU", f(6, 3), f(6, 2), f(6), nil, "both be there"},
		{"GRU", f(6, 3), f(6, 2), f(6), f(5), "bias_hh is f32[5]"},
	} {
		if _, _, _, err := nn.FromTorch(c.class, c.wi, c.wh, c.bi, c.bh); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.class, err, c.want)
		}
	}
	if _, _, b, err := nn.FromTorch("SimpleRNN", f(2, 3), f(2, 2), nil, nil); b != nil || err != nil {
		t.Errorf("without biases: %v, %v", b, err)
	}
}
