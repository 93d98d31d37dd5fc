package pass_test

import (
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/pass"
)

// What is done to channels behind a product is folded into its weights, if these and the numbers follow from variables that stay as they are, and if nothing else reads what lies between.
func TestScales(t *testing.T) {
	at := op.ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1}
	vec := graph.T(dtype.F32, 4)
	normal := func(g *graph.Graph, y *graph.Node) *graph.Node { // a normalisation outside training, as a layer makes it
		gamma, beta, mean, variance := g.Variable("gamma", vec), g.Variable("beta", vec), g.Variable("mean", vec), g.Variable("variance", vec)
		return op.Add(op.Mul(op.Sub(y, mean), op.Mul(gamma, op.Rsqrt(op.Add(variance, op.Like(variance, 1e-3))))), beta)
	}
	conv := func(g *graph.Graph) *graph.Node {
		return op.Conv(g.Input("x", graph.T(dtype.F32, 2, 5, 5, 3)), g.Variable("w", graph.T(dtype.F32, 3, 3, 3, 4)), at)
	}
	for _, c := range []struct {
		name  string
		folds bool
		build func(g *graph.Graph)
	}{
		{"convolution", true, func(g *graph.Graph) { g.Output("y", op.Relu(normal(g, conv(g)))) }},
		{"with bias", true, func(g *graph.Graph) { g.Output("y", normal(g, op.Add(conv(g), g.Variable("b", vec)))) }},
		{"dense", true, func(g *graph.Graph) {
			g.Output("y", normal(g, op.MatMul(g.Input("x", graph.T(dtype.F32, 5, 3)), g.Variable("w", graph.T(dtype.F32, 3, 4)))))
		}},
		{"depthwise, divided by a number", true, func(g *graph.Graph) {
			a := at
			a.Groups = 4
			y := op.Conv(g.Input("x", graph.T(dtype.F32, 2, 5, 5, 4)), g.Variable("w", graph.T(dtype.F32, 3, 3, 1, 4)), a)
			g.Output("y", op.Sub(op.Div(y, op.Like(y, 3)), g.Variable("m", vec)))
		}},
		{"a bias alone", false, func(g *graph.Graph) { g.Output("y", op.Add(conv(g), g.Variable("b", vec))) }},
		{"read between", false, func(g *graph.Graph) {
			y := conv(g)
			g.Output("y", normal(g, y))
			g.Output("z", op.Tanh(y))
		}},
		{"weights that change", false, func(g *graph.Graph) {
			y := conv(g)
			w := g.Variable("w", graph.T(dtype.F32, 3, 3, 3, 4))
			g.Update(w, op.Mul(w, op.Like(w, 0.5)))
			g.Output("y", normal(g, y))
		}},
		{"numbers from outside", false, func(g *graph.Graph) { g.Output("y", op.Mul(conv(g), g.Input("v", vec))) }},
		{"a number over y", false, func(g *graph.Graph) { y := conv(g); g.Output("y", op.Div(op.Like(y, 3), op.Add(y, op.Like(y, 30)))) }},
		{"along another axis", false, func(g *graph.Graph) {
			y := conv(g) // [2 3 3 4]
			g.Output("y", op.Mul(y, op.BroadcastTo(op.Reshape(g.Variable("v", graph.T(dtype.F32, 3)), 3, 1), 2, 3, 3, 4)))
		}},
	} {
		g, err := graph.Build(c.build)
		if err != nil {
			t.Fatal(err)
		}
		h, err := pass.Apply(g, pass.Pass{Name: "scales", Run: pass.Scales}, pass.Pass{Name: "fuse", Run: pass.Fuse})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		fixed, folded := pass.Fixed(h), true // folded: nothing of the images' size is multiplied but in the product
		for _, n := range h.Nodes() {
			if h.Live()[n.ID()] && !fixed[n.ID()] && (n.Op() == op.MulOp || n.Op() == op.DivOp) {
				folded = false
			}
		}
		if c.name != "a bias alone" && folded != c.folds {
			t.Errorf("%s: folded %v\n%s", c.name, folded, graph.Print(h))
		}
		same(t, run(t, h), run(t, g))
	}
}
