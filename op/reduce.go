package op

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/stablehlo"
	"github.com/jouleml/joule/tensor"
)

// Ops that combine elements along axes.
var (
	SumOp, MaxReduceOp, MinReduceOp, ProdOp, ArgMaxOp, ArgMinOp, CumSumOp, SortOp, TopKOp *graph.Op
)

// CumSumAttrs are the attributes of CumSumOp.
type CumSumAttrs struct {
	Axis               int
	Exclusive, Reverse bool
}

// SortAttrs are the attributes of SortOp.
type SortAttrs struct {
	Axis       int
	Descending bool
}

// TopKAttrs are the attributes of TopKOp.
type TopKAttrs struct{ K int }

func init() {
	SumOp = reduction("reduce_sum", "add", "sum over axes, which disappear", 0, func(a, b float64) float64 { return a + b },
		func(a AxesAttrs, n, d *node) *node { return unreduce(d, a.Axes, n.Input(0).Shape()) }, "ReduceSum")
	MaxReduceOp = reduction("reduce_max", "maximum", "greatest element over axes, which disappear; NaN if one is; -Inf of none", math.Inf(-1), math.Max, shareOfEqual, "ReduceMax")
	MinReduceOp = reduction("reduce_min", "minimum", "least element over axes, which disappear; NaN if one is; +Inf of none", math.Inf(1), math.Min, shareOfEqual, "ReduceMin")
	ProdOp = reduction("reduce_prod", "multiply", "product over axes, which disappear", 1, func(a, b float64) float64 { return a * b }, nil, "ReduceProd")
	// The product of all others, which is the gradient, is not the product over the element where that is zero. A tree of products has the right
	// gradient everywhere, to any order, at a cost in proportion to the elements.
	ProdOp.Decompose = func(a any, in []*node) []*node { return []*node{prodTree(in[0], a.(AxesAttrs).Axes)} }
	for i := range ProdOp.Samples {
		positive(&ProdOp.Samples[i]) // products of many numbers below 1 are too small to compare
	}
	ProdOp.Samples = append(ProdOp.Samples,
		graph.Sample{Name: "zeros", Attrs: AxesAttrs{[]int{1}}, In: types(graph.T(dtype.F64, 4, 5)),
			Data: []*tensor.Tensor{tensor.Of([]float64{0, 2, -3, 0.5, 1, 1, 0, 2, 0, 3, 0, 0, 0, 4, 5, 1, 2, 3, 4, 0}, 4, 5)}},
		graph.Sample{Name: "zeros apart", Attrs: AxesAttrs{[]int{0, 2}}, In: types(graph.T(dtype.F64, 2, 2, 2)), Data: []*tensor.Tensor{tensor.Of([]float64{0, 2, 1, 0, -3, 4, 0, 2}, 2, 2, 2)}},
		graph.Sample{Name: "of nothing", Attrs: AxesAttrs{[]int{1}}, In: types(f32(3, 0))})
	ArgMaxOp = argReduction("argmax", "GT", "greatest", func(x, best float64) bool { return x > best || x != x && best == best }, "ArgMax")
	ArgMinOp = argReduction("argmin", "LT", "least", func(x, best float64) bool { return x < best || x != x && best == best }, "ArgMin")
	CumSumOp = add(def[CumSumAttrs]{
		Name: "cumsum", Doc: "running sum along an axis; exclusive leaves the element itself out, reverse runs from the end", Why: "a recurrence: compositions cost the square of the length",
		Kind: graph.Reduction, ONNX: "CumSum",
		Infer: func(a CumSumAttrs, in []typ) ([]typ, error) {
			if err := sameType(in, 1, isNumber, "it must be a number"); err != nil {
				return nil, err
			}
			return in, inAxis(a.Axis, in[0].Shape)
		},
		Ref: func(a CumSumAttrs, in, out []value) {
			lanes(in[0].Type.Shape, a.Axis, func(ix []int) {
				if a.Reverse {
					slices.Reverse(ix)
				}
				s := 0.0
				for _, i := range ix {
					if a.Exclusive {
						out[0].Data[i] = s
					}
					s = wrapInt(in[0].Type.DType, s+in[0].Data[i])
					if !a.Exclusive {
						out[0].Data[i] = s
					}
				}
			})
		},
		Grad: func(a CumSumAttrs, n *node, d []*node) []*node {
			a.Reverse = !a.Reverse
			return []*node{d[0].Graph().Apply(CumSumOp, a, d[0])}
		},
		Lower: func(a CumSumAttrs, b text, in []hlo, _ []typ) []hlo {
			// Sums of 1, 2, 4, … neighbours: as many steps as the length has binary digits.
			x := in[0]
			n, zero := x.Shape[a.Axis], make([]int, len(x.Shape))
			shift := func(v hlo, by int) hlo {
				lo, hi := slices.Clone(zero), slices.Clone(zero)
				lo[a.Axis], hi[a.Axis] = by, -by
				if a.Reverse {
					lo, hi = hi, lo
				}
				return b.Pad(v, 0, lo, hi, zero)
			}
			if n == 0 {
				return in
			}
			if a.Exclusive {
				x = shift(x, 1)
			}
			for by := 1; by < n; by *= 2 {
				x = b.Binary("add", x, shift(x, by))
			}
			return []hlo{x}
		},
		Samples: []graph.Sample{{Name: "inner", Attrs: CumSumAttrs{Axis: 1}, In: types(f32(3, 9))},
			{Name: "exclusive reverse", Attrs: CumSumAttrs{0, true, true}, In: types(f32(5, 2))},
			{Name: "f64", Attrs: CumSumAttrs{Axis: 1}, In: types(graph.T(dtype.F64, 2, 9, 3))},
			{Name: "i32", Attrs: CumSumAttrs{Axis: 0, Reverse: true}, In: types(graph.T(dtype.I32, 9, 2)), NoGrad: true},
			{Name: "u8 wraps", Attrs: CumSumAttrs{Axis: 1}, In: types(u8(3, 40)), NoGrad: true},
			{Name: "axis", Attrs: CumSumAttrs{Axis: 2}, In: types(f32(5, 2)), Bad: "outside"}},
	})
	SortOp = add(def[SortAttrs]{
		Name: "sort", Doc: "elements in order along an axis, and the i32 positions they came from; stable; NaN counts as greatest", Why: "an algorithm of its own",
		Kind: graph.Other,
		Infer: func(a SortAttrs, in []typ) ([]typ, error) {
			if err := sameType(in, 1, isNumber, "it must be a number"); err != nil {
				return nil, err
			}
			if err := inAxis(a.Axis, in[0].Shape); err != nil {
				return nil, err
			}
			return []typ{in[0], {DType: dtype.I32, Shape: in[0].Shape}}, nil
		},
		Ref: func(a SortAttrs, in, out []value) { sortLanes(in[0], a.Axis, a.Descending, -1, out) },
		Grad: func(a SortAttrs, n *node, d []*node) []*node {
			if d[0] == nil {
				return []*node{nil}
			}
			return []*node{unsort(d[0], n.Part(1), a.Axis, n.Input(0).Shape()[a.Axis])}
		},
		Lower: func(a SortAttrs, b text, in []hlo, _ []typ) []hlo {
			return sorted(b, in[0], a.Axis, a.Descending)
		},
		Samples: append(ordered(false), []graph.Sample{{Name: "rows", Attrs: SortAttrs{Axis: 1}, In: types(f32(3, 9))}, {Name: "descending", Attrs: SortAttrs{0, true}, In: types(f32(7, 2))},
			{Name: "long", Attrs: SortAttrs{Axis: 1}, In: types(f32(2, 500, 3)), NoGrad: true}, {Name: "empty", Attrs: SortAttrs{Axis: 1}, In: types(f32(3, 0))},
			{Name: "axis", Attrs: SortAttrs{Axis: 1}, In: types(f32(3)), Bad: "outside"}}...),
	})
	TopKOp = add(def[TopKAttrs]{
		Name: "top_k", Doc: "the k greatest elements of the last axis, greatest first, and their i32 positions; of equals the first", Why: "needs no full sort",
		Kind: graph.Other, ONNX: "TopK",
		Infer: func(a TopKAttrs, in []typ) ([]typ, error) {
			if err := sameType(in, 1, isNumber, "it must be a number"); err != nil {
				return nil, err
			}
			s := in[0].Shape.Clone()
			if len(s) == 0 || a.K < 1 || a.K > s[len(s)-1] {
				return nil, fmt.Errorf("there are no %d elements on the last axis of %v", a.K, in[0].Shape)
			}
			s[len(s)-1] = a.K
			return []typ{{DType: in[0].DType, Shape: s}, {DType: dtype.I32, Shape: s}}, nil
		},
		Ref: func(a TopKAttrs, in, out []value) { sortLanes(in[0], len(in[0].Type.Shape)-1, true, a.K, out) },
		Grad: func(a TopKAttrs, n *node, d []*node) []*node {
			if d[0] == nil {
				return []*node{nil}
			}
			s := n.Input(0).Shape()
			return []*node{unsort(d[0], n.Part(1), len(s)-1, s[len(s)-1])}
		},
		Lower: func(a TopKAttrs, b text, in []hlo, _ []typ) []hlo {
			last := len(in[0].Shape) - 1
			both := sorted(b, in[0], last, true)
			return []hlo{b.SliceAxis(both[0], last, 0, a.K), b.SliceAxis(both[1], last, 0, a.K)}
		},
		Samples: append(ordered(true), []graph.Sample{{Name: "3 of 9", Attrs: TopKAttrs{3}, In: types(f32(4, 9))}, {Name: "2 of 300", Attrs: TopKAttrs{2}, In: types(f32(4, 300))},
			{Name: "too many", Attrs: TopKAttrs{3}, In: types(f32(2)), Bad: "no 3 elements"}}...),
	})
}

