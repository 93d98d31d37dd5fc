// Package reduce folds axes of float32 arrays, and holds the fused kernels around such folds: softmax, cross-entropy and
// the normalisations.
//
// Terminology: an array is seen as [outer, reduce, inner], row-major; the middle axis goes away. With inner = 1 the folded elements
// are neighbours (a row reduction), else they are inner apart (a column reduction, such as the gradient of a bias). A leaf is a single-thread
// function on at most a block of elements. A plan is made once for given sizes and run many times; it allocates when it is
// made and never when it runs, and must not run twice at the same time.
//
// Order: the array is cut into blocks whose borders depend on its sizes alone. A leaf sums a block in float32 with many
// accumulators (see _asm); blocks are added up in float64, in order. So a sum of n numbers has the error of about
// blockLen/64 additions whatever n is, and is the same for any number of threads.
//
//go:generate go run -C ../vec/_asm ./reduce -pkg reduce -out ../../reduce/reduce_amd64.s -stubs ../../reduce/stubs_amd64.go
package reduce

import "github.com/jouleml/joule/internal/par"

// Op names a fold.
type Op uint8

// The folds. Those of an empty axis are 0, NaN (mean), 0, 1, -infinity and +infinity.
const (
	Sum Op = iota
	Mean
	SumSquares
	Prod
	Max // NaN if any element is
	Min // NaN if any element is
	numOps
)

func (op Op) String() string {
	return [numOps]string{"sum", "mean", "sum_squares", "prod", "max", "min"}[op]
}

const (
	// blockLen is the most elements that a leaf sums in float32.
	blockLen = 4096
	// chunkLen is about how many elements make a chunk of work for one thread: some 2 µs.
	chunkLen = 4 * blockLen
	// maxPiece is the most rows that a leaf sums in float32, into four accumulators a column.
	maxPiece = 512
	// tileCols is the most columns of a chunk.
	tileCols = 1024
	// mergeCols is how many columns are merged at a time.
	mergeCols = 128
)

// Spec describes a reduction of an array [Outer, Reduce, Inner] to [Outer, Inner].
type Spec struct {
	Op                   Op
	Outer, Reduce, Inner int
}

// Plan is a reduction with its scratch memory.
type Plan struct {
	spec Spec
	row  rowFunc
	col  colFunc

	rowsPerChunk int // Inner == 1: how many outer rows a chunk folds, if a row is one piece
	pieces       int // how many pieces the reduced axis is cut into
	pieceLen     int // of the reduced axis
	tiles        int // how many tiles the inner axis is cut into

	partial  []float64 // Inner == 1 and several pieces: [Outer, pieces]
	partials []float32 // Inner > 1 and several pieces: [Outer, pieces, Inner]

	dst, src []float32 // of the run in progress
}

// New plans a reduction. It panics on negative sizes or an unknown Op.
func New(s Spec) *Plan {
	if s.Op >= numOps || s.Outer < 0 || s.Reduce < 0 || s.Inner < 0 {
		panic("reduce: bad spec")
	}
	l := current()
	p := &Plan{spec: s, row: l.row[s.Op], col: l.col[s.Op]}
	if s.Inner == 1 {
		p.pieceLen = chunkLen
		p.pieces = max(1, ceil(s.Reduce, chunkLen))
		p.rowsPerChunk = max(1, chunkLen/max(1, s.Reduce))
		if p.pieces > 1 {
			p.partial = make([]float64, s.Outer*p.pieces)
		}
		return p
	}
	p.tiles = ceil(s.Inner, tileCols)
	p.pieceLen = min(max(32, chunkLen/max(1, min(s.Inner, tileCols))), maxPiece)
	p.pieces = max(1, ceil(s.Reduce, p.pieceLen))
	if p.pieces > 1 {
		p.partials = make([]float32, s.Outer*p.pieces*s.Inner)
	}
	return p
}

func ceil(a, b int) int { return (a + b - 1) / b }

