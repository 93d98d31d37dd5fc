package op_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/cost"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// shiftAttrs are the attributes of the toy ops.
type shiftAttrs struct{ By float64 }

func shiftInfer(_ shiftAttrs, in []graph.Type) ([]graph.Type, error) {
	if len(in) != 1 || !in[0].DType.IsFloat() {
		return nil, fmt.Errorf("takes one float operand, not %v", in)
	}
	return in, nil
}

// Toy ops as a program would define them, each one literal outside package op: a primitive, (x + By)³, whose gradient is composed of ops of the
// table; the same thing composed; and one that only moves elements.
var (
	cubeOp = op.Define(op.Def[shiftAttrs]{
		Name: "toy.cube", Doc: "(x + by) to the third power", Why: "to show that a program can define one", Kind: graph.Elementwise,
		Infer: shiftInfer,
		Ref: func(a shiftAttrs, in, out []graph.Value) {
			for i, x := range in[0].Data {
				out[0].Data[i] = math.Pow(x+a.By, 3)
			}
		},
		Grad: func(a shiftAttrs, n *graph.Node, d []*graph.Node) []*graph.Node {
			s := op.Add(n.Input(0), op.Like(n, a.By))
			return []*graph.Node{op.Mul(d[0], op.Mul(op.Like(n, 3), op.Mul(s, s)))}
		},
		FLOPs: func(_ shiftAttrs, in, _ []graph.Type) int64 { return 3 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{
			{Name: "f32", Attrs: shiftAttrs{0.5}, In: []graph.Type{graph.T(dtype.F32, 5, 37)}},
			{Name: "ints", Attrs: shiftAttrs{}, In: []graph.Type{graph.T(dtype.I32, 3)}, Bad: "takes one float"},
		},
	})
	composedCubeOp = op.Define(op.Def[shiftAttrs]{
		Name: "toy.cube2", Doc: "(x + by) to the third power, composed", Kind: graph.Elementwise,
		Infer: shiftInfer,
		Decompose: func(a shiftAttrs, in []*graph.Node) []*graph.Node {
			s := op.Add(in[0], op.Like(in[0], a.By))
			return []*graph.Node{op.Mul(s, op.Mul(s, s))}
		},
		Samples: []graph.Sample{{Name: "f32", Attrs: shiftAttrs{0.5}, In: []graph.Type{graph.T(dtype.F32, 5, 37)}}},
	})
	// swapOp is of no kind that can be fused, so backend/cpu runs it on its reference.
	swapOp = op.Define(op.Def[struct{}]{
		Name: "toy.swap", Doc: "the two halves of a vector, swapped", Why: "to show one without attributes", Kind: graph.Movement,
		Infer: func(_ struct{}, in []graph.Type) ([]graph.Type, error) {
			if len(in) != 1 || len(in[0].Shape) != 1 || in[0].Shape[0]%2 != 0 {
				return nil, fmt.Errorf("takes one vector of even length, not %v", in)
			}
			return in, nil
		},
		Ref: func(_ struct{}, in, out []graph.Value) {
			n := len(in[0].Data) / 2
			copy(out[0].Data, in[0].Data[n:])
			copy(out[0].Data[n:], in[0].Data[:n])
		},
		NoGrad:  "left out, to show that the reason is listed",
		Samples: []graph.Sample{{Name: "f32", In: []graph.Type{graph.T(dtype.F32, 34)}}, {Name: "odd", In: []graph.Type{graph.T(dtype.F32, 3)}, Bad: "even length"}},
	})
)

// An op that a program defines is differentiated, run on both backends, priced, printed, parsed and listed like those of the table, and stays out of it.
func TestDefineOutsideTheTable(t *testing.T) {
	before := len(op.All())
	own := []*graph.Op{cubeOp, composedCubeOp, swapOp}
	lookup := func(name string) *graph.Op {
		for _, o := range own {
			if o.Name == name {
				return o
			}
		}
		return op.Lookup(name)
	}
	for _, o := range own {
		backendtest.Gradients(t, o) // to order 2, against differences
		backendtest.Op(t, cpu.Backend{}, o, 1, 2, 3)
		for _, s := range o.Samples {
			backendtest.Constructs(t, o, s, ref.Backend{})
		}
		if op.Lookup(o.Name) != nil || slices.Contains(op.All(), o) {
			t.Errorf("%s joined the table", o.Name)
		}
	}
	if len(op.All()) != before {
		t.Error("the table grew")
	}

	// One program: a loss of the toy ops, its value and gradient with known numbers, on each backend.
	x := tensor.Of([]float32{-1, 0.5, 2})
	g, err := graph.Build(func(g *graph.Graph) {
		n := g.Input("x", graph.T(dtype.F32, 3))
		y := op.Add(op.Apply(cubeOp, shiftAttrs{0.5}, n), op.Apply(composedCubeOp, shiftAttrs{0.5}, n))
		loss := op.SumAll(y)
		g.Output("loss", loss)
		g.Output("dx", grad.Of(loss, n)[0])
	})
	if err != nil {
		t.Fatal(err)
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
		// 2·((-½)³ + 1³ + 2.5³) and 6·(x + ½)², exact in f32
		if err := backendtest.Close(out[0], tensor.Scalar[float32](33), 1e-6); err != nil {
			t.Errorf("%s: loss: %v", b.Name(), err)
		}
		if err := backendtest.Close(out[1], tensor.Of([]float32{1.5, 6, 37.5}), 1e-6); err != nil {
			t.Errorf("%s: gradient: %v", b.Name(), err)
		}
	}

	one, err := backendtest.Single(cubeOp, shiftAttrs{0.5}, []graph.Type{graph.T(dtype.F32, 5, 7)})
	if err != nil {
		t.Fatal(err)
	}
	if c := cost.Graph(one); c.FLOPs != 3*35 || c.Read != 4*35 || c.Written != 4*35 {
		t.Errorf("(x + by)³ of 35 elements costs %+v", c)
	}

	for _, g := range []*graph.Graph{g, one} {
		text := graph.Print(g)
		if !strings.Contains(text, `toy.cube(%0) {"By":0.5}`) {
			t.Errorf("printed as\n%s", text)
		}
		back, err := graph.Parse(text, lookup)
		if err != nil || graph.Print(back) != text {
			t.Errorf("does not read back: %v\n%s", err, text)
		}
		if _, err := graph.Parse(text, op.Lookup); err == nil || !strings.Contains(err.Error(), `unknown op "toy.cube"`) {
			t.Errorf("a lookup that does not know the op gives %v", err)
		}
	}

	for _, c := range []struct {
		o                         *graph.Op
		definition, gradient, cpu string
	}{
		{cubeOp, "primitive: to show that a program can define one", "rule", "elementwise region"},
		{composedCubeOp, "composed", "through its composition", "decomposed"},
		{swapOp, "primitive: to show one without attributes", "none: left out, to show that the reason is listed", "reference"},
	} {
		d := op.Describe(c.o)
		if d.Name != c.o.Name || d.Doc != c.o.Doc || d.Definition != c.definition || d.Gradient != c.gradient || cpu.Support(c.o) != c.cpu {
			t.Errorf("listed as %+v, %s", d, cpu.Support(c.o))
		}
	}
}

// A literal that no op can do without is refused at once, with what is missing.
func TestDefineRefuses(t *testing.T) {
	whole := func() op.Def[struct{}] {
		return op.Def[struct{}]{
			Name: "toy", Infer: func(_ struct{}, in []graph.Type) ([]graph.Type, error) { return in, nil },
			Ref: func(_ struct{}, in, out []graph.Value) { copy(out[0].Data, in[0].Data) },
		}
	}
	for want, spoil := range map[string]func(d *op.Def[struct{}]){
		"not \"\"":                  func(d *op.Def[struct{}]) { d.Name = "" },
		"not \"a(b\"":               func(d *op.Def[struct{}]) { d.Name = "a(b" },
		"has no Infer":              func(d *op.Def[struct{}]) { d.Infer = nil },
		"neither Ref nor Decompose": func(d *op.Def[struct{}]) { d.Ref = nil },
	} {
		func() {
			defer func() {
				if r := fmt.Sprint(recover()); !strings.Contains(r, want) {
					t.Errorf("want a panic with %q, not %q", want, r)
				}
			}()
			d := whole()
			spoil(&d)
			op.Define(d)
		}()
	}
	op.Define(whole())
}
