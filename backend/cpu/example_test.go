package cpu_test

import (
	"fmt"
	"log"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// The program of docs/from-scratch.md: a graph that computes a loss, its gradient, and a step of gradient descent, run twenty times.
func Example() {
	g, err := graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.T(dtype.F32, 4, 3))    // a batch of 4 examples
		w := g.Variable("w", graph.T(dtype.F32, 3, 2)) // kept between runs
		y := op.Relu(op.MatMul(x, w))                  // [4 2]
		loss := op.MeanAll(op.Mul(y, y))
		d := grad.Of(loss, w)[0] // a graph again: order 2 is grad.Of of that
		g.Output("loss", loss)
		g.Update(w, op.Sub(w, op.Mul(d, op.Like(d, 0.1)))) // gradient descent
	})
	if err != nil {
		log.Fatal(err)
	}
	state, err := cpu.Backend{}.NewState([]backend.Var{{Name: "w", Type: graph.T(dtype.F32, 3, 2)}})
	if err != nil {
		log.Fatal(err)
	}
	if err := state.Set("w", tensor.Of([]float32{1, 2, 3, 4, 5, 6}, 3, 2)); err != nil {
		log.Fatal(err)
	}
	step, err := cpu.Backend{}.Compile(g, state, backend.Options{})
	if err != nil {
		log.Fatal(err)
	}
	batch, out := tensor.Of([]float32{1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}, 4, 3), backend.NewOutputs(g)
	for i := range 21 {
		if err := step.Run([]*tensor.Tensor{batch}, out); err != nil {
			log.Fatal(err)
		}
		if i%10 == 0 {
			fmt.Printf("after %2d steps the loss is %.3f\n", i, out[0].At(0))
		}
	}
	// Output:
	// after  0 steps the loss is 39.500
	// after 10 steps the loss is 5.708
	// after 20 steps the loss is 1.071
}
