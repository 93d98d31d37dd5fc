package cpu

import (
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/kernel/convpool"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/shape"
)

func init() {
	rows[op.ConvPoolOp] = []row{{name: "conv pool", ok: func(n *graph.Node) bool {
		return fitsConvPool(n.Attrs().(op.ConvPoolAttrs), n.Input(0).Type(), n.Input(1).Type())
	}, make: func(k *call) (string, func(), error) {
		p := convpool.New(convPoolSpec(k.in[0].t.Shape, k.in[1].t.Shape))
		x, w, b, y, idx := k.in[0], k.filters(k.in[1], p.SetFilter), k.in[2], k.out[0], k.out[1]
		positions := k.c.reads(k.n, 1)
		name, _ := p.Algorithm()
		k.executed, _ = p.Executed()
		return name, func() {
			if positions {
				p.Forward(k.pool, x.f32(), w(), b.f32(), y.f32(), idx.raw)
			} else {
				p.Forward(k.pool, x.f32(), w(), b.f32(), y.f32(), nil)
			}
		}, nil
	}}}
	rows[op.ConvPoolFilterGradOp] = []row{{name: "conv pool", ok: func(n *graph.Node) bool {
		return fitsConvPool(n.Attrs().(op.ConvPoolAttrs), n.Input(0).Type(), n.Types()[0])
	}, make: func(k *call) (string, func(), error) {
		p := convpool.New(convPoolSpec(k.in[0].t.Shape, k.out[0].t.Shape))
		x, idx, dy, dw, db := k.in[0], k.in[1], k.in[2], k.out[0], k.out[1]
		_, name := p.Algorithm()
		_, k.executed = p.Executed()
		return name, func() { p.BackwardFilter(k.pool, x.f32(), idx.raw, dy.f32(), dw.f32(), db.f32()) }, nil
	}}}
	rows[op.ConvPoolInputGradOp] = []row{{name: "conv pool", ok: func(n *graph.Node) bool {
		return fitsConvPool(n.Attrs().(op.ConvPoolAttrs), n.Type(), n.Input(2).Type())
	}, make: func(k *call) (string, func(), error) {
		p := convpool.New(convPoolSpec(k.out[0].t.Shape, k.in[2].t.Shape))
		idx, dy, w, dx := k.in[0], k.in[1], k.in[2], k.out[0]
		_, k.executed = p.Executed()
		return "lists of pixels", func() { p.BackwardInput(k.pool, w.f32(), idx.raw, dy.f32(), dx.f32()) }, nil
	}}}
}

func convPoolSpec(x, w shape.Shape) convpool.Spec {
	return convpool.Spec{N: x[0], H: x[1], W: x[2], Cin: x[3], Cout: w[3], KH: w[0], KW: w[1]}
}

// fitsConvPool reports whether the fused kernels can compute a convolution and pooling.
func fitsConvPool(a op.ConvPoolAttrs, x, w graph.Type) bool {
	c, one, two := a.Conv, [2]int{1, 1}, [2]int{2, 2}
	return c.Stride == one && c.Dilation == one && c.Pad == ([2][2]int{}) && c.Groups == 1 && a.Pool.Window == two && a.Pool.Stride == two &&
		w.Shape[0] == 3 && w.Shape[1] == 3 && x.DType == w.DType && x.Shape.Size() > 0
}

// takesConvPool reports whether fusing them pays: pass convpool asks.
func takesConvPool(a op.ConvPoolAttrs, x, w graph.Type) bool {
	return fitsConvPool(a, x, w) && convpool.Supported(convPoolSpec(x.Shape, w.Shape))
}

// reads reports whether a live node or the graph's outside reads result i of n.
func (c *compiler) reads(n *graph.Node, i int) bool {
	for _, m := range c.g.Nodes() {
		if c.live[m.ID()] && m.Op() == graph.OpPart && m.Input(0) == n && m.Attrs().(graph.PartAttrs).Index == i {
			return true
		}
	}
	return false
}
