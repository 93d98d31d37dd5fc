package attention

import (
	"math"

	"github.com/jouleml/joule/internal/kernel/tgemm"
)

// On CPUs with AMX the products run on its matrix unit, each float32 as three bf16 (package tgemm). What a block of queries and one of keys have to do with each other is as without it; operands
// are split into parts once for each block: keys and values for all queries of a chunk (backward: of the group), scores as they come.
//
// Rows are filled up with zeros to whole pairs of tiles: queries and keys of a block to multiples of 32, Dim to wide.

const (
	tileQueries = 64   // queries of a block
	tileKeys    = 512  // keys of a block, forward
	tileBack    = 384  // and backward
	tileRows    = 1024 // rows of the group's heads in a chunk of the forward pass

	fewestChunks = 16
)

// tiles is the scratch memory of one thread on AMX.
type tiles struct {
	near           []float32 // rows of an operand behind each other, [rows, wide]
	turn           [tgemm.BlockRows * tgemm.BlockRows]float32
	q, k, v        []uint32 // parts: of queries (rows), keys (columns: a product with queries), values (forward: rows; backward: columns, as keys)
	qT, dy, dyT    []uint32 // backward: of queries (columns), and of dy in both ways
	kRows          []uint32 // backward: of keys (rows)
	p, ds          []uint32 // of a block of weights or of gradients of scores, in rows
	pT, dsT        []uint32 // backward: the same in columns
	factor         [tgemm.BlockRows]float32
	lse, delta     []float32 // backward: of a block of queries
	acc            []float32 // forward: sums of a chunk's queries, [heads, tileChunk, wide]; backward: of dq of a block, [tileQueries, wide]
	dk, dv         []float32 // backward: gradients of a block of keys, turned: [wide, tileBack+rowGap]
	scores, dScore []float32
}

// What it costs, in nanoseconds of a Xeon of the Sapphire Rapids kind: a pair of a query and a key for the function and for each element of a product, and an element of an operand. The first of two
// is the forward pass, with two products, the second the backward pass, with five.
var (
	tilePair, tileProduct, tileElement       = [2]float64{0.77, 1.3}, [2]float64{2.0 / 149, 5.0 / 114}, [2]float64{0.7, 0.55}
	vectorPair, vectorProduct, vectorElement = [2]float64{0.51, 1.11}, [2]float64{2.0 / 60, 5.0 / 69}, [2]float64{0.6, 1.2}
)

// forTiles reports whether tiles are expected to be faster than vectors for one pass.
func (s Spec) forTiles(backward bool) bool {
	if s.Queries == 0 || s.Keys == 0 || !(s.Scale > 0) { // the greatest score is looked for before it is scaled
		return false
	}
	p, pass := &Plan{Spec: s}, 0
	heads, wide, dim := float64(s.Heads/s.Groups), float64(p.wide()), float64(s.Dim)
	queries, keys := heads*float64(s.Queries), float64(s.Keys)
	elements := queries + 2*keys*float64((s.Queries+p.tileChunk()-1)/p.tileChunk())
	if backward {
		pass = 1
		elements = queries*4*math.Ceil(keys/tileBack) + 3*keys
	}
	tiles := heads*float64(s.visited(tileQueries, tgemm.Pair))*(tilePair[pass]+tileProduct[pass]*wide) + tileElement[pass]*elements*wide
	vectors := heads*float64(s.visited(queryBlock, 1))*(vectorPair[pass]+vectorProduct[pass]*dim) + vectorElement[pass]*(queries+keys)*dim
	return tiles < 0.95*vectors
}

// visited is how many pairs of a query and a key of one head are computed in blocks of queries, both sides filled up to multiples of fill: as if every key were there and no mask.
func (s Spec) visited(block, fill int) (pairs int64) {
	s.Cached, s.Ring = false, false
	p := &Plan{Spec: s}
	for q := 0; q < s.Queries; q += block {
		rows := min(block, s.Queries-q)
		from, _ := p.span(0, q)
		_, to := p.span(0, q+rows-1)
		pairs += int64(roundUp(rows, fill)) * int64(roundUp(max(0, to-from), fill))
	}
	return pairs
}

// Executed is the arithmetic that a pass runs on the matrix unit, as if every key were there and no mask: that of bf16, and with it that of the function, counted as op does; 0 if it runs on vectors.
func (p *Plan) Executed(backward bool) (all, bf16 int64) {
	products, onTiles := int64(2), p.tilesForward
	if backward {
		products, onTiles = 5, p.tilesBackward
	}
	if !onTiles {
		return 0, 0
	}
	pairs := int64(p.Batch) * int64(p.Heads) * p.visited(tileQueries, tgemm.Pair)
	bf16 = pairs * products * 6 * 2 * int64(p.wide())
	return bf16 + 5*pairs, bf16
}

