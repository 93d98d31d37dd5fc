package conv

import (
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

// spread computes dx for images of so few channels that a pixel of dx fills only a small part of a vector. It multiplies each
// pixel of dy by the filters of all taps at once, a row of KH·KW·Cin columns, and adds the results to the pixels of dx that
// they belong to, a line of the filter at a time. An image is a chunk.
type spread struct {
	spec    Spec
	oh, ow  int
	columns int
	panels  gemm.Panels
	ld      int // floats of a row of products
	rows    int // rows of dy that are multiplied at a time
	b       []float32
	segs    [1]gemm.Seg
	aOff    []int
	cOff    []int
	workers []*spreadWorker
	in, out []float32
}

type spreadWorker struct {
	tile gemm.Tile
	prod []float32
}

// spreadPixels is about how many pixels of dy are multiplied at a time: their products should stay in L1.
const spreadPixels = 48

func newSpread(s Spec) *spread {
	d := &spread{spec: s, oh: s.OH(), ow: s.OW(), columns: s.KH * s.KW * s.Cin}
	d.panels = gemm.NewPanels(s.Cout, d.columns)
	d.b = make([]float32, d.panels.Len())
	d.ld = (d.columns + 7) &^ 7
	d.rows = min(d.oh, (spreadPixels+d.ow-1)/d.ow)
	d.segs[0].Len = s.Cout
	for i := range d.rows * d.ow {
		d.aOff = append(d.aOff, i*s.Cout)
		d.cOff = append(d.cOff, i*d.ld)
	}
	return d
}

func (d *spread) name() string { return "spread" }

func (d *spread) flops() int64 {
	return int64(d.spec.N*d.oh*d.ow*d.columns) * int64(2*d.spec.Cout+1)
}

func (d *spread) setFilter(_ *par.Pool, w []float32) {
	d.panels.Pack(d.b, w, d.spec.Cout, true) // few numbers: not worth a fork
}

func (d *spread) run(pool *par.Pool, in, _, out []float32) {
	for len(d.workers) < pool.Threads() {
		d.workers = append(d.workers, &spreadWorker{prod: make([]float32, len(d.aOff)*d.ld)})
	}
	d.in, d.out = in, out
	pool.Run(d.spec.N, d)
	d.in, d.out = nil, nil
}

// Chunk computes image n.
func (d *spread) Chunk(n, worker int) {
	s, w := &d.spec, d.workers[worker]
	dx := d.out[n*s.H*s.W*s.Cin:][:s.H*s.W*s.Cin]
	clear(dx)
	t := &w.tile
	t.AStride, t.Segs = 1, d.segs[:]
	for oy := 0; oy < d.oh; oy += d.rows {
		rows := min(d.rows, d.oh-oy)
		t.A = d.in[(n*d.oh+oy)*d.ow*s.Cout:]
		t.AOff, t.COff = d.aOff[:rows*d.ow], d.cOff[:rows*d.ow]
		for p := range d.panels.Count() {
			off, ldb, j, cols := d.panels.Panel(p)
			t.B, t.LDB, t.Cols, t.C = d.b[off:], ldb, cols, w.prod[j:]
			t.Run()
		}
		for r := range rows {
			d.add(dx, w.prod[r*d.ow*d.ld:], oy+r)
		}
	}
}

// add adds the products of row oy of dy to the image dx.
func (d *spread) add(dx, prod []float32, oy int) {
	s := &d.spec
	run, taps := s.KW*s.Cin, 1 // a line of the filter is one run of dx, unless it is dilated
	if s.DilW > 1 {
		run, taps = s.Cin, s.KW
	}
	line := s.W * s.Cin
	for ky := range s.KH {
		iy := oy*s.StrideH - s.PadTop + ky*s.DilH
		if iy < 0 || iy >= s.H {
			continue
		}
		row := dx[iy*line:][:line]
		for kx := range taps {
			at := (kx*s.DilW - s.PadLeft) * s.Cin
			col := (ky*s.KW + kx) * s.Cin
			for ox := range d.ow {
				lo, hi := max(at, 0), min(at+run, line)
				if lo < hi {
					p := prod[ox*d.ld+col+lo-at:][:hi-lo]
					to := row[lo:hi]
					for i, v := range p {
						to[i] += v
					}
				}
				at += s.StrideW * s.Cin
			}
		}
	}
}
