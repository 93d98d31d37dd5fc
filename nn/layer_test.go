package nn_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// f32 and i32 are types of a layer's operands, without the batch.
func f32(dims ...int) graph.Type { return graph.T(dtype.F32, dims...) }
func i32(dims ...int) graph.Type { return graph.T(dtype.I32, dims...) }

func in(t ...graph.Type) []graph.Type { return t }

// layerCase is one layer applied to operands: what every class is tested with.
type layerCase struct {
	layer  *nn.Layer
	in     []graph.Type // without the batch
	out    shape.Shape  // without the batch
	params string       // names and shapes, in order
}

// layerCases has at least one case for every class.
var layerCases = []layerCase{
	{nn.Dense(4), in(f32(3)), shape.Of(4), "kernel[3 4] bias[4]"},
	{nn.Dense(4, nn.NoBias(), nn.Tanh), in(f32(2, 3)), shape.Of(2, 4), "kernel[3 4]"},
	{nn.Dense(5, nn.Softmax, nn.KernelInit(nn.HeNormal), nn.BiasInit(nn.Ones)), in(f32(3)), shape.Of(5), "kernel[3 5] bias[5]"},
	{nn.Conv1D(4, 3), in(f32(7, 2)), shape.Of(5, 4), "kernel[3 2 4] bias[4]"},
	{nn.Conv1D(4, 3, nn.Causal, nn.Dilation(2), nn.ReLU), in(f32(7, 2)), shape.Of(7, 4), "kernel[3 2 4] bias[4]"},
	{nn.Conv1D(4, 2, nn.Same, nn.Strides(2), nn.Groups(2)), in(f32(7, 2)), shape.Of(4, 4), "kernel[2 1 4] bias[4]"},
	{nn.Conv2D(4, 3), in(f32(6, 5, 2)), shape.Of(4, 3, 4), "kernel[3 3 2 4] bias[4]"},
	{nn.Conv2D(4, 3, nn.Same, nn.Strides(2), nn.GELU), in(f32(6, 5, 2)), shape.Of(3, 3, 4), "kernel[3 3 2 4] bias[4]"},
	{nn.Conv2D(6, 3, nn.Kernel(1, 2), nn.Dilation(1, 2), nn.Groups(2), nn.NoBias()), in(f32(4, 5, 4)), shape.Of(4, 3, 6), "kernel[1 2 2 6]"},
	{nn.Conv2DTranspose(3, 3), in(f32(3, 2, 2)), shape.Of(5, 4, 3), "kernel[3 3 3 2] bias[3]"},
	{nn.Conv2DTranspose(3, 3, nn.Strides(2), nn.Same, nn.ReLU), in(f32(3, 2, 2)), shape.Of(6, 4, 3), "kernel[3 3 3 2] bias[3]"},
	{nn.Conv2DTranspose(3, 2, nn.Strides(3), nn.NoBias()), in(f32(3, 2, 2)), shape.Of(9, 6, 3), "kernel[2 2 3 2]"},
	{nn.DepthwiseConv2D(3), in(f32(5, 4, 3)), shape.Of(3, 2, 3), "kernel[3 3 3 1] bias[3]"},
	{nn.DepthwiseConv2D(3, nn.DepthMultiplier(2), nn.Same, nn.SiLU), in(f32(5, 4, 3)), shape.Of(5, 4, 6), "kernel[3 3 3 2] bias[6]"},
	{nn.MaxPool1D(2), in(f32(7, 3)), shape.Of(3, 3), ""},
	{nn.MaxPool1D(3, nn.Strides(2), nn.Same), in(f32(7, 3)), shape.Of(4, 3), ""},
	{nn.AveragePool1D(2), in(f32(7, 3)), shape.Of(3, 3), ""},
	{nn.MaxPool2D(2), in(f32(5, 4, 3)), shape.Of(2, 2, 3), ""},
	{nn.MaxPool2D(3, nn.Strides(1, 2), nn.Same), in(f32(5, 4, 3)), shape.Of(5, 2, 3), ""},
	{nn.AveragePool2D(2), in(f32(5, 4, 3)), shape.Of(2, 2, 3), ""},
	{nn.AveragePool2D(3, nn.Strides(2), nn.Same), in(f32(5, 4, 3)), shape.Of(3, 2, 3), ""},
	{nn.GlobalMaxPool1D(), in(f32(7, 3)), shape.Of(3), ""},
	{nn.GlobalAveragePool1D(nn.KeepDims()), in(f32(7, 3)), shape.Of(1, 3), ""},
	{nn.GlobalMaxPool2D(nn.KeepDims()), in(f32(5, 4, 3)), shape.Of(1, 1, 3), ""},
	{nn.GlobalAveragePool2D(), in(f32(5, 4, 3)), shape.Of(3), ""},
	{nn.Dropout(0.4), in(f32(4, 6)), shape.Of(4, 6), ""},
	{nn.BatchNormalization(), in(f32(4, 3, 2)), shape.Of(4, 3, 2), "gamma[2] beta[2] moving_mean[2] moving_variance[2]"},
	{nn.BatchNormalization(nn.Momentum(0.9), nn.Epsilon(0.01), nn.NoScale(), nn.NoBias()), in(f32(5)), shape.Of(5), "moving_mean[5] moving_variance[5]"},
	{nn.LayerNormalization(), in(f32(4, 6)), shape.Of(4, 6), "gamma[6] beta[6]"},
	{nn.LayerNormalization(nn.NoScale()), in(f32(6)), shape.Of(6), "beta[6]"},
	{nn.Activate(nn.SELU), in(f32(6)), shape.Of(6), ""},
	{nn.ReLULayer(), in(f32(6)), shape.Of(6), ""},
	{must(nn.LayerOf("ReLU", "", []byte(`{"max_value": 0.5, "negative_slope": 0.1, "threshold": 0.2}`))), in(f32(6)), shape.Of(6), ""},
	{nn.LeakyReLULayer(0.3), in(f32(6)), shape.Of(6), ""},
	{nn.SoftmaxLayer(), in(f32(3, 6)), shape.Of(3, 6), ""},
	{nn.SoftmaxLayer(nn.Axis(1)), in(f32(3, 6, 2)), shape.Of(3, 6, 2), ""},
	{nn.Embedding(7, 3), in(i32(4)), shape.Of(4, 3), "embeddings[7 3]"},
	{nn.Rescaling(0.5, -1), in(f32(4)), shape.Of(4), ""},
	{nn.Rescaling(1./255, 0), in(graph.T(dtype.U8, 4)), shape.Of(4), ""},
	{nn.Embedding(7, 3), in(f32(4, 3)), shape.Of(4, 7), "embeddings[7 3]"},
	{nn.RMSNormalization(), in(f32(4, 6)), shape.Of(4, 6), "scale[6]"},
	{nn.PositionEmbedding(5), in(f32(4, 6)), shape.Of(4, 6), "embeddings[5 6]"},
	{nn.SinePositionEncoding(), in(f32(4, 6)), shape.Of(4, 6), ""},
	{nn.MultiHeadAttention(2, 3), in(f32(4, 5)), shape.Of(4, 5), mhaParams(5, 5, 2, 2, 3)},
	{nn.MultiHeadAttention(2, 3), in(f32(4, 5), f32(6, 2)), shape.Of(4, 5), mhaParams(5, 2, 2, 2, 3)},
	{nn.MultiHeadAttention(4, 2, nn.KeyValueHeads(2), nn.CausalAttention(), nn.Rotary(100)), in(f32(4, 5)), shape.Of(4, 5), mhaParams(5, 5, 4, 2, 2)},
	{nn.MultiHeadAttention(4, 2, nn.KeyValueHeads(1), nn.Window(2), nn.ALiBi(), nn.NoBias()), in(f32(4, 5), i32()), shape.Of(4, 5), "query/kernel[5 4 2] key/kernel[5 1 2] value/kernel[5 1 2] attention_output/kernel[4 2 5]"},
	{nn.TransformerBlock(2), in(f32(4, 6)), shape.Of(4, 6), blockParams(6, 24, "gamma[6]", "beta[6]")},
	{nn.TransformerBlock(2, nn.CausalAttention(), nn.RMSNorms(), nn.Gated(), nn.SiLU, nn.NoBias(), nn.Hidden(8), nn.Rotary(50), nn.BlockDropout(0.25)), in(f32(4, 8)), shape.Of(4, 8),
		"attention_norm/scale[8] attention/query/kernel[8 2 4] attention/key/kernel[8 2 4] attention/value/kernel[8 2 4] attention/attention_output/kernel[2 4 8] " +
			"feed_forward_norm/scale[8] feed_forward/hidden/kernel[8 8] feed_forward/gate/kernel[8 8] feed_forward/output/kernel[8 8]"},
	{nn.TransformerBlock(2, nn.PostNorm(), nn.ReLU), in(f32(4, 6), i32()), shape.Of(4, 6), postParams(6, 24)},
	{nn.TransformerBlock(2, nn.CausalAttention()), in(f32(3, 6), f32(5, 6), i32()), shape.Of(3, 6), crossParams(6, 24)},
	{nn.SimpleRNN(3), in(f32(4, 2)), shape.Of(3), "kernel[2 3] recurrent_kernel[3 3] bias[3]"},
	{nn.SimpleRNN(3, nn.ReturnSequences(), nn.NoBias(), nn.GoBackwards()), in(f32(4, 2), i32()), shape.Of(4, 3), "kernel[2 3] recurrent_kernel[3 3]"},
	{nn.SimpleRNN(3, nn.ReLU), in(f32(2, 2)), shape.Of(3), "kernel[2 3] recurrent_kernel[3 3] bias[3]"},
	{nn.LSTM(3), in(f32(4, 2)), shape.Of(3), "kernel[2 12] recurrent_kernel[3 12] bias[12]"},
	{nn.LSTM(3, nn.ReturnSequences(), nn.InputDropout(0.25), nn.RecurrentDropout(0.5)), in(f32(4, 2), i32(), f32(3), f32(3)), shape.Of(4, 3), "kernel[2 12] recurrent_kernel[3 12] bias[12]"},
	{nn.GRU(3, nn.GoBackwards()), in(f32(4, 2), f32(3)), shape.Of(3), "kernel[2 9] recurrent_kernel[3 9] bias[2 9]"},
	{nn.GRU(2, nn.ReturnSequences(), nn.RecurrentDropout(0.5), nn.NoBias()), in(f32(4, 2), i32()), shape.Of(4, 2), "kernel[2 6] recurrent_kernel[2 6]"},
	{nn.GRU(3, nn.ResetBefore(), nn.ReturnSequences()), in(f32(4, 2), i32(), f32(3)), shape.Of(4, 3), "kernel[2 9] recurrent_kernel[3 9] bias[9]"},
	{nn.Bidirectional(nn.LSTM(2)), in(f32(3, 2)), shape.Of(4), "forward_lstm/kernel[2 8] forward_lstm/recurrent_kernel[2 8] forward_lstm/bias[8] backward_lstm/kernel[2 8] backward_lstm/recurrent_kernel[2 8] backward_lstm/bias[8]"},
	{nn.Bidirectional(nn.GRU(2, nn.ReturnSequences(), nn.NoBias()), "ave"), in(f32(3, 2), i32()), shape.Of(3, 2), "forward_gru/kernel[2 6] forward_gru/recurrent_kernel[2 6] backward_gru/kernel[2 6] backward_gru/recurrent_kernel[2 6]"},
	{nn.LSTM(3, nn.Stateful()), in(f32(4, 2)), shape.Of(3), "kernel[2 12] recurrent_kernel[3 12] bias[12]"},
	{nn.Attention(), in(f32(3, 4), f32(5, 4)), shape.Of(3, 4), ""},
	{nn.Attention(nn.LearnedScale()), in(f32(3, 4), f32(5, 4), f32(5, 4), i32()), shape.Of(3, 4), "scale[]"},
	{nn.AdditiveAttention(), in(f32(3, 4), f32(5, 4)), shape.Of(3, 4), "scale[4]"},
	{nn.AdditiveAttention(), in(f32(3, 4), f32(5, 2), f32(5, 4), i32()), shape.Of(3, 2), "scale[4]"},
	{nn.AttentionDecoder(nn.GRU(3)), in(f32(4, 2), f32(5, 6), i32(), f32(3)), shape.Of(4, 3), "gru/kernel[2 9] gru/recurrent_kernel[3 9] gru/bias[2 9] attention/query/kernel[3 6] output/kernel[9 3]"},
	{nn.AttentionDecoder(nn.LSTM(3), nn.AdditiveScore()), in(f32(4, 2), f32(5, 4)), shape.Of(4, 3),
		"lstm/kernel[2 12] lstm/recurrent_kernel[3 12] lstm/bias[12] attention/query/kernel[3 3] attention/key/kernel[4 3] attention/scale[3] output/kernel[7 3]"},
	{nn.PointerGenerator(4), in(f32(3, 8), f32(3, 5), f32(4, 6), i32(4)), shape.Of(3, 8), "query/kernel[5 4] key/kernel[6 4] context/kernel[6 1] gate/kernel[5 1] gate/bias[1]"},
	{nn.PointerGenerator(3, nn.KernelInit(nn.HeNormal)), in(f32(2, 6), f32(2, 5), f32(4, 3), i32(4), i32()), shape.Of(2, 6), "query/kernel[5 3] key/kernel[3 3] context/kernel[3 1] gate/kernel[5 1] gate/bias[1]"},
	{nn.PatchEmbedding(2, 5), in(f32(4, 6, 3)), shape.Of(6, 5), "kernel[2 2 3 5] bias[5]"},
	{nn.PatchEmbedding(3, 4, nn.ClassToken(), nn.NoBias()), in(f32(3, 6, 1)), shape.Of(3, 4), "kernel[3 3 1 4] class_token[1 4]"},
	{nn.GlobalAveragePool1D(), in(f32(7, 3), i32()), shape.Of(3), ""},
	{nn.GlobalMaxPool1D(nn.KeepDims()), in(f32(7, 3), i32()), shape.Of(1, 3), ""},
	{nn.FirstPosition(), in(f32(4, 6)), shape.Of(6), ""},
	{nn.UnitNormalization(), in(f32(4, 6)), shape.Of(4, 6), ""},
	{nn.TransformerBlock(2, nn.PostNorm(), nn.ReLU, nn.Adapter(3)), in(f32(4, 6), i32()), shape.Of(4, 6), adapted(postParams(6, 24), "attention_norm/", "feed_forward_norm/")},
	{nn.Flatten(), in(f32(2, 3, 4)), shape.Of(24), ""},
	{nn.Reshape(3, -1), in(f32(2, 6)), shape.Of(3, 4), ""},
	{nn.Permute(2, 3, 1), in(f32(2, 3, 4)), shape.Of(3, 4, 2), ""},
	{nn.RepeatVector(3), in(f32(5)), shape.Of(3, 5), ""},
	{nn.ZeroPadding2D(1), in(f32(3, 4, 2)), shape.Of(5, 6, 2), ""},
	{nn.ZeroPadding2D(0, 1, 2, 3), in(f32(3, 4, 2)), shape.Of(4, 9, 2), ""},
	{nn.UpSampling2D(2), in(f32(3, 4, 2)), shape.Of(6, 8, 2), ""},
	{nn.Add(), in(f32(3, 4), f32(3, 4), f32(3, 4)), shape.Of(3, 4), ""},
	{nn.Multiply(), in(f32(3, 4), f32(1, 4)), shape.Of(3, 4), ""},
	{nn.Average(), in(f32(5), f32(5), f32(5)), shape.Of(5), ""},
	{nn.Maximum(), in(f32(5), f32(5)), shape.Of(5), ""},
	{nn.Minimum(), in(f32(5), f32(5)), shape.Of(5), ""},
	{nn.Concatenate(), in(f32(3, 4), f32(3, 2)), shape.Of(3, 6), ""},
	{nn.Concatenate(nn.Axis(1)), in(f32(3, 4), f32(2, 4), f32(1, 4)), shape.Of(6, 4), ""},
}

