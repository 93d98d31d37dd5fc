package nn

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

func init() {
	classes["Attention"] = func() kind { return &dotAttention{} }
	classes["AdditiveAttention"] = func() kind { return &additiveAttention{Scale: true} }
	classes["AttentionDecoder"] = func() kind { return &attentionDecoder{Score: scoreGeneral} }
}

type dotAttention struct {
	Scale bool `json:"use_scale"`
}

// Attention is softmax(q·kᵀ)·v for queries [time, width] and a second sequence [positions, width] of values, which are the keys too unless a third one is given (Luong et al.,
// arXiv:1508.04025). A last operand i32, one number for each example, says how many of its positions count. With the option LearnedScale scores are multiplied by a learned number.
func Attention(opts ...Option) *Layer { return layer("Attention", &dotAttention{}, opts) }

// LearnedScale lets an Attention learn a factor of its scores.
func LearnedScale() Option {
	return setting{"LearnedScale", func(k kind) bool {
		a, ok := k.(*dotAttention)
		if ok {
			a.Scale = true
		}
		return ok
	}}
}

func (*dotAttention) check() error { return nil }

// attended sorts operands: queries, values, keys, all floats [batch time width], and lengths i32 [batch] or nil.
func attended(c *Call, x []*graph.Node) (q, v, k, lengths *graph.Node) {
	var seq []*graph.Node
	for i, n := range x {
		s := n.Shape()
		switch {
		case n.DType().IsFloat() && len(s) == 3 && len(seq) < 3 && lengths == nil:
			seq = append(seq, n)
		case i > 1 && n.DType().IsInt() && len(s) == 1 && lengths == nil:
			lengths = op.Convert(n, dtype.I32)
		default:
			c.Fail("operand %d is %v; it takes queries and values [batch time width], perhaps keys, and perhaps lengths i32 [batch]", i, n.Type())
		}
	}
	if len(seq) < 2 {
		c.Fail("takes a sequence of queries and one of values, was given %d", len(seq))
	}
	if len(seq) == 2 {
		seq = append(seq, seq[1])
	}
	if kw, qw := seq[2].Shape()[2], seq[0].Shape()[2]; kw != qw {
		c.Fail("the width %d of the queries is not that of the keys, %d", qw, kw)
	}
	if a, b := seq[2].Shape(), seq[1].Shape(); a[1] != b[1] {
		c.Fail("%d keys and %d values", a[1], b[1])
	}
	return seq[0], seq[1], seq[2], lengths
}

func (a *dotAttention) call(c *Call, x []*graph.Node) *graph.Node {
	q, v, k, lengths := attended(c, x)
	if !v.Shape().Equal(k.Shape()) {
		c.Fail("keys %v and values %v must have one width", k.Shape(), v.Shape())
	}
	if a.Scale {
		q = op.Mul(q, c.Param("scale", Ones, true))
	}
	return attendOnce(q, k, v, lengths)
}

// attendOnce is softmax(q·kᵀ)·v in one head.
func attendOnce(q, k, v, lengths *graph.Node) *graph.Node {
	head := func(x *graph.Node) *graph.Node {
		s := x.Shape()
		return op.Reshape(x, s[0], s[1], 1, s[2])
	}
	y := op.Attention(head(q), head(k), head(v), lengths, nil, op.AttentionAttrs{Scale: 1})
	return op.Reshape(y, q.Shape()[0], q.Shape()[1], v.Shape()[2])
}

type additiveAttention struct {
	Scale bool `json:"use_scale"`
}

// AdditiveAttention is Attention with the score Σ w·tanh(q + k) in place of the product (Bahdanau et al., arXiv:1409.0473). It holds a vector for each pair of query and key, so it is for short
// sequences.
func AdditiveAttention() *Layer {
	return layer("AdditiveAttention", &additiveAttention{true}, nil)
}

func (*additiveAttention) check() error { return nil }

func (a *additiveAttention) call(c *Call, x []*graph.Node) *graph.Node {
	q, v, k, lengths := attended(c, x)
	var w *graph.Node
	if a.Scale {
		w = c.Param("scale", GlorotUniform, true, q.Shape()[2])
	}
	return additive(q, k, v, w, lengths)
}

// additive is softmax(Σ w·tanh(q + k))·v; w [width] and lengths i32 [batch] may be nil.
func additive(q, k, v, w, lengths *graph.Node) *graph.Node {
	b, t, d, n := q.Shape()[0], q.Shape()[1], q.Shape()[2], k.Shape()[1]
	wide := func(x *graph.Node, dims ...int) *graph.Node {
		return op.BroadcastTo(op.Reshape(x, dims...), b, t, n, d)
	}
	e := op.Tanh(op.Add(wide(q, b, t, 1, d), wide(k, b, 1, n, d)))
	if w != nil {
		e = op.Mul(e, w)
	}
	score := op.Sum(e, 3) // [batch time keys]
	if lengths == nil {
		return op.Dot(op.Softmax(score), v, op.DotAttrs{BatchA: []int{0}, BatchB: []int{0}, ContractA: []int{2}, ContractB: []int{1}})
	}
	keep := counted(lengths, n, b, t, n)
	p := op.Softmax(op.Select(keep, score, op.Like(score, -1e30)))
	p = op.Mul(p, op.Convert(keep, p.DType())) // no keys at all: nothing
	return op.Dot(p, v, op.DotAttrs{BatchA: []int{0}, BatchB: []int{0}, ContractA: []int{2}, ContractB: []int{1}})
}

