// Package cost prices nodes and graphs: arithmetic and bytes by the rules in the op table.
package cost

import (
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Node is what one run of a node asks for: FLOPs as its op counts them, and its operands and results read and written once. Arithmetic is of a narrow type where the first two
// operands are; a product of floats with weights of few bits multiplies bytes, which it brings the floats to.
func Node(n *graph.Node) energy.Cost {
	var c energy.Cost
	c.FLOPs, c.Read, c.Written = n.Cost()
	c.Executed = c.FLOPs
	if len(n.Inputs()) > 1 {
		switch x, y := n.Input(0).DType(), n.Input(1).DType(); {
		case x == dtype.BF16 && y == dtype.BF16:
			c.BF16 = c.Executed
		case x.Size() == 1 && y.Size() == 1, n.Op() == op.QMatMulOp:
			c.Int8 = c.Executed
		}
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
