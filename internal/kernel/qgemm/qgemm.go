// Package qgemm multiplies 8-bit integers on the CPU: activations u8 by weights s8, added up in s32, and brought to u8 or f32 in the end.
//
// The product is exact on every instruction set: AVX-512 VNNI adds four products of bytes to 32 bits at once, and so do AVX-VNNI, on 256 bits, and AMX, 16 rows, 16 columns and 64 of K in an instruction; AVX2 adds pairs of
// products in 16 bits where the weights are such that nothing saturates (pairs.go), or else widens to 16 bits first and adds pairs to 32 bits. Convolutions read their patches in the image where that is faster than to
// copy them (direct.go; grey.go for 3×3 on one channel, with AVX2), and 3×3 ones at stride 1 take Winograd's algorithm, in integers, exact too (winograd.go), with AVX2 and, from 32 channels on, AVX-VNNI. What follows (a factor and an offset for each column, rounding halves to even) rounds each operation
// apart. So a quantized model gives the same bits everywhere.
//
// Terminology: a panel is the columns that one tile computes; a group is the K indices that one instruction takes (4, or 2 of 16 bits). A value x stands for
// Scale·(x - zero). A zero of activations is dealt with by adding -zero·Σk b[k][j] to the offsets, which is for callers (Sums).
//
//go:generate go run -C ../vec/_asm ./qgemm -pkg qgemm -out ../../qgemm/qgemm_amd64.s -stubs ../../qgemm/stubs_amd64.go
//go:generate go run -C ../vec/_asm ./qconv -pkg qgemm -out ../../qgemm/conv3_amd64.s -stubs ../../qgemm/conv3stubs_amd64.go
package qgemm

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// Sums are the column sums of weights b [K, N].
func Sums(b []int8, k, n int) []int32 {
	out := make([]int32, n)
	for i := range k {
		for j, v := range b[i*n : (i+1)*n] {
			out[j] += int32(v)
		}
	}
	return out
}

// MaxK is the most K for which no sum of products leaves 32 bits.
const MaxK = math.MaxInt32 / (255 * 128)

// Spec says what a Plan computes: for rows a [M, K] and weights b [K, N], with acc = Σk a·b,
//
//	u8   y = min(255, max(Low, round(acc·scale[j] + offset[j])))
//	f32  y = acc·scale[j] + offset[j], not below 0 if ReLU
type Spec struct {
	M, N, K int
	Low     uint8 // of u8 results: the zero of a ReLU's result
	ReLU    bool  // of f32 results

	// Conv, if not nil, makes rows patches of images: see Conv.
	Conv *Conv
	// Pool makes a row the greatest of four neighbouring patches: a max pooling of 2×2 behind the convolution. Factors must not be negative. M is then the
	// number of windows.
	Pool bool
	// Groups cuts the channels of images and the N outputs into as many parts, which are convolved apart: weights are [KH, KW, C/Groups, N]. 0 counts as 1. Not with Pool.
	Groups int
}

// Conv describes images [N, H, W, C] of which the rows are patches [KH, KW, C], one for each output pixel [N, OH, OW]; K is KH·KW·C, or KH·KW·C/Groups.
type Conv struct {
	H, W, C, KH, KW, OH, OW int
	StrideH, StrideW        int
	DilH, DilW              int // 0 counts as 1
	PadTop, PadLeft         int
	Zero                    uint8 // what lies outside of the image
}

// level is a way to compute.
type level uint8

const (
	portable level = iota
	avx2
	avxvnni // on 256 bits
	vnni    // on 512
)

func current() level {
	switch {
	case isa.VNNI():
		return vnni
	case isa.Bytes() == isa.AVXVNNI:
		return avxvnni
	case isa.Current() >= isa.AVX2:
		return avx2
	}
	return portable
}

// width is the columns of a panel, group the K indices of a group.
func (l level) width() int { return [...]int{64, 16, 16, 64}[l] }
func (l level) group() int { return [...]int{1, 2, 4, 4}[l] }

const (
	tileRows = 6
	narrow   = 32 // columns of a panel of VNNI where there are no more
	slim     = 16 // likewise

	unitK    = 64 // of K in a step of the matrix unit
	unitRows = 64 // that it computes at a time
)