// counted says which of n positions are below lengths i32 [batch], as bool dims, of which the first is the batch and the last n.
func counted(lengths *graph.Node, n int, dims ...int) *graph.Node {
	b := lengths.Shape()[0]
	pos := op.BroadcastTo(op.Iota(lengths.Graph(), graph.T(dtype.I32, 1, n), 1), b, n)
	below := op.Gt(op.BroadcastTo(op.Reshape(lengths, b, 1), b, n), pos)
	flat := make([]int, len(dims))
	for i := range flat {
		flat[i] = 1
	}
	flat[0], flat[len(flat)-1] = b, n
	return op.BroadcastTo(op.Reshape(below, flat...), dims...)
}

const (
	scoreGeneral  = "general"
	scoreAdditive = "additive"
)

type attentionDecoder struct {
	Layer nested `json:"layer"`
	Units int    `json:"units"` // 0: as many as the recurrent layer
	Score string `json:"score"`
}

// AttentionDecoder runs a recurrent layer over a sequence [time, features] and lets each of its states look at a memory [positions, width], such as the states of an encoder: its result
// is tanh(W·[context; state]) (global attention of Luong et al., arXiv:1508.04025). The score of state and memory is state·W·memory, or with AdditiveScore Σ w·tanh(W₁·state + W₂·memory)
// (Bahdanau et al., arXiv:1409.0473). After sequence and memory may come lengths i32, one number for each example: how many positions of the memory count, and the layer's first states.
func AttentionDecoder(l *Layer, opts ...Option) *Layer {
	return layer("AttentionDecoder", &attentionDecoder{Layer: nested{l.class, l.kind}, Score: scoreGeneral}, opts)
}

// AdditiveScore gives an AttentionDecoder the score of Bahdanau et al.
func AdditiveScore() Option {
	return setting{"AdditiveScore", func(k kind) bool {
		d, ok := k.(*attentionDecoder)
		if ok {
			d.Score = scoreAdditive
		}
		return ok
	}}
}

func (d *attentionDecoder) check() error {
	k, ok := d.Layer.kind.(cell)
	switch {
	case !ok:
		return fmt.Errorf("layer must be a recurrent one (SimpleRNN, LSTM, GRU), not %q", d.Layer.class)
	case k.common().Backwards:
		return fmt.Errorf("a decoder reads forwards: go_backwards makes no sense")
	case d.Units < 0:
		return fmt.Errorf("units must not be negative, as %d is", d.Units)
	case d.Score != scoreGeneral && d.Score != scoreAdditive:
		return unknown("score", d.Score, []string{scoreAdditive, scoreGeneral})
	}
	return k.check()
}

func (d *attentionDecoder) call(c *Call, x []*graph.Node) *graph.Node {
	if len(x) < 2 || len(x[1].Shape()) != 3 || !x[1].DType().IsFloat() {
		c.Fail("takes a sequence and a memory [batch positions width]")
	}
	memory, own := x[1], []*graph.Node{x[0]}
	var lengths *graph.Node
	for _, v := range x[2:] {
		if v.DType().IsInt() && len(v.Shape()) == 1 && lengths == nil {
			lengths = op.Convert(v, dtype.I32)
			continue
		}
		own = append(own, v)
	}
	k := d.Layer.kind.(cell)
	var states *graph.Node
	c.within(snake(d.Layer.class), func() { states, _ = unfold(c, k, false, own) })
	b, t, h := states.Shape()[0], states.Shape()[1], states.Shape()[2]
	n, width := memory.Shape()[1], memory.Shape()[2]
	product := func(name string, x *graph.Node, units int) (y *graph.Node) {
		c.within(name, func() {
			s := x.Shape()
			y = c.matmul(op.Reshape(x, s[0]*s[1], s[2]), c.Param("kernel", GlorotUniform, true, s[2], units))
			y = op.Reshape(y, s[0], s[1], units)
		})
		return y
	}
	var context *graph.Node
	c.within("attention", func() {
		if d.Score == scoreGeneral {
			context = attendOnce(product("query", states, width), memory, memory, lengths)
			return
		}
		q, keys := product("query", states, h), product("key", memory, h)
		context = additive(q, keys, memory, c.Param("scale", GlorotUniform, true, h), lengths)
	})
	units := d.Units
	if units == 0 {
		units = h
	}
	if n == 0 {
		c.Fail("the memory has no positions")
	}
	return op.Reshape(op.Tanh(product("output", op.Concat(2, context, states), units)), b, t, units)
}
