package op

import (
	"fmt"
	"math"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Scaled dot-product attention (Vaswani et al., arXiv:1706.03762) and its gradient. Composed of others they would hold a score for each pair of
// query and key; kernels hold one block of them, as Dao et al. showed (FlashAttention, arXiv:2205.14135).
var AttentionOp, AttentionGradOp *graph.Op

// AttentionAttrs are the attributes of AttentionOp and AttentionGradOp. T is the number of queries, S that of keys.
//
// Query t stands at position S-T+t: the last query beside the last key. If Cached, the keys lie in a memory of S places of which the first
// length are filled, and query t of the row stands at length-T+t. If Ring, the memory goes on without end: the key of position p lies in place p mod S, over
// what was there before, so that of length positions the last S are there. A window must keep the queries from looking at more.
type AttentionAttrs struct {
	Scale   float64 // of the scores; 0 is 1/√D
	Causal  bool    // a query sees keys up to its own position
	Window  int     // if > 0: a query sees the last Window keys up to its own position (with Causal), or those nearer than Window
	ALiBi   bool    // adds slope·(key's position - query's), slopes by head: Press et al., arXiv:2108.12409
	Cached  bool    // see above; needs Lengths
	Ring    bool    // see above; needs Cached, Causal and a Window of at most S-T+1
	Lengths bool    // an operand i32 [B]: how many keys of each example count
	Mask    bool    // an operand bool [B or 1, H or 1, T, S]: which keys a query sees
}

// attentionDims are the sizes of an attention.
type attentionDims struct{ b, t, s, h, g, d int }

// ScaleOf is the factor of the scores for heads of d elements.
func (a AttentionAttrs) ScaleOf(d int) float64 {
	if a.Scale != 0 {
		return a.Scale
	}
	return 1 / math.Sqrt(float64(d))
}

// rest is the number of operands after q, k and v.
func (a AttentionAttrs) rest() int {
	n := 0
	if a.Lengths {
		n++
	}
	if a.Mask {
		n++
	}
	return n
}

// dims checks q, k, v and the operands that the attributes announce.
func (a AttentionAttrs) dims(in []typ) (z attentionDims, err error) {
	if len(in) < 3+a.rest() {
		return z, fmt.Errorf("takes %d operands, was given %d", 3+a.rest(), len(in))
	}
	if err := sameType(in[:3], 3, dtype.Type.IsFloat, "it must be a float"); err != nil {
		return z, err
	}
	q, k, v := in[0].Shape, in[1].Shape, in[2].Shape
	if len(q) != 4 || len(k) != 4 || !k.Equal(v) || q[0] != k[0] || q[3] != k[3] || q[3] == 0 || k[2] == 0 || q[2]%k[2] != 0 {
		return z, fmt.Errorf("takes queries [B T H D] and keys and values [B S G D] with H a multiple of G, not %v, %v and %v", q, k, v)
	}
	z = attentionDims{b: q[0], t: q[1], s: k[1], h: q[2], g: k[2], d: q[3]}
	if (a.Causal || a.Window > 0) && !a.Cached && z.t > z.s {
		return z, fmt.Errorf("%d queries and %d keys: the first queries would stand before the first key", z.t, z.s)
	}
	if a.Cached && !a.Lengths {
		return z, fmt.Errorf("with a memory of keys their number is needed: lengths")
	}
	if a.Window < 0 {
		return z, fmt.Errorf("a window of %d keys makes no sense", a.Window)
	}
	if a.Ring && (!a.Cached || !a.Causal || a.Mask || a.Window == 0 || a.Window+z.t-1 > z.s) {
		return z, fmt.Errorf("a ring of %d keys takes causal attention of %d queries within a window of 1 to %d, cached and without a mask, not %+v", z.s, z.t, z.s-z.t+1, a)
	}
	i := 3
	if a.Lengths {
		if want := graph.T(dtype.I32, z.b); !in[i].Equal(want) {
			return z, fmt.Errorf("lengths must be %v, not %v", want, in[i])
		}
		i++
	}
	if a.Mask {
		m := in[i].Shape
		if in[i].DType != dtype.Bool || len(m) != 4 || m[0] != 1 && m[0] != z.b || m[1] != 1 && m[1] != z.h || m[2] != z.t || m[3] != z.s {
			return z, fmt.Errorf("the mask must be bool[%d or 1, %d or 1, %d, %d], not %v", z.b, z.h, z.t, z.s, in[i])
		}
	}
	return z, nil
}

// pairs is how many pairs of query and key a head of one example has, lengths and mask not considered.
func (a AttentionAttrs) pairs(z attentionDims) int64 {
	if a.Cached || !a.Causal && a.Window == 0 {
		return int64(z.t) * int64(z.s)
	}
	n := int64(0)
	for t := range z.t {
		pos := z.s - z.t + t
		lo, hi := 0, z.s
		if a.Causal {
			hi = pos + 1
		}
		if a.Window > 0 {
			lo, hi = max(0, pos-a.Window+1), min(hi, pos+a.Window)
		}
		n += int64(hi - lo)
	}
	return n
}

// ALiBiSlope is the slope of head h of n: powers of 2^(-8/n) where n is a power of 2, else those of the next lower power and every second
// one of the next higher, as in the authors' program.
func ALiBiSlope(h, n int) float64 {
	p := 1
	for p*2 <= n {
		p *= 2
	}
	if h < p {
		return math.Pow(2, -8*float64(h+1)/float64(p))
	}
	return math.Pow(2, -4*float64(2*(h-p)+1)/float64(p))
}

// grouped brings [B T H D] to [B G H/G T D].
func (z attentionDims) grouped(x *node) *node {
	sh := x.Shape()
	return Transpose(Reshape(x, sh[0], sh[1], z.g, sh[2]/z.g, sh[3]), 0, 2, 3, 1, 4)
}

// ungrouped is the inverse of grouped.
func (z attentionDims) ungrouped(x *node) *node {
	sh := x.Shape()
	return Reshape(Transpose(x, 0, 3, 1, 2, 4), sh[0], sh[3], sh[1]*sh[2], sh[4])
}

// rows brings [B T H] to [B G H/G T S], each number S times.
func (z attentionDims) rows(x *node) *node {
	x = Reshape(Transpose(x, 0, 2, 1), z.b, z.g, z.h/z.g, z.t, 1)
	return BroadcastTo(x, z.b, z.g, z.h/z.g, z.t, z.s)
}

// scores are the scaled and biased scores [B G H/G T S] of grouped queries and keys, and which of them count (nil: all).
func (a AttentionAttrs) scores(z attentionDims, q, k *node, rest []*node) (s, keep *node) {
	g := q.Graph()
	s = Dot(q, k, DotAttrs{BatchA: []int{0, 1}, BatchB: []int{0, 1}, ContractA: []int{4}, ContractB: []int{3}})
	s = Mul(s, Like(s, a.ScaleOf(z.d)))
	pos := Add(Iota(g, graph.T(dtype.I32, 1, 1, 1, z.t, 1), 3), Scalar(g, dtype.I32, float64(z.s-z.t)))
	key := Iota(g, graph.T(dtype.I32, 1, 1, 1, 1, z.s), 4)
	and := func(n *node) {
		if keep == nil {
			keep = n
			return
		}
		keep = And(keep, n)
	}
	if a.Lengths {
		n := Reshape(rest[0], z.b, 1, 1, 1, 1)
		if a.Ring { // the last position that lies in the place: n-1 less how many places it is before that of n-1
			size := Scalar(g, dtype.I32, float64(z.s))
			last := Sub(n, Scalar(g, dtype.I32, 1))
			back := Add(Sub(last, key), size)
			key = Sub(last, Sub(back, Mul(Div(back, size), size)))
			and(Ge(key, Scalar(g, dtype.I32, 0)))
		} else {
			and(Lt(key, n))
		}
		if a.Cached {
			pos = Add(Iota(g, graph.T(dtype.I32, 1, 1, 1, z.t, 1), 3), Sub(n, Scalar(g, dtype.I32, float64(z.t))))
		}
		rest = rest[1:]
	}
	if a.Causal {
		and(Le(key, pos))
	}
	if a.Window > 0 {
		and(Gt(key, Sub(pos, Scalar(g, dtype.I32, float64(a.Window)))))
		and(Lt(key, Add(pos, Scalar(g, dtype.I32, float64(a.Window)))))
	}
	if a.Mask {
		m := rest[0].Shape()
		if m[1] == 1 {
			and(Reshape(rest[0], m[0], 1, 1, z.t, z.s))
		} else {
			and(Reshape(rest[0], m[0], z.g, z.h/z.g, z.t, z.s))
		}
	}
	if keep != nil {
		keep = BroadcastTo(keep, s.Shape()...)
	}
	if a.ALiBi {
		slope := tensor.New(dtype.F64, 1, z.g, z.h/z.g, 1, 1)
		for h := range z.h {
			slope.Set(h, ALiBiSlope(h, z.h))
		}
		s = Add(s, Mul(Convert(g.Const(slope), s.DType()), Convert(Sub(key, pos), s.DType())))
	}
	return s, keep
}

// where is x where keep, else 0; keep may be nil.
func where(keep, x *node) *node {
	if keep == nil {
		return x
	}
	return Select(keep, x, zeros(x))
}

func attentionFLOPs(perPair int64) func(a AttentionAttrs, in, _ []typ) int64 {
	return func(a AttentionAttrs, in, _ []typ) int64 {
		z, err := a.dims(in)
		if err != nil {
			return 0
		}
		// A product of scores or values is 2·D a pair; the function 5 as softmax counts it.
		return int64(z.b*z.h) * a.pairs(z) * (perPair*2*int64(z.d) + 5)
	}
}

// attentionSamples are operands for both ops: extra gives the types that come after q, k, v, lengths and mask.
func attentionSamples(extra func(b, t, h, d int) []typ) []graph.Sample {
	make := func(name string, a AttentionAttrs, b, t, s, h, g, d int, data ...*tensor.Tensor) graph.Sample {
		in := types(f32(b, t, h, d), f32(b, s, g, d), f32(b, s, g, d))
		values := []*tensor.Tensor{nil, nil, nil}
		for _, x := range data {
			in = append(in, graph.TypeOf(x))
			values = append(values, x)
		}
		more := extra(b, t, h, d)
		for range more {
			values = append(values, nil)
		}
		return graph.Sample{Name: name, Attrs: a, In: append(in, more...), Data: values}
	}
	mask := tensor.New(dtype.Bool, 2, 1, 3, 5)
	for i := range mask.Len() {
		if i%3 != 0 && i < 20 { // the last queries see nothing
			mask.Set(i, 1)
		}
	}
	bad := make("heads", AttentionAttrs{}, 1, 2, 2, 3, 2, 4)
	bad.Bad = "multiple of G"
	noLengths := make("no lengths", AttentionAttrs{Cached: true}, 1, 2, 2, 2, 2, 4)
	noLengths.Bad = "number is needed"
	wrongMask := make("mask", AttentionAttrs{Mask: true}, 2, 3, 4, 2, 2, 4, mask)
	wrongMask.Bad = "the mask must be"
	early := make("early", AttentionAttrs{Causal: true}, 1, 3, 2, 2, 2, 4)
	early.Bad = "before the first key"
	wide := make("wide", AttentionAttrs{Lengths: true, Causal: true, Cached: true, Ring: true, Window: 7}, 1, 3, 8, 2, 1, 8, tensor.Of([]int32{3}))
	wide.Bad = "a window of 1 to 6"
	return []graph.Sample{
		make("plain", AttentionAttrs{}, 2, 5, 5, 3, 3, 8),
		make("causal", AttentionAttrs{Causal: true}, 2, 67, 67, 2, 2, 16),
		make("one", AttentionAttrs{Causal: true}, 1, 1, 1, 1, 1, 3),
		make("cross, groups", AttentionAttrs{Scale: 0.5}, 2, 5, 9, 4, 2, 7),
		make("causal, later queries, one group", AttentionAttrs{Causal: true}, 1, 3, 70, 4, 1, 8),
		make("window", AttentionAttrs{Causal: true, Window: 3}, 1, 40, 40, 2, 2, 8),
		make("both sides", AttentionAttrs{Window: 2}, 1, 9, 9, 2, 2, 8),
		make("alibi", AttentionAttrs{Causal: true, ALiBi: true}, 1, 11, 11, 3, 3, 8),
		make("lengths", AttentionAttrs{Lengths: true}, 3, 4, 6, 2, 2, 8, tensor.Of([]int32{6, 2, 0})),
		make("memory", AttentionAttrs{Lengths: true, Causal: true, Cached: true}, 3, 2, 40, 2, 1, 8, tensor.Of([]int32{40, 7, 2})),
		make("one query", AttentionAttrs{Lengths: true, Causal: true, Cached: true}, 2, 1, 33, 6, 2, 32, tensor.Of([]int32{33, 5})),
		make("ring", AttentionAttrs{Lengths: true, Causal: true, Cached: true, Ring: true, Window: 5, ALiBi: true}, 4, 3, 8, 2, 1, 8, tensor.Of([]int32{3, 8, 9, 61})),
		make("masked", AttentionAttrs{Mask: true}, 2, 3, 5, 2, 1, 4, mask),
		bad, noLengths, wrongMask, early, wide,
	}
}

func init() {
	AttentionOp = add(def[AttentionAttrs]{
		Name: "attention", Doc: "softmax(scale·q·kᵀ)·v for queries [B T H D], keys and values [B S G D], H/G heads sharing a key; also the logarithm [B T H] of the softmax's sum (0 for a query that sees no key, whose result is 0)",
		Kind: graph.Contraction,
		Infer: func(a AttentionAttrs, in []typ) ([]typ, error) {
			z, err := a.dims(in)
			if err != nil {
				return nil, err
			}
			return []typ{in[0], graph.T(in[0].DType, z.b, z.t, z.h)}, operands(in, 3+a.rest())
		},
		Decompose: func(a AttentionAttrs, in []*node) []*node {
			z, _ := a.dims(typesOf(in))
			s, keep := a.scores(z, z.grouped(in[0]), Transpose(in[1], 0, 2, 1, 3), in[3:])
			low := s
			if keep != nil {
				low = Select(keep, s, Like(s, -1e30))
			}
			m := StopGradient(ReduceMax(low, 4))
			e := where(keep, Exp(Sub(low, keepLast(m, s))))
			sum := Sum(e, 4)
			empty := Eq(sum, Like(sum, 0))
			sum = Select(empty, Full(sum.Graph(), sum.Type(), 1), sum)
			p := Div(e, keepLast(sum, e))
			y := Dot(p, Transpose(in[2], 0, 2, 1, 3), DotAttrs{BatchA: []int{0, 1}, BatchB: []int{0, 1}, ContractA: []int{4}, ContractB: []int{2}})
			lse := Select(empty, zeros(sum), Add(Log(sum), m)) // [B G H/G T]
			return []*node{z.ungrouped(y), Transpose(Reshape(lse, z.b, z.h, z.t), 0, 2, 1)}
		},
		Grad: func(a AttentionAttrs, n *node, d []*node) []*node {
			none := make([]*node, len(n.Inputs())) // lengths and mask have none
			delta := (*node)(nil)                  // Σ y·dy, less what comes through the logarithm
			dy := d[0]
			if dy == nil {
				dy = zeros(n.Part(0))
			} else {
				delta = Sum(Mul(n.Part(0), dy), 3)
			}
			switch {
			case delta == nil:
				delta = Neg(d[1])
			case d[1] != nil:
				delta = Sub(delta, d[1])
			}
			in := append(append([]*node{}, n.Inputs()...), n.Part(1), delta, dy)
			g := n.Graph().Apply(AttentionGradOp, a, in...)
			for i := range 3 {
				none[i] = g.Part(i)
			}
			return none
		},
		FLOPs:   attentionFLOPs(2),
		Samples: attentionSamples(func(b, t, h, d int) []typ { return nil }),
	})
	grads := attentionSamples(func(b, t, h, d int) []typ { return types(f32(b, t, h), f32(b, t, h), f32(b, t, h, d)) })
	AttentionGradOp = add(def[AttentionAttrs]{
		Name: "attention_grad", Doc: "gradients of attention for q, k and v from its operands, the logarithm [B T H] it gave, δ = Σ y·dy [B T H] and dy [B T H D]; probabilities are computed again",
		Kind: graph.Contraction,
		Infer: func(a AttentionAttrs, in []typ) ([]typ, error) {
			z, err := a.dims(in)
			if err != nil {
				return nil, err
			}
			n := 3 + a.rest()
			if err := operands(in, n+3); err != nil {
				return nil, err
			}
			for i, want := range []shape.Shape{shape.Of(z.b, z.t, z.h), shape.Of(z.b, z.t, z.h), in[0].Shape} {
				if w := (typ{DType: in[0].DType, Shape: want}); !in[n+i].Equal(w) {
					return nil, fmt.Errorf("operand %d must be %v, not %v", n+i, w, in[n+i])
				}
			}
			return in[:3], nil
		},
		Decompose: func(a AttentionAttrs, in []*node) []*node {
			z, _ := a.dims(typesOf(in))
			n := 3 + a.rest()
			q, k, v := z.grouped(in[0]), Transpose(in[1], 0, 2, 1, 3), Transpose(in[2], 0, 2, 1, 3) // [B G R T D], [B G S D]
			dy := z.grouped(in[n+2])
			s, keep := a.scores(z, q, k, in[3:n])
			p := where(keep, Exp(where(keep, Sub(s, z.rows(in[n]))))) // [B G R T S]
			dp := Dot(dy, v, DotAttrs{BatchA: []int{0, 1}, BatchB: []int{0, 1}, ContractA: []int{4}, ContractB: []int{3}})
			ds := Mul(Mul(p, Sub(dp, z.rows(in[n+1]))), Like(p, a.ScaleOf(z.d)))
			dq := Dot(ds, k, DotAttrs{BatchA: []int{0, 1}, BatchB: []int{0, 1}, ContractA: []int{4}, ContractB: []int{2}})
			over := DotAttrs{BatchA: []int{0, 1}, BatchB: []int{0, 1}, ContractA: []int{2, 3}, ContractB: []int{2, 3}} // heads of the group and queries
			dk, dv := Dot(ds, q, over), Dot(p, dy, over)
			return []*node{z.ungrouped(dq), Transpose(dk, 0, 2, 1, 3), Transpose(dv, 0, 2, 1, 3)}
		},
		FLOPs:   attentionFLOPs(5),
		Samples: grads,
	})
}

func typesOf(in []*node) []typ {
	out := make([]typ, len(in))
	for i, n := range in {
		out[i] = n.Type()
	}
	return out
}

// Attention is softmax(scale·q·kᵀ)·v for queries [B T H D] and keys and values [B S G D]. lengths (i32 [B]) and mask (bool) may be nil.
func Attention(q, k, v, lengths, mask *node, a AttentionAttrs) *node {
	in := []*node{q, k, v}
	if a.Lengths = lengths != nil; a.Lengths {
		in = append(in, lengths)
	}
	if a.Mask = mask != nil; a.Mask {
		in = append(in, mask)
	}
	return q.Graph().Apply(AttentionOp, a, in...).Part(0)
}
