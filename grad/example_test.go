package grad_test

import (
	"fmt"
	"log"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Gradients are graphs too, so that there are gradients of gradients: of x³ at 2 they are 12 and 12.
func ExampleOf() {
	g, err := graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.T(dtype.F32))
		first := grad.Of(op.Mul(op.Mul(x, x), x), x)[0]
		g.Output("first", first)
		g.Output("second", grad.Of(first, x)[0])
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
	if err := e.Run([]*tensor.Tensor{tensor.Scalar(float32(2))}, out); err != nil {
		log.Fatal(err)
	}
	fmt.Println(out[0].At(0), out[1].At(0))
	// Output: 12 12
}
