// Package wgemm multiplies few rows of floats by weights of 8 or 4 bits, which are read as they are: where weights exceed the caches, that reading is all the time it takes.
//
// Terminology: weights [N, K] lie by outputs; a group is Group neighbouring weights of one output, which share a scale; a panel is the outputs that one tile computes. A row of x is brought
// to 8 bits on its way in, each group with a scale of its own, its greatest magnitude over 127. The sum over a group is exact in 32 bits on every instruction set (nothing saturates), and
// what follows rounds each operation apart, in the order of the groups, so that results are the same bits everywhere:
//
//	y[m][n] = Σ_g float(Σ_{k in g} q[m][k]·w[n][k]) · (scale[n][g]·s[m][g]),  q[m][k] = round(x[m][k]·(127/top)), s = top/127, top = max |x[m][k in g]|
//
// Weights of 8 bits go from -127 to 127 (-128 counts as -127). Those of 4 bits are in pairs, the lower half first, each 8 more than its value.
//
// More rows than a tile of vectors has go to the matrix unit where there is one for bytes (AMX): it reads the same panels, 64 of K and 16 columns at a time, after those of 4 bits have been made bytes.
//
//go:generate go run -C ../vec/_asm ./wgemm -pkg wgemm -out ../../wgemm/wgemm_amd64.s -stubs ../../wgemm/stubs_amd64.go
package wgemm

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// MaxGroup is the most weights of a group: their sums stay within 32 bits.
const MaxGroup = 1 << 15

// Spec says what a Plan computes: x [M, K] times weights [N, K], transposed.
type Spec struct {
	M, N, K int
	Bits    int // 8 or 4
	Group   int // a multiple of 8; 0: all of K
}

// Check says what is wrong with a Spec.
func (s Spec) Check() error {
	switch {
	case s.M < 0 || s.N < 1 || s.K < 1:
		return fmt.Errorf("wgemm: %d rows times weights [%d %d]", s.M, s.N, s.K)
	case s.Bits != 8 && s.Bits != 4:
		return fmt.Errorf("wgemm: weights of %d bits; 8 and 4 are known", s.Bits)
	case s.Group < 0 || s.Group%8 != 0 || s.group() > MaxGroup:
		return fmt.Errorf("wgemm: groups of %d must be a multiple of 8 and at most %d", s.group(), MaxGroup)
	}
	return nil
}

func (s Spec) group() int {
	if s.Group == 0 {
		return s.K
	}
	return s.Group
}

// Groups is how many groups an output has.
func (s Spec) Groups() int { return (s.K + s.group() - 1) / s.group() }

const (
	tileRows = 6
	maxCols  = 32
	auxLen   = 2 * tileRows // of a group: scales of the rows, then corrections
	tiny     = 1e-30        // magnitudes below count as zero, so that 127/top is finite

	unitK    = 64              // of K in a step of the matrix unit
	unitRows = 32              // of x in a block of it
	unitStep = unitK * maxCols // bytes of weights in a step
)

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

func (l level) cols() int { return [...]int{16, 16, 16, 32}[l] }
func (l level) rows() int { return [...]int{1, 2, 2, 6}[l] }

// Layout names the order in which weights are packed, which is not the same on every instruction set.
func Layout() string { return [...]string{"wgemm 16", "wgemm 16", "wgemm 16", "wgemm 32"}[current()] }

// Plan is a Spec with scratch memory. One Run at a time.
type Plan struct {
	Spec
	level                 level
	most                  int // rows that there is room for
	groups, inner, padded int // inner: steps of a group in the kernel; padded: a row of q
	cols, panels          int
	rowBlock, panelBlock  int // of a chunk
	rowBlocks             int
	panelBlocks           int
	unit                  bool // the matrix unit computes
	steps                 int  // of it in a group
	*operand

	y    []float32
	x    []float32 // nil: the operand is there
	w    []uint8
	s    []float32
	work []*worker // of each thread
}

// operand is x in 8 bits.
type operand struct {
	stride int       // from row to row
	q      []int8    // [M, stride]
	aux    []int32   // [tiles of rows, groups, auxLen]
	sx     []float32 // of the matrix unit: scales [M, groups]
}

// worker is the memory of one thread.
type worker struct {
	tile    []float32
	scratch [1024]int32 // of the matrix unit: sums
	wide    []int8      // of the matrix unit: a panel of 4 bits as bytes
}

// step is how many K a step of the kernel takes.
func (s Spec) step() int { return 32 / s.Bits }

// New plans. It panics if s is wrong.
func New(s Spec) *Plan {
	if err := s.Check(); err != nil {
		panic(err.Error())
	}
	return build(s, hasUnit() && s.M > tileRows && (s.Groups() == 1 || s.group()%unitK == 0))
}

