package nn

import (
	"encoding/json"
	"fmt"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Padding says what happens at the borders of images and sequences.
type Padding string

// The paddings.
const (
	Valid  Padding = "valid"  // real pixels only
	Same   Padding = "same"   // zeros on both sides, for ⌈n/stride⌉ results
	Causal Padding = "causal" // of Conv1D: zeros in front, so that no result sees what comes later
)

func (p Padding) check(causal bool) error {
	if p == Valid || p == Same || p == Causal && causal {
		return nil
	}
	known := []string{string(Valid), string(Same)}
	if causal {
		known = append(known, string(Causal))
	}
	return unknown("padding", string(p), known)
}

// lens are lengths along the axes of a window: one for each axis, or one for all. JSON may give a number or a list.
type lens []int

// UnmarshalJSON reads 3, [3] or [3, 5].
func (l *lens) UnmarshalJSON(b []byte) error {
	var n int
	if string(b) == "null" {
		return nil
	}
	if json.Unmarshal(b, &n) == nil {
		*l = lens{n}
		return nil
	}
	var s []int
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("want a whole number or a list of them, not %s", b)
	}
	*l = s
	return nil
}

// longest bounds lengths and repetitions that users give, so that sums of them cannot overflow.
const longest = 1 << 20

func (l lens) check(what string, rank int) error {
	if len(l) != 1 && len(l) != rank {
		want := "one number"
		if rank > 1 {
			want = fmt.Sprintf("one number or %d", rank)
		}
		return fmt.Errorf("%s takes %s, not %d", what, want, len(l))
	}
	for _, n := range l {
		if n < 1 || n > longest {
			return fmt.Errorf("%s must be in [1, %d], not %d", what, longest, n)
		}
	}
	return nil
}

// two are the lengths on H and W; a sequence lies along W.
func (l lens) two(rank int) [2]int {
	if rank == 1 {
		return [2]int{1, l[0]}
	}
	return [2]int{l[0], l[len(l)-1]}
}

// window is where a configuration keeps the settings of a moving window; nil where it has none.
type window struct {
	size, strides, dilation *lens
	padding                 *Padding
}

type windowed interface{ window() window }

func (p Padding) apply(l *Layer) {
	onWindow("padding "+string(p), func(w window) bool { return set(w.padding, p) }).apply(l)
}

func onWindow(what string, f func(w window) bool) Option {
	return setting{what, func(k kind) bool {
		w, ok := k.(windowed)
		return ok && f(w.window())
	}}
}

// set stores v if there is a place for it.
func set[T any](to *T, v T) bool {
	if to != nil {
		*to = v
	}
	return to != nil
}

// Strides sets how far the window moves: one number for all axes, or height and width.
func Strides(s ...int) Option {
	return onWindow("Strides", func(w window) bool { return set(w.strides, s) })
}

// Dilation sets the distance between filter taps: one number for all axes, or height and width.
func Dilation(d ...int) Option {
	return onWindow("Dilation", func(w window) bool { return set(w.dilation, d) })
}

// Kernel sets a window that is not square.
func Kernel(height, width int) Option {
	return onWindow("Kernel", func(w window) bool { return set(w.size, lens{height, width}) })
}

// pads are the zeros before and after each axis.
func (p Padding) pads(n, kernel, stride, dilation [2]int) (out [2][2]int) {
	for i := range 2 {
		switch p {
		case Same:
			out[i] = op.SamePad(n[i], kernel[i], stride[i], dilation[i])
		case Causal:
			out[i][0] = (kernel[i] - 1) * dilation[i]
		}
	}
	return out
}

// spatial gives the layer's operand as images: those of rank 2 as they are, sequences (rank 1) with a height of 1.
func spatial(c *Call, x []*graph.Node, rank int) *graph.Node {
	in := only(c, x)
	s := in.Shape()
	if len(s) != rank+2 {
		want := map[int]string{1: "sequences [batch time features]", 2: "images [batch height width channels]"}[rank]
		c.Fail("takes %s, not %v", want, s)
	}
	if rank == 1 {
		return op.Reshape(in, s[0], 1, s[1], s[2])
	}
	return in
}

// unspatial undoes spatial.
func unspatial(y *graph.Node, rank int) *graph.Node {
	if s := y.Shape(); rank == 1 {
		return op.Reshape(y, s[0], s[2], s[3])
	}
	return y
}
