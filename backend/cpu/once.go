package cpu

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/pass"
)

// What follows from variables that a program does not change is computed once and kept: weights brought to another type or order, or scaled by a normalisation that
// was folded into them. A program that reads such values computes them at its first run, and again when one of the variables has changed. Programs with one state share them.

// keptAlways are the bytes that a value may have whatever it is made of. One that takes more memory than the variables that it follows from, such as weights of few bits
// brought to f32, is computed at each run.
const keptAlways = 64 << 10

// fixedValue is what is known of a node that follows from variables and constants.
type fixedValue struct {
	digest [sha256.Size]byte // of how it is computed from what
	vars   []string
	bytes  int // of these variables
	kept   []*backend.Kept
	feeds  []*backend.Kept // kept values that need the node
}

// once finds the nodes whose values are kept, and those that they need.
func (c *compiler) once() {
	c.fixed = make([]*fixedValue, len(c.g.Nodes()))
	if c.bound { // a body has no variables
		return
	}
	fixed, uses := pass.Fixed(c.g), c.g.Uses()
	for i, n := range c.g.Nodes() {
		if fixed[i] && c.live[i] {
			c.fixed[i] = c.describe(n)
		}
	}
	asked := make([]bool, len(c.g.Nodes())) // read at each run
	for _, o := range c.g.Outputs() {
		asked[o.Node.ID()] = true
	}
	for _, u := range c.g.Updates() { // a new value is written at each run
		for n := u.Value; ; n = n.Input(0) {
			c.fixed[n.ID()] = nil
			if n.Op() != graph.OpPart && n.Op() != op.ReshapeOp {
				break
			}
		}
	}
	for i, n := range slices.Backward(c.g.Nodes()) {
		for _, u := range uses[i] {
			asked[i] = asked[i] || c.live[u.ID()] && c.fixed[u.ID()] == nil
		}
		f := c.fixed[i]
		switch {
		case f == nil || n.Op().Kind == graph.Leaf && n.Op() != graph.OpPart:
			continue
		case n.Op() == graph.OpPart || n.Op() == op.ReshapeOp: // the operand's memory
			asked[n.Input(0).ID()] = asked[n.Input(0).ID()] || asked[i]
		case asked[i] && !f.keep(n, c):
			c.fixed[i] = nil
			continue
		}
		for _, u := range uses[i] {
			if g := c.fixed[u.ID()]; c.live[u.ID()] && g != nil {
				for _, k := range g.feeds {
					if !slices.Contains(f.feeds, k) {
						f.feeds = append(f.feeds, k)
					}
				}
			}
		}
	}
}

// describe is what is known of a node of which all operands are fixed; nil if one of them is not after all, or if it cannot be told from others.
func (c *compiler) describe(n *graph.Node) *fixedValue {
	f := &fixedValue{}
	h := sha256.New()
	fmt.Fprintln(h, n.Op().Name, n.Types())
	switch n.Op() {
	case graph.OpVariable:
		f.vars, f.bytes = []string{graph.NameOf(n)}, n.Type().Bytes()
		fmt.Fprintf(h, "%q", f.vars[0])
	case graph.OpConst:
		h.Write(graph.ConstOf(n).Bytes())
	default:
		text, err := json.Marshal(n.Attrs())
		if err != nil {
			return nil
		}
		h.Write(text)
		if a, ok := n.Attrs().(interface{ Graphs() []*graph.Graph }); ok {
			for _, g := range a.Graphs() {
				fmt.Fprint(h, graph.Print(g))
			}
		}
	}
	for _, x := range n.Inputs() {
		g := c.fixed[x.ID()]
		if g == nil {
			return nil
		}
		h.Write(g.digest[:])
		for _, v := range g.vars {
			if !slices.Contains(f.vars, v) {
				f.vars = append(f.vars, v)
				f.bytes += c.host.Bytes(v)
			}
		}
	}
	h.Sum(f.digest[:0])
	return f
}

// keep declares memory for the results of n, which is read at each run. It does not if that would take too much.
func (f *fixedValue) keep(n *graph.Node, c *compiler) bool {
	total := 0
	for _, t := range n.Types() {
		total += t.Bytes()
	}
	if total > max(f.bytes, keptAlways) {
		return false
	}
	for i, t := range n.Types() {
		k, first := c.host.Keep(fmt.Sprintf("%x %d", f.digest, i), t.Bytes(), f.vars)
		if first {
			c.e.bytes += int64(t.Bytes())
		}
		f.kept, f.feeds = append(f.kept, k), append(f.feeds, k)
	}
	return true
}

// skipped reports whether a step need not run: it serves kept values alone, all of which are what the variables say.
func (s *step) skipped() bool {
	if s.once == nil {
		return false
	}
	for _, k := range s.once {
		if k.Stale() {
			return false
		}
	}
	return true
}

// variables are those that a value follows from, if no run of this graph changes it: ok is false if one does.
func (c *compiler) variables(b *buf) (names []string, ok bool) {
	if f := c.fixed[c.root(b).node.ID()]; f != nil {
		return f.vars, true
	}
	return nil, false
}
