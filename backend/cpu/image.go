package cpu

import (
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/kernel/conv"
	"github.com/jouleml/joule/internal/kernel/pool"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/shape"
)

func init() {
	filled := func(n *graph.Node) bool { // kernels take no empty images
		for _, x := range n.Inputs() {
			if x.Shape().Size() == 0 {
				return false
			}
		}
		return allF32(n)
	}
	rows[op.ConvOp] = []row{{name: "conv", ok: filled, make: func(k *call) (string, func(), error) {
		p := conv.New(convSpec(k.n.Attrs().(op.ConvAttrs), k.n.Input(0).Shape(), k.n.Input(1).Shape()))
		x, w, y := k.in[0], k.filters(k.in[1], p.SetFilter), k.out[0]
		return k.convolves(p, conv.Forward), func() { p.Forward(k.pool, x.f32(), w(), nil, y.f32()) }, nil
	}}}
	rows[op.ConvActOp] = []row{{name: "conv", ok: filled, make: func(k *call) (string, func(), error) {
		a := k.n.Attrs().(op.ConvActAttrs)
		s := convSpec(a.Conv, k.n.Input(0).Shape(), k.n.Input(1).Shape())
		s.Epilogue.Bias = true
		if a.Act == "relu" {
			s.Epilogue.Act = conv.ReLU
		}
		p := conv.New(s)
		x, w, b, y := k.in[0], k.filters(k.in[1], p.SetFilter), k.in[2], k.out[0]
		return k.convolves(p, conv.Forward), func() { p.Forward(k.pool, x.f32(), w(), b.f32(), y.f32()) }, nil
	}}}
	rows[op.ConvInputGradOp] = []row{{name: "conv", ok: filled, make: func(k *call) (string, func(), error) {
		p := conv.New(convSpec(k.n.Attrs().(op.ConvAttrs), k.n.Shape(), k.n.Input(1).Shape()))
		d, w, dx := k.in[0], k.in[1], k.out[0]
		return k.convolves(p, conv.BackwardInput), func() { p.BackwardInput(k.pool, w.f32(), d.f32(), dx.f32()) }, nil
	}}}
	rows[op.ConvFilterGradOp] = []row{{name: "conv", ok: filled, make: func(k *call) (string, func(), error) {
		p := conv.New(convSpec(k.n.Attrs().(op.ConvAttrs), k.n.Input(0).Shape(), k.n.Shape()))
		x, d, dw := k.in[0], k.in[1], k.out[0]
		return k.convolves(p, conv.BackwardFilter), func() { p.BackwardFilter(k.pool, x.f32(), d.f32(), dw.f32()) }, nil
	}}}

	pooling := func(o *graph.Op, name string, image func(n *graph.Node) shape.Shape, run func(p *pool.Plan, k *call) func()) {
		rows[o] = []row{{name: name, ok: filled, make: func(k *call) (string, func(), error) {
			p := pool.New(poolSpec(k.n.Attrs().(op.PoolAttrs), image(k.n)))
			return name, run(p, k), nil
		}}}
	}
	first := func(n *graph.Node) shape.Shape { return n.Input(0).Shape() }
	pooling(op.MaxPoolOp, "max pool", first, func(p *pool.Plan, k *call) func() {
		x, y := k.in[0], k.out[0]
		return func() { p.MaxForward(k.pool, x.f32(), y.f32()) }
	})
	pooling(op.MaxPoolGradOp, "max pool gradient", first, func(p *pool.Plan, k *call) func() {
		x, d, dx := k.in[0], k.in[1], k.out[0]
		return func() { p.MaxBackward(k.pool, x.f32(), d.f32(), dx.f32()) }
	})
	pooling(op.MaxPoolPickOp, "max pool pick", first, func(p *pool.Plan, k *call) func() {
		x, v, y := k.in[0], k.in[1], k.out[0]
		return func() { p.MaxPick(k.pool, x.f32(), v.f32(), y.f32()) }
	})
	pooling(op.AvgPoolOp, "average pool", first, func(p *pool.Plan, k *call) func() {
		x, y := k.in[0], k.out[0]
		return func() { p.AvgForward(k.pool, x.f32(), y.f32()) }
	})
	pooling(op.AvgPoolGradOp, "average pool gradient", (*graph.Node).Shape, func(p *pool.Plan, k *call) func() {
		d, dx := k.in[0], k.out[0]
		return func() { p.AvgBackward(k.pool, d.f32(), dx.f32()) }
	})
}

// convolves says what a convolution in direction d costs, gives it memory, and names its algorithm.
func (k *call) convolves(p *conv.Plan, d conv.Direction) string {
	k.executed, k.bf16 = p.Executed(d), p.BF16(d)
	if n := p.Scratch(d, k.pool.Threads()); n > 0 {
		p.Lend(d, k.c.share(n))
	}
	return p.Algorithm(d)
}

// filters gives a convolution its filters. Those that the graph does not change are set, which transforms them, at the first run and when a variable that they follow from has changed; the kernel is then
// given nil, which stands for the filters last set.
func (k *call) filters(w *buf, set func(pool *par.Pool, w []float32)) func() []float32 {
	vars, ok := k.c.variables(w)
	if !ok {
		return w.f32
	}
	seen := k.c.host.Watch(vars...)
	return func() []float32 {
		if seen.Changed() {
			set(k.pool, w.f32())
		}
		return nil
	}
}

// convSpec is a convolution of images x [N H W C] with filters w [KH KW C/groups O] as the kernel package has it.
func convSpec(a op.ConvAttrs, x, w shape.Shape) conv.Spec {
	return conv.Spec{
		N: x[0], H: x[1], W: x[2], Cin: x[3], Cout: w[3], KH: w[0], KW: w[1],
		StrideH: a.Stride[0], StrideW: a.Stride[1], DilH: a.Dilation[0], DilW: a.Dilation[1], Groups: a.Groups,
		PadTop: a.Pad[0][0], PadBottom: a.Pad[0][1], PadLeft: a.Pad[1][0], PadRight: a.Pad[1][1],
	}
}

func poolSpec(a op.PoolAttrs, x shape.Shape) pool.Spec {
	return pool.Spec{
		N: x[0], H: x[1], W: x[2], C: x[3], KH: a.Window[0], KW: a.Window[1], StrideH: a.Stride[0], StrideW: a.Stride[1],
		PadTop: a.Pad[0][0], PadBottom: a.Pad[0][1], PadLeft: a.Pad[1][0], PadRight: a.Pad[1][1], CountPad: a.CountPad,
	}
}