// wide is Dim filled up to whole tiles.
func (p *Plan) wide() int { return roundUp(p.Dim, tgemm.StepK) }

// tileChunk is the queries of a chunk of the forward pass on AMX: whole blocks, with all heads of a group some tileRows rows, or fewer so that there are some chunks for threads to share.
func (p *Plan) tileChunk() int {
	rows := min(tileRows/(p.Heads/p.Groups), max(2*tileQueries, p.Queries*p.Batch*p.Groups/fewestChunks))
	return min(roundUp(p.Queries, tileQueries), max(1, rows/tileQueries)*tileQueries)
}

func roundUp(n, m int) int { return (n + m - 1) / m * m }

// partWords is the words of n rows, or columns, by depth indices.
func partWords(n, depth int) int { return n / tgemm.BlockRows * tgemm.BlockWords(depth) }

// newTiles makes the memory of a thread.
func (p *Plan) newTiles(backward bool) *tiles {
	t := new(tiles)
	p.layTiles(t, backward, func(n int) []float32 { return make([]float32, n) }, func(n int) []uint32 { return make([]uint32, n) })
	return t
}

// tileWords is how much memory a thread needs, in elements of four bytes.
func (p *Plan) tileWords(backward bool) (sum int) {
	p.layTiles(new(tiles), backward, func(n int) []float32 { sum += n; return nil }, func(n int) []uint32 { sum += n; return nil })
	return sum
}

func (p *Plan) layTiles(t *tiles, backward bool, floats func(int) []float32, words func(int) []uint32) {
	wide := p.wide()
	if !backward {
		keys, rows := p.forwardLD()-rowGap, p.Heads/p.Groups*p.tileChunk()
		t.near, t.acc = floats(max(tileQueries, keys)*wide), floats(rows*wide)
		t.q, t.k, t.v = words(partWords(rows, wide)), words(partWords(keys, wide)), words(partWords(wide, keys))
		t.p, t.scores = words(partWords(tileQueries, keys)), floats(tileQueries*p.forwardLD())
		return
	}
	keys := p.backLD() - rowGap
	t.near, t.acc = floats(max(tileQueries, keys)*wide), floats(tileQueries*wide)
	t.q, t.dy = words(partWords(tileQueries, wide)), words(partWords(tileQueries, wide))
	t.qT, t.dyT = words(partWords(wide, tileQueries)), words(partWords(wide, tileQueries))
	t.k, t.v, t.kRows = words(partWords(keys, wide)), words(partWords(keys, wide)), words(partWords(wide, keys))
	t.ds, t.pT, t.dsT = words(partWords(tileQueries, keys)), words(partWords(keys, tileQueries)), words(partWords(keys, tileQueries))
	t.scores, t.dScore = floats(tileQueries*p.backLD()), floats(tileQueries*p.backLD())
	t.dk, t.dv = floats(wide*p.backLD()), floats(wide*p.backLD())
	t.lse, t.delta = floats(tileQueries), floats(tileQueries)
}

// forwardLD and backLD are the distances of rows of a block of scores (and of a block of keys' gradients, turned).
func (p *Plan) forwardLD() int { return min(tileKeys, roundUp(p.Keys, tgemm.Pair)) + rowGap }
func (p *Plan) backLD() int    { return min(tileBack, roundUp(p.Keys, tgemm.Pair)) + rowGap }

// nearby copies n rows of Dim, row apart, behind each other, times scale, and fills them up with zeros to whole pairs of tiles. It returns how many rows that are.
func (p *Plan) nearby(dst, src []float32, row, n int, scale float32) (rows int) {
	wide := p.wide()
	rows = roundUp(n, tgemm.Pair)
	for i := range n {
		to := dst[i*wide:][:wide]
		copy(to[:p.Dim], src[i*row:])
		clear(to[p.Dim:])
	}
	if scale != 1 {
		p.rows.MulAdd(dst[:n*wide], dst[:n*wide], scale, 0)
	}
	clear(dst[n*wide : rows*wide])
	return rows
}

// asTheyLie is how many of n rows need no filling up: whole pairs of tiles.
func (p *Plan) asTheyLie(n int) int {
	if p.Dim%tgemm.StepK != 0 {
		return 0
	}
	return n - n%tgemm.Pair
}

// The parts of n rows of Dim elements, row apart, in the four ways that products want them. Rows that need no filling up are split where they lie.

// splitRows is for products that sum over the elements and have a row for each of the rows.
func (p *Plan) splitRows(m *tiles, dst []uint32, src []float32, row, n int) {
	whole := p.asTheyLie(n)
	rowParts(dst, src, row, whole, p.wide())
	if whole < n {
		p.nearby(m.near, src[whole*row:], row, n-whole, 1)
		rowParts(dst[partWords(whole, p.wide()):], m.near, p.wide(), n-whole, p.wide())
	}
}

