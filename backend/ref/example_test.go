package ref_test

import (
	"fmt"
	"log"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// The reference runs any graph, slowly and in float64: what a faster backend must agree with.
func Example() {
	g, err := graph.Build(func(g *graph.Graph) {
		g.Output("y", op.Softmax(g.Input("x", graph.T(dtype.F32, 1, 2))))
	})
	if err != nil {
		log.Fatal(err)
	}
	st, err := ref.Backend{}.NewState(nil)
	if err != nil {
		log.Fatal(err)
	}
	e, err := ref.Backend{}.Compile(g, st, backend.Options{})
	if err != nil {
		log.Fatal(err)
	}
	out := backend.NewOutputs(g)
	if err := e.Run([]*tensor.Tensor{tensor.Of([]float32{0, 0}, 1, 2)}, out); err != nil {
		log.Fatal(err)
	}
	fmt.Println(out[0].F32())
	// Output: [0.5 0.5]
}
