package op

import (
	"fmt"
	"strings"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/stablehlo"
)

// Def is the literal that defines an op: graph.Op with attributes of a type A, which is struct{} for an op that has none. A's exported
// fields are what the text of a graph keeps, as JSON.
// Infer, and Ref or Decompose or both, must be there; graph.Op says what each field means.
type Def[A any] struct {
	Name, Doc, Why string
	Kind           graph.Kind
	Infer          func(a A, in []graph.Type) ([]graph.Type, error)
	Ref            func(a A, in, out []graph.Value)
	Decompose      func(a A, in []*graph.Node) []*graph.Node
	Grad           func(a A, n *graph.Node, d []*graph.Node) []*graph.Node
	GradOfBody     func(a A, pull graph.Pull, n *graph.Node, d []*graph.Node) []*graph.Node
	NoGrad         string
	FLOPs          func(a A, in, out []graph.Type) int64
	Bytes          func(a A, in, out []graph.Type) (read, written int64)
	HLO, ONNX      string
	Lower          func(a A, b *stablehlo.Builder, in []stablehlo.Value, out []graph.Type) []stablehlo.Value
	NoLower        string
	Samples        []graph.Sample
}

// Define makes an op of a literal. The op works at once wherever ops of the table do: Apply adds nodes of it, which are differentiated, priced, printed and run
// like any other. It does not join the table: All and Lookup leave it out, so a program that parses graphs with
// the op in them gives graph.Parse a lookup that knows it. backend/backendtest's Op and Gradients test its samples.
//
// An op that refers to itself (a gradient made of the op again) must be defined in an init function, not in a package-level literal, which would be an
// initialisation cycle.
//
// Define panics where the literal lacks what no op can do without; that is a mistake in the program, not in its input.
func Define[A any](d Def[A]) *graph.Op {
	switch {
	case d.Name == "" || strings.Trim(d.Name, "abcdefghijklmnopqrstuvwxyz0123456789_.") != "":
		panic(fmt.Sprintf("op: the name of an op is of lower-case letters, digits, _ and . (graphs are printed with it), not %q", d.Name))
	case d.Infer == nil:
		panic(fmt.Sprintf("op: %s has no Infer", d.Name))
	case d.Ref == nil && d.Decompose == nil:
		panic(fmt.Sprintf("op: %s has neither Ref nor Decompose", d.Name))
	}
	o := &graph.Op{
		Name: d.Name, Doc: d.Doc, Why: d.Why, Kind: d.Kind, NoGrad: d.NoGrad, HLO: d.HLO, ONNX: d.ONNX, NoLower: d.NoLower, Samples: d.Samples,
		Infer: func(a any, in []typ) ([]typ, error) { return d.Infer(attrs[A](a), in) },
	}
	if _, ok := any(*new(A)).(none); !ok {
		o.NewAttrs = func() any { return new(A) }
	}
	if d.Ref != nil {
		o.Ref = func(a any, in, out []value) { d.Ref(attrs[A](a), in, out) }
	}
	if d.Decompose != nil {
		o.Decompose = func(a any, in []*node) []*node { return d.Decompose(attrs[A](a), in) }
	}
	if d.Grad != nil {
		o.Grad = func(n *node, dy []*node) []*node { return d.Grad(attrs[A](n.Attrs()), n, dy) }
	}
	if d.GradOfBody != nil {
		o.GradOfBody = func(pull graph.Pull, n *node, dy []*node) []*node {
			return d.GradOfBody(attrs[A](n.Attrs()), pull, n, dy)
		}
	}
	switch {
	case d.Lower != nil:
		o.Lower = func(a any, b *stablehlo.Builder, in []hlo, out []typ) []hlo { return d.Lower(attrs[A](a), b, in, out) }
	case d.HLO != "" && d.Kind == graph.Elementwise: // the instruction of that name, without attributes
		o.Lower = func(_ any, b *stablehlo.Builder, in []hlo, out []typ) []hlo {
			return b.Emit(d.HLO, "", []hlo{{Elem: stablehlo.Of(out[0].DType), Shape: out[0].Shape}}, nil, in...)
		}
	}
	if d.FLOPs != nil {
		o.FLOPs = func(a any, in, out []typ) int64 { return d.FLOPs(attrs[A](a), in, out) }
	}
	if d.Bytes != nil {
		o.Bytes = func(a any, in, out []typ) (int64, int64) { return d.Bytes(attrs[A](a), in, out) }
	}
	return o
}

// Description says in words what an op is, for listings.
type Description struct {
	Name, Kind, Doc string
	Definition      string // "composed", or "primitive: " and why
	Gradient        string // "rule", "through its composition", or "none: " and why
	StableHLO, ONNX string // the op of the same meaning there, "" if none
	XLA             string // "rule", "through its composition", or "none: " and why
}

// Describe describes an op, of the table or not.
func Describe(o *graph.Op) Description {
	d := Description{Name: o.Name, Kind: o.Kind.String(), Doc: o.Doc, StableHLO: o.HLO, ONNX: o.ONNX, Definition: "primitive: " + o.Why}
	if o.Decompose != nil {
		d.Definition = "composed"
	}
	switch {
	case o.Grad != nil || o.GradOfBody != nil:
		d.Gradient = "rule"
	case o.Decompose != nil && o.NoGrad == "":
		d.Gradient = "through its composition"
	default:
		d.Gradient = "none: " + o.NoGrad
	}
	switch {
	case o.Lower != nil:
		d.XLA = "rule"
	case o.Decompose != nil:
		d.XLA = "through its composition"
	default:
		d.XLA = "none: " + o.NoLower
	}
	return d
}
