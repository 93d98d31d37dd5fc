// Package pool computes max and average pooling of float32 images on the CPU, and their gradients.
//
// Images are x [N,H,W,C], results y [N,OH,OW,C]. A window's pixels are visited in row-major order; of equal greatest pixels
// the first counts. Padding is never the greatest. Everything runs over vectors of channels.
//
// The gradient of a maximum finds the greatest pixels again from x: that reads x once more, but an index for each element of
// y would have to be written, kept and read.
//
// Work is cut by rows of images, and windows that overlap are added up in order of their rows and columns, so results are
// the same bits for any number of threads.
package pool

import "github.com/jouleml/joule/internal/par"

//go:generate sh -c "cd _asm && go run ."

// Spec is a pooling over windows of KH×KW pixels. Strides of 0 mean the window's size, as in Keras.
type Spec struct {
	N, H, W, C                           int
	KH, KW                               int
	StrideH, StrideW                     int
	PadTop, PadBottom, PadLeft, PadRight int
	CountPad                             bool // of averages: padding counts as zeros; otherwise the mean is over real pixels
}

func (s Spec) normal() Spec {
	if s.StrideH == 0 {
		s.StrideH = s.KH
	}
	if s.StrideW == 0 {
		s.StrideW = s.KW
	}
	switch {
	case s.N < 0 || s.H < 1 || s.W < 1 || s.C < 1 || s.KH < 1 || s.KW < 1 || s.StrideH < 1 || s.StrideW < 1:
		panic("pool: New: sizes must be positive")
	case min(s.PadTop, s.PadBottom, s.PadLeft, s.PadRight) < 0 || max(s.PadTop, s.PadBottom) >= s.KH || max(s.PadLeft, s.PadRight) >= s.KW:
		panic("pool: New: padding must be less than the window")
	case s.OH() < 1 || s.OW() < 1:
		panic("pool: New: the window does not fit on the image")
	}
	return s
}

// OH is the height of y.
func (s Spec) OH() int { return outSize(s.H+s.PadTop+s.PadBottom, s.KH, s.StrideH) }

// OW is the width of y.
func (s Spec) OW() int { return outSize(s.W+s.PadLeft+s.PadRight, s.KW, s.StrideW) }

func outSize(n, k, stride int) int {
	if stride == 0 {
		stride = k
	}
	if n < k {
		return 0
	}
	return (n-k)/stride + 1
}

// SizeX is the number of elements of x.
func (s Spec) SizeX() int { return s.N * s.H * s.W * s.C }

// SizeY is the number of elements of y.
func (s Spec) SizeY() int { return s.N * s.OH() * s.OW() * s.C }

// Plan computes one pooling and its gradients: one call at a time. No call allocates.
type Plan struct {
	s      Spec
	oh, ow int
	rows   int // output rows of a chunk of the forward directions
	chunks int
	bands  []band
	line   []run   // the windows of an output row
	taps   [][]int // for each number of rows and of columns of real pixels, from 1: where they are
	step   int     // elements of x from one window of a run to the next
	k      kernels

	// The gradients add to dx where windows overlap; otherwise they store, and what no window covers must be cleared.
	add     int
	covered bool

	do       func(p *Plan, w windows)
	gradient bool
	x, y, v  []float32
}

// band is a part of an image for the gradients: windows of output rows oy0 to oy1 send into rows y0 to y1 of x, and no other
// windows do.
type band struct{ n, oy0, oy1, y0, y1 int }

// chunkFloats is about how many elements of x a chunk reads.
const chunkFloats = 32 << 10

