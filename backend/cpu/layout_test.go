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

// exported is a network for images [n c size size] with filters [O I KH KW], as a tool with that order writes it: every convolution stands between two transposes.
func exported(n, c, size, convs int) (*graph.Graph, error) {
	return graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.T(dtype.F32, n, c, size, size))
		for i := range convs {
			w, b := g.Variable(fmt.Sprint("w", i), graph.T(dtype.F32, c, c, 3, 3)), g.Variable(fmt.Sprint("b", i), graph.T(dtype.F32, c, 1, 1))
			y := op.Conv(op.Transpose(x, 0, 2, 3, 1), op.Transpose(w, 2, 3, 1, 0), op.ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1, Pad: [2][2]int{{1, 1}, {1, 1}}})
			y = op.Transpose(y, 0, 3, 1, 2)
			y = op.Relu(op.Add(y, op.BroadcastTo(b, y.Shape()...)))
			if i%2 == 1 {
				y = op.Add(y, x)
			}
			x = y
		}
		g.Output("y", op.Mean(x, 2, 3))
	})
}

// compiled compiles a graph for a backend, with all variables set to small numbers.
func compiled(g *graph.Graph, b backend.Backend) (backend.Executable, []*tensor.Tensor, error) {
	vars := backendtest.Vars(g)
	st, err := b.NewState(vars)
	if err != nil {
		return nil, nil, err
	}
	for i, v := range vars {
		x := tensor.New(v.Type.DType, v.Type.Shape...)
		for j := range x.Len() {
			x.Set(j, float64((j*7+i)%11-5)/50)
		}
		if err := st.Set(v.Name, x); err != nil {
			return nil, nil, err
		}
	}
	e, err := b.Compile(g, st, backend.Options{Threads: 2})
	return e, backendtest.Inputs(g, 5), err
}

// Of a network in another order of axes one transpose is left, of the images, and it says so; bias and rectifier run inside the convolutions.
func TestLayoutOfExportedNetwork(t *testing.T) {
	g, err := exported(2, 16, 8, 4)
	if err != nil {
		t.Fatal(err)
	}
	var outs [2][]*tensor.Tensor
	for i, b := range []backend.Backend{ref.Backend{}, cpu.Backend{}} {
		e, in, err := compiled(g, b)
		if err != nil {
			t.Fatal(err)
		}
		outs[i] = backend.NewOutputs(g)
		for range 2 {
			if err := e.Run(in, outs[i]); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 {
			continue
		}
		transposes, convolutions := 0, 0
		for _, n := range e.Profile() {
			switch {
			case n.Node.Op() == op.TransposeOp && n.Calls == 2:
				transposes++
			case n.Node.Op() == op.ConvActOp:
				convolutions++
			}
		}
		if transposes != 1 || convolutions != 4 {
			t.Errorf("%d transposes run each time and %d convolutions have their bias, want 1 and 4", transposes, convolutions)
		}
		image := int64(2 * 4 * 2 * 16 * 8 * 8) // bytes read and written for a transpose of the images
		if asked, left := e.(backend.Mover).Moved(); asked != 8*image || left != image {
			t.Errorf("%d bytes asked, %d left, want %d and %d", asked, left, 8*image, image)
		}
	}
	if err := backendtest.Close(outs[1][0], outs[0][0], 1e-5); err != nil {
		t.Error(err)
	}
}

// BenchmarkLayout is what the pass is worth: JOULE_DEBUG=pass=-layout,pass=-layout2 leaves it out.
func BenchmarkLayout(b *testing.B) {
	g, err := exported(8, 64, 32, 8)
	if err != nil {
		b.Fatal(err)
	}
	e, in, err := compiled(g, cpu.Backend{})
	if err != nil {
		b.Fatal(err)
	}
	out := backend.NewOutputs(g)
	for b.Loop() {
		if err := e.Run(in, out); err != nil {
			b.Fatal(err)
		}
	}
}
