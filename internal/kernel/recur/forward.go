package recur

import "github.com/jouleml/joule/internal/par"

// Run sets o.States, and of LSTM and GRU o.Cells and o.Gate, from the rest of o. Results must not overlap operands.
func (p *Plan) Run(pool *par.Pool, o Operands) {
	if p.Batch*p.Time == 0 {
		return
	}
	p.ops = o
	p.prepare(pool, false)
	if p.few != nil && p.Batch <= fewRows && o.Mask == nil {
		for s := range p.Time {
			t, before := p.time(s)
			p.row(pool, t, before)
		}
	} else if p.shared() {
		p.steps(pool)
	} else {
		pool.Run(p.chunks(), (*forward)(p))
	}
	p.ops = Operands{}
}

// row is one step of few rows with weights of few bits: threads share the product.
func (p *Plan) row(pool *par.Pool, t, before int) {
	a, aOff := p.ops.H0, p.state[:p.Batch]
	if before >= 0 {
		a, aOff = p.ops.States[before*p.Units:], p.sequence[:p.Batch]
	}
	w, x := p.work[0], p.ops.X[t*p.wide:]
	switch p.Cell {
	case LSTM:
		p.fewProduct(pool, w, a, aOff, p.ops.Gate[t*p.wide:], p.wideSeq[:p.Batch], x, nil)
	case GRU:
		p.fewProduct(pool, w, a, aOff, w.q, p.localWide[:p.Batch], nil, p.ops.Bias)
	default:
		p.fewProduct(pool, w, a, aOff, p.ops.States[t*p.Units:], p.sequence[:p.Batch], x, nil)
	}
	for b := range p.Batch {
		p.cell(w, b, b, t, before, 0, p.Units)
	}
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
			p.cell(w, lo+r, r, t, before, 0, p.Units)
		}
	}
}

// cell makes units [lo, hi) of row b's state at time t of the product.
func (p *Plan) cell(w *worker, b, r, t, before, lo, hi int) {
	u := p.Units
	h, last := p.ops.States[p.seq(b, t, u):][lo:hi], p.last(p.ops.States, p.ops.H0, b, before)[lo:hi]
	if p.ended(b, t) {
		copy(h, last)
		if p.Cell >= GRU {
			cells := p.ops.Cells[p.seq(b, t, u):][lo:hi]
			if clear(cells); p.Cell == LSTM {
				copy(cells, p.last(p.ops.Cells, p.ops.C0, b, before)[lo:hi])
			}
			for g := range p.Cell.Gates() {
				clear(p.ops.Gate[p.seq(b, t, p.wide)+g*u:][lo:hi])
			}
		}
		return
	}
	part := func(x []float32, gate int) []float32 { return x[gate*u+lo : gate*u+hi] }
	tmp := w.a[:hi-lo]
	switch p.Cell {
	case Tanh:
		p.tanh(h, h)
	case ReLU:
		p.relu(h, h)
	case LSTM:
		g := p.ops.Gate[p.seq(b, t, p.wide):][:p.wide]
		in, forget, cell, out := part(g, 0), part(g, 1), part(g, 2), part(g, 3)
		p.sigmoid(in, in)
		p.sigmoid(forget, forget)
		p.tanh(cell, cell)
		p.sigmoid(out, out)
		c := p.ops.Cells[p.seq(b, t, u):][lo:hi]
		p.mul(tmp, in, cell)
		p.mulAdd(c, forget, p.last(p.ops.Cells, p.ops.C0, b, before)[lo:hi], tmp)
		p.tanh(tmp, c)
		p.mul(h, out, tmp)
	case GRU:
		x, g, q := p.ops.X[p.seq(b, t, p.wide):][:p.wide], p.ops.Gate[p.seq(b, t, p.wide):][:p.wide], w.q[p.localWide[r]:][:p.wide]
		z, reset, n := part(g, 0), part(g, 1), part(g, 2)
		p.add(z, part(x, 0), part(q, 0))
		p.sigmoid(z, z)
		p.add(reset, part(x, 1), part(q, 1))
		p.sigmoid(reset, reset)
		copy(p.ops.Cells[p.seq(b, t, u):][lo:hi], part(q, 2))
		p.mulAdd(n, reset, part(q, 2), part(x, 2))
		p.tanh(n, n)
		p.sub(tmp, last, n)
		p.mulAdd(h, z, tmp, n)
	}
}
