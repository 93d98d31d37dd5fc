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

// Ops that move elements and compute none.
var (
	ReshapeOp, BroadcastOp, TransposeOp, SliceOp, ConcatOp, PadOp, ReverseOp, GatherOp, ScatterAddOp, IotaOp *graph.Op
)

// Attributes of the movement ops. Shapes and axes are of the operand unless said otherwise.
type (
	// ShapeAttrs are the attributes of ReshapeOp and BroadcastOp: the shape of the result.
	ShapeAttrs struct{ Shape shape.Shape }
	// PermAttrs are the attributes of TransposeOp: axis i of the result is axis Perm[i] of the operand.
	PermAttrs struct{ Perm []int }
	// SliceAttrs are the attributes of SliceOp: for each axis Start, Limit (exclusive) and Stride ≥ 1.
	SliceAttrs struct{ Start, Limit, Stride []int }
	// AxisAttrs name one axis.
	AxisAttrs struct{ Axis int }
	// AxesAttrs name several axes.
	AxesAttrs struct{ Axes []int }
	// PadAttrs are the attributes of PadOp: for each axis, elements added before and after (negative: removed) and between.
	PadAttrs struct {
		Lo, Hi, Interior []int
		Value            float64
	}
	// IotaAttrs are the attributes of IotaOp.
	IotaAttrs struct {
		Type graph.Type
		Axis int
	}
)

