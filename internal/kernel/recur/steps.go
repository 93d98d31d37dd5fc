package recur

import (
	"runtime"
	"sync/atomic"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// With few rows a step is shared out by units, blockUnits at a time: each thread then reads its part of the weights, which its cache keeps from step to step.
const (
	fewRows    = 2
	blockUnits = 64
)

// shared reports whether steps are shared out by units.
func (p *Plan) shared() bool {
	return p.few == nil && p.Batch <= fewRows && p.Units%blockUnits == 0
}

// streams reports whether a block's weights, of all gates, are packed behind each other: for one row, which is bound by reading them.
func (p *Plan) streams() bool { return p.shared() && p.Batch == 1 && p.level == isa.AVX512 }

// packStream copies weights [Units, Gates·Units] to blocks [Units/64][Units][Gates][64].
func (p *Plan) packStream(dst, u []float32) {
	for b := range p.Units / blockUnits {
		for k := range p.Units {
			for g := range p.Cell.Gates() {
				copy(dst[:blockUnits], u[k*p.wide+g*p.Units+b*blockUnits:])
				dst = dst[blockUnits:]
			}
		}
	}
}

// turns is the state of steps that threads share. A block is computed by whoever takes it first, each thread beginning with blocks of its own. The units are two halves: a block adds up first what
// comes from its own half of the state before, which the same thread has made, then what comes from the other, so that threads seldom wait for each other. A thread that comes late, or not at all,
// holds nobody up.
type turns struct {
	next []count // by block: the step whose turn it is to be taken
	done [2]count
}

// count is a number on a cache line of its own.
type count struct {
	atomic.Int64
	_ [56]byte
}

// spins is how often a thread looks whether a half is done before it lets others have its CPU.
const spins = 20000

// await returns when n blocks of a half have been done.
func (t *turns) await(half, n int) {
	for i := 1; t.done[half].Load() < int64(n); i++ {
		if i%spins == 0 {
			runtime.Gosched()
		}
	}
}

// steps runs all steps.
func (p *Plan) steps(pool *par.Pool) {
	blocks := p.Units / blockUnits
	if p.turns.next == nil {
		p.turns.next = make([]count, blocks)
	}
	for i := range p.turns.next {
		p.turns.next[i].Store(0)
	}
	for i := range p.turns.done {
		p.turns.done[i].Store(0)
	}
	p.threads = min(pool.Threads(), blocks)
	pool.Run(p.threads, (*sharing)(p))
}

// halfOf is the half of a block, and how many blocks a half has.
func (p *Plan) halfOf(b int) (half, blocks int) {
	all := len(p.turns.next)
	if all%2 != 0 {
		return 0, all
	}
	return b / (all / 2), all / 2
}

type sharing Plan

// Chunk takes part in all steps. A thread goes on to a step when it has found all blocks of the one before taken, so whoever waits for a block knows that someone computes it.
func (q *sharing) Chunk(i, id int) {
	p, w := (*Plan)(q), q.work[id]
	blocks := len(p.turns.next)
	first := i * blocks / p.threads
	for s := range p.Time {
		t, before := p.time(s)
		for j := range blocks {
			b := (first + j) % blocks
			if at := &p.turns.next[b]; at.Load() == int64(s) && at.CompareAndSwap(int64(s), int64(s+1)) {
				p.block(w, b, s, t, before)
				half, _ := p.halfOf(b)
				p.turns.done[half].Add(1)
			}
		}
	}
}

// block computes units of block b at time t, step s, of all rows.
func (p *Plan) block(w *worker, b, s, t, before int) {
	half, blocks := p.halfOf(b)
	p.turns.await(half, s*blocks)
	other := func() {
		if blocks < len(p.turns.next) {
			p.turns.await(1-half, s*blocks)
		}
	}
	a, aOff := p.ops.H0, p.state[:p.Batch]
	if before >= 0 {
		a, aOff = p.ops.States[before*p.Units:], p.sequence[:p.Batch]
	}
	if p.ops.Mask != nil {
		other()
		for r := range p.Batch {
			p.mul(w.h[p.local[r]:][:p.Units], a[aOff[r]:][:p.Units], p.ops.Mask[r*p.Units:][:p.Units])
		}
		a, aOff = w.h, p.local[:p.Batch]
	}
	x := p.ops.X[t*p.wide:]
	lo := b * blockUnits
	c, cOff, in, bias := p.ops.States[t*p.Units:], p.sequence[:p.Batch], x, []float32(nil)
	switch p.Cell {
	case LSTM:
		c, cOff = p.ops.Gate[t*p.wide:], p.wideSeq[:p.Batch]
	case GRU:
		c, cOff, in, bias = w.q, p.localWide[:p.Batch], nil, p.ops.Bias
	}
	if p.streams() {
		from := in
		if bias != nil {
			from = bias
		}
		n, row := blocks*blockUnits, p.Cell.Gates()*blockUnits
		u := p.packed[b*p.Units*row:][:p.Units*row]
		p.stream(c[lo:], from[lo:], a[half*n:][:n], u[half*n*row:])
		if n < p.Units {
			other()
			p.stream(c[lo:], c[lo:], a[(1-half)*n:][:n], u[(1-half)*n*row:])
		}
	} else {
		other()
		for g := range p.Cell.Gates() {
			for j := g*p.Units + lo; j < g*p.Units+lo+blockUnits; j += p.panels.Width() {
				p.panel(w, j/p.panels.Width(), a, aOff, p.Units, c, cOff, in, bias)
			}
		}
	}
	for r := range p.Batch {
		p.cell(w, r, r, t, before, lo, lo+blockUnits)
	}
}
