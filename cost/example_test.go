package cost_test

import (
	"fmt"

	"github.com/jouleml/joule/cost"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// A product of [32 128] and [128 10] asks for 2·32·128·10 operations.
func ExampleGraph() {
	g, err := graph.Build(func(g *graph.Graph) {
		g.Output("y", op.MatMul(g.Input("x", graph.T(dtype.F32, 32, 128)), g.Input("w", graph.T(dtype.F32, 128, 10))))
	})
	c := cost.Graph(g)
	fmt.Println(c.FLOPs, c.Written, err)
	// Output: 81920 1280 <nil>
}
