// Package bgemm multiplies matrices of bf16 on the CPU and adds up in float32.
//
// Terminology: a pair is two elements of bf16 that are neighbours along K, as a uint32; one instruction multiplies pairs and adds both products to a float32. A panel is
// 64 columns of B as pairs [K/2][64]. An A whose rows lie as they are needed is read in place; any other is brought to pairs first. K is filled up with zeros to what an
// instruction takes.
//
// There are three methods. Where the CPU has AMX, products of tiles, 32 rows by 32 columns (TDPBF16PS): several times as fast as float32. Where it has AVX512-BF16, products of
// vectors of pairs (VDPBF16PS): twice as fast as float32 on some CPUs, no faster on others. Elsewhere both operands are widened to float32 and package gemm
// multiplies them: each product is then exact. The instructions take subnormal numbers for zero and round inside a pair. So results of the methods differ in their last digits; on
// one machine they are the same bits for any number of threads.
//
//go:generate go run -C ../vec/_asm ./bgemm -pkg bgemm -out ../../bgemm/bgemm_amd64.s -stubs ../../bgemm/stubs_amd64.go
package bgemm

import (
	"fmt"
	"unsafe"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/kernel/vec"
	"github.com/jouleml/joule/internal/par"
)

// Spec says what a Plan computes: for each matrix z of the batch C[z] = op(A[z])·op(B[z]), op(A) being [M, K], op(B) [K, N] and C [M, N], all row-major without gaps.
type Spec struct {
	M, N, K int
	TransA  bool // A is stored as [K, M]
	TransB  bool // B is stored as [N, K]
	Batch   int  // the number of products, 0 meaning 1; matrices follow each other
}

const (
	width    = 64 // columns of a panel
	tileRows = 6
	// blockRows and blockGroups are the rows of C, and the pairs of K, that a step of products of tiles takes.
	blockRows, blockGroups = 32, 16
	// chunkRows is the most rows of C in a chunk, and fewest how many chunks there are at least if rows allow; deep the most pairs of K between two visits to an element of C: a panel of that depth is 256 kB.
	chunkRows = 96
	fewest    = 12
	deep      = 1024
	// packGroups is how many rows of pairs are packed in a chunk.
	packGroups = 64
)

// Plan is a Spec with the memory that it needs. One Run at a time.
type Plan struct {
	Spec
	level  isa.Level
	method method
	groups int // pairs along K, as many as the method takes
	panels int
	rows   int // of a chunk
	packA  bool
	aRow   int      // pairs from one row of packed A to the next, for tiles: a stride that is no power of two, or rows would crowd into a few sets of the cache
	pa     []uint32 // packed A: [Batch][groups][M] for vectors, [Batch][M][aRow] for tiles
	pb     []uint32 // packed B: [Batch][panels][groups][64]
	work   []*worker

	lenA, lenB int

	wide   *gemm.Plan // without the instructions: of operands wa, wb in float32
	wa, wb []float32
	widen  func(dst []float32, a []dtype.BFloat16)

	a, b []dtype.BFloat16
	c    []float32
}

// method is a way to compute.
type method uint8

const (
	widened method = iota
	vectors
	tiled
)

func (m method) String() string { return [...]string{"widened to f32", "on VDPBF16PS", "on AMX"}[m] }

// methods are those of the current instruction set, the best last.
func methods() []method {
	ms := []method{widened}
	if isa.BF16() {
		ms = append(ms, vectors)
	}
	if isa.AMX() {
		ms = append(ms, tiled)
	}
	return ms
}

type worker struct {
	acc  [blockRows * width]float32
	last []uint32                   // tiles: rows of A that fill no block, [32][groups]
	turn [packGroups * width]uint32 // pairs on their way to rows
}

// New plans. It panics on negative sizes.
func New(s Spec) *Plan {
	ms := methods()
	return plan(s, ms[len(ms)-1])
}

func plan(s Spec, m method) *Plan {
	if s.Batch == 0 {
		s.Batch = 1
	}
	if s.M < 0 || s.N < 0 || s.K < 0 || s.Batch < 0 {
		panic("bgemm: negative size")
	}
	p := &Plan{Spec: s, level: isa.Current(), method: m, groups: (s.K + 1) / 2, panels: (s.N + width - 1) / width}
	if m == widened {
		p.wide = gemm.New(gemm.Spec{M: s.M, N: s.N, K: s.K, TransA: s.TransA, TransB: s.TransB, Batch: s.Batch, StrideA: s.M * s.K, StrideB: s.K * s.N, StrideC: s.M * s.N})
		p.lenA, p.lenB = s.Batch*s.M*s.K, s.Batch*s.K*s.N
		p.widen = vec.FromBFloat16()
		return p
	}
	if m == tiled {
		p.groups = (p.groups + blockGroups - 1) / blockGroups * blockGroups
	}
	p.packA = s.TransA || s.K != 2*p.groups
	p.aRow = p.groups
	switch {
	case p.packA && m == tiled:
		p.aRow += blockGroups
		p.lenA = s.Batch * s.M * p.aRow
	case p.packA:
		p.lenA = s.Batch * p.groups * s.M
	}
	p.rows = chunkRows
	for p.rows > blockRows && s.Batch*p.panels*p.blocks() < fewest {
		p.rows -= blockRows
	}
	p.lenB = s.Batch * p.panels * p.groups * width
	return p
}