// New makes the plan of s. It panics on a Spec that describes no pooling: shapes were checked when the graph was built.
func New(s Spec) *Plan {
	s = s.normal()
	p := &Plan{s: s, oh: s.OH(), ow: s.OW()}
	p.rows = max(1, chunkFloats/(s.StrideH*s.W*s.C))
	p.chunks = (s.N*p.oh + p.rows - 1) / p.rows
	// Rows of windows that overlap stay together; others may be split anywhere.
	step := p.oh
	if s.KH <= s.StrideH {
		step = min(p.rows, p.oh)
	}
	for n := range s.N {
		for oy := 0; oy < p.oh; oy += step {
			b := band{n: n, oy0: oy, oy1: min(oy+step, p.oh), y1: s.H}
			if oy > 0 {
				b.y0 = oy*s.StrideH - s.PadTop
			}
			if b.oy1 < p.oh {
				b.y1 = b.oy1*s.StrideH - s.PadTop
			}
			p.bands = append(p.bands, b)
		}
	}
	p.line = s.runs()
	for rows := 1; rows <= s.KH; rows++ {
		for cols := 1; cols <= s.KW; cols++ {
			var t []int
			for i := range rows {
				for j := range cols {
					t = append(t, (i*s.W+j)*s.C)
				}
			}
			p.taps = append(p.taps, t)
		}
	}
	p.step = s.StrideW * s.C
	if s.KH > s.StrideH || s.KW > s.StrideW {
		p.add = 1
	}
	p.covered = covers(s.H, p.oh, s.KH, s.StrideH, s.PadTop) && covers(s.W, p.ow, s.KW, s.StrideW, s.PadLeft)
	p.k = newKernels()
	return p
}

// covers reports whether out windows of k pixels cover all n.
func covers(n, out, k, stride, pad int) bool { return k >= stride && (out-1)*stride-pad+k >= n }

// Spec is what the plan was made for, defaults filled in.
func (p *Plan) Spec() Spec { return p.s }

// MaxForward computes y [N,OH,OW,C], the greatest pixels of the windows of x [N,H,W,C]. A NaN counts as greatest only if it
// is the first pixel of its window.
func (p *Plan) MaxForward(pool *par.Pool, x, y []float32) {
	p.forward(pool, x, nil, y, (*Plan).maxRun)
}

// MaxPick computes y [N,OH,OW,C], the elements of v [N,H,W,C] that stand where x is greatest: the gradient of MaxBackward for
// its dy.
func (p *Plan) MaxPick(pool *par.Pool, x, v, y []float32) {
	checkLen(len(v), p.s.SizeX(), "pool: length of v")
	p.forward(pool, x, v, y, (*Plan).pickRun)
}

// AvgForward computes y [N,OH,OW,C], the means of the windows of x [N,H,W,C].
func (p *Plan) AvgForward(pool *par.Pool, x, y []float32) {
	p.forward(pool, x, nil, y, (*Plan).avgRun)
}

// MaxBackward computes dx [N,H,W,C], the gradient for x of MaxForward: dy [N,OH,OW,C] goes to the greatest pixels of x.
func (p *Plan) MaxBackward(pool *par.Pool, x, dy, dx []float32) {
	checkLen(len(x), p.s.SizeX(), "pool: length of x")
	p.v = x
	p.backward(pool, dy, dx, (*Plan).scatterRun)
}

// AvgBackward computes dx [N,H,W,C], the gradient for x of AvgForward: each pixel of a window gets its share of dy [N,OH,OW,C].
func (p *Plan) AvgBackward(pool *par.Pool, dy, dx []float32) {
	p.backward(pool, dy, dx, (*Plan).spreadRun)
}

func (p *Plan) forward(pool *par.Pool, x, v, y []float32, do func(*Plan, windows)) {
	checkLen(len(x), p.s.SizeX(), "pool: length of x")
	checkLen(len(y), p.s.SizeY(), "pool: length of y")
	p.x, p.v, p.y, p.do, p.gradient = x, v, y, do, false
	pool.Run(p.chunks, p)
	p.x, p.v, p.y = nil, nil, nil
}

