package nn

import (
	"math"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

func init() {
	for _, p := range []pool{{rank: 1, max: true}, {rank: 1}, {rank: 2, max: true}, {rank: 2}} {
		classes[p.class()] = func() kind { return newPool(p.rank, p.max, 2) }
	}
	for _, p := range []globalPool{{rank: 1, max: true}, {rank: 1}, {rank: 2, max: true}, {rank: 2}} {
		classes[p.class()] = func() kind { return &globalPool{rank: p.rank, max: p.max} }
	}
}

type pool struct {
	Size    lens    `json:"pool_size"`
	Strides lens    `json:"strides,omitempty"` // none: the size
	Padding Padding `json:"padding"`
	rank    int
	max     bool
}

func newPool(rank int, max bool, size int) *pool {
	return &pool{Size: lens{size}, Padding: Valid, rank: rank, max: max}
}

func poolClass(max bool, rank int) string {
	name := "AveragePooling"
	if max {
		name = "MaxPooling"
	}
	return name + [...]string{1: "1D", 2: "2D"}[rank]
}

func (p *pool) class() string { return poolClass(p.max, p.rank) }

func pooling(rank int, max bool, size int, opts []Option) *Layer {
	p := newPool(rank, max, size)
	return layer(p.class(), p, opts)
}

// MaxPool1D takes the greatest of each window of size steps, which move by their size unless Strides says otherwise.
func MaxPool1D(size int, opts ...Option) *Layer { return pooling(1, true, size, opts) }

// AveragePool1D averages each window of size steps. Padding does not count.
func AveragePool1D(size int, opts ...Option) *Layer { return pooling(1, false, size, opts) }

// MaxPool2D takes the greatest pixel of each window of size×size, which move by their size unless Strides says otherwise.
func MaxPool2D(size int, opts ...Option) *Layer { return pooling(2, true, size, opts) }

// AveragePool2D averages each window. Pixels of padding do not count.
func AveragePool2D(size int, opts ...Option) *Layer { return pooling(2, false, size, opts) }

func (p *pool) window() window {
	return window{size: &p.Size, strides: &p.Strides, padding: &p.Padding}
}

func (p *pool) strides() lens {
	if len(p.Strides) == 0 {
		return p.Size
	}
	return p.Strides
}

func (p *pool) check() error {
	return first(p.Size.check("pool_size", p.rank), p.strides().check("strides", p.rank), p.Padding.check(false))
}

func (p *pool) call(c *Call, x []*graph.Node) *graph.Node {
	in := spatial(c, x, p.rank)
	s := in.Shape()
	a := op.PoolAttrs{Window: p.Size.two(p.rank), Stride: p.strides().two(p.rank)}
	a.Pad = p.Padding.pads([2]int{s[1], s[2]}, a.Window, a.Stride, [2]int{1, 1})
	if p.max {
		return unspatial(op.MaxPool(in, a), p.rank)
	}
	return unspatial(op.AvgPool(in, a), p.rank)
}

type globalPool struct {
	KeepDims bool `json:"keepdims"`
	rank     int
	max      bool
}

func (p *globalPool) class() string { return "Global" + poolClass(p.max, p.rank) }

func global(rank int, max bool, opts []Option) *Layer {
	p := &globalPool{rank: rank, max: max}
	return layer(p.class(), p, opts)
}

// GlobalMaxPool1D takes the greatest of all steps of each feature. A second operand i32, one number for each example, says how many steps count.
func GlobalMaxPool1D(opts ...Option) *Layer { return global(1, true, opts) }

// GlobalAveragePool1D averages all steps of each feature. A second operand i32, one number for each example, says how many steps count.
func GlobalAveragePool1D(opts ...Option) *Layer { return global(1, false, opts) }

// GlobalMaxPool2D takes the greatest pixel of each channel.
func GlobalMaxPool2D(opts ...Option) *Layer { return global(2, true, opts) }

// GlobalAveragePool2D averages all pixels of each channel.
func GlobalAveragePool2D(opts ...Option) *Layer { return global(2, false, opts) }

// KeepDims keeps the axes that a global pooling has made one long.
func KeepDims() Option {
	return setting{"KeepDims", func(k kind) bool {
		p, ok := k.(*globalPool)
		if ok {
			p.KeepDims = true
		}
		return ok
	}}
}

func (*globalPool) check() error { return nil }

func (p *globalPool) call(c *Call, x []*graph.Node) *graph.Node {
	if p.rank == 1 && len(x) == 2 {
		return p.callCounted(c, x)
	}
	in := spatial(c, x, p.rank)
	s := in.Shape()
	if s[1]*s[2] == 0 {
		c.Fail("takes at least one position, not %v", x[0].Shape())
	}
	var y *graph.Node
	if p.max {
		y = op.ReduceMax(in, 1, 2)
	} else {
		y = op.Mean(in, 1, 2)
	}
	if p.KeepDims {
		return unspatial(op.Reshape(y, s[0], 1, 1, s[3]), p.rank)
	}
	return y
}

// callCounted pools the positions of a sequence that count. Without any the result is zeros.
func (p *globalPool) callCounted(c *Call, x []*graph.Node) *graph.Node {
	in, lengths := sequence(c, x[:1]), x[1]
	s := in.Shape()
	if !lengths.DType().IsInt() || len(lengths.Shape()) != 1 {
		c.Fail("operand 1 is %v; it takes lengths i32 [batch] beside the sequence", lengths.Type())
	}
	lengths = op.Convert(lengths, dtype.I32)
	keep := op.BroadcastTo(op.Reshape(counted(lengths, s[1], s[0], s[1]), s[0], s[1], 1), s...)
	kept := op.Select(keep, in, op.Like(in, 0))
	n := op.BroadcastTo(op.Reshape(op.Max(op.Min(lengths, op.Like(lengths, float64(s[1]))), op.Like(lengths, 0)), s[0], 1), s[0], s[2]) // positions that count
	var y *graph.Node
	if p.max {
		y = op.ReduceMax(op.Select(keep, in, op.Like(in, -math.MaxFloat32)), 1)
		y = op.Select(op.Gt(n, op.Like(n, 0)), y, op.Like(y, 0))
	} else {
		sum := op.Sum(kept, 1)
		y = op.Div(sum, op.Convert(op.Max(n, op.Like(n, 1)), sum.DType()))
	}
	if p.KeepDims {
		return op.Reshape(y, s[0], 1, s[2])
	}
	return y
}
