package conv

import (
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

// patchFilter computes dw as the product of the patches of x, turned over so that each row is one element of the patches and its
// columns the pixels of dy, with dy. It serves few pixels of many channels: dw is then the largest operand, which the spans of
// directFilter visit again and again, while here each of its elements is written once.
type patchFilter struct {
	spec    Spec
	pixels  int         // of dy
	panels  gemm.Panels // of dy
	packed  []float32
	ld      int
	rows    int       // of dw in a chunk
	patches []float32 // [KH·KW·Cin][pixels]
	aOff    []int
	cOff    []int
	seg     [1]gemm.Seg
	tiles   []gemm.Tile // of the threads
	bufs    [][]float32 // of the threads: some pixels of a tap
	copying bool        // the patches, and not multiplying
	x, dy   []float32
	dw      []float32
}

const (
	// patchPixels is how many pixels of a tap are copied at a time.
	patchPixels = 64
	// A chunk is up to patchRows rows of dw and patchPanels panels of dy; it takes patchBlock rows at a time, whose patches then stay in L2.
	patchRows, patchPanels, patchBlock = 256, 2, 64
	// patchChunks is how many chunks there should be, if they have 64 rows at least.
	patchChunks = 8
	// patchColumns are the channels of y from which on a patch is worth its copy, patchSum the pixels up to which, and patchFloats how
	// many floats the patches may have.
	patchColumns = 256
	patchSum     = 4 << 10
	patchFloats  = 2 << 20
)

// patchesFit reports whether the gradient for the filters is of the kind that patchFilter serves.
func (s Spec) patchesFit() bool {
	pixels := s.N * s.OH() * s.OW()
	return s.Groups == 1 && s.Cin >= 16 && s.Cout >= patchColumns && pixels > 0 && pixels <= patchSum && pixels*s.KH*s.KW*s.Cin <= patchFloats
}

func newPatchFilter(s Spec) *patchFilter {
	f := &patchFilter{spec: s, pixels: s.N * s.OH() * s.OW()}
	f.ld = vectors(f.pixels)
	if f.ld%256 == 0 { // rows that meet in few sets of the caches
		f.ld += 16
	}
	f.patches = make([]float32, s.KH*s.KW*s.Cin*f.ld)
	f.panels = gemm.NewPanels(f.pixels, s.Cout)
	f.packed = make([]float32, f.panels.Len())
	for i := range s.KH * s.KW * s.Cin {
		f.aOff = append(f.aOff, i*f.ld)
		f.cOff = append(f.cOff, i*s.Cout)
	}
	f.seg[0].Len = f.pixels
	for f.rows = patchRows; f.rows > patchBlock && f.chunks() < patchChunks; {
		f.rows /= 2
	}
	return f
}

func (f *patchFilter) chunks() int {
	return ceilDiv(f.panels.Count(), patchPanels) * ceilDiv(len(f.aOff), f.rows)
}

func (f *patchFilter) name() string { return "patches" }

func (f *patchFilter) flops() int64 { return f.spec.FLOPs() }

func (f *patchFilter) run(pool *par.Pool, x, dy, dw []float32) {
	for len(f.bufs) < pool.Threads() {
		f.bufs = append(f.bufs, make([]float32, patchPixels*f.spec.Cin))
	}
	if len(f.tiles) < pool.Threads() {
		f.tiles = make([]gemm.Tile, pool.Threads())
	}
	f.x, f.dy, f.dw, f.copying = x, dy, dw, true
	pool.Run(f.panels.Count()+f.spec.KH*f.spec.KW*ceilDiv(f.pixels, patchPixels), f)
	f.copying = false
	pool.Run(f.chunks(), f)
	f.x, f.dy, f.dw = nil, nil, nil
}

// Chunk copies a panel of dy or some pixels of a tap, or computes a chunk of dw.
func (f *patchFilter) Chunk(i, worker int) {
	switch panels := f.panels.Count(); {
	case !f.copying:
		rows := ceilDiv(len(f.aOff), f.rows)
		f.multiply(&f.tiles[worker], i/rows*patchPanels, i%rows*f.rows)
	case i < panels:
		off, _, j, n := f.panels.Panel(i)
		gemm.NewPanels(f.pixels, n).Pack(f.packed[off:], f.dy[j:], f.spec.Cout, false)
	default:
		f.copy(i-panels, f.bufs[worker])
	}
}

// multiply computes a chunk of dw from a panel and a row on.
func (f *patchFilter) multiply(t *gemm.Tile, panel, row int) {
	t.A, t.AStride, t.Segs = f.patches, 1, f.seg[:]
	for end := min(row+f.rows, len(f.aOff)); row < end; row += patchBlock {
		e := min(row+patchBlock, end)
		t.AOff, t.COff = f.aOff[row:e], f.cOff[row:e]
		for p := panel; p < min(panel+patchPanels, f.panels.Count()); p++ {
			off, ldb, j, n := f.panels.Panel(p)
			t.B, t.LDB, t.C, t.Cols = f.packed[off:], ldb, f.dw[j:], n
			t.Run()
		}
	}
}

// copy turns over some pixels of a tap.
func (f *patchFilter) copy(i int, buf []float32) {
	s := &f.spec
	per := ceilDiv(f.pixels, patchPixels)
	tap, first := i/per, i%per*patchPixels
	n := min(patchPixels, f.pixels-first)
	ky, kx, c, ow, oh := tap/s.KW, tap%s.KW, s.Cin, s.OW(), s.OH()
	dst := f.patches[tap*c*f.ld+first:]
	if s.pointwise() {
		gemm.Transpose(dst, f.x[first*c:], f.ld, c, n, c)
		return
	}
	for j := range n {
		p := first + j
		y, x := p/ow%oh*s.StrideH-s.PadTop+ky*s.DilH, p%ow*s.StrideW-s.PadLeft+kx*s.DilW
		row := buf[j*c:][:c]
		if y < 0 || y >= s.H || x < 0 || x >= s.W {
			clear(row)
			continue
		}
		copy(row, f.x[((p/(ow*oh)*s.H+y)*s.W+x)*c:])
	}
	gemm.Transpose(dst, buf, f.ld, c, n, c)
}
