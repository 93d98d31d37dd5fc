package train

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// namedArray is a weight or its gradient.
type namedArray struct {
	Name  string
	Value backendtest.Array
}

// goldenModel is a model as testdata/models.py writes it.
type goldenModel struct {
	Name      string
	Inputs    []backendtest.Array
	Targets   [][]int32
	Weights   []namedArray
	Recurrent []struct {
		Layer, Class       string
		Weights, Gradients []backendtest.Array // weight_ih, weight_hh, bias_ih, bias_hh of PyTorch
	}
	Output    backendtest.Array
	Gradients []namedArray
	Losses    []float64
}

// net is the same model of Joule, and its inputs' fields for the test's data.
func (m goldenModel) net(t *testing.T) *nn.Model {
	const v, d = 13, 8
	tokens := func(name string, n int) *nn.Value { return nn.InputOf(name, dtype.I32, n) }
	length := nn.InputOf("length", dtype.I32)
	head := func() *nn.Layer { return nn.Dense(v, nn.Softmax).Named("head") }
	made := func(in []*nn.Value, out *nn.Value) *nn.Model {
		net, err := nn.Functional(in, []*nn.Value{out})
		if err != nil {
			t.Fatal(err)
		}
		return net
	}
	embed := func(name string) *nn.Layer { return nn.Embedding(v, d).Named(name) }
	switch m.Name {
	case "gpt":
		return nn.Sequential(embed("tokens"), nn.PositionEmbedding(6).Named("places"), nn.TransformerBlock(2, nn.CausalAttention()).Named("block1"),
			nn.TransformerBlock(2, nn.CausalAttention()).Named("block2"), nn.LayerNormalization(nn.Epsilon(1e-5)).Named("norm"), head())
	case "encoder-decoder", "encoder-decoder pre-norm":
		opts, sines := []nn.Option{nn.PostNorm(), nn.ReLU}, true
		if strings.HasSuffix(m.Name, "pre-norm") {
			opts, sines = nil, false
		}
		source, target := tokens("source", 5), tokens("target", 4)
		x, y := embed("source").On(source), embed("target").On(target)
		if sines {
			x, y = nn.SinePositionEncoding().On(x), nn.SinePositionEncoding().On(y)
		}
		memory := nn.TransformerBlock(2, opts...).Named("encoder").On(x, length)
		y = nn.TransformerBlock(2, append(opts, nn.CausalAttention())...).Named("decoder").On(y, memory, length)
		return made([]*nn.Value{source, length, target}, head().On(y))
	}
	kind, rest, _ := strings.Cut(m.Name, " ")
	opts := []nn.Option{nn.ReturnSequences()}
	if strings.Contains(rest, "reset before") {
		opts = append(opts, nn.ResetBefore())
	}
	cell := map[string]func(int, ...nn.Option) *nn.Layer{"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.SimpleRNN}[strings.ToLower(kind)]
	if cell == nil {
		t.Fatalf("the test does not know the model %q", m.Name)
	}
	x := tokens("x", m.Inputs[0].Shape[1])
	in, counted := []*nn.Value{x}, []*nn.Value{}
	if strings.Contains(rest, "masked") {
		in, counted = append(in, length), append(counted, length)
	}
	y := nn.Embedding(v, 5).Named("tokens").On(x)
	y = cell(4, opts...).Named("one").On(append([]*nn.Value{y}, counted...)...)
	y = nn.Bidirectional(cell(3, opts...)).Named("both").On(append([]*nn.Value{y}, counted...)...)
	return made(in, head().On(y))
}

// fields are those of tensors whose first axis is the batch.
func fields(ts []*tensor.Tensor) []data.Field {
	var out []data.Field
	for i, x := range ts {
		out = append(out, data.Field{Name: fmt.Sprint("x", i), DType: x.DType(), Shape: append(shape.Shape{}, x.Shape()[1:]...)})
	}
	return out
}

// Whole models of PyTorch and Keras, run in float64: outputs, gradients of all weights, losses of ten steps. Weights of PyTorch's recurrent layers come in through nn.FromTorch.
func TestModelsAgainstOthers(t *testing.T) {
	for _, file := range []string{"testdata/models-torch.json", "testdata/models-keras.json"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var golden struct{ Cases []goldenModel }
		if err := json.Unmarshal(raw, &golden); err != nil {
			t.Fatal(err)
		}
		if len(golden.Cases) != 5 {
			t.Fatalf("%s has %d cases", file, len(golden.Cases))
		}
		for _, c := range golden.Cases {
			for _, b := range []backend.Backend{ref.Backend{}, cpu.Backend{}} {
				t.Run(fmt.Sprintf("%s %s on %s", strings.TrimSuffix(strings.TrimPrefix(file, "testdata/models-"), ".json"), c.Name, b.Name()), func(t *testing.T) { c.check(t, b) })
			}
		}
	}
}

func (c goldenModel) check(t *testing.T, b backend.Backend) {
	var xs []*tensor.Tensor
	for _, p := range c.Inputs {
		f := p.Tensor(dtype.F32)
		x := tensor.New(dtype.I32, f.Shape()...)
		for i := range x.Len() {
			x.Set(i, f.At(i))
		}
		xs = append(xs, x)
	}
	var flat []int32
	for _, row := range c.Targets {
		flat = append(flat, row...)
	}
	ys := []*tensor.Tensor{tensor.Of(flat, len(c.Targets), len(c.Targets[0]))}
	net := c.net(t)
	m, err := Compile(net, data.Spec{Inputs: fields(xs), Targets: fields(ys), Classes: 13}, optim.SGD(0.9, false, optim.Rate(0.05)), SparseCategoricalCrossentropy, On(b))
	if err != nil {
		t.Fatal(err)
	}
	weights, grads := map[string]*tensor.Tensor{}, map[string]*tensor.Tensor{}
	for _, w := range c.Weights {
		weights[w.Name] = w.Value.Tensor(dtype.F32)
	}
	for _, w := range c.Gradients {
		grads[w.Name] = w.Value.Tensor(dtype.F32)
	}
	for _, r := range c.Recurrent {
		part := func(ps []backendtest.Array, to map[string]*tensor.Tensor, gradient bool) {
			var ts []*tensor.Tensor
			for _, p := range ps {
				ts = append(ts, p.Tensor(dtype.F32))
			}
			if gradient && r.Class != "GRU" { // the sum of two biases: its gradient is that of each
				ts[3] = tensor.New(dtype.F32, ts[3].Shape()...)
			}
			k, u, bias, err := nn.FromTorch(r.Class, ts[0], ts[1], ts[2], ts[3])
			if err != nil {
				t.Fatal(err)
			}
			to[r.Layer+"/kernel"], to[r.Layer+"/recurrent_kernel"], to[r.Layer+"/bias"] = k, u, bias
		}
		part(r.Weights, weights, false)
		part(r.Gradients, grads, true)
	}
	if len(weights) != len(m.Params()) {
		t.Fatalf("%d weights for %d parameters", len(weights), len(m.Params()))
	}
	for _, p := range m.Params() {
		w := weights[p.Name]
		if w == nil {
			t.Fatalf("the file has no %s", p.Name)
		}
		if err := m.state.Set(p.Name, w); err != nil {
			t.Fatal(err)
		}
	}
	y, err := m.PredictBatch(xs...)
	if err != nil {
		t.Fatal(err)
	}
	// The others computed in float64 on the same f32 numbers; f32 arithmetic of two layers of some tens of terms differs by some 1e-6 of the greatest value.
	const tol = 2e-5
	if err := farthest(y, c.Output.Tensor(dtype.F32), tol); err != nil {
		t.Errorf("output: %v", err)
	}
	for i, d := range c.gradients(t, m, xs, ys) {
		if err := farthest(d, grads[m.params[i].Name], tol); err != nil {
			t.Errorf("gradient of %s: %v", m.params[i].Name, err)
		}
	}
	for i, want := range c.Losses {
		loss, err := m.Step(xs, ys, 0.05)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(loss-want) > 2e-5*want {
			t.Errorf("loss of step %d: %.7g, want %.7g", i+1, loss, want)
		}
	}
	if c.Losses[9] >= c.Losses[0] {
		t.Errorf("the losses %v do not fall", c.Losses)
	}
}

// farthest compares with the greatest magnitude of what is wanted.
func farthest(got, want *tensor.Tensor, tol float64) error {
	if want == nil || !got.Shape().Equal(want.Shape()) {
		return fmt.Errorf("is %v, want %v", got.Shape(), want)
	}
	scale := 1e-3
	for i := range want.Len() {
		scale = max(scale, math.Abs(want.At(i)))
	}
	for i := range want.Len() {
		if d := math.Abs(got.At(i) - want.At(i)); !(d <= tol*scale) {
			return fmt.Errorf("element %d is %.8g, want %.8g (greatest %.3g)", i, got.At(i), want.At(i), scale)
		}
	}
	return nil
}

// gradients are those of the loss for all parameters.
func (c goldenModel) gradients(t *testing.T, m *Model, xs, ys []*tensor.Tensor) []*tensor.Tensor {
	g, err := graph.Build(func(g *graph.Graph) {
		call := &nn.Call{G: g}
		var in []*graph.Node
		for i, x := range xs {
			in = append(in, g.Input(fmt.Sprint("x", i), graph.TypeOf(x)))
		}
		pred := m.Net.Call(call, in)[0]
		loss := op.MeanAll(m.loss.each(pred, g.Input("y", graph.TypeOf(ys[0]))))
		var ws []*graph.Node
		for _, p := range call.Params {
			ws = append(ws, g.Variable(p.Name, p.Type))
		}
		for i, d := range grad.Of(loss, ws...) {
			g.Output(call.Params[i].Name, d)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.backend.Compile(g, m.state, backend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	out := backend.NewOutputs(g)
	if err := e.Run(append(append([]*tensor.Tensor{}, xs...), ys...), out); err != nil {
		t.Fatal(err)
	}
	return out
}
