package cpu_test

import (
	"fmt"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// What follows from variables that a program does not change is computed at its first run and again when one of them has changed; two programs of one state share it.
func TestKeptValues(t *testing.T) {
	vars := []backend.Var{{Name: "w", Type: graph.T(dtype.F32, 40, 24)}, {Name: "s", Type: graph.T(dtype.F32, 24)}, {Name: "tiny", Type: graph.T(dtype.I8, 300, 300)}}
	program := func(rows int) *graph.Graph {
		g, err := graph.Build(func(g *graph.Graph) {
			w, s := g.Variable("w", vars[0].Type), g.Variable("s", vars[1].Type)
			x := g.Input("x", graph.T(dtype.F32, rows, 40))
			scaled := op.Mul(w, op.Exp(s))
			g.Output("y", op.MatMul(x, scaled))            // packed, if the rows are few
			g.Output("turned", op.Transpose(scaled, 1, 0)) // itself an output
			g.Output("z", op.MatMul(op.MatMul(x, scaled), op.Transpose(w, 1, 0)))
			wide := op.Convert(g.Variable("tiny", vars[2].Type), dtype.F32) // takes more memory than what it is made of
			g.Output("sum", op.Add(op.SumAll(wide), op.SumAll(x)))
			g.Update(s, op.Mul(s, op.Like(s, 1)))
		})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	still := func(rows int) *graph.Graph { // the same, but nothing changes s
		g, err := graph.Rewrite(program(rows), func(to *graph.Graph, n *graph.Node, in []*graph.Node) *graph.Node { return nil })
		if err != nil {
			t.Fatal(err)
		}
		h, err := graph.Build(func(to *graph.Graph) {
			m := graph.Inline(to, g, nil, nil)
			for _, o := range g.Outputs() {
				to.Output(o.Name, m[o.Node.ID()])
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	host, err := backend.NewHost(vars)
	if err != nil {
		t.Fatal(err)
	}
	oracle, err := backend.NewHost(vars)
	if err != nil {
		t.Fatal(err)
	}
	set := func(name string, seed float64) {
		for _, v := range vars {
			if v.Name == name {
				x := tensor.New(v.Type.DType, v.Type.Shape...)
				for i := range x.Len() {
					x.Set(i, float64((i*7+int(seed*13))%11)/8-seed/4)
				}
				if err := host.Set(name, x); err != nil {
					t.Fatal(err)
				}
				if err := oracle.Set(name, x); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for i, v := range vars {
		set(v.Name, float64(i))
	}
	type pair struct {
		got, want backend.Executable
		in        []*tensor.Tensor
		g         *graph.Graph
	}
	var programs []pair
	for _, g := range []*graph.Graph{still(3), still(9), program(9)} {
		got, err := cpu.Backend{}.Compile(g, host, backend.Options{Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		want, err := ref.Backend{}.Compile(g, oracle, backend.Options{})
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, pair{got, want, backendtest.Operands(graph.Sample{In: []graph.Type{g.Inputs()[0].Type()}}, 5), g})
	}
	check := func(what string, programs ...pair) {
		t.Helper()
		for i, p := range programs {
			got, want := backend.NewOutputs(p.g), backend.NewOutputs(p.g)
			if err := p.got.Run(p.in, got); err != nil {
				t.Fatal(err)
			}
			if err := p.want.Run(p.in, want); err != nil {
				t.Fatal(err)
			}
			for j := range want {
				if err := backendtest.Close(got[j], want[j], 1e-4); err != nil {
					t.Errorf("%s, program %d, output %s: %v", what, i, p.g.Outputs()[j].Name, err)
				}
			}
		}
	}
	calls := func(i int) (products, others int64) {
		for _, n := range programs[i].got.Profile() {
			switch n.Node.Op() {
			case op.DotOp:
				products = max(products, n.Calls)
			case op.TransposeOp, op.RegionOp:
				if n.Node.DType() == dtype.F32 && len(n.Node.Shape()) == 2 && n.Node.Shape().Size() == 24*40 {
					others = max(others, n.Calls)
				}
			}
		}
		return products, others
	}
	check("first", programs[:2]...)
	check("second", programs[:2]...)
	for i, want := range []int64{1, 0} { // the second program finds what the first has computed
		if products, others := calls(i); products != 2 || others != want {
			t.Errorf("program %d: products ran %d times, what they are made of %d times, want 2 and %d", i, products, others, want)
		}
	}
	check("the third changes s", programs...)
	check("and again", programs...)
	if products, others := calls(2); products != 2 || others != 2 {
		t.Errorf("program 2: products ran %d times, what they are made of %d times, want 2 and 2", products, others)
	}
	for i, v := range vars {
		set(v.Name, float64(i)+0.5)
		check(fmt.Sprint("after a change of ", v.Name), programs...)
	}
	if _, others := calls(0); others < 3 {
		t.Errorf("what follows from w and s ran %d times after both have changed", others)
	}
}

// A convolution and the normalisation behind it, outside training, run as one kernel with its bias and rectifier.
func TestFoldedNormalisation(t *testing.T) {
	vec := graph.T(dtype.F32, 32)
	g, err := graph.Build(func(g *graph.Graph) {
		y := op.Conv(g.Input("x", graph.T(dtype.F32, 2, 12, 12, 16)), g.Variable("w", graph.T(dtype.F32, 3, 3, 16, 32)), op.ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1})
		gamma, beta, mean, variance := g.Variable("gamma", vec), g.Variable("beta", vec), g.Variable("mean", vec), g.Variable("variance", vec)
		y = op.Add(op.Mul(op.Sub(y, mean), op.Mul(gamma, op.Rsqrt(op.Add(variance, op.Like(variance, 1e-3))))), beta)
		g.Output("y", op.Relu(y))
	})
	if err != nil {
		t.Fatal(err)
	}
	vars := backendtest.Vars(g)
	in := backendtest.Operands(graph.Sample{In: []graph.Type{g.Inputs()[0].Type()}}, 5)
	var outs [2][]*tensor.Tensor
	for i, b := range []backend.Backend{ref.Backend{}, cpu.Backend{}} {
		host, err := backend.NewHost(vars)
		if err != nil {
			t.Fatal(err)
		}
		e, err := b.Compile(g, host, backend.Options{Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		outs[i] = backend.NewOutputs(g)
		for round := range 3 {
			for j, v := range vars {
				if round == 1 { // nothing has changed
					break
				}
				x := tensor.New(v.Type.DType, v.Type.Shape...)
				for k := range x.Len() {
					x.Set(k, float64((k*7+j*5+round*3)%11)/8+0.1)
				}
				if err := host.Set(v.Name, x); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.Run(in, outs[i]); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 {
			continue
		}
		for _, n := range e.Profile() {
			want := int64(2)
			if n.Node.Op() == op.ConvActOp {
				want = 3
			}
			if n.Calls != want {
				t.Errorf("%s ran %d times in 3 runs, want %d", n.Kernel, n.Calls, want)
			}
		}
	}
	if err := backendtest.Close(outs[1][0], outs[0][0], 1e-4); err != nil {
		t.Error(err)
	}
}
