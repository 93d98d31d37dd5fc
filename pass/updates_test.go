package pass_test

import (
	"fmt"
	"testing"

	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/pass"
	"github.com/jouleml/joule/tensor"
)

// Steps with equal constants become one node; one whose result is read within the run, and one of another rule, stay by themselves.
func TestUpdates(t *testing.T) {
	rate := func(g *graph.Graph, v float64) *graph.Node { return op.Scalar(g, dtype.F32, v) }
	momentum, lion := op.UpdateAttrs{Rule: "sgd", Momentum: 0.9}, op.UpdateAttrs{Rule: "lion", Beta1: 0.9, Beta2: 0.99}
	g, err := graph.Build(func(g *graph.Graph) {
		step := func(a op.UpdateAttrs, name string, dims ...int) (w, next *graph.Node) {
			w = g.Variable(name, graph.T(dtype.F32, dims...))
			var slots []*graph.Node
			for i := range a.Slots() {
				slots = append(slots, g.Variable(fmt.Sprint(name, i), w.Type()))
			}
			next, after := op.Update(a, w, op.Tanh(w), slots, rate(g, 0.1*float64(len(g.Updates())+1)), rate(g, 0.01), rate(g, 0.5))
			g.Update(w, next)
			for i, s := range slots {
				g.Update(s, after[i])
			}
			return w, next
		}
		step(momentum, "a", 3, 4)
		step(momentum, "b", 5)
		step(momentum, "c")
		step(lion, "d", 7)
		_, e := step(momentum, "e", 6) // read below
		step(op.UpdateAttrs{Rule: "sgd"}, "f", 2)
		step(op.UpdateAttrs{Rule: "sgd"}, "g", 3)
		g.Output("e", op.SumAll(e))
		g.Output("a", op.Neg(g.Variable("a", graph.T(dtype.F32, 3, 4)))) // the old value
	})
	if err != nil {
		t.Fatal(err)
	}
	h, err := pass.Updates(g)
	if err != nil {
		t.Fatal(err)
	}
	if n := count(h)[op.UpdateOp]; n != 4 { // a b c; d; e; f g
		t.Errorf("%d nodes of steps, want 4\n%s", n, graph.Print(h))
	}
	var got [2][]*tensor.Tensor
	for i, g := range []*graph.Graph{g, h} {
		out, left := runs(t, g, 2, func(i, j int) float64 { return float64((j*5+i*3)%7-3) / 8 })
		got[i] = append(out, left...)
	}
	for i := range got[0] {
		if err := backendtest.Close(got[1][i], got[0][i], 0); err != nil {
			t.Errorf("result %d: %v", i, err)
		}
	}
}
