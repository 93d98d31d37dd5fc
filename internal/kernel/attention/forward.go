package attention

import (
	"math"

	"github.com/jouleml/joule/internal/par"
)

// Run sets y, laid out as q, and lse [Batch, Queries, Heads], the logarithm of the softmax's sum; both are 0 for a query that sees no key.
// lengths [Batch] and mask may be nil. Results must not overlap operands.
func (p *Plan) Run(pool *par.Pool, y, lse, q, k, v []float32, lengths []int32, mask []byte) {
	if p.Batch*p.Queries == 0 {
		return
	}
	p.prepare(pool, false, lengths, mask, [][]float32{q, y}, [][]float32{k, v}, lse)
	p.q, p.k, p.v, p.y, p.lse = q, k, v, y, lse
	if n := p.Batch * p.Groups * p.across(); p.tilesForward {
		pool.Run(n, (*forwardTiles)(p))
	} else {
		pool.Run(n, (*forward)(p))
	}
	p.q, p.k, p.v, p.y, p.lse, p.lengths, p.mask = nil, nil, nil, nil, nil, nil, nil
}

// across is the number of chunks of a group of an example.
func (p *Plan) across() int {
	n := chunkQueries
	if p.tilesForward {
		n = p.tileChunk()
	}
	return (p.Queries + n - 1) / n
}

type forward Plan

// Chunk computes chunkQueries queries of the heads of a group.
func (f *forward) Chunk(i, id int) {
	p, w := (*Plan)(f), f.work[id]
	t0 := i % p.across() * chunkQueries
	t1 := min(t0+chunkQueries, p.Queries)
	i /= p.across()
	b, g := i/p.Groups, i%p.Groups
	heads, n := p.Heads/p.Groups, t1-t0
	for r := range heads {
		for t := t0; t < t1; t++ {
			w.top[r*n+t-t0], w.total[r*n+t-t0] = notYet, 0
		}
	}
	clear(w.seen)
	lo, _ := p.span(b, t0)
	_, hi := p.span(b, t1-1)
	for k0, n0 := lo, 0; k0 < hi; k0 += n0 {
		var place int
		place, n0 = p.block(k0, hi, forwardKeys)
		keys := p.pack(w.k, p.k, b, g, place, n0)
		p.rows.MulAdd(w.k[:keys.Len()], w.k[:keys.Len()], float32(p.Scale), 0)
		for r := range heads {
			h := g*heads + r
			for q0 := t0; q0 < t1; q0 += queryBlock {
				rows := min(queryBlock, t1-q0)
				from, _ := p.span(b, q0)
				_, to := p.span(b, q0+rows-1)
				if cols := min(keys.N, to-k0); cols > 0 && from < k0+keys.N {
					p.scores(w, w.s, p.sF, p.q, w.k, keys, p.at(b, p.Queries, q0, p.Heads, h), rows, cols)
					done := 0
					if seen := &w.seen[r*p.blocks()+(q0-t0)/queryBlock]; *seen {
						done = rows
					} else {
						*seen = true
					}
					for x := range rows {
						p.fold(w, w.s[p.sF[x]:][:cols], b, h, q0+x, k0, r*n+q0-t0+x, p.y[p.at(b, p.Queries, q0+x, p.Heads, h):][:p.Dim])
					}
					p.addProduct(w, w.s, p.sF[:rows], 1, cols, p.v[p.at(b, p.Keys, place, p.Groups, g):], p.Groups*p.Dim,
						p.y[p.at(b, p.Queries, q0, p.Heads, h):], p.qOff[:rows], done)
				}
			}
		}
	}
	for r := range heads {
		for t := t0; t < t1; t++ {
			h, top, total := g*heads+r, w.top[r*n+t-t0], w.total[r*n+t-t0]
			lse := &p.lse[(b*p.Queries+t)*p.Heads+h]
			if top == notYet {
				*lse = 0
				clear(p.y[p.at(b, p.Queries, t, p.Heads, h):][:p.Dim])
				continue
			}
			*lse = top + float32(math.Log(float64(total)))
			y := p.y[p.at(b, p.Queries, t, p.Heads, h):][:p.Dim]
			p.rows.MulAdd(y, y, 1/total, 0)
		}
	}
}

// fold turns the scores s of query t and the keys from k0 on into weights relative to the greatest score so far, those of keys it does not see into 0,
// and brings what the query has gathered in y to that scale. at is the row's place in w.top and w.total.
func (p *Plan) fold(w *worker, s []float32, b, h, t, k0, at int, y []float32) {
	lo, hi := p.span(b, t)
	lo, hi = min(max(lo-k0, 0), len(s)), min(max(hi-k0, 0), len(s))
	if lo >= hi || p.bias(w, s[lo:hi], b, h, t, k0+lo) {
		clear(s)
		return
	}
	clear(s[:lo])
	clear(s[hi:])
	s = s[lo:hi]
	old := w.top[at]
	top := max(old, p.rows.Max(s))
	if top != old {
		if old != notYet {
			c := float32(math.Exp(float64(old - top)))
			w.total[at] *= c
			p.rows.MulAdd(y, y, c, 0)
		}
		w.top[at] = top
	}
	w.total[at] += p.rows.ExpSum(s, s, top)
}
