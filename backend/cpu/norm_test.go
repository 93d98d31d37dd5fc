package cpu_test

import (
	"fmt"
	"slices"
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

// normStep is a normalisation of [rows, n] and the gradients of a loss of it.
func normStep(rows, n int, rms bool) (*graph.Graph, error) {
	return graph.Build(func(g *graph.Graph) {
		x, gamma, beta := g.Input("x", graph.T(dtype.F32, rows, n)), g.Input("gamma", graph.T(dtype.F32, n)), g.Input("beta", graph.T(dtype.F32, n))
		wrt := []*graph.Node{x, gamma}
		var y *graph.Node
		if rms {
			y = op.RMSNorm(x, gamma, 1e-5)
		} else {
			y = op.LayerNorm(x, gamma, beta, 1e-5)
			wrt = append(wrt, beta)
		}
		g.Output("y", y)
		for i, d := range grad.Of(op.MeanAll(op.Mul(y, op.Tanh(y))), wrt...) {
			g.Output(fmt.Sprint("d", i), d)
		}
	})
}

// Normalisations of rows and their gradients run on their kernels, both of them, and agree with the reference.
func TestRowNorms(t *testing.T) {
	for _, rms := range []bool{false, true} {
		kernels := []string{"layer norm", "layer norm gradient"}
		if rms {
			kernels = []string{"rms norm", "rms norm gradient"}
		}
		for _, size := range [][2]int{{1, 5}, {3, 16}, {70, 33}, {300, 512}} {
			g, err := normStep(size[0], size[1], rms)
			if err != nil {
				t.Fatal(err)
			}
			s := graph.Sample{}
			for _, x := range g.Inputs() {
				s.In = append(s.In, x.Type())
			}
			in := backendtest.Operands(s, 3)
			run := func(b backend.Backend, threads int) ([]*tensor.Tensor, []backend.NodeTime) {
				st, err := b.NewState(nil)
				if err != nil {
					t.Fatal(err)
				}
				e, err := b.Compile(g, st, backend.Options{Threads: threads})
				if err != nil {
					t.Fatal(err)
				}
				out := backend.NewOutputs(g)
				if err := e.Run(in, out); err != nil {
					t.Fatal(err)
				}
				return out, e.Profile()
			}
			want, _ := run(ref.Backend{}, 1)
			for _, threads := range []int{1, 3} {
				got, profile := run(cpu.Backend{}, threads)
				for i := range want {
					if err := backendtest.Close(got[i], want[i], 2e-5); err != nil {
						t.Errorf("rms %v %v: result %d: %v", rms, size, i, err)
					}
				}
				for _, k := range kernels {
					if !slices.ContainsFunc(profile, func(n backend.NodeTime) bool { return n.Kernel == k }) {
						t.Errorf("no node ran on kernel %q", k)
					}
				}
			}
		}
	}
}

func BenchmarkLayerNormStep(b *testing.B) {
	g, err := normStep(2048, 256, false)
	if err != nil {
		b.Fatal(err)
	}
	s := graph.Sample{}
	for _, x := range g.Inputs() {
		s.In = append(s.In, x.Type())
	}
	in, out := backendtest.Operands(s, 3), backend.NewOutputs(g)
	st, _ := cpu.Backend{}.NewState(nil)
	e, err := cpu.Backend{}.Compile(g, st, backend.Options{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := e.Run(in, out); err != nil {
			b.Fatal(err)
		}
	}
}
