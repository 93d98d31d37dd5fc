// Package move holds the kernels that move elements without computing: permutation, slice, padding, concatenation, broadcast,
// reversal, gather, and scatter-add, which is gather's gradient.
//
// Terminology: an element is Elem bytes, 1, 2, 4 or 8; memory is given as bytes, aligned to the element, since nothing here looks at values
// (scatter-add apart). Strides and offsets count elements. A plan is made once for given shapes and run many times; it allocates when it is made and never
// when it runs, and must not run twice at the same time. Work is cut into chunks by shape alone. The source and the destination must not overlap.
//
// Nearly everything is one kernel, the strided copy: dst[d0 + Σ i_k·ds_k] = src[s0 + Σ i_k·ss_k] over all i. Its plan drops and joins axes,
// then picks the first of: runs of elements that are contiguous on both sides (copied whole), a tiled transposition where each
// side is contiguous along another axis, and a plain loop along the destination.
//
//go:generate go run -C ../vec/_asm ./move -pkg move -out ../../move/move_amd64.s -stubs ../../move/stubs_amd64.go
package move

import (
	"slices"
	"unsafe"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

const (
	chunkBytes = 64 << 10 // about what a chunk of work moves
	maxAxes    = 16       // of a copy, after joining
	tile       = 32       // a transposition goes by tiles of tile×tile elements, which stay in the L1 cache
)

// Strided describes a strided copy.
type Strided struct {
	Elem                       int   // bytes
	Dims, DstStride, SrcStride []int // of one length; source strides may be 0 or negative
	DstStart, SrcStart         int
}

type axis struct{ n, ds, ss int }

// Copy is a plan of a strided copy.
type Copy struct {
	elem           int
	d0, s0         int
	dstLen, srcLen int // elements that the slices must have
	outer          []axis
	in             axis // the innermost axis
	cross          axis // transposition: the other axis, along which the source is contiguous
	kind           kind
	units, per     int // pieces of work, and how many make a chunk
	split          int // pieces that the innermost axis is cut into, or tiles of one transposition
	crossTiles     int
	leaves         *leaves

	dst, src []byte
}

type kind uint8

const (
	nothing kind = iota
	runs
	transposition
	loop
)

// NewCopy plans. It panics on an element size other than 1, 2, 4 or 8, on fields of different lengths, on negative dimensions or offsets, and on
// more than 16 axes that do not join.
func NewCopy(s Strided) *Copy {
	if s.Elem != 1 && s.Elem != 2 && s.Elem != 4 && s.Elem != 8 {
		panic("move: element size is not 1, 2, 4 or 8")
	}
	if len(s.DstStride) != len(s.Dims) || len(s.SrcStride) != len(s.Dims) {
		panic("move: a stride is needed for every axis")
	}
	c := &Copy{elem: s.Elem, d0: s.DstStart, s0: s.SrcStart, leaves: table[isa.Current()]}
	var axes []axis
	for i, n := range s.Dims {
		if n < 0 {
			panic("move: negative dimension")
		}
		if n == 0 {
			return c
		}
		if n > 1 {
			axes = append(axes, axis{n, s.DstStride[i], s.SrcStride[i]})
		}
	}
	c.bounds(axes)
	// Walk the destination in order of memory; join axes that follow one another on both sides.
	slices.SortStableFunc(axes, func(a, b axis) int { return abs(b.ds) - abs(a.ds) })
	joined := axes[:0]
	for _, a := range axes {
		if k := len(joined) - 1; k >= 0 && joined[k].ds == a.n*a.ds && joined[k].ss == a.n*a.ss {
			joined[k] = axis{joined[k].n * a.n, a.ds, a.ss}
		} else {
			joined = append(joined, a)
		}
	}
	if len(joined) == 0 {
		joined = append(joined, axis{1, 1, 1})
	}
	if len(joined) > maxAxes {
		panic("move: too many axes")
	}
	last := len(joined) - 1
	c.outer, c.in = slices.Clone(joined[:last]), joined[last]
	c.choose()
	return c
}

// bounds finds how long the slices must be.
func (c *Copy) bounds(axes []axis) {
	dLo, dHi, sLo, sHi := c.d0, c.d0, c.s0, c.s0
	for _, a := range axes {
		dLo, dHi = dLo+min(0, (a.n-1)*a.ds), dHi+max(0, (a.n-1)*a.ds)
		sLo, sHi = sLo+min(0, (a.n-1)*a.ss), sHi+max(0, (a.n-1)*a.ss)
	}
	if dLo < 0 || sLo < 0 {
		panic("move: copy reaches below the start of a slice")
	}
	c.dstLen, c.srcLen = dHi+1, sHi+1
}

func abs(x int) int { return max(x, -x) }

// choose picks the kernel and cuts the work.
func (c *Copy) choose() {
	count := 1
	for _, a := range c.outer {
		count *= a.n
	}
	inner := c.in.n
	c.kind, c.split = loop, 1
	switch {
	case c.in.ds == 1 && c.in.ss == 1:
		c.kind = runs
	case c.in.ds == 1 && c.in.n >= 4:
		if i := slices.IndexFunc(c.outer, func(a axis) bool { return a.ss == 1 && a.n >= 4 && a.ds > 0 && c.in.ss >= 0 }); i >= 0 {
			c.kind, c.cross = transposition, c.outer[i]
			c.outer = slices.Delete(c.outer, i, i+1)
			count /= c.cross.n
			c.crossTiles = ceil(c.cross.n, tile)
			c.split = c.crossTiles * ceil(c.in.n, tile)
			inner = min(c.cross.n, tile) * min(c.in.n, tile)
		}
	}
	if c.kind != transposition {
		c.split = ceil(c.in.n*c.elem, chunkBytes)
		inner = ceil(c.in.n, c.split)
	}
	c.units = count * c.split
	c.per = max(1, chunkBytes/(inner*c.elem))
}

func ceil(a, b int) int { return (a + b - 1) / b }

// Run copies. It panics if a slice is too short.
func (c *Copy) Run(pool *par.Pool, dst, src []byte) {
	if c.kind == nothing {
		return
	}
	if len(dst) < c.dstLen*c.elem || len(src) < c.srcLen*c.elem {
		panic("move: slice shorter than the plan says")
	}
	c.dst, c.src = dst, src
	pool.Run(ceil(c.units, c.per), c)
	c.dst, c.src = nil, nil
}

// Chunk does some of the units; it is for package par.
func (c *Copy) Chunk(i, _ int) {
	from, to := i*c.per, min((i+1)*c.per, c.units)
	switch c.elem {
	case 1:
		walk(c, c.dst, c.src, from, to)
	case 2:
		walk(c, view[uint16](c.dst), view[uint16](c.src), from, to)
	case 4:
		walk(c, view[uint32](c.dst), view[uint32](c.src), from, to)
	case 8:
		walk(c, view[uint64](c.dst), view[uint64](c.src), from, to)
	}
}

type word interface {
	uint8 | uint16 | uint32 | uint64
}

// view is the same memory as elements of T.
func view[T word](b []byte) []T {
	var z T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(z)))
}

