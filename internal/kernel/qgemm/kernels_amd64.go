package qgemm

import "github.com/jouleml/joule/internal/isa"

var (
	tilesVNNI    = [tileRows + 1]func(c *int32, a *uint8, b *int8, stride, groups int){nil, tileVNNI1, tileVNNI2, tileVNNI3, tileVNNI4, tileVNNI5, tileVNNI6}
	tilesNarrow  = [tileRows + 1]func(c *int32, a *uint8, b *int8, stride, groups int){nil, tileVNNINarrow1, tileVNNINarrow2, tileVNNINarrow3, tileVNNINarrow4, tileVNNINarrow5, tileVNNINarrow6}
	tilesSlim    = [tileRows + 1]func(c *int32, a *uint8, b *int8, stride, groups int){nil, tileVNNISlim1, tileVNNISlim2, tileVNNISlim3, tileVNNISlim4, tileVNNISlim5, tileVNNISlim6}
	tilesAVX2    = [tileRows + 1]func(c *int32, a *int16, b *int16, stride, groups int){nil, tileAVX21, tileAVX22, tileAVX23, tileAVX24, tileAVX25, tileAVX26}
	tilesAVXVNNI = [tileRows + 1]func(c *int32, a *uint8, b *int8, stride, groups int){nil, tileAVXVNNI1, tileAVXVNNI2, tileAVXVNNI3, tileAVXVNNI4, tileAVXVNNI5, tileAVXVNNI6}
	tilesPairs   = [tileRows + 1]pairsKernel{nil, tilePairsAVX21, tilePairsAVX22, tilePairsAVX23, tilePairsAVX24, tilePairsAVX25, tilePairsAVX26}
)

type pairsKernel = func(c *int32, cStride int, a *uint8, stride int, at *int32, b *int8, first *int32, starts *int, panels int)

// tilePairs sets acc [rows, width] to the sums of rows rows of a and width columns from j on, or one row of it to the greatest of four rows.
func (p *Plan) tilePairs(acc []int32, width int, a []uint8, rows, j int, most bool) {
	q, k, kept := p.pairs, tilesPairs[rows], rows
	if most {
		k, kept = tilePairsAVX24Max, 1
	}
	starts := q.starts[j/slim:][:width/slim+1]
	lo, hi := starts[0], starts[width/slim]
	at, b, first, stride := q.at[lo:hi], q.b[lo*slim*4:hi*slim*4], q.first[j:j+width], p.stride()*len(q.ways)
	_, _ = a[rows*stride-1], acc[kept*width-1]
	k(&acc[0], 4*width, &a[0], stride, &at[0], &b[0], &first[0], &starts[0], width/slim)
}

// spreadRows brings n bytes, a multiple of 32, to ways.
func spreadRows(dst, src []uint8, n int, how [][2][pairBlock]uint8) {
	if n > 0 {
		_, _ = dst[n*len(how)-1], src[n-1]
		spreadAVX2(&dst[0], &src[0], n/pairBlock, len(how), &how[0])
	}
}

// tile sets w.acc to the sums of rows rows from r on and the columns of the panel at j.
func (p *Plan) tile(w *worker, a []uint8, r, rows, j int) {
	n := p.width * p.level.group() * p.groups
	at := j / p.width * n
	switch p.level {
	case vnni:
		b := p.b8[at:][:n]
		_ = a[(r+rows)*p.stride()-1]
		tiles := &tilesVNNI
		switch p.width {
		case narrow:
			tiles = &tilesNarrow
		case slim:
			tiles = &tilesSlim
		}
		tiles[rows](&w.acc[0], &a[r*p.stride()], &b[0], p.stride(), p.groups)
	case avxvnni:
		b := p.b8[at:][:n]
		_ = a[(r+rows)*p.stride()-1]
		tilesAVXVNNI[rows](&w.acc[0], &a[r*p.stride()], &b[0], p.stride(), p.groups)
	case avx2:
		b := p.b16[at:][:n]
		_ = w.wide[(r+rows)*p.stride()-1]
		tilesAVX2[rows](&w.acc[0], &w.wide[r*p.stride()], &b[0], 2*p.stride(), p.groups)
	default:
		p.tileGo(w, a, r, rows, j)
	}
}

