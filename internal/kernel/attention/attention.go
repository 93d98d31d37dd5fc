// Package attention computes scaled dot-product attention and its gradient in blocks, so that memory is linear in the length of the sequences.
//
// Terminology: queries are [Batch, Queries, Heads, Dim], keys and values [Batch, Keys, Groups, Dim]; Heads/Groups heads share a group's keys. A
// score is a query times a key, scaled and biased; a query's softmax runs over the keys it sees. A block is at most queryBlock queries by some keys:
// the only scores that are in memory at a time, one block for each thread.
//
// Forward is the online softmax of Milakov and Gimelshein (arXiv:1805.02867) in the order of FlashAttention-2 (Dao, arXiv:2307.08691); backward
// computes probabilities again from the logarithm of the softmax's sum. A chunk of work owns what it writes (forward: some queries of a group's heads;
// backward: a group of an example) and visits blocks in order, so results are the same bits for any number of threads.
//
// The products are gemm.Tile on queries, keys and values where they lie; keys (and for the gradient values) are packed, transposed, once for each
// block of them. Where there is AMX and enough to do they run on its matrix unit: see tiles.go.
//
//go:generate go run -C ../vec/_asm ./attention -pkg attention -out ../../attention/attention_amd64.s -stubs ../../attention/stubs_amd64.go
package attention

import (
	"fmt"
	"math"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/kernel/reduce"
	"github.com/jouleml/joule/internal/par"
)

// Spec says what a Plan computes. Queries stand at the end of the keys: query t at Keys-Queries+t; if Cached, at lengths[b]-Queries+t. If Ring too, keys lie in a ring: that of position p in
// place p mod Keys.
type Spec struct {
	Batch, Queries, Keys, Heads, Groups, Dim int

	Scale  float64 // of the scores
	Causal bool    // a query sees keys up to its own position
	Window int     // if > 0, only keys nearer than Window to its position
	Slopes []float32
	// Slopes, if not nil, has one for each head: slope·(key's position - query's position) is added to a score.
	Cached, Ring         bool // see above
	MaskBatch, MaskHeads bool // the mask is [Batch or 1, Heads or 1, Queries, Keys]: whether each of the first two is the whole
}

const (
	queryBlock   = 48               // queries of a block: whole tiles of six
	forwardKeys  = 512              // keys of a block, forward
	backwardKeys = 256              // and backward, where two blocks are in use
	chunkQueries = 240              // queries of a chunk of the forward pass: how often packed keys are used
	rowGap       = 16               // floats between rows of a block, against rows that lie in the same sets of a cache
	notYet       = -math.MaxFloat32 // the greatest score of a query before its first key
)

var hidden = float32(math.Inf(-1)) // the score of a key that a query does not see

// Plan is a Spec with its tables and scratch memory. One Run or Backward at a time.
type Plan struct {
	Spec
	level              isa.Level
	rows               reduce.Rows
	qOff, kOff, sF, sB []int // offsets of rows: of queries, of keys, of a forward and a backward block; columns of a backward block are sCol
	sCol               []int

	tilesForward, tilesBackward bool // the pass runs on the matrix unit
	work                        []*worker

	q, k, v, y, lse, delta, dy, dq, dk, dv []float32
	lengths                                []int32
	mask                                   []byte
}

// worker is the scratch memory of one thread.
type worker struct {
	tile       gemm.Tile
	seg        [1]gemm.Seg
	k, v       []float32 // packed keys (scaled) and values of a block, transposed
	near       []float32 // backward: rows of queries, of dy and of keys of a block behind each other; see gathers
	s, d       []float32 // a block of scores or probabilities, and of their gradients
	top, total []float32 // [heads of a group, chunkQueries]: the greatest score and the sum so far
	ramp       []float32 // 0, 1, 2, …
	tiles      *tiles    // on AMX
	seen       []bool    // [heads of a group, blocks of queries]: forward, whether a block's results hold something; backward, its gradients
}

// New plans. It panics if s contradicts itself: shapes have been checked before.
func New(s Spec) *Plan {
	s.check()
	return build(s, isa.AMX() && s.forTiles(false), isa.AMX() && s.forTiles(true))
}

func (s Spec) check() {
	if s.Ring && (!s.Cached || !s.Causal || s.Window < 1 || s.Window+s.Queries-1 > s.Keys) {
		panic(fmt.Sprintf("attention: bad ring %+v", s))
	}
	if s.Batch < 0 || s.Queries < 0 || s.Keys < 0 || s.Heads < 1 || s.Groups < 1 || s.Heads%s.Groups != 0 || s.Dim < 1 || s.Slopes != nil && len(s.Slopes) != s.Heads {
		panic(fmt.Sprintf("attention: bad spec %+v", s))
	}
}

