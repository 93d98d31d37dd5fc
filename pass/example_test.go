package pass_test

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/pass"
)

// What is computed twice is computed once.
func ExampleCSE() {
	g, err := graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.T(dtype.F32, 4))
		g.Output("y", op.Add(op.Tanh(x), op.Tanh(x)))
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	h, err := pass.CSE(g)
	count := func(g *graph.Graph) (n int) {
		for _, v := range g.Nodes() {
			if v.Op().Name == "tanh" && g.Live()[v.ID()] {
				n++
			}
		}
		return n
	}
	fmt.Println(count(g), count(h), err)
	// Output: 2 1 <nil>
}
