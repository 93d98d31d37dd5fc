package cpu

import (
	"fmt"
	"slices"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/shape"
)

func init() {
	rows[op.DotOp] = []row{
		{name: "gemm", ok: func(n *graph.Node) bool { _, ok := matrices(n); return ok && allF32(n) }, make: makeDot},
		elements[dtype.BFloat16, float32](makeBF16Dot),
		elements[int8, int32](makeInt8Dot), elements[uint8, int32](makeUint8Dot),
		elements[float64, float64](makePlainDot[float64]), elements[int8, int8](makePlainDot[int8]), elements[uint8, uint8](makePlainDot[uint8]),
		elements[int32, int32](makePlainDot[int32]), elements[int64, int64](makePlainDot[int64]),
	}
	rows[op.LinearOp] = []row{{name: "gemm", ok: allF32, make: makeLinear}}
}

// product is a dot_general seen as a batch of matrix products.
type product struct {
	batch, m, n, k int
	transA, transB bool
}

// matrices sees a dot_general as a batch of matrix products over operands as they lie in memory: batch axes first, then rows and columns,
// either way around. ok is false where an operand would have to be transposed first.
func matrices(n *graph.Node) (p product, ok bool) {
	a := n.Attrs().(op.DotAttrs)
	x, y := n.Input(0).Shape(), n.Input(1).Shape()
	if x.Size() == 0 || y.Size() == 0 {
		return p, false
	}
	fx, fy := op.Free(len(x), a.BatchA, a.ContractA), op.Free(len(y), a.BatchB, a.ContractB)
	if !leading(a.BatchA) || !leading(a.BatchB) {
		return p, false
	}
	var okA, okB bool
	p.transA, okA = inOrder(fx, a.ContractA)
	p.transB, okB = inOrder(a.ContractB, fy)
	p.batch, p.m, p.n, p.k = size(x, a.BatchA), size(x, fx), size(y, fy), size(x, a.ContractA)
	return p, okA && okB
}

func leading(axes []int) bool {
	for i, a := range axes {
		if a != i {
			return false
		}
	}
	return true
}

// inOrder reports whether axes lie in memory as first… second… (or, swapped, second… first…), each group in the given order.
func inOrder(first, second []int) (swapped, ok bool) {
	if slices.IsSorted(append(slices.Clone(first), second...)) {
		return false, true
	}
	return true, slices.IsSorted(append(slices.Clone(second), first...))
}

func size(sh shape.Shape, axes []int) int {
	n := 1
	for _, a := range axes {
		n *= sh[a]
	}
	return n
}

// canonical transposes the operands of dot_general nodes that matrices does not accept; part of pass expand.
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
	p, _ := matrices(k.n)
	s := gemm.Spec{M: p.m, N: p.n, K: p.k, TransA: p.transA, TransB: p.transB, Batch: p.batch, StrideA: p.m * p.k, StrideB: p.k * p.n, StrideC: p.m * p.n}
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
	v, constant := k.c.constant(b)
	vars, fixed := k.c.variables(b)
	if !fixed || s.Batch > 1 || s.TransA || s.M < fewestPacked || s.M > mostPacked {
		p := gemm.New(s)
		return p.String(), func(a, c, bias []float32) { p.Run(k.pool, a, b.f32(), c, bias, nil) }
	}
	s.PackedB, s.StrideB = true, 0
	p := gemm.New(s)
	if !constant { // it is made of variables: packed for this program alone
		data, seen := make([]float32, p.PackedLen()), k.c.host.Watch(vars...)
		k.scratch += 4 * int64(len(data))
		return p.String(), func(a, c, bias []float32) {
			if seen.Changed() {
				p.PackB(data, b.f32())
			}
			p.Run(k.pool, a, data, c, bias, nil)
		}
	}
	d := k.c.host.Derive(v, fmt.Sprintf("panels %dx%d %v %v", s.K, s.N, s.TransB, isa.Current()), p.PackedLen())
	fill := func(data []float32) { p.PackB(data, b.f32()) }
	return p.String(), func(a, c, bias []float32) {
		d.Fresh(fill)
		p.Run(k.pool, a, d.Data, c, bias, nil)
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
	_, ok := matrices(n)
	return !ok
}
