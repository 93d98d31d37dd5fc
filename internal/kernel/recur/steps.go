package recur

import (
	"sync/atomic"
	"time"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/kernel/wgemm"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/internal/race"
)

// With few rows a step is shared out by units: each thread has a part, whose weights its cache keeps from step to step.
const (
	fewRows    = 2
	blockUnits = 64 // a part is some blocks of so many
	pieceUnits = 16 // whose cells are made at once between bursts of a stream
	claims     = 8  // steps that a part's own thread takes at once
)

// shared reports whether steps are shared out by units.
func (p *Plan) shared() bool {
	return p.Cell != GRU1 && p.Batch <= fewRows && p.Units%blockUnits == 0
}

// streams reports whether weights are packed in the order in which one row reads them, panel behind panel, each of all gates. Reading them out of the L2 cache is what bounds such a step.
func (p *Plan) streams() bool { return p.few == nil && p.shared() && p.Batch == 1 && p.leaf != nil }

// packStream copies weights [Units, Gates·Units] to panels [Units/n][Units][Gates][n].
func (p *Plan) packStream(dst, u []float32) {
	gates := p.Cell.Gates()
	n := p.leaf.units[gates]
	for lo := 0; lo < p.Units; lo += n {
		for k := range p.Units {
			for g := range gates {
				copy(dst[:n], u[k*p.wide+g*p.Units+lo:])
				dst = dst[n:]
			}
		}
	}
}

// part is some blocks of units, which one thread computes from step to step; a thread that waits for a part whose own thread does not come, or has lost its CPU, computes it in its place. Who computes changes
// nothing in the result, for a unit's sum is always added up in the same order: first what comes from its own half of the state before, then the other half.
type part struct {
	lo, hi int // units

	claimed atomic.Int64 // steps that somebody has begun
	here    atomic.Bool  // its own thread has come
	_       [64]byte
	done    int64 // steps that are done, read and written atomically: on a line of its own, for others look at it
	_       [64]byte
}

const (
	// glance is how often a thread looks whether a part is done before it takes a step over from a thread that has not come, patience the same of one that is there but has not begun the step.
	glance, patience = 50, 4000
	// spins is how often it looks before it gives its own step back: the system may have taken the CPU from a thread in the middle of a step, and when it does the same to one that waits,
	// no other should have to wait for that one.
	spins = 20000
	// nap is how long it then sleeps between looks.
	nap = 50 * time.Microsecond
)

// fewWeights are the weights of few bits that a part has at least: a core reads and multiplies so many in about a microsecond, which is what it costs at each step until another core has seen that a part is
// done and has read its states. With less, two threads are no faster than one, and not as steady.
var fewWeights = [...]int{isa.Portable: 1 << 15, isa.AVX2: 1 << 16, isa.AVX512: 1 << 17}

// await reports whether s steps of all parts with units in [lo, hi) are done, after waiting a while.
func (p *Plan) await(w *worker, lo, hi, s int) bool {
	for q := range p.parts {
		at := &p.parts[q]
		if at.lo >= hi || at.hi <= lo {
			continue
		}
		for i := 1; atomic.LoadInt64(&at.done) < int64(s); i++ {
			if i%glance == 0 && (i%patience == 0 || !at.here.Load()) {
				p.takeOver(w, q, s-1)
			}
			if i == spins {
				return false
			}
		}
	}
	return true
}

// takeOver computes step s of part q, if its turn has come and nobody has begun it. It does not wait for others.
func (p *Plan) takeOver(w *worker, q, s int) {
	if at := &p.parts[q]; at.claimed.Load() == int64(s) && p.ready(0, p.Units, s) && at.claimed.CompareAndSwap(int64(s), int64(s+1)) {
		p.step(w, q, s)
	}
}

// ready reports whether s steps of all parts with units in [lo, hi) are done.
func (p *Plan) ready(lo, hi, s int) bool {
	for q := range p.parts {
		if at := &p.parts[q]; at.lo < hi && at.hi > lo && atomic.LoadInt64(&at.done) < int64(s) {
			return false
		}
	}
	return true
}

// half is the number of units in a half of the state: all of them, if they do not make two.
func (p *Plan) half() int {
	if p.Units%(2*blockUnits) == 0 {
		return p.Units / 2
	}
	return p.Units
}

// steps runs all steps.
func (p *Plan) steps(pool *par.Pool) {
	n := min(pool.Threads(), p.Units/blockUnits)
	if p.few != nil {
		n = max(1, min(n, p.wide*p.Units/fewWeights[p.level]))
	}
	p.begin(n)
	pool.Run(n, (*sharing)(p))
}