// walk goes through units [from, to): for each, the coordinates of the outer axes are known, and one piece of the inner ones is done.
func walk[T word](c *Copy, dst, src []T, from, to int) {
	var at [maxAxes]int
	d, s := c.d0, c.s0
	rest := from / c.split
	for k := len(c.outer) - 1; k >= 0; k-- {
		a := c.outer[k]
		at[k] = rest % a.n
		rest /= a.n
		d += at[k] * a.ds
		s += at[k] * a.ss
	}
	piece := from % c.split
	for range to - from {
		switch c.kind {
		case runs:
			lo, hi := piece*c.in.n/c.split, (piece+1)*c.in.n/c.split
			copy(dst[d+lo:d+hi], src[s+lo:s+hi])
		case loop:
			lo, hi := piece*c.in.n/c.split, (piece+1)*c.in.n/c.split
			strided(dst, src, d+lo*c.in.ds, s+lo*c.in.ss, hi-lo, c.in.ds, c.in.ss)
		case transposition:
			i, j := piece%c.crossTiles*tile, piece/c.crossTiles*tile
			transpose(c, dst[d+i*c.cross.ds+j:], src[s+i+j*c.in.ss:], min(tile, c.in.n-j), min(tile, c.cross.n-i))
		}
		if piece++; piece < c.split {
			continue
		}
		piece = 0
		for k := len(c.outer) - 1; k >= 0; k-- {
			a := c.outer[k]
			at[k]++
			d, s = d+a.ds, s+a.ss
			if at[k] < a.n {
				break
			}
			d, s = d-a.n*a.ds, s-a.n*a.ss
			at[k] = 0
		}
	}
}

func strided[T word](dst, src []T, d, s, n, ds, ss int) {
	if ds == 1 {
		dst := dst[d : d+n]
		if ss == 0 {
			x := src[s]
			for i := range dst {
				dst[i] = x
			}
			return
		}
		for i := range dst {
			dst[i] = src[s]
			s += ss
		}
		return
	}
	for range n {
		dst[d] = src[s]
		d, s = d+ds, s+ss
	}
}

// transpose does a tile: row i of the source, of cols contiguous elements, becomes column i of the destination.
func transpose[T word](c *Copy, dst, src []T, rows, cols int) {
	ds, ss := c.cross.ds, c.in.ss
	doneRows, doneCols := 0, 0
	if d, ok := any(dst).([]uint32); ok {
		doneRows, doneCols = c.leaves.transpose4(d, any(src).([]uint32), ds, ss, rows, cols)
	}
	for j := range cols {
		first := 0
		if j < doneCols {
			first = doneRows
		}
		for i := first; i < rows; i++ {
			dst[j*ds+i] = src[i*ss+j]
		}
	}
}
