package reduce

import (
	"math"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// Arg is a plan for the position, along the middle axis of [Outer, Reduce, Inner], of the greatest or least element: the first of equals, the
// first NaN if there is one.
type Arg struct {
	outer, n, inner int
	least           bool
	row             rowFunc
	per, tiles      int
	dst             []int32
	src             []float32
}

// argTile is how many columns are searched side by side.
const argTile = 128

// NewArg plans the search for the greatest element, or the least. It panics on negative sizes, on an empty axis (of which no element is the
// greatest) and on one too long for int32.
func NewArg(outer, n, inner int, least bool) *Arg {
	if outer < 0 || n < 1 || n > math.MaxInt32 || inner < 0 {
		panic("reduce: bad size for arg-max")
	}
	op := Max
	if least {
		op = Min
	}
	p := &Arg{outer: outer, n: n, inner: inner, least: least, row: table[isa.Current()].row[op]}
	p.per = max(1, chunkLen/n)
	p.tiles = ceil(inner, argTile)
	return p
}

// Run sets dst [Outer, Inner] from src [Outer, Reduce, Inner]. It panics if a slice is too short.
func (p *Arg) Run(pool *par.Pool, dst []int32, src []float32) {
	if len(dst) < p.outer*p.inner || len(src) < p.outer*p.n*p.inner {
		panic("reduce: slice shorter than the plan says")
	}
	p.dst, p.src = dst, src
	if p.inner == 1 {
		pool.Run(ceil(p.outer, p.per), (*argRows)(p))
	} else {
		pool.Run(p.outer*p.tiles, (*argCols)(p))
	}
	p.dst, p.src = nil, nil
}

type argRows Arg

func (p *argRows) Chunk(i, _ int) {
	for o := i * p.per; o < min((i+1)*p.per, p.outer); o++ {
		x := p.src[o*p.n : (o+1)*p.n]
		best := p.row(x) // the value, with vector instructions; then where it stands
		for j, v := range x {
			if v == best || v != v {
				p.dst[o] = int32(j)
				break
			}
		}
	}
}

type argCols Arg

func (p *argCols) Chunk(i, _ int) {
	o, left := i/p.tiles, i%p.tiles*argTile
	dst := p.dst[o*p.inner:][left:min(left+argTile, p.inner)]
	clear(dst)
	var best [argTile]float32
	first := p.src[o*p.n*p.inner+left:]
	copy(best[:len(dst)], first)
	for k := 1; k < p.n; k++ {
		row := first[k*p.inner:][:len(dst)]
		for j, v := range row {
			b := best[j]
			if (!p.least && v > b || p.least && v < b || v != v) && b == b {
				best[j], dst[j] = v, int32(k)
			}
		}
	}
}

// CumSum is a plan for running sums along the middle axis of [Outer, N, Inner]: y[i] = Σ x[k] over k ≤ i; exclusive means k < i, reverse k ≥ i
// (k > i). Sums are kept in float64.
type CumSum struct {
	outer, n, inner    int
	exclusive, reverse bool
	per, tiles         int
	dst, src           []float32
}

// NewCumSum plans. It panics on negative sizes.
func NewCumSum(outer, n, inner int, exclusive, reverse bool) *CumSum {
	if outer < 0 || n < 0 || inner < 0 {
		panic("reduce: negative size")
	}
	tile := max(1, min(inner, argTile))
	return &CumSum{outer: outer, n: n, inner: inner, exclusive: exclusive, reverse: reverse, tiles: ceil(inner, argTile), per: max(1, chunkLen/max(1, n*tile))}
}

// Run sets dst, which may be src, both [Outer, N, Inner]. It panics if a slice is too short.
func (p *CumSum) Run(pool *par.Pool, dst, src []float32) {
	if len(dst) < p.outer*p.n*p.inner || len(src) < p.outer*p.n*p.inner {
		panic("reduce: slice shorter than the plan says")
	}
	p.dst, p.src = dst, src
	pool.Run(ceil(p.outer*p.tiles, p.per), p)
	p.dst, p.src = nil, nil
}

// Chunk sums some tiles of columns; it is for package par.
func (p *CumSum) Chunk(i, _ int) {
	for u := i * p.per; u < min((i+1)*p.per, p.outer*p.tiles); u++ {
		o, left := u/p.tiles, u%p.tiles*argTile
		width := min(argTile, p.inner-left)
		var acc [argTile]float64
		for k := range p.n {
			if p.reverse {
				k = p.n - 1 - k
			}
			at := (o*p.n+k)*p.inner + left
			x, y := p.src[at:at+width], p.dst[at:at+width]
			for j, v := range x {
				s := acc[j] + float64(v)
				if p.exclusive {
					y[j] = float32(acc[j])
				} else {
					y[j] = float32(s)
				}
				acc[j] = s
			}
		}
	}
}

// SquareSum is a plan for the sum of the squares of all elements of a list of arrays, whose root is the global norm that gradients are
// clipped by. It is added up in float64, block by block, in order.
type SquareSum struct {
	lens    []int
	pieces  []squarePiece
	partial []float64
	row     rowFunc
	arrays  [][]float32
}

type squarePiece struct{ array, from, to int }

// NewSquareSum plans for arrays of the given lengths. It panics on a negative one.
func NewSquareSum(lens []int) *SquareSum {
	p := &SquareSum{lens: append([]int(nil), lens...), row: current().row[SumSquares]}
	for i, n := range lens {
		if n < 0 {
			panic("reduce: negative size")
		}
		for from := 0; from < n; from += chunkLen {
			p.pieces = append(p.pieces, squarePiece{i, from, min(from+chunkLen, n)})
		}
	}
	p.partial = make([]float64, len(p.pieces))
	return p
}

// Run is Σ x² over all arrays. It panics if they are not as planned.
func (p *SquareSum) Run(pool *par.Pool, arrays [][]float32) float64 {
	if len(arrays) != len(p.lens) {
		panic("reduce: not the planned number of arrays")
	}
	for i, a := range arrays {
		if len(a) != p.lens[i] {
			panic("reduce: array is not of the planned length")
		}
	}
	p.arrays = arrays
	pool.Run(len(p.pieces), p)
	p.arrays = nil
	var s float64
	for _, x := range p.partial {
		s += x
	}
	return s
}

// Chunk sums one piece; it is for package par.
func (p *SquareSum) Chunk(i, _ int) {
	k := p.pieces[i]
	var s float64
	for a := p.arrays[k.array][k.from:k.to]; len(a) > 0; {
		n := min(len(a), blockLen)
		s += float64(p.row(a[:n]))
		a = a[n:]
	}
	p.partial[i] = s
}

// Dot is a plan for the products of rows: dst[r] = Σ a[r,i]·b[r,i], of arrays [Rows, N].
type Dot struct {
	rows, n, per int
	l            *leaves
	dst, a, b    []float32
}

// NewDot plans for [rows, n]. It panics on negative sizes.
func NewDot(rows, n int) *Dot {
	if rows < 0 || n < 0 {
		panic("reduce: negative size")
	}
	return &Dot{rows: rows, n: n, per: max(1, chunkLen/max(1, n)), l: current()}
}

// Run sets dst [Rows] from a and b [Rows, N]. It panics if a slice is too short.
func (p *Dot) Run(pool *par.Pool, dst, a, b []float32) {
	if len(dst) < p.rows || len(a) < p.rows*p.n || len(b) < p.rows*p.n {
		panic("reduce: slice shorter than the plan says")
	}
	p.dst, p.a, p.b = dst, a, b
	pool.Run(ceil(p.rows, p.per), p)
	p.dst, p.a, p.b = nil, nil, nil
}

// Chunk does some rows; it is for package par.
func (p *Dot) Chunk(i, _ int) {
	for r := i * p.per; r < min((i+1)*p.per, p.rows); r++ {
		p.dst[r] = p.l.dot(p.a[r*p.n:(r+1)*p.n], p.b[r*p.n:(r+1)*p.n])
	}
}