func build(s Spec, tilesForward, tilesBackward bool) *Plan {
	p := &Plan{Spec: s, level: isa.Current(), tilesForward: tilesForward, tilesBackward: tilesBackward, rows: reduce.CurrentRows()}
	p.qOff, p.sF, p.sB = multiples(queryBlock, s.Heads*s.Dim), multiples(queryBlock, forwardKeys+rowGap), multiples(queryBlock, backwardKeys+rowGap)
	p.kOff, p.sCol = multiples(backwardKeys, s.Groups*s.Dim), multiples(backwardKeys, 1)
	return p
}

func multiples(n, step int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i * step
	}
	return out
}

// ScratchBytes is about what a thread's worker holds.
func (p *Plan) ScratchBytes(backward bool) int {
	if backward && p.tilesBackward || !backward && p.tilesForward {
		return 4 * p.tileWords(backward)
	}
	n := queryBlock*(forwardKeys+rowGap) + p.Dim*forwardKeys
	if backward {
		n = 2*queryBlock*(backwardKeys+rowGap) + 2*p.Dim*backwardKeys
		if p.gathers() {
			n += (2*queryBlock + backwardKeys) * p.Dim
		}
	}
	return 4 * n
}

func (p *Plan) newWorker(backward bool) *worker {
	w := &worker{ramp: make([]float32, forwardKeys)}
	for i := range w.ramp {
		w.ramp[i] = float32(i)
	}
	w.tile.Segs, w.tile.Act = w.seg[:], gemm.None
	w.seen = make([]bool, p.Heads/p.Groups*p.blocksOf(p.Queries))
	if backward && p.tilesBackward {
		w.tiles = p.newTiles(true)
		return w
	}
	if backward {
		w.k, w.v = make([]float32, gemm.NewPanels(p.Dim, backwardKeys).Len()), make([]float32, gemm.NewPanels(p.Dim, backwardKeys).Len())
		if p.gathers() {
			w.near = make([]float32, (2*queryBlock+backwardKeys)*p.Dim)
		}
		w.s, w.d = make([]float32, queryBlock*(backwardKeys+rowGap)), make([]float32, queryBlock*(backwardKeys+rowGap))
		return w
	}
	if p.tilesForward {
		w.tiles = p.newTiles(false)
		n := p.Heads / p.Groups * p.tileChunk()
		w.top, w.total = make([]float32, n), make([]float32, n)
		return w
	}
	w.k = make([]float32, gemm.NewPanels(p.Dim, forwardKeys).Len())
	w.s = make([]float32, queryBlock*(forwardKeys+rowGap))
	n := p.Heads / p.Groups * min(chunkQueries, p.Queries)
	w.top, w.total = make([]float32, n), make([]float32, n)
	return w
}

func (p *Plan) prepare(pool *par.Pool, backward bool, lengths []int32, mask []byte, queries, keys [][]float32, rows ...[]float32) {
	if isa.Current() != p.level {
		panic("attention: the plan was made for another instruction set")
	}
	for _, x := range queries {
		if len(x) < p.Batch*p.Queries*p.Heads*p.Dim {
			panic("attention: queries or what is like them too short")
		}
	}
	for _, x := range keys {
		if len(x) < p.Batch*p.Keys*p.Groups*p.Dim {
			panic("attention: keys, values or what is like them too short")
		}
	}
	for _, x := range rows {
		if len(x) < p.Batch*p.Queries*p.Heads {
			panic("attention: logarithms or δ too short")
		}
	}
	if lengths != nil && len(lengths) < p.Batch || p.Cached && lengths == nil {
		panic("attention: lengths too short")
	}
	if n := p.maskAt(p.Batch-1, p.Heads-1) + p.Queries*p.Keys; mask != nil && p.Batch > 0 && len(mask) < n {
		panic("attention: mask too short")
	}
	p.lengths, p.mask = lengths, mask
	for len(p.work) < pool.Threads() {
		p.work = append(p.work, p.newWorker(backward))
	}
}

// blocksOf is the number of blocks of n queries, blocks that of a chunk of the forward pass.
func (p *Plan) blocksOf(n int) int { return (n + queryBlock - 1) / queryBlock }

func (p *Plan) blocks() int { return p.blocksOf(min(chunkQueries, p.Queries)) }

func (p *Plan) maskAt(b, h int) int {
	heads := 1
	if p.MaskHeads {
		heads = p.Heads
	} else {
		h = 0
	}
	if !p.MaskBatch {
		b = 0
	}
	return (b*heads + h) * p.Queries * p.Keys
}

// position is where query t of example b stands.
func (p *Plan) position(b, t int) int {
	if p.Cached {
		return int(p.lengths[b]) - p.Queries + t
	}
	return p.Keys - p.Queries + t
}

