package nn

import (
	"fmt"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

func init() {
	classes["TransformerBlock"] = func() kind { return newBlock() }
	classes["RMSNormalization"] = func() kind { return &rmsNorm{-1, 1e-6} }
}

type rmsNorm struct {
	Axis    int     `json:"axis"`
	Epsilon float64 `json:"epsilon"`
}

// RMSNormalization divides each position's features by the root of their mean square, times a learned scale (arXiv:1910.07467).
func RMSNormalization() *Layer { return layer("RMSNormalization", &rmsNorm{-1, 1e-6}, nil) }

func (r *rmsNorm) check() error { return (&norm{r.Axis, r.Epsilon, true, true, Zeros, Ones}).check() }

func (r *rmsNorm) call(c *Call, x []*graph.Node) *graph.Node {
	in, features := (&norm{}).operand(c, x)
	return op.RMSNorm(in, c.Param("scale", Ones, true, features), r.Epsilon)
}

type block struct {
	heads
	KeyDim     int         `json:"key_dim"`          // 0: width/num_heads
	Hidden     int         `json:"intermediate_dim"` // 0: 4·width
	Activation Activation  `json:"activation"`
	Gated      bool        `json:"gated"`
	Dropout    float64     `json:"dropout"`
	Norm       string      `json:"norm"` // layer or rms
	Epsilon    float64     `json:"epsilon"`
	PreNorm    bool        `json:"normalize_first"`
	UseBias    bool        `json:"use_bias"`
	KernelInit Initializer `json:"kernel_initializer"`
	BiasInit   Initializer `json:"bias_initializer"`
	Adapter    int         `json:"adapter_dim,omitempty"` // 0: none
}

func newBlock() *block {
	return &block{Activation: GELU, Norm: "layer", Epsilon: 1e-5, PreNorm: true, UseBias: true, KernelInit: GlorotUniform, BiasInit: Zeros}
}

// TransformerBlock is one layer of a Transformer on a sequence [time, width]: self-attention, cross-attention if there is a second sequence, and a feed-forward
// network, each with a normalisation before it and a residual connection around it (arXiv:1706.03762, pre-norm as in arXiv:2002.04745):
//
//	x += dropout(attention(norm(x)));  x += dropout(attention(norm(x), memory));  x += dropout(W₂·act(W₁·norm(x)))
//
// A last operand i32 (one number for each example) says how many positions count: of the memory if there is one, else of the sequence itself.
// With CausalAttention it is a layer of a decoder. Options: PostNorm, RMSNorms, Gated, Hidden, BlockDropout, an Activation (GELU), NoBias, KernelInit,
// and those of attention.
func TransformerBlock(numHeads int, opts ...Option) *Layer {
	b := newBlock()
	b.Heads = numHeads
	return layer("TransformerBlock", b, opts)
}

func blockSetting(what string, set func(b *block)) Option {
	return setting{what, func(k kind) bool {
		b, ok := k.(*block)
		if ok {
			set(b)
		}
		return ok
	}}
}

// PostNorm normalises after each residual sum, as the first Transformers did.
func PostNorm() Option { return blockSetting("PostNorm", func(b *block) { b.PreNorm = false }) }

// RMSNorms takes RMS normalisations in place of layer normalisations.
func RMSNorms() Option { return blockSetting("RMSNorms", func(b *block) { b.Norm = "rms" }) }

// Gated multiplies the feed-forward network's hidden values with a second projection: W₂·(act(W₁·x)·W₃·x) (arXiv:2002.05202); with SiLU it is SwiGLU.
func Gated() Option { return blockSetting("Gated", func(b *block) { b.Gated = true }) }

// Hidden sets the width of a block's feed-forward network (4 times that of the sequence).
func Hidden(n int) Option { return blockSetting("Hidden", func(b *block) { b.Hidden = n }) }

// BlockDropout sets the rate of a block's dropouts (0).
func BlockDropout(rate float64) Option {
	return blockSetting("BlockDropout", func(b *block) { b.Dropout = rate })
}

// Adapter puts behind attention and feed-forward network, before the residual sum, a pair of small layers with a residual connection of their own, x + W₂·gelu(W₁·x) with n values
// between them (arXiv:1902.00751). W₂ begins at zero, so that a trained block with new adapters does what it did. Training adapters alone adapts a model with few parameters.
func Adapter(n int) Option { return blockSetting("Adapter", func(b *block) { b.Adapter = n }) }

// BlockEpsilon sets what a block's normalisations add to the variance (1e-5).
func BlockEpsilon(e float64) Option {
	return blockSetting("BlockEpsilon", func(b *block) { b.Epsilon = e })
}

func (b *block) kernelInit() *Initializer { return &b.KernelInit }

func (b *block) check() error {
	if b.Norm != "layer" && b.Norm != "rms" {
		return unknown("norm", b.Norm, []string{"layer", "rms"})
	}
	if b.KeyDim < 0 || b.Hidden < 0 || b.Adapter < 0 {
		return fmt.Errorf("key_dim, intermediate_dim and adapter_dim must not be negative")
	}
	return first(b.heads.check(), b.Activation.check(), (&dropout{b.Dropout}).check(), (&rmsNorm{-1, b.Epsilon}).check(),
		b.KernelInit.check("kernel_initializer"), b.BiasInit.check("bias_initializer"))
}

// part adds one residual part of the block: f between normalisation, dropout and sum.
func (b *block) part(c *Call, name string, x *graph.Node, f func(x *graph.Node) *graph.Node) *graph.Node {
	normalise := func(x *graph.Node) (y *graph.Node) {
		c.within(name+"_norm", func() {
			if b.Norm == "rms" {
				y = (&rmsNorm{-1, b.Epsilon}).call(c, []*graph.Node{x})
				return
			}
			n := defaultNorm
			n.Epsilon = b.Epsilon
			y = (&layerNorm{n}).call(c, []*graph.Node{x})
		})
		return y
	}
	in := x
	if b.PreNorm {
		in = normalise(x)
	}
	var y *graph.Node
	c.within(name, func() { y = (&dropout{b.Dropout}).call(c, []*graph.Node{b.adapt(c, f(in))}) })
	y = op.Add(x, y)
	if !b.PreNorm {
		y = normalise(y)
	}
	return y
}

// adapt applies the adapter of a part.
func (b *block) adapt(c *Call, x *graph.Node) *graph.Node {
	if b.Adapter == 0 {
		return x
	}
	y := x
	c.within("adapter", func() {
		for _, d := range []struct {
			name  string
			dense dense
		}{
			{"down", dense{b.Adapter, weights{b.KernelInit, bias{GELU, true, Zeros}}}},
			{"up", dense{x.Shape()[2], weights{Zeros, bias{Linear, true, Zeros}}}},
		} {
			c.within(d.name, func() { y = d.dense.call(c, []*graph.Node{y}) })
		}
	})
	return op.Add(x, y)
}

// WithAdapters is the model with adapters of n values in all its Transformer blocks; see Adapter. Blocks that have some already get others.
func (m *Model) WithAdapters(n int) (*Model, error) {
	out, err := m.copied()
	if err != nil {
		return nil, err
	}
	found := false
	for _, l := range out.layers {
		if b, ok := l.kind.(*block); ok {
			b.Adapter, found = n, true
		}
	}
	if !found {
		return nil, fmt.Errorf("nn: model %q has no Transformer block that adapters could go into", m.Name)
	}
	return out, nil
}

func (b *block) call(c *Call, x []*graph.Node) *graph.Node {
	q, memory, lengths, mask := sources(c, x)
	width := q.Shape()[2]
	keyDim := b.KeyDim
	if keyDim == 0 {
		if width%b.Heads != 0 {
			c.Fail("the width %d is no multiple of num_heads %d: set key_dim", width, b.Heads)
		}
		keyDim = width / b.Heads
	}
	attention := func(h heads, more ...*graph.Node) func(x *graph.Node) *graph.Node {
		m := &multiHead{h, keyDim, weights{b.KernelInit, bias{UseBias: b.UseBias, BiasInit: b.BiasInit}}}
		if err := m.check(); err != nil {
			c.Fail("%v", err)
		}
		return func(x *graph.Node) *graph.Node {
			in := []*graph.Node{x}
			for _, v := range more {
				if v != nil {
					in = append(in, v)
				}
			}
			return m.call(c, in)
		}
	}
	if memory == nil {
		q = b.part(c, "attention", q, attention(b.heads, lengths, mask))
	} else {
		q = b.part(c, "attention", q, attention(b.heads))
		cross := heads{Heads: b.Heads, KVHeads: b.KVHeads}
		q = b.part(c, "cross_attention", q, attention(cross, memory, lengths, mask))
	}
	return b.part(c, "feed_forward", q, func(x *graph.Node) *graph.Node {
		n := b.Hidden
		if n == 0 {
			n = 4 * width
		}
		first, second := entire, entire
		if c.splits(n) && b.Activation.elementwise() {
			first, second = columns, rowsOf
		}
		dense := func(name string, units int, a Activation, r role, x *graph.Node) (y *graph.Node) {
			c.within(name, func() {
				c.role = r
				defer func() { c.role = entire }()
				d := &dense{units, weights{b.KernelInit, bias{a, b.UseBias, b.BiasInit}}}
				y = d.call(c, []*graph.Node{x})
			})
			return y
		}
		y := dense("hidden", n, b.Activation, first, x)
		if b.Gated {
			y = op.Mul(y, dense("gate", n, Linear, first, x))
		}
		return dense("output", width, Linear, second, y)
	})
}