// Plan is a Spec with weights in the order in which they are read. One Run at a time.
type Plan struct {
	Spec
	level     level
	width     int // of a panel
	groups    int // of K
	rows      int // of a chunk
	b8        []int8
	b16       []int16
	pairs     *pairs    // of AVX2: weights as bytes, in place of b16
	spare     *pairs    // the same, or memory for them
	scale     []float32 // [N], filled up to panels
	offset    []float32
	depth     int       // of groups: the bytes of a patch
	unit      bool      // the matrix unit computes; K is filled up to its steps
	taps      []int32   // [KH·KW, N filled up to 16]: of depthwise convolutions that are read in the image
	direct    *direct   // nil: patches are copied
	algorithm algorithm // not nil: a convolution of 3×3 with AVX2 or AVX-VNNI
	work      []*worker

	a  []uint8
	y8 []uint8
	yf []float32
	yi []int32 // of an IntPlan: sums and what is added to those of a row and of a column

	rowAdd, colAdd []int32
}

// algorithm is another way to compute a plan. It keeps weights and memory of its own.
type algorithm interface {
	set(b []int8)
	run(pool *par.Pool, a []uint8)
	bytes() int
}

type worker struct {
	patches []uint8 // [rows, K rounded up to whole groups], or lines of an image
	wide    []int16 // the same, for AVX2
	spread  []uint8 // or this: in all ways of pairs
	acc     []int32 // of a tile, or of what the matrix unit or pairs compute at a time
	four    [64]int32
	sums    []int32 // [pixels, N filled up to 16], of groups
}

// New plans. It panics if s contradicts itself. Set gives the weights.
func New(s Spec) *Plan {
	s.Groups = max(1, s.Groups)
	bad := s.M < 0 || s.N < 1 || s.K < 1 || s.K > MaxK || s.Groups > 1 && s.Conv == nil
	if c := s.Conv; c != nil && !bad {
		bad = c.KH*c.KW*c.C != s.K*s.Groups || c.C%s.Groups != 0 || s.N%s.Groups != 0 || s.Groups > 1 && s.Pool
	}
	if bad {
		panic(fmt.Sprintf("qgemm: bad spec %+v", s))
	}
	if s.Groups > 1 {
		if p := (&Plan{Spec: s, level: current()}); p.suitsDirect(false) {
			return build(s, false, true)
		}
		return newGrouped(s)
	}
	if c := s.Conv; c != nil && !s.Pool && c.KH == 1 && c.KW == 1 && c.plain() && c.OH == c.H && c.OW == c.W {
		s.Conv = nil // pixels are rows
	}
	return newPlan(s)
}

func newPlan(s Spec) *Plan {
	p := &Plan{Spec: s, level: current()}
	switch {
	case p.suitsWinograd():
		return newWinograd(s)
	case p.canGrey():
		return newGrey(s)
	}
	unit := p.suitsUnit()
	return build(s, unit, p.suitsDirect(unit))
}

// build plans with patches that are read in the image, or else with the matrix unit or without.
func build(s Spec, unit, inImage bool) *Plan {
	p := &Plan{Spec: s, level: current(), unit: unit && !inImage}
	if inImage {
		p.newDirect()
		return p
	}
	w, g := p.level.width(), p.level.group()
	switch {
	case p.level != vnni || s.N > narrow:
	case s.N > slim || p.unit:
		w = narrow
	default:
		w = slim
	}
	p.width = w
	p.groups = (s.K + g - 1) / g
	panels := (s.N + w - 1) / w
	p.rows = tileRows * max(1, min(8, (s.M+4*tileRows-1)/(4*tileRows)))
	if p.unit {
		p.groups = (s.K + unitK - 1) / unitK * unitK / g
		p.rows = 16 * max(1, min(8, (s.M+127)/128)) // 8 chunks, of at most 128 rows
		if s.Pool {
			p.rows = 8 * max(1, min(6, (s.M+63)/64))
		}
	}
	p.scale, p.offset = make([]float32, panels*w), make([]float32, panels*w)
	if p.level != avx2 { // whose weights say in Set how they are kept
		p.b8 = make([]int8, panels*p.groups*w*g)
	}
	return p
}