func build(s Spec, unit bool) *Plan {
	p := &Plan{Spec: s, level: current(), most: s.M, groups: s.Groups(), unit: unit, operand: new(operand)}
	p.inner = (s.group() + s.step() - 1) / s.step()
	p.padded = p.groups * p.inner * s.step()
	p.cols = p.level.cols()
	p.panels = (s.N + p.cols - 1) / p.cols
	if unit {
		p.steps = (s.group() + unitK - 1) / unitK
		// An odd number of lines of a cache from row to row: 16 rows do not meet in few sets of it.
		p.stride = (p.groups*p.steps | 1) * unitK
		rows := (s.M + unitRows - 1) / unitRows * unitRows
		p.q, p.sx = make([]int8, rows*p.stride), make([]float32, rows*p.groups)
		// Four to 16 chunks of all columns where there are rows enough, else 16 of some columns.
		p.rowBlock = max(unitRows, min(4*unitRows, (s.M+16*unitRows-1)/(16*unitRows)*unitRows))
		p.panelBlock = p.panels
		if blocks := (s.M + p.rowBlock - 1) / p.rowBlock; blocks < 4 {
			p.panelBlock = (p.panels*blocks + 15) / 16
		}
	} else {
		const chunk = 1 << 14 // bytes of weights, at least
		p.panelBlock = max(1, min((p.panels+7)/8, max(chunk/p.panelBytes(), rowPanels)))
		p.rowBlock = 8 * tileRows
		p.stride = p.padded
		p.q = make([]int8, s.M*p.stride)
		p.aux = make([]int32, (s.M+p.level.rows()-1)/p.level.rows()*p.groups*auxLen)
	}
	p.panelBlocks = (p.panels + p.panelBlock - 1) / p.panelBlock
	return p
}

func (p *Plan) panelBytes() int { return p.groups * p.inner * p.cols * 4 }

// WeightBytes is the length of packed weights, ScaleLen that of packed scales. Behind the weights of 8 bits is room for the last step of the matrix unit to read beyond K, and the columns' sums.
func (p *Plan) WeightBytes() int {
	if p.summed() {
		return p.sums() + 4*p.ScaleLen()
	}
	return p.panels * p.panelBytes()
}

// summed reports whether packed weights have -128 times the sum of each column and group with them, i32 in the order of the scales: a row that is alone is multiplied with 128 more than its values.
func (p *Plan) summed() bool { return p.level == vnni && p.Bits == 8 }

// sums is where they begin.
func (p *Plan) sums() int { return p.panels*p.panelBytes() + unitStep }

// ScaleLen is the number of packed scales.
func (p *Plan) ScaleLen() int { return p.panels * p.groups * p.cols }

// ScratchBytes is what the plan holds itself.
func (p *Plan) ScratchBytes() int { return len(p.q) + 4*len(p.aux) + 4*len(p.sx) }

// Share makes p take its rows from what the last run of o made of its own, of which Run is told by nil in place of x. It reports whether the two keep them in one way; else nothing changes.
func (p *Plan) Share(o *Plan) bool {
	if p.most != o.most || p.K != o.K || p.Bits != o.Bits || p.group() != o.group() || p.level != o.level || p.unit != o.unit {
		return false
	}
	p.operand = o.operand
	return true
}

// PackWeights brings weights, [N, K] bytes or [N, ⌈K/2⌉] pairs, to the order in which Run reads them.
func (p *Plan) PackWeights(dst, w []uint8) {
	dst = dst[:p.WeightBytes()]
	row, zero := p.K, uint8(0)
	if p.Bits == 4 {
		row, zero = (p.K+1)/2, 0x88
	}
	for i := range dst {
		dst[i] = zero
	}
	group, step := p.group(), p.step()
	for n := range p.N {
		w, panel := w[n*row:][:row], dst[n/p.cols*p.panelBytes():]
		for k := range p.K {
			g, i := k/group, k%group
			at := ((g*p.inner+i/step)*p.cols + n%p.cols) * 4
			if p.Bits == 8 {
				v := w[k]
				if v == 0x80 {
					v = 0x81
				}
				panel[at+i%4] = v
				if p.summed() {
					sum := dst[p.sums()+4*((n/p.cols*p.groups+g)*p.cols+n%p.cols):]
					binary.LittleEndian.PutUint32(sum, binary.LittleEndian.Uint32(sum)-128*uint32(int8(v)))
				}
				continue
			}
			v := w[k/2] >> (4 * (k % 2)) & 15
			if at += i % 4; i%8 < 4 {
				panel[at] = panel[at]&0xf0 | v
			} else {
				panel[at] = panel[at]&0x0f | v<<4
			}
		}
	}
}

