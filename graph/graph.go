// Package graph is the program that Joule differentiates, optimises, prices and runs.
//
// # Terminology
//
// A Graph is a list of Nodes in an order in which each comes after its inputs. A Node applies an Op to the values of other nodes
// and has one or more results, each of a Type (element type and shape) known when the node is made. Nodes never change: a pass makes
// a new graph. Leaves are inputs (given at each run), variables (state that outlives a run: weights, optimiser moments,
// counters) and constants. What a run yields is the graph's outputs; what it leaves behind is its updates, the new values of
// variables. Within one run every read of a variable sees the old value.
//
// This package knows no concrete op but the leaves and Part; the table of ops is package op.
//
// Builders panic with *Error, and Build turns that into an error, so no panic crosses a public API.
package graph

import (
	"fmt"
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Type is what is known of a value before it exists.
type Type struct {
	DType dtype.Type
	Shape shape.Shape
}

// T makes a Type.
func T(dt dtype.Type, dims ...int) Type { return Type{dt, shape.Of(dims...).Clone()} }

// TypeOf is the type of a tensor.
func TypeOf(t *tensor.Tensor) Type { return Type{t.DType(), t.Shape()} }

// Equal reports whether element type and shape are the same.
func (t Type) Equal(u Type) bool { return t.DType == u.DType && t.Shape.Equal(u.Shape) }

// Bytes is the size of a value in memory.
func (t Type) Bytes() int { return t.Shape.Size() * t.DType.Size() }

// String is, for example, "f32[32 10]".
func (t Type) String() string { return t.DType.String() + t.Shape.String() }

// Phase says which part of a train step a node belongs to; the energy ledger books by it.
type Phase uint8

// The phases of a train step.
const (
	Forward Phase = iota
	Backward
	Update
)

func (p Phase) String() string { return [...]string{"forward", "backward", "update"}[p] }

// Node is one application of an op. It never changes.
type Node struct {
	g     *Graph
	id    int
	op    *Op
	attrs any
	in    []*Node
	out   []Type
	scope string
	phase Phase
	site  Site
}

// Graph returns the graph that the node belongs to.
func (n *Node) Graph() *Graph { return n.g }

// ID is the node's place in its graph's Nodes.
func (n *Node) ID() int { return n.id }

// Op is what the node does.
func (n *Node) Op() *Op { return n.op }

// Attrs is the op's attribute struct, by value; nil for an op that has none.
func (n *Node) Attrs() any { return n.attrs }

// Inputs are the operands; do not change the slice.
func (n *Node) Inputs() []*Node { return n.in }

// Input is operand i.
func (n *Node) Input(i int) *Node { return n.in[i] }

// Types are the types of all results.
func (n *Node) Types() []Type { return n.out }

// Type is the type of the node's only result.
func (n *Node) Type() Type {
	if len(n.out) != 1 {
		panic(fmt.Sprintf("graph: %s has %d results; take one with Part", n.op.Name, len(n.out)))
	}
	return n.out[0]
}

// Shape is Type().Shape.
func (n *Node) Shape() shape.Shape { return n.Type().Shape }

// DType is Type().DType.
func (n *Node) DType() dtype.Type { return n.Type().DType }

// Scope is the path of the layer that made the node, such as "encoder/conv2d_1".
func (n *Node) Scope() string { return n.scope }

// Phase is the part of the train step that the node belongs to.
func (n *Node) Phase() Phase { return n.phase }

// Site is the user's file:line that made the node, "" where none is known.
func (n *Node) Site() string { return n.site.String() }

// String is the node's name in printed graphs.
func (n *Node) String() string { return fmt.Sprintf("%%%d", n.id) }

// Part is result i of a node with several results, as a node of its own. Of a node with one result it is the node itself.
func (n *Node) Part(i int) *Node {
	if len(n.out) == 1 && i == 0 {
		return n
	}
	return n.g.Apply(OpPart, PartAttrs{i}, n)
}

// Named is a node with a name: an input, a variable or an output.
type Named struct {
	Name string
	Node *Node
}

// Assign says that a run leaves the value of Value in the variable Var.
type Assign struct{ Var, Value *Node }

// Graph is a program. Make one with Build.
type Graph struct {
	nodes   []*Node
	inputs  []*Node
	vars    []*Node
	outputs []Named
	updates []Assign
	scope   string
	phase   Phase
	from    *Node // while a rewrite replaces this node: new nodes take its scope, phase and site
	at      Site  // if set: the place that new nodes are blamed on
	locked  bool
}

// Build makes a graph by calling f, and turns a builder's panic into an error of type *Error.
func Build(f func(g *Graph)) (g *Graph, err error) {
	defer catch(&err)
	g = &Graph{}
	f(g)
	if err := g.Verify(); err != nil {
		return nil, err
	}
	g.locked = true
	return g, nil
}

// Nodes is every node, each after its inputs.
func (g *Graph) Nodes() []*Node { return g.nodes }

// Inputs are the input nodes in the order of their making, which is the order in which a run takes them.
func (g *Graph) Inputs() []*Node { return g.inputs }

// Variables are the variable nodes in the order of their making.
func (g *Graph) Variables() []*Node { return g.vars }

// Outputs are the results of a run, in order.
func (g *Graph) Outputs() []Named { return g.outputs }

// Updates are the new values that a run leaves in variables.
func (g *Graph) Updates() []Assign { return g.updates }

// Input adds a value that each run is given.
func (g *Graph) Input(name string, t Type) *Node {
	n := g.Apply(OpInput, LeafAttrs{Name: name, Type: t})
	g.inputs = append(g.inputs, n)
	return n
}

// Variable is the state of the given name, which outlives a run. Asking again for a name gives the same node;
// with another type it is an error.
func (g *Graph) Variable(name string, t Type) *Node {
	for _, v := range g.vars {
		if NameOf(v) == name {
			if !v.Type().Equal(t) {
				panic(g.fail("variable", nil, "variable %q was made as %v and is asked for as %v", name, v.Type(), t))
			}
			return v
		}
	}
	n := g.Apply(OpVariable, LeafAttrs{Name: name, Type: t})
	g.vars = append(g.vars, n)
	return n
}

// Const adds a constant. The tensor must not change afterwards.
func (g *Graph) Const(t *tensor.Tensor) *Node { return g.Apply(OpConst, ConstAttrs{t}) }

// Output names a node as result of a run.
func (g *Graph) Output(name string, n *Node) {
	g.own(n, "output")
	n.Type() // refuses a node with several results
	g.outputs = append(g.outputs, Named{name, n})
}

// Update makes each run leave value in the variable v.
func (g *Graph) Update(v, value *Node) {
	g.own(v, "update")
	g.own(value, "update")
	if v.op != OpVariable {
		panic(g.fail("update", []*Node{v, value}, "only a variable can be updated, not the result of %s", v.op.Name))
	}
	if !v.Type().Equal(value.Type()) {
		panic(g.fail("update", []*Node{v, value}, "variable %q of type %v cannot take a value of type %v", NameOf(v), v.Type(), value.Type()))
	}
	if slices.ContainsFunc(g.updates, func(a Assign) bool { return a.Var == v }) {
		panic(g.fail("update", []*Node{v, value}, "variable %q is updated twice", NameOf(v)))
	}
	g.updates = append(g.updates, Assign{v, value})
}

// In runs f; nodes made meanwhile belong to the layer path scope/name.
func (g *Graph) In(name string, f func()) {
	old := g.scope
	if g.scope != "" {
		name = g.scope + "/" + name
	}
	g.scope = name
	defer func() { g.scope = old }()
	f()
}

// At runs f; nodes made meanwhile are blamed on the place s.
func (g *Graph) At(s Site, f func()) {
	old := g.at
	g.at = s
	defer func() { g.at = old }()
	f()
}

// During runs f; nodes made meanwhile belong to phase p.
func (g *Graph) During(p Phase, f func()) {
	old := g.phase
	g.phase = p
	defer func() { g.phase = old }()
	f()
}

// As runs f; nodes made meanwhile take scope and site of n, and phase p: gradients and rewrites of n.
func (g *Graph) As(n *Node, p Phase, f func()) {
	oldFrom, oldScope, oldPhase := g.from, g.scope, g.phase
	g.from, g.scope, g.phase = n, n.scope, p
	defer func() { g.from, g.scope, g.phase = oldFrom, oldScope, oldPhase }()
	f()
}

// Apply adds a node. The op's Infer checks the operands and gives the types of the results; a violation panics with *Error.
func (g *Graph) Apply(op *Op, attrs any, in ...*Node) *Node {
	if g.locked {
		panic(g.fail(op.Name, in, "the graph is finished; build a new one"))
	}
	types := make([]Type, len(in))
	for i, x := range in {
		g.own(x, op.Name)
		if op == OpPart {
			break // its operand has several results
		}
		types[i] = x.Type()
	}
	if op == OpPart {
		if len(in) != 1 {
			panic(g.fail(op.Name, in, "takes one operand, was given %d", len(in)))
		}
		types = in[0].out
	}
	out, err := op.Infer(attrs, types)
	if err != nil {
		panic(g.fail(op.Name, in, "%v", err))
	}
	for _, t := range out {
		if err := t.Shape.Check(); err != nil {
			panic(g.fail(op.Name, in, "%v", err))
		}
	}
	n := &Node{g: g, id: len(g.nodes), op: op, attrs: attrs, in: slices.Clone(in), out: out, scope: g.scope, phase: g.phase, site: g.here()}
	g.nodes = append(g.nodes, n)
	return n
}

func (g *Graph) own(n *Node, what string) {
	if n == nil {
		panic(g.fail(what, nil, "an operand is nil"))
	}
	if n.g != g {
		panic(g.fail(what, nil, "an operand (%s) belongs to another graph", n.op.Name))
	}
}

// Uses gives, for each node ID, the nodes that read it, in order (twice if it is read twice).
func (g *Graph) Uses() [][]*Node {
	uses := make([][]*Node, len(g.nodes))
	for _, n := range g.nodes {
		for _, x := range n.in {
			uses[x.id] = append(uses[x.id], n)
		}
	}
	return uses
}

// Live marks, by ID, the nodes that an output or an update needs.
func (g *Graph) Live() []bool {
	live := make([]bool, len(g.nodes))
	for _, o := range g.outputs {
		live[o.Node.id] = true
	}
	for _, u := range g.updates {
		live[u.Value.id] = true
		live[u.Var.id] = true
	}
	for i := len(g.nodes) - 1; i >= 0; i-- {
		if live[i] {
			for _, x := range g.nodes[i].in {
				live[x.id] = true
			}
		}
	}
	return live
}
