package op

import (
	"math"

	"github.com/jouleml/joule/internal/kernel/random"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/stablehlo"
)

// What the StableHLO of several ops shares: the literals say which of it they are.

// dilatedLen is the length of n elements with d-1 between neighbours.
func dilatedLen(n, d int) int { return max(0, (n-1)*d+1) }

// hloConv is conv.
func (a ConvAttrs) hloConv(b text, x, w hlo, e stablehlo.Elem, out shape.Shape) hlo {
	return b.Convolution(x, w, stablehlo.Conv{Numbers: "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]", Stride: a.Stride, Pad: a.Pad, DilateX: [2]int{1, 1}, DilateW: a.Dilation, Groups: a.Groups}, e, out)
}

// hloInput is the gradient for the images: a convolution of d, spread by the strides, with the filters turned round, whose channels change places within each group.
func (a ConvAttrs) hloInput(b text, d, w hlo, e stablehlo.Elem, out shape.Shape) hlo {
	kh, kw, cg, o := w.Shape[0], w.Shape[1], w.Shape[2], w.Shape[3]
	g := a.Groups
	w = b.Reverse(w, 0, 1)
	w = b.Reshape(w, kh, kw, cg, g, o/g)
	w = b.Reshape(b.Transpose(w, 0, 1, 4, 3, 2), kh, kw, o/g, g*cg)
	c := stablehlo.Conv{Numbers: "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]", Stride: [2]int{1, 1}, DilateX: a.Stride, DilateW: a.Dilation, Groups: g}
	for i := range 2 {
		reach := dilatedLen(w.Shape[i], a.Dilation[i])
		lo := reach - 1 - a.Pad[i][0]
		c.Pad[i] = [2]int{lo, out[1+i] + reach - 1 - dilatedLen(d.Shape[1+i], a.Stride[i]) - lo}
	}
	return b.Convolution(d, w, c, e, out)
}

// hloFilter is the gradient for the filters: a convolution of the images with d as filters, where examples are what is added up over.
func (a ConvAttrs) hloFilter(b text, x, d hlo, e stablehlo.Elem, out shape.Shape) hlo {
	c := stablehlo.Conv{Numbers: "[f, 0, 1, b]x[i, 0, 1, o]->[0, 1, b, f]", Stride: a.Dilation, DilateX: [2]int{1, 1}, DilateW: a.Stride, Batches: a.Groups}
	for i := range 2 {
		c.Pad[i] = [2]int{a.Pad[i][0], dilatedLen(out[i], a.Dilation[i]) + dilatedLen(d.Shape[1+i], a.Stride[i]) - 1 - x.Shape[1+i] - a.Pad[i][0]}
	}
	return b.Convolution(x, d, c, e, out)
}

// convolution makes the Lower of one of them. Sums of bf16 are f32.
func convolution(f func(a ConvAttrs, b text, x, y hlo, e stablehlo.Elem, out shape.Shape) hlo) func(a ConvAttrs, b text, in []hlo, out []typ) []hlo {
	return func(a ConvAttrs, b text, in []hlo, out []typ) []hlo {
		e := in[0].Elem
		if e == stablehlo.BF16 {
			e = stablehlo.F32
		}
		return []hlo{b.Convert(f(a, b, in[0], in[1], e, out[0].Shape), in[0].Elem)}
	}
}

// window is the pooling's, over all axes of images.
func (a PoolAttrs) window() stablehlo.Window {
	return stablehlo.Window{Size: []int{1, a.Window[0], a.Window[1], 1}, Stride: []int{1, a.Stride[0], a.Stride[1], 1}, Pad: [][2]int{{}, a.Pad[0], a.Pad[1], {}}}
}

// counts is, for each window, the number of pixels that an average divides by, of type e and shape [1, OH, OW, 1].
func (a PoolAttrs) counts(b text, e stablehlo.Elem, in [2]int, out shape.Shape) hlo {
	if a.CountPad {
		return b.Fill(e, float64(a.Window[0]*a.Window[1]), shape.Of(1, out[1], out[2], 1))
	}
	ones := b.Fill(e, 1, shape.Of(1, in[0], in[1], 1))
	return b.ReduceWindow([]hlo{ones}, []hlo{b.Scalar(e, 0)}, stablehlo.Folded("add", e), a.window())[0]
}