func init() {
	ReshapeOp = add(def[ShapeAttrs]{
		Name: "reshape", Doc: "the same elements in row-major order under another shape", Why: "changes the shape alone",
		Kind: graph.Movement, HLO: "reshape", ONNX: "Reshape",
		Infer: func(a ShapeAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 1); err != nil {
				return nil, err
			}
			if err := a.Shape.Check(); err != nil {
				return nil, err
			}
			if a.Shape.Size() != in[0].Shape.Size() {
				return nil, fmt.Errorf("%v has %d elements and cannot become %v, which has %d", in[0].Shape, in[0].Shape.Size(), a.Shape, a.Shape.Size())
			}
			return one(in[0].DType, a.Shape)
		},
		Ref:   func(_ ShapeAttrs, in, out []value) { copy(out[0].Data, in[0].Data) },
		Grad:  func(_ ShapeAttrs, n *node, d []*node) []*node { return []*node{Reshape(d[0], n.Input(0).Shape()...)} },
		Bytes: func(_ ShapeAttrs, _, _ []typ) (int64, int64) { return 0, 0 },
		Lower: func(a ShapeAttrs, b text, in []hlo, _ []typ) []hlo {
			return []hlo{b.Reshape(in[0], a.Shape...)}
		},
		Samples: []graph.Sample{{Name: "split", Attrs: ShapeAttrs{shape.Of(2, 3, 4)}, In: types(f32(6, 4))},
			{Name: "count", Attrs: ShapeAttrs{shape.Of(5)}, In: types(f32(6)), Bad: "cannot become"}},
	})
	BroadcastOp = add(def[ShapeAttrs]{
		Name: "broadcast", Doc: "x repeated to a shape, aligned at the last axis; axes of length 1 and missing ones repeat", Why: "makes repetition explicit, so that it has a gradient",
		Kind: graph.Movement, HLO: "broadcast_in_dim", ONNX: "Expand",
		Infer: func(a ShapeAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 1); err != nil {
				return nil, err
			}
			sh, err := shape.Broadcast(in[0].Shape, a.Shape)
			if err != nil {
				return nil, err
			}
			if !sh.Equal(a.Shape) {
				return nil, fmt.Errorf("%v does not broadcast to %v", in[0].Shape, a.Shape)
			}
			return one(in[0].DType, a.Shape)
		},
		Ref: func(a ShapeAttrs, in, out []value) {
			st := broadcastStrides(in[0].Type.Shape, a.Shape)
			index(a.Shape, func(ix []int, i int) { out[0].Data[i] = in[0].Data[at(ix, st)] })
		},
		Grad: func(a ShapeAttrs, n *node, d []*node) []*node {
			return []*node{SumTo(d[0], n.Input(0).Shape())}
		},
		Lower: func(a ShapeAttrs, b text, in []hlo, _ []typ) []hlo {
			return []hlo{b.Broadcast(in[0], a.Shape)}
		},
		Samples: []graph.Sample{{Name: "row", Attrs: ShapeAttrs{shape.Of(4, 5)}, In: types(f32(5))},
			{Name: "column", Attrs: ShapeAttrs{shape.Of(4, 5)}, In: types(f32(4, 1))},
			{Name: "middle", Attrs: ShapeAttrs{shape.Of(2, 3, 4, 5)}, In: types(f32(3, 1, 5))},
			{Name: "scalar", Attrs: ShapeAttrs{shape.Of(7)}, In: types(f32())},
			{Name: "u8", Attrs: ShapeAttrs{shape.Of(3, 7)}, In: types(graph.T(dtype.U8, 7))},
			{Name: "no fit", Attrs: ShapeAttrs{shape.Of(4)}, In: types(f32(3)), Bad: "do not broadcast"},
			{Name: "shrinks", Attrs: ShapeAttrs{shape.Of(1)}, In: types(f32(3)), Bad: "does not broadcast"}},
	})
	TransposeOp = add(def[PermAttrs]{
		Name: "transpose", Doc: "axes reordered: axis i of the result is axis perm[i] of x", Why: "changes the order of elements in memory",
		Kind: graph.Movement, HLO: "transpose", ONNX: "Transpose",
		Infer: func(a PermAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 1); err != nil {
				return nil, err
			}
			s := in[0].Shape
			if set, err := axisSet(a.Perm, s); err != nil || len(set) != len(s) {
				return nil, fmt.Errorf("%v is not a permutation of the axes of %v", a.Perm, s)
			}
			out := make(shape.Shape, len(s))
			for i, p := range a.Perm {
				out[i] = s[p]
			}
			return one(in[0].DType, out)
		},
		Ref: func(a PermAttrs, in, out []value) {
			st := in[0].Type.Shape.Strides()
			pst := make([]int, len(st))
			for i, p := range a.Perm {
				pst[i] = st[p]
			}
			index(out[0].Type.Shape, func(ix []int, i int) { out[0].Data[i] = in[0].Data[at(ix, pst)] })
		},
		Grad: func(a PermAttrs, n *node, d []*node) []*node {
			inv := make([]int, len(a.Perm))
			for i, p := range a.Perm {
				inv[p] = i
			}
			return []*node{Transpose(d[0], inv...)}
		},
		Lower: func(a PermAttrs, b text, in []hlo, _ []typ) []hlo {
			return []hlo{b.Transpose(in[0], a.Perm...)}
		},
		Samples: []graph.Sample{{Name: "matrix", Attrs: PermAttrs{[]int{1, 0}}, In: types(f32(5, 19))},
			{Name: "heads", Attrs: PermAttrs{[]int{0, 2, 1, 3}}, In: types(f32(2, 3, 4, 5))},
			{Name: "u8", Attrs: PermAttrs{[]int{2, 0, 1}}, In: types(graph.T(dtype.U8, 2, 3, 4))},
			{Name: "twice", Attrs: PermAttrs{[]int{0, 0}}, In: types(f32(2, 2)), Bad: "not a permutation"}},
	})
	SliceOp = add(def[SliceAttrs]{
		Name: "slice", Doc: "elements start, start+stride, … below limit, on each axis", Why: "selects by position",
		Kind: graph.Movement, HLO: "slice", ONNX: "Slice",
		Infer: func(a SliceAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 1); err != nil {
				return nil, err
			}
			s := in[0].Shape
			if len(a.Start) != len(s) || len(a.Limit) != len(s) || len(a.Stride) != len(s) {
				return nil, fmt.Errorf("needs a start, limit and stride for each of the %d axes of %v", len(s), s)
			}
			out := make(shape.Shape, len(s))
			for i := range s {
				if a.Start[i] < 0 || a.Limit[i] > s[i] || a.Start[i] > a.Limit[i] || a.Stride[i] < 1 {
					return nil, fmt.Errorf("axis %d: [%d:%d:%d] is outside %v", i, a.Start[i], a.Limit[i], a.Stride[i], s)
				}
				out[i] = (a.Limit[i] - a.Start[i] + a.Stride[i] - 1) / a.Stride[i]
			}
			return one(in[0].DType, out)
		},
		Ref: func(a SliceAttrs, in, out []value) {
			st := in[0].Type.Shape.Strides()
			index(out[0].Type.Shape, func(ix []int, i int) {
				p := 0
				for k, x := range ix {
					p += (a.Start[k] + x*a.Stride[k]) * st[k]
				}
				out[0].Data[i] = in[0].Data[p]
			})
		},
		Grad: func(a SliceAttrs, n *node, d []*node) []*node {
			x, r := n.Input(0).Shape(), n.Shape()
			p := PadAttrs{Lo: a.Start, Hi: make([]int, len(x)), Interior: make([]int, len(x))}
			for i := range x {
				p.Interior[i] = a.Stride[i] - 1
				p.Hi[i] = x[i] - a.Start[i] - max(0, (r[i]-1)*a.Stride[i]+1)
			}
			return []*node{d[0].Graph().Apply(PadOp, p, d[0])}
		},
		Lower: func(a SliceAttrs, b text, in []hlo, _ []typ) []hlo {
			return []hlo{b.Slice(in[0], a.Start, a.Limit, a.Stride)}
		},
		Samples: []graph.Sample{{Name: "rows", Attrs: SliceAttrs{[]int{1, 0}, []int{3, 5}, []int{1, 1}}, In: types(f32(4, 5))},
			{Name: "stride", Attrs: SliceAttrs{[]int{1, 2}, []int{6, 9}, []int{2, 3}}, In: types(f32(7, 9))},
			{Name: "beyond", Attrs: SliceAttrs{[]int{1}, []int{6}, []int{1}}, In: types(f32(5)), Bad: "is outside"}},
	})
	ConcatOp = add(def[AxisAttrs]{
		Name: "concat", Doc: "operands one after another along an axis", Why: "joins memory",
		Kind: graph.Movement, HLO: "concatenate", ONNX: "Concat",
		Infer: func(a AxisAttrs, in []typ) ([]typ, error) {
			if len(in) == 0 {
				return nil, fmt.Errorf("needs at least one operand")
			}
			if err := sameType(in, len(in), anyType, ""); err != nil {
				return nil, err
			}
			out := in[0].Shape.Clone()
			if a.Axis < 0 || a.Axis >= len(out) {
				return nil, fmt.Errorf("axis %d is outside %v", a.Axis, out)
			}
			for _, t := range in[1:] {
				s := t.Shape.Clone()
				if len(s) != len(out) {
					return nil, fmt.Errorf("operands have different ranks, %v and %v", in[0].Shape, s)
				}
				n := s[a.Axis]
				s[a.Axis] = out[a.Axis]
				if !s.Equal(out) {
					return nil, fmt.Errorf("operands %v and %v differ off axis %d", in[0].Shape, t.Shape, a.Axis)
				}
				out[a.Axis] += n
			}
			return one(in[0].DType, out)
		},
		Ref: func(a AxisAttrs, in, out []value) {
			inner := out[0].Type.Shape[a.Axis+1:].Size()
			row, off := out[0].Type.Shape[a.Axis]*inner, 0
			for _, x := range in {
				n := x.Type.Shape[a.Axis] * inner
				for o := 0; n > 0 && o*n < len(x.Data); o++ {
					copy(out[0].Data[o*row+off:], x.Data[o*n:(o+1)*n])
				}
				off += n
			}
		},
		Grad: func(a AxisAttrs, n *node, d []*node) []*node {
			out, off := make([]*node, len(n.Inputs())), 0
			for i, x := range n.Inputs() {
				w := x.Shape()[a.Axis]
				out[i] = SliceAxis(d[0], a.Axis, off, off+w)
				off += w
			}
			return out
		},
		Lower: func(a AxisAttrs, b text, in []hlo, _ []typ) []hlo {
			return []hlo{b.Concat(a.Axis, in...)}
		},
		Samples: []graph.Sample{{Name: "columns", Attrs: AxisAttrs{1}, In: types(f32(3, 2), f32(3, 5), f32(3, 1))},
			{Name: "first", Attrs: AxisAttrs{0}, In: types(f32(3, 2), f32(1, 2))},
			{Name: "no fit", Attrs: AxisAttrs{0}, In: types(f32(3, 2), f32(1, 3)), Bad: "differ off axis 0"}},
	})
	PadOp = add(def[PadAttrs]{
		Name: "pad", Doc: "x with a value added before, after and between elements of each axis; negative counts remove", Why: "makes new positions",
		Kind: graph.Movement, HLO: "pad", ONNX: "Pad",
		Infer: func(a PadAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 1); err != nil {
				return nil, err
			}
			s := in[0].Shape
			if len(a.Lo) != len(s) || len(a.Hi) != len(s) || len(a.Interior) != len(s) {
				return nil, fmt.Errorf("needs counts for each of the %d axes of %v", len(s), s)
			}
			out := make(shape.Shape, len(s))
			for i, n := range s {
				if a.Interior[i] < 0 {
					return nil, fmt.Errorf("axis %d: interior padding %d is negative", i, a.Interior[i])
				}
				out[i] = a.Lo[i] + n + max(0, n-1)*a.Interior[i] + a.Hi[i]
				if out[i] < 0 {
					return nil, fmt.Errorf("axis %d of %v: padding %d and %d leaves less than nothing", i, s, a.Lo[i], a.Hi[i])
				}
			}
			return one(in[0].DType, out)
		},
		Ref: func(a PadAttrs, in, out []value) {
			for i := range out[0].Data {
				out[0].Data[i] = a.Value
			}
			to := out[0].Type.Shape
			st := to.Strides()
			index(in[0].Type.Shape, func(ix []int, i int) {
				p := 0
				for k, x := range ix {
					y := a.Lo[k] + x*(a.Interior[k]+1)
					if y < 0 || y >= to[k] {
						return
					}
					p += y * st[k]
				}
				out[0].Data[p] = in[0].Data[i]
			})
		},
		Grad: func(a PadAttrs, n *node, d []*node) []*node {
			rank := len(a.Lo)
			back := PadAttrs{Lo: make([]int, rank), Hi: make([]int, rank), Interior: make([]int, rank)}
			s := SliceAttrs{make([]int, rank), make([]int, rank), make([]int, rank)}
			for i, x := range n.Input(0).Shape() {
				back.Lo[i], back.Hi[i] = -a.Lo[i], -a.Hi[i]
				s.Limit[i], s.Stride[i] = x+max(0, x-1)*a.Interior[i], a.Interior[i]+1
			}
			g := d[0].Graph()
			return []*node{g.Apply(SliceOp, s, g.Apply(PadOp, back, d[0]))}
		},
		Lower: func(a PadAttrs, b text, in []hlo, _ []typ) []hlo {
			return []hlo{b.Pad(in[0], a.Value, a.Lo, a.Hi, a.Interior)}
		},
		Samples: []graph.Sample{{Name: "border", Attrs: PadAttrs{[]int{1, 2}, []int{0, 3}, []int{0, 0}, 0.5}, In: types(f32(3, 4))},
			{Name: "interior", Attrs: PadAttrs{[]int{0, 1}, []int{0, 0}, []int{1, 2}, 0}, In: types(f32(3, 4))},
			{Name: "crop", Attrs: PadAttrs{[]int{-1, 1}, []int{-1, -2}, []int{0, 0}, 0}, In: types(f32(5, 4))},
			{Name: "crop interior", Attrs: PadAttrs{[]int{-1}, []int{-1}, []int{1}, 0}, In: types(f32(4))},
			{Name: "too much", Attrs: PadAttrs{[]int{-3}, []int{-3}, []int{0}, 0}, In: types(f32(4)), Bad: "less than nothing"}},
	})
	ReverseOp = add(def[AxesAttrs]{
		Name: "reverse", Doc: "the order of elements reversed along axes", Why: "selects by position, backwards",
		Kind: graph.Movement, HLO: "reverse",
		Infer: func(a AxesAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 1); err != nil {
				return nil, err
			}
			_, err := axisSet(a.Axes, in[0].Shape)
			return in, err
		},
		Ref: func(a AxesAttrs, in, out []value) {
			s := in[0].Type.Shape
			st := s.Strides()
			index(s, func(ix []int, i int) {
				p := 0
				for k, x := range ix {
					if slices.Contains(a.Axes, k) {
						x = s[k] - 1 - x
					}
					p += x * st[k]
				}
				out[0].Data[p] = in[0].Data[i]
			})
		},
		Grad: func(a AxesAttrs, n *node, d []*node) []*node { return []*node{Reverse(d[0], a.Axes...)} },
		Lower: func(a AxesAttrs, b text, in []hlo, _ []typ) []hlo {
			return []hlo{b.Reverse(in[0], a.Axes...)}
		},
		Samples: []graph.Sample{{Name: "inner", Attrs: AxesAttrs{[]int{1}}, In: types(f32(3, 5))}, {Name: "both", Attrs: AxesAttrs{[]int{0, 1}}, In: types(f32(3, 5))}},
	})
	GatherOp = add(def[AxisAttrs]{
		Name: "gather", Doc: "slices of x [… n …] along an axis at indices i32 [k…]: the axis is replaced by the shape of the indices; an index outside is clamped",
		Why: "selects by value", Kind: graph.Movement, HLO: "", ONNX: "Gather",
		Infer: func(a AxisAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 2); err != nil {
				return nil, err
			}
			s := in[0].Shape
			if a.Axis < 0 || a.Axis >= len(s) {
				return nil, fmt.Errorf("axis %d is outside %v", a.Axis, s)
			}
			if in[1].DType != dtype.I32 {
				return nil, fmt.Errorf("indices must be i32, not %v", in[1].DType)
			}
			if s[a.Axis] == 0 && in[1].Shape.Size() > 0 {
				return nil, fmt.Errorf("axis %d of %v is empty: there is nothing to gather", a.Axis, s)
			}
			out := append(s[:a.Axis].Clone(), in[1].Shape...)
			return one(in[0].DType, append(out, s[a.Axis+1:]...))
		},
		Ref: func(a AxisAttrs, in, out []value) {
			s := in[0].Type.Shape
			n, inner := s[a.Axis], s[a.Axis+1:].Size()
			k := len(in[1].Data)
			for o := range s[:a.Axis].Size() {
				for j, ix := range in[1].Data {
					i := min(max(int(ix), 0), n-1)
					copy(out[0].Data[(o*k+j)*inner:][:inner], in[0].Data[(o*n+i)*inner:][:inner])
				}
			}
		},
		Grad: func(a AxisAttrs, n *node, d []*node) []*node {
			return []*node{ScatterAdd(zeros(n.Input(0)), n.Input(1), d[0], a.Axis), nil}
		},
		Lower: func(a AxisAttrs, b text, in []hlo, _ []typ) []hlo {
			return []hlo{b.Gather(in[0], in[1], a.Axis)}
		},
		Samples: []graph.Sample{
			{Name: "rows", Attrs: AxisAttrs{0}, In: types(f32(5, 3), graph.T(dtype.I32, 2, 4)), Data: []*tensor.Tensor{nil, tensor.Of([]int32{0, 4, 4, 1, 2, 0, 9, -1}, 2, 4)}},
			{Name: "inner", Attrs: AxisAttrs{1}, In: types(f32(2, 5, 3), graph.T(dtype.I32, 2)), Data: []*tensor.Tensor{nil, tensor.Of([]int32{3, 1}, 2)}},
			{Name: "float index", Attrs: AxisAttrs{0}, In: types(f32(5), f32(2)), Bad: "must be i32"}},
	})
	ScatterAddOp = add(def[AxisAttrs]{
		Name: "scatter_add", Doc: "x with updates added to its slices along an axis at indices i32; equal indices add up in order, an index outside is clamped",
		Why: "the gradient of gather", Kind: graph.Movement, ONNX: "",
		Infer: func(a AxisAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 3); err != nil {
				return nil, err
			}
			if in[0].DType != in[2].DType || !isNumber(in[0].DType) {
				return nil, fmt.Errorf("x and updates must be numbers of one element type, not %v and %v", in[0].DType, in[2].DType)
			}
			want, err := GatherOp.Infer(a, in[:2])
			if err != nil {
				return nil, err
			}
			if !want[0].Shape.Equal(in[2].Shape) {
				return nil, fmt.Errorf("updates have shape %v where %v is needed", in[2].Shape, want[0].Shape)
			}
			return in[:1], nil
		},
		Ref: func(a AxisAttrs, in, out []value) {
			copy(out[0].Data, in[0].Data)
			s := in[0].Type.Shape
			n, inner := s[a.Axis], s[a.Axis+1:].Size()
			k := len(in[1].Data)
			for o := range s[:a.Axis].Size() {
				for j, ix := range in[1].Data {
					i := min(max(int(ix), 0), n-1)
					for c := range inner {
						p := &out[0].Data[(o*n+i)*inner+c]
						*p = wrapInt(in[0].Type.DType, *p+in[2].Data[(o*k+j)*inner+c])
					}
				}
			}
		},
		Grad: func(a AxisAttrs, n *node, d []*node) []*node {
			return []*node{d[0], nil, Gather(d[0], n.Input(1), a.Axis)}
		},
		FLOPs: func(_ AxisAttrs, in, _ []typ) int64 { return int64(in[2].Shape.Size()) },
		Lower: func(a AxisAttrs, b text, in []hlo, _ []typ) []hlo {
			x, k := in[0], len(in[1].Shape)
			// XLA drops updates outside: clamp the indices first.
			ix := b.Binary("minimum", b.Scale("maximum", in[1], 0), b.Like(in[1], float64(x.Shape[a.Axis]-1)))
			var window []int
			for i := range len(x.Shape) - 1 {
				if i >= a.Axis {
					i += k
				}
				window = append(window, i)
			}
			return []hlo{b.Scatter(x, ix, in[2], stablehlo.Folded("add", x.Elem), window, []int{a.Axis}, []int{a.Axis}, k)}
		},
		Samples: []graph.Sample{
			{Name: "rows", Attrs: AxisAttrs{0}, In: types(f32(5, 3), graph.T(dtype.I32, 4), f32(4, 3)), Data: []*tensor.Tensor{nil, tensor.Of([]int32{0, 4, 4, 1}), nil}},
			{Name: "inner", Attrs: AxisAttrs{1}, In: types(f32(2, 5), graph.T(dtype.I32, 3), f32(2, 3)), Data: []*tensor.Tensor{nil, tensor.Of([]int32{3, 3, 0}), nil}},
			{Name: "shape", Attrs: AxisAttrs{0}, In: types(f32(5), graph.T(dtype.I32, 3), f32(2)), Bad: "is needed"}},
	})
	IotaOp = add(def[IotaAttrs]{
		Name: "iota", Doc: "0, 1, 2, … along an axis of a shape", Why: "makes positions", Kind: graph.Movement, HLO: "iota", ONNX: "Range",
		Infer: func(a IotaAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 0); err != nil {
				return nil, err
			}
			if a.Axis < 0 || a.Axis >= len(a.Type.Shape) || !isNumber(a.Type.DType) {
				return nil, fmt.Errorf("cannot count along axis %d of %v", a.Axis, a.Type)
			}
			return []typ{a.Type}, nil
		},
		Ref: func(a IotaAttrs, _, out []value) {
			index(a.Type.Shape, func(ix []int, i int) { out[0].Data[i] = wrapInt(a.Type.DType, float64(ix[a.Axis])) })
		},
		NoGrad: "it has no operands",
		Lower: func(a IotaAttrs, b text, _ []hlo, _ []typ) []hlo {
			return []hlo{b.Iota(stablehlo.Of(a.Type.DType), a.Type.Shape, a.Axis)}
		},
		Samples: []graph.Sample{{Name: "columns", Attrs: IotaAttrs{graph.T(dtype.I32, 3, 4), 1}}, {Name: "f32", Attrs: IotaAttrs{f32(5), 0}}},
	})
}