// The parameters of attention in Keras's order, and of blocks.
func mhaParams(width, source, heads, groups, dim int) string {
	return fmt.Sprintf("query/kernel[%d %d %d] query/bias[%d %d] key/kernel[%d %d %d] key/bias[%d %d] value/kernel[%d %d %d] value/bias[%d %d] attention_output/kernel[%d %d %d] attention_output/bias[%d]",
		width, heads, dim, heads, dim, source, groups, dim, groups, dim, source, groups, dim, groups, dim, heads, dim, width, width)
}

func under(part, params string) string { return part + strings.ReplaceAll(params, "] ", "] "+part) }

func feedForward(width, hidden int) string {
	return fmt.Sprintf("feed_forward/hidden/kernel[%d %d] feed_forward/hidden/bias[%d] feed_forward/output/kernel[%d %d] feed_forward/output/bias[%d]", width, hidden, hidden, hidden, width, width)
}

func blockParams(width, hidden int, norm ...string) string {
	n := strings.Join(norm, " ")
	return under("attention_norm/", n) + " " + under("attention/", mhaParams(width, width, 2, 2, width/2)) + " " + under("feed_forward_norm/", n) + " " + feedForward(width, hidden)
}

func postParams(width, hidden int) string {
	n := fmt.Sprintf("gamma[%d] beta[%d]", width, width)
	return under("attention/", mhaParams(width, width, 2, 2, width/2)) + " " + under("attention_norm/", n) + " " + feedForward(width, hidden) + " " + under("feed_forward_norm/", n)
}

