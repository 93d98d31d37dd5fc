package pass

import (
	"slices"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Loops makes one loop of a loop and the same with its states saved, which its gradient reads, and takes out of loops what nothing needs: results that are not read, the state, sequences
// and constants that only they needed, and the nodes between. (Bodies get the passes of a backend when it compiles them.)
func Loops(g *graph.Graph) (*graph.Graph, error) {
	if !slices.ContainsFunc(g.Nodes(), func(n *graph.Node) bool { return n.Op() == op.LoopOp }) {
		return g, nil
	}
	g, err := mergeSaved(g)
	if err != nil {
		return nil, err
	}
	for again := true; again; { // what one loop no longer reads, the loop before it need not make
		if g, again, err = pruneLoops(g); err != nil {
			return nil, err
		}
	}
	return g, nil
}

func mergeSaved(g *graph.Graph) (*graph.Graph, error) {
	saving := func(n *graph.Node) op.LoopAttrs {
		a := n.Attrs().(op.LoopAttrs)
		a.Save = true
		return a
	}
	live := g.Live()
	var savers []*graph.Node
	for _, n := range g.Nodes() {
		if n.Op() == op.LoopOp && live[n.ID()] && n.Attrs().(op.LoopAttrs).Save {
			savers = append(savers, n)
		}
	}
	made := map[*graph.Node]*graph.Node{} // by saver: the node that stands for all
	return graph.Rewrite(g, func(to *graph.Graph, n *graph.Node, in []*graph.Node) *graph.Node {
		if n.Op() != op.LoopOp {
			return nil
		}
		i := slices.IndexFunc(savers, func(s *graph.Node) bool { return s.Attrs() == saving(n) && slices.Equal(s.Inputs(), n.Inputs()) })
		if i < 0 {
			return nil
		}
		one := made[savers[i]]
		if one == nil {
			one = to.Apply(op.LoopOp, saving(n), in...)
			made[savers[i]] = one
		}
		parts := make([]*graph.Node, len(n.Types()))
		for k := range parts {
			parts[k] = one.Part(k)
		}
		return graph.Tuple(to, parts)
	})
}

func pruneLoops(g *graph.Graph) (out *graph.Graph, changed bool, err error) {
	live, uses := g.Live(), g.Uses()
	out, err = graph.Rewrite(g, func(to *graph.Graph, n *graph.Node, in []*graph.Node) *graph.Node {
		if n.Op() != op.LoopOp || len(n.Types()) == 1 {
			return nil
		}
		read := make([]bool, len(n.Types()))
		for _, u := range uses[n.ID()] {
			if live[u.ID()] {
				read[u.Attrs().(graph.PartAttrs).Index] = true
			}
		}
		pruned := prune(to, n.Attrs().(op.LoopAttrs), in, read)
		changed = changed || pruned != nil
		return pruned
	})
	return out, changed, err
}

// prune is the loop with those of its results that are read, nil if it needs all that it has.
func prune(to *graph.Graph, a op.LoopAttrs, in []*graph.Node, read []bool) *graph.Node {
	outs := a.Body.Outputs()
	saves := slices.Contains(read[len(outs):], true)
	need := slices.Clone(read[:len(outs)])
	for i := range a.Carried {
		if a.Save && read[len(outs)+i] {
			need[i] = true
		}
	}
	if !slices.Contains(need[:a.Carried], true) {
		need[0] = true // a loop has a state
	}
	var condUses []bool // by input
	if a.Cond != nil {
		condUses = usedInputs(a.Cond, func(int) bool { return true })
	}
	var uses []bool
	for again := true; again; { // what a needed result is made of is needed, from one step to the next
		again = false
		uses = usedInputs(a.Body, func(i int) bool { return need[i] })
		for i := range a.Carried {
			if (uses[i] || condUses != nil && condUses[i]) && !need[i] {
				need[i], again = true, true
			}
		}
	}
	keep := make([]bool, len(in))
	for i := range in {
		keep[i] = uses[i] || condUses != nil && condUses[i] || i < a.Carried && need[i]
	}
	if !slices.Contains(keep, false) && !slices.Contains(need, false) && saves == a.Save {
		return nil
	}

	b := a
	b.Body = cut(a.Body, keep, need)
	if a.Cond != nil {
		b.Cond = cut(a.Cond, keep, []bool{true})
	}
	b.Save, b.Carried, b.Scanned = saves, count(keep[:a.Carried]), count(keep[a.Carried:a.Carried+a.Scanned])
	var operands []*graph.Node
	for i, x := range in {
		if keep[i] {
			operands = append(operands, x)
		}
	}
	n := to.Apply(op.LoopOp, b, operands...)
	parts := make([]*graph.Node, len(read))
	next := 0
	for i := range parts {
		if i < len(outs) && need[i] || i >= len(outs) && saves && need[i-len(outs)] {
			parts[i] = n.Part(next)
			next++
		} else {
			parts[i] = in[0] // nothing reads it
		}
	}
	return graph.Tuple(to, parts)
}

func count(set []bool) int {
	n := 0
	for _, b := range set {
		if b {
			n++
		}
	}
	return n
}

// reach marks, by ID, the nodes that chosen outputs need.
func reach(g *graph.Graph, wanted func(output int) bool) []bool {
	live := make([]bool, len(g.Nodes()))
	for i, o := range g.Outputs() {
		if wanted(i) {
			live[o.Node.ID()] = true
		}
	}
	for _, n := range slices.Backward(g.Nodes()) {
		if live[n.ID()] {
			for _, x := range n.Inputs() {
				live[x.ID()] = true
			}
		}
	}
	return live
}

func usedInputs(g *graph.Graph, wanted func(output int) bool) []bool {
	live := reach(g, wanted)
	out := make([]bool, len(g.Inputs()))
	for i, x := range g.Inputs() {
		out[i] = live[x.ID()]
	}
	return out
}

// cut is a body with only some of its inputs and outputs.
func cut(body *graph.Graph, inputs, outputs []bool) *graph.Graph {
	live := reach(body, func(i int) bool { return outputs[i] })
	for i, x := range body.Inputs() {
		live[x.ID()] = inputs[i]
	}
	g, err := graph.Build(func(g *graph.Graph) {
		m := make([]*graph.Node, len(body.Nodes()))
		for _, n := range body.Nodes() {
			if live[n.ID()] {
				graph.CopyTo(g, n, m)
			}
		}
		for i, o := range body.Outputs() {
			if outputs[i] {
				g.Output(o.Name, m[o.Node.ID()])
			}
		}
	})
	if err != nil {
		panic(err) // its nodes come from a verified graph
	}
	return g
}
