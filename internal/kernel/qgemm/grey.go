package qgemm

import "github.com/jouleml/joule/internal/par"

// Convolutions of 3×3 on images of one channel, with AVX2: few products, so that what is done beside them counts. Nine taps are five pairs of 16 bits, in place of two for each line: the first
// two of each line as they lie, the last ones of the first two lines from a copy of the image in which each pixel stands beside the one below it. The weights of 16 filters, or of the last 8, stay in
// registers for a line of results.

// grey is how a plan computes such a convolution.
type grey struct {
	*Plan
	width, height int     // of results
	line          int     // pixels of a line with what lies around it
	copied        bool    // there is something around it, or more is read than there is
	lines         int     // of results in a chunk
	rows          int     // of pixels that they need, at most
	b             []int16 // [panel][5][16][2], the last perhaps [5][8][2]
	workers       []*greyWorker
}

type greyWorker struct {
	bytes []uint8 // the lines of a chunk, if they are copied
	wide  []int16 // the same in 16 bits
	pairs []int16 // each with the one below it
}

const greyPairs = 5

// canGrey reports whether the plan is such a convolution.
func (p *Plan) canGrey() bool {
	c := p.Conv
	if c == nil || p.level != avx2 || p.M == 0 || c.C != 1 || c.KH != 3 || c.KW != 3 || c.DilH > 1 || c.DilW > 1 || p.N%(slim/2) != 0 || p.Pool && (c.StrideH > 1 || c.StrideW > 1) {
		return false
	}
	w, h := p.outputs()
	return w > 0 && h > 0
}

func newGrey(s Spec) *Plan {
	p := &Plan{Spec: s, level: current(), scale: make([]float32, s.N), offset: make([]float32, s.N)}
	c, d := s.Conv, &grey{Plan: p}
	p.algorithm = d
	d.width, d.height = p.outputs()
	pools := d.pools()
	across, down := (pools*d.width-1)*c.StrideW+3, (pools*d.height-1)*c.StrideH+3
	d.copied = c.PadTop > 0 || c.PadLeft > 0 || across > c.W || down > c.H
	d.line = c.W
	if d.copied {
		d.line = max(c.PadLeft+c.W, across)
	}
	cycles := d.width * s.N * pools * pools // about
	lines := s.M / d.width
	d.lines = min(max(1, (chunkCycles+cycles-1)/cycles, min(directLines, lines/16)), lines)
	d.rows = (min(d.lines, d.height)*pools-1)*c.StrideH + 3
	d.b = make([]int16, s.N*greyPairs*2)
	return p
}

func (d *grey) bytes() int { return 2 * len(d.b) }

// set keeps weights b [3, 3, N].
func (d *grey) set(b []int8) {
	for j := range d.N {
		first := j / slim * slim
		cols := min(slim, d.N-first)
		to := d.b[first*greyPairs*2+(j-first)*2:]
		for y := range 3 {
			for x := range 3 {
				pair, half := y, x
				if x == 2 {
					pair, half = 3+y/2, y%2
				}
				to[pair*2*cols+half] = int16(b[(3*y+x)*d.N+j])
			}
		}
	}
}

func (d *grey) run(pool *par.Pool, a []uint8) {
	for len(d.workers) < pool.Threads() {
		n := d.rows*d.line + 2*slack
		w := &greyWorker{wide: make([]int16, n), pairs: make([]int16, 2*n)}
		if d.copied {
			w.bytes = make([]uint8, n)
		}
		d.workers = append(d.workers, w)
	}
	d.a = a
	pool.Run((d.M/d.width+d.lines-1)/d.lines, d)
	d.a = nil
}

// Chunk computes some lines of results; it is for package par.
func (d *grey) Chunk(i, worker int) {
	w, c, pools := d.workers[worker], d.Conv, d.pools()
	size, last := c.H*c.W, min((i+1)*d.lines, d.M/d.width)
	for at := i * d.lines; at < last; {
		image, y := at/d.height, at%d.height
		lines := min(last-at, d.height-y)
		x, top, rows := d.a[image*size:][:size], y*pools*c.StrideH-c.PadTop, (lines*pools-1)*c.StrideH+3
		if d.copied {
			c.copyLines(w.bytes, x, top, rows, d.line)
			x = w.bytes
		} else {
			x = x[top*d.line:]
		}
		whole := rows * d.line
		blocks := whole / 16 * 16
		widenRows(w.wide, x, blocks)
		for k, v := range x[blocks:whole] {
			w.wide[blocks+k] = int16(v)
		}
		weave(w.pairs, w.wide, w.wide[d.line:], (whole-d.line+15)/16)
		for j := 0; j < d.N; j += slim {
			for l := range lines {
				d.results(w, l*pools*c.StrideH*d.line, (at+l)*d.width*d.N+j, j)
			}
		}
		at += lines
	}
}

// results computes a line of results of the panel at j, for patches from the given pixel of the copies on.
func (d *grey) results(w *greyWorker, from, to, j int) {
	cols, step := min(slim, d.N-j), d.pools()*d.Conv.StrideW
	b := d.b[j*greyPairs*2:][:cols*greyPairs*2]
	x, pairs, scale, offset := w.wide[from:], w.pairs[2*from:], d.scale[j:][:cols], d.offset[j:][:cols]
	if d.yf == nil {
		greyBytes(d.Pool, d.y8[to:], d.N, x, pairs, d.line, step, b, scale, offset, d.least(), d.width)
		return
	}
	greyFloats(d.Pool, d.yf[to:], d.N, x, pairs, d.line, step, b, scale, offset, d.least(), d.width)
}
