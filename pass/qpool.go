package pass

import (
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// QPool makes a convolution of bytes and the max pooling of 2×2 behind it one node: the greatest sum of four is brought to a byte, not four. Quantized models have factors above 0
// (a scale times a scale), which it needs.
func QPool(g *graph.Graph) (*graph.Graph, error) {
	uses := g.Uses()
	outputs := map[*graph.Node]bool{}
	for _, o := range g.Outputs() {
		outputs[o.Node] = true
	}
	return graph.Rewrite(g, func(to *graph.Graph, n *graph.Node, in []*graph.Node) *graph.Node {
		if n.Op() != op.MaxPoolOp || n.Attrs().(op.PoolAttrs) != (op.PoolAttrs{Window: [2]int{2, 2}, Stride: [2]int{2, 2}}) {
			return nil
		}
		c := n.Input(0)
		if c.Op() != op.QConvOp || len(uses[c.ID()]) != 1 || outputs[c] {
			return nil
		}
		a := c.Attrs().(op.QAttrs)
		if a.Pool || a.Float || a.Conv.Groups > 1 {
			return nil
		}
		a.Pool = true
		var y *graph.Node
		to.As(c, n.Phase(), func() { y = to.Apply(op.QConvOp, a, in[0].Inputs()...) }) // the convolution's layer, whose work nearly all of it is
		return y
	})
}
