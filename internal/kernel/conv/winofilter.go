package conv

import (
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/kernel/vec"
	"github.com/jouleml/joule/internal/par"
)

// winogradFilter computes dw by a bilinear algorithm: at stride 1 for r×r filters F(r×r, m×m), r = 3 or 5 and m = 7−r, at stride 2
// for 3×3 filters that of strided.go. Each tile of dy acts as a filter on the pixels of x that it meets and gives a part of the
// gradient. For each term the sum over the tiles is a matrix product xᵀ·dy of the transformed images, as many rows deep as there
// are tiles; the sums are transformed back once at the end.
//
// An item is a block of channels of either image and a part of the tiles. It transforms its channels of some tiles at a time and
// adds their products to its sums, which all stay in L2. So a tile's channels are transformed once for each block of the other
// image's, which costs less than to write the points of all tiles to memory and read them again. The parts are fixed, and
// added up in order: the same bits for any number of threads.
type winogradFilter struct {
	alg        algorithm
	x, y       tiling
	blocks     []filterBlock // of channels
	parts      int
	tiles      int       // that are transformed at a time
	sums       []float32 // [part][block][sum][row][column], if there are several parts
	workers    []*winogradWorker
	phase      filterGradPhase
	in, dy, dw []float32
	aOff, cOff []int
	panels     [blockCols + 1][]panel // of so many columns
	add        vec.BinaryVVFunc
}

// filterBlock is rows c to c+n (of input channels) and columns k to k+cols (of output channels) of dw.
type filterBlock struct{ c, n, k, cols int }

type filterGradPhase int

const (
	productsPhase filterGradPhase = iota
	sumPhase
	resultPhase
)

const (
	// blockRows is how many input channels a block has at most, and filterTiles how many tiles are transformed at a time.
	blockRows   = 64
	filterTiles = 48
	// filterItems is how many items there should be, if there are more than partTiles tiles for each.
	filterItems = 8
)

// partTiles is a variable for the tests, which make several parts of few tiles.
var partTiles = 96

func newWinogradFilter(s Spec) *winogradFilter {
	f := &winogradFilter{add: vec.Binary(vec.Add)}
	if s.StrideH == 2 {
		f.alg = stridedGradient()
	} else {
		f.alg = toomGrad(s.KH)
	}
	m := f.alg.r
	f.x = tiling{h: s.H, w: s.W, c: s.Cin, top: s.PadTop, left: s.PadLeft, size: f.alg.size, step: f.alg.step}
	f.y = tiling{h: s.OH(), w: s.OW(), c: s.Cout, size: m, step: m}
	f.x.cut(s.N, ceilDiv(s.OH(), m), ceilDiv(s.OW(), m))
	f.y.cut(s.N, ceilDiv(s.OH(), m), ceilDiv(s.OW(), m))
	for _, c := range cutColumns(s.Cin, blockRows) {
		for _, k := range cutColumns(s.Cout, blockCols) {
			f.panels[k.cols] = cutColumns(k.cols, gemm.NR())
			f.blocks = append(f.blocks, filterBlock{c.col, c.cols, k.col, k.cols})
		}
	}
	f.parts = max(1, min(ceilDiv(filterItems, len(f.blocks)), f.x.n/partTiles))
	part := ceilDiv(f.x.n, f.parts)
	f.tiles = ceilDiv(part, ceilDiv(part, filterTiles))
	if f.parts > 1 {
		f.sums = make([]float32, f.parts*len(f.blocks)*f.blockSums())
	}
	for i := range blockRows {
		f.aOff = append(f.aOff, i)
		f.cOff = append(f.cOff, i*blockCols)
	}
	return f
}

// blockPoint is the number of floats from one point to the next in the sums of a block, blockSums those of all.
func (f *winogradFilter) blockPoint() int { return blockRows*blockCols + skew }
func (f *winogradFilter) blockSums() int  { return f.alg.sums * f.alg.sums * f.blockPoint() }

// xPoint and yPoint are the numbers of floats from one point to the next in the points of a worker.
func (f *winogradFilter) xPoint() int { return f.tiles*blockRows + skew }
func (f *winogradFilter) yPoint() int { return f.tiles*blockCols + skew }

func (f *winogradFilter) name() string { return "winograd" }

