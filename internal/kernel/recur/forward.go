package recur

import "github.com/jouleml/joule/internal/par"

// Run sets o.States, and of LSTM and GRU o.Cells and o.Gate, from the rest of o. Results must not overlap operands.
func (p *Plan) Run(pool *par.Pool, o Operands) {
	if p.Batch*p.Time == 0 {
		return
	}
	p.ops = o
	p.prepare(pool, false)
	pool.Run(p.chunks(), (*forward)(p))
	p.ops = Operands{}
}

type forward Plan

// Chunk takes some rows through all steps.
func (f *forward) Chunk(i, id int) {
	p, w := (*Plan)(f), f.work[id]
	lo, n := p.chunk(i)
	for s := range p.Time {
		t, before := p.time(s)
		// The states before, where they lie or multiplied with the mask.
		a, aOff := p.ops.H0[lo*p.Units:], p.state[:n]
		if before >= 0 {
			a, aOff = p.ops.States[p.seq(lo, before, p.Units):], p.sequence[:n]
		}
		if p.ops.Mask != nil {
			for r := range n {
				p.mul(w.h[p.local[r]:][:p.Units], p.last(p.ops.States, p.ops.H0, lo+r, before), p.ops.Mask[(lo+r)*p.Units:][:p.Units])
			}
			a, aOff = w.h, p.local[:n]
		}
		x := p.ops.X[p.seq(lo, t, p.wide):]
		switch p.Cell {
		case LSTM:
			p.product(w, a, aOff, p.Units, p.ops.Gate[p.seq(lo, t, p.wide):], p.wideSeq[:n], x, nil)
		case GRU:
			p.product(w, a, aOff, p.Units, w.q, p.localWide[:n], nil, p.ops.Bias)
		default:
			p.product(w, a, aOff, p.Units, p.ops.States[p.seq(lo, t, p.Units):], p.sequence[:n], x, nil)
		}
		for r := range n {
			p.cell(w, lo+r, r, t, before)
		}
	}
}

// cell makes row b's state at time t of the product.
func (p *Plan) cell(w *worker, b, r, t, before int) {
	u := p.Units
	h, last := p.ops.States[p.seq(b, t, u):][:u], p.last(p.ops.States, p.ops.H0, b, before)
	if p.ended(b, t) {
		copy(h, last)
		if p.Cell >= GRU {
			cells := p.ops.Cells[p.seq(b, t, u):][:u]
			if clear(cells); p.Cell == LSTM {
				copy(cells, p.last(p.ops.Cells, p.ops.C0, b, before))
			}
			clear(p.ops.Gate[p.seq(b, t, p.wide):][:p.wide])
		}
		return
	}
	switch p.Cell {
	case Tanh:
		p.tanh(h, h)
	case ReLU:
		p.relu(h, h)
	case LSTM:
		g := p.ops.Gate[p.seq(b, t, p.wide):][:p.wide]
		in, forget, cell, out := g[:u], g[u:2*u], g[2*u:3*u], g[3*u:]
		p.sigmoid(g[:2*u], g[:2*u])
		p.tanh(cell, cell)
		p.sigmoid(out, out)
		c := p.ops.Cells[p.seq(b, t, u):][:u]
		p.mul(w.a, in, cell)
		p.mulAdd(c, forget, p.last(p.ops.Cells, p.ops.C0, b, before), w.a)
		p.tanh(w.a, c)
		p.mul(h, out, w.a)
	case GRU:
		x, g, q := p.ops.X[p.seq(b, t, p.wide):][:p.wide], p.ops.Gate[p.seq(b, t, p.wide):][:p.wide], w.q[p.localWide[r]:][:p.wide]
		p.add(g[:2*u], x[:2*u], q[:2*u])
		p.sigmoid(g[:2*u], g[:2*u])
		z, reset, n := g[:u], g[u:2*u], g[2*u:]
		copy(p.ops.Cells[p.seq(b, t, u):][:u], q[2*u:])
		p.mulAdd(n, reset, q[2*u:], x[2*u:])
		p.tanh(n, n)
		p.sub(w.a, last, n)
		p.mulAdd(h, z, w.a, n)
	}
}