// Scratch is the length of the memory that a run needs for packed operands. Plans that run one after another can share it.
func (p *Plan) Scratch() int { return p.lenA + p.lenB }

// String says what was decided.
func (p *Plan) String() string {
	return fmt.Sprintf("bf16 gemm %dx%dx%d batch %d %v", p.M, p.K, p.N, p.Batch, p.method)
}

// Run computes the products, with scratch of at least Scratch elements whose contents do not matter. It panics if a slice is too short.
func (p *Plan) Run(pool *par.Pool, a, b []dtype.BFloat16, c []float32, scratch []uint32) {
	if isa.Current() != p.level {
		panic("bgemm: Run: the plan was made for another instruction set")
	}
	p.a, p.b, p.c = a[:p.Batch*p.M*p.K], b[:p.Batch*p.K*p.N], c[:p.Batch*p.M*p.N]
	sa, sb := scratch[:p.lenA], scratch[p.lenA:p.Scratch()]
	if p.method == widened {
		p.wa, p.wb = floats(sa), floats(sb)
	} else {
		p.pa, p.pb = sa, sb
	}
	switch {
	case len(p.c) == 0:
	case p.K == 0:
		clear(p.c)
	case p.method != widened:
		for len(p.work) < pool.Threads() {
			w := new(worker)
			if p.method == tiled {
				w.last = make([]uint32, blockRows*p.groups)
			}
			p.work = append(p.work, w)
		}
		if p.packA {
			pool.Run(p.Batch*p.pieces(), (*packingA)(p))
		}
		pool.Run(p.Batch*p.panels*p.pieces(), (*packingB)(p))
		pool.Run(p.Batch*p.panels*p.blocks(), (*product)(p))
	default:
		pool.Run((len(p.wa)+widenLen-1)/widenLen, (*wideningA)(p))
		pool.Run((len(p.wb)+widenLen-1)/widenLen, (*wideningB)(p))
		p.wide.Run(pool, p.wa, p.wb, p.c, nil, nil)
	}
	p.a, p.b, p.c, p.pa, p.pb, p.wa, p.wb = nil, nil, nil, nil, nil, nil, nil
}

// floats is the same memory as float32.
func floats(x []uint32) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

func (p *Plan) pieces() int { return (p.groups + packGroups - 1) / packGroups }
func (p *Plan) blocks() int { return (p.M + p.rows - 1) / p.rows }

// widenLen is how many elements are widened in a chunk.
const widenLen = 1 << 14

type (
	wideningA Plan
	wideningB Plan
	packingA  Plan
	packingB  Plan
	product   Plan
)

func (q *wideningA) Chunk(i, _ int) {
	lo, hi := i*widenLen, min((i+1)*widenLen, len(q.wa))
	q.widen(q.wa[lo:hi], q.a[lo:hi])
}

func (q *wideningB) Chunk(i, _ int) {
	lo, hi := i*widenLen, min((i+1)*widenLen, len(q.wb))
	q.widen(q.wb[lo:hi], q.b[lo:hi])
}

// pair is elements k and k+1 along K of row r of a matrix whose element [r, k] is x[r*row+k*step], 0 beyond depth.
func pair(x []dtype.BFloat16, r, row, k, step, depth int) uint32 {
	var v uint32
	if k < depth {
		v = uint32(x[r*row+k*step])
	}
	if k+1 < depth {
		v |= uint32(x[r*row+(k+1)*step]) << 16
	}
	return v
}

// rowsToPairs sets dst[g*ds+r] to pair g0+g of row r of n of them, for g in [0, groups), where row is contiguous: x[r*K+k].
func (p *Plan) rowsToPairs(dst []uint32, ds int, x []dtype.BFloat16, n, g0, groups int) {
	done := 0
	if p.K%2 == 0 {
		done = max(0, min(groups, p.K/2-g0))
		transpose(dst, ds, x[2*g0:], p.K/2, n, done)
	}
	for g := done; g < groups; g++ {
		for r := range n {
			dst[g*ds+r] = pair(x, r, p.K, 2*(g0+g), 1, p.K)
		}
	}
}

// columnsToPairs sets dst[g*ds+j] to pair g0+g of column j of n of them, where x[k*ld+j] are the elements.
func (p *Plan) columnsToPairs(dst []uint32, ds int, x []dtype.BFloat16, ld, n, g0, groups int) {
	for g := range groups {
		to, k := dst[g*ds:][:n], 2*(g0+g)
		done := 0
		if k+1 < p.K {
			done = interleave(to, x[k*ld:][:n], x[(k+1)*ld:][:n])
		}
		for j := done; j < n; j++ {
			to[j] = pair(x, j, 1, k, ld, p.K)
		}
	}
}