func inAxis(a int, sh shape.Shape) error {
	if a < 0 || a >= len(sh) {
		return fmt.Errorf("axis %d is outside %v", a, sh)
	}
	return nil
}

// without is sh with axes left out.
func without(sh shape.Shape, axes []int) shape.Shape {
	out := shape.Shape{}
	for i, d := range sh {
		if !slices.Contains(axes, i) {
			out = append(out, d)
		}
	}
	return out
}

// lanes calls f with the linear positions along an axis, for each lane of a shape.
func lanes(sh shape.Shape, axis int, f func(ix []int)) {
	n, inner := sh[axis], sh[axis+1:].Size()
	for o := range sh[:axis].Size() {
		for i := range inner {
			ix := make([]int, n)
			for k := range ix {
				ix[k] = (o*n+k)*inner + i
			}
			f(ix)
		}
	}
}

func sortLanes(x value, axis int, descending bool, k int, out []value) {
	n, inner := x.Type.Shape[axis], x.Type.Shape[axis+1:].Size()
	lane := 0
	lanes(x.Type.Shape, axis, func(ix []int) {
		ord := make([]int, n)
		for i := range ord {
			ord[i] = i
		}
		slices.SortStableFunc(ord, func(i, j int) int {
			a, b := x.Data[ix[i]], x.Data[ix[j]]
			c := cmp.Compare(a, b)
			if a != a || b != b { // NaN is greatest
				c = -c
			}
			if descending {
				c = -c
			}
			return c
		})
		m := n
		if k >= 0 {
			m = k
		}
		for r := range m {
			p := (lane/max(inner, 1)*m+r)*inner + lane%max(inner, 1)
			out[0].Data[p], out[1].Data[p] = x.Data[ix[ord[r]]], float64(ord[r])
		}
		lane++
	})
}

