package pass

import (
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Fuse replaces patterns that have a kernel of their own:
//
//	dot(x [M K], w [K N]) + bias [N], rectified or not → linear
//	conv + bias, rectified or not                      → conv_act
//
// Only values that nothing else reads are swallowed.
func Fuse(g *graph.Graph) (*graph.Graph, error) {
	f := newFuser(g)
	// A match is keyed by the last node of its pattern; what it swallows dies with it.
	match := map[*graph.Node]*affine{}
	for _, n := range g.Nodes() {
		if !f.live[n.ID()] {
			continue
		}
		if a := f.affine(n); a != nil {
			match[n] = a
		}
	}
	return rewrite(g, func(to *graph.Graph, n *graph.Node, m map[*graph.Node]*graph.Node) *graph.Node {
		a := match[n]
		if a == nil {
			return nil
		}
		x, w, b := m[a.product.Input(0)], m[a.product.Input(1)], m[a.bias]
		var y *graph.Node
		to.As(a.product, n.Phase(), func() { // the layer of the product, whose work nearly all of it is
			if a.product.Op() == op.DotOp {
				y = to.Apply(op.LinearOp, op.ActAttrs{Act: a.act}, x, w, b)
				return
			}
			y = to.Apply(op.ConvActOp, op.ConvActAttrs{Conv: a.product.Attrs().(op.ConvAttrs), Act: a.act}, x, w, b)
		})
		return y
	})
}

// rewrite is graph.Rewrite for patterns of several nodes: m has the new nodes of the operands of n and of all nodes before it.
func rewrite(g *graph.Graph, f func(to *graph.Graph, n *graph.Node, m map[*graph.Node]*graph.Node) *graph.Node) (*graph.Graph, error) {
	m := map[*graph.Node]*graph.Node{}
	return graph.Rewrite(g, func(to *graph.Graph, n *graph.Node, in []*graph.Node) *graph.Node {
		for i, x := range n.Inputs() {
			m[x] = in[i]
		}
		return f(to, n, m)
	})
}

type fuser struct {
	uses   [][]*graph.Node
	live   []bool
	pinned map[*graph.Node]bool // read from outside the graph
}

func newFuser(g *graph.Graph) *fuser {
	f := &fuser{uses: g.Uses(), live: g.Live(), pinned: map[*graph.Node]bool{}}
	for _, o := range g.Outputs() {
		f.pinned[o.Node] = true
	}
	for _, u := range g.Updates() {
		f.pinned[u.Value] = true
	}
	return f
}

// sole is the only live reader of n, nil if there is none or more than one.
func (f *fuser) sole(n *graph.Node) *graph.Node {
	if f.pinned[n] {
		return nil
	}
	var one *graph.Node
	for _, u := range f.uses[n.ID()] {
		if !f.live[u.ID()] {
			continue
		}
		if one != nil && one != u {
			return nil
		}
		one = u
	}
	return one
}

// affine is a product plus bias, and its activation.
type affine struct {
	product, bias *graph.Node
	act           string
}

// affine matches the last node of a pattern.
func (f *fuser) affine(n *graph.Node) *affine {
	if n.Op() == op.ReluOp {
		if s := n.Input(0); f.sole(s) == n {
			if a := f.affine(s); a != nil {
				a.act = "relu"
				return a
			}
		}
		return nil
	}
	if n.Op() != op.AddOp || n.DType() != dtype.F32 {
		return nil
	}
	for i := range 2 {
		b, p := n.Input(i), n.Input(1-i)
		if b.Op() != op.BroadcastOp || len(b.Input(0).Shape()) != 1 || f.sole(p) != n {
			continue
		}
		sh := p.Shape()
		if b.Input(0).Shape()[0] != sh[len(sh)-1] {
			continue
		}
		if p.Op() == op.ConvOp || p.Op() == op.DotOp && matmul(p) {
			return &affine{product: p, bias: b.Input(0)}
		}
	}
	return nil
}

// matmul reports whether a dot_general is [M K]·[K N].
func matmul(n *graph.Node) bool {
	a := n.Attrs().(op.DotAttrs)
	return n.Input(0).DType() == dtype.F32 && len(n.Input(0).Shape()) == 2 && len(n.Input(1).Shape()) == 2 && len(a.BatchA) == 0 &&
		len(a.ContractA) == 1 && a.ContractA[0] == 1 && a.ContractB[0] == 0
}
