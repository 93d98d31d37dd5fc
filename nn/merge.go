package nn

import (
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/shape"
)

// merges are the layers that combine values of one shape (or shapes that broadcast) element by element, two at a time.
var merges = map[string]func(a, b *graph.Node) *graph.Node{
	"Add":      op.Add,
	"Multiply": op.Mul,
	"Maximum":  op.Max,
	"Minimum":  op.Min,
	"Average":  op.Add, // and then divided
}

func init() {
	for class := range merges {
		classes[class] = func() kind { return &merge{class} }
	}
	classes["Concatenate"] = func() kind { return &concatenate{-1} }
}

type merge struct{ class string }

func merged(class string) *Layer { return layer(class, &merge{class}, nil) }

// Add adds values: nn.Add().On(a, b).
func Add() *Layer { return merged("Add") }

// Multiply multiplies values element by element.
func Multiply() *Layer { return merged("Multiply") }

// Average averages values.
func Average() *Layer { return merged("Average") }

// Maximum takes the greatest of the values at each element.
func Maximum() *Layer { return merged("Maximum") }

// Minimum takes the least of the values at each element.
func Minimum() *Layer { return merged("Minimum") }

func (*merge) check() error { return nil }

func (m *merge) call(c *Call, x []*graph.Node) *graph.Node {
	several(c, x)
	y := x[0]
	for i, v := range x[1:] {
		if _, err := shape.Broadcast(y.Shape(), v.Shape()); err != nil || y.Shape()[0] != v.Shape()[0] || y.DType() != v.DType() {
			c.Fail("value %d is %v and does not fit %v", i+1, v.Type(), y.Type())
		}
		y = merges[m.class](y, v)
	}
	if m.class == "Average" {
		y = op.Mul(y, op.Like(y, 1/float64(len(x))))
	}
	return y
}

func several(c *Call, x []*graph.Node) {
	if len(x) < 2 {
		c.Fail("takes two values or more, was given %d", len(x))
	}
	for i, v := range x {
		if len(v.Shape()) == 0 {
			c.Fail("value %d has no batch axis", i)
		}
	}
}

type concatenate struct {
	Axis int `json:"axis"`
}

// Concatenate joins values along the last axis, or along the one that Axis says.
func Concatenate(opts ...Option) *Layer { return layer("Concatenate", &concatenate{-1}, opts) }

func (k *concatenate) axis() *int { return &k.Axis }

func (*concatenate) check() error { return nil }

func (k *concatenate) call(c *Call, x []*graph.Node) *graph.Node {
	several(c, x)
	a := featureAxis(c, k.Axis, x[0])
	want := x[0].Shape()
	for i, v := range x[1:] {
		s := v.Shape().Clone()
		if len(s) == len(want) {
			s[a] = want[a]
		}
		if !s.Equal(want) || v.DType() != x[0].DType() {
			c.Fail("value %d is %v; to be joined with %v along axis %d all other axes must agree", i+1, v.Type(), x[0].Type(), a)
		}
	}
	return op.Concat(a, x...)
}
