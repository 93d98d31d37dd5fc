package dist

// Sums over several machines. Ranks of a machine add up in common memory what the tree puts together: a node of it or, where their summands do not make one, a few. Only these sums travel to other machines, and each result
// comes to a machine once, where all read it. Every rank carries a part of it, so that all have work.
//
// A sum for all is cut into as many columns as the widest machine has ranks. Of each machine one rank adds up a column and then takes part in its sum over the machines, which is a sum of a Comm of those ranks (see inner), by the
// algorithms of any other. A short sum is one column. A scattered sum goes to the rank that has the segment, from the rank of each other machine that stands for it there (machines.on), and gathered segments go there.
//
// Nobody but the one rank of a machine that has a column or a stretch adds up there, so it does so in the rooms themselves.

// across is the sums of a Comm between machines.
type across struct {
	c       *Comm
	m       *machines
	columns []*Comm // by number; nil: another rank of the machine has it
	plan    *Plan   // of ranks, for which machine is
	machine *Plan
}

func newAcross(c *Comm, m *machines) *across {
	x := &across{c: c, m: m, columns: make([]*Comm, m.widest())}
	for k := range x.columns {
		if k%len(m.own) != m.me {
			continue
		}
		var members []int
		for _, ranks := range m.ranks {
			members = append(members, ranks[k%len(ranks)])
		}
		col := New(&sub{c.t, members, m.of[c.Rank()], 0}, c.deadline)
		col.of, col.members, col.inner, col.met = c, members, true, true
		x.columns[k] = col
	}
	return x
}

// over is the plan of a sum over machines, of a plan of ranks that bring one node each.
func (x *across) over(p *Plan) *Plan {
	if x.plan == p {
		return x.machine
	}
	out := &Plan{Tree: p.Tree}
	for _, ranks := range x.m.ranks {
		var nodes []Range
		for _, r := range ranks {
			nodes = append(nodes, p.Own[r][0])
		}
		nodes, _ = merge(p.Tree, nodes, make([][]float32, len(nodes)))
		out.Own = append(out.Own, nodes)
	}
	x.plan, x.machine = p, out
	return out
}

// within adds up what this machine's ranks have in lo <= i < hi of their rooms, there: the sums of its nodes of the plan over machines.
func (x *across) within(p *Plan, rooms [][]float32, lo, hi int) [][]float32 {
	var nodes []Range
	for _, r := range x.m.own {
		nodes = append(nodes, p.Own[r][0])
	}
	_, sums := merge(p.Tree, nodes, stretch(rooms, lo, hi))
	return sums
}

// sum is sumRooms. The results come where the first summand of the machine was, and all read them there.
func (x *across) sum(p *Plan, rooms [][]float32, out []float32, put func() error) error {
	c, m, w := x.c, x.m, len(out)
	columns := x.columns
	if w <= small {
		columns = columns[:1]
	}
	over, had := x.over(p), 0
	for k, col := range columns {
		lo, hi := segment(w, k, len(columns))
		if col == nil || lo == hi {
			continue
		}
		sums := x.within(p, rooms, lo, hi)
		if err := col.sumTree(over, sums, sums[0], true); err != nil {
			return err
		}
		had += hi - lo
	}
	if err := put(); err != nil {
		return err
	}
	first := 0
	for i, r := range m.own {
		if p.Own[r][0].Lo < p.Own[m.own[first]][0].Lo {
			first = i
		}
	}
	copy(out, rooms[first])
	others := len(m.own) - 1
	c.moved(w-had+others*had, others*had+w-had)
	return nil
}

// scatter sets out, this rank's portion, to the sum of what all ranks have of it in their rooms.
func (x *across) scatter(p *Plan, rooms [][]float32, out []float32, q portions) error {
	c, m, me, over := x.c, x.m, x.c.Rank(), x.over(p)
	var rs []Request
	var nodes []Range
	var parts [][]float32
	w, read := len(out), len(out)
	count := 0
	for i, own := range over.Own {
		if i != m.of[me] {
			count += len(own)
		}
	}
	tmp := c.room(count * w)
	for i, own := range over.Own {
		if i == m.of[me] || w == 0 {
			continue
		}
		for _, node := range own {
			r, err := c.recv(m.on(i, me), tagSum, bytesOf(tmp[:w]))
			if err != nil {
				return err
			}
			rs, nodes, parts, tmp = append(rs, r), append(nodes, node), append(parts, tmp[:w]), tmp[w:]
		}
	}
	for i := 1; i < c.Size(); i++ {
		r := (me + i) % c.Size()
		a, b := q.room(r)
		if m.of[r] == m.of[me] || m.on(m.of[me], r) != me || a == b {
			continue
		}
		for _, sum := range x.within(p, rooms, a, b) {
			s, err := c.send(r, tagSum, bytesOf(sum))
			if err != nil {
				return err
			}
			rs = append(rs, s)
		}
		read += b - a
	}
	if a, b := q.room(me); w > 0 {
		nodes, parts = append(nodes, over.Own[m.of[me]]...), append(parts, x.within(p, rooms, a, b)...)
	}
	if err := c.wait(rs...); err != nil {
		return err
	}
	if w > 0 {
		fold(p.Tree, nodes, parts, out)
	}
	c.moved(q.total()-read, (len(m.own)-1)*read)
	return nil
}

// gather sends this rank's portion, which is in its room, to a rank of each other machine, and puts there what others send it: so many numbers.
func (x *across) gather(room []float32, q portions) (came int, err error) {
	c, m, me := x.c, x.m, x.c.Rank()
	var rs []Request
	for r := range c.Size() {
		a, b := q.room(r)
		if m.of[r] == m.of[me] || m.on(m.of[me], r) != me || a == b {
			continue
		}
		r, err := c.recv(r, tagGather, bytesOf(room[a:b]))
		if err != nil {
			return 0, err
		}
		rs = append(rs, r)
		came += b - a
	}
	if a, b := q.room(me); a < b {
		for i := range m.ranks {
			if i == m.of[me] {
				continue
			}
			s, err := c.send(m.on(i, me), tagGather, bytesOf(room[a:b]))
			if err != nil {
				return 0, err
			}
			rs = append(rs, s)
		}
	}
	return came, c.wait(rs...)
}