// broadcastStrides are the strides of from as seen under the shape to: 0 where it repeats.
func broadcastStrides(from, to shape.Shape) []int {
	st := make([]int, len(to))
	own := from.Strides()
	for i := range from {
		if from[i] != 1 {
			st[i+len(to)-len(from)] = own[i]
		}
	}
	return st
}

// Reshape gives x the dimensions dims, of which one may be -1: whatever is left.
func Reshape(x *node, dims ...int) *node {
	sh := shape.Of(dims...).Clone()
	if i := slices.Index(sh, -1); i >= 0 {
		sh[i] = 1
		if n := sh.Size(); n > 0 {
			sh[i] = x.Shape().Size() / n
		}
	}
	if sh.Equal(x.Shape()) {
		return x
	}
	return x.Graph().Apply(ReshapeOp, ShapeAttrs{sh}, x)
}

// BroadcastTo repeats x to the dimensions dims.
func BroadcastTo(x *node, dims ...int) *node {
	if x.Shape().Equal(dims) {
		return x
	}
	return x.Graph().Apply(BroadcastOp, ShapeAttrs{shape.Of(dims...).Clone()}, x)
}

// SumTo adds x up over the axes along which a value of shape sh was broadcast to x's shape.
func SumTo(x *node, sh shape.Shape) *node {
	from := x.Shape()
	lead := len(from) - len(sh)
	var axes []int
	for i := range from {
		if i < lead || (sh[i-lead] == 1 && from[i] != 1) {
			axes = append(axes, i)
		}
	}
	if len(axes) > 0 {
		x = Sum(x, axes...)
	}
	return Reshape(x, sh...)
}