// suitsUnit reports whether there is a matrix unit and it is faster than vectors on rows or on patches that are copied: not where there are few rows or products.
func (p *Plan) suitsUnit() bool {
	return p.level == vnni && hasUnit() && p.M > tileRows && p.K >= unitK/2 && p.N >= slim
}

// Set packs weights b [K, N], factors and offsets [N].
func (p *Plan) Set(b []int8, scale, offset []float32) {
	copy(p.scale, scale[:p.N])
	copy(p.offset, offset[:p.N])
	switch {
	case p.algorithm != nil:
		p.algorithm.set(b)
		return
	case p.direct != nil:
		p.setDirect(b)
		return
	case p.Groups > 1:
		p.setGrouped(b)
		return
	}
	if p.level == avx2 && p.setPairs(b, 0) {
		return
	}
	w, g := p.width, p.level.group()
	for k := range p.K {
		for j, v := range b[k*p.N : (k+1)*p.N] {
			i := (j/w*p.groups+k/g)*w*g + j%w*g + k%g
			if p.level == avx2 {
				p.b16[i] = int16(v)
			} else {
				p.b8[i] = v
			}
		}
	}
}

// Bytes is the memory that the plan holds for its weights, or the most that it will.
func (p *Plan) Bytes() int {
	n := len(p.b8) + 2*len(p.b16) + 4*len(p.taps) + 8*len(p.scale)
	switch {
	case p.pairs != nil:
		n += p.pairs.bytes()
	case p.level == avx2 && p.direct == nil && p.algorithm == nil && p.Groups < 2 && p.b16 == nil: // not set yet
		n += 2 * p.wideLen()
	}
	if p.direct != nil {
		n += 8 * len(p.direct.taps)
	}
	if p.algorithm != nil {
		n += p.algorithm.bytes()
	}
	return n
}

// Run computes y [M, N] as bytes from a: rows [M, K], or images.
func (p *Plan) Run(pool *par.Pool, y, a []uint8) {
	p.y8 = y[:p.M*p.N]
	p.run(pool, a)
	p.y8 = nil
}

// RunFloat computes y [M, N] as floats.
func (p *Plan) RunFloat(pool *par.Pool, y []float32, a []uint8) {
	p.yf = y[:p.M*p.N]
	p.run(pool, a)
	p.yf = nil
}

func (p *Plan) run(pool *par.Pool, a []uint8) {
	if current() != p.level {
		panic("qgemm: the plan was made for another instruction set")
	}
	need := p.M * p.K
	if c := p.Conv; c != nil {
		rows := c.OH * c.OW
		if p.Pool {
			rows = c.OH / 2 * (c.OW / 2)
		}
		need = p.M / max(1, rows) * c.H * c.W * c.C
	}
	if len(a) < need {
		panic("qgemm: activations too short")
	}
	if p.M == 0 {
		return
	}
	if p.algorithm != nil {
		p.algorithm.run(pool, a)
		return
	}
	for len(p.work) < pool.Threads() {
		if p.direct != nil {
			p.work = append(p.work, p.direct.worker())
			continue
		}
		patches := p.rows
		if p.Pool {
			patches *= 4
		}
		acc := tileRows * p.width
		if p.unit {
			patches, acc = (patches+15)/16*16, unitRows*p.width
		}
		if p.pairs != nil {
			acc = p.pairRows() * min(pairColumns, p.width*len(p.pairs.starts))
		}
		w := &worker{patches: make([]uint8, patches*p.stride()+16), acc: make([]int32, acc)}
		if p.Groups > 1 {
			w.patches, w.sums = make([]uint8, p.depth+p.Conv.C+16), make([]int32, depthwisePixels*p.width)
			p.work = append(p.work, w)
			continue
		}
		switch {
		case p.pairs != nil && len(p.pairs.ways) > 1:
			rows, kept := p.pairTile()
			w.spread = make([]uint8, p.pairRows()/kept*rows*p.stride()*len(p.pairs.ways))
		case p.pairs == nil && p.level == avx2:
			w.wide = make([]int16, patches*p.stride()+16)
		}
		p.work = append(p.work, w)
	}
	p.a = a
	pool.Run((p.M+p.rows-1)/p.rows, (*body)(p))
	p.a = nil
}

