package recur

import "github.com/jouleml/joule/internal/par"

// Run sets o.States, and of LSTM and GRU o.Cells and o.Gate, from the rest of o. Results must not overlap operands.
func (p *Plan) Run(pool *par.Pool, o Operands) {
	if p.Batch*p.Time == 0 {
		return
	}
	p.ops = o
	p.prepare(pool, false)
	switch {
	case p.shared():
		p.steps(pool)
	case p.few != nil && p.Cell != GRU1 && p.Batch <= fewRows && o.Mask == nil:
		for s := range p.Time {
			t, before := p.time(s)
			p.row(pool, t, before)
		}
	default:
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
	w := p.work[0]
	c, cOff, in, bias := p.sumsOf(w, 0, t, p.Batch)
	p.fewProduct(pool, w, a, aOff, c, cOff, in, bias)
	for b := range p.Batch {
		p.cell(w, b, t, before, 0, p.Units, c[cOff[b]:])
	}
}

// sumsOf is where the sums of n rows from lo on go at time t, and what the product is added to.
func (p *Plan) sumsOf(w *worker, lo, t, n int) (c []float32, cOff []int, in, bias []float32) {
	x := p.ops.X[p.seq(lo, t, p.wide):]
	switch {
	case p.Cell == GRU:
		return w.q, p.localWide[:n], nil, p.ops.Bias
	case p.Cell < GRU:
		return p.ops.States[p.seq(lo, t, p.Units):], p.sequence[:n], x, nil
	case p.ops.Gate == nil:
		for r := range n {
			copy(w.q[p.localWide[r]:][:p.wide], x[p.wideSeq[r]:])
		}
		return w.q, p.localWide[:n], w.q, nil
	}
	return p.ops.Gate[p.seq(lo, t, p.wide):], p.wideSeq[:n], x, nil
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
		c, cOff, in, bias := p.sumsOf(w, lo, t, n)
		p.product(w, a, aOff, p.Units, c, cOff, in, bias)
		if p.Cell == GRU1 {
			for r := range n {
				p.resetFirst(lo+r, t, a[aOff[r]:][:p.Units], c[cOff[r]:][:p.wide])
			}
			operands, sums, x := p.ops.Cells[p.seq(lo, t, p.Units):], c[2*p.Units:], in[2*p.Units:]
			if p.few != nil {
				p.fewTimes(nil, w, w.few3, p.ops.W3, p.ops.Scale3, operands, p.sequence[:n], sums, cOff, x, nil)
			} else {
				p.times(&p.third, w, operands, p.sequence[:n], p.Units, sums, cOff, x, nil)
			}
		}
		for r := range n {
			p.cell(w, lo+r, t, before, 0, p.Units, c[cOff[r]:])
		}
	}
}

// resetFirst makes the first two gates of a GRU1, in the place of their sums, and of the state h of row b, which may be masked, the operand of the third product.
func (p *Plan) resetFirst(b, t int, h, sums []float32) {
	u := p.Units
	z, reset, operand := sums[:u], sums[u:2*u], p.ops.Cells[p.seq(b, t, u):][:u]
	if p.ended(b, t) {
		clear(operand)
		return
	}
	p.sigmoid(z, z)
	p.sigmoid(reset, reset)
	p.mul(operand, reset, h)
}

// cell makes units [lo, hi) of row b's state at time t of the row's sums, all gates of them, which a plain cell has in the state's place.
func (p *Plan) cell(w *worker, b, t, before, lo, hi int, sums []float32) {
	u, n := p.Units, hi-lo
	h, last := p.ops.States[p.seq(b, t, u):][lo:hi], p.last(p.ops.States, p.ops.H0, b, before)[lo:hi]
	var cells, gate []float32
	if p.Cell >= GRU {
		cells = p.ops.Cells[p.seq(b, t, u):][lo:hi]
		if gate = sums; p.ops.Gate != nil {
			gate = p.ops.Gate[p.seq(b, t, p.wide):][:p.wide]
		}
	}
	if p.ended(b, t) {
		copy(h, last)
		if clear(cells); p.Cell == LSTM {
			copy(cells, p.last(p.ops.Cells, p.ops.C0, b, before)[lo:hi])
		}
		if p.ops.Gate != nil && p.Cell >= GRU {
			for g := range p.Cell.Gates() {
				clear(gate[g*u:][lo:hi])
			}
		}
		return
	}
	part := func(x []float32, gate int) []float32 { return x[gate*u+lo : gate*u+hi] }
	tmp := w.a[:n]
	switch p.Cell {
	case Tanh:
		p.tanh(h, h)
	case ReLU:
		p.relu(h, h)
	case LSTM:
		before := p.last(p.ops.Cells, p.ops.C0, b, before)[lo:hi]
		if p.leaf != nil {
			checkGates(4, u, n, gate[lo:], sums[lo:])
			p.leaf.lstm(&h[0], &cells[0], &gate[lo], &sums[lo], &before[0], n, 4*u, 4*u)
			return
		}
		in, forget, cell, out := part(gate, 0), part(gate, 1), part(gate, 2), part(gate, 3)
		p.sigmoid(in, part(sums, 0))
		p.sigmoid(forget, part(sums, 1))
		p.tanh(cell, part(sums, 2))
		p.sigmoid(out, part(sums, 3))
		p.mul(tmp, in, cell)
		p.mulAdd(cells, forget, before, tmp)
		p.tanh(tmp, cells)
		p.mul(h, out, tmp)
	case GRU1:
		z, fresh := part(gate, 0), part(gate, 2)
		p.tanh(fresh, part(sums, 2))
		p.sub(tmp, last, fresh)
		p.mulAdd(h, z, tmp, fresh)
	case GRU:
		x := p.ops.X[p.seq(b, t, p.wide):][:p.wide]
		if p.leaf != nil {
			checkGates(3, u, n, gate[lo:], sums[lo:], x[lo:])
			p.leaf.gru(&h[0], &cells[0], &gate[lo], &x[lo], &sums[lo], &last[0], n, 4*u, 4*u)
			return
		}
		z, reset, fresh := part(gate, 0), part(gate, 1), part(gate, 2)
		copy(cells, part(sums, 2))
		p.add(z, part(x, 0), part(sums, 0))
		p.sigmoid(z, z)
		p.add(reset, part(x, 1), part(sums, 1))
		p.sigmoid(reset, reset)
		p.mulAdd(fresh, reset, part(sums, 2), part(x, 2))
		p.tanh(fresh, fresh)
		p.sub(tmp, last, fresh)
		p.mulAdd(h, z, tmp, fresh)
	}
}
