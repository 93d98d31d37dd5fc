package convpool

import (
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

// strip is a part of the three rows of 3·Cin floats that a pixel of the result depends on.
type strip struct {
	row, col int
	run      combineFunc
}

// lists are sparse rows: entry i of list l is at l·stride+i.
type lists struct {
	stride int
	off    []int32
	g      []float32
	count  []int32
}

func newLists(n, longest int) lists {
	// Each list may be written one entry beyond its end, and whole vectors.
	s := (longest+15)/16*16 + skew
	return lists{s, make([]int32, n*s), make([]float32, n*s), make([]int32, n)}
}

// filterChunks is how many parts the batch is cut into at most. Each has sums of its own, added in order at the end.
const filterChunks = 16

// listGrad computes the gradient of the filters from one list of pixels for each output channel.
type listGrad struct {
	*Plan
	strips  []strip
	images  int // of a chunk
	chunks  int
	lines   int       // of windows that are listed at a time
	part    int       // floats of a part
	parts   []float32 // [chunk][Cout][3][3·Cin], then [Cout] for db
	rows    []int32   // where the sums of a channel start in a part
	partOff []int32   // where the parts start
	ones    []float32
	all     [1]int32 // how many there are
	workers []*listWorker
	adding  bool // the phase in progress
	x, dy   []float32
	idx     []uint8
	dw, db  []float32
}

type listWorker struct {
	lists
	sum  []float32 // [addRows][3][3·Cin]
	void [1]float32
	none []float32
}

// addRows is how many channels a chunk of the last phase adds up.
const addRows = 8

// listWindows is about how many windows are listed at a time: the pixels that they depend on should stay in L1.
const listWindows = 32

func newListGrad(p *Plan) *listGrad {
	s := &p.spec
	d := &listGrad{Plan: p, strips: strips(p.level, 3*s.Cin, true)}
	d.images = (s.N + filterChunks - 1) / filterChunks
	d.chunks = (s.N + d.images - 1) / d.images
	d.lines = max(1, min(listWindows/p.pw, p.ph))
	d.part = 9*s.Cin*s.Cout + s.Cout + skew
	d.parts, d.all[0] = make([]float32, d.chunks*d.part), int32(d.chunks)
	for c := range s.Cout {
		d.rows = append(d.rows, int32(9*s.Cin*c))
	}
	for c := range d.chunks {
		d.partOff = append(d.partOff, int32(c*d.part))
		d.ones = append(d.ones, 1)
	}
	return d
}

func (d *listGrad) run(pool *par.Pool, x []float32, idx []uint8, dy, dw, db []float32) {
	s := &d.spec
	for len(d.workers) < pool.Threads() {
		d.workers = append(d.workers, &listWorker{lists: newLists(s.Cout, d.lines*d.pw), sum: make([]float32, addRows*9*s.Cin), none: make([]float32, s.Cout)})
	}
	d.x, d.idx, d.dy, d.dw, d.db = x, idx, dy, dw, db
	d.adding = false
	pool.Run(d.chunks, d)
	d.adding = true
	pool.Run((s.Cout+addRows-1)/addRows, d)
	d.x, d.idx, d.dy, d.dw, d.db = nil, nil, nil, nil, nil
}

// Chunk computes the sums of some images, or adds up those of some channels.
func (d *listGrad) Chunk(i, worker int) {
	w := d.workers[worker]
	if d.adding {
		d.add(w, i*addRows)
		return
	}
	s := &d.spec
	part := d.parts[i*d.part:][:d.part]
	clear(part)
	for n := i * d.images; n < min((i+1)*d.images, s.N); n++ {
		for py := 0; py < d.ph; py += d.lines {
			lines := min(d.lines, d.ph-py)
			d.list(w, n, py, lines)
			sums := part[9*s.Cin*s.Cout:]
			for _, t := range d.strips {
				t.run(&part[t.row*3*s.Cin+t.col], &d.rows[0], 3*s.Cin, &d.x[((n*s.H+2*py+t.row)*s.W)*s.Cin+t.col], s.W*s.Cin,
					&w.off[0], &w.g[0], &w.count[0], w.stride, s.Cout, &sums[0])
				sums = w.none
			}
		}
	}
}

// list makes the lists of some lines of windows of image n: where the winning pixel's patch starts, and its gradient.
func (d *listGrad) list(w *listWorker, n, py, lines int) {
	s := &d.spec
	clear(w.count)
	var at [8]int32 // by position, for the first window of a line
	for l := range lines {
		row := 2 * l * s.W * s.Cin
		at = [8]int32{int32(row), int32(row + s.Cin), int32(row + s.W*s.Cin), int32(row + s.W*s.Cin + s.Cin)}
		for px := range d.pw {
			o := ((n*d.ph+py+l)*d.pw + px) * s.Cout
			ix, dy := d.idx[o:][:s.Cout], d.dy[o:][:s.Cout]
			for c, k := range ix {
				e := w.count[c]
				w.off[c*w.stride+int(e)] = at[k&7]
				w.g[c*w.stride+int(e)] = dy[c]
				w.count[c] = e + alive[k&7]
			}
			for k := range 4 {
				at[k] += int32(2 * s.Cin)
			}
		}
	}
}

// alive is 1 for the positions that have a gradient.
var alive = [8]int32{1, 1, 1, 1}

// add adds the parts' sums for channels c on, in order, and turns them into columns of dw.
func (d *listGrad) add(w *listWorker, c int) {
	s := &d.spec
	n := min(addRows, s.Cout-c)
	row := 9 * s.Cin
	clear(w.sum)
	for k := range n {
		for _, t := range d.strips {
			at := t.row*3*s.Cin + t.col
			t.run(&w.sum[k*row+at], &d.rows[0], 3*s.Cin, &d.parts[(c+k)*row+at], 3*s.Cin, &d.partOff[0], &d.ones[0], &d.all[0], 0, 1, &w.void[0])
		}
		sum := float32(0)
		for i := range d.chunks {
			sum += d.parts[i*d.part+row*s.Cout+c+k]
		}
		d.db[c+k] = sum
	}
	gemm.Transpose(d.dw[c:], w.sum, s.Cout, row, n, row)
}

// laneGrad computes the gradient of the filters with a vector of output channels, each of which picks from the four pixels of
// its window under each tap.
type laneGrad struct {
	*Plan
	width   int
	cols    []int // where the vectors start; the last may overlap the one before it
	kernel  lanesFunc
	images  int // of a chunk
	chunks  int
	parts   []float32 // [chunk][Cin][vector][9 taps, then db][width]
	workers [][]float32
	x, dy   []float32
	idx     []uint8
}

func newLaneGrad(p *Plan) *laneGrad {
	s := &p.spec
	d := &laneGrad{Plan: p}
	d.width, d.kernel = lanesKernel(p.level, s.Cout)
	for j := 0; j < s.Cout; j += d.width {
		d.cols = append(d.cols, min(j, s.Cout-d.width))
	}
	d.images = (s.N + filterChunks - 1) / filterChunks
	d.chunks = (s.N + d.images - 1) / d.images
	d.parts = make([]float32, d.chunks*d.part())
	return d
}

func (d *laneGrad) part() int { return d.spec.Cin*len(d.cols)*10*d.width + skew }

// pairRows is how many rows of pairs an image has: row r holds the pixels of rows r and r+1 in turn.
func (d *laneGrad) pairRows() int { return 2*d.ph + 1 }

func (d *laneGrad) run(pool *par.Pool, x []float32, idx []uint8, dy, dw, db []float32) {
	s := &d.spec
	for len(d.workers) < pool.Threads() {
		d.workers = append(d.workers, make([]float32, d.pairRows()*2*s.W))
	}
	d.x, d.idx, d.dy = x, idx, dy
	pool.Run(d.chunks, d)
	d.x, d.idx, d.dy = nil, nil, nil
	clear(dw)
	clear(db)
	for i := range d.chunks {
		part := d.parts[i*d.part():]
		for c := range s.Cin {
			from := 0 // columns before it are done
			for _, col := range d.cols {
				for j := from; j < col+d.width; j++ {
					for t := range 9 {
						dw[(t*s.Cin+c)*s.Cout+j] += part[t*d.width+j-col]
					}
					if c == 0 {
						db[j] += part[9*d.width+j-col]
					}
				}
				from = col + d.width
				part = part[10*d.width:]
			}
		}
	}
}

// Chunk computes the sums of some images.
func (d *laneGrad) Chunk(i, worker int) {
	s := &d.spec
	pairs := d.workers[worker]
	part := d.parts[i*d.part():][:d.part()]
	clear(part)
	for n := i * d.images; n < min((i+1)*d.images, s.N); n++ {
		for c := range s.Cin {
			d.pair(pairs, d.x[n*s.H*s.W*s.Cin+c:])
			for j, col := range d.cols {
				at := n*d.ph*d.pw*s.Cout + col
				d.kernel(&part[(c*len(d.cols)+j)*10*d.width], &pairs[0], 2*s.W, &d.idx[at], &d.dy[at], s.Cout, d.ph, d.pw)
			}
		}
	}
}

// pair fills the rows of pairs with one channel of an image.
func (d *laneGrad) pair(pairs, x []float32) {
	s := &d.spec
	for r := range d.pairRows() {
		dst := pairs[r*2*s.W:][:2*s.W]
		a, b := x[r*s.W*s.Cin:], x[(r+1)*s.W*s.Cin:]
		for j := range s.W {
			dst[2*j], dst[2*j+1] = a[j*s.Cin], b[j*s.Cin]
		}
	}
}

func newFilterGrad(p *Plan) filterGrad {
	if p.useLists() {
		return newListGrad(p)
	}
	return newLaneGrad(p)
}

// inputGrad computes the gradient of the images from one list of channels for each pixel of the convolution's result.
type inputGrad struct {
	plan    *Plan
	strips  []strip
	wT      []float32 // [3][Cout][3·Cin]: the taps that a channel spreads its gradient over
	at      []int32   // where the patch of a pixel of a line starts in the image, pixels in the order of windows and positions
	workers []*inputWorker
	turning bool // the phase in progress
	w, dy   []float32
	idx     []uint8
	dx      []float32
}

type inputWorker struct {
	lists
	none []float32
}

// turnRows is how many rows of filters a chunk transposes.
const turnRows = 32

func (d *inputGrad) init(p *Plan) {
	s := &p.spec
	d.plan = p
	d.strips = strips(p.level, 3*s.Cin, false)
	d.wT = make([]float32, s.SizeW())
	for px := range p.pw {
		for k := range 4 {
			d.at = append(d.at, int32(((k/2)*s.W+2*px+k%2)*s.Cin))
		}
	}
}

func (d *inputGrad) run(pool *par.Pool, w []float32, idx []uint8, dy, dx []float32) {
	s := &d.plan.spec
	for len(d.workers) < pool.Threads() {
		// One list more than pixels: the dead of the last window.
		d.workers = append(d.workers, &inputWorker{newLists(4*d.plan.pw+1, s.Cout), make([]float32, 4*d.plan.pw)})
	}
	d.w, d.idx, d.dy, d.dx = w, idx, dy, dx
	d.turning = true
	pool.Run(3*((3*s.Cin+turnRows-1)/turnRows), d)
	d.turning = false
	pool.Run(s.N, d)
	d.w, d.idx, d.dy, d.dx = nil, nil, nil, nil
}

// Chunk transposes some filters, or computes an image.
func (d *inputGrad) Chunk(i, worker int) {
	p, s := d.plan, &d.plan.spec
	rows := 3 * s.Cin
	if d.turning {
		n := (rows + turnRows - 1) / turnRows
		ky, r := i/n, i%n*turnRows
		gemm.Transpose(d.wT[ky*rows*s.Cout+r:], d.w[(ky*rows+r)*s.Cout:], rows, s.Cout, min(turnRows, rows-r), s.Cout)
		return
	}
	w := d.workers[worker]
	image := s.H * s.W * s.Cin
	dx := d.dx[i*image:][:image]
	clear(dx)
	for py := range p.ph {
		d.list(w, i*p.ph+py)
		for _, t := range d.strips {
			t.run(&dx[(2*py+t.row)*s.W*s.Cin+t.col], &d.at[0], s.W*s.Cin, &d.wT[t.row*rows*s.Cout+t.col], rows*s.Cout,
				&w.off[0], &w.g[0], &w.count[0], w.stride, 4*p.pw, &w.none[0])
		}
	}
}

// list makes the lists of a line of windows: the channels that have a gradient at a pixel, and it.
func (d *inputGrad) list(w *inputWorker, line int) {
	s := &d.plan.spec
	step := int32(3 * s.Cin)
	for px := range d.plan.pw {
		o := (line*d.plan.pw + px) * s.Cout
		ix, dy := d.idx[o:][:s.Cout], d.dy[o:][:s.Cout]
		// The dead go to the list after the window's own, which is the next window's first and is overwritten.
		var count [8]int32
		off, g := w.off[4*px*w.stride:][:5*w.stride], w.g[4*px*w.stride:][:5*w.stride]
		at := int32(0)
		for c, k := range ix {
			e := int(k&7)*w.stride + int(count[k&7])
			off[e], g[e] = at, dy[c]
			count[k&7]++
			at += step
		}
		copy(w.count[4*px:4*px+4], count[:])
	}
	clear(w.none)
}
