package conv

import (
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

// directFilter computes dw = xᵀ·dy with the tile kernel: row (ky,kx,c) of dw is the product of a column of the patches of x,
// read in place at the stride of its pixels, with dy. The output rows of the batch are cut into spans; a span's part of x is
// copied with its padding where there is any, its part of dy is copied into panels where it has many channels.
//
// The spans are cut into fixed parts, each with a dw of its own, added up in order at the end: the same bits for any number
// of threads.
type directFilter struct {
	spec     Spec
	oh, ow   int
	kc, nc   int
	panels   []panel // in dy
	padded   bool
	inW      int // pixels in a row of x as read
	span     int // output rows of a span
	spans    int
	parts    int
	aOff     []int // per row of dw
	cOff     []int
	partial  []float32 // [parts][rows of dw][Cout] if parts > 1
	band     int       // floats of a span's copy of x
	workers  []*filterWorker
	x, y, dw []float32
	sum      sum
}

type filterWorker struct {
	tile gemm.Tile
	band []float32
	dy   []float32 // one panel of a span of dy
	segs []gemm.Seg
}

const (
	spanPixels = 256 // of dy, at most: about as many multiplies on each element of dw that is loaded
	spanFloats = 64 << 10
	runRows    = 768 // rows of one call of the tile kernel
)

func newDirectFilter(s Spec) *directFilter {
	f := &directFilter{spec: s, oh: s.OH(), ow: s.OW(), kc: s.Cin / s.Groups, nc: s.Cout / s.Groups, inW: s.W}
	nr := gemm.NR()
	for g := range s.Groups {
		for j := 0; j < f.nc; j += nr {
			f.panels = append(f.panels, panel{col: g*f.nc + j, cols: min(nr, f.nc-j), ldb: s.Cout})
		}
	}
	f.padded = s.PadTop+s.PadBottom+s.PadLeft+s.PadRight > 0
	if f.padded {
		f.inW = (f.ow-1)*s.StrideW + (s.KW-1)*s.DilW + 1
	}
	pixels := min(max(spanFloats/s.Cin, 64), spanPixels)
	f.span = max(1, pixels/f.ow)
	rows := s.N * f.oh
	f.spans = (rows + f.span - 1) / f.span
	f.parts = max(1, min(f.spans, (16+len(f.panels)-1)/len(f.panels)))
	if f.padded {
		// The tallest span of x: each image it touches takes its own rows of padding.
		images := min(s.N, (f.span+f.oh-2)/f.oh+1)
		f.band = (f.span*s.StrideH + images*((s.KH-1)*s.DilH+1)) * f.inW * s.Cin
	}
	for ky := range s.KH {
		for kx := range s.KW {
			for c := range f.kc {
				f.cOff = append(f.cOff, len(f.aOff)*s.Cout)
				f.aOff = append(f.aOff, (ky*s.DilH*f.inW+kx*s.DilW)*s.Cin+c)
			}
		}
	}
	if f.parts > 1 {
		f.partial = make([]float32, f.parts*s.SizeW())
	}
	return f
}

func (f *directFilter) name() string { return "direct" }

func (f *directFilter) flops() int64 { return f.spec.FLOPs() }

func (f *directFilter) run(pool *par.Pool, x, dy, dw []float32) {
	if len(f.panels) == 0 || f.spans == 0 {
		clear(dw)
		return
	}
	for len(f.workers) < pool.Threads() {
		w := &filterWorker{band: make([]float32, f.band), segs: make([]gemm.Seg, f.span)}
		if f.spec.Groups == 1 && f.nc > gemm.NR() {
			w.dy = make([]float32, f.span*f.ow*gemm.NR())
		}
		f.workers = append(f.workers, w)
	}
	f.x, f.y, f.dw = x, dy, dw
	pool.Run(f.parts*len(f.panels), f)
	if f.parts > 1 {
		f.sum.run(pool, f.partial, dw)
	}
	f.x, f.y, f.dw = nil, nil, nil
}

// Chunk computes one panel of one part.
func (f *directFilter) Chunk(i, worker int) {
	w, s := f.workers[worker], &f.spec
	part, pn := i/len(f.panels), &f.panels[i%len(f.panels)]
	c := f.dw
	if f.parts > 1 {
		c = f.partial[part*len(f.dw):][:len(f.dw)]
	}
	t := &w.tile
	t.AStride, t.Cols, t.C = s.StrideW*s.Cin, pn.cols, c[pn.col:]
	group := pn.col / f.nc * f.kc
	first, end := part*f.spans/f.parts, (part+1)*f.spans/f.parts
	for sp := first; sp < end; sp++ {
		r0 := sp * f.span
		r1 := min(r0+f.span, s.N*f.oh)
		a := f.rows(w, r0, r1)
		t.A = a[group:]
		t.B, t.LDB = f.y[r0*f.ow*s.Cout+pn.col:], s.Cout
		if w.dy != nil {
			t.LDB = (pn.cols + 7) &^ 7
			for k := range (r1 - r0) * f.ow {
				copy(w.dy[k*t.LDB:][:pn.cols], t.B[k*s.Cout:])
			}
			t.B = w.dy
		}
		t.In = t.C
		if sp == first {
			t.In = nil
		}
		for r := 0; r < len(f.aOff); r += runRows {
			e := min(r+runRows, len(f.aOff))
			t.AOff, t.COff = f.aOff[r:e], f.cOff[r:e]
			t.Run()
		}
	}
}

// rows prepares x for output rows r0 to r1 (counted over the images of the batch): it sets the tile's segments, one an output
// row, and returns what they are offsets into.
func (f *directFilter) rows(w *filterWorker, r0, r1 int) []float32 {
	s := &f.spec
	w.tile.Segs = w.segs[:r1-r0]
	a, line, at := f.x, f.inW*s.Cin, 0
	if f.padded {
		a = w.band
	}
	for r := r0; r < r1; {
		n, oy := r/f.oh, r%f.oh
		e := min(r1, (n+1)*f.oh) // rows r to e are of one image
		height := (e-r-1)*s.StrideH + (s.KH-1)*s.DilH + 1
		if f.padded {
			f.copyBand(a[at:], n, oy*s.StrideH-s.PadTop, height)
		} else {
			at = (n*s.H + oy*s.StrideH) * line
		}
		for j := r; j < e; j++ {
			w.segs[j-r0] = gemm.Seg{Off: at + (j-r)*s.StrideH*line, Len: f.ow}
		}
		at += height * line
		r = e
	}
	return a
}

// copyBand copies rows y to y+height of image n with its padding.
func (f *directFilter) copyBand(dst []float32, n, y, height int) {
	s := &f.spec
	line := f.inW * s.Cin
	left := min(s.PadLeft, f.inW) * s.Cin
	for i := range height {
		d := dst[i*line:][:line]
		if y+i < 0 || y+i >= s.H {
			clear(d)
			continue
		}
		clear(d[:left])
		src := f.x[(n*s.H+y+i)*s.W*s.Cin:][:s.W*s.Cin]
		clear(d[left+copy(d[left:], src):])
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
