package pass

import (
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Recompute lets elementwise nodes of the backward pass compute again what elementwise nodes of the forward pass have computed from one array, instead of
// reading it: then it need not be kept in memory, and the array alone is. (Chen et al., arXiv:1604.06174, for the cheapest of all operations.) The derivative of GELU,
// for instance, reads x and not four arrays made of x. It runs right before Regions, which makes one node of each chain.
func Recompute(g *graph.Graph) (*graph.Graph, error) {
	r := &recompute{live: g.Live(), uses: g.Uses(), kept: map[*graph.Node]bool{}, from: map[*graph.Node]*graph.Node{}, again: map[*graph.Node]*graph.Node{}}
	for _, o := range g.Outputs() {
		r.kept[o.Node] = true
	}
	for _, u := range g.Updates() {
		r.kept[u.Value] = true
	}
	for _, n := range g.Nodes() { // operands come before what reads them
		if r.live[n.ID()] {
			r.look(n)
		}
	}
	return graph.Emit(g, func(to *graph.Graph, m []*graph.Node) {
		for _, n := range g.Nodes() {
			switch {
			case !r.live[n.ID()] && n.Op() != graph.OpInput && n.Op() != graph.OpVariable:
			case n.Phase() == graph.Backward && (Fusible(n) && r.reads(n) || r.readsWidened(n)):
				to.As(n, n.Phase(), func() { m[n.ID()] = to.Apply(n.Op(), n.Attrs(), r.operands(to, m, n, n)...) })
			default:
				graph.CopyTo(to, n, m)
			}
		}
	})
}

type recompute struct {
	live  []bool
	uses  [][]*graph.Node
	kept  map[*graph.Node]bool        // read at the end of a run
	from  map[*graph.Node]*graph.Node // nodes that can be computed again: the array that they follow from
	again map[*graph.Node]*graph.Node // their copies in the new graph
}

// look finds out whether n can be computed again. It must be worth it: nobody reads n but elementwise nodes, else it is kept in memory anyway.
func (r *recompute) look(n *graph.Node) {
	if n.Phase() != graph.Forward || !Fusible(n) || !n.DType().IsFloat() || n.DType() == dtype.BF16 || r.kept[n] { // bf16 takes less room than what it is made of
		return
	}
	for _, u := range r.uses[n.ID()] {
		if r.live[u.ID()] && !(Fusible(u) && u.Shape().Equal(n.Shape())) {
			return
		}
	}
	var source *graph.Node
	for _, x := range n.Inputs() {
		if x.Op() == op.BroadcastOp || x.Shape().Size() < n.Shape().Size() {
			continue // a number, or a row of them
		}
		s := x
		if r.from[x] != nil {
			s = r.from[x]
		}
		if source != nil && s != source {
			return
		}
		source = s
	}
	if source != nil {
		r.from[n] = source
	}
}

// reads reports whether an operand of n can be computed again.
func (r *recompute) reads(n *graph.Node) bool {
	for _, x := range n.Inputs() {
		if r.from[x] != nil {
			return true
		}
	}
	return false
}

// widened reports whether n brings bf16 of the forward pass to f32. Whatever reads it in the backward pass does so again: half the memory is kept.
func widened(n *graph.Node) bool {
	return n.Op() == op.ConvertOp && n.Phase() == graph.Forward && n.DType() == dtype.F32 && n.Input(0).DType() == dtype.BF16
}

func (r *recompute) readsWidened(n *graph.Node) bool { return slices.ContainsFunc(n.Inputs(), widened) }

// operands are those of n in the new graph, for a reader whose layer and phase copies are booked to.
func (r *recompute) operands(to *graph.Graph, m []*graph.Node, n, reader *graph.Node) []*graph.Node {
	out := make([]*graph.Node, len(n.Inputs()))
	for i, x := range n.Inputs() {
		if out[i] = m[x.ID()]; !widened(x) && (r.from[x] == nil || !Fusible(n)) {
			continue
		}
		if r.again[x] == nil {
			in := r.operands(to, m, x, reader)
			to.As(reader, reader.Phase(), func() { r.again[x] = to.Apply(x.Op(), x.Attrs(), in...) })
		}
		out[i] = r.again[x]
	}
	return out
}