// share is x [N OH OW C] divided by the counts.
func (a PoolAttrs) share(b text, x hlo, in [2]int) hlo {
	c := a.counts(b, x.Elem, in, x.Shape)
	return b.Binary("divide", x, b.BroadcastAt(b.Reshape(c, x.Shape[1], x.Shape[2]), x.Shape, 1, 2))
}

// lowest is what no element is below.
func lowest(e stablehlo.Elem) float64 {
	if e.IsFloat() {
		return math.Inf(-1)
	}
	return least(e, math.Inf(-1))
}

// hloPick is v at the place of x's greatest pixel of each window, the first of equals.
func (a PoolAttrs) hloPick(b text, x, v hlo) hlo {
	// The place of a pixel in its image orders equal ones.
	h, w := x.Shape[1], x.Shape[2]
	row := b.Scale("multiply", b.Iota(stablehlo.I32, shape.Of(h, w), 0), float64(w))
	at := b.BroadcastAt(b.Binary("add", row, b.Iota(stablehlo.I32, shape.Of(h, w), 1)), x.Shape, 1, 2)
	better := &stablehlo.Region{Args: []hlo{{Elem: x.Elem}, {Elem: stablehlo.I32}, {Elem: v.Elem}, {Elem: x.Elem}, {Elem: stablehlo.I32}, {Elem: v.Elem}}, Body: func(b text, in []hlo) []hlo {
		win := b.Binary("or", b.Compare("GT", in[0], in[3]), b.Binary("and", b.Compare("EQ", in[0], in[3]), b.Compare("LT", in[1], in[4])))
		return []hlo{b.Select(win, in[0], in[3]), b.Select(win, in[1], in[4]), b.Select(win, in[2], in[5])}
	}}
	start := []hlo{b.Scalar(x.Elem, lowest(x.Elem)), b.Scalar(stablehlo.I32, math.MaxInt32), b.Scalar(v.Elem, 0)}
	return b.ReduceWindow([]hlo{x, at, v}, start, better, a.window())[2]
}

// finishHLO is finish: factors and offsets apply to the last axis of acc, i32. Each operation rounds apart.
func (a QAttrs) finishHLO(b text, acc, scale, offset hlo) hlo {
	last := len(acc.Shape) - 1
	row := func(v hlo) hlo { return b.BroadcastAt(v, acc.Shape, last) }
	v := b.Apart(b.Binary("multiply", b.Convert(acc, stablehlo.F32), row(scale)))
	return a.settleHLO(b, b.Binary("add", v, row(offset)))
}

// settleHLO is what finish does with the sum.
func (a QAttrs) settleHLO(b text, v hlo) hlo {
	switch {
	case a.Float && a.ReLU:
		return b.Select(b.Compare("LT", v, b.Like(v, 0)), b.Like(v, 0), v)
	case a.Float:
		return v
	}
	v = b.Scale("minimum", b.Scale("maximum", v, float64(a.Low)), 255)
	return b.Convert(b.Convert(b.Unary("round_nearest_even", v), stablehlo.I32), stablehlo.U8)
}

