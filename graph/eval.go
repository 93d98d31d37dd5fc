package graph

import "fmt"

// Cost is the arithmetic that one run of the node asks for, and the bytes it moves: as its op counts them, else one operation for each element of the results (none for Leaf and
// Movement), and operands and results once.
func (n *Node) Cost() (flops, read, written int64) {
	o := n.op
	if o.Kind == Leaf {
		return 0, 0, 0
	}
	in := make([]Type, len(n.in))
	for i, x := range n.in {
		in[i] = x.Type()
	}
	switch {
	case o.FLOPs != nil:
		flops = o.FLOPs(n.attrs, in, n.out)
	case o.Kind != Movement:
		for _, t := range n.out {
			flops += int64(t.Shape.Size())
		}
	}
	if o.Bytes != nil {
		read, written = o.Bytes(n.attrs, in, n.out)
		return flops, read, written
	}
	for _, t := range in {
		read += int64(t.Bytes())
	}
	for _, t := range n.out {
		written += int64(t.Bytes())
	}
	return flops, read, written
}

// Cost is the sum over the live nodes.
func (g *Graph) Cost() (flops, read, written int64) {
	live := g.Live()
	for _, n := range g.nodes {
		if live[n.id] {
			f, r, w := n.Cost()
			flops, read, written = flops+f, read+r, written+w
		}
	}
	return flops, read, written
}

// Expand replaces ops that have no reference by their decompositions, until none is left.
func Expand(g *Graph) (*Graph, error) {
	for {
		again := false
		out, err := Rewrite(g, func(to *Graph, n *Node, in []*Node) *Node {
			if n.op.Ref == nil && n.op.Decompose != nil {
				again = true
				return Tuple(to, n.op.Decompose(n.attrs, in))
			}
			return nil
		})
		if err != nil || !again {
			return out, err
		}
		g = out
	}
}

// Eval computes the outputs of a graph without variables, as Expand gives it, on the references of its ops.
func Eval(g *Graph, in []Value) []Value {
	vals := make([][]Value, len(g.nodes))
	for i, n := range g.inputs {
		vals[n.id] = in[i : i+1]
	}
	live := g.Live()
	for i, n := range g.nodes {
		switch {
		case !live[i] || n.op == OpInput:
		case n.op == OpConst:
			c := ConstOf(n)
			vals[i] = []Value{{TypeOf(c), c.Floats()}}
		case n.op == OpPart:
			k := n.attrs.(PartAttrs).Index
			vals[i] = vals[n.in[0].id][k : k+1]
		default:
			args := make([]Value, len(n.in))
			for j, x := range n.in {
				args[j] = vals[x.id][0]
			}
			vals[i] = EvalNode(n, args)
		}
	}
	out := make([]Value, len(g.outputs))
	for i, o := range g.outputs {
		out[i] = vals[o.Node.id][0]
	}
	return out
}

// EvalNode computes one node from the values of its operands.
func EvalNode(n *Node, in []Value) []Value {
	if n.op.Ref == nil {
		panic(fmt.Sprintf("graph: op %s has no reference", n.op.Name)) // Expand has not been there, or the op's literal lacks both
	}
	out := make([]Value, len(n.out))
	for i, t := range n.out {
		out[i] = Value{Type: t, Data: make([]float64, t.Shape.Size())}
	}
	n.op.Ref(n.attrs, in, out)
	return out
}
