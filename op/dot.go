package op

import (
	"fmt"
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/stablehlo"
)

// DotOp is the product over shared axes.
var DotOp *graph.Op

// DotAttrs are the attributes of DotOp: which axes of a and b run together (batch) and which are summed over (contract).
type DotAttrs struct {
	BatchA, BatchB, ContractA, ContractB []int
	// Out is the element type of the result: f32 of bf16 operands, i32 of 8-bit integers; Invalid is that of the operands.
	Out dtype.Type `json:",omitempty"`
}

// result is the element type of the product of elements of type t.
func (a DotAttrs) result(t dtype.Type) (dtype.Type, error) {
	switch {
	case a.Out == dtype.Invalid || a.Out == t:
		return t, nil
	case t == dtype.BF16 && a.Out == dtype.F32, (t == dtype.I8 || t == dtype.U8) && a.Out == dtype.I32:
		return a.Out, nil
	}
	return t, fmt.Errorf("products of %v cannot be added up to %v: only those of bf16 to f32, and those of i8 or u8 to i32", t, a.Out)
}

// Free gives the axes of a shape of the given rank that are in neither list.
func Free(rank int, batch, contract []int) []int {
	var out []int
	for i := range rank {
		if !slices.Contains(batch, i) && !slices.Contains(contract, i) {
			out = append(out, i)
		}
	}
	return out
}

// Product is a dot_general seen as a batch of matrix products.
type Product struct {
	Batch, M, N, K int
	TransA, TransB bool
}