// Transpose reorders axes; without perm it reverses them.
func Transpose(x *node, perm ...int) *node {
	if len(perm) == 0 {
		for i := len(x.Shape()) - 1; i >= 0; i-- {
			perm = append(perm, i)
		}
	}
	if slices.IsSorted(perm) && len(perm) == len(x.Shape()) {
		return x
	}
	return x.Graph().Apply(TransposeOp, PermAttrs{slices.Clone(perm)}, x)
}

// Slice takes [start, limit) with a stride on each axis; a nil stride is 1 everywhere.
func Slice(x *node, start, limit, stride []int) *node {
	if stride == nil {
		stride = make([]int, len(start))
		for i := range stride {
			stride[i] = 1
		}
	}
	return x.Graph().Apply(SliceOp, SliceAttrs{slices.Clone(start), slices.Clone(limit), slices.Clone(stride)}, x)
}

// SliceAxis takes [lo, hi) of one axis.
func SliceAxis(x *node, axis, lo, hi int) *node {
	start, limit := make([]int, len(x.Shape())), slices.Clone([]int(x.Shape()))
	start[axis], limit[axis] = lo, hi
	return Slice(x, start, limit, nil)
}

// Concat joins operands along an axis (negative counts from the end).
func Concat(axis int, xs ...*node) *node {
	a, err := xs[0].Shape().Axis(axis)
	if err != nil {
		xs[0].Graph().Fail("concat", xs, "%v", err)
	}
	return xs[0].Graph().Apply(ConcatOp, AxisAttrs{a}, xs...)
}

