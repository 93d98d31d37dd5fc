// Package op is the table of operations: everything Joule knows about an op is one literal here, next to its exported builder.
//
// # Terminology
//
// A primitive has a float64 reference (Ref); a composed op has a decomposition into others, from which its reference, gradient, lowering and
// cost follow. A builder, such as Add, checks and adds a node to the graph of its operands; the op itself is AddOp. Builders
// panic with *graph.Error, which graph.Build turns into an error.
//
// To add an op: write one literal in the file of its family and a builder beside it. The conformance suite (backend/backendtest), the
// gradient checks, `joule ops` and the cost model pick it up from the table. A fast kernel, if it needs one, is a row in
// backend/cpu; without it the op runs on its decomposition or its reference. A program can define ops of its own, outside the
// table, in the same way: Define.
//
// Operands of binary elementwise builders broadcast by NumPy's rule; the nodes themselves take operands of one shape, so
// that a broadcast is always a node of its own with its gradient. Element types never convert by themselves.
package op

import (
	"fmt"
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/stablehlo"
	"github.com/jouleml/joule/tensor"
)

// Short names for this package's own use.
type (
	node  = graph.Node
	typ   = graph.Type
	value = graph.Value
	none  = struct{} // the attributes of an op that has none
	hlo   = stablehlo.Value
	text  = *stablehlo.Builder

	def[A any] = Def[A]
)

var table []*graph.Op

// All is every op of the table, in a fixed order (by family, then as written).
func All() []*graph.Op { return table }

// Lookup finds an op by name, the leaves included; nil if there is none.
func Lookup(name string) *graph.Op {
	for _, o := range append([]*graph.Op{graph.OpInput, graph.OpVariable, graph.OpConst, graph.OpPart}, table...) {
		if o.Name == name {
			return o
		}
	}
	return nil
}

// add makes an op of one literal and adds it to the table. It must be called from init functions: literals refer to builders
// and builders to ops, which would be a cycle among package-level variables.
func add[A any](d def[A]) *graph.Op {
	o := Define(d)
	table = append(table, o)
	return o
}

func attrs[A any](a any) A {
	if a == nil {
		return *new(A)
	}
	return a.(A)
}

// operands checks the number of operands.
func operands(in []typ, n int) error {
	if len(in) != n {
		return fmt.Errorf("takes %d operands, was given %d", n, len(in))
	}
	return nil
}

// sameType checks that all operands have one element type, which ok accepts.
func sameType(in []typ, n int, ok func(dtype.Type) bool, want string) error {
	if err := operands(in, n); err != nil {
		return err
	}
	for _, t := range in[1:] {
		if t.DType != in[0].DType {
			return fmt.Errorf("operands have different element types, %v and %v; convert one", in[0].DType, t.DType)
		}
	}
	if !ok(in[0].DType) {
		return fmt.Errorf("element type %v is not supported here; %s", in[0].DType, want)
	}
	return nil
}

func isNumber(t dtype.Type) bool { return t.IsFloat() || t.IsInt() }

func anyType(dtype.Type) bool { return true }

// one is the result list of an op with one result.
func one(dt dtype.Type, sh shape.Shape) ([]typ, error) { return []typ{{DType: dt, Shape: sh}}, nil }

// f32 is an operand type for samples.
func f32(dims ...int) typ { return graph.T(dtype.F32, dims...) }

// types makes operand lists for samples.
func types(t ...typ) []typ { return t }

// Scalar is a constant of rank 0.
func Scalar(g *graph.Graph, dt dtype.Type, v float64) *node {
	t := tensor.New(dt)
	t.Set(0, v)
	return g.Const(t)
}

// Full is a constant v broadcast to a shape.
func Full(g *graph.Graph, t typ, v float64) *node {
	return BroadcastTo(Scalar(g, t.DType, v), t.Shape...)
}

// Like is a scalar constant of x's type.
func Like(x *node, v float64) *node { return Scalar(x.Graph(), x.DType(), v) }

// zeros is a zero of x's type and shape.
func zeros(x *node) *node { return Full(x.Graph(), x.Type(), 0) }

// Apply adds a node of op o, for ops defined outside this package.
func Apply(o *graph.Op, a any, in ...*node) *node { return in[0].Graph().Apply(o, a, in...) }

// index walks the elements of a shape in row-major order: it calls f with each multi-index and its linear position.
// The multi-index is reused.
func index(sh shape.Shape, f func(ix []int, i int)) {
	n := sh.Size()
	ix := make([]int, len(sh))
	for i := range n {
		f(ix, i)
		for a := len(sh) - 1; a >= 0; a-- {
			if ix[a]++; ix[a] < sh[a] {
				break
			}
			ix[a] = 0
		}
	}
}

// at is the linear position of a multi-index under strides.
func at(ix, strides []int) int {
	p := 0
	for a, i := range ix {
		p += i * strides[a]
	}
	return p
}

// axisSet checks axes of a shape of the given rank: normalised, sorted, each once.
func axisSet(axes []int, sh shape.Shape) ([]int, error) {
	out := make([]int, len(axes))
	for i, a := range axes {
		n, err := sh.Axis(a)
		if err != nil {
			return nil, err
		}
		out[i] = n
	}
	slices.Sort(out)
	if len(slices.Compact(slices.Clone(out))) != len(out) {
		return nil, fmt.Errorf("axes %v name an axis twice", axes)
	}
	return out, nil
}

// u8 is an operand type for samples.
func u8(dims ...int) typ { return graph.T(dtype.U8, dims...) }

// positions makes operand values for samples: of three operands, the one at index i holds 0, 1, … , n-1 in a mixed order.
func positions(n, i int, dims ...int) []*tensor.Tensor {
	t := tensor.New(dtype.U8, dims...)
	s := uint32(1)
	for j := range t.Bytes() {
		s = s*1664525 + 1013904223
		t.Bytes()[j] = uint8((s >> 16) % uint32(n))
	}
	out := make([]*tensor.Tensor, 3)
	out[i] = t
	return out
}