// PackScales does so for scales [N, Groups].
func (p *Plan) PackScales(dst, scale []float32) {
	dst = dst[:p.ScaleLen()]
	clear(dst)
	for n := range p.N {
		for g := range p.groups {
			dst[(n/p.cols*p.groups+g)*p.cols+n%p.cols] = scale[n*p.groups+g]
		}
	}
}

// Rows makes the next runs those of m rows, at most those that the plan was made for.
func (p *Plan) Rows(m int) {
	if m < 0 || m > p.most {
		panic("wgemm: more rows than planned")
	}
	p.M = m
}

// Run sets y [M, N] to the product of x [M, K] and packed weights. With x nil it takes the rows of the last run, by this plan or by one that shares them.
func (p *Plan) Run(pool *par.Pool, y, x []float32, w []uint8, scale []float32) {
	if p.level != current() {
		panic("wgemm: the plan was made for another instruction set")
	}
	if len(w) < p.WeightBytes() || len(scale) < p.ScaleLen() || x != nil && len(x) < p.M*p.K || len(y) < p.M*p.N {
		panic("wgemm: an operand is too short")
	}
	for len(p.work) < pool.Threads() {
		w := &worker{tile: make([]float32, tileRows*maxCols)}
		if p.unit && p.Bits == 4 {
			w.wide = make([]int8, p.groups*p.steps*unitStep)
		}
		p.work = append(p.work, w)
	}
	p.y, p.x, p.w, p.s = y, x, w, scale
	p.rowBlocks = (p.M + p.rowBlock - 1) / p.rowBlock
	switch {
	case x == nil || p.whole():
	case p.M*p.K > 1<<13:
		pool.Run((p.M+quantizeRows-1)/quantizeRows, (*quantizeBody)(p))
	default:
		for m := range p.M {
			p.quantize(m)
		}
	}
	pool.Run(p.rowBlocks*p.panelBlocks, (*body)(p))
	p.y, p.x, p.w, p.s = nil, nil, nil, nil
}

// whole reports whether a chunk has all columns of its rows, which it then brings to 8 bits itself.
func (p *Plan) whole() bool { return p.unit && p.panelBlocks == 1 }

// quantizeRows is the rows of a chunk that brings them to 8 bits.
const quantizeRows = 4

type quantizeBody Plan

// Chunk brings some rows to 8 bits.
func (f *quantizeBody) Chunk(i, _ int) {
	for m := i * quantizeRows; m < min((i+1)*quantizeRows, f.M); m++ {
		(*Plan)(f).quantize(m)
	}
}

// quantize brings row m of x to 8 bits.
func (p *Plan) quantize(m int) { p.quantizeRow(m, p.x[m*p.K:][:p.K]) }

func (p *Plan) quantizeRow(m int, x []float32) {
	q := p.q[m*p.stride:][:p.stride]
	if p.unit {
		for g := range p.groups {
			lo, hi := g*p.group(), min((g+1)*p.group(), p.K)
			p.sx[m*p.groups+g], _ = toBytes(p.level, q[g*p.steps*unitK:][:p.steps*unitK], x[lo:hi])
		}
		return
	}
	rows := p.level.rows()
	tile, r := m/rows, m%rows
	zero := int32(0)
	switch {
	case p.Bits == 4:
		zero = 8
	case p.level >= avxvnni:
		zero = 128
	}
	n := p.inner * p.step()
	for g := range p.groups {
		scale, sum := toBytes(p.level, q[g*n:][:n], x[g*p.group():min((g+1)*p.group(), p.K)])
		aux := p.aux[(tile*p.groups+g)*auxLen:][:auxLen]
		aux[r], aux[tileRows+r] = int32(math.Float32bits(scale)), -zero*sum
	}
}

// toBytes brings a group to 8 bits, with zeros behind it; it gives its scale and the sum of the bytes.
func toBytes(l level, q []int8, x []float32) (scale float32, sum int32) {
	clear(q[len(x):])
	if l == vnni {
		return quantizeRow(q, x)
	}
	top := greatest(l, x)
	inverse := float32(0)
	if top >= tiny {
		inverse, scale = 127/top, top/127
	}
	return scale, round(l, q[:len(x)], x, inverse)
}

type body Plan