// stride is the bytes of a row of patches: K in whole groups, and whole blocks of 16 for the widening or of 32 for the ways of pairs.
func (p *Plan) stride() int {
	n := p.groups * p.level.group()
	switch {
	case p.pairs != nil:
		n = (p.K + pairBlock - 1) / pairBlock * pairBlock
	case p.level == avx2:
		n = (n + 15) / 16 * 16
	case p.unit && (p.Conv != nil || p.K != n):
		n |= unitK // an odd number of lines of a cache: 16 rows do not meet in few sets of it
	}
	return n
}

type body Plan

// Chunk computes some rows.
func (f *body) Chunk(i, id int) {
	p, w := (*Plan)(f), f.work[id]
	lo := i * p.rows
	n := min(p.rows, p.M-lo)
	switch {
	case p.direct != nil:
		p.convolve(w, lo, n)
		return
	case p.Groups > 1:
		p.grouped(w, lo, n)
		return
	}
	a, stride := w.patches, p.stride()
	if p.Pool {
		p.pooled(w, lo, n)
		return
	}
	switch {
	case p.Conv != nil:
		p.Conv.patches(a, stride, p.a, lo, n)
	case p.K == stride && (!p.unit || n%16 == 0): // rows can be read where they lie
		a = p.a[lo*p.K:]
	default:
		for r := range n {
			copy(a[r*stride:][:p.K], p.a[(lo+r)*p.K:])
		}
	}
	switch {
	case p.pairs != nil:
		p.onPairs(w, a, lo, n)
		return
	case p.level == avx2:
		widenRows(w.wide, a, n*stride)
	}
	width, most := p.width, tileRows
	if p.unit {
		most = unitRows
	}
	for j := 0; j < p.N; j += width {
		cols := min(width, p.N-j)
		for r := 0; r < n; r += most {
			rows := min(most, n-r)
			if p.unit {
				p.onUnit(w.acc, a[r*stride:], rows, j)
			} else {
				p.tile(w, a, r, rows, j)
			}
			p.store(w, lo+r, rows, j, cols)
		}
	}
}

// least is what no result of this run is below.
func (p *Plan) least() float32 {
	switch {
	case p.yf == nil:
		return float32(p.Low)
	case p.ReLU:
		return 0
	}
	return float32(math.Inf(-1))
}

// store brings the sums of rows rows from the first on and columns j to j+cols to results.
func (p *Plan) store(w *worker, first, rows, j, cols int) {
	p.settle(w.acc, p.width, first, rows, j, cols)
}

// settle brings sums [rows, width] of rows rows from the first on and columns j to j+cols to results. Behind the columns there are as many sums as fill up 16.
func (p *Plan) settle(acc []int32, width, first, rows, j, cols int) {
	done := 0
	switch {
	case p.y8 != nil:
		done = requantize(p.level, p.y8[first*p.N+j:], p.N, acc, width, p.scale[j:], p.offset[j:], p.least(), cols, rows)
	case p.yf != nil:
		done = finishFloats(p.level, p.yf[first*p.N+j:], p.N, acc, width, p.scale[j:], p.offset[j:], p.least(), cols, rows)
	}
	for x := range rows {
		if done < cols {
			p.finish(acc[x*width+done:][:cols-done], first+x, j+done)
		}
	}
}

