package cpu

import (
	"fmt"
	"slices"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/kernel/tgemm"
	"github.com/jouleml/joule/op"
)

func init() {
	rows[op.DotOp] = []row{
		{name: "gemm", ok: func(n *graph.Node) bool { _, ok := op.Matrices(n); return ok && allF32(n) }, make: makeDot},
		elements[dtype.BFloat16, float32](makeBF16Dot),
		elements[int8, int32](makeIntDot), elements[uint8, int32](makeIntDot),
		elements[float64, float64](makePlainDot[float64]), elements[int8, int8](makePlainDot[int8]), elements[uint8, uint8](makePlainDot[uint8]),
		elements[int32, int32](makePlainDot[int32]), elements[int64, int64](makePlainDot[int64]),
	}
	rows[op.LinearOp] = []row{{name: "gemm", ok: allF32, make: makeLinear}}
}

// canonical transposes the operands of dot_general nodes that op.Matrices does not accept; part of pass expand.
func canonical(n *graph.Node, in []*graph.Node) *graph.Node {
	a := n.Attrs().(op.DotAttrs)
	x, y := in[0], in[1]
	fx, fy := op.Free(len(x.Shape()), a.BatchA, a.ContractA), op.Free(len(y.Shape()), a.BatchB, a.ContractB)
	x = op.Transpose(x, append(append(slices.Clone(a.BatchA), fx...), a.ContractA...)...)
	y = op.Transpose(y, append(append(slices.Clone(a.BatchB), a.ContractB...), fy...)...)
	b := op.DotAttrs{Out: a.Out}
	for i := range a.BatchA {
		b.BatchA, b.BatchB = append(b.BatchA, i), append(b.BatchB, i)
	}
	for i := range a.ContractA {
		b.ContractA = append(b.ContractA, len(a.BatchA)+len(fx)+i)
		b.ContractB = append(b.ContractB, len(a.BatchB)+i)
	}
	return op.Dot(x, y, b)
}

func makeDot(k *call) (string, func(), error) {
	p, _ := op.Matrices(k.n)
	s := gemm.Spec{M: p.M, N: p.N, K: p.K, TransA: p.TransA, TransB: p.TransB, Batch: p.Batch, StrideA: p.M * p.K, StrideB: p.K * p.N, StrideC: p.M * p.N}
	name, run := k.product(s)
	a, c := k.in[0], k.out[0]
	return name, func() { run(a.f32(), c.f32(), nil) }, nil
}

// Weights that the graph does not change are packed once for products of few rows, which would spend as much time on reading scattered rows as on arithmetic. With fewer
// rows than that reading them is all there is to do; with more, packing in the product costs little, and memory is saved.
const (
	fewestPacked = 5
	mostPacked   = 128
)

// product plans the product of a node's first two operands.
func (k *call) product(s gemm.Spec) (name string, run func(a, c, bias []float32)) {
	b := k.in[1]
	_, constant := k.c.constant(b)
	parts := s
	parts.PackedB = constant && s.Batch <= 1 && !s.TransA
	if p := tgemm.New(parts); p != nil {
		return k.threeParts(p)
	}
	if _, fixed := k.c.variables(b); !fixed || s.Batch > 1 || s.TransA || s.M < fewestPacked || s.M > mostPacked {
		p := gemm.New(s)
		return p.String(), func(a, c, bias []float32) { p.Run(k.pool, a, b.f32(), c, bias, nil) }
	}
	s.PackedB, s.StrideB = true, 0
	p := gemm.New(s)
	packed := k.derived(b, p.Layout(), p.PackedLen(), func(data []float32) { p.PackB(data, b.f32()) })
	return p.String(), func(a, c, bias []float32) { p.Run(k.pool, a, packed(), c, bias, nil) }
}

// threeParts is a product on a unit of bf16.
func (k *call) threeParts(p *tgemm.Plan) (name string, run func(a, c, bias []float32)) {
	b := k.in[1]
	scratch := k.c.share(p.Scratch(k.pool.Threads()))
	k.executed = p.Executed()
	k.bf16 = k.executed
	if !p.PackedB {
		return p.String(), func(a, c, bias []float32) { p.Run(k.pool, a, b.f32(), c, bias, *scratch) }
	}
	packed := k.derived(b, fmt.Sprintf("parts %dx%d %v", p.K, p.N, p.TransB), p.PackedLen(), func(data []float32) { p.PackB(words[uint32](data), b.f32(), *scratch) })
	return p.String(), func(a, c, bias []float32) { p.RunPacked(k.pool, a, words[uint32](packed()), c, bias, *scratch) }
}

// derived gives what fill makes of b in memory of n elements. That of a variable is made once and shared with programs that ask for the same, in the words of how; that of a value which follows
// from variables is made once for this program; and others' at each run.
func (k *call) derived(b *buf, how string, n int, fill func(data []float32)) func() []float32 {
	if v, ok := k.c.constant(b); ok {
		d := k.c.host.Derive(v, how, n)
		return func() []float32 {
			d.Fresh(fill)
			return d.Data
		}
	}
	own := make([]float32, n)
	k.scratch += 4 * int64(n)
	changed := func() bool { return true }
	if vars, ok := k.c.variables(b); ok {
		seen := k.c.host.Watch(vars...)
		changed = seen.Changed
	}
	return func() []float32 {
		if changed() {
			fill(own)
		}
		return own
	}
}

// constant reports whether a value is a variable, seen through reshapes, that no run of this graph changes.
func (c *compiler) constant(b *buf) (v backend.Var, ok bool) {
	n := c.root(b).node
	if n.Op() != graph.OpVariable {
		return v, false
	}
	for _, u := range c.g.Updates() {
		if u.Var == n {
			return v, false
		}
	}
	return backend.Var{Name: graph.NameOf(n), Type: n.Type()}, true
}

func makeLinear(k *call) (string, func(), error) {
	x, w := k.n.Input(0).Shape(), k.n.Input(1).Shape()
	s := gemm.Spec{M: x[0], N: w[1], K: x[1], Bias: true}
	if k.n.Attrs().(op.ActAttrs).Act == "relu" {
		s.Act = gemm.ReLU
	}
	name, run := k.product(s)
	a, bias, c := k.in[0], k.in[2], k.out[0]
	return name, func() { run(a.f32(), c.f32(), bias.f32()) }, nil
}

// needsTranspose reports whether pass expand must bring a product into canonical form.
func needsTranspose(n *graph.Node) bool {
	if n.Op() != op.DotOp || n.Input(0).Shape().Size() == 0 || n.Input(1).Shape().Size() == 0 {
		return false
	}
	_, ok := op.Matrices(n)
	return !ok
}
