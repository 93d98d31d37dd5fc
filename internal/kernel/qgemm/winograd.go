package qgemm

import "github.com/jouleml/joule/internal/par"

// Winograd's minimal filtering (A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", 2015) for 3×3 filters at stride 1, in integers: products of 16 bits, sums modulo 2^32, and
// the sum of the convolution in the end, all of its bits. So it may take the place of the direct sum where multiplying costs most: with AVX2, where bytes have to be widened anyway, and with many
// channels on 256 bits of VNNI too.
//
// Along an axis a tile has four results, or two at the end of a line where no more are missing. The points are 0, 1, -1, ∞, 2, -2, of which two results take the first four: the same filters serve
// both. The denominators of the usual matrices are brought to one, 24, and shared out so that 24·y = Aᵀ[(G g) ⊙ (Bᵀ d)] has small entries:
//
//	      ⎡4  0 -5  0  1  0⎤            ⎡4  0 -4  0⎤       ⎡6  0  0⎤
//	      ⎢0 -4 -4  1  1  0⎥            ⎢0  3  3  0⎥       ⎢4  4  4⎥        ⎡1 -1 -1  0  1  1⎤
//	      ⎢0  4 -4 -1  1  0⎥            ⎢0 -3  3  0⎥       ⎢4 -4  4⎥        ⎢0 -1  1  0  2 -2⎥              ⎡1  1  1  0⎤
//	Bᵀ₄ = ⎢0  4  0 -5  0  1⎥      Bᵀ₂ = ⎣0 -4  0  4⎦   G = ⎢0  0  6⎥  Aᵀ₄ = ⎢0 -1 -1  0  4  4⎥        Aᵀ₂ = ⎣0  1 -1  1⎦
//	      ⎢0 -2 -1  2  1  0⎥                               ⎢1  2  4⎥        ⎣0 -1  1  4  8 -8⎦
//	      ⎣0  2 -1 -2  1  0⎦                               ⎣1 -2  4⎦
//
// On both axes bytes become at most 68·255 = 17340 and weights at most 144·128 = 18432, and a pair of their products stays within 32 bits. The result is 576·y modulo 2^32. 576 is 9·64, and 9 has an
// inverse modulo 2^32; what is left, 64·y, is there whole if |y| < 2^25, which the weights say.

// points is the points of an axis; slimPoints those of two results.
const (
	points     = 6
	slimPoints = 4
)

// pointFilter is G.
var pointFilter = [points][3]int32{{6, 0, 0}, {4, 4, 4}, {4, -4, 4}, {0, 0, 6}, {1, 2, 4}, {1, -2, 4}}

const (
	winoTiles    = 32      // of a block, about, or more
	winoNumbers  = 2048    // at each point of a block, about, where so many tiles have fewer
	winoBlocks   = 8       // there are fewer tiles in a block, and then fewer columns in a chunk, until there are so many
	winoLeast    = 8       // tiles of a block nevertheless
	winoCols     = 32      // columns whose sums are kept at a time
	winoFew      = 32      // columns of a chunk at least
	winoMost     = 1 << 25 // of a sum
	winoSkew     = 32      // numbers of 16 bits that points are further apart, so that they meet in other sets of the cache
	winoTmp      = 36 * 16 // numbers of 16 bits
	winoWidth    = slim    // columns of a panel
	winoChannels = slim    // that the transform takes at a time
	winoFilter   = 3       // rows and columns of a filter
	winoPoints   = points * points
)

// winograd is how a plan computes a convolution at points.
type winograd struct {
	*Plan
	instead *Plan // where sums may be too large: another way

	width, height int     // of the results of an image, before pooling
	wide, tall    int     // tiles of four results across and down an image
	slim, flat    int     // tiles of two behind them: 0 or 1
	lines         int     // lines of tiles in a block, of any images
	blocks        int     // of the batch
	pieces        int     // chunks of a block, each of some columns
	cols          int     // of a chunk
	held          int     // columns whose sums are kept at a time
	channels      int     // filled up to 16
	pairs         int     // of channels
	line          int     // bytes of a line of pixels with what lies around it
	copied        bool    // lines are copied, for there is something around them or they end before tiles do
	padded        int     // columns, filled up to 16
	u             []int16 // [panel][point][pair][16][2]
	workers       []*winogradWorker
}