// sorted are the elements in order along an axis, and their positions.
func sorted(b text, x hlo, axis int, descending bool) []hlo {
	return b.Sort([]hlo{x, b.Iota(stablehlo.I32, x.Shape, axis)}, axis, func(b text, in []hlo) hlo {
		v, w := in[0], in[1]
		if descending {
			v, w = w, v
		}
		less := b.Compare("LT", v, w)
		if v.Elem.IsFloat() { // NaN is greatest
			less = b.Binary("or", less, b.Binary("and", b.Compare("NE", w, w), b.Compare("EQ", v, v)))
		}
		return less
	})
}

// ordered are samples of sort, or of top_k, for every element type: with equals, and for floats NaN, both zeros and infinities.
func ordered(top bool) []graph.Sample {
	var out []graph.Sample
	for _, dt := range []dtype.Type{dtype.F32, dtype.F64, dtype.BF16, dtype.I8, dtype.U8, dtype.I32, dtype.I64} {
		x := tensor.New(dt, 2, 45)
		for i := range x.Len() {
			x.Set(i, float64(i*i%23-9))
			if zero := math.Copysign(0, -1); dt.IsFloat() && i%5 == 0 {
				x.Set(i, []float64{math.NaN(), zero, 0, math.Inf(1), math.Inf(-1), 0.25}[i/5%6])
			}
		}
		for _, k := range []int{2, 40} {
			s := graph.Sample{Name: fmt.Sprint(dt, " ", k), Attrs: TopKAttrs{k}, In: types(graph.TypeOf(x)), Data: []*tensor.Tensor{x}, NoGrad: true}
			if !top {
				s.Attrs = SortAttrs{1, k == 2}
			}
			out = append(out, s)
		}
	}
	return out
}

