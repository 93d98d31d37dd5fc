package conv

import (
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

// directFilter computes dw = xᵀ·dy with the tile kernel: row (ky,kx,c) of dw is the product of a column of the patches of x
// with dy. The output rows of the batch are cut into spans. A span's part of x is copied, with its padding, to groups of
// channels: [group][row][pixel][channel]; with one group and no padding it is read in place. Where panels are narrow, x is
// read so often that small groups are better: a column of the patches is then read at a small stride, and neighbouring rows of
// dw read the same cache lines. The span's part of dy is copied into panels where it has many channels.
//
// The spans are cut into fixed parts, each with a dw of its own, added up in order at the end: the same bits for any number
// of threads.
type directFilter struct {
	spec    Spec
	oh, ow  int
	kc, nc  int
	columns []panel // output channels of an item
	inW     int     // pixels in a row of the copy of x
	inH     int     // rows of the copy of x, at most
	// Filters of one tap along an axis leave pixels out: only each copyH-th row and copyW-th pixel is copied, and the results'
	// pixels are at distances of strideH and strideW in the copy.
	copyH, copyW     int
	strideH, strideW int
	group            int // channels of a group
	inPlace          bool
	span             int // output rows of a span
	spans            int
	parts            int
	aOff             []int // per row of dw
	cOff             []int
	runs             []filterRun
	partial          []float32 // [parts][rows of dw][Cout] if parts > 1
	workers          []*filterWorker
	x, y, dw         []float32
	sum              sum
}

// filterRun is the rows of dw of one call of the tile kernel.
type filterRun struct {
	first, end int
	columns    bool // their elements of x are neighbours (gemm.Tile.Columns)
}

type filterWorker struct {
	tile gemm.Tile
	x    []float32 // a span's copy
	dy   []float32 // columns of a span's dy
	segs []gemm.Seg
}

const (
	spanPixels   = 256 // of dy, at most: about as many multiplies on each element of dw that is loaded
	spanFloats   = 32 << 10
	runRows      = 768 // rows of one call of the tile kernel, at most
	fewRows      = 12  // neighbours in x that are worth a call of their own
	itemColumns  = 64
	channelGroup = 8 // of narrow panels: what copyGroupVec copies
)

func newDirectFilter(s Spec) *directFilter {
	f := &directFilter{spec: s, oh: s.OH(), ow: s.OW(), kc: s.Cin / s.Groups, nc: s.Cout / s.Groups}
	for g := range s.Groups {
		for j := 0; j < f.nc; j += itemColumns {
			f.columns = append(f.columns, panel{col: g*f.nc + j, cols: min(itemColumns, f.nc-j)})
		}
	}
	f.group = f.kc
	if isa.Current() == isa.AVX2 && f.kc > channelGroup {
		f.group = channelGroup
	}
	f.inPlace = f.group == s.Cin && s.PadTop+s.PadBottom+s.PadLeft+s.PadRight == 0
	f.copyH, f.copyW, f.strideH, f.strideW = 1, 1, s.StrideH, s.StrideW
	if s.KH == 1 && s.PadTop == 0 && !f.inPlace {
		f.copyH, f.strideH = s.StrideH, 1
	}
	if s.KW == 1 && s.PadLeft == 0 && !f.inPlace {
		f.copyW, f.strideW = s.StrideW, 1
	}
	f.inW = s.W
	if !f.inPlace {
		f.inW = (f.ow-1)*f.strideW + (s.KW-1)*s.DilW + 1
	}
	pixels := min(max(spanFloats/s.Cin, 64), spanPixels)
	f.span = max(1, pixels/f.ow)
	rows := s.N * f.oh
	f.spans = (rows + f.span - 1) / f.span
	f.parts = max(1, min(f.spans, (16+len(f.columns)-1)/len(f.columns)))
	// The tallest span of x: each image it touches takes its own rows of padding.
	images := min(s.N, (f.span+f.oh-2)/f.oh+1)
	f.inH = f.span*f.strideH + images*((s.KH-1)*s.DilH+1)
	for ky := range s.KH {
		for kx := range s.KW {
			for c := range f.kc {
				f.cOff = append(f.cOff, len(f.aOff)*s.Cout)
				f.aOff = append(f.aOff, (c/f.group*f.inH*f.inW+ky*s.DilH*f.inW+kx*s.DilW)*f.group+c%f.group)
			}
		}
	}
	f.cutRuns()
	if f.parts > 1 {
		f.partial = make([]float32, f.parts*s.SizeW())
	}
	return f
}

// cutRuns cuts the rows of dw where their elements of x cease to be neighbours, unless pieces would be small.
func (f *directFilter) cutRuns() {
	for r := 0; r < len(f.aOff); {
		e := r + 1
		for e < len(f.aOff) && e-r < runRows && f.aOff[e] == f.aOff[e-1]+1 {
			e++
		}
		run := filterRun{r, e, e-r >= fewRows}
		if last := len(f.runs) - 1; last >= 0 && !run.columns && !f.runs[last].columns && e-f.runs[last].first <= runRows {
			f.runs[last].end = e
		} else {
			f.runs = append(f.runs, run)
		}
		r = e
	}
}

func (f *directFilter) name() string { return "direct" }

func (f *directFilter) flops() int64 { return f.spec.FLOPs() }

func (f *directFilter) run(pool *par.Pool, x, dy, dw []float32) {
	if f.spans == 0 {
		clear(dw)
		return
	}
	for len(f.workers) < pool.Threads() {
		w := &filterWorker{segs: make([]gemm.Seg, f.span)}
		if !f.inPlace {
			w.x = make([]float32, (f.kc+f.group-1)/f.group*f.inH*f.inW*f.group)
		}
		if f.columns[0].cols > gemm.NR() || f.nc > itemColumns {
			w.dy = make([]float32, f.span*f.ow*itemColumns)
		}
		f.workers = append(f.workers, w)
	}
	f.x, f.y, f.dw = x, dy, dw
	pool.Run(f.parts*len(f.columns), f)
	if f.parts > 1 {
		f.sum.run(pool, f.partial, dw)
	}
	f.x, f.y, f.dw = nil, nil, nil
}

// Chunk computes some columns of one part.
func (f *directFilter) Chunk(i, worker int) {
	w, s := f.workers[worker], &f.spec
	part, cols := i/len(f.columns), &f.columns[i%len(f.columns)]
	c := f.dw
	if f.parts > 1 {
		c = f.partial[part*len(f.dw):][:len(f.dw)]
	}
	t := &w.tile
	t.AStride = f.strideW * f.group
	first, end := part*f.spans/f.parts, (part+1)*f.spans/f.parts
	for sp := first; sp < end; sp++ {
		r0 := sp * f.span
		r1 := min(r0+f.span, s.N*f.oh)
		f.rows(w, cols.col/f.nc*f.kc, r0, r1)
		t.A, t.Segs = w.x, w.segs[:r1-r0]
		if f.inPlace {
			t.A = f.x
		}
		pixels, dy := (r1-r0)*f.ow, f.y[r0*f.ow*s.Cout+cols.col:]
		panels := gemm.NewPanels(pixels, cols.cols)
		if w.dy != nil {
			panels.Pack(w.dy, dy, s.Cout, false)
		}
		for p := range panels.Count() {
			off, ldb, j, n := panels.Panel(p)
			t.B, t.LDB, t.Cols, t.C = w.dy[min(off, len(w.dy)):], ldb, n, c[cols.col+j:]
			if w.dy == nil {
				t.B, t.LDB = dy, s.Cout
			}
			t.In = t.C
			if sp == first {
				t.In = nil
			}
			for _, r := range f.runs {
				t.AOff, t.COff, t.Columns = f.aOff[r.first:r.end], f.cOff[r.first:r.end], r.columns
				t.Run()
			}
		}
	}
}

// rows copies what output rows r0 to r1 (counted over the images of the batch) need of kc channels of x from c on, and sets
// the segments, one an output row.
func (f *directFilter) rows(w *filterWorker, c, r0, r1 int) {
	s := &f.spec
	line, at := f.inW*f.group, 0
	for r := r0; r < r1; {
		n, oy := r/f.oh, r%f.oh
		e := min(r1, (n+1)*f.oh) // rows r to e are of one image
		height := (e-r-1)*f.strideH + (s.KH-1)*s.DilH + 1
		if f.inPlace {
			at = n*s.H + oy*s.StrideH
			height = 0
		}
		for i := range height {
			f.copyRow(w.x[(at+i)*line:], n, oy*s.StrideH-s.PadTop+i*f.copyH, c)
		}
		for j := r; j < e; j++ {
			w.segs[j-r0] = gemm.Seg{Off: (at + (j-r)*f.strideH) * line, Len: f.ow}
		}
		at += height
		r = e
	}
}

// copyRow copies channels c to c+kc of row y of image n, with its padding, to groups of channels.
func (f *directFilter) copyRow(dst []float32, n, y, c int) {
	s := &f.spec
	left := min(s.PadLeft, f.inW)
	pixels := min((s.W+f.copyW-1)/f.copyW, f.inW-left)
	if y < 0 || y >= s.H {
		left, pixels = f.inW, 0
	}
	for g := 0; g < f.kc; g += f.group {
		d := dst[g*f.inH*f.inW:][:f.inW*f.group]
		clear(d[:left*f.group])
		clear(d[(left+pixels)*f.group:])
		if pixels == 0 {
			continue
		}
		d = d[left*f.group:]
		src := f.x[(n*s.H+y)*s.W*s.Cin+c+g:]
		m := min(f.group, f.kc-g)
		switch {
		case m == s.Cin && f.copyW == 1:
			copy(d[:pixels*m], src)
		case m == channelGroup && f.group == channelGroup && isa.Current() != isa.Portable:
			copyGroupVec(&d[0], &src[0], f.copyW*s.Cin, pixels)
		default:
			for p := range pixels {
				copy(d[p*f.group:][:m], src[p*f.copyW*s.Cin:][:m])
			}
		}
	}
}

// sum adds parts up: dst[i] = ((src[i] + src[n+i]) + src[2n+i]) + …, n = len(dst).
type sum struct{ src, dst []float32 }

const sumChunk = 4096

func (s *sum) run(pool *par.Pool, src, dst []float32) {
	s.src, s.dst = src, dst
	pool.Run((len(dst)+sumChunk-1)/sumChunk, s)
	s.src, s.dst = nil, nil
}

// Chunk adds up sumChunk elements.
func (s *sum) Chunk(i, _ int) {
	n, lo := len(s.dst), i*sumChunk
	dst := s.dst[lo:min(lo+sumChunk, n)]
	copy(dst, s.src[lo:])
	for at := n + lo; at < len(s.src); at += n {
		for j, x := range s.src[at:][:len(dst)] {
			dst[j] += x
		}
	}
}