func (p *Plan) backward(pool *par.Pool, dy, dx []float32, do func(*Plan, windows)) {
	checkLen(len(dx), p.s.SizeX(), "pool: length of dx")
	checkLen(len(dy), p.s.SizeY(), "pool: length of dy")
	p.x, p.y, p.do, p.gradient = dx, dy, do, true
	pool.Run(len(p.bands), p)
	p.x, p.v, p.y = nil, nil, nil
}

func checkLen(got, want int, what string) {
	if got != want {
		panic(what)
	}
}

// Chunk computes chunk i of the call in progress.
func (p *Plan) Chunk(i, _ int) {
	if !p.gradient {
		for r := i * p.rows; r < min((i+1)*p.rows, p.s.N*p.oh); r++ {
			for _, run := range p.line {
				p.do(p, p.windows(r/p.oh, r%p.oh, run))
			}
		}
		return
	}
	b := &p.bands[i]
	if p.add != 0 || !p.covered {
		p.clearBand(b)
	}
	for oy := b.oy0; oy < b.oy1; oy++ {
		for _, run := range p.line {
			p.do(p, p.windows(b.n, oy, run))
		}
	}
}

// run is windows next to each other in a row that have the same number of columns of real pixels.
type run struct {
	ox, count int // the windows
	x         int // first real column of the first
	cols      int
}

// runs cuts the windows of a row into runs.
func (s Spec) runs() []run {
	var rs []run
	for ox := range s.OW() {
		x := ox*s.StrideW - s.PadLeft
		x0 := max(x, 0)
		cols := min(x+s.KW, s.W) - x0
		if n := len(rs) - 1; n >= 0 && rs[n].cols == cols && x0 == rs[n].x+rs[n].count*s.StrideW {
			rs[n].count++
			continue
		}
		rs = append(rs, run{ox, 1, x0, cols})
	}
	return rs
}

// windows is a run of windows with their place in memory: the first real pixel of the first one is element x of the images,
// its result element y.
type windows struct {
	run
	taps []int // where the real pixels of a window are, in elements from the first one
	x, y int
	// share is what the sum of a window is multiplied by to make its mean.
	share float32
}

// windows is run r of the windows of output row oy of image n.
func (p *Plan) windows(n, oy int, r run) windows {
	s := &p.s
	y := oy*s.StrideH - s.PadTop
	y0 := max(y, 0)
	rows := min(y+s.KH, s.H) - y0
	w := windows{run: r, taps: p.taps[(rows-1)*s.KW+r.cols-1], share: 1 / float32(rows*r.cols)}
	w.x = ((n*s.H+y0)*s.W + r.x) * s.C
	w.y = ((n*p.oh+oy)*p.ow + r.ox) * s.C
	if s.CountPad {
		w.share = 1 / float32(s.KH*s.KW)
	}
	return w
}

func (p *Plan) maxRun(w windows) {
	p.k.max(&p.y[w.y], &p.x[w.x], &w.taps[0], len(w.taps), p.step, w.count, p.s.C)
}

func (p *Plan) pickRun(w windows) {
	p.k.pick(&p.y[w.y], &p.x[w.x], &p.v[w.x], &w.taps[0], len(w.taps), p.step, w.count, p.s.C)
}

func (p *Plan) avgRun(w windows) {
	p.k.sum(&p.y[w.y], &p.x[w.x], &w.taps[0], len(w.taps), p.step, w.count, p.s.C, w.share)
}

func (p *Plan) scatterRun(w windows) {
	p.k.scatter(&p.x[w.x], &p.v[w.x], &p.y[w.y], &w.taps[0], len(w.taps), p.step, w.count, p.s.C, p.add)
}

func (p *Plan) spreadRun(w windows) {
	p.k.spread(&p.x[w.x], &p.y[w.y], &w.taps[0], len(w.taps), p.step, w.count, p.s.C, w.share, p.add)
}

func (p *Plan) clearBand(b *band) {
	row := p.s.W * p.s.C
	clear(p.x[(b.n*p.s.H+b.y0)*row : (b.n*p.s.H+b.y1)*row])
}
