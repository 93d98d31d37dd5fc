package graph

// Rewrite makes a new graph from g. For each live node, in order, f is given the new graph, the old node and its operands' new
// nodes; it returns the node that stands for it, or nil to copy it unchanged. A node with several results is
// replaced by a node with as many, or by Tuple of as many nodes. Nodes that f makes take the old node's scope, phase and site.
// Inputs and variables are kept, in order, even if nothing reads them.
func Rewrite(g *Graph, f func(to *Graph, n *Node, in []*Node) *Node) (out *Graph, err error) {
	return emit(g, func(to *Graph) []*Node { return Inline(to, g, nil, f) })
}

// Emit makes a new graph whose nodes f adds in an order of its own. f records in m, by old ID, what stands for each node that an
// output or update of g names, and adds every input and variable of g in its old order, with CopyTo.
func Emit(g *Graph, f func(to *Graph, m []*Node)) (*Graph, error) {
	return emit(g, func(to *Graph) []*Node {
		m := make([]*Node, len(g.nodes))
		f(to, m)
		return m
	})
}

// CopyTo adds to to a node like n, its operands translated by m, and records it there.
func CopyTo(to *Graph, n *Node, m []*Node) {
	in := make([]*Node, len(n.in))
	for i, x := range n.in {
		in[i] = m[x.id]
	}
	to.As(n, n.phase, func() { m[n.id] = to.Copy(n, in) })
}

func emit(g *Graph, f func(to *Graph) []*Node) (out *Graph, err error) {
	defer catch(&err)
	to := &Graph{}
	m := f(to)
	for _, o := range g.outputs {
		to.Output(o.Name, m[o.Node.id])
	}
	for _, u := range g.updates {
		to.Update(m[u.Var.id], m[u.Value.id])
	}
	if err := to.Verify(); err != nil {
		return nil, err
	}
	to.locked = true
	return to, nil
}

// Inline copies the live nodes of g into to and returns, by old ID, the new nodes. Where leaves[id] is given it stands for node id,
// which is how a body's inputs are bound. f may replace nodes, as in Rewrite; nil copies all.
func Inline(to, g *Graph, leaves map[int]*Node, f func(to *Graph, n *Node, in []*Node) *Node) []*Node {
	live := g.Live()
	for _, n := range g.inputs {
		live[n.id] = true
	}
	for _, n := range g.vars {
		live[n.id] = true
	}
	m := make([]*Node, len(g.nodes))
	for _, n := range g.nodes {
		if l := leaves[n.id]; l != nil {
			m[n.id] = l
			continue
		}
		if !live[n.id] {
			continue
		}
		in := make([]*Node, len(n.in))
		for i, x := range n.in {
			in[i] = m[x.id]
		}
		to.As(n, n.phase, func() {
			if n.op == OpPart && in[0].op == opTuple {
				m[n.id] = in[0].in[n.attrs.(PartAttrs).Index]
				return
			}
			if f != nil {
				m[n.id] = f(to, n, in)
			}
			if m[n.id] == nil {
				m[n.id] = to.Copy(n, in)
			}
		})
	}
	return m
}

// Copy adds to g a node like n with other operands.
func (g *Graph) Copy(n *Node, in []*Node) *Node {
	c := g.Apply(n.op, n.attrs, in...)
	switch n.op {
	case OpInput:
		g.inputs = append(g.inputs, c)
	case OpVariable:
		g.vars = append(g.vars, c)
	}
	return c
}

// opTuple groups nodes while a rewrite replaces a node with several results; no finished graph has a live one.
var opTuple = &Op{
	Name: "tuple", Doc: "several values as the results of one node", Kind: Leaf,
	Infer:  func(_ any, in []Type) ([]Type, error) { return in, nil },
	NoGrad: "it lives only inside rewrites",
}

// Tuple makes nodes stand for the results of one node, in a function given to Rewrite. Of one node it is the node itself.
func Tuple(to *Graph, parts []*Node) *Node {
	if len(parts) == 1 {
		return parts[0]
	}
	return to.Apply(opTuple, nil, parts...)
}
