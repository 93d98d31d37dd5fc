package pass_test

import (
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/pass"
)

// Two regions of different shapes, each of which alone could be one node, must not need each other's results.
func TestRegionsDoNotWaitForEachOther(t *testing.T) {
	g, err := graph.Build(func(g *graph.Graph) {
		x, z := g.Input("x", graph.T(dtype.F32, 3)), g.Input("z", graph.T(dtype.F32, 2, 3))
		a1 := op.Neg(x)
		b2 := op.Exp(z)
		b1 := op.Exp(op.BroadcastTo(a1, 2, 3)) // from the first region into the second
		g.Output("b3", op.Mul(b1, b2))
		a2 := op.Neg(op.Sum(b2, 0)) // and back, from another member of the second
		g.Output("a3", op.Add(a1, a2))
	})
	if err != nil {
		t.Fatal(err)
	}
	h, err := pass.Apply(g, pass.Pass{Name: "regions", Run: pass.Regions})
	if err != nil {
		t.Fatal(err)
	}
	same(t, run(t, h), run(t, g))
}
