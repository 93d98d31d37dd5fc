package nn

import (
	"fmt"
	"math"
	"strings"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

func init() {
	classes["MultiHeadAttention"] = func() kind { return &multiHead{weights: defaultWeights} }
	classes["PositionEmbedding"] = func() kind { return &positions{Init: GlorotUniform} }
	classes["SinePositionEncoding"] = func() kind { return &sinePositions{10000} }
}

// heads are the settings of attention.
type heads struct {
	Heads   int     `json:"num_heads"`
	KVHeads int     `json:"num_key_value_heads"` // 0: as many as Heads; 1 is multi-query attention
	Causal  bool    `json:"causal"`
	Window  int     `json:"window"` // 0: none
	ALiBi   bool    `json:"alibi"`
	Rotary  float64 `json:"rotary_wavelength"` // 0: none; 10000 is usual
}

func (h *heads) attention() *heads { return h }

func (h *heads) check() error {
	switch {
	case h.KVHeads < 0 || h.KVHeads > 0 && h.Heads%h.KVHeads != 0:
		return fmt.Errorf("num_key_value_heads must divide num_heads %d, which %d does not", h.Heads, h.KVHeads)
	case h.Window < 0:
		return fmt.Errorf("window must not be negative, as %d is", h.Window)
	case h.Rotary < 0:
		return fmt.Errorf("rotary_wavelength must not be negative, as %g is", h.Rotary)
	}
	return first(positive("num_heads", h.Heads), finite("rotary_wavelength", h.Rotary))
}

// attentive changes the settings of layers that attend.
func attentive(what string, set func(h *heads)) Option {
	return setting{what, func(k kind) bool {
		a, ok := k.(interface{ attention() *heads })
		if ok {
			set(a.attention())
		}
		return ok
	}}
}

// CausalAttention lets a position see itself and those before it.
func CausalAttention() Option {
	return attentive("CausalAttention", func(h *heads) { h.Causal = true })
}

// KeyValueHeads lets n heads of keys and values serve all heads of queries, in groups (arXiv:2305.13245); 1 is multi-query attention.
func KeyValueHeads(n int) Option { return attentive("KeyValueHeads", func(h *heads) { h.KVHeads = n }) }

// Window limits attention to the last n positions, of which the own is one; without CausalAttention to those nearer than n on both sides.
func Window(n int) Option { return attentive("Window", func(h *heads) { h.Window = n }) }

// ALiBi adds to each score a slope times the distance, another for each head, in place of positions in the input (arXiv:2108.12409).
func ALiBi() Option { return attentive("ALiBi", func(h *heads) { h.ALiBi = true }) }

// Rotary turns queries and keys by angles that grow with the position (arXiv:2104.09864), pairs of elements lying half a head apart; the
// wavelengths go up to 2π·wavelength, for which 10000 is usual.
func Rotary(wavelength float64) Option {
	return attentive("Rotary", func(h *heads) { h.Rotary = wavelength })
}

type multiHead struct {
	heads
	KeyDim int `json:"key_dim"`
	weights
}

// MultiHeadAttention is softmax(q·kᵀ/√keyDim)·v in several heads, with q, k and v projections of the operands and a last projection back to the width of the
// first (arXiv:1706.03762). On one sequence [time, width] it is self-attention. A second sequence gives keys and values: cross-attention. A last operand may say
// which keys count: numbers i32 (one for each example: how many) or a mask bool [1 or heads, time, keys]. Probabilities have no dropout.
func MultiHeadAttention(numHeads, keyDim int, opts ...Option) *Layer {
	return layer("MultiHeadAttention", &multiHead{heads{Heads: numHeads}, keyDim, defaultWeights}, opts)
}

func (m *multiHead) check() error {
	if m.Activation != "" {
		return fmt.Errorf("MultiHeadAttention has no activation")
	}
	if m.Rotary > 0 && m.KeyDim%2 != 0 {
		return fmt.Errorf("rotary positions need an even key_dim, not %d", m.KeyDim)
	}
	return first(m.heads.check(), positive("key_dim", m.KeyDim), m.weights.check())
}

// sources sorts the operands of attention: the sequence of queries, that of keys, lengths and mask (nil where there are none).
func sources(c *Call, x []*graph.Node) (q, kv, lengths, mask *graph.Node) {
	for i, v := range x {
		s := v.Shape()
		switch {
		case i > 0 && v.DType() == dtype.Bool && len(s) == 4 && mask == nil:
			mask = v
		case i > 0 && v.DType().IsInt() && len(s) == 1 && lengths == nil:
			lengths = op.Convert(v, dtype.I32)
		case v.DType().IsFloat() && len(s) == 3 && q == nil:
			q = v
		case v.DType().IsFloat() && len(s) == 3 && kv == nil:
			kv = v
		default:
			c.Fail("operand %d is %v; it takes a sequence of floats [batch time width], perhaps a second one that it attends to, lengths i32 [batch] and a mask bool [batch heads time keys]", i, v.Type())
		}
	}
	if q == nil {
		c.Fail("takes a sequence, was given nothing")
	}
	return q, kv, lengths, mask
}

// project is x [batch time width] times a kernel [width, heads, dim] plus a bias [heads, dim]: [batch time heads dim]; split, of this rank's heads alone.
func (m *multiHead) project(c *Call, name string, x *graph.Node, heads int, split bool) (y *graph.Node) {
	c.within(name, func() {
		s := x.Shape()
		flat := op.Reshape(x, s[0]*s[1], s[2])
		if split {
			y = c.part(flat, "kernel", m.KernelInit, 1, s[2], heads, m.KeyDim)
		} else {
			y = c.product(flat, "kernel", m.KernelInit, s[2], heads, m.KeyDim)
		}
		if m.UseBias {
			var b *graph.Node
			if split {
				b = c.share("bias", m.BiasInit, 0, heads, m.KeyDim)
			} else {
				b = c.Param("bias", m.BiasInit, true, heads, m.KeyDim)
			}
			y = op.Add(y, op.Reshape(b, b.Shape().Size()))
		}
		if split {
			heads /= c.Split.Of
		}
		y = op.Reshape(y, s[0], s[1], heads, m.KeyDim)
	})
	return y
}

func (m *multiHead) call(c *Call, x []*graph.Node) *graph.Node {
	q, kv, lengths, mask := sources(c, x)
	self := kv == nil
	if self {
		kv = q
	}
	if (m.Causal || m.Window > 0) && q.Shape()[1] > kv.Shape()[1] {
		c.Fail("%d positions cannot attend causally, or in a window, to %d: the first would stand before all of them", q.Shape()[1], kv.Shape()[1])
	}
	groups := m.KVHeads
	if groups == 0 {
		groups = m.Heads
	}
	batch, time, width := q.Shape()[0], q.Shape()[1], q.Shape()[2]
	split := c.splits(m.Heads) && c.splits(groups) && !m.ALiBi && mask == nil && c.Attend == nil // slopes and masks are by head
	query := m.project(c, "query", q, m.Heads, split)
	key := m.project(c, "key", kv, groups, split)
	value := m.project(c, "value", kv, groups, split)
	if m.Rotary > 0 {
		query, key = m.turn(c, query, kv.Shape()[1]-time), m.turn(c, key, 0)
	}
	a := op.AttentionAttrs{Causal: m.Causal, Window: m.Window, ALiBi: m.ALiBi}
	if !self && c.Cache != nil {
		if !c.Cache.fixed[kv] {
			c.Fail("a sequence that grows by and by can attend to one that is there from the beginning, not to another that grows")
		}
		if m.Causal || m.Window > 0 || m.ALiBi || m.Rotary > 0 {
			c.Fail("where a sequence grows by and by, attention to another can be neither causal nor within a window, and takes no ALiBi or rotary positions")
		}
		key, value = c.Cache.once(c, "memory_keys", key), c.Cache.once(c, "memory_values", value)
	}
	if self && c.Cache != nil {
		if !m.Causal {
			c.Fail("a sequence can grow by and by only where no position sees later ones: causal attention")
		}
		if lengths != nil || mask != nil {
			c.Fail("lengths and masks cannot be used with a memory of keys")
		}
		key, value = c.Cache.remember(c, "keys", key), c.Cache.remember(c, "values", value)
		lengths, a.Cached, a.Ring = c.Cache.Lengths, true, c.Cache.Ring
	}
	if c.Attend != nil {
		c.Attend(strings.TrimSuffix(c.layer.name+"/"+c.prefix, "/"), probabilities(query, key, lengths, mask, a))
	}
	y := op.Attention(query, key, value, lengths, mask, a)
	c.within("attention_output", func() {
		n := m.Heads * m.KeyDim
		if split {
			y = c.total(c.part(op.Reshape(y, batch*time, n/c.Split.Of), "kernel", m.KernelInit, 0, m.Heads, m.KeyDim, width))
		} else {
			y = c.product(op.Reshape(y, batch*time, n), "kernel", m.KernelInit, m.Heads, m.KeyDim, width)
		}
		if m.UseBias {
			y = op.Add(y, c.Param("bias", m.BiasInit, true, width))
		}
		y = op.Reshape(y, batch, time, width)
	})
	return y
}

// probabilities are those that attention gives the keys, [batch heads time keys]: its own result for values of which each has a 1 in a place of its own, as many
// places at a time as a value has.
func probabilities(q, k, lengths, mask *graph.Node, a op.AttentionAttrs) *graph.Node {
	s := k.Shape()
	keys, dim := s[1], s[3]
	var parts []*graph.Node
	for at := 0; at < keys; at += dim {
		one := tensor.New(k.DType(), 1, keys, 1, dim)
		for i := at; i < min(at+dim, keys); i++ {
			one.Set(i*dim+i-at, 1)
		}
		y := op.Attention(q, k, op.BroadcastTo(q.Graph().Const(one), s...), lengths, mask, a) // [batch time heads dim]
		parts = append(parts, op.SliceAxis(y, 3, 0, min(dim, keys-at)))
	}
	return op.Transpose(op.Concat(3, parts...), 0, 2, 1, 3)
}

// turn applies rotary positions to x [batch time heads dim], whose first position is from.
func (m *multiHead) turn(c *Call, x *graph.Node, from int) *graph.Node {
	s := x.Shape()
	half := s[3] / 2
	freq := tensor.New(dtype.F32, 1, 1, 1, half)
	for i := range half {
		freq.Set(i, math.Pow(m.Rotary, -float64(i)/float64(half)))
	}
	pos := op.Convert(c.positions(s[1], from), x.DType()) // [batch or 1, time]
	angle := op.Mul(op.Reshape(pos, pos.Shape()[0], s[1], 1, 1), op.Convert(c.G.Const(freq), x.DType()))
	cos, sin := op.Cos(angle), op.Sin(angle)
	a, b := op.SliceAxis(x, 3, 0, half), op.SliceAxis(x, 3, half, s[3])
	return op.Concat(3, op.Sub(op.Mul(a, cos), op.Mul(b, sin)), op.Add(op.Mul(b, cos), op.Mul(a, sin)))
}

// positions are the positions i32 [1, time] of a sequence whose first is from; while it grows by and by, [batch, time].
func (c *Call) positions(time, from int) *graph.Node {
	p := op.Iota(c.G, graph.T(dtype.I32, 1, time), 1)
	if c.Cache == nil {
		return op.Add(p, op.Like(p, float64(from)))
	}
	n := op.Reshape(c.Cache.Lengths, c.Cache.Lengths.Shape()[0], 1)
	return op.Add(p, op.Sub(n, op.Like(n, float64(time))))
}

// Cache makes a call go on with sequences of which the first positions have been seen by calls before: the operands of the model are the next
// positions alone, and layers keep in variables what they need of the earlier ones (attention its keys and values, recurrent layers their state).
type Cache struct {
	Name    string      // of the memory: calls with the same name go on with the same sequences
	Room    int         // positions that there is room for
	Ring    bool        // the memory is a ring, which forgets what it has no more room for: sequences go on without end (see Model.Window)
	Lengths *graph.Node // i32 [batch]: how many positions each sequence has, those of this call included

	// Counts, if not nil, is i32 [batch]: how many positions of this call each sequence really has. What follows them is written behind the sequence's end and is not looked at;
	// the caller's next Lengths lets it be written over.
	Counts *graph.Node

	// Input is which of the model's inputs grows. What depends on the others alone, such as an encoder, is there from the beginning: the call that begins the
	// sequences computes it, and later calls go on with what attention has kept of it.
	Input int
	Begin bool // this call begins the sequences

	fixed map[*graph.Node]bool // results that do not depend on the input that grows
}

// whole are layers that look at several positions of a sequence and keep nothing for later ones.
var whole = map[string]bool{"Conv1D": true, "MaxPooling1D": true, "AveragePooling1D": true, "GlobalMaxPooling1D": true, "GlobalAveragePooling1D": true, "Attention": true,
	"AdditiveAttention": true, "AttentionDecoder": true, "RepeatVector": true, "FirstPosition": true, "Flatten": true, "Reshape": true, "Permute": true}

// Window reports whether sequences can grow without end while the model looks at a limited number of positions, and that number: all attention is causal within a window
// (nn.Window) and no positions are learned. A recurrent model needs 1.
func (m *Model) Window() (n int, ok bool) {
	n = 1
	for _, l := range m.layers {
		switch k := l.kind.(type) {
		case interface{ attention() *heads }:
			h := k.attention()
			if !h.Causal || h.Window == 0 {
				return 0, false
			}
			n = max(n, h.Window)
		case *positions:
			return 0, false
		}
	}
	return n, true
}

const cacheScope = "cache:"

// Cached says whether a variable of that name is the memory of a Cache.
func Cached(variable string) bool { return strings.HasPrefix(variable, cacheScope) }

// remember writes x [batch time groups dim] behind what earlier calls have written, and gives all of it.
func (m *Cache) remember(c *Call, name string, x *graph.Node) *graph.Node {
	s := x.Shape()
	v := m.variable(c, name, graph.T(x.DType(), s[0], m.Room, s[2], s[3]))
	add := op.Append
	if m.Ring {
		add = op.AppendRing
	}
	all := add(v, x, m.Lengths)
	c.G.Update(v, all)
	return all
}

// once is x from the call that began the sequences.
func (m *Cache) once(c *Call, name string, x *graph.Node) *graph.Node {
	v := m.variable(c, name, x.Type())
	if !m.Begin {
		return v
	}
	c.G.Update(v, x)
	return x
}

type positions struct {
	Length int         `json:"sequence_length"`
	Init   Initializer `json:"initializer"`
}

// PositionEmbedding adds to each position of a sequence [time, width] a vector that is learned; sequences have at most length positions.
func PositionEmbedding(length int, opts ...Option) *Layer {
	return layer("PositionEmbedding", &positions{length, GlorotUniform}, opts)
}

func (p *positions) kernelInit() *Initializer { return &p.Init }

func (p *positions) check() error {
	return first(positive("sequence_length", p.Length), p.Init.check("initializer"))
}

func (p *positions) call(c *Call, x []*graph.Node) *graph.Node {
	in := sequence(c, x)
	s := in.Shape()
	if c.Cache == nil && s[1] > p.Length {
		c.Fail("a sequence of %d positions is longer than its sequence_length %d", s[1], p.Length)
	}
	w := c.Param("embeddings", p.Init, true, p.Length, s[2])
	if c.Cache != nil {
		if c.Cache.Room > p.Length || c.Cache.Ring {
			c.Fail("there is to be room for %d positions, but only sequence_length %d have been learned", c.Cache.Room, p.Length)
		}
		return op.Add(in, op.Gather(w, c.positions(s[1], 0), 0))
	}
	return op.Add(in, op.Reshape(op.SliceAxis(w, 0, 0, s[1]), 1, s[1], s[2]))
}

// sequence is the operand of a layer that takes one sequence of vectors.
func sequence(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	if len(in.Shape()) != 3 || !in.DType().IsFloat() {
		c.Fail("takes a sequence of floats [batch time width], not %v", in.Type())
	}
	return in
}

type sinePositions struct {
	Wavelength float64 `json:"max_wavelength"`
}

// SinePositionEncoding adds to each position of a sequence [time, width] sines and cosines of it, in turn, at wavelengths from 2π to 20000π
// (arXiv:1706.03762). The width must be even.
func SinePositionEncoding() *Layer {
	return layer("SinePositionEncoding", &sinePositions{10000}, nil)
}

func (p *sinePositions) check() error {
	if !(p.Wavelength > 0) {
		return fmt.Errorf("max_wavelength must be a positive number, not %g", p.Wavelength)
	}
	return finite("max_wavelength", p.Wavelength)
}

func (p *sinePositions) call(c *Call, x []*graph.Node) *graph.Node {
	in := sequence(c, x)
	time, width := in.Shape()[1], in.Shape()[2]
	if width%2 != 0 {
		c.Fail("the width must be even, not %d", width)
	}
	freq, shift := tensor.New(dtype.F32, 1, 1, width), tensor.New(dtype.F32, 1, 1, width)
	for i := range width {
		freq.Set(i, math.Pow(p.Wavelength, -float64(i/2*2)/float64(width)))
		shift.Set(i, float64(i%2)*math.Pi/2) // cos x = sin(x + π/2)
	}
	pos := op.Convert(c.positions(time, 0), in.DType())
	angle := op.Mul(op.Reshape(pos, pos.Shape()[0], time, 1), op.Convert(c.G.Const(freq), in.DType()))
	return op.Add(in, op.Sin(op.Add(angle, op.Convert(c.G.Const(shift), in.DType()))))
}