// unsort sends gradients d of sorted elements back to the positions pos they came from, along an axis of length n.
func unsort(d, pos *node, axis, n int) *node {
	hot := OneHot(pos, n, d.DType()) // [..., k, ..., n]
	last := len(d.Shape())
	sum := Sum(Mul(hot, Reshape(d, append(d.Shape().Clone(), 1)...)), axis)
	perm := make([]int, 0, last) // the new axis is last: bring it to where the sorted one was
	for i := range last - 1 {
		if i == axis {
			perm = append(perm, last-1)
		}
		perm = append(perm, i)
	}
	if axis == last-1 {
		perm = append(perm, last-1)
	}
	return Transpose(sum, perm...)
}

func reduction(name, instruction, doc string, start float64, f func(a, b float64) float64, grad func(a AxesAttrs, n, d *node) *node, onnx string) *graph.Op {
	s := []graph.Sample{
		{Name: "rows", Attrs: AxesAttrs{[]int{1}}, In: types(f32(5, 37))},
		{Name: "columns", Attrs: AxesAttrs{[]int{0}}, In: types(f32(37, 5))},
		{Name: "outer two", Attrs: AxesAttrs{[]int{0, 1}}, In: types(f32(4, 5, 19))},
		{Name: "outer and inner", Attrs: AxesAttrs{[]int{0, 2}}, In: types(f32(4, 5, 19))},
		{Name: "all", Attrs: AxesAttrs{[]int{0, 1, 2}}, In: types(f32(3, 4, 5))},
		{Name: "none", Attrs: AxesAttrs{nil}, In: types(f32(3, 4))},
		{Name: "i32", Attrs: AxesAttrs{[]int{0}}, In: types(graph.T(dtype.I32, 3, 4)), NoGrad: true},
		{Name: "f64", Attrs: AxesAttrs{[]int{0, 2}}, In: types(graph.T(dtype.F64, 3, 4, 5))},
		{Name: "u8", Attrs: AxesAttrs{[]int{1}}, In: types(u8(3, 50, 2)), NoGrad: true},
		{Name: "i64", Attrs: AxesAttrs{[]int{1}}, In: types(graph.T(dtype.I64, 3, 9)), NoGrad: true},
		{Name: "twice", Attrs: AxesAttrs{[]int{1, 1}}, In: types(f32(3, 4)), Bad: "sorted and each once"},
		{Name: "outside", Attrs: AxesAttrs{[]int{2}}, In: types(f32(3, 4)), Bad: "sorted and each once"},
	}
	var rule func(a AxesAttrs, n *node, d []*node) []*node
	if grad != nil {
		rule = func(a AxesAttrs, n *node, d []*node) []*node { return []*node{grad(a, n, d[0])} }
	}
	return add(def[AxesAttrs]{
		Name: name, Doc: doc, Why: "the fold of an associative function", Kind: graph.Reduction, HLO: "reduce", ONNX: onnx,
		Infer: func(a AxesAttrs, in []typ) ([]typ, error) {
			if err := sameType(in, 1, isNumber, "it must be a number"); err != nil {
				return nil, err
			}
			if set, err := axisSet(a.Axes, in[0].Shape); err != nil || !slices.Equal(set, a.Axes) && len(a.Axes) > 0 {
				return nil, fmt.Errorf("axes %v must be axes of %v, sorted and each once", a.Axes, in[0].Shape)
			}
			return one(in[0].DType, without(in[0].Shape, a.Axes))
		},
		Ref: func(a AxesAttrs, in, out []value) {
			for i := range out[0].Data {
				out[0].Data[i] = start
			}
			s := in[0].Type.Shape
			st, k := make([]int, len(s)), 0
			own := out[0].Type.Shape.Strides()
			for i := range s {
				if !slices.Contains(a.Axes, i) {
					st[i] = own[k]
					k++
				}
			}
			dt := in[0].Type.DType
			index(s, func(ix []int, i int) {
				p := &out[0].Data[at(ix, st)]
				*p = wrapInt(dt, f(*p, in[0].Data[i]))
			})
		},
		Grad: rule,
		Lower: func(a AxesAttrs, b text, in []hlo, _ []typ) []hlo {
			first := start
			if !in[0].Elem.IsFloat() { // the least and greatest integers, which no infinity is
				first = least(in[0].Elem, start)
			}
			return []hlo{b.Reduce(instruction, in[0], first, a.Axes...)}
		},
		FLOPs:   func(_ AxesAttrs, in, _ []typ) int64 { return int64(in[0].Shape.Size()) },
		Samples: s,
	})
}

