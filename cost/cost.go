// Package cost prices nodes and graphs: arithmetic and bytes by the rules in the op table.
package cost

import (
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/graph"
)

// Node is what one run of a node asks for: FLOPs as its op counts them, and its operands and results read and written once.
func Node(n *graph.Node) energy.Cost {
	var c energy.Cost
	c.FLOPs, c.Read, c.Written = n.Cost()
	c.Executed = c.FLOPs
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
