package pass

import (
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// ConvPool makes the pass that fuses a convolution, its bias, a rectifier and a max pooling into conv_pool, and their gradients
// into conv_pool_filter_grad and conv_pool_input_grad, where ok says that a kernel takes images x and filters w.
//
//	y  = max_pool(relu(conv(x, w) + b))
//	g  = relu_grad(r, max_pool_grad(r, dy)),  r the rectified sum
//	dw = conv_filter_grad(x, g),  db = reduce_sum(g),  dx = conv_input_grad(g, w)
//
// It asks that nothing else reads what lies between.
func ConvPool(ok func(a op.ConvPoolAttrs, x, w graph.Type) bool) func(g *graph.Graph) (*graph.Graph, error) {
	return func(g *graph.Graph) (*graph.Graph, error) {
		f := newFuser(g)
		at := map[*graph.Node]*convPool{} // by node that the pattern replaces
		for _, n := range g.Nodes() {
			if f.live[n.ID()] && n.Op() == op.MaxPoolOp {
				if c := f.convPool(n, ok); c != nil {
					at[c.pooled] = c
					for _, m := range []*graph.Node{c.dw, c.db, c.dx} {
						if m != nil {
							at[m] = c
						}
					}
				}
			}
		}
		return rewrite(g, func(to *graph.Graph, n *graph.Node, m map[*graph.Node]*graph.Node) *graph.Node {
			c := at[n]
			if c == nil {
				return nil
			}
			a := c.attrs
			switch n {
			case c.pooled:
				to.As(c.conv, n.Phase(), func() { // nearly all of it is the convolution's work, whose layer an account names
					c.fused = to.Apply(op.ConvPoolOp, a, m[c.conv.Input(0)], m[c.conv.Input(1)], m[c.bias])
				})
				return c.fused.Part(0)
			case c.dx:
				a.Conv.In = n.Attrs().(op.ConvAttrs).In
				return to.Apply(op.ConvPoolInputGradOp, a, c.fused.Part(1), m[c.dy], m[c.conv.Input(1)])
			}
			if c.filter == nil {
				w := c.conv.Input(1).Shape()
				a.Conv.Kernel = [2]int{w[0], w[1]}
				c.filter = to.Apply(op.ConvPoolFilterGradOp, a, m[c.conv.Input(0)], c.fused.Part(1), m[c.dy])
			}
			if n == c.db {
				return c.filter.Part(1)
			}
			return c.filter.Part(0)
		})
	}
}

// convPool is a match of the pattern in the old graph, and the nodes that replace it in the new one.
type convPool struct {
	attrs              op.ConvPoolAttrs
	conv, bias, pooled *graph.Node
	dy, dw, db, dx     *graph.Node // dy: gradient of the pooled result; nil where there is no backward pass
	fused, filter      *graph.Node
}

// convPool matches the pattern that ends in the pooling p.
func (f *fuser) convPool(p *graph.Node, ok func(a op.ConvPoolAttrs, x, w graph.Type) bool) *convPool {
	r := p.Input(0)
	if r.Op() != op.ReluOp || f.pinned[r] || r.DType() != dtype.F32 {
		return nil
	}
	a := f.affine(r)
	if a == nil || a.product.Op() != op.ConvOp {
		return nil
	}
	c := &convPool{attrs: op.ConvPoolAttrs{Conv: a.product.Attrs().(op.ConvAttrs), Pool: p.Attrs().(op.PoolAttrs)}, conv: a.product, bias: a.bias, pooled: p}
	if !ok(c.attrs, c.conv.Input(0).Type(), c.conv.Input(1).Type()) {
		return nil
	}
	readers := f.readers(r)
	if len(readers) == 1 {
		return c
	}
	// With a backward pass, the rectified sum is read by the pooling, its gradient and the rectifier's.
	var poolGrad, reluGrad *graph.Node
	for _, u := range readers {
		switch {
		case u == p:
		case u.Op() == op.MaxPoolGradOp && u.Input(0) == r:
			poolGrad = u
		case u.Op() == op.ReluGradOp && u.Input(0) == r:
			reluGrad = u
		default:
			return nil
		}
	}
	if poolGrad == nil || reluGrad == nil || reluGrad.Input(1) != poolGrad || f.sole(poolGrad) != reluGrad || f.pinned[reluGrad] {
		return nil
	}
	c.dy = poolGrad.Input(1)
	for _, u := range f.readers(reluGrad) {
		switch {
		case u.Op() == op.ConvFilterGradOp && u.Input(0) == c.conv.Input(0) && u.Input(1) == reluGrad && c.dw == nil:
			c.dw = u
		case u.Op() == op.ConvInputGradOp && u.Input(0) == reluGrad && u.Input(1) == c.conv.Input(1) && c.dx == nil:
			c.dx = u
		case u.Op() == op.SumOp && slices.Equal(u.Attrs().(op.AxesAttrs).Axes, []int{0, 1, 2}) && c.db == nil:
			c.db = u
		default:
			return nil
		}
	}
	return c
}

// readers are the live nodes that read n, each once.
func (f *fuser) readers(n *graph.Node) []*graph.Node {
	var out []*graph.Node
	for _, u := range f.uses[n.ID()] {
		if f.live[u.ID()] && !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	return out
}