// Matrices sees a dot_general as a batch of matrix products over operands as they lie in memory: batch axes first, then rows and columns, either way around. ok is
// false where an operand would have to be transposed first.
func Matrices(n *node) (p Product, ok bool) {
	a := n.Attrs().(DotAttrs)
	x, y := n.Input(0).Shape(), n.Input(1).Shape()
	if x.Size() == 0 || y.Size() == 0 {
		return p, false
	}
	fx, fy := Free(len(x), a.BatchA, a.ContractA), Free(len(y), a.BatchB, a.ContractB)
	if !leading(a.BatchA) || !leading(a.BatchB) {
		return p, false
	}
	var okA, okB bool
	p.TransA, okA = inOrder(fx, a.ContractA)
	p.TransB, okB = inOrder(a.ContractB, fy)
	p.Batch, p.M, p.N, p.K = sizeOf(x, a.BatchA), sizeOf(x, fx), sizeOf(y, fy), sizeOf(x, a.ContractA)
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

// sizeOf is the number of elements along some axes.
func sizeOf(sh shape.Shape, axes []int) int {
	n := 1
	for _, a := range axes {
		n *= sh[a]
	}
	return n
}

func init() {
	DotOp = add(def[DotAttrs]{
		Name: "dot_general", Doc: "sum over the contracted axes of a·b; result axes are batch, free of a, free of b; floats add up in at least f32, integers in their own type",
		Why: "all matrix products; composed of multiply and sum it would store every product", Kind: graph.Contraction, HLO: "dot_general", ONNX: "Einsum",
		Infer: func(a DotAttrs, in []typ) ([]typ, error) {
			if err := sameType(in, 2, isNumber, "it must be a number"); err != nil {
				return nil, err
			}
			x, y := in[0].Shape, in[1].Shape
			if len(a.BatchA) != len(a.BatchB) || len(a.ContractA) != len(a.ContractB) {
				return nil, fmt.Errorf("axes of a and b must come in pairs: %+v", a)
			}
			if _, err := axisSet(append(slices.Clone(a.BatchA), a.ContractA...), x); err != nil {
				return nil, fmt.Errorf("a: %w", err)
			}
			if _, err := axisSet(append(slices.Clone(a.BatchB), a.ContractB...), y); err != nil {
				return nil, fmt.Errorf("b: %w", err)
			}
			var out shape.Shape
			for i := range a.BatchA {
				if x[a.BatchA[i]] != y[a.BatchB[i]] {
					return nil, fmt.Errorf("batch axes differ: axis %d of %v against axis %d of %v", a.BatchA[i], x, a.BatchB[i], y)
				}
				out = append(out, x[a.BatchA[i]])
			}
			for i := range a.ContractA {
				if x[a.ContractA[i]] != y[a.ContractB[i]] {
					return nil, fmt.Errorf("contracted axes differ: axis %d of %v against axis %d of %v", a.ContractA[i], x, a.ContractB[i], y)
				}
			}
			for _, i := range Free(len(x), a.BatchA, a.ContractA) {
				out = append(out, x[i])
			}
			for _, i := range Free(len(y), a.BatchB, a.ContractB) {
				out = append(out, y[i])
			}
			dt, err := a.result(in[0].DType)
			if err != nil {
				return nil, err
			}
			return one(dt, out)
		},
		Ref: func(a DotAttrs, in, out []value) {
			x, y := in[0], in[1]
			xs, ys := x.Type.Shape.Strides(), y.Type.Shape.Strides()
			var k shape.Shape
			for _, i := range a.ContractA {
				k = append(k, x.Type.Shape[i])
			}
			fa, fb := Free(len(xs), a.BatchA, a.ContractA), Free(len(ys), a.BatchB, a.ContractB)
			index(out[0].Type.Shape, func(ix []int, i int) {
				px, py := 0, 0
				for j := range a.BatchA {
					px += ix[j] * xs[a.BatchA[j]]
					py += ix[j] * ys[a.BatchB[j]]
				}
				for j, ax := range fa {
					px += ix[len(a.BatchA)+j] * xs[ax]
				}
				for j, ax := range fb {
					py += ix[len(a.BatchA)+len(fa)+j] * ys[ax]
				}
				s := 0.0
				index(k, func(kx []int, _ int) {
					qx, qy := px, py
					for j, c := range kx {
						qx += c * xs[a.ContractA[j]]
						qy += c * ys[a.ContractB[j]]
					}
					s += x.Data[qx] * y.Data[qy]
				})
				out[0].Data[i] = wrapInt(out[0].Type.DType, s)
			})
		},
		Grad: func(a DotAttrs, n *node, d []*node) []*node {
			if n.DType() != n.Input(0).DType() { // bf16 operands: so is the gradient, and its products are added up in f32, too
				dy := Convert(d[0], dtype.BF16)
				return []*node{
					Convert(dotGrad(a.Out, dy, n.Input(1), a.BatchA, a.ContractA, a.BatchB, a.ContractB, len(n.Input(0).Shape()), false), dtype.BF16),
					Convert(dotGrad(a.Out, dy, n.Input(0), a.BatchB, a.ContractB, a.BatchA, a.ContractA, len(n.Input(1).Shape()), true), dtype.BF16),
				}
			}
			return []*node{
				dotGrad(a.Out, d[0], n.Input(1), a.BatchA, a.ContractA, a.BatchB, a.ContractB, len(n.Input(0).Shape()), false),
				dotGrad(a.Out, d[0], n.Input(0), a.BatchB, a.ContractB, a.BatchA, a.ContractA, len(n.Input(1).Shape()), true),
			}
		},
		FLOPs: func(a DotAttrs, in, out []typ) int64 {
			return 2 * int64(out[0].Shape.Size()) * int64(sizeOf(in[0].Shape, a.ContractA))
		},
		Lower: func(a DotAttrs, b text, in []hlo, out []typ) []hlo {
			e := stablehlo.Of(out[0].DType)
			sum := e
			if sum == stablehlo.BF16 {
				sum = stablehlo.F32
			}
			return []hlo{b.Convert(b.Dot(in[0], in[1], a.BatchA, a.BatchB, a.ContractA, a.ContractB, sum), e)}
		},
		Samples: []graph.Sample{
			{Name: "matrix", Attrs: DotAttrs{ContractA: []int{1}, ContractB: []int{0}}, In: types(f32(7, 33), f32(33, 21))},
			{Name: "A transposed", Attrs: DotAttrs{ContractA: []int{0}, ContractB: []int{0}}, In: types(f32(33, 7), f32(33, 21))},
			{Name: "B transposed", Attrs: DotAttrs{ContractA: []int{1}, ContractB: []int{1}}, In: types(f32(7, 33), f32(21, 33))},
			{Name: "heads", Attrs: DotAttrs{BatchA: []int{0, 1}, BatchB: []int{0, 1}, ContractA: []int{3}, ContractB: []int{3}}, In: types(f32(2, 3, 5, 8), f32(2, 3, 7, 8))},
			{Name: "heads not together", Attrs: DotAttrs{BatchA: []int{0, 2}, BatchB: []int{0, 2}, ContractA: []int{3}, ContractB: []int{3}}, In: types(f32(2, 5, 3, 8), f32(2, 7, 3, 8))},
			{Name: "two contracted", Attrs: DotAttrs{ContractA: []int{0, 2}, ContractB: []int{1, 0}}, In: types(f32(3, 4, 5), f32(5, 3, 2))},
			{Name: "outer", Attrs: DotAttrs{}, In: types(f32(5), f32(6))},
			{Name: "vector", Attrs: DotAttrs{ContractA: []int{0}, ContractB: []int{0}}, In: types(f32(65), f32(65))},
			{Name: "one row", Attrs: DotAttrs{ContractA: []int{1}, ContractB: []int{0}}, In: types(f32(1, 100), f32(100, 50))},
			{Name: "f64", Attrs: DotAttrs{ContractA: []int{1}, ContractB: []int{0}}, In: types(graph.T(dtype.F64, 3, 5), graph.T(dtype.F64, 5, 4))},
			{Name: "i32", Attrs: DotAttrs{ContractA: []int{1}, ContractB: []int{0}}, In: types(graph.T(dtype.I32, 3, 5), graph.T(dtype.I32, 5, 4)), NoGrad: true},
			{Name: "i8 to i32", Attrs: DotAttrs{ContractA: []int{1}, ContractB: []int{0}, Out: dtype.I32}, In: types(graph.T(dtype.I8, 9, 65), graph.T(dtype.I8, 65, 70)), NoGrad: true},
			{Name: "u8 to i32, heads", Attrs: DotAttrs{BatchA: []int{0}, BatchB: []int{1}, ContractA: []int{2}, ContractB: []int{2}, Out: dtype.I32}, In: types(u8(3, 5, 8), u8(7, 3, 8)), NoGrad: true},
			bf16Dot("bf16 to f32", DotAttrs{ContractA: []int{1}, ContractB: []int{0}, Out: dtype.F32}, []int{37, 70}, []int{70, 65}),
			bf16Dot("bf16 to f32, A transposed", DotAttrs{ContractA: []int{0}, ContractB: []int{0}, Out: dtype.F32}, []int{71, 37}, []int{71, 33}),
			bf16Dot("bf16 to f32, heads not together", DotAttrs{BatchA: []int{0, 2}, BatchB: []int{0, 2}, ContractA: []int{3}, ContractB: []int{3}, Out: dtype.F32}, []int{2, 5, 3, 8}, []int{2, 7, 3, 8}),
			bf16Dot("bf16", DotAttrs{ContractA: []int{1}, ContractB: []int{0}}, []int{5, 12}, []int{12, 9}),
			{Name: "f32 to i32", Attrs: DotAttrs{ContractA: []int{1}, ContractB: []int{0}, Out: dtype.I32}, In: types(f32(3, 5), f32(5, 3)), Bad: "cannot be added up to i32"},
			{Name: "no fit", Attrs: DotAttrs{ContractA: []int{1}, ContractB: []int{0}}, In: types(f32(3, 5), f32(4, 3)), Bad: "contracted axes differ"},
		},
	})
}

// bf16Dot is a sample of operands of bf16, whose gradients differences cannot be compared with: they are rounded. Those of f32 that were converted are, in package grad.
func bf16Dot(name string, a DotAttrs, x, y []int) graph.Sample {
	return graph.Sample{Name: name, Attrs: a, In: types(graph.T(dtype.BF16, x...), graph.T(dtype.BF16, y...)), NoGrad: true, Tol: 1e-4}
}

// dotGrad is the gradient for one operand x of a product with result gradient d and other operand o: the product of d and o over the
// free axes of o, its axes put back in x's order. swapped says that x was the second operand.
func dotGrad(out dtype.Type, d, o *node, batchX, contractX, batchO, contractO []int, rankX int, swapped bool) *node {
	freeO := Free(len(o.Shape()), batchO, contractO)
	freeX := Free(rankX, batchX, contractX)
	nb := len(batchX)
	at := DotAttrs{BatchB: batchO, ContractB: freeO, Out: out}
	for i := range nb {
		at.BatchA = append(at.BatchA, i)
	}
	first := nb + len(freeX) // where o's free axes begin in d
	if swapped {
		first = nb
	}
	for i := range freeO {
		at.ContractA = append(at.ContractA, first+i)
	}
	// The result's axes are: batch, free of x (in order), contracted axes of o in o's order.
	order := make([]int, len(contractO))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return contractO[i] - contractO[j] })
	var have []int // the axis of x that each axis of the result is
	have = append(have, batchX...)
	have = append(have, freeX...)
	for _, i := range order {
		have = append(have, contractX[i])
	}
	perm := make([]int, rankX)
	for i, ax := range have {
		perm[ax] = i
	}
	// For a plain product, take the operands in the order that needs no transpose afterwards.
	if swapped && nb == 0 && len(freeX) > 0 && slices.Equal(have, append(slices.Clone(freeX), contractX...)) && slices.IsSorted(contractX) && len(contractX) > 0 && contractX[0] == 0 {
		back := DotAttrs{ContractA: freeO, ContractB: at.ContractA, Out: out}
		return d.Graph().Apply(DotOp, back, o, d)
	}
	return Transpose(d.Graph().Apply(DotOp, at, d, o), perm...)
}

// Dot multiplies over the axes that at names.
func Dot(a, b *node, at DotAttrs) *node { return a.Graph().Apply(DotOp, at, a, b) }

// MatMul is the matrix product of a [..., m, k] and b [k, n], or [..., k, n] with the same leading axes as a.
func MatMul(a, b *node) *node {
	ra, rb := len(a.Shape()), len(b.Shape())
	if ra < 2 || rb < 2 || rb > 2 && rb != ra {
		a.Graph().Fail("matmul", []*node{a, b}, "takes [..., m, k] and [k, n] or [..., k, n], not %v and %v", a.Shape(), b.Shape())
	}
	at := DotAttrs{ContractA: []int{ra - 1}, ContractB: []int{rb - 2}}
	for i := range rb - 2 {
		at.BatchA, at.BatchB = append(at.BatchA, i), append(at.BatchB, i)
	}
	return Dot(a, b, at)
}
