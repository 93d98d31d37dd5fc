package cpu_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// recurrence is h' = tanh(x·w + h·u) over steps with the gradients of a loss for everything, as a loop or as a copy of the body for each step.
func recurrence(steps, batch, units int, loop bool) (*graph.Graph, error) {
	return graph.Build(func(g *graph.Graph) {
		h, x := g.Input("h", graph.T(dtype.F32, batch, units)), g.Input("x", graph.T(dtype.F32, steps, batch, units))
		w, u := g.Input("w", graph.T(dtype.F32, units, units)), g.Input("u", graph.T(dtype.F32, units, units))
		step := func(h, x, w, u *graph.Node) *graph.Node { return op.Tanh(op.Add(op.MatMul(x, w), op.MatMul(h, u))) }
		var loss *graph.Node
		if loop {
			last, ys := op.Scan([]*graph.Node{h}, []*graph.Node{x}, []*graph.Node{w, u}, false, func(s, x, c []*graph.Node) (next, ys []*graph.Node) {
				h := step(s[0], x[0], c[0], c[1])
				return []*graph.Node{h}, []*graph.Node{op.Sin(h)}
			})
			loss = op.Add(op.SumAll(last[0]), op.SumAll(ys[0]))
		} else {
			s := h
			loss = op.Scalar(g, dtype.F32, 0)
			for t := range steps {
				s = step(s, op.Reshape(op.SliceAxis(x, 0, t, t+1), batch, units), w, u)
				loss = op.Add(loss, op.SumAll(op.Sin(s)))
			}
			loss = op.Add(loss, op.SumAll(s))
		}
		g.Output("loss", loss)
		for i, d := range grad.Of(loss, h, x, w, u) {
			g.Output(fmt.Sprint("d", i), d)
		}
	})
}

func runOn(t testing.TB, g *graph.Graph, threads int) ([]*tensor.Tensor, backend.Executable, []*tensor.Tensor) {
	t.Helper()
	st, _ := cpu.Backend{}.NewState(nil)
	e, err := cpu.Backend{}.Compile(g, st, backend.Options{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	in, out := backendtest.Inputs(g, 9), backend.NewOutputs(g)
	if err := e.Run(in, out); err != nil {
		t.Fatal(err)
	}
	return out, e, in
}

// A loop computes what a copy of its body for each step does, gradients included, with kernels, for any number of threads, and allocates nothing.
func TestLoop(t *testing.T) {
	for _, steps := range []int{1, 2, 7} {
		flat, err := recurrence(steps, 5, 33, false)
		if err != nil {
			t.Fatal(err)
		}
		g, err := recurrence(steps, 5, 33, true)
		if err != nil {
			t.Fatal(err)
		}
		want, _, _ := runOn(t, flat, 1)
		for threads := 1; threads <= 3; threads++ {
			got, e, in := runOn(t, g, threads)
			for i := range want {
				if err := backendtest.Close(got[i], want[i], 2e-5); err != nil {
					t.Errorf("%d steps, %d threads, output %d: %v", steps, threads, i, err)
				}
			}
			if n := allocs.PerRun(func() { _ = e.Run(in, got) }); n != 0 && threads == 1 {
				t.Errorf("%v allocations a run", n)
			}
			loops := 0
			for _, p := range e.Profile() {
				if strings.HasPrefix(p.Kernel, "loop of") {
					loops++
				}
				if strings.Contains(p.Kernel, "reference") {
					t.Errorf("a node ran on %s", p.Kernel)
				}
			}
			if loops != 2 {
				t.Errorf("%d loops ran, want one for each direction", loops)
			}
		}
	}
}

// BenchmarkLoop is a step of a loop of one elementwise kernel on one number: what a step costs beside its work.
func BenchmarkLoop(b *testing.B) {
	const steps = 1000
	g, err := graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.T(dtype.F32))
		g.Output("y", op.Repeat(steps, []*graph.Node{x}, nil, func(s, _ []*graph.Node) []*graph.Node { return []*graph.Node{op.Neg(s[0])} })[0])
	})
	if err != nil {
		b.Fatal(err)
	}
	out, e, in := runOn(b, g, 1)
	for b.Loop() {
		if err := e.Run(in, out); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*steps), "ns/step")
}
