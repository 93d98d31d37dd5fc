package nn

import (
	"slices"

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
type Split struct {
	Rank, Of int
	Group    *op.Group
	Layers   []string // that have been split, for people

	// Parts are the parameters of which a rank has its part alone, as a variable of that shape: the axis along which each is cut, by name. Of others each rank has the whole and takes its part.
	Parts map[string]int

	axes map[string]int // of the parameters that layers have used so far: along which they have taken a part, or uncut
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
	n := dims[axis] / s.Of
	if _, ok := s.Parts[full]; ok {
		dims = slices.Clone(dims)
		dims[axis] = n
		return c.param(name, init, true, dims...)
	}
	return op.SliceAxis(c.param(name, init, true, dims...), axis, n*s.Rank, n*(s.Rank+1))
}

// part is product with this rank's part along an axis of the matrix's parameter; along the last axes the result is a part too.
func (c *Call) part(x *graph.Node, name string, init Initializer, axis int, dims ...int) *graph.Node {
	if _, ok := c.format(name); ok {
		c.Fail("its %s has few bits and cannot be split over ranks", name)
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
)

// elementwise reports whether an activation can be applied to a part of its operand.
func (a Activation) elementwise() bool { return a != Softmax && a != LogSoftmax }

// pair reports whether two layers of a chain are computed as columns and rows.
func (c *Call) pair(first, second *Layer) bool {
	a, ok := first.kind.(*dense)
	b, ok2 := second.kind.(*dense)
	return ok && ok2 && c.splits(a.Units) && a.Activation.elementwise() && first != second && b.Units > 0
}