// least is v within the range of integers of type e.
func least(e stablehlo.Elem, v float64) float64 {
	lo, hi := float64(math.MinInt64), float64(math.MaxInt64)
	switch e {
	case stablehlo.I8:
		lo, hi = math.MinInt8, math.MaxInt8
	case stablehlo.U8:
		lo, hi = 0, math.MaxUint8
	case stablehlo.I32:
		lo, hi = math.MinInt32, math.MaxInt32
	}
	return min(max(v, lo), hi)
}

// prodTree is the product over axes as products of halves.
func prodTree(x *node, axes []int) *node {
	sh := x.Shape()
	to := without(sh, axes)
	var perm []int
	for i := range sh {
		if !slices.Contains(axes, i) {
			perm = append(perm, i)
		}
	}
	perm = append(perm, axes...)
	n := sizeOf(sh, axes)
	if n == 0 {
		return Full(x.Graph(), typ{DType: x.DType(), Shape: to}, 1)
	}
	if len(axes) > 0 && !slices.IsSorted(perm) {
		x = Transpose(x, perm...)
	}
	x = Reshape(x, to.Size(), n)
	for n > 1 {
		half := n / 2
		y := Mul(SliceAxis(x, 1, 0, half), SliceAxis(x, 1, half, 2*half))
		if n%2 == 1 { // the last one waits for the next level
			y = Concat(1, y, SliceAxis(x, 1, n-1, n))
		}
		x, n = y, half+n%2
	}
	return Reshape(x, to...)
}

// unreduce repeats d, from which axes disappeared, to the shape sh that it had before.
func unreduce(d *node, axes []int, sh shape.Shape) *node {
	keep := sh.Clone()
	for _, a := range axes {
		keep[a] = 1
	}
	return BroadcastTo(Reshape(d, keep...), sh...)
}

// shareOfEqual is the gradient of a greatest or least element: shared by all that are equal to it.
func shareOfEqual(a AxesAttrs, n, d *node) *node {
	x := n.Input(0)
	hit := Convert(Eq(x, unreduce(n, a.Axes, x.Shape())), x.DType())
	return Mul(hit, unreduce(Div(d, Sum(hit, a.Axes...)), a.Axes, x.Shape()))
}

