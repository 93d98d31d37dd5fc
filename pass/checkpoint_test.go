package pass_test

import (
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/pass"
	"github.com/jouleml/joule/tensor"
)

// The backward pass reads nothing that was made inside of a segment: it has copies, which read what enters. What leaves the segment, and other layers, stay as they are; cse leaves the copies
// alone, and at the end no mark is left.
func TestCheckpoint(t *testing.T) {
	g, err := graph.Build(func(g *graph.Graph) {
		x, w, v := g.Input("x", graph.T(dtype.F32, 6, 4)), g.Variable("w", graph.T(dtype.F32, 4, 5)), g.Variable("v", graph.T(dtype.F32, 5, 3))
		var inside, h, y *graph.Node
		g.In("block", func() {
			g.In("first", func() { inside = op.Tanh(op.MatMul(x, w)) })
			h = op.Exp(inside) // leaves the segment, and is read by its own gradient
		})
		g.In("head", func() { y = op.Tanh(op.MatMul(h, v)) })
		loss := op.MeanAll(op.Mul(y, y))
		g.Output("loss", loss)
		for i, d := range grad.Of(loss, w, v) {
			g.Output([]string{"dw", "dv"}[i], d)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := pass.Checkpoint(g, func(scope string) string {
		if scope == "block" || scope == "block/first" {
			return "block"
		}
		return ""
	})
	if err != nil {
		t.Fatal(err)
	}
	count := func(g *graph.Graph, o *graph.Op, scope string, p graph.Phase) (n int) {
		for _, x := range g.Nodes() {
			if x.Op() == o && x.Scope() == scope && x.Phase() == p {
				n++
			}
		}
		return n
	}
	marks := func(g *graph.Graph) (n int) {
		for _, x := range g.Nodes() {
			if x.Op() == op.AgainOp {
				n++
			}
		}
		return n
	}
	if out, err = pass.Apply(out, pass.Standard...); err != nil {
		t.Fatal(err)
	}
	if n := count(out, op.TanhOp, "block/first", graph.Backward); n != 1 {
		t.Errorf("the tanh inside is computed %d times again", n)
	}
	if a, b := count(out, op.ExpOp, "block", graph.Backward), count(out, op.TanhOp, "head", graph.Backward); a != 0 || b != 0 {
		t.Errorf("what leaves the segment is computed again %d times, another layer %d times", a, b)
	}
	if marks(out) != 1 {
		t.Errorf("%d marks, one value enters", marks(out))
	}
	for _, n := range out.Nodes() {
		for _, x := range n.Inputs() {
			if n.Phase() == graph.Backward && x.Phase() == graph.Forward && x.Scope() == "block/first" && x.Op() != graph.OpVariable {
				t.Errorf("%v of the backward pass reads %v", n, x)
			}
		}
	}
	last, err := pass.Unmark(out)
	if err != nil {
		t.Fatal(err)
	}
	if marks(last) != 0 {
		t.Error("a mark is left")
	}
	// All three compute the same.
	in := tensor.New(dtype.F32, 6, 4)
	for i := range in.Len() {
		in.Set(i, float64(i%7)/7-0.4)
	}
	var want []*tensor.Tensor
	for _, x := range []*graph.Graph{g, out, last} {
		st, err := ref.Backend{}.NewState([]backend.Var{{Name: "w", Type: graph.T(dtype.F32, 4, 5)}, {Name: "v", Type: graph.T(dtype.F32, 5, 3)}})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range st.Vars() {
			w := tensor.New(v.Type.DType, v.Type.Shape...)
			for i := range w.Len() {
				w.Set(i, float64(i%5)/5-0.3)
			}
			if err := st.Set(v.Name, w); err != nil {
				t.Fatal(err)
			}
		}
		e, err := ref.Backend{}.Compile(x, st, backend.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := backend.NewOutputs(x)
		if err := e.Run([]*tensor.Tensor{in}, got); err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		}
		for i := range got {
			if err := backendtest.Close(got[i], want[i], 1e-6); err != nil {
				t.Error(err)
			}
		}
	}
}
