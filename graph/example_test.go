package graph_test

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// A graph is built by a function; what is wrong with it is an error that says which op, with which operands.
func ExampleBuild() {
	g, err := graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.T(dtype.F32, 2, 3))
		g.Output("y", op.Relu(x))
	})
	fmt.Println(len(g.Inputs()), g.Outputs()[0].Node.Type(), err)
	_, err = graph.Build(func(g *graph.Graph) {
		op.MatMul(g.Input("a", graph.T(dtype.F32, 2, 3)), g.Input("b", graph.T(dtype.F32, 4, 5)))
	})
	fmt.Println(err != nil)
	// Output:
	// 1 f32[2 3] <nil>
	// true
}
