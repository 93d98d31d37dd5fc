package pass

import (
	"container/heap"
	"fmt"
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/shape"
)

// Regions gathers elementwise nodes of one shape, and the broadcasts that feed them, into region nodes.
//
// A set of nodes can become one node if no path leaves the set and comes back, where a path may enter another region at one member and
// leave it at any. Nodes are taken in order; each joins the regions of its operands as far as that keeps.
func Regions(g *graph.Graph) (*graph.Graph, error) {
	r := &regions{g: g, live: g.Live(), uses: g.Uses(), of: make([]*region, len(g.Nodes()))}
	r.reachability()
	for _, n := range g.Nodes() {
		if r.live[n.ID()] && Fusible(n) && n.Shape().Size() > 0 {
			r.place(n)
		}
	}
	return r.build()
}

// Fusible reports whether a node may be part of a region: elementwise, primitive, with one result.
func Fusible(n *graph.Node) bool {
	return n.Op().Kind == graph.Elementwise && n.Op().Ref != nil && len(n.Types()) == 1
}

// region is a growing set of elementwise nodes of one shape.
type region struct {
	shape   shape.Shape
	members []*graph.Node
}

type regions struct {
	g    *graph.Graph
	live []bool
	uses [][]*graph.Node
	deps [][]uint64 // by ID: the set of nodes that it depends on, itself included, once the regions so far are one node each
	of   []*region  // by ID: where the node is, nil if nowhere
}

func (r *regions) reachability() {
	words := (len(r.g.Nodes()) + 63) / 64
	r.deps = make([][]uint64, len(r.g.Nodes()))
	for i, n := range r.g.Nodes() {
		d := make([]uint64, words)
		for _, x := range n.Inputs() {
			for w, v := range r.deps[x.ID()] {
				d[w] |= v
			}
		}
		d[i/64] |= 1 << (i % 64)
		r.deps[i] = d
	}
}

// through is the producer of an operand, looking through a broadcast: a broadcast is done by whoever reads it.
func through(n *graph.Node) *graph.Node {
	if n.Op() == op.BroadcastOp {
		return n.Input(0)
	}
	return n
}

func (r *regions) place(n *graph.Node) {
	own := &region{shape: n.Shape(), members: []*graph.Node{n}}
	r.of[n.ID()] = own
	for _, x := range n.Inputs() {
		p := r.of[x.ID()]
		if p == nil || p == own || !p.shape.Equal(own.shape) || again(n, x) {
			continue
		}
		if all := append(slices.Clone(p.members), own.members...); r.convex(all) {
			r.contract(p.members[0], n)
			own.members = all
			for _, m := range p.members {
				r.of[m.ID()] = own
			}
		}
	}
}

// again reports whether n brings to f32, in the backward pass, what the forward pass keeps in bf16: done together with that, it would be kept in f32.
func again(n, x *graph.Node) bool {
	return n.Op() == op.ConvertOp && n.Phase() == graph.Backward && x.Phase() == graph.Forward && n.DType() == dtype.F32 && x.DType() == dtype.BF16
}

// contract makes what depends on one of two regions, their members too, depend on all that either depends on: they are one node from now on. The
// members of a region have the same dependencies, so that one can speak for all.
func (r *regions) contract(a, b *graph.Node) {
	all := slices.Clone(r.deps[a.ID()])
	for w, v := range r.deps[b.ID()] {
		all[w] |= v
	}
	for _, d := range r.deps {
		if (d[a.ID()/64]>>(a.ID()%64)|d[b.ID()/64]>>(b.ID()%64))&1 == 1 {
			for w, v := range all {
				d[w] |= v
			}
		}
	}
}

// convex reports whether no value from outside that a member reads depends on a member. Operands reached through a broadcast count as read.
func (r *regions) convex(members []*graph.Node) bool {
	words := len(r.deps[0])
	set := make([]uint64, words)
	for _, m := range members {
		set[m.ID()/64] |= 1 << (m.ID() % 64)
	}
	for _, m := range members {
		for _, x := range m.Inputs() {
			if set[x.ID()/64]>>(x.ID()%64)&1 == 1 {
				continue
			}
			for w, v := range r.deps[x.ID()] {
				if v&set[w] != 0 {
					return false
				}
			}
		}
	}
	return true
}

// unit is what is emitted at once: a region, or a node outside any.
type unit struct {
	key     int // the first member's ID: units are emitted as early in the old order as their operands allow
	nodes   []*graph.Node
	waiting int
	next    []*unit
}

