package stablehlo

import (
	"fmt"
	"slices"

	"github.com/jouleml/joule/shape"
)

// Unary is an instruction of one operand whose result has its type, such as "exponential".
func (b *Builder) Unary(op string, x Value) Value { return b.one(op, "", x.Elem, x.Shape, x) }

// Binary is an instruction of two operands of one type, which its result has.
func (b *Builder) Binary(op string, x, y Value) Value { return b.one(op, "", x.Elem, x.Shape, x, y) }

// Scale is the elementwise instruction op of x and a constant.
func (b *Builder) Scale(op string, x Value, v float64) Value { return b.Binary(op, x, b.Like(x, v)) }

// Compare is a comparison: EQ, NE, LT, LE, GT or GE.
func (b *Builder) Compare(direction string, x, y Value) Value {
	return b.one("compare", "comparison_direction = #stablehlo<comparison_direction "+direction+">", Bool, x.Shape, x, y)
}

// Select is x where mask, else y.
func (b *Builder) Select(mask, x, y Value) Value {
	return b.one("select", "", x.Elem, x.Shape, mask, x, y)
}

// Convert gives the elements as another type.
func (b *Builder) Convert(x Value, e Elem) Value {
	if x.Elem == e {
		return x
	}
	return b.one("convert", "", e, x.Shape, x)
}

// Bits reads the elements' bits as another type of the same size.
func (b *Builder) Bits(x Value, e Elem) Value { return b.one("bitcast_convert", "", e, x.Shape, x) }

// Reshape gives the elements another shape.
func (b *Builder) Reshape(x Value, dims ...int) Value {
	if x.Shape.Equal(dims) {
		return x
	}
	return b.one("reshape", "", x.Elem, slices.Clone(dims), x)
}

// Broadcast repeats x to a shape, its axes aligned at the last ones.
func (b *Builder) Broadcast(x Value, sh shape.Shape) Value {
	at := make([]int, len(x.Shape))
	for i := range at {
		at[i] = len(sh) - len(x.Shape) + i
	}
	return b.BroadcastAt(x, sh, at...)
}

// BroadcastAt repeats x to a shape; axis i of x becomes axis at[i].
func (b *Builder) BroadcastAt(x Value, sh shape.Shape, at ...int) Value {
	return b.one("broadcast_in_dim", "broadcast_dimensions = "+List(at...), x.Elem, sh, x)
}

// Transpose reorders axes: axis i of the result is axis perm[i] of x.
func (b *Builder) Transpose(x Value, perm ...int) Value {
	sh := make(shape.Shape, len(perm))
	for i, p := range perm {
		sh[i] = x.Shape[p]
	}
	return b.one("transpose", "permutation = "+List(perm...), x.Elem, sh, x)
}

// Slice takes start, start+stride, … below limit on each axis.
func (b *Builder) Slice(x Value, start, limit, stride []int) Value {
	sh := make(shape.Shape, len(start))
	for i := range sh {
		sh[i] = (limit[i] - start[i] + stride[i] - 1) / stride[i]
	}
	return b.one("slice", fmt.Sprintf("start_indices = %s, limit_indices = %s, strides = %s", List(start...), List(limit...), List(stride...)), x.Elem, sh, x)
}

// SliceAxis takes [lo, hi) of one axis.
func (b *Builder) SliceAxis(x Value, axis, lo, hi int) Value {
	start, limit, stride := make([]int, len(x.Shape)), slices.Clone(x.Shape), make([]int, len(x.Shape))
	for i := range stride {
		stride[i] = 1
	}
	start[axis], limit[axis] = lo, hi
	return b.Slice(x, start, limit, stride)
}

// Concat joins operands along an axis.
func (b *Builder) Concat(axis int, xs ...Value) Value {
	sh := slices.Clone(xs[0].Shape)
	for _, x := range xs[1:] {
		sh[axis] += x.Shape[axis]
	}
	return b.one("concatenate", fmt.Sprintf("dimension = %d : i64", axis), xs[0].Elem, sh, xs...)
}

// Pad adds v before, after and between elements; negative counts remove.
func (b *Builder) Pad(x Value, v float64, lo, hi, interior []int) Value {
	sh := make(shape.Shape, len(lo))
	for i, n := range x.Shape {
		sh[i] = lo[i] + n + max(0, n-1)*interior[i] + hi[i]
	}
	return b.one("pad", fmt.Sprintf("edge_padding_low = %s, edge_padding_high = %s, interior_padding = %s", List(lo...), List(hi...), List(interior...)), x.Elem, sh, x, b.Scalar(x.Elem, v))
}

