package conv

import (
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

// winograd computes a product by a bilinear algorithm for tiles of the output. At stride 1 that is F(m×m, r×r), r = 3 or 5 and
// m = 7−r: 36 multiplies for each m×m tile and each pair of channels, instead of 144 (r = 3) or 100 (r = 5); for 3×3 filters at
// stride 2 see strided.go. A tile needs some pixels of the input. These are transformed to points, the filters too, and for each
// term the tiles are the rows of a matrix product over the channels, whose results are transformed back (see transform.go).
//
// The sums are taken in another order than the direct one, over numbers that the transforms mix: an infinity or a NaN in the
// input makes the whole tile NaN.
type winograd struct {
	alg              algorithm
	tiles            tiling
	top, left        int // pixels of the first tile before the output's first: 0 or 1
	outH, outW, outC int
	backward         bool
	act              Act
	channels         int                    // of the input from one tile to the next: whole vectors; of a slice, if fused
	panels           []panel                // of output channels; off is that of point 0 in u
	parts            [blockCols + 1][]panel // of a panel of so many columns, for the tile kernel
	uPoint           int                    // floats from one point to the next in u, for each panel
	u                []float32              // filters: [panel][point][channel][column]; nil if fused
	fused            bool                   // the filters are transformed where they are used, see fusedTiles
	block            int                    // tiles of an item
	group            int                    // tiles that are transformed together: all if the items do it themselves
	shared           []float32              // their points, if they are
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
	grads   []float32 // points of dy, in the gradient for the filters
	edge    []float32 // results of a tile that begins outside of the output
}

const (
	// blockCols is how many output channels a panel or a block of dw has at most.
	blockCols = 64
	// skew keeps the points of an element from meeting in one set of the caches.
	skew = 16
	// filterRows is how many channels of the filters a chunk transforms, fusedRows how many an item of a fused plan does.
	filterRows = 8
	fusedRows  = 64
	// fusedTiles: see fusedFloats.
	fusedTiles = 128
)

// If there are no more than fusedTiles tiles, and more than fusedFloats floats of transformed filters, it is faster to transform
// the filters a few at a time, in L2, than to write them to memory and read them again. It is a variable for the tests.
var fusedFloats = 2 << 20

// sharedFloats is about how many floats of points are kept at a time: they should stay in a share of the last-level cache.
// It is a variable for the tests, which make many groups of few tiles.
var sharedFloats = 1 << 20

func newWinogradForward(s Spec) *winograd {
	d := &winograd{outH: s.OH(), outW: s.OW(), outC: s.Cout, act: s.Epilogue.Act}
	if s.StrideH == 2 {
		d.alg = stridedForward()
	} else {
		d.alg = toomProduct(s.KH)
	}
	d.tiles = tiling{h: s.H, w: s.W, c: s.Cin, top: s.PadTop, left: s.PadLeft}
	d.plan(s.N)
	return d
}

func newWinogradBackward(s Spec) *winograd {
	d := &winograd{outH: s.H, outW: s.W, outC: s.Cin, backward: true}
	d.tiles = tiling{h: s.OH(), w: s.OW(), c: s.Cout}
	if s.StrideH == 2 {
		// A tile begins at an odd place of the padded dx.
		d.alg = stridedBackward()
		d.top, d.left = (s.PadTop+1)%2, (s.PadLeft+1)%2
		d.tiles.top, d.tiles.left = (1-s.PadTop+d.top)/2, (1-s.PadLeft+d.left)/2
	} else {
		d.alg = toomProduct(s.KH)
		d.tiles.top, d.tiles.left = s.KH-1-s.PadTop, s.KW-1-s.PadLeft
	}
	d.plan(s.N)
	return d
}

func (d *winograd) plan(images int) {
	t := &d.tiles
	t.size, t.step = d.alg.size, d.alg.step
	t.cut(images, ceilDiv(d.outH+d.top, d.alg.out), ceilDiv(d.outW+d.left, d.alg.out))
	d.channels = vectors(t.c)
	nr := blockCols
	// The block's points and sums should share L2 with the filters, if these fit; a multiple of the heights of the tile kernel.
	d.block = 48
	if t.c <= 64 && d.alg.in > 5 {
		d.block = 24
	}
	few := t.n <= 2*d.block && d.outC > 16
	if few { // let more than one thread work on them
		nr = min(nr, max(32, d.outC/4/16*16))
	}
	off, points := 0, d.alg.weights*d.alg.weights
	rest := t.c % fusedRows // the last slice
	d.fused = t.n <= fusedTiles && points*t.c*d.outC > fusedFloats && (rest == 0 || rest >= 16)
	rows, slices := t.c, 1
	if d.fused {
		d.channels, slices = fusedRows, ceilDiv(t.c, fusedRows)
		d.block = t.n
		nr = min(nr, max(32, d.outC/4/16*16)) // an item a panel, four at least
		rows = fusedRows
	}
	d.uPoint = rows*min(nr, vectors(d.outC)) + skew
	for _, p := range cutColumns(d.outC, nr) {
		p.off, p.ldb = off, vectors(p.cols)
		d.parts[p.cols] = cutColumns(p.cols, gemm.NR())
		d.panels = append(d.panels, p)
		off += points * d.uPoint
	}
	if !d.fused {
		d.u = make([]float32, off)
	}
	d.group = t.n
	if len(d.panels) > 2 || d.fused || few {
		if !d.fused {
			d.group = t.groups(d.alg.in * d.alg.in * d.channels)
		}
		d.shared = make([]float32, slices*d.slice())
	}
	for i := range d.block {
		d.aOff = append(d.aOff, i*d.channels)
		d.cOff = append(d.cOff, i*nr)
	}
}

// vectors is n rounded up to whole vectors.
func vectors(n int) int { return (n + 15) &^ 15 }

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// cutColumns cuts n ≥ 16 columns into panels of at most nr columns, a multiple of 16, and at least one vector.
func cutColumns(n, nr int) (l []panel) {
	for j := 0; j < n; {
		cols := min(nr, n-j)
		if rest := n - j - cols; rest > 0 && rest < gemm.Lanes() {
			cols -= gemm.Lanes()
		}
		l = append(l, panel{col: j, cols: cols})
		j += cols
	}
	return l
}

// sharedPoint is the number of floats from one point to the next in shared.
func (d *winograd) sharedPoint() int { return d.group*d.channels + skew }

// slice is the number of floats of shared from one slice of the channels to the next; there is one slice if the plan isn't fused.
func (d *winograd) slice() int { return d.alg.in * d.alg.in * d.sharedPoint() }

func (d *winograd) name() string { return "winograd" }

func (d *winograd) flops() int64 {
	return d.alg.flops(d.tiles.n, d.tiles.c, d.outC, d.tiles.n*d.outC) + d.alg.filterFLOPs(d.tiles.c*d.outC)
}

// flops is what the products of tiles for c channels of the input and k of the other cost, the transforms of the input's tiles and
// those of the given number of results.
func (a *algorithm) flops(tiles, c, k, results int) int64 {
	return 2*int64(len(a.terms))*int64(tiles)*int64(c)*int64(k) +
		int64(tiles)*int64(c)*int64(a.size+a.in)*a.inOps + int64(results)*int64(a.sums+a.out)*a.outOps
}

// filterFLOPs is what the transforms of n filters, or tiles of dy, cost.
func (a *algorithm) filterFLOPs(n int) int64 { return int64(n) * int64(a.r+a.weights) * a.filterOps }

func (d *winograd) grow(threads int) {
	a := &d.alg
	for len(d.workers) < threads {
		w := &winogradWorker{tmp: make([]float32, tmpFloats), sums: make([]float32, a.sums*a.sums*d.sumPoint())}
		if d.shared == nil {
			w.points = make([]float32, a.in*a.in*(d.block*d.channels+skew))
		}
		if d.fused {
			w.filters = make([]float32, a.weights*a.weights*d.uPoint)
		}
		if d.backward || d.fused {
			rows := filterRows
			if d.fused {
				rows = fusedRows
			}
			w.taps = make([]float32, a.r*a.r*rows*blockCols)
		}
		if d.top+d.left > 0 {
			w.edge = make([]float32, a.out*a.out*blockCols)
		}
		d.workers = append(d.workers, w)
	}
}

// tmpFloats is the scratch of a transform, 36 vectors.
const tmpFloats = 36 * 16

// sumPoint is the number of floats from one point to the next in the sums of a worker.
func (d *winograd) sumPoint() int { return d.block*blockCols + skew }

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
		d.filters(w, p, c, min(filterRows, d.tiles.c-c), d.u[p.off+c*p.ldb:])
	case pointsPhase:
		lo := d.t0 + i*pointsChunk
		d.points(w, lo, min(lo+pointsChunk, d.t1), d.shared[i*pointsChunk*d.channels:], d.sharedPoint())
	case productPhase:
		if d.shared == nil {
			lo := d.t0 + i*d.block
			hi, point := min(lo+d.block, d.t1), d.block*d.channels+skew
			d.points(w, lo, hi, w.points, point)
			for p := range d.panels {
				d.product(w, &d.panels[p], lo, hi, w.points, point)
			}
			return
		}
		block, p := i/len(d.panels), i%len(d.panels)
		lo := d.t0 + block*d.block
		d.product(w, &d.panels[p], lo, min(lo+d.block, d.t1), d.shared[block*d.block*d.channels:], d.sharedPoint())
	}
}

