package cpu

import (
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/kernel/reduce"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/shape"
)

func init() {
	for o, k := range map[*graph.Op]reduce.Op{op.SumOp: reduce.Sum, op.MaxReduceOp: reduce.Max, op.MinReduceOp: reduce.Min, op.ProdOp: reduce.Prod} {
		rows[o] = []row{{name: "reduce", ok: func(n *graph.Node) bool { _, ok := middle(n); return ok && allF32(n) }, make: func(c *call) (string, func(), error) {
			s, _ := middle(c.n)
			s.Op = k
			p := reduce.New(s)
			x, y := c.in[0], c.out[0]
			return "reduce " + k.String(), func() { p.Run(c.pool, y.f32(), x.f32()) }, nil
		}}}
	}
	rows[op.SoftmaxOp] = []row{{name: "softmax", ok: allF32, make: softmax(false)}}
	rows[op.LogSoftmaxOp] = []row{{name: "log_softmax", ok: allF32, make: softmax(true)}}
	f32Logits := func(n *graph.Node) bool { return n.Input(0).DType() == dtype.F32 }
	rows[op.SparseXentOp] = []row{{name: "cross-entropy", ok: f32Logits, make: makeXent}}
	rows[op.SparseXentGradOp] = []row{{name: "cross-entropy gradient", ok: f32Logits, make: makeXentGrad}}
	rows[op.XentPartOp] = []row{{name: "part of a cross-entropy", ok: f32Logits, make: makeXentPart}}
	rows[op.XentPartGradOp] = []row{{name: "gradient of a part of a cross-entropy", ok: f32Logits, make: makeXentPartGrad}}
	rows[op.ArgMaxOp] = []row{{name: "argmax", ok: f32Logits, make: makeArg(false)}}
	rows[op.ArgMinOp] = []row{{name: "argmin", ok: f32Logits, make: makeArg(true)}}
	rows[op.CumSumOp] = []row{{name: "cumsum", ok: allF32, make: makeCumSum}}
}

// middle sees a reduction as one of the middle axis of [outer, reduce, inner]; ok is false where the reduced axes are not together.
func middle(n *graph.Node) (s reduce.Spec, ok bool) {
	axes, sh := n.Attrs().(op.AxesAttrs).Axes, n.Input(0).Shape()
	if len(axes) == 0 {
		return s, false
	}
	first, last := axes[0], axes[len(axes)-1]
	for a := first; a <= last; a++ {
		if sh[a] != 1 && !slices.Contains(axes, a) {
			return s, false
		}
	}
	return reduce.Spec{Outer: sh[:first].Size(), Reduce: sh[first : last+1].Size(), Inner: sh[last+1:].Size()}, true
}

// splitReduction makes a reduction over axes that are not together of one for each run of neighbours, the last first; part of pass expand.
func splitReduction(n *graph.Node, in []*graph.Node) *graph.Node {
	axes := n.Attrs().(op.AxesAttrs).Axes
	y := in[0]
	for i := len(axes) - 1; i >= 0; {
		j := i
		for j > 0 && axes[j-1] == axes[j]-1 {
			j--
		}
		y = y.Graph().Apply(n.Op(), op.AxesAttrs{Axes: axes[j : i+1]}, y)
		i = j - 1
	}
	return y
}

// needsSplit reports whether pass expand must split a reduction.
func needsSplit(n *graph.Node) bool {
	switch n.Op() {
	case op.SumOp, op.MaxReduceOp, op.MinReduceOp, op.ProdOp:
		_, ok := middle(n)
		return !ok && len(n.Attrs().(op.AxesAttrs).Axes) > 1
	}
	return false
}

// rowsOf sees a shape as [rows, last axis].
func rowsOf(sh shape.Shape) (int, int) {
	return sh[:len(sh)-1].Size(), sh[len(sh)-1]
}

func softmax(log bool) func(k *call) (string, func(), error) {
	return func(k *call) (string, func(), error) {
		r, c := rowsOf(k.n.Shape())
		p := reduce.NewSoftmax(r, c, log)
		x, y := k.in[0], k.out[0]
		k.mayReplace(0, 0)
		return k.n.Op().Name, func() { p.Run(k.pool, y.f32(), x.f32()) }, nil
	}
}

func xentSpec(k *call) reduce.CrossEntropySpec {
	r, c := rowsOf(k.n.Input(0).Shape())
	a := k.n.Attrs().(op.XentAttrs)
	return reduce.CrossEntropySpec{Rows: r, Classes: c, Smoothing: float32(a.Smoothing), HasIgnore: a.UseIgnore, Ignore: a.Ignore}
}

func makeXent(k *call) (string, func(), error) {
	p := reduce.NewCrossEntropy(xentSpec(k))
	x, labels, y := k.in[0], k.in[1], k.out[0]
	return "cross-entropy", func() { p.Run(k.pool, y.f32(), nil, x.f32(), view[int32](labels), 1) }, nil
}

func makeXentGrad(k *call) (string, func(), error) {
	p := reduce.NewCrossEntropy(xentSpec(k))
	x, labels, d, y := k.in[0], k.in[1], k.in[2], k.out[0]
	k.mayReplace(0, 0)
	return "cross-entropy gradient", func() { p.RunEach(k.pool, nil, y.f32(), x.f32(), view[int32](labels), d.f32()) }, nil
}

func makeXentPart(k *call) (string, func(), error) {
	r, c := rowsOf(k.n.Input(0).Shape())
	p := reduce.NewPartEntropy(r, c)
	x, labels, y := k.in[0], k.in[1], k.out[0]
	return "part of a cross-entropy", func() { p.Run(k.pool, y.f32(), x.f32(), view[int32](labels)) }, nil
}

func makeXentPartGrad(k *call) (string, func(), error) {
	r, c := rowsOf(k.n.Input(0).Shape())
	p := reduce.NewPartEntropy(r, c)
	x, labels, stats, d, y := k.in[0], k.in[1], k.in[2], k.in[3], k.out[0]
	k.mayReplace(0, 0)
	return "gradient of a part of a cross-entropy", func() { p.Backward(k.pool, y.f32(), x.f32(), view[int32](labels), stats.f32(), d.f32()) }, nil
}

func makeArg(least bool) func(k *call) (string, func(), error) {
	return func(k *call) (string, func(), error) {
		s, a := k.in[0].t.Shape, k.n.Attrs().(op.AxisAttrs).Axis
		p := reduce.NewArg(s[:a].Size(), s[a], s[a+1:].Size(), least)
		x, y := k.in[0], k.out[0]
		return k.n.Op().Name, func() { p.Run(k.pool, view[int32](y), x.f32()) }, nil
	}
}

func makeCumSum(k *call) (string, func(), error) {
	s, a := k.in[0].t.Shape, k.n.Attrs().(op.CumSumAttrs)
	p := reduce.NewCumSum(s[:a.Axis].Size(), s[a.Axis], s[a.Axis+1:].Size(), a.Exclusive, a.Reverse)
	x, y := k.in[0], k.out[0]
	return "cumsum", func() { p.Run(k.pool, y.f32(), x.f32()) }, nil
}