type winogradWorker struct {
	lines  []uint8
	points []int16 // [point][tile][channel]
	sums   []int32 // [point][tile][column]
	tmp    [winoTmp]int16
	tmp32  [winoTmp]int32
	edge   []uint8 // results of a tile of which not all are wanted
	edgeF  []float32
}

// canWinograd reports whether it can compute the plan, if sums are small enough.
func (p *Plan) canWinograd() bool {
	c := p.Conv
	if c == nil || p.level != avx2 && p.level != avxvnni || p.Groups > 1 || p.M == 0 || c.KH != 3 || c.KW != 3 || c.StrideH != 1 || c.StrideW != 1 || c.DilH > 1 || c.DilW > 1 || p.N%8 != 0 {
		return false
	}
	w, h := p.outputs()
	return w > 0 && h > 0
}

// suitsWinograd reports whether it is faster than the direct sum, as far as measured (BenchmarkConvolution, BenchmarkWinograd). AVX-VNNI multiplies bytes twice as fast as numbers of 16 bits, so that little
// is left to gain: from 32 channels on, where there are results enough and filters whose points, eight times the bytes, stay in the cache. With 512 bits there is nothing.
func (p *Plan) suitsWinograd() bool {
	if !p.canWinograd() {
		return false
	}
	c := p.Conv.C
	w, h := p.convolved()
	if p.level == avxvnni {
		return c >= 32 && c <= 256 && p.N >= 32 && p.N <= 256 && p.images()*w*h >= 512
	}
	w, h = p.outputs()
	return w*h > 1 && (c >= 16 || c >= 8 && c*p.N >= 192)
}

// tilesOf is how many tiles of four cover n results, and of two behind them.
func tilesOf(n int) (four, two int) {
	switch four = n / 4; n % 4 {
	case 1, 2:
		return four, 1
	case 3:
		return four + 1, 0
	}
	return four, 0
}

func newWinograd(s Spec) *Plan {
	p := &Plan{Spec: s, level: current()}
	c := s.Conv
	d := &winograd{Plan: p}
	p.algorithm = d
	d.width, d.height = p.convolved()
	d.wide, d.slim = tilesOf(d.width)
	d.tall, d.flat = tilesOf(d.height)
	d.channels = (c.C + winoChannels - 1) / winoChannels * winoChannels
	d.pairs = (c.C + 1) / 2
	d.padded = (s.N + winoWidth - 1) / winoWidth * winoWidth

	across, down := 4*d.wide+2*d.slim+2, 4*d.tall+2*d.flat+2 // pixels that tiles read
	d.copied = c.PadTop > 0 || c.PadLeft > 0 || across > c.W || down > c.H || d.channels != c.C
	d.line = c.W * c.C
	if d.copied {
		d.line = across * c.C
	}
	images := p.images()
	lines, each := images*(d.tall+d.flat), d.wide+d.slim
	tiles := min(max(winoTiles, winoNumbers/d.channels), max(winoLeast, lines*each/winoBlocks))
	d.lines = min(lines, max(1, (tiles+each/2)/each))
	d.blocks = (lines + d.lines - 1) / d.lines
	d.pieces = max(1, min((winoBlocks+d.blocks-1)/d.blocks, d.padded/winoFew))
	d.cols = (d.padded/winoWidth + d.pieces - 1) / d.pieces * winoWidth
	d.pieces = (d.padded + d.cols - 1) / d.cols
	d.held = min(d.cols, winoCols)
	d.u = make([]int16, d.padded*winoPoints*2*d.pairs)
	p.scale, p.offset = make([]float32, d.padded), make([]float32, d.padded)
	return p
}

// convolved is the number of results in a line and of lines in an image, before those of which only the greatest of four is kept are pooled.
func (p *Plan) convolved() (width, height int) {
	w, h := p.outputs()
	return p.pools() * w, p.pools() * h
}

// images is the number of images of a convolution.
func (p *Plan) images() int {
	w, h := p.outputs()
	return p.M / (w * h)
}

