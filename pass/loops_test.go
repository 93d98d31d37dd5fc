package pass_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/pass"
)

// scanned is a recurrence with its gradients for h, w and, if all is set, x; a second state and stacked results that only some want.
func scanned(t *testing.T, all bool) *graph.Graph {
	t.Helper()
	g, err := graph.Build(func(g *graph.Graph) {
		h, n := g.Input("h", graph.T(dtype.F64, 2, 3)), g.Input("n", graph.T(dtype.F64, 4))
		x, w := g.Input("x", graph.T(dtype.F64, 5, 2, 3)), g.Input("w", graph.T(dtype.F64, 3, 3))
		unused := g.Input("unused", graph.T(dtype.F64, 7))
		last, ys := op.Scan([]*graph.Node{h, n}, []*graph.Node{x}, []*graph.Node{w, unused}, false, func(s, x, c []*graph.Node) (next, ys []*graph.Node) {
			h := op.Tanh(op.Add(x[0], op.MatMul(s[0], c[0])))
			return []*graph.Node{h, op.Exp(op.Mul(s[1], op.Sum(c[1], 0)))}, []*graph.Node{op.Mul(h, h), op.Sin(s[1])}
		})
		loss := op.Add(op.SumAll(last[0]), op.SumAll(ys[0]))
		if all {
			loss = op.Add(loss, op.Add(op.SumAll(last[1]), op.SumAll(ys[1])))
		}
		g.Output("loss", loss)
		wrt := []*graph.Node{h, w}
		if all {
			wrt = append(wrt, x, n, unused)
		}
		for i, d := range grad.Of(loss, wrt...) {
			g.Output(string(rune('a'+i)), d)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func loopsOf(g *graph.Graph) []op.LoopAttrs {
	var out []op.LoopAttrs
	live := g.Live()
	for _, n := range g.Nodes() {
		if n.Op() == op.LoopOp && live[n.ID()] {
			out = append(out, n.Attrs().(op.LoopAttrs))
		}
	}
	return out
}

// The forward loop and the one that its gradient needs become one; what nobody wants of the two that remain is gone, and results are the same.
func TestLoops(t *testing.T) {
	for _, all := range []bool{false, true} {
		g := scanned(t, all)
		if n := len(loopsOf(g)); n != 3 {
			t.Fatalf("%d loops before; want the loop, the one that saves, and the gradient's", n)
		}
		opt, err := pass.Loops(g)
		if err != nil {
			t.Fatal(err)
		}
		ls := loopsOf(opt)
		if len(ls) != 2 || !ls[0].Save || ls[1].Save || !ls[1].Reverse {
			t.Fatalf("%d loops remain:\n%s", len(ls), graph.Print(opt))
		}
		text := graph.Print(opt)
		if want := all; strings.Contains(text, "exp(") != want || strings.Contains(text, "sin(") != want || strings.Contains(text, "cos(") != want {
			t.Errorf("all=%v: the second state and what is made of it should be there only if wanted:\n%s", all, text)
		}
		if want := map[bool]int{false: 1, true: 2}[all]; ls[0].Carried != want {
			t.Errorf("all=%v: the loop carries %d values", all, ls[0].Carried)
		}
		a, b := run(t, g), run(t, opt)
		for i := range a {
			if err := backendtest.Close(b[i], a[i], 1e-12); err != nil {
				t.Errorf("all=%v, output %s: %v", all, g.Outputs()[i].Name, err)
			}
		}
	}
}

// A loop that needs all that it has stays the same node; one whose state nobody reads keeps one, since a loop has a state.
func TestLoopsStay(t *testing.T) {
	g, err := graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.T(dtype.F32, 4, 3))
		_, ys := op.Scan([]*graph.Node{g.Input("s", graph.T(dtype.F32)), g.Input("r", graph.T(dtype.F32))}, []*graph.Node{x}, nil, false, func(s, x, _ []*graph.Node) (next, ys []*graph.Node) {
			return s, []*graph.Node{op.Neg(x[0])}
		})
		g.Output("y", ys[0])
	})
	if err != nil {
		t.Fatal(err)
	}
	once, err := pass.Loops(g)
	if err != nil {
		t.Fatal(err)
	}
	if ls := loopsOf(once); len(ls) != 1 || ls[0].Carried != 1 {
		t.Fatalf("want one loop with one state:\n%s", graph.Print(once))
	}
	twice, err := pass.Loops(once)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := loopsOf(once), loopsOf(twice); len(b) != 1 || a[0] != b[0] {
		t.Errorf("a second time changes:\n%s\n%s", graph.Print(once), graph.Print(twice))
	}
	if a, b := run(t, g), run(t, twice); !slices.Equal(a[0].F32(), b[0].F32()) {
		t.Errorf("%v, want %v", b[0], a[0])
	}
}