// tileMax sets acc to the greatest sums of four rows of patches from r on and the columns of the panel at j.
func (p *Plan) tileMax(w *worker, acc []int32, r, j int) {
	n := p.width * p.level.group() * p.groups
	at := j / p.width * n
	switch p.level {
	case vnni:
		b := p.b8[at:][:n]
		_, _ = w.patches[(r+4)*p.stride()-1], acc[p.width-1]
		tile := tileVNNI4Max
		switch p.width {
		case narrow:
			tile = tileVNNINarrow4Max
		case slim:
			tile = tileVNNISlim4Max
		}
		tile(&acc[0], &w.patches[r*p.stride()], &b[0], p.stride(), p.groups)
	case avxvnni:
		b := p.b8[at:][:n]
		_, _ = w.patches[(r+4)*p.stride()-1], acc[15]
		tileAVXVNNI4Max(&acc[0], &w.patches[r*p.stride()], &b[0], p.stride(), p.groups)
	case avx2:
		b := p.b16[at:][:n]
		_, _ = w.wide[(r+4)*p.stride()-1], acc[15]
		tileAVX24Max(&acc[0], &w.wide[r*p.stride()], &b[0], 2*p.stride(), p.groups)
	default:
		p.tileMaxGo(w, acc, r, j)
	}
}

// widenRows copies n bytes, a multiple of 16, to 16-bit numbers.
func widenRows(dst []int16, src []uint8, n int) {
	if n > 0 {
		_, _ = dst[n-1], src[n-1]
		widenAVX2(&dst[0], &src[0], n/16)
	}
}

// requantize brings rows rows of cols sums, width apart, to bytes stride apart, and gives how many columns it has done.
func requantize(l level, dst []uint8, stride int, acc []int32, width int, scale, offset []float32, lo float32, cols, rows int) int {
	done, whole := vectors(l, cols)
	if done == 0 {
		return 0
	}
	_, _, _, _ = dst[(rows-1)*stride+done-1], acc[(rows-1)*width+whole-1], scale[whole-1], offset[whole-1]
	if l == vnni {
		requantizeAVX512(&dst[0], stride, &acc[0], 4*width, &scale[0], &offset[0], lo, whole/16, rows, lastColumns(cols))
	} else {
		requantizeAVX2(&dst[0], stride, &acc[0], 4*width, &scale[0], &offset[0], lo, whole/16, rows)
	}
	return done
}

// finishFloats brings rows rows of cols sums, width apart, to floats stride apart, and gives how many columns it has done.
func finishFloats(l level, dst []float32, stride int, acc []int32, width int, scale, offset []float32, lo float32, cols, rows int) int {
	done, whole := vectors(l, cols)
	if done == 0 {
		return 0
	}
	_, _, _, _ = dst[(rows-1)*stride+done-1], acc[(rows-1)*width+whole-1], scale[whole-1], offset[whole-1]
	if l == vnni {
		finishAVX512(&dst[0], 4*stride, &acc[0], 4*width, &scale[0], &offset[0], lo, whole/16, rows, lastColumns(cols))
	} else {
		finishAVX2(&dst[0], 4*stride, &acc[0], 4*width, &scale[0], &offset[0], lo, whole/16, rows)
	}
	return done
}

// vectors is how many of cols columns vectors bring to results, and how many they read for that: all and whole 16 of 512 bits, whole 16 of fewer.
func vectors(l level, cols int) (done, whole int) {
	switch l {
	case vnni:
		return cols, (cols + 15) / 16 * 16
	case avx2, avxvnni:
		return cols / 16 * 16, cols / 16 * 16
	}
	return 0, 0
}

// lastColumns names those of the last 16 of n columns that there are.
func lastColumns(n int) uint32 { return 1<<((n-1)%16+1) - 1 }

// quantizeBlocks does whole blocks of Quantize and gives the number of elements done.
func quantizeBlocks(l level, y []uint8, x []float32, inverse, zero float32) int {
	n := len(y) / 16 * 16
	if l == portable || n == 0 {
		return 0
	}
	quantizeAVX2(&y[0], &x[0], inverse, zero, n/16)
	return n
}

// maxPairs sets pixels of c bytes to the greater of two neighbours in src, where that is done in blocks; it reports whether.
func maxPairs(l level, dst, src []uint8, c, pixels int) bool {
	if l == portable || c%16 != 0 || pixels == 0 {
		return false
	}
	_, _ = dst[pixels*c-1], src[2*pixels*c-1]
	maxPairsAVX2(&dst[0], &src[0], c/16, pixels)
	return true
}

