package pass

import (
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Checkpoint lets the backward pass compute again what the forward pass computed inside of segments, so that between the two only what enters and leaves a segment is kept in memory (Chen et
// al., arXiv:1604.06174). segment gives the name of the segment that a scope belongs to, "" for none. The copies read what enters through op.Again, which keeps cse from merging them with the
// originals; Unmark takes it out once nothing merges any more.
func Checkpoint(g *graph.Graph, segment func(scope string) string) (*graph.Graph, error) {
	live, uses := g.Live(), g.Uses()
	kept := map[*graph.Node]bool{}
	for _, o := range g.Outputs() {
		kept[o.Node] = true
	}
	for _, u := range g.Updates() {
		kept[u.Value] = true
	}
	of := map[*graph.Node]string{} // of nodes inside: that nothing outside of the segment reads before the backward pass
	leaf := func(n *graph.Node) bool {
		return n.Op() == graph.OpInput || n.Op() == graph.OpVariable || n.Op() == graph.OpConst
	}
	for _, n := range g.Nodes() {
		s := segment(n.Scope())
		if s == "" || n.Phase() != graph.Forward || leaf(n) || kept[n] || !live[n.ID()] {
			continue
		}
		inside := true
		for _, u := range uses[n.ID()] {
			if live[u.ID()] && u.Phase() == graph.Forward && segment(u.Scope()) != s {
				inside = false
			}
		}
		if inside {
			of[n] = s
		}
	}
	// Several results of one node stand or fall together: a part that is kept keeps its node.
	for _, n := range g.Nodes() {
		if n.Op() == graph.OpPart && n.Phase() == graph.Forward && of[n] == "" && of[n.Input(0)] != "" && live[n.ID()] {
			delete(of, n.Input(0))
		}
	}
	marks := map[string]int{}
	copies, entered := map[*graph.Node]*graph.Node{}, map[*graph.Node]*graph.Node{}
	return graph.Emit(g, func(to *graph.Graph, m []*graph.Node) {
		var again func(n *graph.Node) *graph.Node
		again = func(n *graph.Node) *graph.Node {
			if copies[n] != nil {
				return copies[n]
			}
			s := of[n]
			if marks[s] == 0 {
				marks[s] = len(marks) + 1
			}
			in := make([]*graph.Node, len(n.Inputs()))
			for i, x := range n.Inputs() {
				switch {
				case of[x] == s:
					in[i] = again(x)
				case x.Op() == graph.OpConst || x.Op() == graph.OpVariable && x.DType().IsFloat() || len(x.Types()) != 1:
					in[i] = m[x.ID()]
				default:
					if entered[x] == nil {
						to.As(n, graph.Backward, func() { entered[x] = op.Again(m[x.ID()], marks[s]) })
					}
					in[i] = entered[x]
				}
			}
			to.As(n, graph.Backward, func() { copies[n] = to.Copy(n, in) })
			return copies[n]
		}
		for _, n := range g.Nodes() {
			if n.Phase() != graph.Forward && live[n.ID()] && !leaf(n) {
				in, changed := make([]*graph.Node, len(n.Inputs())), false
				for i, x := range n.Inputs() {
					if in[i] = m[x.ID()]; of[x] != "" {
						in[i], changed = again(x), true
					}
				}
				if changed {
					to.As(n, n.Phase(), func() { m[n.ID()] = to.Copy(n, in) })
					continue
				}
			}
			graph.CopyTo(to, n, m)
		}
	})
}

// Unmark takes out what Checkpoint has put in to keep copies apart. Nothing that merges equal nodes may run after it.
func Unmark(g *graph.Graph) (*graph.Graph, error) {
	return graph.Rewrite(g, func(_ *graph.Graph, n *graph.Node, in []*graph.Node) *graph.Node {
		if n.Op() == op.AgainOp {
			return in[0]
		}
		return nil
	})
}
