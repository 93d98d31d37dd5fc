package op_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// The root of 2 by Newton's method, to where a step changes less than a thousandth.
func ExampleWhile() {
	g, err := graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.T(dtype.F64))
		change, steps := op.Scalar(g, dtype.F64, 1), op.Scalar(g, dtype.I32, 0)
		last := op.While(50, []*graph.Node{op.Like(x, 1), change, steps}, []*graph.Node{x},
			func(s, _ []*graph.Node) *graph.Node { return op.Gt(op.Abs(s[1]), op.Like(s[1], 1e-3)) },
			func(s, c []*graph.Node) []*graph.Node {
				next := op.Mul(op.Add(s[0], op.Div(c[0], s[0])), op.Like(s[0], 0.5))
				return []*graph.Node{next, op.Sub(next, s[0]), op.Add(s[2], op.Like(s[2], 1))}
			})
		g.Output("root", last[0])
		g.Output("steps", last[2])
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	st, _ := ref.Backend{}.NewState(nil)
	e, err := ref.Backend{}.Compile(g, st, backend.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	out := backend.NewOutputs(g)
	if err := e.Run([]*tensor.Tensor{tensor.Scalar(2.0)}, out); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.6f after %v steps\n", out[0].At(0), out[1].At(0))
	// Output: 1.414214 after 4 steps
}

// Wrong bodies are refused with what is wrong, and no panic gets out of Build.
func TestLoopErrors(t *testing.T) {
	state := func(s []*graph.Node) []*graph.Node { return s }
	for want, build := range map[string]func(g *graph.Graph, x *graph.Node){
		"it must keep its type": func(g *graph.Graph, x *graph.Node) {
			op.Repeat(2, []*graph.Node{x}, nil, func(s, _ []*graph.Node) []*graph.Node { return []*graph.Node{op.SumAll(s[0])} })
		},
		"belongs to another graph": func(g *graph.Graph, x *graph.Node) {
			op.Repeat(2, []*graph.Node{x}, nil, func(s, _ []*graph.Node) []*graph.Node { return []*graph.Node{op.Add(s[0], x)} })
		},
		"has variables": func(g *graph.Graph, x *graph.Node) {
			op.Repeat(2, []*graph.Node{x}, nil, func(s, _ []*graph.Node) []*graph.Node {
				return []*graph.Node{op.Add(s[0], s[0].Graph().Variable("v", x.Type()))}
			})
		},
		"one bool scalar": func(g *graph.Graph, x *graph.Node) {
			op.While(2, []*graph.Node{x}, nil, func(s, _ []*graph.Node) *graph.Node { return op.Gt(s[0], s[0]) }, func(s, _ []*graph.Node) []*graph.Node { return state(s) })
		},
		"has no state":     func(g *graph.Graph, x *graph.Node) { op.Repeat(2, nil, []*graph.Node{x}, nil) },
		"needs a sequence": func(g *graph.Graph, x *graph.Node) { op.Scan([]*graph.Node{x}, nil, nil, false, nil) },
		"steps that is not negative": func(g *graph.Graph, x *graph.Node) {
			op.Repeat(-1, []*graph.Node{x}, nil, func(s, _ []*graph.Node) []*graph.Node { return state(s) })
		},
	} {
		_, err := graph.Build(func(g *graph.Graph) { build(g, g.Input("x", graph.T(dtype.F32, 3))) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// Bodies are drawn, too.
func TestLoopDOT(t *testing.T) {
	for _, s := range op.LoopOp.Samples {
		if s.Name != "while" {
			continue
		}
		g, err := graph.Build(func(g *graph.Graph) {
			var in []*graph.Node
			for i, ty := range s.In {
				in = append(in, g.Input(fmt.Sprint("x", i), ty))
			}
			g.Output("y", g.Apply(op.LoopOp, s.Attrs, in...).Part(0))
		})
		if err != nil {
			t.Fatal(err)
		}
		dot := graph.DOT(g)
		for _, want := range []string{"subgraph cluster_", "body 0 of %3 loop", "body 1 of %3 loop", "exp", "lt"} {
			if !strings.Contains(dot, want) {
				t.Errorf("the drawing lacks %q:\n%s", want, dot)
			}
		}
	}
}