// maxBlocks does whole blocks of maxBytes and gives the number of bytes done.
func maxBlocks(l level, dst, a, b []uint8) int {
	n := len(dst) / 16 * 16
	if l == portable || n == 0 {
		return 0
	}
	_, _ = a[n-1], b[n-1]
	maxBytesAVX2(&dst[0], &a[0], &b[0], n/16)
	return n
}

// addBlocks does whole blocks of Add and gives the number of bytes done.
func addBlocks(l level, y, a, b []uint8, scaleA, scaleB, offset, lo float32) int {
	n := len(y) / 16 * 16
	if l == portable || n == 0 {
		return 0
	}
	_, _ = a[n-1], b[n-1]
	addAVX2(&y[0], &a[0], &b[0], scaleA, scaleB, offset, lo, n/16)
	return n
}

// depthwiseBlocks sums a patch [2·pairs, channels] for whole blocks of 8 channels and gives the number of channels done.
func depthwiseBlocks(acc []int32, patch []uint8, w []int16, channels, pairs int) int {
	n := channels / 8 * 8
	if n == 0 {
		return 0
	}
	_, _, _ = acc[n-1], patch[2*pairs*channels-1], w[2*pairs*channels-1]
	depthwiseAVX2(&acc[0], &patch[0], &w[0], channels, pairs, n/8)
	return n
}

// Kernels of convolutions are by whether only the greatest of four is kept, and columns of a panel.
type (
	bytesKernel      = func(dst *uint8, x *uint8, taps *int64, b *int8, scale, bias *float32, lo float32, places *[2]int64, n, groups, dx, dy, next int, cols uint64)
	floatsKernel     = func(dst *float32, x *uint8, taps *int64, b *int8, scale, bias *float32, lo float32, places *[2]int64, n, groups, dx, dy, next int, cols uint64)
	bytesKernelWide  = func(dst *uint8, x *int16, taps *int64, b *int16, scale, bias *float32, lo float32, places *[2]int64, n, groups, dx, dy, next int, cols uint64)
	floatsKernelWide = func(dst *float32, x *int16, taps *int64, b *int16, scale, bias *float32, lo float32, places *[2]int64, n, groups, dx, dy, next int, cols uint64)
)

var (
	convBytes      = [2]map[int]bytesKernel{{64: convVNNI, 32: convVNNINarrow, 16: convVNNISlim}, {64: convMaxVNNI, 32: convMaxVNNINarrow, 16: convMaxVNNISlim}}
	convBytesHalf  = [2]map[int]bytesKernel{{16: convAVXVNNI, 8: convSlimAVXVNNI}, {16: convMaxAVXVNNI, 8: convMaxSlimAVXVNNI}}
	convFloats     = [2]map[int]floatsKernel{{64: convFloatVNNI, 32: convFloatVNNINarrow, 16: convFloatVNNISlim}, {64: convFloatMaxVNNI, 32: convFloatMaxVNNINarrow, 16: convFloatMaxVNNISlim}}
	convFloatsHalf = [2]map[int]floatsKernel{{16: convFloatAVXVNNI, 8: convFloatSlimAVXVNNI}, {16: convFloatMaxAVXVNNI, 8: convFloatMaxSlimAVXVNNI}}
	convBytesWide  = [2]map[int]bytesKernelWide{{16: convAVX2, 8: convSlimAVX2}, {16: convMaxAVX2, 8: convMaxSlimAVX2}}
	convFloatsWide = [2]map[int]floatsKernelWide{{16: convFloatAVX2, 8: convFloatSlimAVX2}, {16: convFloatMaxAVX2, 8: convFloatMaxSlimAVX2}}
)

// hasUnit reports whether there is a matrix unit for bytes.
func hasUnit() bool { return isa.AMXInt8() }

// onUnit sets acc [rows, width] to the sums of rows rows of a, which are a stride apart, and the columns of the panel at j. Of a there must be whole 16 rows.
func (p *Plan) onUnit(acc []int32, a []uint8, rows, j int) {
	n := p.width * p.level.group() * p.groups
	b, whole := p.b8[j/p.width*n:][:n], (rows+15)/16*16
	_, _ = acc[whole*p.width-1], a[(whole-1)*p.stride()+p.groups*p.level.group()-1]
	for h := 0; h < p.width; h += narrow {
		productsAMX(&acc[h], &a[0], &b[4*h], 4*p.width, p.stride(), 4*p.width, p.groups*p.level.group()/unitK, whole, &isa.TileConfig)
	}
}