// begin makes n parts of which nothing is done.
func (p *Plan) begin(n int) {
	blocks := p.Units / blockUnits
	if len(p.parts) != n {
		p.parts = make([]part, n)
	}
	for i := range p.parts {
		at := &p.parts[i]
		at.lo, at.hi = i*blocks/n*blockUnits, (i+1)*blocks/n*blockUnits
		at.claimed.Store(0)
		atomic.StoreInt64(&at.done, 0)
		at.here.Store(false)
	}
	if len(p.sums) == 0 && p.streams() {
		p.sums = make([]float32, p.wide)
	}
}

type sharing Plan

// Chunk takes a part through the steps that nobody has taken.
func (q *sharing) Chunk(i, id int) {
	p, w := (*Plan)(q), q.work[id]
	at := &p.parts[i]
	at.here.Store(true)
	for {
		s := at.claimed.Load()
		if s >= int64(p.Time) {
			return
		}
		end := min(s+claims, int64(p.Time))
		if !at.claimed.CompareAndSwap(s, end) {
			continue
		}
		for s < end && p.step(w, i, int(s)) {
			s++
		}
		if s == end {
			continue
		}
		// Others can take this step now, and this thread the steps of others.
		at.claimed.Store(s)
		for at.claimed.Load() == s && !p.ready(0, p.Units, int(s)) {
			for j := range p.parts {
				p.takeOver(w, j, int(s-1))
			}
			time.Sleep(nap)
		}
	}
}

// step computes step s of part q, of all rows, and reports whether it did: not if it would have had to wait long for the steps before.
func (p *Plan) step(w *worker, q, s int) bool {
	at := &p.parts[q]
	t, before := p.time(s)
	ok := p.await(w, at.lo, at.hi, s)
	switch {
	case !ok:
	case p.Batch == 1 && p.ended(0, t):
		p.cell(w, 0, t, before, at.lo, at.hi, nil)
	case p.few != nil:
		ok = p.fewStep(w, at, s, t, before)
	case p.streams():
		ok = p.streamStep(w, at, s, t, before)
	default:
		ok = p.tileStep(w, at, s, t, before)
	}
	switch {
	case !ok:
	case p.leaf != nil && !race.Enabled:
		p.leaf.publish(&at.done, int64(s+1))
	default:
		atomic.StoreInt64(&at.done, int64(s+1))
	}
	return ok
}

// streamStep is step for one row with weights packed by packStream.
func (p *Plan) streamStep(w *worker, at *part, s, t, before int) bool {
	h := p.ops.H0
	if before >= 0 {
		h = p.ops.States[before*p.Units:]
	}
	h = h[:p.Units]
	if p.ops.Mask != nil {
		if !p.await(w, 0, p.Units, s) {
			return false
		}
		p.mul(w.h[:p.Units], h, p.ops.Mask[:p.Units])
		h = w.h[:p.Units]
	}
	x := p.ops.X[t*p.wide:][:p.wide]
	from, to := x, p.sums
	if p.Cell == GRU {
		from = p.ops.Bias
	}
	n, width := p.half(), p.leaf.units[p.Cell.Gates()]
	fetched := false
	for u := at.lo; u < at.hi; u += width {
		lo := u / n * n
		if !p.await(w, lo, lo+n, s) {
			return false
		}
		p.stream(to[u:], from[u:], h, u, lo, lo+n)
		if !fetched && n < p.Units && p.ops.Mask == nil && at.hi <= lo+n {
			// The other half comes from another core, line by line: all at once, while there is other work.
			if fetched = p.ready(n-lo, 2*n-lo, s); fetched {
				p.fetch(h[n-lo:][:n])
			}
		}
	}
	if t+1 < p.Time && !p.Reverse && p.Cell == LSTM {
		for g := range p.Cell.Gates() {
			p.fetch(p.ops.X[(t+1)*p.wide+g*p.Units+at.lo:][:at.hi-at.lo])
		}
	}
	if n == p.Units {
		p.cells(w, t, before, at.lo, at.hi)
		return true
	}
	// The cells of a panel go in pieces between bursts of the next one's stream: what bounds that is the L2 cache, which a processor that looks ahead keeps busy meanwhile.
	bursts := width / pieceUnits
	for u := at.lo; u < at.hi; u += width {
		lo := n - u/n*n
		if !p.await(w, lo, lo+n, s) {
			return false
		}
		for i := range bursts {
			p.stream(to[u:], to[u:], h, u, lo+i*n/bursts, lo+(i+1)*n/bursts)
			if u > at.lo {
				last := u - width + i*pieceUnits
				p.cells(w, t, before, last, last+pieceUnits)
			}
		}
	}
	p.cells(w, t, before, at.hi-width, at.hi)
	return true
}

