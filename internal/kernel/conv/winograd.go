package conv

import (
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

// winograd computes a product with r×r filters at stride 1 by F(m×m, r×r), r = 3 or 5 and m = 7−r: 36 multiplies for each m×m
// tile of the output and each pair of channels, instead of 144 (r = 3) or 100 (r = 5). The output is cut into tiles; each needs
// 6×6 pixels of the input. These are transformed to 36 points, the filters too, and for each point the tiles are the rows of a
// matrix product over the channels, whose results are transformed back (see transform.go).
//
// The sums are taken in another order than the direct one, over numbers that the transforms mix: an infinity or a NaN in the
// input makes the whole tile NaN.
type winograd struct {
	tiles            tiling
	outH, outW, outC int
	r                int // taps along an axis
	backward         bool
	act              Act
	tr               transforms
	panels           []panel   // of output channels; off is that of point 0 in u
	uPoint           int       // floats from one point to the next in u, for each panel
	u                []float32 // filters: [panel][point][channel][column]; nil if fused
	fused            bool      // the filters are transformed where they are used, see fusedTiles
	block            int       // tiles of an item
	group            int       // tiles that are transformed together: all if the items do it themselves
	shared           []float32 // their points, if they are
	aOff, cOff       []int
	workers          []*winogradWorker
	phase            winogradPhase
	t0, t1           int // the tiles of the group in progress
	in, bias, out, w []float32
}

type winogradPhase int

const (
	filterPhase winogradPhase = iota
	pointsPhase
	productPhase
)

type winogradWorker struct {
	tile    gemm.Tile
	rows    [6][]float32 // where the lines of a tile start
	seg     [1]gemm.Seg
	tmp     []float32 // of the transforms
	points  []float32 // of the tiles of an item, if it transforms them itself
	sums    []float32 // [point][tile][column] of one panel
	taps    []float32 // transposed filters
	filters []float32 // of an item of a fused plan: [point][channel][column]
}

const (
	pointsN = 36
	// skew keeps the points of an element from meeting in one set of the caches.
	skew = 16
	// filterRows is how many channels of the filters a chunk transforms, fusedRows how many an item of a fused plan does.
	filterRows = 8
	fusedRows  = 64
	fusedCols  = 32 // of a panel
	// fusedTiles and fusedFloats: if there are no more tiles than that, and more floats of transformed filters, it is faster to
	// transform the filters a few at a time, in L2, than to write them to memory and read them again once.
	fusedTiles  = 96
	fusedFloats = 4 << 20
)

// sharedFloats is about how many floats of points are kept at a time: they should stay in a share of the last-level cache.
// It is a variable for the tests, which make many groups of few tiles.
var sharedFloats = 1 << 20

func newWinogradForward(s Spec) *winograd {
	d := &winograd{r: s.KH, outH: s.OH(), outW: s.OW(), outC: s.Cout, act: s.Epilogue.Act}
	d.tiles = tiling{h: s.H, w: s.W, c: s.Cin, top: s.PadTop, left: s.PadLeft, size: 6, step: 7 - s.KH}
	d.plan(s.N)
	return d
}

func newWinogradBackward(s Spec) *winograd {
	d := &winograd{r: s.KH, outH: s.H, outW: s.W, outC: s.Cin, backward: true}
	d.tiles = tiling{h: s.OH(), w: s.OW(), c: s.Cout, top: s.KH - 1 - s.PadTop, left: s.KW - 1 - s.PadLeft, size: 6, step: 7 - s.KH}
	d.plan(s.N)
	return d
}

func (d *winograd) plan(images int) {
	t := &d.tiles
	t.cut(images, d.outH, d.outW)
	d.tr = newTransforms()
	nr := gemm.NR()
	// The block's points and sums should share L2 with the filters, if these fit; a multiple of the heights of the tile kernel.
	d.block = 48
	if t.c <= 64 {
		d.block = 24
	}
	few := t.n <= 2*d.block && d.outC > 16
	if few { // let more than one thread work on them
		nr = min(nr, max(32, d.outC/4/16*16))
	}
	off := 0
	d.fused = t.n <= fusedTiles && pointsN*t.c*d.outC > fusedFloats
	d.uPoint = t.c*min(nr, d.outC) + skew
	if d.fused {
		d.block = t.n
		nr = min(nr, fusedCols)
		d.uPoint = fusedRows*min(nr, d.outC) + skew
	}
	for j := 0; j < d.outC; j += nr {
		cols := min(nr, d.outC-j)
		d.panels = append(d.panels, panel{off: off, ldb: cols, col: j, cols: cols})
		off += pointsN * d.uPoint
	}
	if !d.fused {
		d.u = make([]float32, off)
	}
	d.group = t.n
	if len(d.panels) > 2 || d.fused || few {
		if !d.fused {
			d.group = t.groups(t.c)
		}
		d.shared = make([]float32, pointsN*d.sharedPoint())
	}
	for i := range d.block {
		d.aOff = append(d.aOff, i*t.c)
		d.cOff = append(d.cOff, i*nr)
	}
}

// sharedPoint is the number of floats from one point to the next in shared.
func (d *winograd) sharedPoint() int { return d.group*d.tiles.c + skew }

func (d *winograd) name() string { return "winograd" }

func (d *winograd) flops() int64 {
	c, k, m := int64(d.tiles.c), int64(d.outC), d.tiles.step
	products := 2 * pointsN * int64(d.tiles.n) * c * k
	transforms := int64(d.tiles.n)*(c*12*pointsOps+k*int64(6+m)*resultOps(m)) + c*k*int64(6+d.r)*filterOps(d.r)
	return products + transforms
}

func (d *winograd) grow(threads int) {
	c := d.tiles.c
	for len(d.workers) < threads {
		w := &winogradWorker{tmp: make([]float32, pointsN*16), sums: make([]float32, pointsN*d.sumPoint())}
		if d.shared == nil {
			w.points = make([]float32, pointsN*(d.block*c+skew))
		}
		if d.fused {
			w.filters = make([]float32, pointsN*d.uPoint)
		}
		if d.backward || d.fused {
			w.taps = make([]float32, d.r*d.r*filterRows*gemm.NR())
		}
		d.workers = append(d.workers, w)
	}
}

// sumPoint is the number of floats from one point to the next in the sums of a worker.
func (d *winograd) sumPoint() int { return d.block*gemm.NR() + skew }

func (d *winograd) setFilter(pool *par.Pool, w []float32) {
	d.grow(pool.Threads())
	d.w, d.phase = w, filterPhase
	if d.fused {
		return
	}
	pool.Run(len(d.panels)*((d.tiles.c+filterRows-1)/filterRows), d)
	d.w = nil
}

func (d *winograd) run(pool *par.Pool, in, bias, out []float32) {
	d.grow(pool.Threads())
	d.in, d.bias, d.out = in, bias, out
	for d.t0 = 0; d.t0 < d.tiles.n; d.t0 = d.t1 {
		d.t1 = min(d.t0+d.group, d.tiles.n)
		blocks := (d.t1 - d.t0 + d.block - 1) / d.block
		d.phase = productPhase
		if d.shared == nil {
			pool.Run(blocks, d)
			continue
		}
		d.phase = pointsPhase
		pool.Run((d.t1-d.t0+pointsChunk-1)/pointsChunk, d)
		d.phase = productPhase
		pool.Run(blocks*len(d.panels), d)
	}
	d.in, d.bias, d.out = nil, nil, nil
}

// pointsChunk is how many tiles a chunk of pointsPhase transforms.
const pointsChunk = 8

// Chunk computes a chunk of the phase in progress.
func (d *winograd) Chunk(i, worker int) {
	w := d.workers[worker]
	switch d.phase {
	case filterPhase:
		n := (d.tiles.c + filterRows - 1) / filterRows
		p, c := &d.panels[i/n], i%n*filterRows
		d.filters(w, p, c, d.u[p.off+c*p.ldb:])
	case pointsPhase:
		lo := d.t0 + i*pointsChunk
		d.tiles.transform(d.tr.points, w, d.in, lo, min(lo+pointsChunk, d.t1), d.shared[i*pointsChunk*d.tiles.c:], d.sharedPoint())
	case productPhase:
		if d.shared == nil {
			lo := d.t0 + i*d.block
			hi, point := min(lo+d.block, d.t1), d.block*d.tiles.c+skew
			d.tiles.transform(d.tr.points, w, d.in, lo, hi, w.points, point)
			for p := range d.panels {
				d.product(w, &d.panels[p], lo, hi, w.points, point)
			}
			return
		}
		block, p := i/len(d.panels), i%len(d.panels)
		lo := d.t0 + block*d.block
		d.product(w, &d.panels[p], lo, min(lo+d.block, d.t1), d.shared[block*d.block*d.tiles.c:], d.sharedPoint())
	}
}

// filters transforms the filters of input channels c to c+filterRows for one panel.
func (d *winograd) filters(w *winogradWorker, p *panel, c int, dst []float32) {
	n, cin := min(filterRows, d.tiles.c-c), d.tiles.c
	src, tap, row := d.w, cin*d.outC, d.outC
	at := c*d.outC + p.col
	if w.taps != nil {
		// [r][r][n][cols], backward turned by half a turn and transposed.
		panels := gemm.NewPanels(n, p.cols)
		for t := range d.r * d.r {
			if d.backward {
				panels.Pack(w.taps[(d.r*d.r-1-t)*n*p.cols:], d.w[t*tap+p.col*cin+c:], cin, true)
			} else {
				panels.Pack(w.taps[t*n*p.cols:], d.w[t*tap+at:], row, false)
			}
		}
		src, tap, row, at = w.taps, n*p.cols, p.cols, 0
	}
	for k := range n {
		for i := range d.r {
			w.rows[i] = src[at+k*row+d.r*i*tap:]
		}
		d.tr.filter[d.r](&dst[k*p.ldb], d.uPoint, &w.rows[0], tap, 0, d.r, p.cols, &w.tmp[0])
	}
	clear(w.rows[:])
}

// product multiplies the points of tiles lo to hi by one panel of the filters and transforms the sums back.
func (d *winograd) product(w *winogradWorker, p *panel, lo, hi int, points []float32, point int) {
	t, sums := &w.tile, d.sumPoint()
	t.AOff, t.COff, t.AStride = d.aOff[:hi-lo], d.cOff[:hi-lo], 1
	t.LDB, t.Cols = p.ldb, p.cols
	step, u := d.tiles.c, d.u
	if d.fused {
		step, u = fusedRows, w.filters
	}
	for c := 0; c < d.tiles.c; c += step {
		n := min(step, d.tiles.c-c)
		if d.fused {
			for k := 0; k < n; k += filterRows {
				d.filters(w, p, c+k, u[k*p.ldb:])
			}
		} else {
			u = u[p.off:]
		}
		w.seg[0] = gemm.Seg{Len: n}
		t.Segs = w.seg[:]
		for i := range pointsN {
			t.A, t.B, t.C = points[i*point+c:], u[i*d.uPoint:], w.sums[i*sums:]
			t.In = nil
			if c > 0 {
				t.In = t.C
			}
			t.Run()
		}
	}
	relu := 0
	if d.act == ReLU {
		relu = 1
	}
	var bias *float32
	if d.bias != nil {
		bias = &d.bias[p.col]
	}
	for i := lo; i < hi; i++ {
		n, y, x := d.tiles.at(i)
		rows, cols := min(d.outH-y, d.tiles.step), min(d.outW-x, d.tiles.step)
		out := &d.out[((n*d.outH+y)*d.outW+x)*d.outC+p.col]
		d.tr.result[d.tiles.step](out, d.outW*d.outC, d.outC, &w.sums[d.cOff[i-lo]], sums, rows, cols, p.cols, bias, relu, &w.tmp[0])
	}
}

// tiling cuts the images of a batch into tiles of size×size pixels, one for each step×step pixels of another image.
type tiling struct {
	h, w, c   int // the images
	top, left int // zeros before them: the first tile starts at pixel (−top, −left)
	size      int
	step      int
	n         int // tiles of the batch
	th, tw    int // tiles of an image
	zero      []float32
}

// cut makes the tiles for images of height×width results.
func (t *tiling) cut(images, height, width int) {
	t.th, t.tw = (height+t.step-1)/t.step, (width+t.step-1)/t.step
	t.n = images * t.th * t.tw
	t.zero = make([]float32, t.size*t.c)
}

// groups is how many tiles to transform at a time if the points of one are c channels: all or as many as sharedFloats hold.
func (t *tiling) groups(c int) int {
	most := max(1, sharedFloats/(pointsN*c))
	if t.n <= most+most/2 {
		return t.n
	}
	n := (t.n + most - 1) / most
	return ((t.n+n-1)/n + 47) / 48 * 48
}

// at is where the results of tile i stand.
func (t *tiling) at(i int) (n, y, x int) {
	return i / (t.th * t.tw), i / t.tw % t.th * t.step, i % t.tw * t.step
}

// transform takes tiles lo to hi to points: point p of tile t goes to dst[p·point + (t−lo)·c].
func (t *tiling) transform(f expandFunc, w *winogradWorker, img []float32, lo, hi int, dst []float32, point int) {
	for i := lo; i < hi; i++ {
		n, y, x := t.at(i)
		y, x = y-t.top, x-t.left
		j0 := max(0, -x)
		j1 := max(j0, min(t.size, t.w-x))
		for r := range t.size {
			if iy := y + r; iy >= 0 && iy < t.h && j0 < j1 {
				w.rows[r] = img[((n*t.h+iy)*t.w+x+j0)*t.c:]
			} else {
				w.rows[r] = t.zero
			}
		}
		f(&dst[(i-lo)*t.c], point, &w.rows[0], t.c, j0, j1, t.c, &w.tmp[0])
	}
	clear(w.rows[:])
}