// maxRows makes row i of windows rows of acc the greatest of its rows 4i to 4i+3.
func maxRows(acc []int32, width, windows int) {
	_ = acc[4*windows*width-1]
	maxRowsAVX512(&acc[0], width/16, windows)
}

// copyPatches copies n patches that lie wholly in the image, the first of which begins at x, next bytes apart there and stride in dst. It reports whether it has.
func copyPatches(dst []uint8, stride int, x []uint8, c *Conv, next, n int) bool {
	if !isa.VNNI() {
		return false
	}
	line, step := c.KW*c.C, c.W*c.C
	_, _ = dst[(n-1)*stride+c.KH*line-1], x[(n-1)*next+(c.KH-1)*step+line-1]
	patchesAVX512(&dst[0], &x[0], stride, c.KH, line, step, next, n, ^uint64(0)>>(63-(line-1)%64))
	return true
}

// depthwise sets acc [pixels, n] to the sums of patches, channel by channel, the first of which begins at x, next bytes apart; n is the channels filled up to 16. Pixels of a patch lie as many bytes apart as there are channels, its lines line apart.
func depthwise(acc []int32, n int, x []uint8, c *Conv, line, next int, w []int32, pixels int) {
	_, _, _ = acc[pixels*n-1], x[(pixels-1)*next+(c.KH-1)*line+c.KW*c.C-1], w[c.KH*c.KW*n-1]
	depthwiseVNNI(&acc[0], 4*n, &x[0], c.C, line, next, &w[0], c.KH, c.KW, n/16, pixels, lastColumns(c.C))
}

// fourPatches computes the first n places with a kernel, of lines from the beginning of w.wide or in on and results from the given one on.
func (p *Plan) fourPatches(w *worker, in []uint8, first int, panel directPanel, lo float32, n int) {
	d, most, apart := p.direct, 0, 3
	if p.Pool {
		most, apart = 1, 0
	}
	scale, offset := p.scale[panel.j:][:panel.width], p.offset[panel.j:][:panel.width]
	at, cols := first*p.N+panel.j, ^uint64(0)>>(64-panel.cols)
	end := at + int(d.places[n-1][1]) + apart*p.N + panel.cols - 1 // of the results
	last := int(d.places[n-1][0]+d.taps[len(d.taps)-1]) + d.dx + d.dy
	if d.wide {
		b, x := p.b16[panel.off:][:panel.length], w.wide[panel.x:]
		_ = x[last/2+d.reach-1]
		if p.yf != nil {
			_ = p.yf[end]
			k := convFloatsWide[most][panel.width]
			if d.depth {
				k = depthFloatAVX2
			}
			k(&p.yf[at], &x[0], &d.taps[0], &b[0], &scale[0], &offset[0], lo, &d.places[0], n, d.groups, d.dx, d.dy, 4*p.N, cols)
			return
		}
		_ = p.y8[end]
		k := convBytesWide[most][panel.width]
		if d.depth {
			k = depthAVX2
		}
		k(&p.y8[at], &x[0], &d.taps[0], &b[0], &scale[0], &offset[0], lo, &d.places[0], n, d.groups, d.dx, d.dy, p.N, cols)
		return
	}
	b, x := p.b8[panel.off:][:panel.length], in[panel.x:]
	_ = x[last+d.reach-1]
	if p.yf != nil {
		_ = p.yf[end]
		k := convFloats[most][panel.width]
		switch {
		case p.level == avxvnni:
			k = convFloatsHalf[most][panel.width]
		case d.depth:
			k = depthFloatVNNISlim
		}
		k(&p.yf[at], &x[0], &d.taps[0], &b[0], &scale[0], &offset[0], lo, &d.places[0], n, d.groups, d.dx, d.dy, 4*p.N, cols)
		return
	}
	_ = p.y8[end]
	k := convBytes[most][panel.width]
	switch {
	case p.level == avxvnni:
		k = convBytesHalf[most][panel.width]
	case d.depth:
		k = depthVNNISlim
	}
	k(&p.y8[at], &x[0], &d.taps[0], &b[0], &scale[0], &offset[0], lo, &d.places[0], n, d.groups, d.dx, d.dy, p.N, cols)
}