// Run folds src [Outer, Reduce, Inner] into dst [Outer, Inner]. It panics if a slice is too short.
func (p *Plan) Run(pool *par.Pool, dst, src []float32) {
	s := p.spec
	if len(src) < s.Outer*s.Reduce*s.Inner || len(dst) < s.Outer*s.Inner {
		panic("reduce: slice shorter than the spec says")
	}
	p.dst, p.src = dst, src
	switch {
	case s.Inner == 0:
	case s.Inner == 1 && p.pieces == 1:
		pool.Run(ceil(s.Outer, p.rowsPerChunk), (*wholeRows)(p))
	case s.Inner == 1:
		pool.Run(s.Outer*p.pieces, (*rowPieces)(p))
		for o := range s.Outer {
			acc := scalar[s.Op].start
			for _, x := range p.partial[o*p.pieces : (o+1)*p.pieces] {
				acc = scalar[s.Op].merge(acc, x)
			}
			dst[o] = p.finish(acc)
		}
	default:
		pool.Run(s.Outer*p.pieces*p.tiles, (*colPieces)(p))
		if p.pieces > 1 {
			pool.Run(s.Outer*ceil(s.Inner, mergeCols), (*mergePieces)(p))
		}
	}
	p.dst, p.src = nil, nil
}

// finish turns the fold of all elements into the result.
func (p *Plan) finish(acc float64) float32 {
	if p.spec.Op == Mean {
		acc /= float64(p.spec.Reduce)
	}
	return float32(acc)
}

// foldRow folds neighbours, block by block.
func (p *Plan) foldRow(a []float32) float64 {
	acc := scalar[p.spec.Op].start
	for len(a) > 0 {
		n := min(len(a), blockLen)
		acc = scalar[p.spec.Op].merge(acc, float64(p.row(a[:n])))
		a = a[n:]
	}
	return acc
}

type wholeRows Plan

func (w *wholeRows) Chunk(i, _ int) {
	p, n := (*Plan)(w), w.spec.Reduce
	for o := i * w.rowsPerChunk; o < min((i+1)*w.rowsPerChunk, w.spec.Outer); o++ {
		w.dst[o] = p.finish(p.foldRow(w.src[o*n : (o+1)*n]))
	}
}

type rowPieces Plan

func (w *rowPieces) Chunk(i, _ int) {
	o, piece := i/w.pieces, i%w.pieces
	n := w.spec.Reduce
	row := w.src[o*n : (o+1)*n]
	w.partial[i] = (*Plan)(w).foldRow(row[piece*w.pieceLen : min((piece+1)*w.pieceLen, n)])
}

type colPieces Plan

func (w *colPieces) Chunk(i, _ int) {
	tile := i % w.tiles
	piece := i / w.tiles % w.pieces
	o := i / w.tiles / w.pieces
	s := w.spec
	from, to := piece*w.pieceLen, min((piece+1)*w.pieceLen, s.Reduce)
	left, right := tile*tileCols, min((tile+1)*tileCols, s.Inner)
	src := w.src[(o*s.Reduce+from)*s.Inner:]
	if from < to {
		src = src[left:] // an empty axis has no columns to skip
	}
	if w.pieces > 1 {
		w.col(w.partials[(o*w.pieces+piece)*s.Inner:][left:right], src, to-from, s.Inner)
		return
	}
	dst := w.dst[o*s.Inner:][left:right]
	w.col(dst, src, to-from, s.Inner)
	if s.Op == Mean {
		for j, x := range dst {
			dst[j] = (*Plan)(w).finish(float64(x))
		}
	}
}

type mergePieces Plan

func (w *mergePieces) Chunk(i, _ int) {
	s := w.spec
	per := ceil(s.Inner, mergeCols)
	o, left := i/per, i%per*mergeCols
	dst := w.dst[o*s.Inner:][left:min(left+mergeCols, s.Inner)]
	var acc [mergeCols]float64
	for j := range dst {
		acc[j] = scalar[s.Op].start
	}
	for piece := range w.pieces {
		part := w.partials[(o*w.pieces+piece)*s.Inner+left:][:len(dst)]
		switch s.Op {
		case Sum, Mean, SumSquares:
			for j, x := range part {
				acc[j] += float64(x)
			}
		default:
			for j, x := range part {
				acc[j] = scalar[s.Op].merge(acc[j], float64(x))
			}
		}
	}
	for j := range dst {
		dst[j] = (*Plan)(w).finish(acc[j])
	}
}
