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
func TestKeptWeightsFollowTheVariable(t *testing.T) {
	const rows, in, out = 8, 300, 70
	one := [2]int{1, 1}
	convolution := op.ConvAttrs{Stride: one, Dilation: one, Groups: 1}
	for _, c := range []struct {
		name  string
		w     graph.Type
		build func(g *graph.Graph, w *graph.Node)
	}{
		{"products", graph.T(dtype.F32, in, out), func(g *graph.Graph, w *graph.Node) {
			g.Output("y", op.MatMul(g.Input("x", graph.T(dtype.F32, rows, in)), w))
			g.Output("z", op.Dot(g.Input("d", graph.T(dtype.F32, rows, out)), w, op.DotAttrs{ContractA: []int{1}, ContractB: []int{1}}))
		}},
		{"convolutions", graph.T(dtype.F32, 3, 3, 16, 32), func(g *graph.Graph, w *graph.Node) {
			x := g.Input("x", graph.T(dtype.F32, 2, 12, 12, 16)) // Winograd's algorithm, which transforms filters
			y := op.Conv(x, w, convolution)
			g.Output("y", y)
			g.Output("strided", op.Conv(x, w, op.ConvAttrs{Stride: [2]int{2, 2}, Dilation: one, Groups: 1}))
		}},
		{"convolution, rectifier and pooling", graph.T(dtype.F32, 3, 3, 16, 32), func(g *graph.Graph, w *graph.Node) {
			x, b := g.Input("x", graph.T(dtype.F32, 2, 12, 12, 16)), g.Input("b", graph.T(dtype.F32, 32))
			g.Output("y", op.MaxPool(op.Relu(op.Add(op.Conv(x, w, convolution), b)), op.PoolAttrs{Window: [2]int{2, 2}, Stride: [2]int{2, 2}}))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := backend.Var{Name: "w", Type: c.w}
			build := func(f func(g *graph.Graph, w *graph.Node)) *graph.Graph {
				g, err := graph.Build(func(g *graph.Graph) { f(g, g.Variable("w", w.Type)) })
				if err != nil {
					t.Fatal(err)
				}
				return g
			}
			product := build(c.build)
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
			var args []*tensor.Tensor
			for k, n := range product.Inputs() {
				x := tensor.New(dtype.F32, n.Shape()...)
				for i := range x.F32() {
					x.F32()[i] = float32(i%(7-2*k)) - 3 + float32(k)
				}
				args = append(args, x)
			}
			check := func(when string) {
				t.Helper()
				a, b := fast(args...), slow(args...)
				for k := range a {
					for i := range a[k].Len() {
						if v, want := a[k].At(i), b[k].At(i); v-want > 1e-3 || want-v > 1e-3 {
							t.Fatalf("%s: result %d[%d] is %g, want %g", when, k, i, v, want)
						}
					}
				}
			}
			check("zeros")
			v := tensor.New(dtype.F32, w.Type.Shape...)
			for i := range v.F32() {
				v.F32()[i] = float32(i%11) / 4
			}
			if err := state.Set("w", v); err != nil {
				t.Fatal(err)
			}
			check("after Set")
			check("again")
			compile(cpu.Backend{}, grow)()
			check("after a program of this backend")
			compile(ref.Backend{}, grow)()
			check("after a program of the reference")
		})
	}
}
