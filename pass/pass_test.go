package pass_test

import (
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/pass"
	"github.com/jouleml/joule/tensor"
)

// network is a small convolutional net with loss and gradients: every pass has something to do in it.
func network(t *testing.T) *graph.Graph {
	t.Helper()
	g, err := graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.T(dtype.F32, 2, 8, 8, 2))
		w := g.Input("w", graph.T(dtype.F32, 3, 3, 2, 4))
		b := g.Input("b", graph.T(dtype.F32, 4))
		v := g.Input("v", graph.T(dtype.F32, 36, 5))
		c := g.Input("c", graph.T(dtype.F32, 5))
		labels := g.Const(tensor.Of([]int32{3, 1}))
		at := op.ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1}
		y := op.Relu(op.Add(op.Conv(x, w, at), b))
		y = op.MaxPool(y, op.PoolAttrs{Window: [2]int{2, 2}, Stride: [2]int{2, 2}})
		y = op.Relu(op.Add(op.MatMul(op.Reshape(y, 2, 36), v), c))
		y = op.Mul(y, op.Scalar(g, dtype.F32, 1))
		loss := op.MeanAll(op.SparseXent(op.Tanh(op.Add(y, y)), labels, op.XentAttrs{}))
		g.Output("loss", loss)
		for i, d := range grad.Of(loss, x, w, b, v, c) {
			g.Output([]string{"dx", "dw", "db", "dv", "dc"}[i], d)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// run runs g on the reference, with variables of fixed values, all above 0.
func run(t *testing.T, g *graph.Graph) []*tensor.Tensor {
	t.Helper()
	out, _ := runs(t, g, 1, func(i, j int) float64 { return 0.25 + float64((j*5+i*3)%7)/8 })
	return out
}

// runs runs g on the reference n times, with variables whose elements value gives: j of variable i. It gives the outputs of the last run, and what the variables then hold.
func runs(t *testing.T, g *graph.Graph, n int, value func(i, j int) float64) (out, left []*tensor.Tensor) {
	t.Helper()
	vars := backendtest.Vars(g)
	st, err := backend.NewHost(vars)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range vars {
		x := tensor.New(v.Type.DType, v.Type.Shape...)
		for j := range x.Len() {
			x.Set(j, value(i, j))
		}
		if err := st.Set(v.Name, x); err != nil {
			t.Fatal(err)
		}
	}
	e, err := ref.Backend{}.Compile(g, st, backend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	out = backend.NewOutputs(g)
	for range n {
		if err := e.Run(backendtest.Inputs(g, 3), out); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range vars {
		x, err := st.Get(v.Name)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, x)
	}
	return out, left
}

func all() []pass.Pass {
	ps := append([]pass.Pass{}, pass.Standard...)
	always := func(op.ConvPoolAttrs, graph.Type, graph.Type) bool { return true }
	return append(ps, pass.Pass{Name: "scales", Run: pass.Scales}, pass.Pass{Name: "convpool", Run: pass.ConvPool(always)}, pass.Pass{Name: "norms", Run: pass.Norms}, pass.Pass{Name: "fuse", Run: pass.Fuse}, pass.Pass{Name: "regions", Run: pass.Regions})
}

func same(t *testing.T, got, want []*tensor.Tensor) {
	t.Helper()
	for i := range want {
		if err := backendtest.Close(got[i], want[i], 1e-6); err != nil {
			t.Errorf("output %d: %v", i, err)
		}
	}
}

// Each pass alone, all together, and all but each: the same numbers.
func TestPassesKeepMeaning(t *testing.T) {
	g := network(t)
	want := run(t, g)
	apply := func(name string, ps ...pass.Pass) {
		t.Run(name, func(t *testing.T) {
			h, err := pass.Apply(g, ps...)
			if err != nil {
				t.Fatal(err)
			}
			same(t, run(t, h), want)
		})
	}
	ps := all()
	apply("all", ps...)
	for i, p := range ps {
		apply("only "+p.Name, p)
		apply("all but "+p.Name, append(append([]pass.Pass{}, ps[:i]...), ps[i+1:]...)...)
	}
}

// What the passes are for: after them the ops that they make are there and the ones that they replace are gone.
func TestPassesFindTheirPatterns(t *testing.T) {
	g, err := pass.Apply(network(t), all()...)
	if err != nil {
		t.Fatal(err)
	}
	count := map[*graph.Op]int{}
	live := g.Live()
	for _, n := range g.Nodes() {
		if live[n.ID()] {
			count[n.Op()]++
		}
	}
	for _, o := range []*graph.Op{op.ConvPoolOp, op.ConvPoolFilterGradOp, op.ConvPoolInputGradOp, op.LinearOp, op.RegionOp} {
		if count[o] != 1 && o != op.RegionOp || count[o] == 0 {
			t.Errorf("%d nodes of %s\n%s", count[o], o.Name, graph.Print(g))
		}
	}
	for _, o := range []*graph.Op{op.ConvOp, op.MaxPoolOp, op.MaxPoolGradOp, op.ConvFilterGradOp, op.ConvInputGradOp, op.ReluOp} {
		if count[o] != 0 {
			t.Errorf("%d nodes of %s are left", count[o], o.Name)
		}
	}
}

// A gradient on its way through a weight's conversion keeps its digits; a value of the forward pass is rounded as the program says. What bf16 holds may pass through f32 for nothing.
func TestConversions(t *testing.T) {
	build := func(p graph.Phase) *graph.Graph {
		g, err := graph.Build(func(g *graph.Graph) {
			x := g.Input("x", graph.T(dtype.F32, 4, 3))
			g.During(p, func() {
				y := op.Convert(op.Transpose(op.Convert(x, dtype.BF16), 1, 0), dtype.F32)
				g.Output("y", y)
				g.Output("z", op.Convert(op.Reshape(op.Convert(op.Convert(x, dtype.BF16), dtype.F32), 12), dtype.BF16))
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	for p, want := range map[graph.Phase]int{graph.Forward: 3, graph.Backward: 1} { // in the forward pass: to bf16 and back, and to bf16 for z
		g, err := pass.Apply(build(p), pass.Pass{Name: "digits", Run: pass.Digits}, pass.Pass{Name: "simplify", Run: pass.Simplify})
		if err != nil {
			t.Fatal(err)
		}
		if n := count(g)[op.ConvertOp]; n != want {
			t.Errorf("%v: %d conversions are left, want %d:\n%s", p, n, want, graph.Print(g))
		}
		got, was := run(t, g), run(t, build(p))
		exact := map[graph.Phase]float64{graph.Forward: 0, graph.Backward: 1.0 / 256}[p]
		for i := range got {
			if err := backendtest.Close(got[i], was[i], exact); err != nil {
				t.Errorf("%v: output %d: %v", p, i, err)
			}
		}
	}
}
