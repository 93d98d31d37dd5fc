package graph

import (
	"fmt"

	"github.com/jouleml/joule/stablehlo"
)

// Lower writes the live nodes of g as StableHLO: each by its op's Lower, or through its composition. vals holds the values of nodes, by ID; those of inputs and variables must be there, and the others
// are filled in.
func Lower(b *stablehlo.Builder, g *Graph, vals [][]stablehlo.Value) (err error) {
	defer catch(&err)
	return lower(b, g, vals)
}

// LowerBody writes a body, such as that of a loop, for given values of its inputs, and gives those of its outputs. It is for ops' Lower: what goes wrong panics as builders do.
func LowerBody(b *stablehlo.Builder, body *Graph, in []stablehlo.Value) []stablehlo.Value {
	out, err := lowerBody(b, body, in)
	if err != nil {
		panic(&Error{Op: "body", Rule: err.Error()})
	}
	return out
}

func lowerBody(b *stablehlo.Builder, body *Graph, in []stablehlo.Value) ([]stablehlo.Value, error) {
	vals := make([][]stablehlo.Value, len(body.nodes))
	for i, n := range body.inputs {
		vals[n.id] = in[i : i+1]
	}
	if err := lower(b, body, vals); err != nil {
		return nil, err
	}
	out := make([]stablehlo.Value, len(body.outputs))
	for i, o := range body.outputs {
		out[i] = vals[o.Node.id][0]
	}
	return out, nil
}

// lower writes the live nodes of g that have no values yet.
func lower(b *stablehlo.Builder, g *Graph, vals [][]stablehlo.Value) error {
	live := g.Live()
	for _, n := range g.Nodes() {
		if vals[n.ID()] != nil || !live[n.ID()] {
			continue
		}
		switch n.Op() {
		case OpConst:
			vals[n.ID()] = []stablehlo.Value{b.Tensor(ConstOf(n))}
			continue
		case OpPart:
			k := n.Attrs().(PartAttrs).Index
			vals[n.ID()] = vals[n.Input(0).ID()][k : k+1]
			continue
		}
		in := make([]stablehlo.Value, len(n.Inputs()))
		for i, x := range n.Inputs() {
			in[i] = vals[x.ID()][0]
		}
		out, err := lowerNode(b, n, in)
		if err != nil {
			return err
		}
		vals[n.ID()] = out
	}
	return nil
}

// lowerNode writes one node: by its rule, or by its composition.
func lowerNode(b *stablehlo.Builder, n *Node, in []stablehlo.Value) ([]stablehlo.Value, error) {
	o := n.Op()
	switch {
	case o.Lower != nil:
		return o.Lower(n.Attrs(), b, in, n.Types()), nil
	case o.Decompose == nil:
		why := o.NoLower
		if why == "" {
			why = "its definition has neither Lower nor Decompose"
		}
		return nil, fmt.Errorf("op %s of layer %q has no StableHLO: %s", o.Name, n.Scope(), why)
	}
	g, err := Build(func(g *Graph) {
		xs := make([]*Node, len(in))
		for i, x := range n.Inputs() {
			xs[i] = g.Input(fmt.Sprint("x", i), x.Type())
		}
		if len(xs) == 0 {
			g.Fail(o.Name, nil, "an op without operands cannot be composed")
		}
		for i, y := range o.Decompose(n.Attrs(), xs) {
			g.Output(fmt.Sprint("y", i), y)
		}
	})
	if err != nil {
		return nil, err
	}
	return lowerBody(b, g, in)
}