// wordsHLO are the first n words of the generator of package random for {seed, count} in state i64 [2], ui32 [n].
func wordsHLO(b text, state hlo, stream, n int) hlo {
	const u32, u64 = stablehlo.U32, stablehlo.U64
	scalar := shape.Shape{}
	at := func(i int) hlo { return b.Reshape(b.SliceAxis(state, 0, i, i+1)) }
	// The seed as the float64 nearest to it, as RandomSource has it. 2^63 itself is beyond the range of i64.
	f := b.Convert(at(0), stablehlo.F64)
	seed := b.Select(b.Compare("GE", f, b.Scalar(stablehlo.F64, 1<<63)), b.Bits(b.Word(u64, math.MaxInt64, scalar), stablehlo.I64), b.Convert(f, stablehlo.I64))
	key := b.Bits(seed, u64)
	count := b.Binary("and", b.Bits(at(1), u64), b.Word(u64, 1<<countBits-1, scalar))
	counter := b.Binary("or", count, b.Word(u64, uint64(stream)<<countBits, scalar))

	blocks := shape.Of((n + 3) / 4)
	low := func(v hlo) hlo { return b.Convert(v, u32) } // conversions of integers wrap
	high := func(v hlo) hlo { return low(b.Binary("shift_right_logical", v, b.Word(u64, 32, v.Shape))) }
	all := func(v hlo) hlo { return b.BroadcastAt(v, blocks) }
	number := b.Iota(u64, blocks, 0)
	c := [4]hlo{low(number), high(number), all(low(counter)), all(high(counter))}
	k0, k1 := low(key), high(key)
	product := func(m uint64, v hlo) (hi, lo hlo) {
		p := b.Binary("multiply", b.Convert(v, u64), b.Word(u64, m, blocks))
		return high(p), low(p)
	}
	for range random.Rounds {
		hi0, lo0 := product(random.Mul0, c[0])
		hi1, lo1 := product(random.Mul1, c[2])
		xor := func(p, q, r hlo) hlo { return b.Binary("xor", b.Binary("xor", p, q), r) }
		c = [4]hlo{xor(hi1, c[1], all(k0)), lo1, xor(hi0, c[3], all(k1)), lo0}
		k0, k1 = b.Binary("add", k0, b.Word(u32, random.Weyl0, scalar)), b.Binary("add", k1, b.Word(u32, random.Weyl1, scalar))
	}
	for i := range c {
		c[i] = b.Reshape(c[i], blocks[0], 1)
	}
	return b.SliceAxis(b.Reshape(b.Concat(1, c[:]...), 4*blocks[0]), 0, 0, n)
}

// randomHLO makes the Lower of a random op from what turns words into numbers.
func randomHLO(f func(b text, words hlo) hlo) func(a RandomAttrs, b text, in []hlo, out []typ) []hlo {
	return func(a RandomAttrs, b text, in []hlo, out []typ) []hlo {
		n := a.Shape.Size()
		if n == 0 {
			return []hlo{b.Fill(stablehlo.F32, 0, a.Shape)}
		}
		return []hlo{b.Reshape(f(b, wordsHLO(b, in[0], a.Stream, n)), a.Shape...)}
	}
}

// uniformHLO are the upper 24 bits times 2^-24.
func uniformHLO(b text, words hlo) hlo {
	v := b.Binary("shift_right_logical", words, b.Word(stablehlo.U32, 8, words.Shape))
	return b.Scale("multiply", b.Convert(v, stablehlo.F32), 1.0/(1<<24))
}

// normalHLO are the quantiles of the normal distribution at (w + 1/2)/2^32, as package random has them.
func normalHLO(b text, words hlo) hlo {
	p := b.Scale("multiply", b.Scale("add", b.Convert(words, stablehlo.F64), 0.5), 1.0/(1<<32))
	q := b.Scale("subtract", p, 0.5)
	horner := func(x hlo, c [8]float64) hlo {
		s := b.Like(x, c[7])
		for i := 6; i >= 0; i-- {
			s = b.Scale("add", b.Binary("multiply", s, x), c[i])
		}
		return s
	}
	a, d, e, f := random.Quantile()
	r := b.Binary("subtract", b.Like(q, 0.180625), b.Binary("multiply", q, q))
	middle := b.Binary("divide", b.Binary("multiply", q, horner(r, a)), horner(r, d))
	tail := b.Binary("minimum", p, b.Binary("subtract", b.Like(p, 1), p))
	r = b.Scale("subtract", b.Unary("sqrt", b.Unary("negate", b.Unary("log", tail))), 1.6)
	z := b.Binary("divide", horner(r, e), horner(r, f))
	z = b.Select(b.Compare("LT", q, b.Like(q, 0)), b.Unary("negate", z), z)
	near := b.Compare("LE", b.Unary("abs", q), b.Like(q, 0.425))
	return b.Convert(b.Select(near, middle, z), stablehlo.F32)
}
