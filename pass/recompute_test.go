package pass_test

import (
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/pass"
)

// The gradient of GELU between two products reads the first product and the gradient that arrives, nothing that the forward pass has made besides.
func TestRecompute(t *testing.T) {
	g, err := graph.Build(func(g *graph.Graph) {
		x, w, v := g.Input("x", graph.T(dtype.F32, 64, 32)), g.Variable("w", graph.T(dtype.F32, 32, 48)), g.Variable("v", graph.T(dtype.F32, 48, 8))
		y := op.MatMul(op.Gelu(op.MatMul(x, w), false), v)
		loss := op.MeanAll(op.Mul(y, y))
		g.Output("loss", loss)
		for i, d := range grad.Of(loss, w, v) {
			g.Output([]string{"dw", "dv"}[i], d)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	expand := pass.Pass{Name: "expand", Run: func(g *graph.Graph) (*graph.Graph, error) {
		return graph.Rewrite(g, func(to *graph.Graph, n *graph.Node, in []*graph.Node) *graph.Node {
			if n.Op() == op.GeluOp {
				return graph.Tuple(to, n.Op().Decompose(n.Attrs(), in))
			}
			return nil
		})
	}}
	count := func(passes ...pass.Pass) (arrays int) {
		out, err := pass.Apply(g, append([]pass.Pass{expand, {Name: "cse", Run: pass.CSE}}, append(passes, pass.Pass{Name: "regions", Run: pass.Regions})...)...)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range out.Nodes() {
			if n.Op() != op.RegionOp || n.Phase() != graph.Backward || n.Types()[0].Shape.Size() != 64*48 {
				continue
			}
			for _, x := range n.Inputs() {
				if x.Shape().Size() == 64*48 {
					arrays++
				}
			}
		}
		return arrays
	}
	before, after := count(), count(pass.Pass{Name: "recompute", Run: pass.Recompute})
	if after != 2 || before <= after {
		t.Errorf("the gradient of GELU reads %d arrays, without Recompute %d; it should read 2", after, before)
	}
}
