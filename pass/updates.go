package pass

import (
	"fmt"
	"slices"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Updates makes one node of all steps of a rule with equal constants, at the end of the program: a kernel then passes over the parameters, gradients and slots once, and takes many small
// parameters at a time. A step whose results are read within the run stays by itself.
func Updates(g *graph.Graph) (*graph.Graph, error) {
	live, uses := g.Live(), g.Uses()
	written, outputs := map[*graph.Node]bool{}, map[*graph.Node]bool{}
	for _, u := range g.Updates() {
		written[u.Value] = true
	}
	for _, o := range g.Outputs() {
		outputs[o.Node] = true
	}
	// last reports whether a result is written to a variable and read by nothing.
	last := func(n *graph.Node) bool {
		return written[n] && !outputs[n] && !slices.ContainsFunc(uses[n.ID()], func(u *graph.Node) bool { return live[u.ID()] })
	}
	type group struct {
		attrs op.UpdateAttrs
		nodes []*graph.Node
	}
	var groups []*group
	at := map[string]*group{}
	taken := map[*graph.Node]bool{} // nodes that a group stands for, and their parts
	for _, n := range g.Nodes() {
		if n.Op() != op.UpdateOp || !live[n.ID()] {
			continue
		}
		parts := []*graph.Node{n}
		if len(n.Types()) > 1 {
			parts = uses[n.ID()]
		}
		if !slices.ContainsFunc(parts, func(p *graph.Node) bool { return live[p.ID()] && !last(p) }) {
			key := fmt.Sprint(n.Attrs(), n.Types()[0].DType)
			if at[key] == nil {
				at[key] = &group{attrs: n.Attrs().(op.UpdateAttrs)}
				groups = append(groups, at[key])
			}
			at[key].nodes = append(at[key].nodes, n)
			taken[n] = true
			for _, p := range parts {
				taken[p] = true
			}
		}
	}
	groups = slices.DeleteFunc(groups, func(c *group) bool {
		alone := len(c.nodes) == 1
		if alone {
			for _, p := range append(slices.Clone(uses[c.nodes[0].ID()]), c.nodes[0]) {
				delete(taken, p)
			}
		}
		return alone
	})
	if len(groups) == 0 {
		return g, nil
	}
	return graph.Emit(g, func(to *graph.Graph, m []*graph.Node) {
		for _, n := range g.Nodes() {
			if !taken[n] && (live[n.ID()] || n.Op() == graph.OpInput || n.Op() == graph.OpVariable) {
				graph.CopyTo(to, n, m)
			}
		}
		for _, c := range groups {
			var in []*graph.Node
			for _, n := range c.nodes {
				for _, x := range n.Inputs() {
					in = append(in, m[x.ID()])
				}
			}
			to.During(graph.Update, func() { // it belongs to no layer
				all := to.Apply(op.UpdateOp, c.attrs, in...)
				i := 0
				for _, n := range c.nodes {
					if len(n.Types()) == 1 {
						m[n.ID()] = all.Part(i)
					}
					for _, p := range uses[n.ID()] {
						if live[p.ID()] && len(n.Types()) > 1 {
							m[p.ID()] = all.Part(i + p.Attrs().(graph.PartAttrs).Index)
						}
					}
					i += len(n.Types())
				}
			})
		}
	})
}
