// Package cost prices nodes and graphs: arithmetic and bytes by the rules in the op table.
package cost

import (
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/graph"
)

// Node is what one run of a node asks for: FLOPs as its op counts them, and its operands and results read and written once.
func Node(n *graph.Node) energy.Cost {
	o := n.Op()
	if o.Kind == graph.Leaf {
		return energy.Cost{}
	}
	in := make([]graph.Type, len(n.Inputs()))
	for i, x := range n.Inputs() {
		in[i] = x.Type()
	}
	var c energy.Cost
	switch {
	case o.FLOPs != nil:
		c.FLOPs = o.FLOPs(n.Attrs(), in, n.Types())
	case o.Kind != graph.Movement:
		for _, t := range n.Types() {
			c.FLOPs += int64(t.Shape.Size())
		}
	}
	c.Executed = c.FLOPs
	if o.Bytes != nil {
		c.Read, c.Written = o.Bytes(n.Attrs(), in, n.Types())
		return c
	}
	for _, t := range in {
		c.Read += int64(t.Bytes())
	}
	for _, t := range n.Types() {
		c.Written += int64(t.Bytes())
	}
	return c
}

// Graph is the sum over the live nodes of a graph.
func Graph(g *graph.Graph) energy.Cost {
	var sum energy.Cost
	live := g.Live()
	for _, n := range g.Nodes() {
		if live[n.ID()] {
			sum = sum.Add(Node(n))
		}
	}
	return sum
}
