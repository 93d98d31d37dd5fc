package nn

import (
	"slices"

	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Split lets several processes compute a layer together (tensor parallelism; Shoeybi et al., Megatron-LM, arXiv:1909.08053): each has the columns of a first matrix of weights that belong to its
// hidden values and the rows of the second, or its heads of attention, and what they get is added up. It is for graphs whose loss counts as the ranks' losses together, each of which must
// be its share of the whole: then every gradient is the sum of the ranks' gradients. That of a parameter's part is whole on the rank that has it.
//
// Split are: the feed-forward network and the attention of a TransformerBlock, MultiHeadAttention, and in a Sequential model two Dense layers in a row of which the first has an
// activation that works element by element. Where the number of heads or units is no multiple of Of, all ranks compute the whole.
//
// Of an Embedding each rank has rows: it gives the vectors of its numbers and zeros for others, and the sum is exact. Of a last Dense layer, or an Embedding applied as one, each has columns: the
// scores of some classes, which Call.Scores hands to the caller if Ends says that it takes them. Rows and columns need not be a multiple of Of; tables and layers of fewer than LeastSplit of them stay whole.
// Where a last Dense layer follows one that has at least as many units as there are classes, the two are split as a pair, and the scores are whole.
type Split struct {
	Rank, Of int
	Group    *op.Group
	Ends     bool     // the caller takes the scores of the model's last layer in parts: Call.Scores
	Layers   []string // that have been split, for people

	// Parts are the parameters of which a rank has its part alone, as a variable of that shape: the axis along which each is cut, by name. Of others each rank has the whole and takes its part.
	Parts map[string]int

	axes map[string]int // of the parameters that layers have used so far: along which they have taken a part, or uncut
}

// LeastSplit is the number of rows of an Embedding, or of classes of a last layer, from which on they are split: of fewer a sum over their gradients is less than the messages about their results.
const LeastSplit = 512

// Part is which of n rows or columns a rank has: lo <= i < hi.
func (s *Split) Part(n, rank int) (lo, hi int) { return dist.Part(n, rank, s.Of) }

// Scores are those that this rank has of a model's last layer, before its softmax.
type Scores struct {
	Part   *graph.Node // f32 [… Hi-Lo]
	Lo, Hi int         // of the classes
	Of     int         // how many classes there are
}

// uncut is the axis of a parameter of which layers use the whole, or parts along different axes.
const uncut = -1

// Divisible are the parameters of which every layer that was called has used this rank's part alone, each with the axis along which it is cut: what Parts may hold.
func (s *Split) Divisible() map[string]int {
	out := map[string]int{}
	for name, axis := range s.axes {
		if axis != uncut {
			out[name] = axis
		}
	}
	return out
}

// used notes that a layer has used a parameter's part along an axis, or the whole of it.
func (s *Split) used(param string, axis int) {
	if old, ok := s.axes[param]; ok && old != axis {
		axis = uncut
	}
	if s.axes == nil {
		s.axes = map[string]int{}
	}
	s.axes[param] = axis
}

// splits reports whether n units can be shared out.
func (c *Call) splits(n int) bool { return c.Split != nil && c.Split.Of > 1 && n%c.Split.Of == 0 }

// share is this rank's part along an axis of a trainable parameter of the given shape.
func (c *Call) share(name string, init Initializer, axis int, dims ...int) *graph.Node {
	s, full := c.Split, c.full(name)
	s.used(full, axis)
	lo, hi := s.Part(dims[axis], s.Rank)
	if _, ok := s.Parts[full]; ok {
		dims = slices.Clone(dims)
		dims[axis] = hi - lo
		return c.param(name, init, true, dims...)
	}
	return op.SliceAxis(c.param(name, init, true, dims...), axis, lo, hi)
}

// part is product with this rank's part along an axis of the matrix's parameter; along the last axes the result is a part too.
func (c *Call) part(x *graph.Node, name string, init Initializer, axis int, dims ...int) *graph.Node {
	if _, ok := c.format(name); ok {
		c.Fail("its %s has few bits and cannot be split over ranks: each can have the whole of such a model (without --tensor)", name)
	}
	w := c.share(name, init, axis, dims...)
	k := x.Shape()[1]
	return c.matmul(x, op.Reshape(w, k, w.Shape().Size()/k))
}

// total adds up what the ranks have computed from their parts.
func (c *Call) total(y *graph.Node) *graph.Node {
	c.Split.Layers = append(c.Split.Layers, c.layer.name+"/"+c.prefix)
	if dt := y.DType(); dt != dtype.F32 {
		return op.Convert(op.AllReduce(op.Convert(y, dtype.F32), c.Split.Group), dt)
	}
	return op.AllReduce(y, c.Split.Group)
}

// role is what a Dense layer does with its matrix.
type role uint8

const (
	entire  role = iota
	columns      // its results are this rank's part
	rowsOf       // its operand is this rank's part
	last         // its results are this rank's classes, and no activation follows
)

// elementwise reports whether an activation can be applied to a part of its operand.
func (a Activation) elementwise() bool { return a != Softmax && a != LogSoftmax }

// pair reports whether two layers of a chain are computed as columns and rows.
func (c *Call) pair(first, second *Layer) bool {
	a, ok := first.kind.(*dense)
	b, ok2 := second.kind.(*dense)
	return ok && ok2 && c.splits(a.Units) && a.Activation.elementwise() && first != second && b.Units > 0
}

// parted reports whether n rows of a table, or n classes of a last layer, are split.
func (c *Call) parted(l *Layer, n int) bool {
	return c.Split != nil && c.Split.Of > 1 && n >= max(LeastSplit, c.Split.Of) && n <= 1<<24 && len(l.formats) == 0 // class numbers travel as f32; few bits are not split
}

// rows are the vectors of numbers, i32, of a table [n, width] of which each rank has rows.
func (c *Call) rows(numbers *graph.Node, init Initializer, n, width int) *graph.Node {
	lo, hi := c.Split.Part(n, c.Split.Rank)
	table := c.share("embeddings", init, 0, n, width)
	numbers = op.Min(op.Max(numbers, op.Like(numbers, 0)), op.Like(numbers, float64(n-1)))
	own := op.And(op.Ge(numbers, op.Like(numbers, float64(lo))), op.Lt(numbers, op.Like(numbers, float64(hi))))
	at := op.Min(op.Max(op.Sub(numbers, op.Like(numbers, float64(lo))), op.Like(numbers, 0)), op.Like(numbers, float64(hi-lo-1)))
	y := op.Gather(table, at, 0)
	return c.total(op.Select(op.Reshape(own, append(own.Shape().Clone(), 1)...), y, op.Like(y, 0)))
}

// ends is the layer whose scores the model ends in, before the softmax, if the caller takes them in parts: a Dense layer or an Embedding. after is a softmax of its own behind it.
func (c *Call) ends(l, before *Layer) (scores, after *Layer) {
	if c.Split == nil || !c.Split.Ends {
		return nil, nil
	}
	soft := false
	switch k := l.kind.(type) {
	case *softmaxLayer:
		soft = k.Axis == -1
	case *activation:
		soft = k.Activation == Softmax
	case *dense:
		if k.Activation == Softmax && c.parted(l, k.Units) {
			return l, nil
		}
	}
	if !soft || before == nil {
		return nil, nil
	}
	if k, ok := before.kind.(*dense); ok && k.Activation != Linear && k.Activation != "" || !c.parted(before, before.classes()) {
		return nil, nil
	}
	return before, l
}

// classes is how many scores a layer gives that a model can end in.
func (l *Layer) classes() int {
	switch k := l.kind.(type) {
	case *dense:
		return k.Units
	case *embedding:
		return k.Inputs
	}
	return 0
}

// scoring reports whether a layer of which classes is not 0 gives scores of x: an Embedding that is given numbers gives rows of its table, which may be scores as they are.
func (l *Layer) scoring(x *graph.Node) bool {
	_, table := l.kind.(*embedding)
	return !table || x.DType().IsFloat()
}

// scoresOf applies a layer so that it gives this rank's classes, and hands them over.
func (c *Call) scoresOf(l *Layer, x []*graph.Node) *graph.Node {
	c.role = last
	y := c.layerOn(l, x)
	c.role = entire
	lo, hi := c.Split.Part(l.classes(), c.Split.Rank)
	c.Split.Layers = append(c.Split.Layers, l.name+"/")
	c.Scores = &Scores{Part: y, Lo: lo, Hi: hi, Of: l.classes()}
	return y
}
