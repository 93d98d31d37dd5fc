package attention

import (
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/kernel/tgemm"
)

type backwardTiles Plan

// Chunk computes the gradients of a group of an example. Those of keys and values are summed up turned, [wide, keys], so that of weights only columns of parts are needed.
func (f *backwardTiles) Chunk(i, id int) {
	p, w := (*Plan)(f), f.work[id]
	m, wide, ld := w.tiles, p.wide(), p.backLD()
	b, g := i/p.Groups, i%p.Groups
	heads, kRow := p.Heads/p.Groups, p.Groups*p.Dim
	lo, hi := p.begin(w, b, g)
	for k0, n := lo, 0; k0 < hi; k0 += n {
		var place int
		place, n = p.block(k0, hi, tileBack)
		kAt := p.at(b, p.Keys, place, p.Groups, g)
		p.splitColumns(m, m.k, p.k[kAt:], kRow, n)
		p.splitColumns(m, m.v, p.v[kAt:], kRow, n)
		keys := p.nearby(m.near, p.k[kAt:], kRow, n, float32(p.Scale))
		kBlock := tgemm.BlockWords(keys)
		tgemm.SplitColumns(m.kRows, m.near, wide, kBlock, keys/tgemm.StepK, wide)
		clear(m.dk)
		clear(m.dv)
		for r := range heads {
			for q0 := 0; q0 < p.Queries; q0 += tileQueries {
				rows := min(tileQueries, p.Queries-q0)
				from, _ := p.span(b, q0)
				_, to := p.span(b, q0+rows-1)
				cols := min(n, to-k0)
				if cols <= 0 || from >= k0+n {
					continue
				}
				seen := &w.seen[r*p.blocksOf(p.Queries)+q0/tileQueries]
				p.visitBack(w, b, g*heads+r, q0, rows, k0, cols, max(0, from-k0), kBlock, *seen)
				*seen = true
			}
		}
		for i, x := range [][]float32{m.dk, m.dv} {
			gemm.Transpose(m.near, x, wide, ld, wide, n)
			for s := range n {
				row := m.near[s*wide:][:p.Dim]
				if i == 0 {
					p.rows.MulAdd(p.dk[kAt+s*kRow:][:p.Dim], row, float32(p.Scale), 0)
				} else {
					copy(p.dv[kAt+s*kRow:], row)
				}
			}
		}
	}
	p.end(w, b, g, tileQueries)
}

// visitBack adds what rows queries of head h from q0 on and the keys [first, cols) of the block from k0 on have to do with each other to their gradients.
func (p *Plan) visitBack(w *worker, b, h, q0, rows, k0, cols, first, kBlock int, seen bool) {
	m, wide, ld := w.tiles, p.wide(), p.backLD()
	first -= first % tgemm.Pair
	n := cols - first
	full, whole := roundUp(n, tgemm.Pair), roundUp(rows, tgemm.Pair)
	depth, down, over := tgemm.BlockWords(wide), tgemm.BlockWords(whole), tgemm.BlockWords(full)
	at, row := p.at(b, p.Queries, q0, p.Heads, h), p.Heads*p.Dim
	p.splitRows(m, m.q, p.q[at:], row, rows)
	p.splitTurned(m, m.qT, p.q[at:], row, rows)
	p.splitRows(m, m.dy, p.dy[at:], row, rows)
	p.splitTurned(m, m.dyT, p.dy[at:], row, rows)
	product(m.scores, ld, false, m.q, depth, m.k[partWords(first, wide):], depth, whole, full, wide)
	product(m.dScore, ld, false, m.dy, depth, m.v[partWords(first, wide):], depth, whole, full, wide)
	p.hide(w, m.scores, ld, b, h, q0, rows, k0+first, n)
	for x := range whole {
		if x >= rows {
			fill(m.scores[x*ld:][:full], hidden)
			m.lse[x], m.delta[x] = 0, 0
			continue
		}
		t := (b*p.Queries+q0+x)*p.Heads + h
		m.lse[x], m.delta[x] = p.lse[t], p.delta[t]
	}
	for x := 0; x < whole; x += tgemm.Pair {
		step := x / tgemm.StepK * tgemm.StepWords
		for r := range tgemm.BlockRows {
			pair := step + r*tgemm.BlockRows
			gradientRows(m.pT[pair:], m.ds[partWords(x, full)+r*tgemm.BlockRows:], m.dsT[pair:], m.scores[(x+r)*ld:], m.dScore[(x+r)*ld:], ld, over, down, full/tgemm.StepK, m.lse[x+r:], m.delta[x+r:], p.tileScale())
		}
	}
	product(m.dv[first:], ld, true, m.dyT, down, m.pT, down, wide, full, whole)
	product(m.dk[first:], ld, true, m.qT, down, m.dsT, down, wide, full, whole)
	kRows := m.kRows[first/tgemm.StepK*tgemm.StepWords:]
	if p.asTheyLie(rows) == rows {
		product(p.dq[at:], row, seen, m.ds, over, kRows, kBlock, whole, wide, full)
		return
	}
	if seen {
		p.nearby(m.acc, p.dq[at:], row, rows, 1)
	}
	product(m.acc, wide, seen, m.ds, over, kRows, kBlock, whole, wide, full)
	for x := range rows {
		copy(p.dq[at+x*row:][:p.Dim], m.acc[x*wide:])
	}
}
