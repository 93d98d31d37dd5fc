package cpu

import (
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/shape"
)

func init() {
	rows[op.DotOp] = []row{{name: "gemm", ok: func(n *graph.Node) bool { _, ok := matrices(n); return ok && allF32(n) }, make: makeDot}}
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
	p.transA, okA = order(fx, a.ContractA)
	p.transB, okB = order(a.ContractB, fy)
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

// order reports whether axes lie in memory as first… second… (or, swapped, second… first…), each group in the given order.
func order(first, second []int) (swapped, ok bool) {
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
	b := op.DotAttrs{}
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
	pl := gemm.New(gemm.Spec{M: p.m, N: p.n, K: p.k, TransA: p.transA, TransB: p.transB, Batch: p.batch, StrideA: p.m * p.k, StrideB: p.k * p.n, StrideC: p.m * p.n})
	a, b, c := k.in[0], k.in[1], k.out[0]
	return pl.String(), func() { pl.Run(k.pool, a.f32(), b.f32(), c.f32(), nil, nil) }, nil
}

func makeLinear(k *call) (string, func(), error) {
	x, w := k.n.Input(0).Shape(), k.n.Input(1).Shape()
	s := gemm.Spec{M: x[0], N: w[1], K: x[1], Bias: true}
	if k.n.Attrs().(op.ActAttrs).Act == "relu" {
		s.Act = gemm.ReLU
	}
	pl := gemm.New(s)
	a, b, bias, c := k.in[0], k.in[1], k.in[2], k.out[0]
	return pl.String(), func() { pl.Run(k.pool, a.f32(), b.f32(), c.f32(), bias.f32(), nil) }, nil
}

// needsTranspose reports whether pass expand must bring a product into canonical form.
func needsTranspose(n *graph.Node) bool {
	if n.Op() != op.DotOp || n.DType() != dtype.F32 || n.Input(0).Shape().Size() == 0 || n.Input(1).Shape().Size() == 0 {
		return false
	}
	_, ok := matrices(n)
	return !ok
}
