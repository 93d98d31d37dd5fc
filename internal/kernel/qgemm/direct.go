package qgemm

// Convolutions whose patches are read where they lie, four at a time, each line of a patch as it is: copying patches costs more than multiplying them where filters are few. Sums become results without leaving the registers. What lies
// outside of the image, and for AVX2 the widening to 16 bits, is put in its place in a copy of the lines that a chunk needs.

// direct is how a plan reads patches in the image.
type direct struct {
	depth  bool    // each channel is convolved by itself
	taps   []int64 // where each group of a patch begins, bytes from its first; of a depthwise one its pixels, with AVX2 two a group
	groups int
	reach  int        // values that are read from a tap on
	dx, dy int        // where three of four patches begin, bytes from the first: dx, dy and dx+dy
	places [][2]int64 // of the first of four patches in a chunk: bytes from its first line on, results from its first on
	fours  int        // of them in a line; the last may be some of the one before again
	panels []directPanel
	line   int  // values of a line of the copy
	height int  // lines of the copy
	lines  int  // of results in a chunk
	copied bool // lines are always copied
	wide   bool // the copy is of 16 bits
}

// directPanel is some columns of the weights: width of them, cols in the plan, at off in the packed weights, which are length numbers, for what begins x values behind the first.
type directPanel struct{ j, cols, width, off, length, x int }

const (
	directLines = 8    // of results in a chunk that is long enough
	chunkCycles = 3000 // of a chunk, about, at least
	slack       = 16   // values behind the copy that may be read beyond its end
)

// outputs is the number of results in a line and of lines in an image.
func (p *Plan) outputs() (width, height int) {
	if p.Pool {
		return p.Conv.OW / 2, p.Conv.OH / 2
	}
	return p.Conv.OW, p.Conv.OH
}

// pools is the rows and the columns of patches for a result.
func (p *Plan) pools() int {
	if p.Pool {
		return 2
	}
	return 1
}

// canDirect reports whether patches can be read in the image.
func (p *Plan) canDirect() bool {
	c := p.Conv
	if c == nil || p.level == portable || p.M == 0 || c.DilH > 1 || c.DilW > 1 {
		return false
	}
	switch depthwise := p.depthwise(); {
	case p.Groups > 1 && !depthwise, p.level < vnni && p.N%8 != 0, p.level < vnni && depthwise && p.N%16 != 0:
		return false
	}
	w, h := p.outputs()
	return h > 0 && w > 0 && (p.Pool || w >= 4)
}

// depthwise reports whether each channel has one filter of its own.
func (p *Plan) depthwise() bool { return p.Groups > 1 && p.N == p.Groups && p.Conv.C == p.Groups }

// suitsDirect reports whether that is faster than to copy them, as far as measured (BenchmarkConvolution): for the matrix unit, if that is what takes copies, or for vectors.
func (p *Plan) suitsDirect(unit bool) bool {
	if !p.canDirect() {
		return false
	}
	c := p.Conv
	w, _ := p.outputs()
	padded := c.PadTop > 0 || c.PadLeft > 0
	if p.depthwise() {
		return true
	}
	deep := p.level == avx2 && p.K > 512 // pairs of bytes beat 16 bits read in the image
	switch few := (p.Pool && !deep || padded && p.level == vnni) && p.N <= 64; {
	case unit:
		return p.N <= slim && (few || p.M <= 256)
	case few:
		return true
	default: // results go in fours, and weights are read again for each
		return p.K*((w+3)/4*4) <= 180*w
	}
}

func (p *Plan) newDirect() {
	c, d := p.Conv, new(direct)
	p.direct, d.depth = d, p.depthwise()
	size := 1
	if d.wide = p.level == avx2 || p.level == avxvnni && d.depth; d.wide {
		size = 2
	}
	width, height := p.outputs()
	pools := p.pools()
	d.line = max(c.PadLeft+c.W, (pools*width-1)*c.StrideW+c.KW) * c.C
	d.copied = d.wide || c.PadTop > 0 || c.PadLeft > 0 || (pools*height-1)*c.StrideH+c.KH > c.H || d.line > c.W*c.C
	if !d.copied {
		d.line = c.W * c.C
	}
	group := p.directGroup()
	each := group // values from tap to tap
	if d.reach = group; d.depth {
		each, d.reach = c.C, slim
	}
	for i := range c.KH {
		for k := 0; k < c.KW*c.C; k += each {
			d.taps = append(d.taps, int64((i*d.line+k)*size))
		}
	}
	if d.groups = len(d.taps); d.depth && d.wide {
		if d.groups = (len(d.taps) + 1) / 2; len(d.taps)%2 == 1 {
			d.taps = append(d.taps, d.taps[len(d.taps)-1]) // with weights of zero
		}
	}
	// A chunk is worth handing out, or more lines than that where there are many.
	next := c.StrideW * c.C
	d.dx, d.dy, d.fours = next*size, 2*next*size, (width+3)/4
	if p.Pool {
		d.dy, d.fours = c.StrideH*d.line*size, width
	}
	cycles := 4 * d.fours * (d.groups*((p.N+slim-1)/slim) + 6)
	d.lines = min(max(1, (chunkCycles+cycles-1)/cycles, min(directLines, p.M/width/16)), p.M/width)
	d.height = (min(d.lines, height)*pools-1)*c.StrideH + c.KH
	p.rows = d.lines * width
	for y := range min(d.lines, height) {
		for i := range d.fours {
			x := i // windows, or the first of four results
			if !p.Pool {
				x = min(4*i, width-4)
			}
			d.places = append(d.places, [2]int64{int64((y*pools*c.StrideH*d.line + x*pools*next) * size), int64((y*width + x) * p.N)})
		}
	}
	off := 0
	for j := 0; j < p.N; {
		w := p.level.width()
		switch rest := p.N - j; {
		case d.depth:
			w = slim
		case p.level < vnni && rest <= slim/2:
			w = slim / 2
		case p.level < vnni || rest <= slim:
			w = slim
		case rest <= narrow:
			w = narrow
		}
		panel := directPanel{j: j, cols: min(w, p.N-j), width: w, off: off, length: d.groups * w * group}
		if d.depth {
			panel.x = j
		}
		d.panels = append(d.panels, panel)
		j, off = j+w, off+panel.length
	}
	filled := d.panels[len(d.panels)-1]
	p.scale, p.offset = make([]float32, filled.j+filled.width), make([]float32, filled.j+filled.width)
	if d.wide {
		p.b16 = make([]int16, off)
	} else {
		p.b8 = make([]int8, off)
	}
}

