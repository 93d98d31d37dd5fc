package op_test

import (
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// The gradient of a product is the product of the others, and the second derivative that of all but two, whether elements are zero or not.
func TestProdGradientAtZeros(t *testing.T) {
	x := tensor.Of([]float32{0, 2, 3, 0, 0, 5, 1, 2, 4}, 3, 3)
	g, err := graph.Build(func(g *graph.Graph) {
		n := g.Input("x", graph.T(dtype.F32, 3, 3))
		p := op.Prod(n, 1)
		d := grad.Of(op.SumAll(p), n)[0]
		g.Output("p", p)
		g.Output("d", d)
		// of Σ d: for each element, the sum over the other two of the third
		g.Output("dd", grad.Of(op.SumAll(d), n)[0])
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []*tensor.Tensor{
		tensor.Of([]float32{0, 0, 8}),
		tensor.Of([]float32{6, 0, 0, 0, 0, 0, 8, 4, 2}, 3, 3),
		tensor.Of([]float32{5, 3, 2, 5, 5, 0, 6, 5, 3}, 3, 3),
	}
	for _, b := range []backend.Backend{ref.Backend{}, cpu.Backend{}} {
		st, err := b.NewState(nil)
		if err != nil {
			t.Fatal(err)
		}
		e, err := b.Compile(g, st, backend.Options{})
		if err != nil {
			t.Fatal(err)
		}
		out := backend.NewOutputs(g)
		if err := e.Run([]*tensor.Tensor{x}, out); err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if err := backendtest.Close(out[i], want[i], 1e-6); err != nil {
				t.Errorf("%s: order %d: %v", b.Name(), i, err)
			}
		}
	}
}