func (f *winogradFilter) flops() int64 {
	c, k := f.x.c, f.y.c
	across, down := 0, 0 // blocks: how often an image is transformed
	for _, b := range f.blocks {
		if b.c == 0 {
			across++
		}
		if b.k == 0 {
			down++
		}
	}
	again := f.alg.flops(f.x.n, c, 0, 0) * int64(across-1)
	return f.alg.flops(f.x.n, c, k, c*k) + again + f.alg.filterFLOPs(f.x.n*k)*int64(down)
}

func (f *winogradFilter) run(pool *par.Pool, x, dy, dw []float32) {
	a := &f.alg
	for len(f.workers) < pool.Threads() {
		w := &winogradWorker{tmp: make([]float32, tmpFloats)}
		w.points = make([]float32, a.in*a.in*f.xPoint())
		w.grads = make([]float32, a.weights*a.weights*f.yPoint())
		if f.parts == 1 {
			w.sums = make([]float32, f.blockSums())
		}
		f.workers = append(f.workers, w)
	}
	f.in, f.dy, f.dw = x, dy, dw
	f.phase = productsPhase
	pool.Run(f.parts*len(f.blocks), f)
	if f.parts > 1 {
		f.phase = sumPhase
		pool.Run(len(f.blocks)*a.sums*a.sums, f)
		f.phase = resultPhase
		pool.Run(f.x.c, f)
	}
	f.in, f.dy, f.dw = nil, nil, nil
}

// Chunk computes a chunk of the phase in progress.
func (f *winogradFilter) Chunk(i, worker int) {
	w := f.workers[worker]
	switch f.phase {
	case productsPhase:
		part, b := i/len(f.blocks), &f.blocks[i%len(f.blocks)]
		sums := w.sums
		if f.parts > 1 {
			sums = f.sums[i*f.blockSums():]
		}
		first, end := part*f.x.n/f.parts, (part+1)*f.x.n/f.parts
		for t := first; t < end; t += f.tiles {
			f.products(w, b, sums, t, min(t+f.tiles, end), t == first)
		}
		if f.parts == 1 {
			for c := range b.n {
				f.result(w, b, c, sums)
			}
		}
	case sumPhase:
		block, point := i/(f.alg.sums*f.alg.sums), i%(f.alg.sums*f.alg.sums)
		n := f.blocks[block].n * blockCols
		dst := f.sums[block*f.blockSums()+point*f.blockPoint():][:n]
		for p := 1; p < f.parts; p++ {
			f.add(dst, dst, f.sums[(p*len(f.blocks)+block)*f.blockSums()+point*f.blockPoint():][:n])
		}
	case resultPhase:
		for j := range f.blocks {
			if b := &f.blocks[j]; i >= b.c && i < b.c+b.n {
				f.result(w, b, i-b.c, f.sums[j*f.blockSums():])
			}
		}
	}
}

// products adds what tiles lo to hi give to the sums of block b, or sets them.
func (f *winogradFilter) products(w *winogradWorker, b *filterBlock, sums []float32, lo, hi int, set bool) {
	a, t := &f.alg, &w.tile
	c, k := vectors(b.n), vectors(b.cols)
	f.x.transform(a.expand, w, f.in, lo, hi, b.c, b.n, w.points, c, f.xPoint())
	f.y.transform(a.filter, w, f.dy, lo, hi, b.k, b.cols, w.grads, k, f.yPoint())
	t.AOff, t.AStride, t.Columns = f.aOff[:b.n], c, true
	t.LDB, t.COff = k, f.cOff[:b.n]
	w.seg[0] = gemm.Seg{Len: hi - lo}
	t.Segs = w.seg[:]
	for _, e := range a.terms {
		t.A = w.points[e.in*f.xPoint():]
		for _, p := range f.panels[b.cols] {
			t.B, t.C, t.Cols = w.grads[e.weight*f.yPoint()+p.col:], sums[e.sum*f.blockPoint()+p.col:], p.cols
			t.In = t.C
			if set && e.first {
				t.In = nil
			}
			t.Run()
		}
	}
}

// result transforms row c of block b back.
func (f *winogradFilter) result(w *winogradWorker, b *filterBlock, c int, sums []float32) {
	row, r := f.x.c*f.y.c, f.alg.out
	f.alg.result(&f.dw[(b.c+c)*f.y.c+b.k], r*row, row, &sums[f.cOff[c]], f.blockPoint(), r, r, b.cols, nil, 0, &w.tmp[0])
}
