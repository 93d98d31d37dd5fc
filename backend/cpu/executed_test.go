package cpu_test

import (
	"testing"

	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/op"
)

// What a node has cost is the arithmetic of its kernel: Winograd's algorithm takes less than the formula.
func TestExecutedArithmetic(t *testing.T) {
	g, err := graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.T(dtype.F32, 2, 18, 18, 32))
		w := g.Variable("w", graph.T(dtype.F32, 3, 3, 32, 32))
		g.Output("y", op.Conv(x, w, op.ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1}))
	})
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := compiled(g, cpu.Backend{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range e.Profile() {
		if n.Kernel != "winograd" {
			continue
		}
		if c := n.Cost(); c.FLOPs != 2*2*16*16*32*9*32 || c.Executed >= c.FLOPs || c.Executed < c.FLOPs/4 {
			t.Errorf("cost %+v", c)
		}
		return
	}
	t.Errorf("no convolution by Winograd's algorithm: %+v", e.Profile())
}

// With AVX2 so does that on bytes.
func TestExecutedOnBytes(t *testing.T) {
	defer isa.Use(isa.AVX2)()
	if isa.Current() != isa.AVX2 {
		t.Skip("no AVX2")
	}
	g, err := graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.T(dtype.U8, 2, 18, 18, 32))
		w := g.Variable("w", graph.T(dtype.I8, 3, 3, 32, 32))
		scale, offset := g.Variable("scale", graph.T(dtype.F32, 32)), g.Variable("offset", graph.T(dtype.F32, 32))
		g.Output("y", op.QConv(x, w, scale, offset, op.QAttrs{Conv: op.ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1}}))
	})
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := compiled(g, cpu.Backend{})
	if err != nil {
		t.Fatal(err)
	}
	n := e.Profile()[0]
	// Of the products there are a quarter, and the transforms.
	if c := n.Cost(); n.Kernel != "winograd on bytes" || c.Int8 != c.Executed || c.Executed >= c.FLOPs/2 || c.Executed < c.FLOPs/4 {
		t.Errorf("%s: cost %+v", n.Kernel, c)
	}
}

// A product of f32 on AMX is six products of bf16, and charged as such.
func TestExecutedInParts(t *testing.T) {
	if !isa.AMX() {
		t.Skip("no AMX")
	}
	g, err := graph.Build(func(g *graph.Graph) {
		x, w := g.Input("x", graph.T(dtype.F32, 512, 512)), g.Input("w", graph.T(dtype.F32, 512, 512))
		g.Output("y", op.MatMul(x, w))
	})
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := compiled(g, cpu.Backend{})
	if err != nil {
		t.Fatal(err)
	}
	const flops = 2 * 512 * 512 * 512
	if c := e.Profile()[0].Cost(); c.FLOPs != flops || c.Executed != 6*flops || c.BF16 != 6*flops {
		t.Errorf("%s: cost %+v", e.Profile()[0].Kernel, c)
	}
}

// So is a convolution whose filter is one pixel, in all three directions.
func TestExecutedConvolutionInParts(t *testing.T) {
	if !isa.AMX() {
		t.Skip("no AMX")
	}
	a := op.ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1}
	g, err := graph.Build(func(g *graph.Graph) {
		x, w := g.Input("x", graph.T(dtype.F32, 2, 16, 16, 512)), g.Input("w", graph.T(dtype.F32, 1, 1, 512, 512))
		y := op.Conv(x, w, a)
		g.Output("y", y)
		d := grad.Of(op.SumAll(op.Mul(y, y)), x, w)
		g.Output("dx", d[0])
		g.Output("dw", d[1])
	})
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := compiled(g, cpu.Backend{})
	if err != nil {
		t.Fatal(err)
	}
	const flops = 2 * 512 * 512 * 512
	found := 0
	for _, n := range e.Profile() {
		if n.Kernel != "product on AMX" {
			continue
		}
		found++
		if c := n.Cost(); c.FLOPs != flops || c.Executed != 6*flops || c.BF16 != 6*flops {
			t.Errorf("%s: cost %+v", n.Kernel, c)
		}
	}
	if found != 3 {
		t.Errorf("%d products on AMX, want 3: %+v", found, e.Profile())
	}
}
