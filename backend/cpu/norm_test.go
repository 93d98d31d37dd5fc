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

// runs runs g on b n times, with variables of zeros. It gives the outputs of the last run, behind them what the variables then hold, and the profile.
func runs(t *testing.T, g *graph.Graph, b backend.Backend, threads, n int) ([]*tensor.Tensor, []backend.NodeTime) {
	t.Helper()
	vars := backendtest.Vars(g)
	st, err := b.NewState(vars)
	if err != nil {
		t.Fatal(err)
	}
	e, err := b.Compile(g, st, backend.Options{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	in, out := backendtest.Inputs(g, 3), backend.NewOutputs(g)
	for range n {
		if err := e.Run(in, out); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range vars {
		x, err := st.Get(v.Name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	return out, e.Profile()
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
			want, _ := runs(t, g, ref.Backend{}, 1, 1)
			for _, threads := range []int{1, 3} {
				got, profile := runs(t, g, cpu.Backend{}, threads, 1)
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

// block is a block with a way around: normalised, rectified, normalised, added to what came in and rectified, with moving averages of the statistics and gradients.
func block(n, size, channels int) (*graph.Graph, error) {
	return graph.Build(func(g *graph.Graph) {
		x, w := g.Input("x", graph.T(dtype.F32, n, size, size, channels)), g.Input("w", graph.T(dtype.F32, 3, 3, channels, channels))
		wrt := []*graph.Node{x, w}
		norm := func(x *graph.Node) *graph.Node {
			gamma, beta := g.Input(fmt.Sprint("gamma", len(wrt)), graph.T(dtype.F32, channels)), g.Input(fmt.Sprint("beta", len(wrt)), graph.T(dtype.F32, channels))
			y, m, v := op.BatchNorm(x, gamma, beta, 1e-3)
			for i, s := range []*graph.Node{m, v} {
				moving := g.Variable(fmt.Sprint("moving", len(wrt)+i), s.Type())
				g.Update(moving, op.Add(op.Mul(moving, op.Like(moving, 0.9)), op.Mul(s, op.Like(s, 0.1))))
			}
			wrt = append(wrt, gamma, beta)
			return y
		}
		at := op.ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1, Pad: [2][2]int{{1, 1}, {1, 1}}}
		a := op.Relu(norm(op.Conv(x, w, at)))
		b := op.Relu(op.Add(norm(op.Conv(op.Relu(norm(op.Conv(a, w, at))), w, at)), a))
		loss := op.MeanAll(op.Mul(b, op.Tanh(b)))
		g.Output("loss", loss)
		for i, d := range grad.Of(loss, wrt...) {
			g.Output(fmt.Sprint("d", i), d)
		}
	})
}

// Batch normalisations with rectifiers run on their kernels, agree with the reference, and give the same bits for any number of threads, in their moving averages too.
func TestBatchNormBlock(t *testing.T) {
	for _, size := range [][3]int{{1, 3, 5}, {2, 6, 16}, {3, 9, 33}} {
		g, err := block(size[0], size[1], size[2])
		if err != nil {
			t.Fatal(err)
		}
		want, _ := runs(t, g, ref.Backend{}, 1, 2)
		one, profile := runs(t, g, cpu.Backend{}, 1, 2)
		for i := range want {
			if err := backendtest.Close(one[i], want[i], 2e-4); err != nil {
				t.Errorf("%v: result %d: %v", size, i, err)
			}
		}
		for _, k := range []string{"batch norm, rectified", "batch norm and sum, rectified", "gradient of batch norm, rectified", "gradient of batch norm and sum, rectified"} {
			if !slices.ContainsFunc(profile, func(n backend.NodeTime) bool { return n.Kernel == k }) {
				t.Errorf("no node ran on kernel %q", k)
			}
		}
		for _, threads := range []int{2, 3} {
			got, _ := runs(t, g, cpu.Backend{}, threads, 2)
			for i := range one {
				if !slices.Equal(got[i].Bytes(), one[i].Bytes()) {
					t.Errorf("%v: result %d is of other bits with %d threads", size, i, threads)
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
	in, out := backendtest.Inputs(g, 3), backend.NewOutputs(g)
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