// cells makes units [lo, hi) of one row's state of p.sums.
func (p *Plan) cells(w *worker, t, before, lo, hi int) {
	if p.Cell < GRU {
		copy(p.ops.States[t*p.Units:][lo:hi], p.sums[lo:])
	}
	p.cell(w, 0, t, before, lo, hi, p.sums)
}

// fetch brings x into the cache.
func (p *Plan) fetch(x []float32) {
	if lines := len(x) / 16; lines > 0 {
		p.leaf.touch(&x[0], lines)
	}
}

// stream sets the sums of a panel, of units from u on, to in and the products of units [lo, hi) of the state h with the panel's weights.
func (p *Plan) stream(y, in, h []float32, u, lo, hi int) {
	gates := p.Cell.Gates()
	n := p.leaf.units[gates]
	row := gates * n
	w := p.packed[u*p.wide:][:p.Units*row][lo*row:][:(hi-lo)*row]
	checkGates(gates, p.Units, n, y, in)
	p.leaf.stream[gates](&y[0], &in[0], &h[lo:hi][0], &w[0], hi-lo, 4*p.Units, 4*p.Units)
}

// fewStep is step with weights of few bits. Every thread brings the whole state to 8 bits for itself: that is less than waiting for one who did it for all.
func (p *Plan) fewStep(w *worker, at *part, s, t, before int) bool {
	if !p.await(w, 0, p.Units, s) {
		return false
	}
	for r := range p.Batch {
		h := p.last(p.ops.States, p.ops.H0, r, before)
		if p.ops.Mask != nil {
			masked := w.h[p.local[r]:][:p.Units]
			p.mul(masked, h, p.ops.Mask[r*p.Units:][:p.Units])
			h = masked
		}
		w.few.Take(r, h)
	}
	gates, cols := p.Cell.Gates(), p.few.Columns()
	panels := wgemm.Panels{Every: p.Units / cols, Count: gates, Step: p.Units, AddStep: p.Units}
	width := cols
	if gates == 1 { // neighbours in their place
		panels = wgemm.Panels{Every: 1, Count: blockUnits / cols, Step: cols, AddStep: cols}
		width = blockUnits
	}
	for u := at.lo; u < at.hi; u += width {
		panels.First = u / cols
		for r := range p.Batch {
			var sums []float32
			add := p.ops.X[p.seq(r, t, p.wide):]
			switch {
			case p.Cell == GRU:
				sums, add = w.q[p.localWide[r]:], p.ops.Bias
			case p.Cell < GRU:
				sums = p.ops.States[p.seq(r, t, p.Units):]
			case p.ops.Gate != nil:
				sums = p.ops.Gate[p.seq(r, t, p.wide):]
			default:
				sums = w.q[p.localWide[r]:]
			}
			w.few.Row(sums[u:], add[u:], r, p.ops.W, p.ops.Scale, panels)
			p.cell(w, r, t, before, u, u+width, sums[:p.wide])
		}
	}
	return true
}

// tileStep is step for few rows.
func (p *Plan) tileStep(w *worker, at *part, s, t, before int) bool {
	a, aOff := p.ops.H0, p.state[:p.Batch]
	if before >= 0 {
		a, aOff = p.ops.States[before*p.Units:], p.sequence[:p.Batch]
	}
	if !p.await(w, 0, p.Units, s) {
		return false
	}
	if p.ops.Mask != nil {
		for r := range p.Batch {
			p.mul(w.h[p.local[r]:][:p.Units], a[aOff[r]:][:p.Units], p.ops.Mask[r*p.Units:][:p.Units])
		}
		a, aOff = w.h, p.local[:p.Batch]
	}
	c, cOff, in, bias := p.sumsOf(w, 0, t, p.Batch)
	for g := range p.Cell.Gates() {
		for j := g*p.Units + at.lo; j < g*p.Units+at.hi; j += p.panels.Width() {
			p.panel(w, j/p.panels.Width(), a, aOff, p.Units, c, cOff, in, bias)
		}
	}
	for r := range p.Batch {
		p.cell(w, r, t, before, at.lo, at.hi, c[cOff[r]:])
	}
	return true
}
