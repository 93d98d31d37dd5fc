package op

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
)

// RegionOp is a piece of a graph as one node: elementwise work that a backend runs block by block, so that what lies between never
// reaches memory. Pass regions makes it.
var RegionOp *graph.Op

// RegionAttrs are the attributes of RegionOp. The node's operands are the body's inputs, its results the body's outputs, all of one shape;
// operands may be smaller where the body broadcasts them.
type RegionAttrs struct {
	Body *graph.Graph `json:"-"`
}

func init() {
	body, err := graph.Build(func(g *graph.Graph) {
		x, row, s := g.Input("x", f32(6, 35)), g.Input("row", f32(35)), g.Input("s", f32())
		y := Tanh(Add(Mul(x, row), s))
		g.Output("y", y)
		g.Output("mask", Gt(y, x))
		g.Output("z", Exp(Sub(y, x)))
	})
	if err != nil {
		panic(err)
	}
	RegionOp = add(def[RegionAttrs]{
		Name: "region", Doc: "a fused piece of elementwise work", Kind: graph.Elementwise,
		Infer: func(a RegionAttrs, in []typ) ([]typ, error) {
			if a.Body == nil {
				return nil, fmt.Errorf("has no body")
			}
			if err := operands(in, len(a.Body.Inputs())); err != nil {
				return nil, err
			}
			for i, x := range a.Body.Inputs() {
				if !x.Type().Equal(in[i]) {
					return nil, fmt.Errorf("operand %d is %v where the body takes %v", i, in[i], x.Type())
				}
			}
			var out []typ
			for _, o := range a.Body.Outputs() {
				out = append(out, o.Node.Type())
			}
			return out, nil
		},
		Decompose: func(a RegionAttrs, in []*node) []*node {
			bind := map[int]*node{}
			for i, x := range a.Body.Inputs() {
				bind[x.ID()] = in[i]
			}
			m := graph.Inline(in[0].Graph(), a.Body, bind, nil)
			var out []*node
			for _, o := range a.Body.Outputs() {
				out = append(out, m[o.Node.ID()])
			}
			return out
		},
		FLOPs: func(a RegionAttrs, _, _ []typ) int64 {
			var sum int64
			for _, n := range a.Body.Nodes() {
				if n.Op().Kind == graph.Elementwise {
					sum += int64(n.Shape().Size())
				}
			}
			return sum
		},
		Samples: []graph.Sample{{Name: "chain", Attrs: RegionAttrs{body}, In: types(f32(6, 35), f32(35), f32()), NoGrad: true},
			{Name: "operand", Attrs: RegionAttrs{body}, In: types(f32(6, 35), graph.T(dtype.F64, 35), f32()), Bad: "where the body takes"}},
	})
}

// Graphs lets a printed graph show the body.
func (a RegionAttrs) Graphs() []*graph.Graph { return []*graph.Graph{a.Body} }

// SetGraphs lets a parsed graph give the body.
func (a *RegionAttrs) SetGraphs(gs []*graph.Graph) {
	if len(gs) == 1 {
		a.Body = gs[0]
	}
}