func argReduction(name, direction, which string, better func(x, best float64) bool, onnx string) *graph.Op {
	return add(def[AxisAttrs]{
		Name: name, Doc: "i32 position of the " + which + " element along an axis, which disappears; of equals the first; of NaNs the first NaN",
		Why: "yields a position", Kind: graph.Reduction, ONNX: onnx,
		Infer: func(a AxisAttrs, in []typ) ([]typ, error) {
			if err := sameType(in, 1, isNumber, "it must be a number"); err != nil {
				return nil, err
			}
			if err := inAxis(a.Axis, in[0].Shape); err != nil {
				return nil, err
			}
			if in[0].Shape[a.Axis] == 0 {
				return nil, fmt.Errorf("axis %d of %v is empty", a.Axis, in[0].Shape)
			}
			return one(dtype.I32, without(in[0].Shape, []int{a.Axis}))
		},
		Ref: func(a AxisAttrs, in, out []value) {
			lane := 0
			lanes(in[0].Type.Shape, a.Axis, func(ix []int) {
				best := 0
				for k := range ix {
					if better(in[0].Data[ix[k]], in[0].Data[ix[best]]) {
						best = k
					}
				}
				out[0].Data[lane] = float64(best)
				lane++
			})
		},
		NoGrad: "a position has no derivative",
		Lower: func(a AxisAttrs, b text, in []hlo, _ []typ) []hlo {
			x := in[0]
			at := b.Iota(stablehlo.I32, x.Shape, a.Axis)
			// The better of two places: NaN before numbers, then by the comparison, then the first.
			better := &stablehlo.Region{Args: []hlo{{Elem: x.Elem}, {Elem: stablehlo.I32}, {Elem: x.Elem}, {Elem: stablehlo.I32}}, Body: func(b text, in []hlo) []hlo {
				v, i, w, j := in[0], in[1], in[2], in[3]
				or, and := func(p, q hlo) hlo { return b.Binary("or", p, q) }, func(p, q hlo) hlo { return b.Binary("and", p, q) }
				first := b.Compare("LT", i, j)
				tie := b.Compare("EQ", v, w)
				win := b.Compare(direction, v, w)
				if v.Elem.IsFloat() {
					nv, nw := b.Compare("NE", v, v), b.Compare("NE", w, w)
					win = or(win, and(nv, b.Unary("not", nw)))
					tie = or(tie, and(nv, nw))
				}
				win = or(win, and(tie, first))
				return []hlo{b.Select(win, v, w), b.Select(win, i, j)}
			}}
			worst := math.Inf(-1)
			if direction == "LT" {
				worst = math.Inf(1)
			}
			if !x.Elem.IsFloat() {
				worst = least(x.Elem, worst)
			}
			return b.ReduceBy([]hlo{x, at}, []hlo{b.Scalar(x.Elem, worst), b.Scalar(stablehlo.I32, math.MaxInt32)}, better, a.Axis)[1:]
		},
		FLOPs: func(_ AxisAttrs, in, _ []typ) int64 { return int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{{Name: "rows", Attrs: AxisAttrs{1}, In: types(f32(5, 10))}, {Name: "f64", Attrs: AxisAttrs{1}, In: types(graph.T(dtype.F64, 3, 7, 2))},
			{Name: "u8", Attrs: AxisAttrs{0}, In: types(u8(300, 3))}, {Name: "columns", Attrs: AxisAttrs{0}, In: types(f32(5, 10))},
			{Name: "empty", Attrs: AxisAttrs{0}, In: types(f32(0, 3)), Bad: "empty"}},
	})
}

func reduceAxes(o *graph.Op, x *node, axes []int) *node {
	set, err := axisSet(axes, x.Shape())
	if err != nil {
		x.Graph().Fail(o.Name, []*node{x}, "%v", err)
	}
	return x.Graph().Apply(o, AxesAttrs{set}, x)
}

func allAxes(x *node) []int {
	axes := make([]int, len(x.Shape()))
	for i := range axes {
		axes[i] = i
	}
	return axes
}

// Sum adds over axes (negative ones count from the end), which disappear. With none it is x.
func Sum(x *node, axes ...int) *node { return reduceAxes(SumOp, x, axes) }

// SumAll adds all elements.
func SumAll(x *node) *node { return Sum(x, allAxes(x)...) }

// Mean is the average over axes, which disappear.
func Mean(x *node, axes ...int) *node {
	s := Sum(x, axes...)
	n := float64(x.Shape().Size()) / float64(max(1, s.Shape().Size()))
	return Mul(s, Like(s, 1/n))
}

// MeanAll is the average of all elements.
func MeanAll(x *node) *node { return Mean(x, allAxes(x)...) }

// ReduceMax is the greatest element over axes, which disappear.
func ReduceMax(x *node, axes ...int) *node { return reduceAxes(MaxReduceOp, x, axes) }

// ReduceMin is the least element over axes, which disappear.
func ReduceMin(x *node, axes ...int) *node { return reduceAxes(MinReduceOp, x, axes) }

// Prod multiplies over axes, which disappear.
func Prod(x *node, axes ...int) *node { return reduceAxes(ProdOp, x, axes) }

func axisOp(o *graph.Op, x *node, axis int) int {
	a, err := x.Shape().Axis(axis)
	if err != nil {
		x.Graph().Fail(o.Name, []*node{x}, "%v", err)
	}
	return a
}

// ArgMax is the position of the greatest element along an axis, as i32.
func ArgMax(x *node, axis int) *node {
	return x.Graph().Apply(ArgMaxOp, AxisAttrs{axisOp(ArgMaxOp, x, axis)}, x)
}

// ArgMin is the position of the least element along an axis, as i32.
func ArgMin(x *node, axis int) *node {
	return x.Graph().Apply(ArgMinOp, AxisAttrs{axisOp(ArgMinOp, x, axis)}, x)
}

// CumSum is the running sum along an axis.
func CumSum(x *node, axis int, exclusive, reverse bool) *node {
	return x.Graph().Apply(CumSumOp, CumSumAttrs{axisOp(CumSumOp, x, axis), exclusive, reverse}, x)
}

// Sort orders elements along an axis and also gives their former positions.
func Sort(x *node, axis int, descending bool) (values, positions *node) {
	n := x.Graph().Apply(SortOp, SortAttrs{axisOp(SortOp, x, axis), descending}, x)
	return n.Part(0), n.Part(1)
}

// TopK takes the k greatest elements of the last axis and their positions.
func TopK(x *node, k int) (values, positions *node) {
	n := x.Graph().Apply(TopKOp, TopKAttrs{k}, x)
	return n.Part(0), n.Part(1)
}