// Reverse turns axes round.
func (b *Builder) Reverse(x Value, at ...int) Value {
	return b.one("reverse", "dimensions = "+List(at...), x.Elem, x.Shape, x)
}

// Iota counts 0, 1, 2, … along an axis.
func (b *Builder) Iota(e Elem, sh shape.Shape, axis int) Value {
	return b.one("iota", fmt.Sprintf("iota_dimension = %d : i64", axis), e, sh)
}

// Folded is the region that combines two elements with an instruction.
func Folded(op string, e Elem) *Region {
	return &Region{Args: []Value{{Elem: e}, {Elem: e}}, Body: func(b *Builder, in []Value) []Value { return []Value{b.Binary(op, in[0], in[1])} }}
}

// Reduce folds x over axes, which disappear, with an instruction, beginning at start.
func (b *Builder) Reduce(op string, x Value, start float64, over ...int) Value {
	return b.ReduceBy([]Value{x}, []Value{b.Scalar(x.Elem, start)}, Folded(op, x.Elem), over...)[0]
}

// ReduceBy folds several values of one shape together: the region takes an element of each of two places, the first ones before the second ones.
func (b *Builder) ReduceBy(xs, start []Value, by *Region, over ...int) []Value {
	var sh shape.Shape
	for i, d := range xs[0].Shape {
		if !slices.Contains(over, i) {
			sh = append(sh, d)
		}
	}
	out := make([]Value, len(xs))
	for i, x := range xs {
		out[i] = Value{Elem: x.Elem, Shape: sh}
	}
	return b.Emit("reduce", "dimensions = "+List(over...), out, by, append(slices.Clone(xs), start...)...)
}

// Window is the geometry of instructions that slide over all axes.
type Window struct {
	Size, Stride []int
	Pad          [][2]int
}

func (w Window) text() string {
	return fmt.Sprintf("window_dimensions = %s, window_strides = %s, padding = %s", List(w.Size...), List(w.Stride...), pads(w.Pad))
}

// ReduceWindow folds each window of xs together.
func (b *Builder) ReduceWindow(xs, start []Value, by *Region, w Window) []Value {
	sh := make(shape.Shape, len(w.Size))
	for i, n := range xs[0].Shape {
		sh[i] = (n+w.Pad[i][0]+w.Pad[i][1]-w.Size[i])/w.Stride[i] + 1
	}
	out := make([]Value, len(xs))
	for i, x := range xs {
		out[i] = Value{Elem: x.Elem, Shape: sh}
	}
	return b.Emit("reduce_window", w.text(), out, by, append(slices.Clone(xs), start...)...)
}

// SelectAndScatter adds each d to the place of x that wins its window by the comparison, against those before it.
func (b *Builder) SelectAndScatter(x, d Value, direction string, w Window) Value {
	pair := []Value{{Elem: x.Elem}, {Elem: x.Elem}}
	wins := &Region{Args: pair, Body: func(b *Builder, in []Value) []Value { return []Value{b.Compare(direction, in[0], in[1])} }}
	return b.emit("select_and_scatter", w.text(), []Value{{Elem: x.Elem, Shape: x.Shape}}, []*Region{wins, Folded("add", x.Elem)}, []Value{x, d, b.Scalar(x.Elem, 0)})[0]
}

// While replaces values by what step makes of them, again and again, while going, a Bool of them, holds.
func (b *Builder) While(values []Value, going func(b *Builder, in []Value) Value, step func(b *Builder, in []Value) []Value) []Value {
	cond := &Region{Args: values, Body: func(b *Builder, in []Value) []Value { return []Value{going(b, in)} }}
	return b.emit("while", "", values, []*Region{cond, {Args: values, Body: step}}, values)
}

// places are the start indices of slice i of the first axis.
func (b *Builder) places(x Value, i Value) []Value {
	out := []Value{i}
	for range len(x.Shape) - 1 {
		out = append(out, b.Scalar(i.Elem, 0))
	}
	return out
}

// At is slice i, a scalar, of the first axis.
func (b *Builder) At(x, i Value) Value {
	sh := slices.Clone(x.Shape)
	sh[0] = 1
	s := b.one("dynamic_slice", "slice_sizes = "+List(sh...), x.Elem, sh, append([]Value{x}, b.places(x, i)...)...)
	return b.Reshape(s, x.Shape[1:]...)
}

// Put is x with v as slice i, a scalar, of the first axis.
func (b *Builder) Put(x, v, i Value) Value {
	v = b.Reshape(v, append([]int{1}, v.Shape...)...)
	return b.one("dynamic_update_slice", "", x.Elem, x.Shape, append([]Value{x, v}, b.places(x, i)...)...)
}

