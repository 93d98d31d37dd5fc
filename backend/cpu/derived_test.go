package cpu_test

import (
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Weights that are kept in a kernel's order follow every change of the variable: by Set, by a program of this backend, by one of another on the same state.
func TestPackedWeightsFollowTheVariable(t *testing.T) {
	const rows, in, out = 8, 300, 70
	w := backend.Var{Name: "w", Type: graph.T(dtype.F32, in, out)}
	build := func(f func(g *graph.Graph, w *graph.Node)) *graph.Graph {
		g, err := graph.Build(func(g *graph.Graph) { f(g, g.Variable("w", w.Type)) })
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	product := build(func(g *graph.Graph, w *graph.Node) {
		x := g.Input("x", graph.T(dtype.F32, rows, in))
		g.Output("y", op.MatMul(x, w))
		g.Output("z", op.Dot(g.Input("d", graph.T(dtype.F32, rows, out)), w, op.DotAttrs{ContractA: []int{1}, ContractB: []int{1}}))
	})
	grow := build(func(g *graph.Graph, w *graph.Node) {
		g.Update(w, op.Add(w, op.Like(w, 1)))
		g.Output("one", op.Scalar(g, dtype.F32, 1))
	})
	state, err := backend.NewHost([]backend.Var{w})
	if err != nil {
		t.Fatal(err)
	}
	compile := func(b backend.Backend, g *graph.Graph) func(x ...*tensor.Tensor) []*tensor.Tensor {
		e, err := b.Compile(g, state, backend.Options{Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		return func(x ...*tensor.Tensor) []*tensor.Tensor {
			y := backend.NewOutputs(g)
			if err := e.Run(x, y); err != nil {
				t.Fatal(err)
			}
			return y
		}
	}
	fast, slow := compile(cpu.Backend{}, product), compile(ref.Backend{}, product)
	x, d := tensor.New(dtype.F32, rows, in), tensor.New(dtype.F32, rows, out)
	for i := range x.F32() {
		x.F32()[i] = float32(i%7) - 3
	}
	for i := range d.F32() {
		d.F32()[i] = float32(i%5) - 2
	}
	check := func(when string) {
		t.Helper()
		a, b := fast(x, d), slow(x, d)
		for k := range a {
			for i := range a[k].Len() {
				if v, want := a[k].At(i), b[k].At(i); v-want > 1e-3 || want-v > 1e-3 {
					t.Fatalf("%s: result %d[%d] is %g, want %g", when, k, i, v, want)
				}
			}
		}
	}
	check("zeros")
	v := tensor.New(dtype.F32, in, out)
	for i := range v.F32() {
		v.F32()[i] = float32(i%11) / 4
	}
	if err := state.Set("w", v); err != nil {
		t.Fatal(err)
	}
	check("after Set")
	compile(cpu.Backend{}, grow)()
	check("after a program of this backend")
	compile(ref.Backend{}, grow)()
	check("after a program of the reference")
}