type queue []*unit

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].key < q[j].key }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(*unit)) }
func (q *queue) Pop() any          { o := *q; x := o[len(o)-1]; *q = o[:len(o)-1]; return x }

func (r *regions) build() (*graph.Graph, error) {
	units := make([]*unit, len(r.g.Nodes()))
	made := map[*region]*unit{}
	leaf := func(n *graph.Node) bool { return n.Op() == graph.OpInput || n.Op() == graph.OpVariable }
	for i, n := range r.g.Nodes() {
		if !r.live[i] && !leaf(n) {
			continue
		}
		g := r.of[i]
		if u := made[g]; g != nil && u != nil {
			u.nodes = append(u.nodes, n)
			units[i] = u
			continue
		}
		units[i] = &unit{key: i, nodes: []*graph.Node{n}}
		if g != nil {
			made[g] = units[i]
		}
	}
	var ready queue
	for i, n := range r.g.Nodes() {
		if units[i] == nil {
			continue
		}
		for _, x := range n.Inputs() {
			if from := units[x.ID()]; from != units[i] {
				from.next = append(from.next, units[i])
				units[i].waiting++
			}
		}
	}
	for i := range r.g.Nodes() {
		if u := units[i]; u != nil && u.key == i && u.waiting == 0 {
			heap.Push(&ready, u)
		}
	}
	return graph.Emit(r.g, func(to *graph.Graph, m []*graph.Node) {
		for ready.Len() > 0 {
			u := heap.Pop(&ready).(*unit)
			if g := r.of[u.nodes[0].ID()]; g != nil && (len(g.members) > 1 || readsBroadcast(u.nodes[0])) {
				r.emit(to, u.nodes, m)
			} else {
				graph.CopyTo(to, u.nodes[0], m)
			}
			for _, v := range u.next {
				if v.waiting--; v.waiting == 0 {
					heap.Push(&ready, v)
				}
			}
		}
	})
}

func readsBroadcast(n *graph.Node) bool {
	return slices.ContainsFunc(n.Inputs(), func(x *graph.Node) bool { return x.Op() == op.BroadcastOp })
}

// emit adds one region node for the members (in old order) to the new graph and records in m what stands for each that is read outside.
func (r *regions) emit(to *graph.Graph, members []*graph.Node, m []*graph.Node) {
	in := map[*graph.Node]bool{}
	for _, n := range members {
		in[n] = true
	}
	var operands, results []*graph.Node
	body, err := graph.Build(func(b *graph.Graph) {
		inner := map[*graph.Node]*graph.Node{}
		read := func(x *graph.Node) *graph.Node {
			if inner[x] == nil {
				src := through(x)
				if inner[src] == nil {
					if c := graph.ConstOf(src); c != nil && c.Len() == 1 {
						inner[src] = b.Const(c)
					} else {
						inner[src] = b.Input(fmt.Sprint("x", len(operands)), src.Type())
						operands = append(operands, m[src.ID()])
					}
				}
				if src != x {
					inner[x] = op.BroadcastTo(inner[src], x.Shape()...)
				}
			}
			return inner[x]
		}
		for _, n := range members {
			args := make([]*graph.Node, len(n.Inputs()))
			for i, x := range n.Inputs() {
				args[i] = read(x)
			}
			b.As(n, n.Phase(), func() { inner[n] = b.Apply(n.Op(), n.Attrs(), args...) })
		}
		for _, n := range members {
			if r.escapes(n, in) {
				b.Output(fmt.Sprint("y", len(results)), inner[n])
				results = append(results, n)
			}
		}
	})
	if err != nil {
		panic(err) // members come from a verified graph
	}
	// The region is booked to the layer of its last member.
	last := members[len(members)-1]
	to.As(last, last.Phase(), func() {
		n := to.Apply(op.RegionOp, op.RegionAttrs{Body: body}, operands...)
		for i, y := range results {
			m[y.ID()] = n.Part(i)
		}
	})
}

// escapes reports whether n is read outside the set in, by a node, an output or an update.
func (r *regions) escapes(n *graph.Node, in map[*graph.Node]bool) bool {
	for _, u := range r.uses[n.ID()] {
		if r.live[u.ID()] && !in[u] {
			return true
		}
	}
	for _, o := range r.g.Outputs() {
		if o.Node == n {
			return true
		}
	}
	for _, u := range r.g.Updates() {
		if u.Value == n {
			return true
		}
	}
	return false
}