// adapted puts adapters of 3 values in a block of width 6 before the parts named.
func adapted(params string, before ...string) string {
	for _, b := range before {
		own := strings.TrimSuffix(b, "_norm/") + "/adapter/"
		params = strings.Replace(params, b, under(own, "down/kernel[6 3] down/bias[3] up/kernel[3 6] up/bias[6]")+" "+b, 1)
	}
	return params
}

func crossParams(width, hidden int) string {
	n, a := fmt.Sprintf("gamma[%d] beta[%d]", width, width), mhaParams(width, width, 2, 2, width/2)
	return under("attention_norm/", n) + " " + under("attention/", a) + " " + under("cross_attention_norm/", n) + " " + under("cross_attention/", a) + " " +
		under("feed_forward_norm/", n) + " " + feedForward(width, hidden)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestEveryClassHasACase(t *testing.T) {
	for _, class := range nn.Classes() {
		if strings.HasPrefix(class, "Quantized") {
			continue // they have no gradients and Keras no such layers: compress/quant tests them
		}
		if !slices.ContainsFunc(layerCases, func(c layerCase) bool { return c.layer.Class() == class }) {
			t.Errorf("class %s is not tested", class)
		}
	}
}

func TestLayers(t *testing.T) {
	for i, c := range layerCases {
		t.Run(fmt.Sprint(c.layer.Class(), "/", i), func(t *testing.T) {
			for _, n := range []int{1, 3} {
				for _, training := range []bool{false, true} {
					checkLayer(t, c, n, training)
				}
			}
			checkConfig(t, c)
		})
	}
}

// bench is a layer in a graph with the values it is tested on.
type bench struct {
	g      *graph.Graph
	call   *nn.Call
	in     []*tensor.Tensor
	vars   map[string]*tensor.Tensor
	wrt    []*tensor.Tensor // of in and vars, what gradients are taken for, in the order of outputs 2, 3, …
	inputs []graph.Type
}

// newBench builds the layer at a batch of n: outputs "y", "loss" (a fixed weighted sum, in f64) and, if asked for, the loss's gradients.
func newBench(l *nn.Layer, types []graph.Type, n int, training, gradients bool) (*bench, error) {
	b := &bench{vars: map[string]*tensor.Tensor{}}
	var wrt []*graph.Node
	var err error
	b.g, err = graph.Build(func(g *graph.Graph) {
		var values []*nn.Value
		for i, ty := range types {
			values = append(values, nn.InputOf(fmt.Sprint("x", i), ty.DType, ty.Shape...))
		}
		m, err := nn.Functional(values, []*nn.Value{l.On(values...)})
		if err != nil {
			panic(err)
		}
		b.inputs = must(m.Inputs(n, types))
		var xs []*graph.Node
		for i, ty := range b.inputs {
			xs = append(xs, g.Input(fmt.Sprint("x", i), ty))
			if ty.DType.IsFloat() {
				wrt = append(wrt, xs[i])
			}
		}
		b.call = &nn.Call{G: g, Training: training}
		if training {
			b.call.Seed = g.Variable("random/state", graph.T(dtype.I64, 2))
		}
		y := m.Call(b.call, xs)[0]
		g.Output("y", y)
		w := tensor.New(dtype.F64, y.Shape()...)
		spread(w, 99, -1, 1)
		loss := op.SumAll(op.Mul(op.Convert(y, dtype.F64), g.Const(w)))
		g.Output("loss", loss)
		for _, p := range b.call.Params {
			if p.Trainable {
				wrt = append(wrt, g.Variable(p.Name, p.Type))
			}
		}
		if gradients {
			for i, d := range grad.Of(loss, wrt...) {
				g.Output(fmt.Sprint("d", i), op.Convert(d, dtype.F64))
			}
		}
	})
	if err != nil {
		return nil, err
	}
	for i, ty := range b.inputs {
		x := tensor.New(ty.DType, ty.Shape...)
		spread(x, uint64(i), -1, 1)
		if !ty.DType.IsFloat() {
			spread(x, uint64(i), 0, 7)
		} else {
			b.wrt = append(b.wrt, x)
		}
		b.in = append(b.in, x)
	}
	for i, p := range b.call.Params {
		v := tensor.New(p.Type.DType, p.Type.Shape...)
		spread(v, uint64(i)+50, 0.2, 1.2) // positive, for the variance
		if p.Decay {
			spread(v, uint64(i)+50, -1, 1)
		}
		b.vars[p.Name] = v
		if p.Trainable {
			b.wrt = append(b.wrt, v)
		}
	}
	if training {
		b.vars["random/state"] = tensor.Of([]int64{5, 6})
	}
	return b, nil
}

func spread(t *tensor.Tensor, seed uint64, lo, hi float64) {
	r := rand.New(rand.NewPCG(seed, 11))
	for i := range t.Len() {
		t.Set(i, lo+(hi-lo)*r.Float64())
	}
}

// run gives the outputs and, by name, what the run leaves in variables.
func (b *bench) run(on backend.Backend) ([]*tensor.Tensor, map[string]*tensor.Tensor, error) {
	var vars []backend.Var
	for _, v := range b.g.Variables() {
		vars = append(vars, backend.Var{Name: graph.NameOf(v), Type: v.Type()})
	}
	st, err := on.NewState(vars)
	if err != nil {
		return nil, nil, err
	}
	for name, v := range b.vars {
		if err := st.Set(name, v); err != nil {
			return nil, nil, err
		}
	}
	e, err := on.Compile(b.g, st, backend.Options{Threads: 2})
	if err != nil {
		return nil, nil, err
	}
	out := backend.NewOutputs(b.g)
	if err := e.Run(b.in, out); err != nil {
		return nil, nil, err
	}
	after := map[string]*tensor.Tensor{}
	for _, v := range vars {
		after[v.Name] = must(st.Get(v.Name))
	}
	return out, after, nil
}

// checkLayer checks shapes, parameters, that the CPU computes what the reference does, and gradients against differences.
func checkLayer(t *testing.T, c layerCase, n int, training bool) {
	t.Helper()
	what := fmt.Sprintf("batch %d, training %v", n, training)
	b, err := newBench(c.layer, c.in, n, training, true)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	var params []string
	for _, p := range b.call.Params {
		params = append(params, strings.TrimPrefix(p.Name, c.layer.Name()+"/")+p.Type.Shape.String())
	}
	if got := strings.Join(params, " "); got != c.params {
		t.Fatalf("%s: parameters %s, want %s", what, got, c.params)
	}
	want, left, err := b.run(ref.Backend{})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if s := want[0].Shape(); s[0] != n || !s[1:].Equal(c.out) {
		t.Fatalf("%s: result of shape %v, want %v after the batch", what, s, c.out)
	}
	got, gotLeft, err := b.run(cpu.Backend{})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	// f32 against f64: some dozens of roundings of 6e-8; normalisations of nearly equal numbers multiply them.
	const tol = 1e-4
	greatest := 0.0
	for _, w := range want {
		for j := range w.Len() {
			greatest = max(greatest, math.Abs(w.At(j)))
		}
	}
	for i := range want {
		// A gradient that is 0 by its nature, as that of the bias of keys, is the rest of numbers that cancel.
		cancels := true
		for j := range want[i].Len() {
			cancels = cancels && math.Abs(want[i].At(j)) < 1e-12 && math.Abs(got[i].At(j)) < 1e-5*greatest
		}
		if cancels {
			continue
		}
		if err := near(got[i], want[i], tol); err != nil {
			t.Errorf("%s: output %s on the CPU: %v", what, b.g.Outputs()[i].Name, err)
		}
	}
	for name, v := range left {
		if err := near(gotLeft[name], v, tol); err != nil {
			t.Errorf("%s: variable %s on the CPU: %v", what, name, err)
		}
	}
	if err := b.differences(want[2:]); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// near is backendtest.Close, but zeros that f32 misses by a few roundings of the numbers around 1 that cancelled are zeros.
func near(got, want *tensor.Tensor, tol float64) error {
	if want.DType().IsFloat() {
		got = got.Clone()
		for i := range want.Len() {
			if math.Abs(got.At(i)-want.At(i)) < 1e-6 {
				got.Set(i, want.At(i))
			}
		}
	}
	return backendtest.Close(got, want, tol)
}

// differences compares gradients with central differences of the loss along a random direction, on the reference, which computes in
// float64: only the points are rounded to f32, so their exact distance is used. What is left is the third derivative times the square of
// the step, 2^-12.
func (b *bench) differences(grads []*tensor.Tensor) error {
	const h = 1.0 / 4096
	want, scale := 0.0, 0.0
	before := make([]*tensor.Tensor, len(b.wrt))
	ends := [2][]*tensor.Tensor{}
	for i, x := range b.wrt {
		before[i] = x.Clone()
		up, down := x.Clone(), x.Clone()
		r := rand.New(rand.NewPCG(uint64(i), 13))
		for j := range x.Len() {
			u := h * (2*r.Float64() - 1)
			up.Set(j, x.At(j)+u)
			down.Set(j, x.At(j)-u)
			step := grads[i].At(j) * (up.At(j) - down.At(j))
			want += step
			scale += math.Abs(step)
		}
		ends[0], ends[1] = append(ends[0], up), append(ends[1], down)
	}
	var f [2]float64
	for k := range 2 {
		for i, x := range b.wrt {
			copy(x.Bytes(), ends[k][i].Bytes())
		}
		out, _, err := b.run(ref.Backend{})
		if err != nil {
			return err
		}
		f[k] = out[1].At(0)
	}
	for i, x := range b.wrt {
		copy(x.Bytes(), before[i].Bytes())
	}
	if got := f[0] - f[1]; !(math.Abs(got-want) <= 1e-5*scale+1e-10) {
		return fmt.Errorf("the loss changes by %.9g, its gradient says %.9g (scale %.3g)", got, want, scale)
	}
	return nil
}

// checkConfig saves the layer and makes it again: same configuration, same results.
func checkConfig(t *testing.T, c layerCase) {
	t.Helper()
	again, err := nn.LayerOf(c.layer.Class(), c.layer.Name(), c.layer.Config())
	if err != nil {
		t.Fatal(err)
	}
	if string(again.Config()) != string(c.layer.Config()) {
		t.Fatalf("configuration %s became %s", c.layer.Config(), again.Config())
	}
	var bits [2]string
	for i, l := range []*nn.Layer{c.layer, again} {
		b, err := newBench(l, c.in, 2, true, true)
		if err != nil {
			t.Fatal(err)
		}
		out, _, err := b.run(cpu.Backend{})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range out {
			bits[i] += string(o.Bytes())
		}
	}
	if bits[0] != bits[1] {
		t.Errorf("the layer made of %s computes something else", c.layer.Config())
	}
}