// points transforms tiles lo to hi of the input.
func (d *winograd) points(w *winogradWorker, lo, hi int, dst []float32, point int) {
	if !d.fused {
		d.tiles.transform(d.alg.expand, w, d.in, lo, hi, 0, d.tiles.c, dst, d.channels, point)
		return
	}
	for c := 0; c < d.tiles.c; c += fusedRows {
		d.tiles.transform(d.alg.expand, w, d.in, lo, hi, c, min(fusedRows, d.tiles.c-c), dst[c/fusedRows*d.slice():], d.channels, point)
	}
}

// filters transforms the filters of input channels c to c+n for one panel.
func (d *winograd) filters(w *winogradWorker, p *panel, c, n int, dst []float32) {
	cin, r := d.tiles.c, d.alg.r
	src, tap, row := d.w, cin*d.outC, d.outC
	at := c*d.outC + p.col
	if w.taps != nil {
		// [r][r][n][cols], backward turned by half a turn and transposed.
		to := n * p.ldb
		for t := range r * r {
			if d.backward {
				gemm.Transpose(w.taps[(r*r-1-t)*to:], d.w[t*tap+p.col*cin+c:], p.ldb, cin, p.cols, n)
				continue
			}
			for k := range n {
				copy(w.taps[t*to+k*p.ldb:][:p.cols], d.w[t*tap+at+k*row:])
			}
		}
		src, tap, row, at = w.taps, to, p.ldb, 0
	}
	for k := range n {
		for i := range r {
			w.rows[i] = src[at+k*row+r*i*tap:]
		}
		d.alg.filter(&dst[k*p.ldb], d.uPoint, &w.rows[0], tap, 0, r, p.cols, &w.tmp[0])
	}
	clear(w.rows[:])
}

