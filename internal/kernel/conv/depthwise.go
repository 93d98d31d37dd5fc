package conv

import (
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// depthwise computes a product in which each channel has a filter of its own: out[c] = Σ taps in[c]·w[tap][c], vectors of
// channels at a time. It reads the images and the filters in place. Each row of output pixels is a few runs: neighbours, at
// a fixed distance, that need the same taps.
type depthwise struct {
	images        int
	inH, inW      int
	outH, outW, c int
	act           Act
	lines         [][]run // for each vertical class
	class, base   []int   // of each output row: its vertical class, and its first input row there
	rows, chunks  int     // output rows of a chunk
	w             []float32
	in, bias, out []float32
	executed      int64
	kernel        depthwiseFunc
}

// run is some pixels of an output row that need the same taps.
type run struct {
	out, in         int // first pixel of the output, and the pixel of the input that it meets at the first tap
	outStep, inStep int // from one pixel to the next
	pixels          int
	taps            []int // for each tap, where its pixels lie in the input and its filters in w, in elements
}

// depthwiseFunc computes, for p in [0, pixels) and j in [0, c),
//
//	y[p·yStride+j] = act(bias[j] + Σ x[taps[2t]+p·xStride+j]·w[taps[2t+1]+j])
//
// over t in [0, nTaps), nTaps > 0; bias may be nil, act is max(0, ·) if relu is 1.
type depthwiseFunc func(y, x, w *float32, taps *int, nTaps, yStride, xStride, pixels, c int, bias *float32, relu int)

// depthwiseFilterFunc adds to dw[taps[2t+1]+j], for t in [0, nTaps) and j in [0, c), the sum of
// x[taps[2t]+p·xStride+j]·dy[p·yStride+j] over p in [0, pixels), pixels > 0.
type depthwiseFilterFunc func(dw, x, dy *float32, taps *int, nTaps, yStride, xStride, pixels, c int)

func newDepthwiseForward(s Spec) *depthwise {
	d := &depthwise{images: s.N, inH: s.H, inW: s.W, outH: s.OH(), outW: s.OW(), c: s.Cin, act: s.Epilogue.Act}
	d.plan(s.KW, forwardAxis(s.H, s.OH(), s.KH, s.StrideH, s.PadTop, s.DilH),
		forwardAxis(s.W, s.OW(), s.KW, s.StrideW, s.PadLeft, s.DilW))
	return d
}

func newDepthwiseBackward(s Spec) *depthwise {
	d := &depthwise{images: s.N, inH: s.OH(), inW: s.OW(), outH: s.H, outW: s.W, c: s.Cin}
	d.plan(s.KW, backwardAxis(s.H, s.OH(), s.KH, s.StrideH, s.PadTop, s.DilH),
		backwardAxis(s.W, s.OW(), s.KW, s.StrideW, s.PadLeft, s.DilW))
	return d
}

// depthwiseFloats is about how many elements of the output a chunk makes.
const depthwiseFloats = 16 << 10

func (d *depthwise) plan(kw int, v, h axis) {
	d.kernel = depthwiseGo
	if l := isa.Current(); l != isa.Portable {
		d.kernel, _ = depthwiseVec(l)
	}
	d.class, d.base = make([]int, d.outH), make([]int, d.outH)
	for i, vc := range v.classes {
		var line []run
		for _, hc := range h.classes {
			var taps []int
			for y := range vc.n {
				for x := range hc.n {
					taps = append(taps, (y*vc.step*d.inW+x*hc.step)*d.c, (v.order[vc.pos+y]*kw+h.order[hc.pos+x])*d.c)
				}
			}
			line = hc.runs(line, taps)
			d.executed += int64(d.images*len(vc.outs)*len(hc.outs)*len(taps)) * int64(d.c)
		}
		d.lines = append(d.lines, line)
		for j, o := range vc.outs {
			d.class[o], d.base[o] = i, vc.ins[j]
		}
	}
	d.rows = max(1, depthwiseFloats/(d.outW*d.c))
	d.chunks = (d.images*d.outH + d.rows - 1) / d.rows
}

// runs appends the output coordinates of the class to line, as runs that need taps.
func (c *axisClass) runs(line []run, taps []int) []run {
	for i := 0; i < len(c.outs); {
		r := run{out: c.outs[i], in: c.ins[i], pixels: 1, taps: taps}
		if i+1 < len(c.outs) {
			r.outStep, r.inStep = c.outs[i+1]-r.out, c.ins[i+1]-r.in
		}
		for i++; i < len(c.outs) && c.outs[i]-c.outs[i-1] == r.outStep && c.ins[i]-c.ins[i-1] == r.inStep; i++ {
			r.pixels++
		}
		line = append(line, r)
	}
	return line
}

func (d *depthwise) name() string { return "depthwise" }

func (d *depthwise) flops() int64 { return d.executed }

func (d *depthwise) setFilter(_ *par.Pool, w []float32) { d.w = w }

func (d *depthwise) run(pool *par.Pool, in, bias, out []float32) {
	d.in, d.bias, d.out = in, bias, out
	pool.Run(d.chunks, d)
	d.in, d.bias, d.out = nil, nil, nil
}

// Chunk computes some rows of output pixels.
func (d *depthwise) Chunk(i, _ int) {
	relu := 0
	if d.act == ReLU {
		relu = 1
	}
	var bias *float32
	if d.bias != nil {
		bias = &d.bias[0]
	}
	for r := i * d.rows; r < min((i+1)*d.rows, d.images*d.outH); r++ {
		n, oy := r/d.outH, r%d.outH
		line := d.lines[d.class[oy]]
		for j := range line {
			run := &line[j]
			out := d.out[(r*d.outW+run.out)*d.c:]
			if len(run.taps) == 0 {
				d.fill(out, run)
				continue
			}
			in := d.in[((n*d.inH+d.base[oy])*d.inW+run.in)*d.c:]
			d.kernel(&out[0], &in[0], &d.w[0], &run.taps[0], len(run.taps)/2, run.outStep*d.c, run.inStep*d.c, run.pixels, d.c, bias, relu)
		}
	}
}

// fill stores what pixels get that meet only padding.
func (d *depthwise) fill(out []float32, r *run) {
	for p := range r.pixels {
		y := out[p*r.outStep*d.c:][:d.c]
		if d.bias == nil {
			clear(y)
			continue
		}
		for j, b := range d.bias {
			if d.act == ReLU && b < 0 {
				b = 0
			}
			y[j] = b
		}
	}
}

// depthwiseFilter computes dw[tap][c] = Σ pixels x[c]·dy[c]. The output rows of the batch are cut into fixed parts, each with
// a dw of its own, added up in order at the end.
type depthwiseFilter struct {
	rows    *depthwise // the geometry
	taps    int
	parts   int
	partial []float32
	x, y    []float32
	sum     sum
	kernel  depthwiseFilterFunc
}

func newDepthwiseFilter(s Spec) *depthwiseFilter {
	f := &depthwiseFilter{rows: newDepthwiseForward(s), taps: s.KH * s.KW, kernel: depthwiseFilterGo}
	if l := isa.Current(); l != isa.Portable {
		_, f.kernel = depthwiseVec(l)
	}
	f.parts = max(1, min(f.rows.chunks, 16))
	f.partial = make([]float32, f.parts*s.SizeW())
	return f
}

func (f *depthwiseFilter) name() string { return "depthwise" }

func (f *depthwiseFilter) flops() int64 { return f.rows.executed }

func (f *depthwiseFilter) run(pool *par.Pool, x, dy, dw []float32) {
	f.x, f.y = x, dy
	pool.Run(f.parts, f)
	f.sum.run(pool, f.partial, dw)
	f.x, f.y = nil, nil
}

// Chunk computes one part.
func (f *depthwiseFilter) Chunk(part, _ int) {
	d := f.rows
	dw := f.partial[part*f.taps*d.c:][:f.taps*d.c]
	clear(dw)
	rows := d.images * d.outH
	for r := part * rows / f.parts; r < (part+1)*rows/f.parts; r++ {
		n, oy := r/d.outH, r%d.outH
		line := d.lines[d.class[oy]]
		for j := range line {
			run := &line[j]
			if len(run.taps) == 0 {
				continue
			}
			dy := f.y[(r*d.outW+run.out)*d.c:]
			x := f.x[((n*d.inH+d.base[oy])*d.inW+run.in)*d.c:]
			f.kernel(&dw[0], &x[0], &dy[0], &run.taps[0], len(run.taps)/2, run.outStep*d.c, run.inStep*d.c, run.pixels, d.c)
		}
	}
}
