package structure

import (
	"slices"

	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/train"
)

// Pooled is a convolution with a pooling behind it, which can take the pooling's strides instead: it then computes one place of each window and the pooling goes (an all-convolutional net, arXiv:1412.6806). Weights stay as
// they are, and so do shapes, but what comes out is another function: the model has to learn again.
type Pooled struct {
	Conv, Pool string
	Places     int // of a window, of which one is left
}

// between are the classes of layers that may stand between a convolution and its pooling: they treat each place by itself.
var between = []string{"BatchNormalization", "ReLU", "LeakyReLU", "Activation", "Dropout"}

// pooled finds the convolutions that can take the strides of the pooling behind them.
func (n *network) pooled() (out []Pooled) {
	for _, pool := range n.Layers {
		if conv := n.convOf(pool); conv != nil {
			if s, places := n.strides(conv, pool); s != nil {
				out = append(out, Pooled{conv.Name, pool.Name, places})
			}
		}
	}
	return out
}

// convOf is the convolution whose places a pooling joins, nil if something else takes them too.
func (n *network) convOf(pool *entry) *entry {
	switch pool.Class {
	case "MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D":
	default:
		return nil
	}
	for e := pool; n.once(e); {
		users := 0
		for _, u := range n.Layers {
			if slices.Contains(u.Inputs, e.Inputs[0]) {
				users++
			}
		}
		up := n.maker(e.Inputs[0])
		if up == nil || users > 1 || slices.Contains(n.Outputs, e.Inputs[0]) {
			return nil
		}
		switch {
		case up.Class == "Conv"+pool.Class[len(pool.Class)-2:] && n.once(up):
			return up
		case !slices.Contains(between, up.Class):
			return nil
		}
		e = up
	}
	return nil
}

// once reports whether a layer is applied once, to one value.
func (n *network) once(e *entry) bool {
	times := 0
	for _, l := range n.Layers {
		if l.Name == e.Name {
			times++
		}
	}
	return times == 1 && len(e.Inputs) == 1
}

// strides are those of the convolution when it takes the pooling's, and how many places a window of that has; nil where shapes would change or windows overlap.
func (n *network) strides(conv, pool *entry) (out []int, window int) {
	rank := len(pool.out) - 1
	size := lengths(pool.set.Pool, rank, 0)
	by := size
	if pool.set.Strides != nil {
		by = lengths(pool.set.Strides, rank, 0)
	}
	own, kernel, gap := lengths(conv.set.Strides, rank, 1), lengths(conv.set.Kernel, rank, 0), lengths(conv.set.Dilation, rank, 1)
	if size == nil || !slices.Equal(by, size) || own == nil || kernel == nil || gap == nil || len(conv.in[0].Shape) != rank+2 {
		return nil, 0
	}
	window = 1
	for i := range rank {
		s, in := own[i]*by[i], conv.in[0].Shape[i+1]
		places := 0
		switch conv.set.Padding {
		case nn.Valid:
			places = (in-(kernel[i]-1)*gap[i]-1)/s + 1
		case nn.Same:
			places = (in + s - 1) / s
		}
		if places != pool.out[i] || s > 1 && gap[i] > 1 {
			return nil, 0
		}
		out, window = append(out, s), window*by[i]
	}
	if window < 2 {
		return nil, 0
	}
	return out, window
}

// lengths reads a number for all axes or one for each from a configuration; otherwise stands for none. nil: it is neither.
func lengths(v any, rank, otherwise int) []int {
	switch v := v.(type) {
	case nil:
		if otherwise > 0 {
			return slices.Repeat([]int{otherwise}, rank)
		}
	case float64:
		return slices.Repeat([]int{int(v)}, rank)
	case []int:
		return v
	case []any:
		var out []int
		for _, x := range v {
			f, ok := x.(float64)
			if !ok {
				return nil
			}
			out = append(out, int(f))
		}
		if len(out) == 1 {
			return slices.Repeat(out, rank)
		}
		if len(out) == rank {
			return out
		}
	}
	return nil
}

// Stride lets convolutions, by name, take the strides of the poolings behind them, which go (see Pooled).
func Stride(m *train.Model, convs []string, more ...train.Option) (*train.Model, error) {
	return edited(m, more, func(n *network) error {
		for _, name := range convs {
			all := n.pooled()
			var names []string
			for _, p := range all {
				names = append(names, p.Conv)
			}
			if err := oneOf(name, names, "cannot take the strides of a pooling: it must be a convolution with a pooling of separate windows behind it, nothing else may take what it gives, and shapes must stay"); err != nil {
				return err
			}
			of := all[slices.Index(names, name)].Pool
			pool := n.Layers[slices.IndexFunc(n.Layers, func(e *entry) bool { return e.Name == of })]
			conv := n.convOf(pool)
			by, _ := n.strides(conv, pool)
			if err := conv.configure("strides", by); err != nil {
				return err
			}
			conv.set.Strides = by
			n.bypass(pool, pool.Inputs[0])
		}
		return nil
	})
}