// span is the keys [lo, hi) that query t of example b sees, the mask aside. Both grow with t.
func (p *Plan) span(b, t int) (lo, hi int) {
	hi = p.Keys
	switch {
	case p.Ring:
		hi = max(0, int(p.lengths[b]))
	case p.lengths != nil:
		hi = min(hi, max(0, int(p.lengths[b])))
	}
	pos := p.position(b, t)
	if p.Causal {
		hi = min(hi, pos+1)
	}
	if p.Window > 0 {
		lo, hi = max(0, pos-p.Window+1), min(hi, pos+p.Window)
	}
	return lo, max(lo, hi)
}

// block is how many of the keys from position k to hi, at most so many, lie side by side, and in which place the first of them.
func (p *Plan) block(k, hi, most int) (place, n int) {
	n = min(most, hi-k)
	if !p.Ring {
		return k, n
	}
	place = k % p.Keys
	return place, min(n, p.Keys-place)
}

// at is where the first element of position t, head h of n, of example b lies in [Batch, length, n, Dim].
func (p *Plan) at(b, length, t, n, h int) int { return ((b*length+t)*n + h) * p.Dim }

// scores sets the first n columns of s to the products of rows queries from t on and the keys that w.k holds.
func (p *Plan) scores(w *worker, s []float32, sOff []int, x, packed []float32, keys gemm.Panels, xAt, rows, n int) {
	t := &w.tile
	w.seg[0] = gemm.Seg{Len: p.Dim}
	t.A, t.AOff, t.AStride = x[xAt:], p.qOff[:rows], 1
	t.COff, t.In, t.Bias, t.Columns = sOff[:rows], nil, nil, false
	for i := range keys.Count() {
		off, ldb, j, cols := keys.Panel(i)
		if j >= n {
			return
		}
		t.B, t.LDB, t.Cols, t.C = packed[off:], ldb, min(cols, n-j), s[j:]
		t.Run()
	}
}

// addProduct adds A·B to C, Dim columns: A's rows are at aOff with aStride between its depth columns (neighbours, if that is not 1), B's rows ldb apart. The first done rows of C hold something;
// the others do not yet.
func (p *Plan) addProduct(w *worker, a []float32, aOff []int, aStride, depth int, b []float32, ldb int, c []float32, cOff []int, done int) {
	if done < len(aOff) && done > 0 {
		p.addProduct(w, a, aOff[done:], aStride, depth, b, ldb, c, cOff[done:], 0)
		aOff, cOff = aOff[:done], cOff[:done]
	}
	t := &w.tile
	w.seg[0] = gemm.Seg{Len: depth}
	t.A, t.AOff, t.AStride, t.Columns = a, aOff, aStride, aStride != 1
	t.COff, t.Bias, t.LDB = cOff, nil, ldb
	for j := 0; j < p.Dim; j += gemm.NR() {
		t.Cols = min(gemm.NR(), p.Dim-j)
		t.B, t.C, t.In = b[j:], c[j:], nil
		if done > 0 {
			t.In = t.C
		}
		t.Run()
	}
}

// pack packs keys (or values) k0 to k0+n of group g of example b, transposed.
func (p *Plan) pack(dst, x []float32, b, g, k0, n int) gemm.Panels {
	panels := gemm.NewPanels(p.Dim, n)
	panels.Pack(dst, x[p.at(b, p.Keys, k0, p.Groups, g):], p.Groups*p.Dim, true)
	return panels
}

// gathers reports whether the gradient copies rows of a block behind each other: a few kB apart, as the heads of one position lie, they crowd into a few sets of the first cache. From some
// hundred queries on that is worth a twentieth of the time.
func (p *Plan) gathers() bool { return p.Queries > backwardKeys }

// gather copies n rows of Dim, row apart, behind each other, if it is worth it, and says where they are and how far apart.
func (p *Plan) gather(dst, x []float32, row, n int) ([]float32, int) {
	if !p.gathers() {
		return x, row
	}
	for i := range n {
		copy(dst[i*p.Dim:][:p.Dim], x[i*row:])
	}
	return dst, p.Dim
}

// bias adds what belongs to the scores s of query t and the keys from k on, mask and ALiBi; it says whether no key is left.
func (p *Plan) bias(w *worker, s []float32, b, h, t, k int) (empty bool) {
	if p.Slopes != nil {
		slope := p.Slopes[h]
		first := slope * float32(k-p.position(b, t))
		for i := range s {
			s[i] += slope*w.ramp[i] + first
		}
	}
	if p.mask == nil {
		return false
	}
	empty = true
	for i, m := range p.mask[p.maskAt(b, h)+t*p.Keys+k:][:len(s)] {
		if m == 0 {
			s[i] = hidden
		} else {
			empty = false
		}
	}
	return empty
}