// product multiplies the points of tiles lo to hi by one panel of the filters and transforms the sums back.
func (d *winograd) product(w *winogradWorker, p *panel, lo, hi int, points []float32, point int) {
	t, sums := &w.tile, d.sumPoint()
	t.AOff, t.COff, t.AStride = d.aOff[:hi-lo], d.cOff[:hi-lo], 1
	t.LDB = p.ldb
	step, u := d.tiles.c, d.u
	if d.fused {
		step, u = fusedRows, w.filters
	}
	for c := 0; c < d.tiles.c; c += step {
		n := min(step, d.tiles.c-c)
		if c > 0 {
			points = points[d.slice():]
		}
		if d.fused {
			d.filters(w, p, c, n, u)
		} else {
			u = u[p.off:]
		}
		w.seg[0] = gemm.Seg{Len: n}
		t.Segs = w.seg[:]
		for _, e := range d.alg.terms { // each has a sum of its own
			t.A = points[e.in*point:]
			for _, q := range d.parts[p.cols] {
				t.B, t.C, t.Cols = u[e.weight*d.uPoint+q.col:], w.sums[e.sum*sums+q.col:], q.cols
				t.In = nil
				if c > 0 {
					t.In = t.C
				}
				t.Run()
			}
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
	m := d.alg.out
	for i := lo; i < hi; i++ {
		n, y, x := d.tiles.at(i)
		y, x = y*m-d.top, x*m-d.left
		rows, cols, from := min(d.outH-y, m), min(d.outW-x, m), &w.sums[d.cOff[i-lo]]
		if y >= 0 && x >= 0 {
			out := &d.out[((n*d.outH+y)*d.outW+x)*d.outC+p.col]
			d.alg.result(out, d.outW*d.outC, d.outC, from, sums, rows, cols, p.cols, bias, relu, &w.tmp[0])
			continue
		}
		d.alg.result(&w.edge[0], m*p.cols, p.cols, from, sums, rows, cols, p.cols, bias, relu, &w.tmp[0])
		for j := max(0, -y); j < rows; j++ {
			for k := max(0, -x); k < cols; k++ {
				copy(d.out[((n*d.outH+y+j)*d.outW+x+k)*d.outC+p.col:], w.edge[(j*m+k)*p.cols:][:p.cols])
			}
		}
	}
}

// tiling cuts the images of a batch into tiles of size×size pixels at distances of step.
type tiling struct {
	h, w, c   int // the images
	top, left int // the first tile starts at pixel (−top, −left)
	size      int
	step      int
	n         int // tiles of the batch
	th, tw    int // tiles of an image
	zero      []float32
}

// cut makes th×tw tiles of each image.
func (t *tiling) cut(images, th, tw int) {
	t.th, t.tw = th, tw
	t.n = images * th * tw
	t.zero = make([]float32, t.size*t.c)
}

// groups is how many tiles to transform at a time if one has that many floats of points: all or as many as sharedFloats hold.
func (t *tiling) groups(floats int) int {
	most := max(1, sharedFloats/floats)
	if t.n <= most+most/2 {
		return t.n
	}
	n := (t.n + most - 1) / most
	return ((t.n+n-1)/n + 47) / 48 * 48
}

// at says which image tile i is of, and which down and across.
func (t *tiling) at(i int) (n, y, x int) { return i / (t.th * t.tw), i / t.tw % t.th, i % t.tw }

// transform takes channels c to c+channels of tiles lo to hi to points: point p of tile t goes to dst[p·point + (t−lo)·stride].
func (t *tiling) transform(f expandFunc, w *winogradWorker, img []float32, lo, hi, c, channels int, dst []float32, stride, point int) {
	for i := lo; i < hi; i++ {
		n, y, x := t.at(i)
		y, x = y*t.step-t.top, x*t.step-t.left
		j0 := max(0, -x)
		j1 := max(j0, min(t.size, t.w-x))
		for r := range t.size {
			if iy := y + r; iy >= 0 && iy < t.h && j0 < j1 {
				w.rows[r] = img[((n*t.h+iy)*t.w+x+j0)*t.c+c:]
			} else {
				w.rows[r] = t.zero
			}
		}
		f(&dst[(i-lo)*stride], point, &w.rows[0], t.c, j0, j1, channels, &w.tmp[0])
	}
	clear(w.rows[:])
}
