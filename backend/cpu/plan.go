package cpu

import (
	"fmt"
	"os"
	"slices"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/debug"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// compiler gives nodes their kernels and values their places.
type compiler struct {
	e    *exec
	g    *graph.Graph
	host *backend.Host
	live []bool
	bufs [][]*buf // by node ID, one for each result; views of one value share the *buf's memory through alias

	first, last map[*buf]int // steps between which an arena value lives
	alias       map[*buf]*buf
	inPlace     map[*buf][]*buf // results that may take an operand's place: the operands
	bound       bool            // outputs lie where they are bound at each run
	fixed       []*fixedValue   // by node ID: what follows from variables that do not change; nil if it does not
}

// compile selects kernels and plans memory.
func (c *compiler) compile() error {
	c.first, c.last = map[*buf]int{}, map[*buf]int{}
	c.alias, c.inPlace = map[*buf]*buf{}, map[*buf][]*buf{}
	c.once()
	for _, n := range c.g.Nodes() {
		if !c.live[n.ID()] && n.Op() != graph.OpInput {
			continue
		}
		if err := c.node(n); err != nil {
			return err
		}
	}
	for _, o := range c.g.Outputs() {
		if r := c.root(c.bufs[o.Node.ID()][0]); c.bound && c.planned(r) {
			r.bound = true
		}
	}
	c.updates()
	for _, u := range c.g.Updates() {
		c.e.writes = append(c.e.writes, c.host.Version(graph.NameOf(u.Var)))
	}
	c.finishes()
	c.lifetimes()
	c.arena()
	return nil
}

// finishes finds the step after which each output is whole, if somebody wants to know: it is handed over there, and its place is free for others.
func (c *compiler) finishes() {
	for _, o := range c.g.Outputs() {
		c.e.outs = append(c.e.outs, c.bufs[o.Node.ID()][0])
	}
	made := map[*buf]int{}
	if c.e.ready != nil || c.e.take != nil {
		c.e.early = make([][]int, len(c.e.steps))
		for i, s := range c.e.steps {
			for _, b := range s.out {
				made[b] = i
			}
		}
	}
	for i, b := range c.e.outs {
		if at, ok := made[c.root(b)]; ok {
			c.e.early[at] = append(c.e.early[at], i)
		} else {
			c.e.ends = append(c.e.ends, i)
		}
	}
}

func (c *compiler) node(n *graph.Node) error {
	out := make([]*buf, len(n.Types()))
	for i, t := range n.Types() {
		out[i] = &buf{t: t, n: t.Shape.Size(), node: n}
	}
	c.bufs[n.ID()] = out
	switch n.Op() {
	case graph.OpInput:
		c.e.ins = append(c.e.ins, out[0])
		return nil
	case graph.OpVariable:
		out[0].raw = c.host.Tensor(backend.Var{Name: graph.NameOf(n), Type: n.Type()}).Bytes()
		return nil
	case graph.OpConst:
		out[0].raw = graph.ConstOf(n).Bytes()
		return nil
	case graph.OpPart:
		c.bufs[n.ID()] = c.bufs[n.Input(0).ID()][n.Attrs().(graph.PartAttrs).Index:][:1]
		return nil
	case op.ReshapeOp:
		c.alias[out[0]] = c.bufs[n.Input(0).ID()][0]
		return nil
	}
	in := make([]*buf, len(n.Inputs()))
	for i, x := range n.Inputs() {
		in[i] = c.bufs[x.ID()][0]
	}
	k := &call{n: n, in: in, out: out, pool: c.e.pool, c: c}
	r, why := choose(n)
	name, run, err := r.make(k)
	if err != nil {
		return fmt.Errorf("cpu: layer %s: %s: %w", n.Scope(), n.Op().Name, err)
	}
	if debug.On("dispatch") {
		fmt.Fprintf(os.Stderr, "%v %s%v @%s: %s (%s)\n", n, n.Op().Name, n.Types(), n.Scope(), name, why)
	}
	c.e.bytes += k.scratch
	s := step{NodeTime: backend.NodeTime{Node: n, Kernel: name, Executed: k.executed, BF16: k.bf16}, run: run, in: in, out: out}
	if f := c.fixed[n.ID()]; f != nil {
		s.once = f.feeds
		for i, v := range f.kept {
			out[i].raw = v.Raw
			c.e.kept = append(c.e.kept, v)
		}
	}
	c.e.steps = append(c.e.steps, s)
	return nil
}

// root follows views to the value whose memory they show.
func (c *compiler) root(b *buf) *buf {
	for c.alias[b] != nil {
		b = c.alias[b]
	}
	return b
}

// planned reports whether a value lives in the arena.
func (c *compiler) planned(b *buf) bool {
	o := b.node.Op()
	return o != graph.OpInput && o != graph.OpVariable && o != graph.OpConst && !b.bound
}

// updates lets the kernel that makes a variable's new value write it where the variable lives, if nothing reads the old value afterwards;
// other updates are copied at the end of a run.
func (c *compiler) updates() {
	lastRead := map[*buf]int{} // of a variable's memory
	made := map[*buf]int{}
	for i, s := range c.e.steps {
		for _, b := range s.in {
			lastRead[c.root(b)] = i
		}
		for _, b := range s.out {
			made[b] = i
		}
	}
	for _, o := range c.g.Outputs() {
		lastRead[c.root(c.bufs[o.Node.ID()][0])] = len(c.e.steps)
	}
	taken := map[*buf]bool{}
	for _, u := range c.g.Updates() {
		v := c.bufs[u.Var.ID()][0]
		b := c.bufs[u.Value.ID()][0]
		r := b
		for c.alias[r] != nil && !taken[r] {
			r = c.alias[r]
		}
		if r == v {
			continue
		}
		if taken[r] { // the same value is already written where another variable lives
			c.e.late = append(c.e.late, copying{b, v})
			continue
		}
		at, computed := made[r]
		reads, read := lastRead[v]
		free := !read || reads < at || reads == at && slices.Contains(c.inPlace[r], v)
		if computed && c.planned(r) && free {
			taken[r] = true
			c.alias[r] = v
			continue
		}
		if !c.planned(r) { // a variable or input itself: keep its value before anything overwrites it
			keep := &buf{t: b.t, n: b.n, node: u.Value, raw: tensor.AlignedBytes(b.t.Bytes())}
			from := r
			c.e.steps = slices.Insert(c.e.steps, 0, step{NodeTime: backend.NodeTime{Node: u.Value, Kernel: "copy"}, run: func() { copy(keep.raw, from.raw) }, in: []*buf{from}, out: []*buf{keep}})
			c.e.late = append(c.e.late, copying{keep, v})
			for k := range made {
				made[k]++
			}
			for k := range lastRead {
				lastRead[k]++
			}
			continue
		}
		lastRead[r] = len(c.e.steps)
		c.e.late = append(c.e.late, copying{b, v})
	}
}

// lifetimes finds the steps between which each value must keep its place.
func (c *compiler) lifetimes() {
	touch := func(b *buf, i int) {
		r := c.root(b)
		if !c.planned(r) || r.raw != nil {
			return
		}
		if _, ok := c.first[r]; !ok {
			c.first[r] = i
		}
		c.last[r] = max(c.last[r], i)
	}
	for i, s := range c.e.steps {
		for _, b := range append(slices.Clone(s.in), s.out...) {
			touch(b, i)
		}
	}
	end := len(c.e.steps)
	for i, outs := range c.e.early {
		for _, o := range outs {
			touch(c.e.outs[o], i)
		}
	}
	for _, o := range c.e.ends {
		touch(c.e.outs[o], end)
	}
	for _, l := range c.e.late {
		touch(l.from, end)
	}
}

// arena gives each value the lowest place that is free during its life, greatest values first (Pisarchyk & Lee, Efficient memory
// management for deep neural net inference, 2020: greedy by size). A result whose kernel works in place takes the
// place of an operand that dies there.
func (c *compiler) arena() {
	// In place first: a chain of values then shares one place and one life.
	merged := map[*buf]*buf{}
	find := func(b *buf) *buf {
		for merged[b] != nil {
			b = merged[b]
		}
		return b
	}
	for i, s := range c.e.steps {
		given := map[*buf]bool{} // places that a result of this step has taken
		for _, o := range s.out {
			if _, ok := c.first[o]; !ok || c.root(o) != o {
				continue
			}
			for _, x := range c.inPlace[o] {
				r := c.root(x)
				_, lives := c.last[r]
				if !lives || r.t.Bytes() != o.t.Bytes() || find(r) == find(o) || c.last[find(r)] != i {
					continue
				}
				f := find(r)
				if given[f] {
					continue
				}
				given[f] = true
				merged[o] = f
				c.last[f] = c.last[o]
				break
			}
		}
	}
	type place struct {
		b        *buf
		off, end int
	}
	var todo []*buf
	for b := range c.first {
		if merged[b] == nil {
			todo = append(todo, b)
		}
	}
	slices.SortFunc(todo, func(a, b *buf) int {
		if d := b.t.Bytes() - a.t.Bytes(); d != 0 {
			return d
		}
		if d := c.first[a] - c.first[b]; d != 0 {
			return d
		}
		return a.node.ID() - b.node.ID()
	})
	var placed []place
	total := 0
	for _, b := range todo {
		size := (b.t.Bytes() + tensor.Align - 1) / tensor.Align * tensor.Align
		off := 0
		for _, p := range placed { // in order of offset
			if c.first[b] > c.last[p.b] || c.last[b] < c.first[p.b] {
				continue
			}
			if off+size <= p.off {
				break
			}
			off = max(off, p.end)
		}
		p := place{b, off, off + size}
		at, _ := slices.BinarySearchFunc(placed, p, func(x, y place) int {
			if x.off != y.off {
				return x.off - y.off
			}
			return x.end - y.end
		})
		placed = slices.Insert(placed, at, p)
		total = max(total, off+size)
	}
	mem := tensor.AlignedBytes(total)
	c.e.bytes += int64(total)
	for _, p := range placed {
		p.b.raw = mem[p.off : p.off+p.b.t.Bytes() : p.off+p.b.t.Bytes()]
	}
	for b := range merged {
		b.raw = find(b).raw[:b.t.Bytes()]
	}
	for _, s := range c.e.steps {
		for _, b := range append(slices.Clone(s.in), s.out...) {
			c.show(b)
		}
	}
	for _, o := range c.g.Outputs() {
		c.show(c.bufs[o.Node.ID()][0])
	}
	for _, l := range c.e.late {
		c.show(l.from)
	}
}

// show points a view at the memory of what it shows. Views of inputs, and of outputs that are bound, are pointed at each run.
func (c *compiler) show(b *buf) {
	r := c.root(b)
	if r == b || b.raw != nil {
		return
	}
	if r.node.Op() == graph.OpInput || r.bound {
		c.e.follow = append(c.e.follow, copying{r, b})
		return
	}
	b.raw = r.raw[:b.t.Bytes()]
}