// rowParts splits rows of depth elements, ld apart.
func rowParts(dst []uint32, src []float32, ld, rows, depth int) {
	for i := 0; i < rows; i += tgemm.BlockRows {
		tgemm.SplitRows(dst[partWords(i, depth):], src[i*ld:], ld, tgemm.BlockRows, depth/tgemm.StepK)
	}
}

// splitColumns is for products that sum over the elements and have a column for each of the rows.
func (p *Plan) splitColumns(m *tiles, dst []uint32, src []float32, row, n int) {
	whole, wide := p.asTheyLie(n), p.wide()
	for i := 0; i < n; i += tgemm.BlockRows {
		if i == whole {
			p.nearby(m.near, src[i*row:], row, n-i, 1)
			src, row = m.near, wide
		}
		at := i
		if i >= whole {
			at -= whole
		}
		tgemm.SplitAcross(&m.turn, dst[partWords(i, wide):], src[at*row:], row, tgemm.BlockRows, tgemm.StepK, wide/tgemm.StepK)
	}
}

// splitOver is for products that sum over the rows and have a column for each of their elements.
func (p *Plan) splitOver(m *tiles, dst []uint32, src []float32, row, n int) {
	whole, block := p.asTheyLie(n), tgemm.BlockWords(n)
	if whole > 0 {
		tgemm.SplitColumns(dst, src, row, block, whole/tgemm.StepK, p.Dim)
	}
	if whole < n {
		rest := p.nearby(m.near, src[whole*row:], row, n-whole, 1)
		tgemm.SplitColumns(dst[whole/tgemm.StepK*tgemm.StepWords:], m.near, p.wide(), block, rest/tgemm.StepK, p.wide())
	}
}

// splitTurned is for products that sum over the rows and have a row for each of their elements.
func (p *Plan) splitTurned(m *tiles, dst []uint32, src []float32, row, n int) {
	whole, wide, block := p.asTheyLie(n), p.wide(), tgemm.BlockWords(n)
	for i := 0; i < wide && whole > 0; i += tgemm.BlockRows {
		tgemm.SplitAcross(&m.turn, dst[i/tgemm.BlockRows*block:], src[i:], row, tgemm.BlockRows*row, tgemm.StepK*row, whole/tgemm.StepK)
	}
	if whole == n {
		return
	}
	rest := p.nearby(m.near, src[whole*row:], row, n-whole, 1)
	for i := 0; i < wide; i += tgemm.BlockRows {
		tgemm.SplitAcross(&m.turn, dst[i/tgemm.BlockRows*block+whole/tgemm.StepK*tgemm.StepWords:], m.near[i:], wide, tgemm.BlockRows*wide, tgemm.StepK*wide, rest/tgemm.StepK)
	}
}

// hide biases the scores of rows queries of head h from q0 on and n keys from position k0 on, and sets those of keys that a query does not see, also of those that fill up the last pair of tiles.
func (p *Plan) hide(w *worker, s []float32, ld, b, h, q0, rows, k0, n int) {
	full := roundUp(n, tgemm.Pair)
	_, hi := p.span(b, q0)
	if lo, _ := p.span(b, q0+rows-1); n == full && lo <= k0 && hi >= k0+n && p.Slopes == nil && p.mask == nil {
		return // all see all
	}
	for x := range rows {
		lo, hi := p.span(b, q0+x)
		lo, hi = min(max(lo-k0, 0), n), min(max(hi-k0, 0), n)
		row := s[x*ld:][:full]
		if p.Slopes != nil {
			p.rows.MulAdd(row, row, float32(p.Scale), 0)
		}
		if lo < hi {
			p.bias(w, row[lo:hi], b, h, q0+x, k0+lo)
		} else {
			lo, hi = 0, 0
		}
		fill(row[:lo], hidden)
		fill(row[hi:], hidden)
	}
}

// tileScale is what hide leaves of Scale.
func (p *Plan) tileScale() float32 {
	if p.Slopes != nil {
		return 1
	}
	return float32(p.Scale)
}

func fill(x []float32, v float32) {
	for i := range x {
		x[i] = v
	}
}

// product sets rows by cols of c to the sums it holds, if add, and the products of a and b, depth indices deep.
func product(c []float32, ld int, add bool, a []uint32, aBlock int, b []uint32, bBlock, rows, cols, depth int) {
	for j := 0; j < cols; j += tgemm.Pair {
		var in []float32
		if add {
			in = c[j:]
		}
		tgemm.Multiply(c[j:], ld, in, ld, a, aBlock, b[j/tgemm.BlockRows*bBlock:], bBlock, depth/tgemm.StepK, rows/tgemm.Pair)
	}
}
