package recur

import "github.com/jouleml/joule/internal/par"

// Backward sets g.DX, g.DH0, of a GRU g.DQ and of an LSTM g.DC0, from what Run read and gave (X and Bias aside) and the gradients of states and cells.
func (p *Plan) Backward(pool *par.Pool, o Operands, g Gradients) {
	p.ops, p.grads = o, g
	if p.Batch*p.Time > 0 {
		p.prepare(pool, true)
		pool.Run(p.chunks(), (*backward)(p))
	} else {
		clear(g.DH0)
		clear(g.DC0)
	}
	p.ops, p.grads = Operands{}, Gradients{}
}

type backward Plan

// Chunk takes some rows back through all steps. w.dh and w.dc are the gradients of state and cell after the step at hand, w.h what comes through the product.
func (f *backward) Chunk(i, id int) {
	p, w := (*Plan)(f), f.work[id]
	lo, n := p.chunk(i)
	u := p.Units
	clear(w.dh)
	clear(w.dc)
	for s := p.Time - 1; s >= 0; s-- {
		t, before := p.time(s)
		for r := range n {
			b := lo + r
			if p.grads.DCells != nil {
				dc := w.dc[p.local[r]:][:u]
				p.add(dc, dc, p.grads.DCells[p.seq(b, t, u):][:u])
			}
			if p.leaf != nil && (p.Cell == GRU || p.Cell == LSTM) && !p.ended(b, t) {
				p.leafBack(w, b, r, t, before)
				continue
			}
			dh := w.dh[p.local[r]:][:u]
			p.add(dh, dh, p.grads.DStates[p.seq(b, t, u):][:u])
			p.cellBack(w, b, r, t, before)
		}
		dq := p.grads.DX
		if p.Cell == GRU {
			dq = p.grads.DQ
		}
		dq = dq[p.seq(lo, t, p.wide):]
		if p.Cell == GRU1 {
			p.times(&p.third, w, dq[2*u:], p.wideSeq[:n], u, w.h, p.local[:n], nil, nil)
			for r := range n {
				p.resetFirstBack(w, lo+r, r, t, before)
			}
			p.times(&p.weights, w, dq, p.wideSeq[:n], 2*u, w.h, p.local[:n], w.h, nil)
		} else {
			p.product(w, dq, p.wideSeq[:n], p.wide, w.h, p.local[:n], nil, nil)
		}
		for r := range n {
			dh, through := w.dh[p.local[r]:][:u], w.h[p.local[r]:][:u]
			switch {
			case p.ended(lo+r, t): // the state was the one before: so is its gradient
				continue
			case p.ops.Mask != nil:
				p.mulAdd(dh, through, p.ops.Mask[(lo+r)*u:][:u], dh)
			default:
				p.add(dh, dh, through)
			}
		}
	}
	for r := range n {
		copy(p.grads.DH0[(lo+r)*u:][:u], w.dh[p.local[r]:])
		if p.Cell == LSTM {
			copy(p.grads.DC0[(lo+r)*u:][:u], w.dc[p.local[r]:])
		}
	}
}

