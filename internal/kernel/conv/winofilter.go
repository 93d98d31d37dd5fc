package conv

import (
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

// winogradFilter computes dw for r×r filters at stride 1 by F(r×r, m×m), r = 3 or 5 and m = 7−r: each m×m tile of dy acts as a
// filter on the 6×6 pixels of x that it meets and gives a part of the r×r gradient. At each of the 36 points the sum over the tiles is a matrix
// product xᵀ·dy of the transformed images, as many rows deep as there are tiles; it is transformed back once at the end.
//
// The tiles are taken in groups whose points fit into the cache. If all tiles make one group, an item is a block of dw at all
// points, which it transforms back itself; otherwise an item is a block at one point, whose sums stay in memory.
type winogradFilter struct {
	r          int // taps along an axis
	x, y       tiling
	tr         transforms
	group      int
	xp, yp     []float32 // points of a group: [point][tile][channel]
	blocks     []filterBlock
	sums       []float32 // [point][Cin][Cout], if there are several groups
	workers    []*winogradWorker
	phase      filterGradPhase
	t0, t1     int
	in, dy, dw []float32
	aOff, cOff []int
	perPoint   bool
}

// filterBlock is rows c to c+n (of input channels) and columns k to k+cols (of output channels) of dw.
type filterBlock struct{ c, n, k, cols int }

type filterGradPhase int

const (
	expandPhase filterGradPhase = iota
	sumPhase
	resultPhase
)

// blockRows is how many input channels a block has at most.
const blockRows = 96

func newWinogradFilter(s Spec) *winogradFilter {
	f := &winogradFilter{r: s.KH, tr: newTransforms()}
	f.x = tiling{h: s.H, w: s.W, c: s.Cin, top: s.PadTop, left: s.PadLeft, size: 6, step: 7 - s.KH}
	f.y = tiling{h: s.OH(), w: s.OW(), c: s.Cout, size: 7 - s.KH, step: 7 - s.KH}
	f.x.cut(s.N, s.OH(), s.OW())
	f.y.cut(s.N, s.OH(), s.OW())
	f.group = max(1, f.x.groups(max(s.Cin, s.Cout)))
	f.xp = make([]float32, pointsN*f.xPoint())
	f.yp = make([]float32, pointsN*f.yPoint())
	nr := gemm.NR() / 16 * 16
	for k := 0; k < s.Cout; k += nr {
		for c := 0; c < s.Cin; c += blockRows {
			f.blocks = append(f.blocks, filterBlock{c, min(blockRows, s.Cin-c), k, min(nr, s.Cout-k)})
		}
	}
	f.perPoint = f.group < f.x.n || len(f.blocks) < 8
	ld := gemm.NR()
	if f.perPoint {
		f.sums = make([]float32, pointsN*f.sumPoint())
		ld = s.Cout
	}
	for i := range blockRows {
		f.aOff = append(f.aOff, i)
		f.cOff = append(f.cOff, i*ld)
	}
	return f
}

func (f *winogradFilter) xPoint() int { return f.group*f.x.c + skew }
func (f *winogradFilter) yPoint() int { return f.group*f.y.c + skew }

// sumPoint is the number of floats from one point to the next in sums, blockPoint in those of a worker.
func (f *winogradFilter) sumPoint() int   { return f.x.c*f.y.c + skew }
func (f *winogradFilter) blockPoint() int { return blockRows*gemm.NR() + skew }

func (f *winogradFilter) name() string { return "winograd" }

func (f *winogradFilter) flops() int64 {
	t, c, k, m := int64(f.x.n), int64(f.x.c), int64(f.y.c), f.y.size
	return 2*pointsN*t*c*k + t*(c*12*pointsOps+k*int64(6+m)*filterOps(m)) + c*k*int64(6+f.r)*resultOps(f.r)
}

func (f *winogradFilter) run(pool *par.Pool, x, dy, dw []float32) {
	for len(f.workers) < pool.Threads() {
		w := &winogradWorker{tmp: make([]float32, pointsN*16)}
		if !f.perPoint {
			w.sums = make([]float32, pointsN*f.blockPoint())
		}
		f.workers = append(f.workers, w)
	}
	f.in, f.dy, f.dw = x, dy, dw
	for f.t0 = 0; f.t0 < f.x.n; f.t0 = f.t1 {
		f.t1 = min(f.t0+f.group, f.x.n)
		f.phase = expandPhase
		pool.Run(2*((f.t1-f.t0+pointsChunk-1)/pointsChunk), f)
		f.phase = sumPhase
		items := len(f.blocks)
		if f.perPoint {
			items *= pointsN
		}
		pool.Run(items, f)
	}
	if f.perPoint {
		f.phase = resultPhase
		pool.Run(f.x.c, f)
	}
	f.in, f.dy, f.dw = nil, nil, nil
}

// Chunk computes a chunk of the phase in progress.
func (f *winogradFilter) Chunk(i, worker int) {
	w := f.workers[worker]
	switch f.phase {
	case expandPhase:
		lo := f.t0 + i/2*pointsChunk
		hi, at := min(lo+pointsChunk, f.t1), i/2*pointsChunk
		if i%2 == 0 {
			f.x.transform(f.tr.points, w, f.in, lo, hi, f.xp[at*f.x.c:], f.xPoint())
		} else {
			f.y.transform(f.tr.filter[f.y.size], w, f.dy, lo, hi, f.yp[at*f.y.c:], f.yPoint())
		}
	case sumPhase:
		if f.perPoint {
			p, b := i/len(f.blocks), &f.blocks[i%len(f.blocks)]
			sums := f.sums[p*f.sumPoint()+b.c*f.y.c+b.k:]
			if f.t0 == 0 {
				f.product(w, p, b, sums, nil)
			} else {
				f.product(w, p, b, sums, sums)
			}
			return
		}
		b := &f.blocks[i]
		for p := range pointsN {
			f.product(w, p, b, w.sums[p*f.blockPoint():], nil)
		}
		for c := range b.n {
			f.result(w, b.c+c, b.k, b.cols, w.sums[f.cOff[c]:], f.blockPoint())
		}
	case resultPhase:
		f.result(w, i, 0, f.y.c, f.sums[i*f.y.c:], f.sumPoint())
	}
}

// product adds the group's part of block b at point p to in, which may be nil, and stores it in sums.
func (f *winogradFilter) product(w *winogradWorker, p int, b *filterBlock, sums, in []float32) {
	t := &w.tile
	t.A, t.AOff, t.AStride, t.Columns = f.xp[p*f.xPoint()+b.c:], f.aOff[:b.n], f.x.c, true
	t.B, t.LDB, t.Cols = f.yp[p*f.yPoint()+b.k:], f.y.c, b.cols
	t.C, t.COff, t.In = sums, f.cOff[:b.n], in
	w.seg[0] = gemm.Seg{Len: f.t1 - f.t0}
	t.Segs = w.seg[:]
	t.Run()
}

// result transforms input channel c, output channels k to k+n back.
func (f *winogradFilter) result(w *winogradWorker, c, k, n int, sums []float32, point int) {
	row := f.x.c * f.y.c
	f.tr.result[f.r](&f.dw[c*f.y.c+k], f.r*row, row, &sums[0], point, f.r, f.r, n, nil, 0, &w.tmp[0])
}
