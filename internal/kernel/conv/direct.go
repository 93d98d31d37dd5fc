package conv

import (
	"slices"

	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

// direct computes a product with the tile kernel of package gemm straight from the NHWC images: no patch is ever copied, and
// no tap that falls on padding is multiplied. The output pixels are sorted into classes, the pairs of a vertical and a
// horizontal axisClass: those that need the same taps. The pixels of a class, over all images of the batch, are the rows of a
// matrix product whose A is read in place, through the offsets of the pixels and of the taps; its B is the filters.
type direct struct {
	images           int
	inH, inW, inC    int
	outH, outW, outC int
	kc, nc           int // channels of input and of output in a group
	groups           int
	kw               int
	v, h             axis
	order            [][2]int // ky and kx of each block of kc rows of B: the taps of two phases lie together
	classes          []class
	items            []item
	backward         bool // filters are transposed and their taps in the order of the axes
	act              Act
	panels           []panel // of each group in turn
	perGroup         int     // panels of a group
	packed           []float32
	b                []float32 // packed, or the caller's filters in place
	fused            bool      // threads pack panels as they come to them, see fuse
	pixels           bool      // rows are the pixels of the images in order, at aPixels and cPixels from an item's first
	aPixels, cPixels []int
	workers          []*directWorker
	in, bias, out    []float32
	w                []float32
	packing          packing
}

// class is the output pixels that need the same taps.
type class struct {
	v, h  *axisClass
	steps []step
	block int // rows that go through all steps and panels before the next rows do
}

// step is one call of the tile kernel: a run of rows of B and the places in A that they meet.
type step struct {
	b    int // first row of B
	segs []gemm.Seg
}

// item is a piece of work: some pixels of a class by some panels.
type item struct {
	class      int
	row, rows  int
	panel, end int
}

// panel is up to gemm.NR() columns of B: row k of it is at off + k·ldb.
type panel struct {
	off, ldb  int
	col, cols int // output channels, counted over all groups
}

type directWorker struct {
	tile       gemm.Tile
	aOff, cOff []int
	panel      []float32 // of a fused plan
}

// Limits of the cutting into items and steps.
const (
	itemFLOPs   = 6 << 20   // about 60 µs on one core
	maxRows     = 480       // rows of an item at most
	minRows     = 48        // and at least, where there are so many: B is read once for each item
	stepBytes   = 512 << 10 // of a panel, for one step: it should stay in L2
	panelFloats = 256 << 10 // of filters that stay in L2
	fusedPanels = 8         // of a fused plan, or more
	blockBytes  = 24 << 10  // of a block's rows of A, which each panel reads: they should stay in L1
)

func newDirectForward(s Spec) *direct {
	d := &direct{
		images: s.N, inH: s.H, inW: s.W, inC: s.Cin, outH: s.OH(), outW: s.OW(), outC: s.Cout,
		kc: s.Cin / s.Groups, nc: s.Cout / s.Groups, groups: s.Groups, kw: s.KW, act: s.Epilogue.Act,
		v: forwardAxis(s.H, s.OH(), s.KH, s.StrideH, s.PadTop, s.DilH),
		h: forwardAxis(s.W, s.OW(), s.KW, s.StrideW, s.PadLeft, s.DilW),
	}
	d.pixels = s.pointwise()
	d.plan()
	return d
}

func newDirectBackward(s Spec) *direct {
	d := &direct{
		images: s.N, inH: s.OH(), inW: s.OW(), inC: s.Cout, outH: s.H, outW: s.W, outC: s.Cin,
		kc: s.Cout / s.Groups, nc: s.Cin / s.Groups, groups: s.Groups, kw: s.KW, backward: true,
		v: backwardAxis(s.H, s.OH(), s.KH, s.StrideH, s.PadTop, s.DilH),
		h: backwardAxis(s.W, s.OW(), s.KW, s.StrideW, s.PadLeft, s.DilW),
	}
	d.pixels = s.pointwise()
	d.plan()
	return d
}

func (d *direct) name() string { return "direct" }

func (d *direct) taps() int { return len(d.v.order) * len(d.h.order) }

func (d *direct) plan() {
	d.planPanels()
	if d.pixels {
		for i := range maxRows {
			d.aPixels, d.cPixels = append(d.aPixels, i*d.inC), append(d.cPixels, i*d.outC)
		}
	}
	for _, v := range d.v.phases {
		for _, h := range d.h.phases {
			for _, ky := range d.v.order[v.lo:][:v.n] {
				for _, kx := range d.h.order[h.lo:][:h.n] {
					d.order = append(d.order, [2]int{ky, kx})
				}
			}
		}
	}
	for i := range d.v.classes {
		for j := range d.h.classes {
			d.planClass(&d.v.classes[i], &d.h.classes[j])
		}
	}
	if d.fused {
		slices.SortStableFunc(d.items, func(a, b item) int { return a.panel - b.panel })
	}
}

// fuse reports whether a thread should pack a panel when it comes to it and then compute all that needs it: where the filters fit in
// no L2 and are larger than the images, each is then read from memory once and written nowhere.
func (d *direct) fuse() bool {
	b := d.taps() * d.kc * d.nc
	return d.groups == 1 && d.nc > fusedPanels*16 && b > panelFloats && b > d.images*d.inH*d.inW*d.kc
}

// planPanels lays B out. Filters in HWIO are B already, forward; they are read in place if their rows are short. Rows of
// 2 kB would meet in few sets of the caches.
func (d *direct) planPanels() {
	nr, k := gemm.NR(), d.taps()*d.kc
	d.fused = d.fuse()
	if d.fused { // a chunk a panel
		nr = min(nr, max(32, d.nc/fusedPanels/16*16))
	}
	d.perGroup = (d.nc + nr - 1) / nr
	inPlace := !d.backward && (d.perGroup == 1 || d.groups > 1)
	off := 0
	for g := range d.groups {
		for j := 0; j < d.nc; j += nr {
			p := panel{off: off, col: g*d.nc + j, cols: min(nr, d.nc-j)}
			if inPlace {
				p.off, p.ldb = p.col, d.outC
			} else {
				p.ldb = ceilDiv(p.cols, gemm.Lanes()) * gemm.Lanes()
				if !d.fused {
					off += k * p.ldb
				}
			}
			d.panels = append(d.panels, p)
		}
	}
	d.packed = make([]float32, off)
	d.packing.d = d
}

// planClass plans the pixels at which vertical class v meets horizontal class h.
func (d *direct) planClass(v, h *axisClass) {
	c := class{v: v, h: h}
	if v.n > 0 && h.n > 0 {
		base := v.phase.lo*len(d.h.order) + v.phase.n*h.phase.lo
		limit := max(1, stepBytes/(4*gemm.NR()))
		rows := 0 // of the last step
		for y := range v.n {
			row := (base + (v.pos-v.phase.lo+y)*h.phase.n + h.pos - h.phase.lo) * d.kc
			off := y * v.step * d.inW * d.inC
			var segs []gemm.Seg
			if d.groups == 1 && (h.step == 1 || h.n == 1) {
				segs = append(segs, gemm.Seg{Off: off, Len: h.n * d.kc})
			} else {
				for x := range h.n {
					segs = append(segs, gemm.Seg{Off: off + x*h.step*d.inC, Len: d.kc})
				}
			}
			if last := len(c.steps) - 1; last >= 0 && c.steps[last].b+rows == row && rows+h.n*d.kc <= limit {
				c.steps[last].segs = append(c.steps[last].segs, segs...)
				rows += h.n * d.kc
			} else {
				c.steps = append(c.steps, step{row, segs})
				rows = h.n * d.kc
			}
		}
	}
	// Longer rows than these do not fit in L1 anyway, and B would be read from L2 more often.
	c.block = maxRows
	if k := v.n * h.n * d.kc; k > 0 && k <= blockBytes/4/24 {
		c.block = blockBytes / 4 / k / 24 * 24
	}
	d.classes = append(d.classes, c)

	total := d.images * len(v.outs) * len(h.outs)
	perRow := 2 * max(1, v.n*h.n) * d.kc * d.nc
	rows := itemFLOPs / perRow / 24 * 24
	rows = evenRows(total, min(max(rows, minRows), maxRows), gemm.TileRows(min(d.nc, gemm.NR())))
	if d.fused {
		rows = maxRows
	}
	for g := range d.groups {
		for r := 0; r < total; r += rows {
			n := min(rows, total-r)
			panels := d.perGroup
			if d.fused {
				panels = 1
			} else if flops := n * perRow; flops > 4*itemFLOPs { // few pixels, many channels
				panels = max(1, panels*4*itemFLOPs/flops)
			}
			for p := 0; p < d.perGroup; p += panels {
				d.items = append(d.items, item{len(d.classes) - 1, r, n, g*d.perGroup + p, g*d.perGroup + min(p+panels, d.perGroup)})
			}
		}
	}
}

// evenRows is about how many rows of total, a multiple of the height of a tile, an item should have for four threads to end together.
func evenRows(total, rows, tile int) int {
	best, least := rows, 0
	for r := min(rows*3/2, maxRows) / tile * tile; r >= max(minRows, rows*2/3); r -= tile {
		if longest := ceilDiv(ceilDiv(total, r), 4) * r; least == 0 || longest < least {
			best, least = r, longest
		}
	}
	return best
}

func (d *direct) flops() int64 {
	var n int64
	for _, c := range d.classes {
		n += 2 * int64(d.images*len(c.v.outs)*len(c.h.outs)*c.v.n*c.h.n) * int64(d.kc*d.outC)
	}
	return n
}

func (d *direct) setFilter(pool *par.Pool, w []float32) {
	d.w = w
	if d.fused {
		return
	}
	if len(d.packed) == 0 {
		d.b = w
		return
	}
	pool.Run(len(d.panels)*d.taps(), &d.packing)
	d.b, d.w = d.packed, nil
}

// packing copies the filters into panels; a chunk is one tap of one panel.
type packing struct{ d *direct }

func (p *packing) Chunk(i, _ int) {
	p.d.pack(p.d.packed, &p.d.panels[i/p.d.taps()], i%p.d.taps())
}

// pack copies the tap at position pos of a panel.
func (d *direct) pack(dst []float32, pn *panel, pos int) {
	ky, kx := d.order[pos][0], d.order[pos][1]
	dst = dst[pn.off+pos*d.kc*pn.ldb:][:d.kc*pn.ldb]
	panels := gemm.NewPanels(d.kc, pn.cols)
	if !d.backward {
		panels.Pack(dst, d.w[(ky*d.kw+kx)*d.kc*d.outC+pn.col:], d.outC, false)
		return
	}
	// w[tap] is [input channels of the convolution in a group][its output channels]; B needs the transpose.
	g := pn.col / d.nc
	panels.Pack(dst, d.w[((ky*d.kw+kx)*d.nc+pn.col-g*d.nc)*d.inC+g*d.kc:], d.inC, true)
}

func (d *direct) run(pool *par.Pool, in, bias, out []float32) {
	for len(d.workers) < pool.Threads() {
		w := &directWorker{aOff: make([]int, maxRows), cOff: make([]int, maxRows)}
		if d.fused {
			w.panel = make([]float32, d.taps()*d.kc*d.panels[0].ldb)
		}
		d.workers = append(d.workers, w)
	}
	d.in, d.bias, d.out = in, bias, out
	if d.fused {
		pool.Run(len(d.panels), d)
	} else {
		pool.Run(len(d.items), d)
	}
	d.in, d.bias, d.out = nil, nil, nil
}

// Chunk computes one item, or all those of a panel.
func (d *direct) Chunk(i, worker int) {
	w := d.workers[worker]
	if !d.fused {
		d.compute(w, &d.items[i], d.b)
		return
	}
	for pos := range d.taps() {
		d.pack(w.panel, &d.panels[i], pos)
	}
	n := len(d.items) / len(d.panels)
	for j := range n {
		d.compute(w, &d.items[i*n+j], w.panel)
	}
}

// compute computes one item with filters b.
func (d *direct) compute(w *directWorker, it *item, b []float32) {
	c := &d.classes[it.class]
	if d.pixels {
		d.rows(w, c, it, b, d.in[it.row*d.inC:], d.out[it.row*d.outC:], d.aPixels[:it.rows], d.cPixels[:it.rows])
		return
	}
	aOff, cOff := w.aOff[:it.rows], w.cOff[:it.rows]
	// Row r of a class is the pixel of image r/(len(v.outs)·len(h.outs)), and so on: outputs along h change fastest.
	nh := len(c.h.outs)
	x := it.row % nh
	y := it.row / nh
	n := y / len(c.v.outs)
	y -= n * len(c.v.outs)
	group := it.panel / d.perGroup
	for r := 0; r < len(aOff); {
		aRow := (n*d.inH+c.v.ins[y])*d.inW*d.inC + group*d.kc
		cRow := (n*d.outH + c.v.outs[y]) * d.outW * d.outC
		for ; x < nh && r < len(aOff); x++ {
			aOff[r] = aRow + c.h.ins[x]*d.inC
			cOff[r] = cRow + c.h.outs[x]*d.outC
			r++
		}
		x = 0
		if y++; y == len(c.v.outs) {
			y = 0
			n++
		}
	}
	if len(c.steps) == 0 {
		d.fill(it, cOff)
		return
	}
	d.rows(w, c, it, b, d.in, d.out, aOff, cOff)
}

// rows computes the rows of an item, a block at a time; offsets count from in and out.
func (d *direct) rows(w *directWorker, c *class, it *item, b, in, out []float32, aOff, cOff []int) {
	for lo := 0; lo < it.rows; lo += c.block {
		hi := min(lo+c.block, it.rows)
		d.multiply(&w.tile, c, it, b, in, out, aOff[lo:hi], cOff[lo:hi])
	}
}

// multiply computes some rows of an item.
func (d *direct) multiply(t *gemm.Tile, c *class, it *item, b, in, out []float32, aOff, cOff []int) {
	t.A, t.AOff, t.COff, t.AStride = in, aOff, cOff, 1
	for s := range c.steps {
		st := &c.steps[s]
		t.Segs = st.segs
		for p := it.panel; p < it.end; p++ {
			pn := &d.panels[p]
			t.B, t.LDB, t.Cols = b[pn.off+st.b*pn.ldb:], pn.ldb, pn.cols
			t.C = out[pn.col:]
			t.In, t.Bias, t.Act = t.C, nil, None
			if s == 0 {
				t.In = nil
				if d.bias != nil {
					t.Bias = d.bias[pn.col:][:pn.cols]
				}
			}
			if s == len(c.steps)-1 {
				t.Act = d.act
			}
			t.Run()
		}
	}
}

// fill stores what pixels get that meet no pixel of the input: the bias, if any.
func (d *direct) fill(it *item, cOff []int) {
	for p := it.panel; p < it.end; p++ {
		pn := &d.panels[p]
		for _, o := range cOff {
			c := d.out[o+pn.col:][:pn.cols]
			if d.bias == nil {
				clear(c)
				continue
			}
			copy(c, d.bias[pn.col:])
			if d.act == ReLU {
				for j, x := range c {
					if x < 0 {
						c[j] = 0
					}
				}
			}
		}
	}
}
