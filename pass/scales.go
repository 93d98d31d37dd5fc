package pass

import (
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Scales folds what is done to each channel behind a convolution or dense layer into its weights, where these follow from variables that a run does not change (Fixed):
//
//	((x·w + b - m)·f + c)  →  x·(w·f) + ((b - m)·f + c)
//
// A batch normalisation outside training is such a chain, and then costs nothing: what is left on the right follows from variables and is computed once. It asks that nothing else reads
// what lies between.
func Scales(g *graph.Graph) (*graph.Graph, error) {
	f := newFuser(g)
	fixed := Fixed(g)
	at := map[*graph.Node]*channelChain{} // by the last node of a chain
	for _, n := range g.Nodes() {
		if f.live[n.ID()] {
			if c := f.channelChain(n, fixed); c != nil {
				at[n] = c
			}
		}
	}
	// Of a chain within a chain only the whole is folded.
	for _, c := range at {
		for _, s := range c.steps[:len(c.steps)-1] {
			delete(at, s.n)
		}
	}
	return rewrite(g, func(to *graph.Graph, n *graph.Node, m map[*graph.Node]*graph.Node) *graph.Node {
		c := at[n]
		if c == nil {
			return nil
		}
		w := m[c.product.Input(1)]
		channels := w.Shape()[len(w.Shape())-1]
		var scale, offset *graph.Node // [channels]
		for _, s := range c.steps {
			v := m[s.vector]
			if v.Shape().Size() == 1 {
				v = op.BroadcastTo(op.Reshape(v), channels)
			}
			v = op.Reshape(v, channels)
			switch {
			case s.n.Op() == op.AddOp && offset != nil:
				offset = op.Add(offset, v)
			case s.n.Op() == op.AddOp:
				offset = v
			case s.n.Op() == op.SubOp && offset != nil:
				offset = op.Sub(offset, v)
			case s.n.Op() == op.SubOp:
				offset = op.Neg(v)
			default:
				scaled := op.Mul
				if s.n.Op() == op.DivOp {
					scaled = op.Div
				}
				if scale == nil {
					scale = op.BroadcastTo(op.Like(v, 1), channels)
				}
				scale = scaled(scale, v)
				if offset != nil {
					offset = scaled(offset, v)
				}
			}
		}
		y := to.Apply(c.product.Op(), c.product.Attrs(), m[c.product.Input(0)], op.Mul(w, op.BroadcastTo(scale, w.Shape()...)))
		if offset == nil {
			return y
		}
		return op.Add(y, op.BroadcastTo(offset, y.Shape()...))
	})
}

// channelChain is a product and what is done to each of its channels.
type channelChain struct {
	product *graph.Node
	steps   []channelStep
}

// channelStep adds, subtracts, multiplies or divides by a number for each channel, or one for all.
type channelStep struct{ n, vector *graph.Node }

// channelChain matches the chain that ends with n, which must scale somewhere: sums alone are the bias of pass fuse.
func (f *fuser) channelChain(n *graph.Node, fixed []bool) *channelChain {
	c := &channelChain{}
	scales := false
	for {
		if len(n.Types()) != 1 || n.DType() != dtype.F32 {
			return nil
		}
		var x *graph.Node
		switch n.Op() {
		case op.AddOp, op.MulOp, op.SubOp, op.DivOp:
			for i := range 2 {
				if v := perChannel(n.Input(1 - i)); v != nil && fixed[v.ID()] && (i == 0 || n.Op() == op.AddOp || n.Op() == op.MulOp) && !fixed[n.Input(i).ID()] {
					x = n.Input(i)
					c.steps = append(c.steps, channelStep{n, v})
					break
				}
			}
			if x == nil || f.sole(x) != n {
				return nil
			}
			scales = scales || n.Op() == op.MulOp || n.Op() == op.DivOp
			n = x
		case op.ConvOp, op.DotOp:
			if !scales || !fixed[n.Input(1).ID()] || n.Op() == op.DotOp && !matmul(n) {
				return nil
			}
			c.product = n
			slices.Reverse(c.steps)
			return c
		default:
			return nil
		}
	}
}

// perChannel is what a node repeats along all axes but the last, or along all: nil if it is no such broadcast.
func perChannel(n *graph.Node) *graph.Node {
	if n.Op() != op.BroadcastOp || len(n.Shape()) == 0 {
		return nil
	}
	v := n.Input(0)
	if s := v.Shape(); s.Size() == 1 || len(s) > 0 && s[len(s)-1] == s.Size() && s.Size() == n.Shape()[len(n.Shape())-1] {
		return v
	}
	return nil
}
