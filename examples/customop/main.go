// Customop defines an op outside Joule, x·sin(x), differentiates it, and runs it on the CPU.
package main

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

var xSin = op.Define(op.Def[struct{}]{
	Name: "x_sin", Doc: "x·sin(x)", Kind: graph.Elementwise,
	Infer: func(_ struct{}, in []graph.Type) ([]graph.Type, error) {
		if len(in) != 1 || !in[0].DType.IsFloat() {
			return nil, fmt.Errorf("takes one operand of floats")
		}
		return in, nil
	},
	// What it is made of is all that is needed: its gradient and its kernel follow from that.
	Decompose: func(_ struct{}, in []*graph.Node) []*graph.Node {
		return []*graph.Node{op.Mul(in[0], op.Sin(in[0]))}
	},
	FLOPs: func(_ struct{}, in, _ []graph.Type) int64 { return 2 * int64(in[0].Shape.Size()) },
})

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	g, err := graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.T(dtype.F32, 3))
		y := op.Apply(xSin, struct{}{}, x)
		g.Output("y", y)
		g.Output("dy/dx", grad.Of(op.SumAll(y), x)[0])
	})
	if err != nil {
		return err
	}
	state, err := cpu.Backend{}.NewState(nil)
	if err != nil {
		return err
	}
	f, err := cpu.Backend{}.Compile(g, state, backend.Options{})
	if err != nil {
		return err
	}
	out := backend.NewOutputs(g)
	if err := f.Run([]*tensor.Tensor{tensor.Of([]float32{0, 1, 2})}, out); err != nil {
		return err
	}
	fmt.Printf("x sin x   %.4f\n", out[0].F32())
	fmt.Printf("its slope %.4f\n", out[1].F32())
	return nil
}
