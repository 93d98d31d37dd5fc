package dist

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Window is memory of so many numbers for each rank, which the others of its machine read where it lies: sums of what was computed there copy nothing. A turn is: Free, whatever the rank puts into Own, and Sum; or Free, SumAt of
// each piece as soon as it is there, and End.
type Window struct {
	c         *Comm
	put, read []*atomic.Uint64 // by rank of the machine: what it has put there, and the turns that it has done with
	room      [][]float32
	raw       []byte // this rank's
	puts      uint64
	turns     uint64
}

// NewWindow makes a Window; nil if no ranks see common memory, as where each has a machine of its own. All ranks must call it. The memory stays until the process ends.
func (c *Comm) NewWindow(size int) (w *Window, err error) {
	defer c.begin("a search for common memory")(&err)
	if c.broken != nil {
		return nil, c.broken
	}
	size = (size + 15) / 16 * 16
	mem, _, err := c.memory(func(n int) int { return 2*n*line + 4*n*size })
	if err != nil || mem == nil {
		return nil, err
	}
	w = &Window{c: c}
	m := c.home.Load()
	n := len(m.own)
	counts := countersIn(mem, 2*n)
	w.put, w.read = counts[:n], counts[n:]
	for i := range n {
		raw := mem[2*n*line+4*size*i:][: 4*size : 4*size]
		if i == m.me {
			w.raw = raw
		}
		w.room = append(w.room, floatsIn(raw))
	}
	return w, nil
}

// Own is this rank's memory, in bytes for float32 numbers.
func (w *Window) Own() []byte { return w.raw }

// Whole reports whether all ranks see the memory. If not, sums also travel between machines, and are better taken piece by piece beside what computes.
func (w *Window) Whole() bool { return w.c.across == nil }

// Free waits until the other ranks have read what this one has put there in the turn before.
func (w *Window) Free() (err error) {
	defer w.c.begin("common memory that others still read")(&err)
	if w.c.broken != nil {
		return w.c.broken
	}
	return w.c.wait(&reached{c: w.c, ranks: w.c.home.Load().own, count: w.read, at: w.turns})
}

// Sum sets out, on every rank, to the sum of the first numbers of all ranks' memory, over the plan's tree, of which each rank has one node, and ends the turn. It says how long it has waited for other ranks of this machine. What
// Own holds afterwards is not defined.
func (w *Window) Sum(p *Plan, out []float32) (waited time.Duration, err error) {
	if waited, err = w.SumAt(p, 0, out); err == nil {
		w.End()
	}
	return waited, err
}

// SumAt is Sum of the numbers from the place at on, within a turn.
func (w *Window) SumAt(p *Plan, at int, out []float32) (waited time.Duration, err error) {
	c := w.c
	defer c.begin(fmt.Sprintf("a sum of %d numbers in common memory", len(out)))(&err)
	size, m := len(out), c.home.Load()
	switch {
	case c.broken != nil:
		return 0, c.broken
	case len(p.Own) != c.Size() || !p.OneEach():
		return 0, fmt.Errorf("dist: a plan for %d ranks, which must bring one summand each; there are %d", len(p.Own), c.Size())
	case at < 0 || at+size > len(w.room[m.me]):
		return 0, fmt.Errorf("dist: a sum of the numbers %d to %d in memory of %d", at, at+size, len(w.room[m.me]))
	}
	next := func() error {
		start := time.Now()
		w.puts++
		w.put[m.me].Store(w.puts)
		c.count(c.Rank(), 0, 0, 1)
		err := c.wait(&reached{c: c, ranks: m.own, count: w.put, at: w.puts})
		waited += time.Since(start)
		return err
	}
	if err := next(); err != nil {
		return waited, err
	}
	return waited, c.sumRooms(p, stretch(w.room, at, at+size), out, next)
}

// End says that this rank has read the sums of the turn that it wants.
func (w *Window) End() {
	w.turns++
	w.read[w.c.home.Load().me].Store(w.turns)
}