// pooled computes n windows of a max pooling from the first on.
func (p *Plan) pooled(w *worker, first, n int) {
	c, stride, width := p.Conv, p.stride(), p.width
	ph, pw, size := c.OH/2, c.OW/2, c.H*c.W*c.C
	for r := range n {
		at := first + r
		x := p.a[at/(ph*pw)*size:][:size]
		top, left := at/pw%ph*2*c.StrideH-c.PadTop, at%pw*2*c.StrideW-c.PadLeft
		d := w.patches[4*r*stride:]
		if from, down := (top*c.W+left)*c.C, c.StrideH*c.W*c.C; c.whole(top, left, 2) == 2 && c.whole(top+c.StrideH, left, 2) == 2 &&
			copyPatches(d, stride, x[from:], c, c.StrideW*c.C, 2) && copyPatches(d[2*stride:], stride, x[from+down:], c, c.StrideW*c.C, 2) {
			continue
		}
		c.patch(d, x, top, left)
		c.patch(d[stride:], x, top, left+c.StrideW)
		c.patch(d[2*stride:], x, top+c.StrideH, left)
		c.patch(d[3*stride:], x, top+c.StrideH, left+c.StrideW)
	}
	switch {
	case p.pairs != nil:
		p.onPairs(w, w.patches, first, n)
		return
	case p.level == avx2:
		widenRows(w.wide, w.patches, 4*n*stride)
	}
	for j := 0; j < p.N; j += width {
		cols := min(width, p.N-j)
		for r := 0; p.unit && r < n; r += unitRows / 4 {
			rows := min(unitRows/4, n-r)
			p.onUnit(w.acc, w.patches[4*r*stride:], 4*rows, j)
			maxRows(w.acc, width, rows)
			p.store(w, first+r, rows, j, cols)
		}
		for r := 0; !p.unit && r < n; r += tileRows {
			rows := min(tileRows, n-r)
			for i := range rows {
				p.tileMax(w, w.acc[i*width:][:width], 4*(r+i), j)
			}
			p.store(w, first+r, rows, j, cols)
		}
	}
}

// patches copies the patches of n output pixels from the first on to rows stride bytes apart.
func (c *Conv) patches(dst []uint8, stride int, images []uint8, first, n int) {
	size := c.H * c.W * c.C
	image, at := first/(c.OH*c.OW), first%(c.OH*c.OW)
	oy, ox := at/c.OW, at%c.OW
	x := images[image*size:][:size]
	for r := 0; r < n; {
		top, left := oy*c.StrideH-c.PadTop, ox*c.StrideW-c.PadLeft
		here := c.whole(top, left, min(n-r, c.OW-ox))
		if here == 0 || !copyPatches(dst[r*stride:], stride, x[(top*c.W+left)*c.C:], c, c.StrideW*c.C, here) {
			here = 1
			c.patch(dst[r*stride:], x, top, left)
		}
		r, ox = r+here, ox+here
		if ox < c.OW {
			continue
		}
		if ox, oy = 0, oy+1; oy < c.OH || r == n {
			continue
		}
		oy, image = 0, image+1
		x = images[image*size:][:size]
	}
}

// plain reports whether the patch of pixel [y, x] begins at that pixel of the image, and its pixels are neighbours there.
func (c *Conv) plain() bool {
	return c.StrideH == 1 && c.StrideW == 1 && c.DilH <= 1 && c.DilW <= 1 && c.PadTop == 0 && c.PadLeft == 0
}

// whole is how many of n patches side by side, the first of which has its corner at (top, left), lie in the image without a gap between their pixels: all up to the first that does not.
func (c *Conv) whole(top, left, n int) int {
	if c.DilH > 1 || c.DilW > 1 || top < 0 || left < 0 || top+c.KH > c.H || left+c.KW > c.W {
		return 0
	}
	return min(n, (c.W-c.KW-left)/c.StrideW+1)
}

// patch copies the patch of image x whose corner is at (top, left).
func (c *Conv) patch(dst, x []uint8, top, left int) {
	line := c.KW * c.C
	if c.DilH > 1 || c.DilW > 1 {
		c.dilated(dst, x, top, left)
		return
	}
	if top >= 0 && left >= 0 && top+c.KH <= c.H && left+c.KW <= c.W { // wholly inside
		x, step := x[(top*c.W+left)*c.C:], c.W*c.C
		switch {
		case line == 3 && c.KH == 3 && len(x) > 2*step+3: // grey pictures: three words in place of nine bytes
			a, b, d := binary.LittleEndian.Uint32(x), binary.LittleEndian.Uint32(x[step:]), binary.LittleEndian.Uint32(x[2*step:])
			binary.LittleEndian.PutUint64(dst, uint64(a&0xffffff)|uint64(b&0xffffff)<<24|uint64(d)<<48)
			dst[8] = uint8(d >> 16)
		case line <= 16 && len(x) >= (c.KH-1)*step+16 && len(dst) >= (c.KH-1)*line+16: // 16 bytes each, those too many being overwritten by the next ones or not read
			for i := range c.KH {
				d, x := dst[i*line:][:16], x[i*step:][:16]
				lo, hi := binary.LittleEndian.Uint64(x), binary.LittleEndian.Uint64(x[8:])
				binary.LittleEndian.PutUint64(d, lo)
				binary.LittleEndian.PutUint64(d[8:], hi)
			}
		case line <= 16: // a call of copy would take longer
			for i := range c.KH {
				d := dst[i*line:][:line]
				for j, v := range x[i*step:][:len(d)] {
					d[j] = v
				}
			}
		default:
			for i := range c.KH {
				copy(dst[i*line:][:line], x[i*step:])
			}
		}
		return
	}
	// Columns of the patch that lie in the image.
	from, to := max(0, -left), min(c.KW, c.W-left)
	for i := range c.KH {
		d, y := dst[i*line:][:line], top+i
		if y < 0 || y >= c.H || from >= to {
			fill(d, c.Zero)
			continue
		}
		fill(d[:from*c.C], c.Zero)
		copy(d[from*c.C:to*c.C], x[(y*c.W+left+from)*c.C:])
		fill(d[to*c.C:], c.Zero)
	}
}