// exact asks for products of full precision: graphics processors have faster ones of 10 bits.
const exact = "precision_config = [#stablehlo<precision HIGHEST>, #stablehlo<precision HIGHEST>]"

// Dot multiplies and adds over contracted axes; the result's axes are batch, free of x, free of y. Its elements are of type e.
func (b *Builder) Dot(x, y Value, batchX, batchY, contractX, contractY []int, e Elem) Value {
	var sh shape.Shape
	for _, i := range batchX {
		sh = append(sh, x.Shape[i])
	}
	for _, side := range []struct {
		v                 Value
		batch, contracted []int
	}{{x, batchX, contractX}, {y, batchY, contractY}} {
		for i, d := range side.v.Shape {
			if !slices.Contains(side.batch, i) && !slices.Contains(side.contracted, i) {
				sh = append(sh, d)
			}
		}
	}
	return b.one("dot_general", fmt.Sprintf("dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = %s, rhs_batching_dimensions = %s, lhs_contracting_dimensions = %s, rhs_contracting_dimensions = %s>, %s",
		axes(batchX), axes(batchY), axes(contractX), axes(contractY), exact), e, sh, x, y)
}

// Conv is the geometry of a convolution over two axes.
type Conv struct {
	Numbers          string // dimension numbers, such as "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
	Stride           [2]int
	Pad              [2][2]int
	DilateX, DilateW [2]int
	Groups, Batches  int // feature and batch groups
}

// Convolution convolves x with w; e and sh are the type of the result.
func (b *Builder) Convolution(x, w Value, c Conv, e Elem, sh shape.Shape) Value {
	return b.one("convolution", fmt.Sprintf("dimension_numbers = #stablehlo.conv<%s>, window_strides = %s, padding = %s, lhs_dilation = %s, rhs_dilation = %s, window_reversal = %s, feature_group_count = %d : i64, batch_group_count = %d : i64, %s",
		c.Numbers, List(c.Stride[:]...), pads(c.Pad[:]), List(c.DilateX[:]...), List(c.DilateW[:]...), List(false, false), max(1, c.Groups), max(1, c.Batches), exact), e, sh, x, w)
}

// Gather takes slices of x along an axis at indices, whose shape replaces the axis; indices outside are clamped.
func (b *Builder) Gather(x, indices Value, axis int) Value {
	k := len(indices.Shape)
	var offset []int
	size := slices.Clone(x.Shape)
	size[axis] = 1
	sh := append(slices.Clone(x.Shape[:axis]), indices.Shape...)
	for i := range len(x.Shape) - 1 {
		if i < axis {
			offset = append(offset, i)
		} else {
			offset = append(offset, i+k)
		}
	}
	return b.one("gather", fmt.Sprintf("dimension_numbers = #stablehlo.gather<offset_dims = %s, collapsed_slice_dims = [%d], start_index_map = [%d], index_vector_dim = %d>, slice_sizes = %s, indices_are_sorted = false",
		axes(offset), axis, axis, k, List(size...)), x.Elem, append(sh, x.Shape[axis+1:]...), x, indices)
}

// Scatter changes the elements of x at indices with updates by a region of an old element and an update. window are the axes of updates that run along those of x that are not inserted; to[i] is the axis of
// x that number i of the indices' last axis names. Updates outside of x are dropped.
func (b *Builder) Scatter(x, indices, updates Value, by *Region, window, inserted, to []int, vectorAxis int) Value {
	return b.Emit("scatter", fmt.Sprintf("scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = %s, inserted_window_dims = %s, scatter_dims_to_operand_dims = %s, index_vector_dim = %d>, indices_are_sorted = false, unique_indices = false",
		axes(window), axes(inserted), axes(to), vectorAxis), []Value{{Elem: x.Elem, Shape: x.Shape}}, by, x, indices, updates)[0]
}

// Sort orders xs together along an axis, stably. less takes an element of each of two places: x0, y0, x1, y1, …
func (b *Builder) Sort(xs []Value, axis int, less func(b *Builder, in []Value) Value) []Value {
	var args []Value
	for _, x := range xs {
		args = append(args, Value{Elem: x.Elem}, Value{Elem: x.Elem})
	}
	return b.Emit("sort", fmt.Sprintf("dimension = %d : i64, is_stable = true", axis), xs,
		&Region{Args: args, Body: func(b *Builder, in []Value) []Value { return []Value{less(b, in)} }}, xs...)
}

// Apart keeps the compiler from merging what made x with what takes it, which would leave out a rounding between them.
func (b *Builder) Apart(x Value) Value {
	return b.one("optimization_barrier", "", x.Elem, x.Shape, x)
}
