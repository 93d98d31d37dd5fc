package cpu_test

import (
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Several variables that are given one value all get it, also where it is written in the place of the first.
func TestOneValueForSeveralVariables(t *testing.T) {
	ty := graph.T(dtype.F32, 4)
	names := []string{"a", "b", "c"}
	g, err := graph.Build(func(g *graph.Graph) {
		for _, n := range names {
			acc, w := g.Variable(n, ty), g.Variable("w"+n, ty)
			g.Update(w, op.Sub(w, op.Mul(acc, op.Scalar(g, dtype.F32, 0.5))))
			g.Update(acc, op.Full(g, ty, 3))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	st, err := cpu.Backend{}.NewState(backendtest.Vars(g))
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range names {
		x := float32(i + 1)
		if err := st.Set(n, tensor.Of([]float32{x, x, x, x})); err != nil {
			t.Fatal(err)
		}
	}
	e, err := cpu.Backend{}.Compile(g, st, backend.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(nil, nil); err != nil {
		t.Fatal(err)
	}
	for i, n := range names {
		acc, _ := st.Get(n)
		w, _ := st.Get("w" + n)
		if acc.At(0) != 3 || acc.At(3) != 3 || w.At(1) != -0.5*float64(i+1) {
			t.Errorf("%s is %v, w%s %v", n, acc.F32(), n, w.F32())
		}
	}
}