// Chunk computes a block of rows and outputs.
func (f *body) Chunk(i, id int) {
	p := (*Plan)(f)
	lo, first := i%p.rowBlocks*p.rowBlock, i/p.rowBlocks*p.panelBlock
	hi, rows := min(lo+p.rowBlock, p.M), p.level.rows()
	last := min(first+p.panelBlock, p.panels)
	if p.unit {
		if p.x != nil && p.whole() {
			for m := lo; m < hi; m++ {
				p.quantize(m)
			}
		}
		for j := first; j < last; j++ {
			p.onUnit(p.work[id], j, lo, hi-lo)
		}
		return
	}
	if p.M == 1 {
		// As many panels as all have their columns go at once.
		for whole := min(last, p.N/p.cols); first < whole; {
			n := min(rowPanels, whole-first)
			p.Row(p.y[first*p.cols:], zeros[:], 0, p.w, p.s, Panels{First: first, Every: 1, Count: n, Step: p.cols})
			first += n
		}
	}
	out := p.work[id].tile
	for j := first; j < last; j++ {
		w, s := p.w[j*p.panelBytes():][:p.panelBytes()], p.s[j*p.groups*p.cols:][:p.groups*p.cols]
		cols := min(p.cols, p.N-j*p.cols)
		for m := lo; m < hi; m += rows {
			n := min(rows, hi-m)
			p.run(out, p.q[m*p.stride:][:n*p.stride], w, s, p.aux[m/rows*p.groups*auxLen:][:p.groups*auxLen], n)
			for r := range n {
				copy(p.y[(m+r)*p.N+j*p.cols:][:cols], out[r*p.cols:])
			}
		}
	}
}

// Columns is the number of columns of a panel.
func (p *Plan) Columns() int { return p.cols }

// Take brings x to 8 bits as row m of the operand, for Row. It is for plans of at most 6 rows.
func (p *Plan) Take(m int, x []float32) { p.quantizeRow(m, x[:p.K]) }

// Panels are some panels of weights, each so many after the one before, whose results lie Step apart. Those of what is added lie AddStep apart; 0: all are the same.
type Panels struct {
	First, Every, Count int
	Step, AddStep       int
}

// rowPanels is the most panels that a kernel of one row takes.
const rowPanels = 4

// zeros is what is added where nothing is.
var zeros [maxCols]float32

// Row sets y to add and the products of row m, as Take or Run brought it to 8 bits, with panels of w: results of all columns of a panel, the last one's included, whatever N says. y and add must not overlap.
func (p *Plan) Row(y, add []float32, m int, w []uint8, scale []float32, at Panels) {
	if p.unit || at.First < 0 || at.Count < 1 || at.Count > rowPanels || at.First+(at.Count-1)*at.Every >= p.panels {
		panic(fmt.Sprintf("wgemm: no panels %+v", at))
	}
	rows, last := p.level.rows(), at.Count-1
	q, aux := p.q[m*p.stride:][:p.stride], p.aux[m/rows*p.groups*auxLen+m%rows:]
	n, s := p.panelBytes(), p.groups*p.cols
	var sums []uint8
	if p.summed() {
		sums = w[p.sums()+4*at.First*s:]
		_ = sums[4*(last*at.Every*s+s)-1]
	}
	w, scale = w[at.First*n:], scale[at.First*s:]
	_, _, _, _ = w[last*at.Every*n+n-1], scale[last*at.Every*s+s-1], y[last*at.Step+p.cols-1], add[last*at.AddStep+p.cols-1]
	_ = aux[(p.groups-1)*auxLen+tileRows]
	if p.level != portable {
		p.row(y, add, q, w, scale, aux, sums, at)
		return
	}
	for i := range at.Count {
		out := y[i*at.Step:][:p.cols]
		p.runGo(out, q, w[i*at.Every*n:], scale[i*at.Every*s:], aux)
		for j, v := range add[i*at.AddStep:][:p.cols] {
			out[j] += v
		}
	}
}

// runGo is a tile of one row in plain Go.
func (p *Plan) runGo(y []float32, q []int8, w []uint8, scale []float32, aux []int32) {
	y = y[:p.cols]
	clear(y)
	step := p.step()
	for range p.groups {
		var acc [maxCols]int32
		for j := range p.cols {
			acc[j] = aux[tileRows]
		}
		for range p.inner {
			for j := range p.cols {
				v, sum := w[4*j:][:4], int32(0)
				for i, b := range v {
					if p.Bits == 8 {
						sum += int32(q[i]) * int32(int8(b))
					} else {
						sum += int32(q[i])*int32(b&15) + int32(q[4+i])*int32(b>>4)
					}
				}
				acc[j] += sum
			}
			q, w = q[step:], w[4*p.cols:]
		}
		s := math.Float32frombits(uint32(aux[0]))
		for j := range y {
			y[j] += float32(float32(acc[j]) * float32(scale[j]*s))
		}
		scale, aux = scale[p.cols:], aux[auxLen:]
	}
}

func greatestGo(x []float32) float32 {
	top := float32(0)
	for _, v := range x {
		if v = float32(math.Abs(float64(v))); v > top {
			top = v
		}
	}
	return top
}

func roundGo(q []int8, x []float32, inverse float32) (sum int32) {
	for i, v := range x {
		v = float32(v * inverse)
		r := int8(-128) // of NaN
		if v == v {
			r = int8(math.RoundToEven(float64(max(-128, min(v, 127)))))
		}
		q[i] = r
		sum += int32(r)
	}
	return sum
}