func (d *winograd) bytes() int {
	n := 2 * len(d.u)
	if d.instead != nil {
		n += d.instead.Bytes()
	}
	return n
}

// set keeps weights b [3, 3, C, N] at their points, or has another plan keep them.
func (d *winograd) set(b []int8) {
	p, n, channels := d.Plan, d.N, d.Conv.C
	d.instead = nil
	for j := range n {
		plus, minus := 0, 0
		for k := range p.K {
			if v := int(b[k*n+j]); v > 0 {
				plus += v
			} else {
				minus -= v
			}
		}
		if 255*max(plus, minus) >= winoMost {
			d.instead = build(p.Spec, false, p.suitsDirect(false))
			d.instead.Set(b, p.scale, p.offset)
			return
		}
	}
	pair := 2 * winoWidth
	for c := range channels {
		for j := range n {
			var half [points][winoFilter]int32 // down: points, across: taps
			for x := range winoFilter {
				for i, g := range pointFilter {
					for y := range winoFilter {
						half[i][x] += g[y] * int32(b[((y*winoFilter+x)*channels+c)*n+j])
					}
				}
			}
			at := j/winoWidth*winoPoints*d.pairs*pair + c/2*pair + j%winoWidth*2 + c%2
			for i := range half {
				for k, g := range pointFilter {
					d.u[at+(points*i+k)*d.pairs*pair] = int16(g[0]*half[i][0] + g[1]*half[i][1] + g[2]*half[i][2])
				}
			}
		}
	}
}

// Executed is the arithmetic of a run where the plan does less than the formula says, the transforms included: 0 where it does not. That weights are so great that another way is taken, which only Set
// sees, is not in it.
func (p *Plan) Executed() int64 {
	d, ok := p.algorithm.(*winograd)
	if !ok {
		return 0
	}
	expand, contract := map[int]int{4: 17, 2: 10}, map[int]int{4: 13, 2: 4} // adds and shifts along an axis
	sum := 0
	for kind, tiles := range [4]int{tile42: d.tall * d.slim, tile44: d.tall * d.wide, tile24: d.flat * d.wide, tile22: d.flat * d.slim} {
		h, w := shape(kind)
		in, out := (w+2)*expand[h]+(h+2)*expand[w], (w+2)*contract[h]+h*contract[w]+2*h*w
		sum += tiles * (2*(h+2)*(w+2)*p.Conv.C*p.N + in*p.Conv.C + out*p.N)
	}
	return int64(p.images()) * int64(sum)
}

func (d *winograd) run(pool *par.Pool, a []uint8) {
	if p := d.instead; p != nil {
		p.y8, p.yf = d.y8, d.yf
		p.run(pool, a)
		p.y8, p.yf = nil, nil
		return
	}
	tiles := d.lines * (d.wide + d.slim)
	for len(d.workers) < pool.Threads() {
		w := &winogradWorker{points: make([]int16, winoPoints*(tiles*d.channels+winoSkew)), sums: make([]int32, winoPoints*(tiles*d.held+winoSkew/2))}
		if d.copied {
			w.lines = make([]uint8, (4*min(d.lines, d.tall+d.flat)+2)*d.line+slack)
		}
		d.workers = append(d.workers, w)
	}
	if d.partial() && !d.Pool {
		for _, w := range d.workers {
			n := 4 * 4 * d.held
			if d.yf != nil && w.edgeF == nil {
				w.edgeF = make([]float32, n)
			}
			if d.yf == nil && w.edge == nil {
				w.edge = make([]uint8, n)
			}
		}
	}
	d.a = a
	pool.Run(d.blocks*d.pieces, d)
	d.a = nil
}

// partial reports whether there are tiles that go beyond the results of an image.
func (d *winograd) partial() bool {
	return 4*d.wide+2*d.slim > d.width || 4*d.tall+2*d.flat > d.height
}

// at is a line of tiles: of which image, from which line of results on, and whether it has two of them.
func (d *winograd) at(line int) (image, y int, flat bool) {
	n := d.tall + d.flat
	return line / n, line % n * 4, line%n == d.tall
}

