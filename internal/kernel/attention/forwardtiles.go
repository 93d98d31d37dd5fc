package attention

import (
	"math"

	"github.com/jouleml/joule/internal/kernel/tgemm"
)

type forwardTiles Plan

// Chunk computes tileChunk queries of the heads of a group.
func (f *forwardTiles) Chunk(i, id int) {
	p, w := (*Plan)(f), f.work[id]
	m, wide, chunk := w.tiles, p.wide(), p.tileChunk()
	across := p.across()
	t0 := i % across * chunk
	t1 := min(t0+chunk, p.Queries)
	i /= across
	b, g := i/p.Groups, i%p.Groups
	heads := p.Heads / p.Groups
	for r := range heads {
		for q0 := t0; q0 < t1; q0 += tileQueries {
			n := min(tileQueries, t1-q0)
			p.splitRows(m, m.q[partWords(r*chunk+q0-t0, wide):], p.q[p.at(b, p.Queries, q0, p.Heads, g*heads+r):], p.Heads*p.Dim, n)
		}
		for t := range t1 - t0 {
			w.top[r*chunk+t], w.total[r*chunk+t] = notYet, 0
		}
	}
	clear(w.seen)
	lo, _ := p.span(b, t0)
	_, hi := p.span(b, t1-1)
	for k0, n := lo, 0; k0 < hi; k0 += n {
		var place int
		place, n = p.block(k0, hi, tileKeys)
		at, row := p.at(b, p.Keys, place, p.Groups, g), p.Groups*p.Dim
		p.splitColumns(m, m.k, p.k[at:], row, n)
		p.splitOver(m, m.v, p.v[at:], row, n)
		vBlock := tgemm.BlockWords(n)
		for r := range heads {
			for q0 := t0; q0 < t1; q0 += tileQueries {
				rows := min(tileQueries, t1-q0)
				from, _ := p.span(b, q0)
				_, to := p.span(b, q0+rows-1)
				cols := min(n, to-k0)
				if cols <= 0 || from >= k0+n {
					continue
				}
				at := r*chunk + q0 - t0
				seen := &w.seen[at/tileQueries]
				p.visit(w, b, g*heads+r, q0, rows, k0, cols, max(0, from-k0), at, vBlock, *seen)
				*seen = true
			}
		}
	}
	for r := range heads {
		for t := t0; t < t1; t++ {
			h, at := g*heads+r, r*chunk+t-t0
			lse, y := &p.lse[(b*p.Queries+t)*p.Heads+h], p.y[p.at(b, p.Queries, t, p.Heads, h):][:p.Dim]
			if w.top[at] == notYet {
				*lse = 0
				clear(y)
				continue
			}
			*lse = w.top[at] + float32(math.Log(float64(w.total[at])))
			p.rows.MulAdd(y, m.acc[at*wide:][:p.Dim], 1/w.total[at], 0)
		}
	}
}

// visit folds the keys [first, cols) of the block from k0 on into rows queries of head h from q0 on, whose place among the chunk's rows is at.
func (p *Plan) visit(w *worker, b, h, q0, rows, k0, cols, first, at, vBlock int, seen bool) {
	m, wide := w.tiles, p.wide()
	block, ld := tgemm.BlockWords(wide), p.forwardLD()
	first -= first % tgemm.Pair
	n := cols - first
	full, whole := roundUp(n, tgemm.Pair), roundUp(rows, tgemm.Pair)
	product(m.scores, ld, false, m.q[partWords(at, wide):], block, m.k[partWords(first, wide):], block, whole, full, wide)
	p.hide(w, m.scores, ld, b, h, q0, rows, k0+first, n)
	for x := 0; x < whole; x += tgemm.BlockRows {
		y, factor := at+x, m.factor[:tgemm.BlockRows]
		foldRows(m.p[partWords(x, full):], m.scores[x*ld:], ld, full/tgemm.StepK, w.top[y:], w.total[y:], factor, p.tileScale())
		for i, c := range factor {
			if seen && c != 1 {
				acc := m.acc[(y+i)*wide:][:wide]
				p.rows.MulAdd(acc, acc, c, 0)
			}
		}
	}
	product(m.acc[at*wide:], wide, seen, m.p, tgemm.BlockWords(full), m.v[first/tgemm.StepK*tgemm.StepWords:], vBlock, whole, wide, full)
}
