package dist

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Window is memory of so many numbers for each rank, which the others read where it lies: sums of what was computed there copy nothing. A turn is: Free, whatever the rank puts into Own, and Sum.
type Window struct {
	c         *Comm
	put, read []*atomic.Uint64 // by rank: what it has put there, and the turns that it has done with
	room      [][]float32
	raw       []byte // this rank's
	puts      uint64
	turns     uint64
}

// NewWindow makes a Window; nil if the ranks do not see common memory, as on several machines. All ranks must call it. The memory stays until the process ends.
func (c *Comm) NewWindow(size int) (w *Window, err error) {
	defer c.begin("a search for common memory")(&err)
	if c.broken != nil {
		return nil, c.broken
	}
	n := c.Size()
	size = (size + 15) / 16 * 16
	mem, err := c.memory(line + 2*n*line + 4*n*size)
	if err != nil || mem == nil {
		return nil, err
	}
	w = &Window{c: c}
	counts := countersIn(mem[line:], 2*n)
	w.put, w.read = counts[:n], counts[n:]
	for r := range n {
		raw := mem[line+2*n*line+4*size*r:][: 4*size : 4*size]
		if r == c.Rank() {
			w.raw = raw
		}
		w.room = append(w.room, floatsIn(raw))
	}
	return w, nil
}

// Own is this rank's memory, in bytes for float32 numbers.
func (w *Window) Own() []byte { return w.raw }

// Free waits until the other ranks have read what this one has put there in the turn before.
func (w *Window) Free() (err error) {
	defer w.c.begin("common memory that others still read")(&err)
	if w.c.broken != nil {
		return w.c.broken
	}
	return w.c.wait(&reached{c: w.c, count: w.read, at: w.turns})
}

// Sum sets out, on every rank, to the sum of the first numbers of all ranks' memory, over the plan's tree, of which each rank has one node. It says how long it has waited for others.
func (w *Window) Sum(p *Plan, out []float32) (waited time.Duration, err error) {
	c := w.c
	defer c.begin(fmt.Sprintf("a sum of %d numbers in common memory", len(out)))(&err)
	n, me, size := c.Size(), c.Rank(), len(out)
	switch {
	case c.broken != nil:
		return 0, c.broken
	case len(p.Own) != n || !p.OneEach():
		return 0, fmt.Errorf("dist: a plan for %d ranks, which must bring one summand each; there are %d", len(p.Own), n)
	case size > len(w.room[me]):
		return 0, fmt.Errorf("dist: a sum of %d numbers in memory of %d", size, len(w.room[me]))
	}
	next := func() error {
		start := time.Now()
		w.puts++
		w.put[me].Store(w.puts)
		c.count(0, 0, 1)
		err := c.wait(&reached{c: c, count: w.put, at: w.puts})
		waited += time.Since(start)
		return err
	}
	if err := next(); err != nil {
		return waited, err
	}
	if err := c.sumRooms(p, w.room, out, next); err != nil {
		return waited, err
	}
	w.turns++
	w.read[me].Store(w.turns)
	return waited, nil
}