// directGroup is the K indices that an instruction takes.
func (p *Plan) directGroup() int {
	if p.direct.wide {
		return 2
	}
	return p.level.group()
}

func (d *direct) worker() *worker {
	n := d.height*d.line + slack
	if d.wide {
		return &worker{wide: make([]int16, n)}
	}
	return &worker{patches: make([]uint8, n)}
}

// setDirect keeps weights b [KH, KW, C, N] as panels [groups, width, group].
func (p *Plan) setDirect(b []int8) {
	c, d, group := p.Conv, p.direct, p.directGroup()
	if d.depth {
		p.setDepthwise(b)
		return
	}
	row := c.KW * c.C
	groups := (row + group - 1) / group // of a line
	for _, at := range d.panels {
		for k := range p.K {
			first := at.off + ((k/row*groups+k%row/group)*at.width)*group + k%row%group
			for j, v := range b[k*p.N+at.j:][:at.cols] {
				if d.wide {
					p.b16[first+j*group] = int16(v)
				} else {
					p.b8[first+j*group] = v
				}
			}
		}
	}
}

// setDepthwise keeps weights b [KH, KW, C] as panels [taps, 16, 4], numbers of 16 bits with zeros behind, or [pairs of taps, 16, 2] in the order of depthAVX2.
func (p *Plan) setDepthwise(b []int8) {
	for _, at := range p.direct.panels {
		for tap := range p.K {
			for c, v := range b[tap*p.N+at.j:][:at.cols] {
				if p.direct.wide {
					place := c&3 | c&8>>1 | c&4<<1
					p.b16[at.off+(tap/2*slim+place)*2+tap%2] = int16(v)
					continue
				}
				to := p.b8[at.off+(tap*slim+c)*4:]
				to[0], to[1] = v, v>>7
			}
		}
	}
}

// convolve computes n results, whole lines of them, from the first on.
func (p *Plan) convolve(w *worker, first, n int) {
	c, d := p.Conv, p.direct
	width, height := p.outputs()
	pools, size := p.pools(), c.H*c.W*c.C
	for at := first / width; at < (first+n)/width; {
		image, y := at/height, at%height
		lines := min((first+n)/width-at, height-y)
		top, rows := y*pools*c.StrideH-c.PadTop, (lines*pools-1)*c.StrideH+c.KH
		x := p.a[image*size:]
		var in []uint8
		switch {
		case d.wide:
			p.widenLines(w.wide, x[:size], top, rows)
		case d.copied:
			c.copyLines(w.patches, x[:size], top, rows, d.line)
			in = w.patches
		default:
			if in = x[top*d.line:]; len(in) < rows*d.line+slack { // the last group is read beyond the end
				copy(w.patches, in[:rows*d.line])
				in = w.patches
			}
		}
		lo := p.least()
		for _, panel := range d.panels {
			p.fourPatches(w, in, at*width, panel, lo, lines*d.fours)
		}
		at += lines
	}
}

// copyLines copies rows lines of image x from top on to dst, line bytes apart, with what lies around it.
func (c *Conv) copyLines(dst, x []uint8, top, rows, line int) {
	left, width := c.PadLeft*c.C, c.W*c.C
	inside := min(width, line-left)
	for r := range rows {
		to, y := dst[r*line:][:line], top+r
		if y < 0 || y >= c.H || inside <= 0 {
			fill(to, c.Zero)
			continue
		}
		fill(to[:left], c.Zero)
		copy(to[left:], x[y*width:][:inside])
		fill(to[left+inside:], c.Zero)
	}
}

// widenLines is copyLines to 16 bits, for lines that hold all of the image's.
func (p *Plan) widenLines(dst []int16, x []uint8, top, rows int) {
	c, line := p.Conv, p.direct.line
	left, width := c.PadLeft*c.C, c.W*c.C
	zero := int16(c.Zero)
	for r := range rows {
		d, y := dst[r*line:][:line], top+r
		if y < 0 || y >= c.H {
			for i := range d {
				d[i] = zero
			}
			continue
		}
		for i := range left {
			d[i] = zero
		}
		d = d[left:]
		src := x[y*width:][:width]
		whole := width / 16 * 16
		widenRows(d, src, whole)
		for i, v := range src[whole:] {
			d[whole+i] = int16(v)
		}
		for i := range d[width:] {
			d[width+i] = zero
		}
	}
}