// cellBack makes row b's gradients of x and of the product at time t, and leaves in w.dh what of the state's gradient passes by the product, in w.dc the gradient of
// the cell before.
func (p *Plan) cellBack(w *worker, b, r, t, before int) {
	u := p.Units
	dh, dx := w.dh[p.local[r]:][:u], p.grads.DX[p.seq(b, t, p.wide):][:p.wide]
	if p.ended(b, t) {
		clear(dx)
		if p.Cell == GRU {
			clear(p.grads.DQ[p.seq(b, t, p.wide):][:p.wide])
		}
		return
	}
	switch p.Cell {
	case Tanh:
		h := p.ops.States[p.seq(b, t, u):][:u]
		p.bend(w.a, h)
		p.mul(dx, dh, w.a)
		clear(dh)
	case ReLU:
		p.reluGrad(dx, dh, p.ops.States[p.seq(b, t, u):][:u])
		clear(dh)
	case LSTM:
		g, dc := p.ops.Gate[p.seq(b, t, p.wide):][:p.wide], w.dc[p.local[r]:][:u]
		in, forget, cell, out := g[:u], g[u:2*u], g[2*u:3*u], g[3*u:]
		p.tanh(w.a, p.ops.Cells[p.seq(b, t, u):][:u])
		p.mul(w.b, dh, w.a) // of the gate out
		p.slope(w.c, out)
		p.mul(dx[3*u:], w.b, w.c)
		p.bend(w.c, w.a)
		p.mul(w.b, dh, out)
		p.mulAdd(dc, w.b, w.c, dc)
		p.slope(w.c, in)
		p.mul(w.b, dc, cell)
		p.mul(dx[:u], w.b, w.c)
		p.slope(w.c, forget)
		p.mul(w.b, dc, p.last(p.ops.Cells, p.ops.C0, b, before))
		p.mul(dx[u:2*u], w.b, w.c)
		p.bend(w.c, cell)
		p.mul(w.b, dc, in)
		p.mul(dx[2*u:3*u], w.b, w.c)
		p.mul(dc, dc, forget)
		clear(dh)
	case GRU1: // the reset gate follows once the third product's gradient is there
		g := p.ops.Gate[p.seq(b, t, p.wide):][:p.wide]
		z, fresh := g[:u], g[2*u:]
		p.sub(w.a, p.last(p.ops.States, p.ops.H0, b, before), fresh)
		p.mul(w.a, w.a, dh)
		p.slope(w.c, z)
		p.mul(dx[:u], w.a, w.c)
		p.mul(w.b, dh, z) // passes by
		p.sub(w.a, dh, w.b)
		copy(dh, w.b)
		p.bend(w.c, fresh)
		p.mul(dx[2*u:], w.a, w.c)
	case GRU:
		g, q, dq := p.ops.Gate[p.seq(b, t, p.wide):][:p.wide], p.ops.Cells[p.seq(b, t, u):][:u], p.grads.DQ[p.seq(b, t, p.wide):][:p.wide]
		z, reset, n := g[:u], g[u:2*u], g[2*u:]
		p.sub(w.a, p.last(p.ops.States, p.ops.H0, b, before), n)
		p.mul(w.a, w.a, dh)
		p.slope(w.c, z)
		p.mul(dx[:u], w.a, w.c) // dz
		p.mul(w.b, dh, z)       // passes by
		p.sub(w.a, dh, w.b)     // dh·(1-z)
		copy(dh, w.b)
		p.bend(w.c, n)
		p.mul(dx[2*u:], w.a, w.c) // dn
		p.mul(w.a, dx[2*u:], q)
		p.slope(w.c, reset)
		p.mul(dx[u:2*u], w.a, w.c) // dr
		copy(dq[:2*u], dx[:2*u])
		p.mul(dq[2*u:], dx[2*u:], reset)
	}
}

// resetFirstBack makes row b's gradient of a GRU1's reset gate, from that of the third product's operand, r·h, in w.h, which becomes what passes to h this way.
func (p *Plan) resetFirstBack(w *worker, b, r, t, before int) {
	u := p.Units
	if p.ended(b, t) {
		return
	}
	reset, d := p.ops.Gate[p.seq(b, t, p.wide)+u:][:u], w.h[p.local[r]:][:u]
	p.slope(w.c, reset)
	p.mul(w.b, d, w.c)
	p.mul(w.b, w.b, p.last(p.ops.States, p.ops.H0, b, before))
	if p.ops.Mask != nil {
		p.mul(w.b, w.b, p.ops.Mask[b*u:][:u])
	}
	copy(p.grads.DX[p.seq(b, t, p.wide)+u:][:u], w.b)
	p.mul(d, d, reset)
}

// leafBack is cellBack, and the addition of the state's own gradient before it, in one pass.
func (p *Plan) leafBack(w *worker, b, r, t, before int) {
	u := p.Units
	dx, gate := p.grads.DX[p.seq(b, t, p.wide):][:p.wide], p.ops.Gate[p.seq(b, t, p.wide):][:p.wide]
	dh, ds, cells := w.dh[p.local[r]:][:u], p.grads.DStates[p.seq(b, t, u):][:u], p.ops.Cells[p.seq(b, t, u):][:u]
	if p.Cell == LSTM {
		dc, last := w.dc[p.local[r]:][:u], p.last(p.ops.Cells, p.ops.C0, b, before)
		p.leaf.lstmBack(&dx[0], &dh[0], &dc[0], &ds[0], &gate[0], &cells[0], &last[0], u, 4*u)
		return
	}
	dq, last := p.grads.DQ[p.seq(b, t, p.wide):][:p.wide], p.last(p.ops.States, p.ops.H0, b, before)
	p.leaf.gruBack(&dx[0], &dq[0], &dh[0], &ds[0], &gate[0], &cells[0], &last[0], u, 4*u)
}

// slope is y·(1-y), the derivative of σ where its value is y.
func (p *Plan) slope(dst, y []float32) {
	p.affine(dst, y, -1, 1)
	p.mul(dst, dst, y)
}

// bend is 1-y², the derivative of tanh where its value is y.
func (p *Plan) bend(dst, y []float32) {
	p.mul(dst, y, y)
	p.affine(dst, dst, -1, 1)
}
