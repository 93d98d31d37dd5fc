package structure

import (
	"context"
	"encoding/json"
	"math"
	"path/filepath"
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

// field is an input of a model.
func field(dims ...int) data.Field {
	return data.Field{Name: "x", DType: dtype.F32, Shape: shape.Of(dims...)}
}

// compile compiles a model with weights that are nowhere at rest: biases, factors and moving averages are drawn too.
func compile(t *testing.T, in data.Field, f func(x *nn.Value) *nn.Value) *train.Model {
	t.Helper()
	x := nn.InputOf("x", in.DType, in.Shape...)
	net, err := nn.Functional([]*nn.Value{x}, []*nn.Value{f(x)})
	if err != nil {
		t.Fatal(err)
	}
	return compiled(t, net, in)
}

func compiled(t *testing.T, net *nn.Model, in data.Field) *train.Model {
	t.Helper()
	spec := data.Spec{Inputs: []data.Field{in}, Targets: []data.Field{{Name: "y", DType: dtype.I32, Shape: shape.Of()}}, Classes: 3}
	m, err := train.Compile(net, spec, optim.Adam(), train.SparseCategoricalCrossentropy, train.Accuracy, train.Threads(1))
	if err != nil {
		t.Fatal(err)
	}
	for n, p := range m.Params() {
		v, err := m.State().Get(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		if !p.Decay {
			for i := range v.F32() {
				v.F32()[i] = 0.6 + 0.4*float32(math.Sin(float64(i*7+n)))
			}
			if err := m.State().Set(p.Name, v); err != nil {
				t.Fatal(err)
			}
		}
	}
	return m
}

func examples(m *train.Model, n int) (x, y []*tensor.Tensor) {
	f := m.Spec.Inputs[0]
	v := tensor.New(f.DType, append([]int{n}, f.Shape...)...)
	for i := range v.Len() {
		if f.DType == dtype.I32 {
			v.Set(i, float64(i*5%7))
		} else {
			v.Set(i, math.Cos(float64(i)*1.7))
		}
	}
	l := tensor.New(dtype.I32, n)
	for i := range n {
		l.Set(i, float64(i%3))
	}
	return []*tensor.Tensor{v}, []*tensor.Tensor{l}
}

func predict(t *testing.T, m *train.Model) []float32 {
	t.Helper()
	x, _ := examples(m, 3)
	p, err := m.PredictBatch(x...)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(p.F32())
}

func near(t *testing.T, what string, a, b []float32) {
	t.Helper()
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > 2e-5 || a[i] != a[i] {
			t.Fatalf("%s: prediction %d: %g, was %g", what, i, b[i], a[i])
		}
	}
}

// change gives the weights that take the units of an axis other values.
func change(t *testing.T, m *train.Model, a *Axis, f func(unit int, w float32) float32) {
	t.Helper()
	for _, p := range a.places {
		if p.role != taken {
			continue
		}
		v, err := m.State().Get(p.param)
		if err != nil {
			t.Fatal(err)
		}
		each(v, p, func(u, i int, w float32) { v.F32()[i] = f(u, w) })
		if err := m.State().Set(p.param, v); err != nil {
			t.Fatal(err)
		}
	}
}

// dead counts the units whose score is next to nothing beside the greatest: those that give the same whatever the input, or that nothing listens to.
func dead(scores []float64) int {
	n, top := 0, slices.Max(append([]float64{0}, scores...))
	for _, s := range scores {
		if s <= 1e-6*top {
			n++
		}
	}
	return n
}

// models are networks with everything that features go through.
var models = map[string]struct {
	in   data.Field
	f    func(x *nn.Value) *nn.Value
	axes string // names and units
}{
	"chain": {field(9, 9, 2), func(x *nn.Value) *nn.Value {
		x = nn.Activate(nn.ReLU).On(nn.BatchNormalization().On(nn.Conv2D(6, 3).On(x)))
		x = nn.MaxPool2D(2).On(nn.DepthwiseConv2D(2, nn.DepthMultiplier(2)).On(x))
		x = nn.Dropout(0.1).On(nn.Flatten().On(nn.Conv2D(5, 2, nn.ReLU).On(x)))
		return nn.Dense(3, nn.Softmax).On(nn.Dense(7, nn.Tanh).On(x))
	}, "conv2d 6, conv2d_1 5, dense 7"},
	"residual": {field(8, 8, 2), func(x *nn.Value) *nn.Value {
		conv := func(x *nn.Value, n, size int) *nn.Value {
			return nn.BatchNormalization().On(nn.Conv2D(n, size, nn.Same, nn.NoBias()).On(x))
		}
		relu := func(x *nn.Value) *nn.Value { return nn.Activate(nn.ReLU).On(x) }
		x = relu(conv(x, 6, 3))
		x = relu(nn.Add().On(conv(relu(conv(x, 5, 3)), 6, 3), x))
		x = relu(nn.Add().On(conv(relu(conv(x, 4, 3)), 8, 3), conv(x, 8, 1)))
		return nn.Dense(3, nn.Softmax).On(nn.GlobalAveragePool2D().On(x))
	}, "conv2d 6, conv2d_1 5, conv2d_3 4, conv2d_4 8"},
	"joined": {field(6, 6, 2), func(x *nn.Value) *nn.Value {
		a, b := nn.Conv2D(4, 3, nn.Same, nn.ReLU).On(x), nn.Conv2D(3, 1, nn.ReLU).On(x)
		y := nn.Concatenate().On(a, b, a)
		y = nn.Multiply().On(y, nn.Reshape(1, 1, 11).On(nn.Dense(11, nn.Sigmoid).On(nn.Dense(5, nn.ReLU).On(nn.GlobalAveragePool2D().On(y)))))
		y = nn.Conv2DTranspose(4, 2, nn.Strides(2)).On(y)
		return nn.Dense(3, nn.Softmax).On(nn.Flatten().On(nn.AveragePool2D(2).On(nn.UpSampling2D(1).On(y))))
	}, "conv2d 7, dense 5, conv2d_transpose 4"},
	"shared": {field(12, 4), func(x *nn.Value) *nn.Value {
		first, again := nn.Dense(6, nn.ReLU), nn.Dense(6, nn.ReLU)
		x = again.On(again.On(first.On(x)))
		return nn.Dense(3, nn.Softmax).On(nn.GlobalMaxPool1D().On(nn.Conv1D(5, 3).On(x)))
	}, "dense 6, conv1d 5"},
	"attention": {field(5, 6), func(x *nn.Value) *nn.Value {
		y := nn.Add().On(x, nn.MultiHeadAttention(4, 3, nn.KeyValueHeads(2)).On(x))
		y = nn.TransformerBlock(3, nn.Gated(), nn.Hidden(10), nn.RMSNorms(), nn.Rotary(100)).On(y)
		y = nn.TransformerBlock(2, nn.ALiBi(), nn.PostNorm()).On(y, nn.Dense(6).On(x))
		return nn.Dense(3, nn.Softmax).On(nn.GlobalAveragePool1D().On(y))
	}, "multi_head_attention:heads 2, transformer_block:heads 3, transformer_block:hidden 10, transformer_block_1:hidden 24"},
	"recurrent": {data.Field{Name: "x", DType: dtype.I32, Shape: shape.Of(6)}, func(x *nn.Value) *nn.Value {
		y := nn.Embedding(7, 5).On(x)
		y = nn.LSTM(4, nn.ReturnSequences()).On(y)
		y = nn.GRU(6, nn.ReturnSequences()).On(y)
		y = nn.SimpleRNN(4).On(nn.GRU(5, nn.ReturnSequences(), nn.ResetBefore()).On(y))
		return nn.Dense(3, nn.Softmax).On(y)
	}, "embedding 5, lstm 4, gru 6, gru_1 5, simple_rnn 4"},
	"patches": {field(4, 4, 1), func(x *nn.Value) *nn.Value {
		y := nn.PositionEmbedding(5).On(nn.PatchEmbedding(2, 6, nn.ClassToken()).On(x))
		return nn.Dense(3, nn.Softmax).On(nn.GlobalAveragePool1D().On(y))
	}, "patch_embedding 6"},
}

// To take away units that nothing listens to changes no prediction, whatever they go through; and the smaller model is one like any other.
func TestNarrow(t *testing.T) {
	for name, c := range models {
		t.Run(name, func(t *testing.T) {
			m := compile(t, c.in, c.f)
			d, err := Analyze(m)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, a := range d.Axes {
				names = append(names, a.Name+" "+string(rune('0'+a.Units/10))+string(rune('0'+a.Units%10)))
			}
			if got := strings.ReplaceAll(strings.Join(names, ", "), " 0", " "); c.axes != "" && got != c.axes {
				t.Errorf("axes: %s\nwant: %s\nfixed: %v", got, c.axes, d.Fixed)
			}
			if len(d.Axes) == 0 {
				t.Fatalf("nothing can go: %v", d.Fixed)
			}
			widths := map[string]int{}
			for _, a := range d.Axes {
				deaf := []int{0, a.Units - 1}
				if a.Units < 4 {
					deaf = deaf[:1]
				}
				widths[a.Name] = a.Units - len(deaf)
				change(t, m, a, func(u int, w float32) float32 {
					if slices.Contains(deaf, u) {
						return 0
					}
					return w
				})
			}
			want := predict(t, m)
			scores, err := d.Magnitude(m)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range d.Axes {
				if dead(scores[a.Name]) != a.Units-widths[a.Name] {
					t.Errorf("%s: scores %v, %d were made deaf", a.Name, scores[a.Name], a.Units-widths[a.Name])
				}
			}
			small, err := Narrow(m, widths, nil)
			if err != nil {
				t.Fatal(err)
			}
			near(t, "all at once", want, predict(t, small))
			if small.ParamCount() >= m.ParamCount() {
				t.Errorf("%d parameters of %d", small.ParamCount(), m.ParamCount())
			}
			for name, n := range widths {
				one, err := Narrow(m, map[string]int{name: n}, scores)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				near(t, name, want, predict(t, one))
			}
			path := filepath.Join(t.TempDir(), "m.safetensors")
			if err := small.Save(path); err != nil {
				t.Fatal(err)
			}
			again, err := train.Load(path, train.Threads(1))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(predict(t, small), predict(t, again)) {
				t.Error("the saved model predicts otherwise")
			}
			for _, a := range d.Axes { // what a layer can save is all of it, once
				for layer, s := range a.Shares {
					if s*float64(a.Units) > 1+1e-9 || s <= 0 {
						t.Errorf("%s: share %g of %s for each of %d", a.Name, s, layer, a.Units)
					}
				}
			}
		})
	}
}

// Both attentions of a block of a decoder lose the same heads.
func TestCrossAttention(t *testing.T) {
	m := compile(t, field(4, 6), func(x *nn.Value) *nn.Value {
		y := nn.TransformerBlock(3, nn.CausalAttention()).On(x, nn.Activate(nn.Tanh).On(x))
		return nn.Dense(3, nn.Softmax).On(nn.GlobalAveragePool1D().On(y))
	})
	small, err := Narrow(m, map[string]int{"transformer_block:heads": 2}, map[string][]float64{"transformer_block:heads": {1, 0, 2}})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range small.Params() {
		if strings.HasSuffix(p.Name, "query/kernel") && !p.Type.Shape.Equal([]int{6, 2, 2}) {
			t.Errorf("%s is %v", p.Name, p.Type)
		}
	}
	predict(t, small)
}

// A residual branch that gives zeros, and a Transformer block that does, can be taken out whole.
func TestRemove(t *testing.T) {
	zero := func(m *train.Model, names ...string) {
		for _, n := range names {
			v, err := m.State().Get(n)
			if err != nil {
				t.Fatal(err)
			}
			clear(v.F32())
			if err := m.State().Set(n, v); err != nil {
				t.Fatal(err)
			}
		}
	}
	m := compile(t, models["residual"].in, models["residual"].f)
	zero(m, "batch_normalization_2/gamma", "batch_normalization_2/beta")
	want := predict(t, m)
	small, err := Remove(m, []string{"add"})
	if err != nil {
		t.Fatal(err)
	}
	near(t, "residual", want, predict(t, small))
	if n := len(m.Net.Layers()) - len(small.Net.Layers()); n != 6 {
		t.Errorf("%d layers went, want two convolutions, their normalisations, an activation and the sum", n)
	}
	m = compile(t, models["attention"].in, models["attention"].f)
	zero(m, "transformer_block/attention/attention_output/kernel", "transformer_block/attention/attention_output/bias", "transformer_block/feed_forward/output/kernel", "transformer_block/feed_forward/output/bias")
	want = predict(t, m)
	if small, err = Remove(m, []string{"transformer_block"}); err != nil {
		t.Fatal(err)
	}
	near(t, "block", want, predict(t, small))
	seq := compiled(t, nn.Sequential(nn.Dense(4, nn.ReLU), nn.Dense(4).Named("middle"), nn.Dense(3, nn.Softmax)), field(4))
	if small, err = Remove(seq, []string{"middle"}); err != nil || len(small.Net.Layers()) != 2 {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"add_1", "dense", "nowhere"} {
		if _, err := Remove(compile(t, models["residual"].in, models["residual"].f), []string{name}); err == nil || !strings.Contains(err.Error(), "those that can: add") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Scores by gradients are the square of the loss's derivative by a factor of the unit, which differences tell too.
func TestTaylor(t *testing.T) {
	for _, name := range []string{"residual", "attention", "recurrent"} {
		m := compile(t, models[name].in, models[name].f)
		d, err := Analyze(m)
		if err != nil {
			t.Fatal(err)
		}
		x, y := examples(m, 8)
		set, err := data.FromTensors(m.Spec, x, y)
		if err != nil {
			t.Fatal(err)
		}
		scores, err := d.Taylor(context.Background(), m, set, 8)
		if err != nil {
			t.Fatal(err)
		}
		loss := func() float64 {
			logs, err := m.Evaluate(context.Background(), set, 8)
			if err != nil {
				t.Fatal(err)
			}
			return logs[0].Value
		}
		for _, a := range d.Axes {
			const h = 1e-2
			var at [2]float64
			for i, f := range []float32{1 + h, 1 - h} {
				old, err := parameters(m)
				if err != nil {
					t.Fatal(err)
				}
				change(t, m, a, func(u int, w float32) float32 {
					if u == 1 {
						return w * f
					}
					return w
				})
				at[i] = loss()
				for n, v := range old {
					if err := m.State().Set(n, v); err != nil {
						t.Fatal(err)
					}
				}
			}
			want := math.Pow((at[0]-at[1])/(2*h), 2)
			if got := scores[a.Name][1]; math.Abs(math.Sqrt(got)-math.Sqrt(want)) > 2e-3*(1+math.Sqrt(want)) {
				t.Errorf("%s of %s: %g, differences say %g", a.Name, name, got, want)
			}
		}
	}
}

func TestMistakes(t *testing.T) {
	m := compile(t, models["residual"].in, models["residual"].f)
	for _, c := range []struct {
		widths map[string]int
		scores map[string][]float64
		want   string
	}{
		{map[string]int{"dense": 2}, nil, "a softmax looks at all of them together"},
		{map[string]int{"conv2d_2": 2}, nil, `hang together with those of "conv2d"`},
		{map[string]int{"conv2d": 7}, nil, "has 6 units, of which 7 cannot stay"},
		{map[string]int{"conv2d": 0}, nil, "0 cannot stay"},
		{map[string]int{"dence": 1}, nil, "those that can: conv2d, conv2d_1"},
		{map[string]int{"conv2d": 1}, map[string][]float64{"conv2d": {1}}, "6 units and 1 scores"},
	} {
		if _, err := Narrow(m, c.widths, c.scores); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: want an error with %q, not %v", c.widths, c.want, err)
		}
	}
	grouped := compile(t, field(6, 6, 4), func(x *nn.Value) *nn.Value {
		x = nn.Conv2D(4, 3, nn.Groups(2)).On(nn.Conv2D(4, 1).On(x))
		return nn.Dense(3, nn.Softmax).On(nn.Flatten().On(x))
	})
	if _, err := Narrow(grouped, map[string]int{"conv2d": 2}, nil); err == nil || !strings.Contains(err.Error(), "cut into groups") {
		t.Errorf("%v", err)
	}
	// A layer of zeros is no obstacle: its units have the score 0 and go in order.
	v, err := m.State().Get("conv2d_1/kernel")
	if err != nil {
		t.Fatal(err)
	}
	clear(v.F32())
	if err := m.State().Set("conv2d_1/kernel", v); err != nil {
		t.Fatal(err)
	}
	small, err := Narrow(m, map[string]int{"conv2d_1": 2}, nil)
	if err != nil {
		t.Fatal(err)
	}
	predict(t, small)
	v.F32()[3] = float32(math.NaN())
	if err := m.State().Set("conv2d_1/kernel", v); err != nil {
		t.Fatal(err)
	}
	if _, err := Narrow(m, map[string]int{"conv2d": 3}, nil); err == nil || !strings.Contains(err.Error(), "not finite") {
		t.Errorf("%v", err)
	}
	if j, err := json.Marshal(m.Net); err != nil || len(j) == 0 {
		t.Error(err) // the model itself is as it was
	}
}

// A convolution takes the strides of the pooling behind it: what comes out is what it gave at the first place of each window.
func TestStride(t *testing.T) {
	net := func(padding nn.Padding, opts ...nn.Option) func(x *nn.Value) *nn.Value {
		return func(x *nn.Value) *nn.Value {
			x = nn.BatchNormalization().On(nn.Conv2D(4, 3, append(opts, padding)...).On(x))
			x = nn.MaxPool2D(2).On(nn.Activate(nn.ReLU).On(x))
			return nn.Dense(3, nn.Softmax).On(nn.Flatten().On(x))
		}
	}
	for name, c := range map[string]struct {
		in   data.Field
		f    func(x *nn.Value) *nn.Value
		want string // "": it can
	}{
		"valid, even":    {field(8, 10, 2), net(nn.Valid), ""},
		"same, even":     {field(8, 6, 2), net(nn.Same), ""},
		"strided before": {field(17, 17, 2), net(nn.Valid, nn.Strides(2)), ""},
		"odd":            {field(7, 7, 2), net(nn.Valid), "those that can: none"}, // 5 places become 2 by pooling and 3 by strides
		"dilated":        {field(10, 10, 2), net(nn.Valid, nn.Dilation(2)), "those that can: none"},
		"windows that overlap": {field(9, 9, 2), func(x *nn.Value) *nn.Value {
			x = nn.MaxPool2D(3, nn.Strides(2)).On(nn.Conv2D(4, 3).On(x))
			return nn.Dense(3, nn.Softmax).On(nn.Flatten().On(x))
		}, "those that can: none"},
		"taken twice": {field(8, 8, 2), func(x *nn.Value) *nn.Value {
			x = nn.Conv2D(4, 3).On(x)
			y := nn.GlobalAveragePool2D().On(x)
			return nn.Dense(3, nn.Softmax).On(nn.Concatenate().On(y, nn.Flatten().On(nn.MaxPool2D(2).On(x))))
		}, "those that can: none"},
	} {
		m := compile(t, c.in, c.f)
		s, err := Stride(m, []string{"conv2d"})
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: want an error with %q, not %v", name, c.want, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		d, err := Analyze(m)
		if err != nil || len(d.Pooled) != 1 || d.Pooled[0] != (Pooled{"conv2d", "max_pooling2d", 4}) {
			t.Errorf("%s: %v, %v", name, err, d.Pooled)
		}
		x, _ := examples(m, 3)
		full, err := m.LayerInputs(x...)
		if err != nil {
			t.Fatal(err)
		}
		some, err := s.LayerInputs(x...)
		if err != nil {
			t.Fatal(err)
		}
		a, b := full["max_pooling2d"], some["flatten"]
		if some["max_pooling2d"] != nil || b.Shape()[1] != full["flatten"].Shape()[1] {
			t.Fatalf("%s: a pooling is left, or shapes changed: %v", name, b.Shape())
		}
		for k := range 3 {
			for i := range b.Shape()[1] {
				for j := range b.Shape()[2] {
					for ch := range 4 {
						// padding of an even length is one place at the end whatever the strides, so windows begin where they were, or a place later
						at := func(v *tensor.Tensor, i, j int) float64 {
							s := v.Shape()
							return v.At(((k*s[1]+i)*s[2]+j)*4 + ch)
						}
						got, want := at(b, i, j), at(a, 2*i, 2*j)
						if name == "same, even" {
							want = at(a, 2*i+1, 2*j+1)
						}
						if math.Abs(got-want) > 1e-5*(1+math.Abs(want)) {
							t.Fatalf("%s: at %d %d %d is %g, was %g", name, i, j, ch, got, want)
						}
					}
				}
			}
		}
	}
}