func fill(x []uint8, v uint8) {
	for i := range x {
		x[i] = v
	}
}

// finish brings the sums of a row's columns from j on to results, in plain Go.
func (p *Plan) finish(acc []int32, row, j int) {
	cols := len(acc)
	if p.yi != nil {
		y, add, row := p.yi[row*p.N+j:][:cols], p.colAdd[j:][:cols], p.rowAdd[row]
		for i, v := range acc {
			y[i] = v + add[i] + row
		}
		return
	}
	scale, offset := p.scale[j:][:cols], p.offset[j:][:cols]
	if p.yf != nil {
		y := p.yf[row*p.N+j:][:cols]
		for i := range y {
			v := float32(float32(acc[i])*scale[i]) + offset[i]
			if p.ReLU && v < 0 {
				v = 0
			}
			y[i] = v
		}
		return
	}
	requantizeGo(p.y8[row*p.N+j:][:cols], acc, scale, offset, float32(p.Low))
}

// requantizeGo brings sums to bytes.
func requantizeGo(dst []uint8, acc []int32, scale, offset []float32, lo float32) {
	for i := range dst {
		v := float32(float32(acc[i])*scale[i]) + offset[i]
		dst[i] = toByte(v, lo)
	}
}

func toByte(v, lo float32) uint8 { return uint8(math.RoundToEven(float64(min(max(v, lo), 255)))) }

// tileMaxGo is the greatest of the sums of four rows of patches, in plain Go.
func (p *Plan) tileMaxGo(w *worker, acc []int32, r, j int) {
	width := len(acc)
	b := p.b8[j/width*p.groups*width:]
	for x := range 4 {
		row := w.four[:width]
		clear(row)
		for k, v := range w.patches[(r+x)*p.stride():][:p.K] {
			v := int32(v)
			for i, q := range b[k*width:][:width] {
				row[i] += v * int32(q)
			}
		}
		for i, v := range row {
			if x == 0 || v > acc[i] {
				acc[i] = v
			}
		}
	}
}

// tileGo is the tile in plain Go, on weights in groups of 1.
func (p *Plan) tileGo(w *worker, a []uint8, r, rows, j int) {
	width := p.width
	b := p.b8[j/width*p.groups*width:]
	for x := range rows {
		acc := w.acc[x*width:][:width]
		clear(acc)
		for k, v := range a[(r+x)*p.stride():][:p.K] {
			v := int32(v)
			for i, q := range b[k*width:][:width] {
				acc[i] += v * int32(q)
			}
		}
	}
}

// Quantize sets y = min(255, max(0, round(x/scale) + zero)), halves to even; 0 where x is NaN.
func Quantize(y []uint8, x []float32, scale float32, zero uint8) {
	inverse, z := 1/scale, float32(zero)
	x = x[:len(y)]
	for i := quantizeBlocks(current(), y, x, inverse, z); i < len(y); i++ {
		v := float32(math.RoundToEven(float64(float32(x[i]*inverse)))) + z
		if !(v > 0) {
			v = 0
		}
		y[i] = uint8(min(v, 255))
	}
}