// Pad adds lo and hi elements of value v on each axis.
func Pad(x *node, lo, hi []int, v float64) *node {
	return x.Graph().Apply(PadOp, PadAttrs{slices.Clone(lo), slices.Clone(hi), make([]int, len(lo)), v}, x)
}

// Reverse reverses the order of elements along axes.
func Reverse(x *node, axes ...int) *node {
	return x.Graph().Apply(ReverseOp, AxesAttrs{slices.Clone(axes)}, x)
}

// Gather takes slices of x along an axis at i32 indices of any shape, which replaces the axis.
func Gather(x, indices *node, axis int) *node {
	return x.Graph().Apply(GatherOp, AxisAttrs{axis}, x, indices)
}

// ScatterAdd adds updates to the slices of x along an axis at i32 indices.
func ScatterAdd(x, indices, updates *node, axis int) *node {
	return x.Graph().Apply(ScatterAddOp, AxisAttrs{axis}, x, indices, updates)
}

// Iota counts 0, 1, 2, … along an axis of type t.
func Iota(g *graph.Graph, t graph.Type, axis int) *node { return g.Apply(IotaOp, IotaAttrs{t, axis}) }

// OneHot is 1 of type dt at [..., labels[...]] and 0 elsewhere; the new last axis has n positions. A label outside gives all zeros.
func OneHot(labels *node, n int, dt dtype.Type) *node {
	sh := append(labels.Shape().Clone(), n)
	l := BroadcastTo(Reshape(labels, append(labels.Shape().Clone(), 1)...), sh...)
	return Convert(Eq(l, Iota(labels.Graph(), graph.Type{DType: labels.DType(), Shape: sh}, len(sh)-1)), dt)
}
