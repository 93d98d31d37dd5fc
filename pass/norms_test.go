package pass_test

import (
	"fmt"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/pass"
)

// residual is a stem and two blocks with a way around, normalised and rectified, the second with a normalisation on the way around that is made after the sum's other part; with gradients.
// The statistics are read right behind each normalisation, as the moving averages of a layer are.
func residual(t *testing.T, back bool) *graph.Graph {
	t.Helper()
	g, err := graph.Build(func(g *graph.Graph) {
		image, vector := graph.T(dtype.F32, 2, 3, 3, 4), graph.T(dtype.F32, 4)
		x, w := g.Input("x", image), g.Input("w", graph.T(dtype.F32, 4, 4))
		wrt := []*graph.Node{x, w}
		norm := func(x *graph.Node) *graph.Node {
			i := len(wrt)
			gamma, beta := g.Input(fmt.Sprint("gamma", i), vector), g.Input(fmt.Sprint("beta", i), vector)
			wrt = append(wrt, gamma, beta)
			y, m, v := op.BatchNorm(x, gamma, beta, 1e-3)
			g.Output(fmt.Sprint("mean", i), op.Neg(m))
			g.Output(fmt.Sprint("variance", i), v)
			return y
		}
		mix := func(x *graph.Node) *graph.Node { return op.MatMul(x, w) }
		a := op.Relu(norm(x))
		b := op.Relu(op.Add(norm(mix(op.Relu(norm(mix(a))))), a))
		left := norm(mix(b))
		right := norm(op.Tanh(b))
		c := op.Relu(op.Add(left, right))
		loss := op.MeanAll(op.Mul(c, op.Tanh(c)))
		g.Output("loss", loss)
		if back {
			for i, d := range grad.Of(loss, wrt...) {
				g.Output(fmt.Sprint("d", i), d)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func count(g *graph.Graph) map[*graph.Op]int {
	n, live := map[*graph.Op]int{}, g.Live()
	for _, x := range g.Nodes() {
		if live[x.ID()] {
			n[x.Op()]++
		}
	}
	return n
}

func TestNorms(t *testing.T) {
	for _, back := range []bool{false, true} {
		g := residual(t, back)
		h, err := pass.Norms(g)
		if err != nil {
			t.Fatal(err)
		}
		want := map[*graph.Op]int{op.BatchNormReluOp: 4, op.BatchNormOp: 1, op.ReluOp: 0}
		if back {
			want[op.BatchNormReluGradOp], want[op.BatchNormAddReluGradOp], want[op.BatchNormGradOp], want[op.ReluGradOp] = 2, 2, 1, 0
		}
		got := count(h)
		for o, n := range want {
			if got[o] != n {
				t.Errorf("back=%v: %d nodes of %s, want %d\n%s", back, got[o], o.Name, n, graph.Print(h))
			}
		}
		same(t, run(t, h), run(t, g))
	}
}

// Near misses stay as they are: what lies between is read elsewhere, or what is added depends on the normalisation.
func TestNormsLeaveAlone(t *testing.T) {
	for name, build := range map[string]func(y, m *graph.Node) (*graph.Node, *graph.Node){
		"read elsewhere": func(y, _ *graph.Node) (*graph.Node, *graph.Node) { return op.Relu(y), op.Tanh(y) },
		"sum read":       func(y, _ *graph.Node) (*graph.Node, *graph.Node) { s := op.Add(y, op.Tanh(y)); return op.Relu(s), s },
		"adds its own mean": func(y, m *graph.Node) (*graph.Node, *graph.Node) {
			return op.Relu(op.Add(y, op.BroadcastTo(m, y.Shape()...))), m
		},
		"twice the same": func(y, m *graph.Node) (*graph.Node, *graph.Node) { return op.Relu(op.Add(y, y)), m },
	} {
		g, err := graph.Build(func(g *graph.Graph) {
			x, v := g.Input("x", graph.T(dtype.F32, 6, 4)), graph.T(dtype.F32, 4)
			y, m, _ := op.BatchNorm(x, g.Input("gamma", v), g.Input("beta", v), 1e-3)
			a, b := build(y, m)
			g.Output("a", a)
			g.Output("b", b)
		})
		if err != nil {
			t.Fatal(err)
		}
		h, err := pass.Norms(g)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := count(h)[op.BatchNormReluOp]; n != 0 {
			t.Errorf("%s: fused\n%s", name, graph.Print(h))
		}
		same(t, run(t, h), run(t, g))
	}
}

// A gradient that other nodes read keeps the rectifier's gradient, where nothing is added; the forward pass is fused all the same.
func TestNormsSharedGradient(t *testing.T) {
	g, err := graph.Build(func(g *graph.Graph) {
		x, v, d := g.Input("x", graph.T(dtype.F32, 6, 4)), graph.T(dtype.F32, 4), g.Input("d", graph.T(dtype.F32, 6, 4))
		gamma := g.Input("gamma", v)
		n := g.Apply(op.BatchNormOp, op.NormAttrs{Epsilon: 1e-3}, x, gamma, g.Input("beta", v))
		y := op.Relu(n.Part(0))
		m := op.ReluGrad(y, d)
		b := g.Apply(op.BatchNormGradOp, op.NormAttrs{Epsilon: 1e-3}, x, gamma, n.Part(1), n.Part(2), m)
		g.Output("dx", b.Part(0))
		g.Output("m", m)
	})
	if err != nil {
		t.Fatal(err)
	}
	h, err := pass.Norms(g)
	if err != nil {
		t.Fatal(err)
	}
	if n := count(h); n[op.BatchNormReluOp] != 1 || n[op.BatchNormGradOp] != 1 || n[op.ReluGradOp] != 1 {
		t.Errorf("%s", graph.Print(h))
	}
	same(t, run(t, h), run(t, g))
}
