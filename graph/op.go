package graph

import (
	"fmt"

	"github.com/jouleml/joule/stablehlo"
	"github.com/jouleml/joule/tensor"
)

// Kind is how an op moves and computes, which decides how it may be fused and what bounds its speed.
type Kind uint8

// The kinds of op.
const (
	Leaf        Kind = iota // no computation: input, variable, constant, part
	Elementwise             // result i depends on element i of each operand only; memory-bound
	Movement                // elements are copied, none is computed; memory-bound
	Reduction               // many elements into one; memory-bound
	Contraction             // products over a shared axis; compute-bound
	Other
)

func (k Kind) String() string {
	return [...]string{"leaf", "elementwise", "movement", "reduction", "contraction", "other"}[k]
}

// Value is a value as references compute it: every element as float64, row-major. Float results are not rounded to the node's
// type (but for BF16 conversions), so that a reference is a yardstick; integers wrap; Bool is 0 or 1. I64 is exact to 2^53.
type Value struct {
	Type Type
	Data []float64
}

// Sample is one application for the tests: operand types, or operand values where random ones make no sense.
type Sample struct {
	Name  string
	Attrs any
	In    []Type
	Data  []*tensor.Tensor // if not nil: values for the operands; a nil entry is filled at random
	Lo    float64          // random floats are drawn from [Lo, Hi); both 0 means [-1, 1)
	Hi    float64
	Tol   float64 // relative tolerance against the reference for f32; 0 means the suite's default
	// NoGrad leaves the sample out of gradient checks, for points where the op is not differentiable.
	NoGrad bool
	Bad    string // if not "": construction must fail, with an error that contains this
}

// Pull gives the gradients of wrt from those (seeds) of ys, all in one graph: reverse mode, which package grad has.
type Pull func(ys, seeds []*Node, wrt ...*Node) []*Node

// Op is all that Joule knows about an operation; package op defines one in one literal. Identity is the pointer.
// Either Ref or Decompose is set.
type Op struct {
	Name string
	Doc  string // one sentence: what it computes, with shapes
	Why  string // of a primitive: why it cannot be composed of others
	Kind Kind

	// NewAttrs returns a pointer to a zero attribute struct, for the parser; nil for an op without attributes.
	NewAttrs func() any
	// Infer checks operands and gives the types of the results. Its error states the violated rule.
	Infer func(attrs any, in []Type) ([]Type, error)
	// Ref computes the results in float64. out has the right lengths and is zero.
	Ref func(attrs any, in, out []Value)
	// Decompose expresses the op by others, in the graph of the operands. It gives one node for each result.
	Decompose func(attrs any, in []*Node) []*Node
	// Grad gives the gradient for each operand (nil: none flows) from those of the results (nil: none came).
	// Without it, or where it gives nil, an op that has Decompose is differentiated through that.
	Grad func(n *Node, d []*Node) []*Node
	// GradOfBody is Grad for an op that has graphs for bodies: it is also given the reverse mode that differentiates them.
	GradOfBody func(pull Pull, n *Node, d []*Node) []*Node
	// NoGrad says why an op that has neither Grad nor Decompose has no gradient.
	NoGrad string
	// FLOPs counts the arithmetic that the op asks for: 1 for each add, multiply, compare or function value.
	// Nil means none for Leaf and Movement, and one for each element of the results otherwise.
	FLOPs func(attrs any, in, out []Type) int64
	// Bytes counts the bytes read and written where that is not all of the operands and results once.
	Bytes func(attrs any, in, out []Type) (read, written int64)

	HLO  string // the StableHLO op of the same meaning, "" if none
	ONNX string // the ONNX op of the same meaning, "" if none

	// Lower writes the op as StableHLO: it gives the results, of types out, from the operands. Without it an op is lowered through Decompose.
	Lower func(attrs any, b *stablehlo.Builder, in []stablehlo.Value, out []Type) []stablehlo.Value
	// NoLower says why an op that has neither Lower nor Decompose cannot run under XLA.
	NoLower string

	Samples []Sample
}

// LeafAttrs are the attributes of inputs and variables.
type LeafAttrs struct {
	Name string
	Type Type
}

// ConstAttrs are the attributes of constants.
type ConstAttrs struct{ Value *tensor.Tensor }

// PartAttrs are the attributes of OpPart.
type PartAttrs struct{ Index int }

func leaf(name, doc string) *Op {
	return &Op{
		Name: name, Doc: doc, Kind: Leaf,
		NewAttrs: func() any { return new(LeafAttrs) },
		Infer: func(a any, in []Type) ([]Type, error) {
			l := a.(LeafAttrs)
			if l.Name == "" {
				return nil, fmt.Errorf("an %s needs a name", name)
			}
			if !l.Type.DType.Valid() {
				return nil, fmt.Errorf("%s %q has no element type", name, l.Name)
			}
			return []Type{l.Type}, nil
		},
		NoGrad: "a leaf has no operands",
	}
}

// The leaves, and Part, which takes one result of a node that has several.
var (
	OpInput    = leaf("input", "a value that each run is given")
	OpVariable = leaf("variable", "state that outlives a run")
	OpConst    = &Op{
		Name: "const", Doc: "a constant", Kind: Leaf,
		NewAttrs: func() any { return new(ConstAttrs) },
		Infer: func(a any, in []Type) ([]Type, error) {
			if a.(ConstAttrs).Value == nil {
				return nil, fmt.Errorf("a constant needs a value")
			}
			return []Type{TypeOf(a.(ConstAttrs).Value)}, nil
		},
		NoGrad: "a leaf has no operands",
	}
	OpPart = &Op{
		Name: "part", Doc: "one result of a node that has several", Kind: Leaf,
		NewAttrs: func() any { return new(PartAttrs) },
		Infer: func(a any, in []Type) ([]Type, error) {
			i := a.(PartAttrs).Index
			if i < 0 || i >= len(in) {
				return nil, fmt.Errorf("there is no result %d of %d", i, len(in))
			}
			return []Type{in[i]}, nil
		},
		NoGrad: "handled by package grad: the gradient goes to the result it took",
	}
)

// NameOf is the name of an input or variable, "" for any other node.
func NameOf(n *Node) string {
	if l, ok := n.attrs.(LeafAttrs); ok {
		return l.Name
	}
	return ""
}

// ConstOf is the value of a constant, nil for any other node.
func ConstOf(n *Node) *tensor.Tensor {
	if c, ok := n.attrs.(ConstAttrs); ok && n.op == OpConst {
		return c.Value
	}
	return nil
}