// Chunk computes some columns of a block; it is for package par.
func (d *winograd) Chunk(i, worker int) {
	w := d.workers[worker]
	first := i / d.pieces * d.lines
	last := min(first+d.lines, d.images()*(d.tall+d.flat))
	flat := 0
	for l := first; l < last; l++ {
		if _, _, is := d.at(l); is {
			flat++
		}
	}
	b := &winogradBlock{first: first, last: last, flat: flat, tall: last - first - flat}
	b.starts(d)
	d.expand(w, b)
	from := i % d.pieces * d.cols
	for j := from; j < min(from+d.cols, d.padded); j += d.held {
		cols := min(d.held, from+d.cols-j, d.padded-j)
		d.products(w, b, j, cols)
		d.contract(w, b, j, cols)
	}
}

// winogradBlock is lines first to last of tiles. In points and sums tiles lie by their kinds: first those of four rows and two columns of results, then 4×4, 2×4 and 2×2. So those that have
// points ±2 down, across or both are neighbours.
type winogradBlock struct {
	first, last int
	tall, flat  int    // lines of four and of two results
	start       [5]int // of tiles of each kind, and of all
}

// Kinds of tiles, by rows and columns of results.
const (
	tile42 = iota
	tile44
	tile24
	tile22
)

func (b *winogradBlock) starts(d *winograd) {
	for kind, n := range [4]int{b.tall * d.slim, b.tall * d.wide, b.flat * d.wide, b.flat * d.slim} {
		b.start[kind+1] = b.start[kind] + n
	}
}

// rows are the tiles that have point (i, j).
func (b *winogradBlock) rows(i, j int) (from, to int) {
	switch {
	case i >= slimPoints && j >= slimPoints:
		return b.start[tile44], b.start[tile24]
	case i >= slimPoints:
		return 0, b.start[tile24]
	case j >= slimPoints:
		return b.start[tile44], b.start[tile22]
	}
	return 0, b.start[4]
}

// each calls f for the lines of tiles of b, with the kinds and places of the wide ones and of the last.
func (d *winograd) each(b *winogradBlock, f func(line, wideKind, wide, slimKind, slim int)) {
	at := b.start
	for l := b.first; l < b.last; l++ {
		wide, slim := tile44, tile42
		if _, _, flat := d.at(l); flat {
			wide, slim = tile24, tile22
		}
		f(l, wide, at[wide], slim, at[slim])
		at[wide] += d.wide
		at[slim] += d.slim
	}
}

// pointSize is the numbers from one point of a worker's points, and of its sums, to the next.
func (b *winogradBlock) pointSize(d *winograd) int { return b.start[4]*d.channels + winoSkew }
func (b *winogradBlock) sumSize(cols int) int      { return b.start[4]*cols + winoSkew/2 }

// expand takes the pixels of a block's tiles to points.
func (d *winograd) expand(w *winogradWorker, b *winogradBlock) {
	c, size := d.Conv, d.Conv.H*d.Conv.W*d.Conv.C
	image, top := -1, 0
	var x []uint8 // from the first line of tiles of this image on
	point := b.pointSize(d)
	d.each(b, func(l, wideKind, wide, slimKind, slim int) {
		at, y, _ := d.at(l)
		if at != image {
			image, top = at, y
			x = d.a[at*size:][:size]
			if d.copied {
				rows := 2
				for m := l; m < b.last; m++ {
					is, _, flat := d.at(m)
					if is != at {
						break
					}
					if rows += 4; flat {
						rows -= 2
					}
				}
				c.copyLines(w.lines, x, top-c.PadTop, rows, d.line)
				x = w.lines
			} else {
				x = x[top*d.line:]
			}
		}
		from := x[(y-top)*d.line:]
		if d.wide > 0 {
			winoExpand(wideKind, w.points[wide*d.channels:], point, from, d.line, c.C, w.tmp[:], d.channels/winoChannels, d.wide)
		}
		if d.slim > 0 {
			winoExpand(slimKind, w.points[slim*d.channels:], point, from[4*d.wide*c.C:], d.line, c.C, w.tmp[:], d.channels/winoChannels, 1)
		}
	})
}

