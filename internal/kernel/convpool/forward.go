package convpool

import (
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

// direct sums up the nine taps and all input channels for a window and a panel of output channels in registers.
type direct struct {
	*Plan
	panels []directPanel
	w      []float32 // [panel][Cin][9][column]
	lines  int       // of a chunk
	in     []float32
	bias   []float32
	out    []float32
	idx    []uint8
}

// directPanel is columns col to col+cols. The last panel may overlap the one before it: both store the same.
type directPanel struct {
	col, cols, off int
	run            directFunc
}

// directWindows is about how many windows a chunk has, windowChunks how many chunks there should at least be.
const (
	directWindows = 128
	windowChunks  = 4
)

func newDirect(p *Plan) *direct {
	d := &direct{Plan: p}
	ks := directKernels(p.level)
	for j, n, off := 0, p.spec.Cout, 0; j < n; {
		at, k := j, ks[0]
		for i := 1; k.cols > n-j; i++ {
			k = ks[i]
		}
		if v := narrowest(ks); !k.vector && v.vector && v.cols <= n {
			at, k = n-v.cols, v
		}
		d.panels = append(d.panels, directPanel{at, k.cols, off, k.run})
		off += 9 * p.spec.Cin * k.cols
		j = at + k.cols
	}
	last := d.panels[len(d.panels)-1]
	d.w = make([]float32, last.off+9*p.spec.Cin*last.cols)
	all := p.spec.N * p.ph
	d.lines = max(1, min((directWindows+p.pw-1)/p.pw, all/windowChunks))
	return d
}

// narrowest is the last kernel of vectors, if there is one.
func narrowest(ks []directKernel) directKernel {
	v := ks[0]
	for _, k := range ks {
		if k.vector {
			v = k
		}
	}
	return v
}

func (d *direct) setFilter(_ *par.Pool, w []float32) {
	cin, cout := d.spec.Cin, d.spec.Cout
	for _, p := range d.panels {
		dst := d.w[p.off:]
		for c := range cin {
			for t := range 9 {
				copy(dst[:p.cols], w[(t*cin+c)*cout+p.col:])
				dst = dst[p.cols:]
			}
		}
	}
}

func (d *direct) run(pool *par.Pool, x, b, y []float32, idx []uint8) {
	d.in, d.bias, d.out, d.idx = x, b, y, idx
	pool.Run((d.spec.N*d.ph+d.lines-1)/d.lines, d)
	d.in, d.bias, d.out, d.idx = nil, nil, nil, nil
}

// Chunk computes some lines of windows.
func (d *direct) Chunk(i, _ int) {
	s := &d.spec
	for l := i * d.lines; l < min((i+1)*d.lines, s.N*d.ph); l++ {
		n, py := l/d.ph, l%d.ph
		x := &d.in[(n*s.H+2*py)*s.W*s.Cin]
		y := l * d.pw * s.Cout
		for j := range d.panels {
			p := &d.panels[j]
			var ix *uint8
			if d.idx != nil {
				ix = &d.idx[y+p.col]
			}
			p.run(&d.out[y+p.col], ix, x, &d.w[p.off], &d.bias[p.col], s.W*s.Cin, s.Cin, s.Cout, d.pw)
		}
	}
}

// winograd computes F(2×2, 3×3): the 4×4 pixels that a window depends on are transformed to 16 points, the filters too, and for
// each point the windows are the rows of a matrix product over the channels, whose results are transformed back and pooled:
//
//	points  Bᵀ·d·B    Bᵀ = [1 0 −1 0; 0 1 1 0; 0 −1 1 0; 0 1 0 −1]
//	filters G·g·Gᵀ    G  = [1 0 0; ½ ½ ½; ½ −½ ½; 0 0 1]
//	results Aᵀ·m·A    Aᵀ = [1 1 1 0; 0 1 −1 −1]
//
// (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015.)
type winograd struct {
	*Plan
	t       transforms
	panels  []panel
	u       []float32 // filters: [panel][point][Cin][column]
	block   int       // windows of a chunk
	rows    []int     // offsets of the windows' rows in the points
	workers []*winogradWorker
	filters bool // the phase in progress
	in, w   []float32
	bias    []float32
	out     []float32
	idx     []uint8
}

type panel struct{ off, point, col, cols int }

type winogradWorker struct {
	tile   gemm.Tile
	seg    [1]gemm.Seg
	cOff   []int
	points []float32 // [point][window][Cin]
	sums   []float32 // [point][window][column]
}

const (
	pointsN = 16
	// blockWindows: the points and sums of a chunk should share L2 with the filters. A multiple of the height of gemm's tiles.
	blockWindows = 30
	// filterRows is how many input channels of the filters a chunk transforms.
	filterRows = 8
)

func newWinograd(p *Plan) *winograd {
	d := &winograd{Plan: p, t: newTransforms(p.level, p.spec.Cin, p.spec.Cout)}
	off := 0
	for j := 0; j < p.spec.Cout; j += panelWidth() {
		cols := min(panelWidth(), p.spec.Cout-j)
		point := p.spec.Cin*cols + skew
		d.panels = append(d.panels, panel{off, point, j, cols})
		off += pointsN * point
	}
	d.u = make([]float32, off)
	all := p.spec.N * p.ph * p.pw
	d.block = blockWindows
	if d.pw <= blockWindows {
		d.block = blockWindows / d.pw * d.pw
	}
	d.block = max(1, min(d.block, all/windowChunks))
	for i := range d.block {
		d.rows = append(d.rows, i*p.spec.Cin)
	}
	return d
}

func (d *winograd) pointStride() int { return d.block*d.spec.Cin + skew }

func (d *winograd) sumStride() int { return d.block*min(panelWidth(), d.spec.Cout) + skew }

func (d *winograd) grow(threads int) {
	for len(d.workers) < threads {
		w := &winogradWorker{
			points: make([]float32, pointsN*d.pointStride()), sums: make([]float32, pointsN*d.sumStride()), cOff: make([]int, d.block),
		}
		w.seg[0].Len = d.spec.Cin
		w.tile.Segs, w.tile.AStride = w.seg[:], 1
		d.workers = append(d.workers, w)
	}
}

func (d *winograd) setFilter(pool *par.Pool, w []float32) {
	d.w, d.filters = w, true
	pool.Run((d.spec.Cin+filterRows-1)/filterRows, d)
	d.w = nil
}

func (d *winograd) run(pool *par.Pool, x, b, y []float32, idx []uint8) {
	d.grow(pool.Threads())
	d.in, d.bias, d.out, d.idx, d.filters = x, b, y, idx, false
	pool.Run((d.spec.N*d.ph*d.pw+d.block-1)/d.block, d)
	d.in, d.bias, d.out, d.idx = nil, nil, nil, nil
}

// Chunk transforms some filters, or computes a block of windows.
func (d *winograd) Chunk(i, worker int) {
	s := &d.spec
	if d.filters {
		c := i * filterRows
		for _, p := range d.panels {
			d.t.filters(&d.u[p.off+c*p.cols], p.point, p.cols, &d.w[c*s.Cout+p.col], s.Cin*s.Cout, s.Cout, min(filterRows, s.Cin-c), p.cols)
		}
		return
	}
	w := d.workers[worker]
	lo, hi := i*d.block, min((i+1)*d.block, s.N*d.ph*d.pw)
	for at := lo; at < hi; {
		n, py, px := at/(d.ph*d.pw), at/d.pw%d.ph, at%d.pw
		run := min(d.pw-px, hi-at)
		d.t.points(&w.points[(at-lo)*s.Cin], d.pointStride(), &d.in[((n*s.H+2*py)*s.W+2*px)*s.Cin], s.W*s.Cin, s.Cin, run)
		at += run
	}
	t := &w.tile
	for _, p := range d.panels {
		for k := range hi - lo {
			w.cOff[k] = k * p.cols
		}
		t.AOff, t.COff, t.LDB, t.Cols = d.rows[:hi-lo], w.cOff[:hi-lo], p.cols, p.cols
		for k := range pointsN {
			t.A, t.B, t.C = w.points[k*d.pointStride():], d.u[p.off+k*p.point:], w.sums[k*d.sumStride():]
			t.Run()
		}
		var ix *uint8
		if d.idx != nil {
			ix = &d.idx[lo*s.Cout+p.col]
		}
		d.t.pooled(&d.out[lo*s.Cout+p.col], ix, &w.sums[0], d.sumStride(), p.cols, &d.bias[p.col], s.Cout, p.cols, hi-lo)
	}
}
