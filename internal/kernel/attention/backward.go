package attention

import "github.com/jouleml/joule/internal/par"

// Backward sets dq, dk and dv, laid out as q, k and v, from the operands of Run, the lse it gave, delta [Batch, Queries, Heads] = Σ y·dy, and dy. With
// P the probabilities,
//
//	dv = Pᵀ·dy,  dS = P·(dy·vᵀ - delta),  dq = scale·dS·k,  dk = scale·dSᵀ·q.
func (p *Plan) Backward(pool *par.Pool, dq, dk, dv, q, k, v []float32, lengths []int32, mask []byte, lse, delta, dy []float32) {
	p.prepare(pool, true, lengths, mask, [][]float32{q, dy, dq}, [][]float32{k, v, dk, dv}, lse, delta)
	p.q, p.k, p.v, p.lse, p.delta, p.dy, p.dq, p.dk, p.dv = q, k, v, lse, delta, dy, dq, dk, dv
	if p.tilesBackward {
		pool.Run(p.Batch*p.Groups, (*backwardTiles)(p))
	} else {
		pool.Run(p.Batch*p.Groups, (*backward)(p))
	}
	p.q, p.k, p.v, p.lse, p.delta, p.dy, p.dq, p.dk, p.dv, p.lengths, p.mask = nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil
}

type backward Plan

// Chunk computes the gradients of a group of an example.
func (f *backward) Chunk(i, id int) {
	p, w := (*Plan)(f), f.work[id]
	b, g := i/p.Groups, i%p.Groups
	heads, scale := p.Heads/p.Groups, float32(p.Scale)
	qRow, kRow := p.Heads*p.Dim, p.Groups*p.Dim
	if p.Queries == 0 {
		p.unseen(b, g, 0, p.Keys)
		return
	}
	lo, hi := p.begin(w, b, g)
	for k0, n0 := lo, 0; k0 < hi; k0 += n0 {
		var place int
		place, n0 = p.block(k0, hi, backwardKeys)
		keys := p.pack(w.k, p.k, b, g, place, n0)
		p.rows.MulAdd(w.k[:keys.Len()], w.k[:keys.Len()], scale, 0)
		p.pack(w.v, p.v, b, g, place, keys.N)
		kAt := p.at(b, p.Keys, place, p.Groups, g)
		var nearQ, nearDY, nearK []float32
		if p.gathers() {
			nearQ, nearDY, nearK = w.near, w.near[queryBlock*p.Dim:], w.near[2*queryBlock*p.Dim:]
		}
		ks, kStep := p.gather(nearK, p.k[kAt:], kRow, keys.N)
		done := 0 // keys whose gradients hold something
		for r := range heads {
			h := g*heads + r
			for q0 := 0; q0 < p.Queries; q0 += queryBlock {
				rows := min(queryBlock, p.Queries-q0)
				from, _ := p.span(b, q0)
				_, to := p.span(b, q0+rows-1)
				cols := min(keys.N, to-k0)
				if cols <= 0 || from >= k0+keys.N {
					continue
				}
				qAt := p.at(b, p.Queries, q0, p.Heads, h)
				before := 0
				if seen := &w.seen[r*p.blocksOf(p.Queries)+q0/queryBlock]; *seen {
					before = rows
				} else {
					*seen = true
				}
				qs, qStep := p.gather(nearQ, p.q[qAt:], qRow, rows)
				dys, _ := p.gather(nearDY, p.dy[qAt:], qRow, rows)
				p.scores(w, w.s, p.sB, p.q, w.k, keys, qAt, rows, cols)
				for x := range rows {
					p.weights(w, w.s[p.sB[x]:][:cols], b, h, q0+x, k0)
				}
				p.addProduct(w, w.s, p.sCol[:cols], backwardKeys+rowGap, rows, dys, qStep, p.dv[kAt:], p.kOff[:cols], min(done, cols))
				p.scores(w, w.d, p.sB, p.dy, w.v, keys, qAt, rows, cols)
				for x := range rows {
					d := w.d[p.sB[x]:][:cols]
					p.rows.SoftmaxGrad(d, w.s[p.sB[x]:][:cols], d, p.delta[(b*p.Queries+q0+x)*p.Heads+h])
				}
				p.addProduct(w, w.d, p.sB[:rows], 1, cols, ks, kStep, p.dq[qAt:], p.qOff[:rows], before)
				p.addProduct(w, w.d, p.sCol[:cols], backwardKeys+rowGap, rows, qs, qStep, p.dk[kAt:], p.kOff[:cols], min(done, cols))
				done = max(done, cols)
			}
		}
		p.unseen(b, g, place+done, place+keys.N)
	}
	p.end(w, b, g, queryBlock)
	for s := range p.Keys {
		dk := p.dk[p.at(b, p.Keys, s, p.Groups, g):][:p.Dim]
		p.rows.MulAdd(dk, dk, scale, 0)
	}
	for t := range p.Queries {
		dq := p.dq[p.at(b, p.Queries, t, p.Heads, g*heads):][:heads*p.Dim]
		p.rows.MulAdd(dq, dq, scale, 0)
	}
}

// begin starts with the gradients of a group: it clears those of keys that nobody sees and says which the others are.
func (p *Plan) begin(w *worker, b, g int) (lo, hi int) {
	clear(w.seen)
	lo, _ = p.span(b, 0)
	_, hi = p.span(b, p.Queries-1)
	if p.Ring {
		p.unseen(b, g, 0, p.Keys)
	} else {
		p.unseen(b, g, 0, min(lo, p.Keys))
		p.unseen(b, g, hi, p.Keys)
	}
	return lo, hi
}

// unseen clears the gradients of keys in the places [lo, hi).
func (p *Plan) unseen(b, g, lo, hi int) {
	for s := lo; s < hi; s++ {
		clear(p.dk[p.at(b, p.Keys, s, p.Groups, g):][:p.Dim])
		clear(p.dv[p.at(b, p.Keys, s, p.Groups, g):][:p.Dim])
	}
}

// end clears the gradients of blocks of queries that see nothing.
func (p *Plan) end(w *worker, b, g, block int) {
	heads := p.Heads / p.Groups
	for r := range heads {
		for q0 := 0; q0 < p.Queries; q0 += block {
			for t := q0; t < min(q0+block, p.Queries) && !w.seen[r*p.blocksOf(p.Queries)+q0/block]; t++ {
				clear(p.dq[p.at(b, p.Queries, t, p.Heads, g*heads+r):][:p.Dim])
			}
		}
	}
}

// weights turns the scores s of query t and the keys from k0 on into probabilities.
func (p *Plan) weights(w *worker, s []float32, b, h, t, k0 int) {
	lo, hi := p.span(b, t)
	lo, hi = min(max(lo-k0, 0), len(s)), min(max(hi-k0, 0), len(s))
	if lo >= hi || p.bias(w, s[lo:hi], b, h, t, k0+lo) {
		clear(s)
		return
	}
	clear(s[:lo])
	clear(s[hi:])
	s = s[lo:hi]
	p.rows.ExpSum(s, s, p.lse[(b*p.Queries+t)*p.Heads+h])
}