// products multiplies the points by those of cols columns of the filters from j on.
func (d *winograd) products(w *winogradWorker, b *winogradBlock, j, cols int) {
	point, sum := b.pointSize(d), b.sumSize(cols)
	panel := 2 * winoWidth * d.pairs
	for i := range points {
		for k := range points {
			from, to := b.rows(i, k)
			if from == to {
				continue
			}
			at := points*i + k
			for p := 0; p < cols; p += winoWidth {
				u := d.u[((j+p)/winoWidth*winoPoints+at)*panel:][:panel]
				winoProducts(w.sums[at*sum+from*cols+p:], w.points[at*point+from*d.channels:], u, cols, d.channels, d.pairs, to-from)
			}
		}
	}
}

// contract takes the sums of cols columns from j on to results.
func (d *winograd) contract(w *winogradWorker, b *winogradBlock, j, cols int) {
	t := winoResult{rowStride: d.width * d.N, colStride: d.N, pointStride: b.sumSize(cols), tileStride: cols, blocks: min(cols, d.N-j) / 8}
	step := d.pools()
	t.rowStride /= step
	d.each(b, func(l, wideKind, wide, slimKind, slim int) {
		image, y, _ := d.at(l)
		first := (image*d.height+y)/step*t.rowStride + j
		rows, _ := shape(wideKind)
		wanted := min(rows, d.height-y)
		whole := d.width / 4 // tiles of which all is wanted
		if wanted < rows {
			whole = 0
		}
		if whole = min(whole, d.wide); whole > 0 {
			d.results(w, &t, wideKind, w.sums[wide*cols:], first, j, whole)
		}
		for x := whole; x < d.wide; x++ {
			d.partly(w, &t, wideKind, w.sums[(wide+x)*cols:], first+4/step*x*d.N, j, wanted, min(4, d.width-4*x))
		}
		if d.slim == 0 {
			return
		}
		from, to := w.sums[slim*cols:], first+4/step*d.wide*d.N
		if end := d.width - 4*d.wide; wanted < rows || end < 2 {
			d.partly(w, &t, slimKind, from, to, j, wanted, end)
			return
		}
		d.results(w, &t, slimKind, from, to, j, 1)
	})
}

// partly makes results of a tile of which rows rows and cols columns are wanted; where there is pooling all are.
func (d *winograd) partly(w *winogradWorker, t *winoResult, kind int, sums []int32, first, j, rows, cols int) {
	here, channels := *t, 8*t.blocks
	here.rowStride, here.colStride = 4*channels, channels
	if d.yf != nil {
		winoFloats(kind, false, w.edgeF, &here, sums, d.scale[j:], d.offset[j:], d.least(), w.tmp32[:], 1)
	} else {
		winoBytes(kind, false, w.edge, &here, sums, d.scale[j:], d.offset[j:], d.least(), w.tmp32[:], 1)
	}
	pixels := cols // and how many of them are copied at a time
	if channels == d.N {
		pixels, channels = 1, cols*channels
	}
	for r := range rows {
		for x := range pixels {
			to, from := first+r*t.rowStride+x*t.colStride, r*here.rowStride+x*here.colStride
			if d.yf != nil {
				copy(d.yf[to:][:channels], w.edgeF[from:])
			} else {
				copy(d.y8[to:][:channels], w.edge[from:])
			}
		}
	}
}

// winoResult says where sums and results lie, in numbers.
type winoResult struct{ rowStride, colStride, pointStride, tileStride, blocks int }

// results makes results of n tiles side by side, from the given one on.
func (d *winograd) results(w *winogradWorker, t *winoResult, kind int, sums []int32, first, j, n int) {
	if d.yf != nil {
		winoFloats(kind, d.Pool, d.yf[first:], t, sums, d.scale[j:], d.offset[j:], d.least(), w.tmp32[:], n)
		return
	}
	winoBytes(kind, d.Pool, d.y8[first:], t, sums, d.scale[j:], d.offset[j:], d.least(), w.tmp32[:], n)
}

// shape is the rows and columns of results of a kind of tile.
func shape(kind int) (rows, cols int) {
	return [...]int{tile42: 4, tile44: 4, tile24: 2, tile22: 2}[kind], [...]int{tile42: 2, tile44: 4, tile24: 4, tile22: 2}[kind]
}
