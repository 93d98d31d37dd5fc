package nn

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/shape"
)

func init() {
	classes["Flatten"] = func() kind { return &flatten{} }
	classes["Reshape"] = func() kind { return &reshape{} }
	classes["Permute"] = func() kind { return &permute{} }
	classes["RepeatVector"] = func() kind { return &repeat{} }
	classes["ZeroPadding2D"] = func() kind { return &zeroPadding{borders{{1, 1}, {1, 1}}} }
	classes["UpSampling2D"] = func() kind { return &upSampling{lens{2}, "nearest"} }
}

type flatten struct{}

// Flatten makes each example a vector.
func Flatten() *Layer { return layer("Flatten", &flatten{}, nil) }

func (*flatten) check() error { return nil }

func (*flatten) call(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	return op.Reshape(in, in.Shape()[0], in.Shape()[1:].Size())
}

type reshape struct {
	Shape []int `json:"target_shape"`
}

// Reshape gives each example another shape; one dimension may be -1.
func Reshape(dims ...int) *Layer { return layer("Reshape", &reshape{dims}, nil) }

func (r *reshape) check() error {
	open := 0
	for _, d := range r.Shape {
		if d == -1 {
			open++
		}
		if d < -1 || d > longest*longest || open > 1 {
			return fmt.Errorf("target_shape %v: dimensions must be at least 0, and one at most -1", shape.Shape(r.Shape))
		}
	}
	return nil
}

func (r *reshape) call(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	sh := shape.Of(r.Shape...).Clone()
	have, open := in.Shape()[1:].Size(), slices.Index(sh, -1)
	if open >= 0 {
		sh[open] = 1
		if n := sh.Size(); n > 0 {
			sh[open] = have / n
		}
	}
	if sh.Check() != nil || sh.Size() != have {
		c.Fail("examples of shape %v (%d elements) cannot take the shape %v", in.Shape()[1:], have, shape.Shape(r.Shape))
	}
	return op.Reshape(in, append([]int{in.Shape()[0]}, sh...)...)
}

type permute struct {
	Dims []int `json:"dims"`
}

// Permute reorders the axes of each example, counted from 1 as Keras does: Permute(2, 1) swaps two.
func Permute(dims ...int) *Layer { return layer("Permute", &permute{dims}, nil) }

func (p *permute) check() error {
	s := slices.Sorted(slices.Values(p.Dims))
	for i, d := range s {
		if d != i+1 {
			return fmt.Errorf("dims %v must be the numbers 1 to %d in some order", p.Dims, len(p.Dims))
		}
	}
	return nil
}

func (p *permute) call(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	if len(in.Shape()) != len(p.Dims)+1 {
		c.Fail("dims %v reorder %d axes; examples have shape %v", p.Dims, len(p.Dims), in.Shape()[1:])
	}
	return op.Transpose(in, append([]int{0}, p.Dims...)...)
}

type repeat struct {
	N int `json:"n"`
}

// RepeatVector makes of each vector a sequence of n copies.
func RepeatVector(n int) *Layer { return layer("RepeatVector", &repeat{n}, nil) }

func (r *repeat) check() error { return lens{r.N}.check("n", 1) }

func (r *repeat) call(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	s := in.Shape()
	if len(s) != 2 {
		c.Fail("takes vectors [batch features], not %v", s)
	}
	return op.BroadcastTo(op.Reshape(in, s[0], 1, s[1]), s[0], r.N, s[1])
}

// borders are lengths above and below, left and right. JSON may give one number, two, or two pairs.
type borders [2][2]int

// UnmarshalJSON reads 1, [1, 2] or [[1, 2], [3, 4]].
func (p *borders) UnmarshalJSON(b []byte) error {
	var n int
	var two [2]int
	var four [][]int
	switch {
	case string(b) == "null":
	case json.Unmarshal(b, &n) == nil:
		*p = borders{{n, n}, {n, n}}
	case json.Unmarshal(b, &four) == nil && len(four) == 2 && len(four[0]) == 2 && len(four[1]) == 2:
		*p = borders{[2]int(four[0]), [2]int(four[1])}
	case json.Unmarshal(b, &two) == nil:
		*p = borders{{two[0], two[0]}, {two[1], two[1]}}
	default:
		return fmt.Errorf("want a number, two numbers, or two pairs of numbers, not %s", b)
	}
	return nil
}

type zeroPadding struct {
	Padding borders `json:"padding"`
}

// ZeroPadding2D adds rows of zeros above and below and columns left and right: of one number n everywhere, of two (n, m) n rows and m columns on each
// side, of four above, below, left, right.
func ZeroPadding2D(n ...int) *Layer {
	k := &zeroPadding{}
	switch len(n) {
	case 1:
		k.Padding = borders{{n[0], n[0]}, {n[0], n[0]}}
	case 2:
		k.Padding = borders{{n[0], n[0]}, {n[1], n[1]}}
	case 4:
		k.Padding = borders{{n[0], n[1]}, {n[2], n[3]}}
	default:
		panic("nn: ZeroPadding2D takes one, two or four numbers")
	}
	return layer("ZeroPadding2D", k, nil)
}

func (z *zeroPadding) check() error {
	for _, p := range z.Padding {
		for _, n := range p {
			if n < 0 || n > longest {
				return fmt.Errorf("padding must be in [0, %d], not %d", longest, n)
			}
		}
	}
	return nil
}

func (z *zeroPadding) call(c *Call, x []*graph.Node) *graph.Node {
	p := z.Padding
	return op.Pad(spatial(c, x, 2), []int{0, p[0][0], p[1][0], 0}, []int{0, p[0][1], p[1][1], 0}, 0)
}

type upSampling struct {
	Size          lens   `json:"size"`
	Interpolation string `json:"interpolation"`
}

// UpSampling2D repeats each pixel size times along both axes.
func UpSampling2D(size int) *Layer {
	return layer("UpSampling2D", &upSampling{lens{size}, "nearest"}, nil)
}

func (u *upSampling) check() error {
	if u.Interpolation != "nearest" {
		return unknown("interpolation", u.Interpolation, []string{"nearest"})
	}
	return u.Size.check("size", 2)
}

func (u *upSampling) call(c *Call, x []*graph.Node) *graph.Node {
	in := spatial(c, x, 2)
	s, n := in.Shape(), u.Size.two(2)
	y := op.BroadcastTo(op.Reshape(in, s[0], s[1], 1, s[2], 1, s[3]), s[0], s[1], n[0], s[2], n[1], s[3])
	return op.Reshape(y, s[0], s[1]*n[0], s[2]*n[1], s[3])
}
