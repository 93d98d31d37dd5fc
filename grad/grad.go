// Package grad differentiates graphs: the gradient of a scalar is built as more nodes of the same graph, so that it can be
// optimised, priced and differentiated again like any other.
//
// The method is reverse accumulation (Griewank & Walther, Evaluating Derivatives, 2nd ed. 2008, ch. 3): nodes are visited
// from the last to the first, and each sends the gradient of its results to its operands by the rule in its op's literal.
package grad

import (
	"slices"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Of gives d loss / d x for each x in wrt, in the same graph and of x's type. loss must be a float scalar. An x that the loss
// does not depend on gets zeros. It panics with *graph.Error, as builders do, where an op on the way has no gradient.
func Of(loss *graph.Node, wrt ...*graph.Node) []*graph.Node {
	g := loss.Graph()
	if loss.Shape().Rank() != 0 || !loss.DType().IsFloat() {
		g.Fail("gradient", []*graph.Node{loss}, "only a float scalar has a gradient; reduce it with op.SumAll or op.MeanAll")
	}
	var one *graph.Node
	g.As(loss, graph.Backward, func() { one = op.Scalar(g, loss.DType(), 1) })
	return Pull([]*graph.Node{loss}, []*graph.Node{one}, wrt...)
}

// Pull is the vector-Jacobian product: given gradients seeds[i] of values ys[i] it gives those of wrt.
func Pull(ys, seeds []*graph.Node, wrt ...*graph.Node) []*graph.Node {
	g := ys[0].Graph()
	r := &reverse{g: g, sum: map[*graph.Node][]*graph.Node{}}
	r.needs = map[*graph.Node]bool{}
	for _, x := range wrt {
		r.needs[x] = true
	}
	last := 0
	for i, y := range ys {
		r.send(y, 0, seeds[i])
		last = max(last, y.ID())
	}
	nodes := slices.Clone(g.Nodes()[:last+1])
	r.mark(nodes)
	r.walk(nodes)
	out := make([]*graph.Node, len(wrt))
	for i, x := range wrt {
		out[i] = r.of(x, 0)
		if out[i] == nil {
			g.As(x, graph.Backward, func() { out[i] = op.Full(g, x.Type(), 0) })
		}
	}
	return out
}

type reverse struct {
	g     *graph.Graph
	needs map[*graph.Node]bool          // a wanted x is the node or lies before it
	sum   map[*graph.Node][]*graph.Node // per result: the gradient so far, nil for none
}

// mark extends needs to all that depends on what is wanted.
func (r *reverse) mark(nodes []*graph.Node) {
	for _, n := range nodes {
		if !r.needs[n] {
			r.needs[n] = slices.ContainsFunc(n.Inputs(), func(x *graph.Node) bool { return r.needs[x] })
		}
	}
}

func (r *reverse) of(n *graph.Node, i int) *graph.Node {
	if s := r.sum[n]; s != nil {
		return s[i]
	}
	return nil
}

// send adds d to the gradient of result i of n.
func (r *reverse) send(n *graph.Node, i int, d *graph.Node) {
	s := r.sum[n]
	if s == nil {
		s = make([]*graph.Node, len(n.Types()))
		r.sum[n] = s
	}
	if s[i] == nil {
		s[i] = d
	} else {
		s[i] = op.Add(s[i], d)
	}
}

// walk sends gradients through nodes, which are in graph order, from the last to the first.
func (r *reverse) walk(nodes []*graph.Node) {
	for _, n := range slices.Backward(nodes) {
		d := r.sum[n]
		if d == nil || !r.needs[n] || len(n.Inputs()) == 0 {
			continue
		}
		r.g.As(n, graph.Backward, func() { r.through(n, d) })
	}
}

// through sends the gradients d of n's results to its operands.
func (r *reverse) through(n *graph.Node, d []*graph.Node) {
	o := n.Op()
	switch {
	case o == graph.OpPart:
		r.send(n.Input(0), n.Attrs().(graph.PartAttrs).Index, d[0])
	case o.Grad != nil || o.GradOfBody != nil:
		var dxs []*graph.Node
		if o.Grad != nil {
			dxs = o.Grad(n, d)
		} else {
			dxs = o.GradOfBody(Pull, n, d)
		}
		if dxs == nil && o.Decompose != nil {
			r.decomposed(n, d)
			return
		}
		for i, dx := range dxs {
			x := n.Input(i)
			if dx == nil || !r.needs[x] {
				continue
			}
			if !dx.Type().Equal(x.Type()) {
				r.g.Fail(o.Name, n.Inputs(), "the gradient of operand %d is %v, not %v: the rule in the op's literal is wrong", i, dx.Type(), x.Type())
			}
			r.send(x, 0, dx)
		}
	case o.Decompose != nil:
		r.decomposed(n, d)
	case o.NoGrad != "":
		// No gradient flows, for the reason that the op states.
	default:
		r.g.Fail(o.Name, n.Inputs(), "has no gradient rule")
	}
}

// decomposed sends gradients through the nodes that n's op is composed of. They are the same computation again; what the
// forward pass shares with it is merged by pass cse.
func (r *reverse) decomposed(n *graph.Node, d []*graph.Node) {
	first := len(r.g.Nodes())
	for i, y := range n.Op().Decompose(n.Attrs(), n.Inputs()) {
		if d[i] != nil {
			r.send(y, 0, d[i])
		}
	}
	inside := slices.Clone(r.g.Nodes()[first:])
	r.mark(inside)
	r.walk(inside)
}
