package conv

import (
	"github.com/jouleml/joule/internal/par"
)

// depthwise computes a product in which each channel has a filter of its own: out[c] = Σ taps in[c]·w[tap][c], vectors of
// channels at a time. It reads the images and the filters in place.
type depthwise struct {
	images        int
	inH, inW      int
	outH, outW, c int
	kw            int
	act           Act
	v, h          []taps // of each output coordinate
	w             []float32
	in, bias, out []float32
	executed      int64
}

// taps are the taps that one output coordinate needs and the input coordinates that it meets there.
type taps struct{ k, in []int }

func (a axis) taps() []taps {
	n := 0
	for _, c := range a.classes {
		n += len(c.outs)
	}
	out := make([]taps, n)
	for _, c := range a.classes {
		for j, o := range c.outs {
			for p := range c.n {
				out[o].k = append(out[o].k, a.order[c.pos+p])
				out[o].in = append(out[o].in, c.ins[j]+p*c.step)
			}
		}
	}
	return out
}

func newDepthwiseForward(s Spec) *depthwise {
	d := &depthwise{images: s.N, inH: s.H, inW: s.W, outH: s.OH(), outW: s.OW(), c: s.Cin, kw: s.KW, act: s.Epilogue.Act,
		v: forwardAxis(s.H, s.OH(), s.KH, s.StrideH, s.PadTop, s.DilH).taps(),
		h: forwardAxis(s.W, s.OW(), s.KW, s.StrideW, s.PadLeft, s.DilW).taps()}
	d.count()
	return d
}

func newDepthwiseBackward(s Spec) *depthwise {
	d := &depthwise{images: s.N, inH: s.OH(), inW: s.OW(), outH: s.H, outW: s.W, c: s.Cin, kw: s.KW,
		v: backwardAxis(s.H, s.OH(), s.KH, s.StrideH, s.PadTop, s.DilH).taps(),
		h: backwardAxis(s.W, s.OW(), s.KW, s.StrideW, s.PadLeft, s.DilW).taps()}
	d.count()
	return d
}

func (d *depthwise) count() {
	var v, h int64
	for _, t := range d.v {
		v += int64(len(t.k))
	}
	for _, t := range d.h {
		h += int64(len(t.k))
	}
	d.executed = 2 * v * h * int64(d.images*d.c)
}

func (d *depthwise) name() string { return "depthwise" }

func (d *depthwise) flops() int64 { return d.executed }

func (d *depthwise) setFilter(_ *par.Pool, w []float32) { d.w = w }

func (d *depthwise) run(pool *par.Pool, in, bias, out []float32) {
	d.in, d.bias, d.out = in, bias, out
	pool.Run(d.images*d.outH, d)
	d.in, d.bias, d.out = nil, nil, nil
}

// Chunk computes one row of output pixels.
func (d *depthwise) Chunk(i, _ int) {
	n, oy := i/d.outH, i%d.outH
	v := &d.v[oy]
	for ox := range d.outW {
		out := d.out[(i*d.outW+ox)*d.c:][:d.c]
		if d.bias != nil {
			copy(out, d.bias)
		} else {
			clear(out)
		}
		h := &d.h[ox]
		for y, ky := range v.k {
			for x, kx := range h.k {
				in := d.in[((n*d.inH+v.in[y])*d.inW+h.in[x])*d.c:][:d.c]
				w := d.w[(ky*d.kw+kx)*d.c:][:d.c]
				for j := range out {
					out[j] += in[j] * w[j]
				}
			}
		}
		if d.act == ReLU {
			for j, y := range out {
				if y < 0 {
					out[j] = 0
				}
			}
		}
	}
}

// depthwiseFilter computes dw[tap][c] = Σ pixels x[c]·dy[c]. The output rows of the batch are cut into fixed parts, each with
// a dw of its own, added up in order at the end.
type depthwiseFilter struct {
	spec     Spec
	v, h     []taps
	oh, ow   int
	parts    int
	partial  []float32
	x, y     []float32
	sum      sum
	executed int64
}

func newDepthwiseFilter(s Spec) *depthwiseFilter {
	d := newDepthwiseForward(s)
	f := &depthwiseFilter{spec: s, v: d.v, h: d.h, oh: s.OH(), ow: s.OW(), executed: d.executed}
	f.parts = max(1, min(s.N*f.oh, 16))
	f.partial = make([]float32, f.parts*s.SizeW())
	return f
}

func (f *depthwiseFilter) name() string { return "depthwise" }

func (f *depthwiseFilter) flops() int64 { return f.executed }

func (f *depthwiseFilter) run(pool *par.Pool, x, dy, dw []float32) {
	f.x, f.y = x, dy
	pool.Run(f.parts, f)
	f.sum.run(pool, f.partial, dw)
	f.x, f.y = nil, nil
}

// Chunk computes one part.
func (f *depthwiseFilter) Chunk(part, _ int) {
	s, c := &f.spec, f.spec.Cin
	dw := f.partial[part*s.SizeW():][:s.SizeW()]
	clear(dw)
	rows := s.N * f.oh
	for r := part * rows / f.parts; r < (part+1)*rows/f.parts; r++ {
		n, v := r/f.oh, &f.v[r%f.oh]
		for ox := range f.ow {
			dy, h := f.y[(r*f.ow+ox)*c:][:c], &f.h[ox]
			for y, ky := range v.k {
				for x, kx := range h.k {
					in := f.x[((n*s.H+v.in[y])*s.W+h.in[x])*c:][:c]
					acc := dw[(ky*s.KW+kx)*c:][:c]
					for j := range acc {
						acc[j] += in[j] * dy[j]
					}
				}
			}
		}
	}
}
