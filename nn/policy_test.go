package nn

import (
	"math"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// mixedStep is a loss of a model with products of every kind that the policy changes, and its gradients for all parameters.
func mixedStep(p Policy) (*graph.Graph, error) {
	m := Sequential(Dense(24, ReLU), TransformerBlock(2, CausalAttention()), GRU(16, ReturnSequences()), GRU(12, ResetBefore(), ReturnSequences()), LSTM(11, ReturnSequences()), Dense(20, GELU), Dense(5))
	return graph.Build(func(g *graph.Graph) {
		c := &Call{G: g, Policy: p}
		y := m.Call(c, []*graph.Node{g.Input("x", graph.T(dtype.F32, 3, 8, 10))})[0]
		if y.DType() != dtype.F32 {
			g.Fail("model", nil, "outputs are %v, not f32", y.DType())
		}
		loss := op.MeanAll(op.Mul(y, y))
		g.Output("loss", loss)
		var ws []*graph.Node
		for _, p := range c.Params {
			ws = append(ws, g.Variable(p.Name, p.Type))
		}
		for i, d := range grad.Of(loss, ws...) {
			g.Output("d "+c.Params[i].Name, d)
		}
	})
}

func runStep(t *testing.T, b backend.Backend, p Policy) []*tensor.Tensor {
	t.Helper()
	g, err := mixedStep(p)
	if err != nil {
		t.Fatal(err)
	}
	var vars []backend.Var
	var types []graph.Type
	for _, v := range g.Variables() {
		vars, types = append(vars, backend.Var{Name: graph.NameOf(v), Type: v.Type()}), append(types, v.Type())
	}
	st, err := b.NewState(vars)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range backendtest.Operands(graph.Sample{In: types, Lo: -0.3, Hi: 0.3}, 4) {
		if err := st.Set(vars[i].Name, w); err != nil {
			t.Fatal(err)
		}
	}
	e, err := b.Compile(g, st, backend.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	out := backend.NewOutputs(g)
	if err := e.Run(backendtest.Operands(graph.Sample{In: []graph.Type{g.Inputs()[0].Type()}}, 2), out); err != nil {
		t.Fatal(err)
	}
	return out
}

// Loss and gradients of a mixed model are near those in f32, on the CPU and on the reference, and differ from them: bf16 has 8 bits of significand, so a rounded value is off by up to 2⁻⁹.
func TestMixedGradients(t *testing.T) {
	want := runStep(t, ref.Backend{}, Float32)
	norm := func(x *tensor.Tensor) float64 {
		s := 0.0
		for j := range x.Len() {
			s += x.At(j) * x.At(j)
		}
		return math.Sqrt(s)
	}
	greatest := 0.0
	for _, w := range want {
		greatest = max(greatest, norm(w))
	}
	for _, b := range []backend.Backend{ref.Backend{}, cpu.Backend{}} {
		got := runStep(t, b, MixedBFloat16)
		same := true
		for i := range want {
			var diff float64
			for j := range want[i].Len() {
				d := got[i].At(j) - want[i].At(j)
				diff += d * d
				same = same && d == 0
			}
			// The norm of the error, of some ten roundings one after another. A gradient that is small because terms cancel (that of a bias of keys is zero) has the error of the terms.
			if e := math.Sqrt(diff) / max(norm(want[i]), greatest/100); !(e < 10*math.Pow(2, -9)) {
				t.Errorf("%s: output %d of %v is off by %.3g of its norm", b.Name(), i, want[i].Shape(), e)
			}
		}
		if same {
			t.Errorf("%s: the policy changes nothing", b.Name())
		}
	}
}

// The gradients of the weights between states are products of bf16: those of all cells and both forms of a GRU, whose third gate has a product of its own.
func TestMixedRecurrent(t *testing.T) {
	count := func(p Policy) map[string]int {
		g, err := mixedStep(p)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]int{}
		for _, n := range g.Nodes() {
			if n.Op() == op.DotOp && n.Input(0).DType() == dtype.BF16 && n.DType() == dtype.F32 {
				out[n.Shape().String()]++
			}
		}
		return out
	}
	mixed, plain := count(MixedBFloat16), count(Float32)
	if len(plain) > 0 {
		t.Errorf("products of bf16 in f32: %v", plain)
	}
	for _, w := range []string{"[16 48]", "[12 24]", "[12 12]", "[11 44]"} {
		if mixed[w] == 0 {
			t.Errorf("no gradient %s is a product of bf16: %v", w, mixed)
		}
	}
}