func (q *packingA) Chunk(i, id int) {
	p, w := (*Plan)(q), q.work[id]
	z, g0 := i/p.pieces(), i%p.pieces()*packGroups
	n := min(packGroups, p.groups-g0)
	a, dst := p.a[z*p.M*p.K:][:p.M*p.K], p.pa[len(p.pa)/p.Batch*z:][:len(p.pa)/p.Batch]
	switch {
	case p.method == vectors && p.TransA:
		p.columnsToPairs(dst[g0*p.M:], p.M, a, p.M, p.M, g0, n)
	case p.method == vectors:
		p.rowsToPairs(dst[g0*p.M:], p.M, a, p.M, g0, n)
	case p.TransA:
		for r := 0; r < p.M; r += width {
			rows := min(width, p.M-r)
			p.columnsToPairs(w.turn[:], width, a[r:], p.M, rows, g0, n)
			transposePairs(dst[r*p.aRow+g0:], p.aRow, w.turn[:], width, n, rows)
		}
	default:
		for r := range p.M {
			to := dst[r*p.aRow+g0:][:n]
			for g := range to {
				to[g] = pair(a, r, p.K, 2*(g0+g), 1, p.K)
			}
		}
	}
}

func (q *packingB) Chunk(i, _ int) {
	p := (*Plan)(q)
	g0, panel := i%p.pieces()*packGroups, i/p.pieces()
	n := min(packGroups, p.groups-g0)
	z, j0 := panel/p.panels, panel%p.panels*width
	b, dst := p.b[z*p.K*p.N:][:p.K*p.N], p.pb[(panel*p.groups+g0)*width:][:n*width]
	cols := min(width, p.N-j0)
	if p.TransB {
		p.rowsToPairs(dst, width, b[j0*p.K:], cols, g0, n)
	} else {
		p.columnsToPairs(dst, width, b[j0:], p.N, cols, g0, n)
	}
	for g := range n {
		clear(dst[g*width:][cols:width])
	}
}

func (q *product) Chunk(i, id int) {
	p, w := (*Plan)(q), q.work[id]
	blocks := p.blocks()
	panel, r0 := i/blocks, i%blocks*p.rows
	z, j0 := panel/p.panels, panel%p.panels*width
	cols := min(width, p.N-j0)
	pb := p.pb[panel*p.groups*width:][:p.groups*width]
	c := p.c[z*p.M*p.N:][:p.M*p.N]
	end := min(r0+p.rows, p.M)
	if p.method == tiled {
		p.tiles(w, c, pb, z, r0, end, j0, cols)
		return
	}
	for g := 0; g < p.groups; g += deep {
		n := min(deep, p.groups-g)
		for r := r0; r < end; {
			rows := tileHeight(end - r)
			if cols == width {
				p.vectors(c[r*p.N+j0:], p.N, pb[g*width:], z, r, rows, g, n)
			} else {
				if g > 0 {
					for x := range rows {
						copy(w.acc[x*width:][:cols], c[(r+x)*p.N+j0:])
					}
				}
				p.vectors(w.acc[:], width, pb[g*width:], z, r, rows, g, n)
				p.store(c, w, r, rows, j0, cols)
			}
			r += rows
		}
	}
}

// store copies the first columns of rows rows of w.acc to c.
func (p *Plan) store(c []float32, w *worker, r, rows, j0, cols int) {
	for x := range rows {
		copy(c[(r+x)*p.N+j0:][:cols], w.acc[x*width:])
	}
}

// tiles computes rows r to end and the columns of a panel by products of tiles. Rows that fill no block are copied to one of their own.
func (p *Plan) tiles(w *worker, c []float32, pb []uint32, z, r, end, j0, cols int) {
	whole := (end - r) / blockRows
	if cols == width && whole > 0 {
		p.blocksOfTiles(c[r*p.N+j0:], p.N, p.rowsOfA(z, r, whole*blockRows), p.aRow, pb, whole)
		r += whole * blockRows
	}
	for ; r < end; r += blockRows {
		n := min(blockRows, end-r)
		a, stride := p.rowsOfA(z, r, n), p.aRow
		if n < blockRows {
			for x := range n {
				copy(w.last[x*p.groups:][:p.groups], a[x*p.aRow:])
			}
			clear(w.last[n*p.groups:])
			a, stride = w.last, p.groups
		}
		p.blocksOfTiles(w.acc[:], width, a, stride, pb, 1)
		p.store(c, w, r, n, j0, cols)
	}
}

// tileHeight is how many of the rows that are left make the next tile: tiles of nearly equal height.
func tileHeight(left int) int {
	tiles := (left + tileRows - 1) / tileRows
	return (left + tiles - 1) / tiles
}
