package main

import (
	"bytes"
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

// Offsets of the fields of gemm.Tile; TestTileLayout holds them to the Go struct.
const (
	tA       = 0
	tAOff    = 24
	tSegs    = 48
	tNSegs   = 56
	tB       = 72
	tC       = 96
	tCOff    = 120
	tIn      = 144
	tBias    = 168
	tAct     = 192
	tRow     = 200
	tTiles   = 208
	tTail    = 216
	tAStride = 224
	tBStride = 232
	tAOffCur = 240
	tCOffCur = 248
	tSegCur  = 256
	tSegLeft = 264
	tAcross  = 272
	tPanels  = 312
	tStep    = 320
	tLeft    = 328
	tCur     = 336 // of B, C, In, Bias
)

// shape is one version of the tile kernel: rows × vecs vectors of accumulators.
type shape struct {
	level  string // "AVX2" or "AVX512"
	rows   int
	vecs   int
	width  int  // bytes of a vector
	masked bool // the last vector is partial
}

func (s shape) name() string {
	level := s.level
	if level == "AVX512" && s.width == 32 {
		level = "AVX512VL"
	}
	n := fmt.Sprintf("tile%s_%dx%d", level, s.rows, s.vecs*s.width/4)
	if s.masked {
		n += "m"
	}
	return n
}

// families lists the versions. A family is a table of kernels by width in vectors and height in rows; the tallest tiles keep
// all but a few vector registers busy as accumulators, and need no more row pointers than there are registers.
var families = []struct {
	name    string
	level   string
	width   int
	masked  bool
	maxRows []int // by vectors
}{
	{"tilesAVX2", "AVX2", 32, false, []int{0, 6, 6}},
	{"tilesAVX2Masked", "AVX2", 32, true, []int{0, 6, 6}},
	// Narrow tiles do better with 256-bit vectors where a 512-bit FMA is two passes, as on Zen 4: a 512-bit broadcast feeds
	// one FMA there, and 8×16 reaches 70% of the peak instead of 97%. Where it is one, 512 bits win (function narrow).
	{"tilesAVX512Narrow", "AVX512", 32, true, []int{0, 6, 6}},
	// A masked load takes a place among the FMAs on Intel's processors, so whole vectors are not masked.
	{"tilesAVX512", "AVX512", 64, false, []int{0, 8, 8, 8, 6}},
	{"tilesAVX512Masked", "AVX512", 64, true, []int{0, 8, 8, 8, 6}},
}

func genTiles(c *File) {
	maskTable(c)
	fmt.Fprintf(c.Stubs, "\n// The versions of the tile kernel, tileLEVEL_ROWSxCOLS (m: the last vector is masked).\n// Each computes what tileGo does, for t.tiles tiles of that many rows from row t.row on.\n")
	table := new(bytes.Buffer)
	for _, f := range families {
		fmt.Fprintf(table, "\nvar %s = [...][maxRows + 1]func(*Tile){\n", f.name)
		for vecs, most := range f.maxRows {
			if most == 0 {
				continue
			}
			fmt.Fprintf(table, "%d: {", vecs)
			for rows := 1; rows <= most; rows++ {
				s := shape{f.level, rows, vecs, f.width, f.masked}
				genTile(c, s)
				fmt.Fprintf(c.Stubs, "\nfunc %s(t *Tile)\n", s.name())
				fmt.Fprintf(table, "%d: %s,", rows, s.name())
			}
			fmt.Fprintf(table, "},\n")
		}
		fmt.Fprintf(table, "}\n")
	}
	c.Stubs.Write(table.Bytes())
}

// maskTable holds eight words of ones, then eight of zeros: eight words from 4·(8−n) on are a mask of n lanes.
func maskTable(c *File) {
	c.StaticGlobal("lanemask")
	c.DataAttributes(attr.NOPTR | attr.RODATA)
	for i := range 16 {
		v := uint32(0)
		if i < 8 {
			v = 0xffffffff
		}
		c.AddDatum(4*i, operand.U32(v))
	}
}

// tiler holds what the parts of one kernel share.
type tiler struct {
	*File
	shape
	acc  [][]reg.Register // [rows][vecs]
	b    []reg.Register   // one a vector of the row of B
	a    []reg.Register   // broadcast elements of A, in turn
	mask reg.Register     // YMM mask (AVX2) or opmask (AVX-512)
	ptr  []reg.Register   // row pointers into A

	// Where the matrices' pointers are: as the caller gave them or, in a tile of full width, which walks over panels, those of the current panel.
	ptrB, ptrC, ptrIn, ptrBias, left int
}

// full reports whether the shape is a whole panel wide, so that its kernel walks over panels.
func (s shape) full() bool {
	return !s.masked && (s.level == "AVX512" && s.vecs == 4 || s.level == "AVX2" && s.vecs == 2)
}

// Register roles in the inner loop. BP, R14 and R15 stay untouched.
var (
	regT = reg.RDI // the Tile
	regB = reg.RSI // current row of B
	regN = reg.RCX // K indices left in this segment
	regX = reg.RDX // byte offset of the current K index from each row pointer
)

func genTile(c *File, s shape) {
	g := &tiler{File: c, shape: s}
	g.ptr = []reg.Register{reg.RAX, reg.RBX, reg.R8, reg.R9, reg.R10, reg.R11, reg.R12, reg.R13}[:s.rows]
	vec := func(i int) reg.Register {
		if s.width == 32 {
			return Y[i]
		}
		return Z[i]
	}
	next := 0
	take := func() reg.Register { next++; return vec(next - 1) }
	for range s.rows {
		var row []reg.Register
		for range s.vecs {
			row = append(row, take())
		}
		g.acc = append(g.acc, row)
	}
	for range s.vecs {
		g.b = append(g.b, take())
	}
	last := 32
	if s.level == "AVX2" {
		last = 16
		if s.masked {
			last--
			g.mask = vec(last)
		}
	} else if s.masked {
		g.mask = reg.K1
	}
	for len(g.a) < 4 && next < last {
		g.a = append(g.a, take())
	}

	begin(c, s.name(), "Tile")
	g.Load(g.Param("t"), regT)
	g.loadMask()
	g.ptrB, g.ptrC, g.ptrIn, g.ptrBias, g.left = tB, tC, tIn, tBias, tTiles
	if s.full() {
		g.ptrB, g.ptrC, g.ptrIn, g.ptrBias, g.left = tCur, tCur+8, tCur+16, tCur+24, tLeft
		for _, p := range [][2]int{{tB, g.ptrB}, {tC, g.ptrC}, {tIn, g.ptrIn}, {tBias, g.ptrBias}} {
			g.MOVQ(At(regT, p[0]), reg.RBX)
			g.MOVQ(reg.RBX, At(regT, p[1]))
		}
		g.Label("panel")
		g.MOVQ(At(regT, tTiles), reg.RBX)
		g.MOVQ(reg.RBX, At(regT, g.left))
	}
	// The offsets of the first row.
	g.MOVQ(At(regT, tRow), reg.RAX)
	for _, p := range [][2]int{{tAOff, tAOffCur}, {tCOff, tCOffCur}} {
		g.MOVQ(At(regT, p[0]), reg.RBX)
		g.LEAQ(Idx(reg.RBX, reg.RAX, 8), reg.RBX)
		g.MOVQ(reg.RBX, At(regT, p[1]))
	}
	g.Label("tile")
	g.initial()
	g.prefetch()
	g.product()
	g.finish()
	g.ADDQ(operand.U32(8*uint32(s.rows)), At(regT, tCOffCur))
	g.DECQ(At(regT, g.left))
	g.JNZ(operand.LabelRef("tile"))
	if s.full() {
		g.nextPanel()
	}
	g.VZEROUPPER()
	g.RET()
}

// nextPanel goes on to the next panel, if there is one: B's is a step away, the columns of the others follow.
func (g *tiler) nextPanel() {
	g.DECQ(At(regT, tPanels))
	g.JZ(operand.LabelRef("done"))
	g.MOVQ(At(regT, tStep), reg.RAX)
	g.ADDQ(reg.RAX, At(regT, g.ptrB))
	width := operand.U32(uint32(g.vecs * g.width))
	g.ADDQ(width, At(regT, g.ptrC))
	for i, p := range []int{g.ptrIn, g.ptrBias} {
		skip := []string{"noin", "nobiases"}[i]
		g.CMPQ(At(regT, p), operand.U8(0))
		g.JE(operand.LabelRef(skip))
		g.ADDQ(width, At(regT, p))
		g.Label(skip)
	}
	g.JMP(operand.LabelRef("panel"))
	g.Label("done")
}

// loadMask makes the mask of the lanes in use in the last vector from t.tail.
func (g *tiler) loadMask() {
	if g.mask == nil {
		return
	}
	g.MOVQ(At(regT, tTail), reg.RCX)
	tailMask(g.File, g.mask, g.width/4)
}

// tailMask makes mask, an opmask or an AVX2 vector, that of the first RCX of so many lanes. It changes RAX, RBX and RCX.
func tailMask(c *File, mask reg.Register, lanes int) {
	if mask != reg.K1 {
		c.LEAQ(operand.NewDataAddr(operand.NewStaticSymbol("lanemask"), 32), reg.RAX)
		c.SHLQ(operand.U8(2), reg.RCX)
		c.SUBQ(reg.RCX, reg.RAX)
		c.VMOVUPS(At(reg.RAX, 0), mask)
		return
	}
	c.MOVL(operand.U32(1<<lanes-1), reg.EAX)
	c.MOVL(operand.U32(uint32(lanes)), reg.EBX)
	c.SUBL(reg.ECX, reg.EBX)
	c.SHRXL(reg.EBX, reg.EAX, reg.EAX)
	c.KMOVW(reg.EAX, mask)
}

// load reads vector v of the row at m into dst; lanes that are not in use become 0.
func (g *tiler) load(v int, m operand.Mem, dst reg.Register) {
	m.Disp += v * g.width
	switch {
	case g.mask == nil || v < g.vecs-1:
		g.VMOVUPS(m, dst)
	case g.level == "AVX2":
		g.VMASKMOVPS(m, g.mask, dst)
	default:
		g.VMOVUPS_Z(m, g.mask, dst)
	}
}

func (g *tiler) store(v int, src reg.Register, m operand.Mem) {
	m.Disp += v * g.width
	switch {
	case g.mask == nil || v < g.vecs-1:
		g.VMOVUPS(src, m)
	case g.level == "AVX2":
		g.VMASKMOVPS(src, g.mask, m)
	default:
		g.VMOVUPS(src, g.mask, m)
	}
}

func (g *tiler) zero(r reg.Register) {
	if g.level == "AVX2" {
		g.VXORPS(r, r, r)
	} else {
		g.VPXORD(r, r, r)
	}
}

// initial sets the accumulators to Bias + In, either of which may be missing.
func (g *tiler) initial() {
	for v := range g.vecs {
		g.zero(g.b[v])
	}
	g.MOVQ(At(regT, g.ptrBias), reg.RAX)
	g.TESTQ(reg.RAX, reg.RAX)
	g.JZ(operand.LabelRef("nobias"))
	for v := range g.vecs {
		g.load(v, At(reg.RAX, 0), g.b[v])
	}
	g.Label("nobias")
	g.MOVQ(At(regT, g.ptrIn), reg.RAX)
	g.TESTQ(reg.RAX, reg.RAX)
	g.JNZ(operand.LabelRef("in"))
	for r := range g.rows {
		for v := range g.vecs {
			g.VMOVAPS(g.b[v], g.acc[r][v])
		}
	}
	g.JMP(operand.LabelRef("ready"))
	g.Label("in")
	g.MOVQ(At(regT, tCOffCur), reg.RBX)
	for r := range g.rows {
		g.MOVQ(At(reg.RBX, 8*r), reg.RCX)
		for v := range g.vecs {
			g.load(v, Idx(reg.RAX, reg.RCX, 4), g.acc[r][v])
		}
		for v := range g.vecs {
			g.VADDPS(g.b[v], g.acc[r][v], g.acc[r][v])
		}
	}
	g.Label("ready")
}

// prefetch asks for the elements of C that the next tile of this call will read or write.
func (g *tiler) prefetch() {
	g.CMPQ(At(regT, g.left), operand.U32(1))
	g.JE(operand.LabelRef("nonext"))
	g.MOVQ(At(regT, g.ptrC), reg.RAX)
	g.MOVQ(At(regT, tCOffCur), reg.RBX)
	for r := range g.rows {
		g.MOVQ(At(reg.RBX, 8*(g.rows+r)), reg.RCX)
		for v := 0; v < g.vecs*g.width; v += 64 {
			m := Idx(reg.RAX, reg.RCX, 4)
			m.Disp = v
			g.PREFETCHT0(m)
		}
	}
	g.Label("nonext")
}

// product adds Σ A·B to the accumulators.
func (g *tiler) product() {
	g.MOVQ(At(regT, tAOffCur), regX)
	g.MOVQ(At(regT, tA), regN)
	for r, p := range g.ptr {
		g.MOVQ(At(regX, 8*r), p)
		g.LEAQ(Idx(regN, p, 4), p)
	}
	g.ADDQ(operand.U32(8*uint32(g.rows)), At(regT, tAOffCur))
	g.MOVQ(At(regT, g.ptrB), regB)
	g.MOVQ(At(regT, tSegs), regX)
	g.MOVQ(regX, At(regT, tSegCur))
	g.MOVQ(At(regT, tNSegs), regN)
	g.MOVQ(regN, At(regT, tSegLeft))

	g.Label("seg")
	g.MOVQ(At(regT, tSegCur), regN)
	g.MOVQ(At(regN, 0), regX)
	g.MOVQ(At(regN, 8), regN)
	g.SHLQ(operand.U8(2), regX)
	if !g.masked {
		g.near()
		g.across()
	}
	g.Label("far")
	strides := g.rows <= 6 // in registers; with more rows these are row pointers
	if strides {
		g.MOVQ(At(regT, tAStride), reg.R12)
		g.MOVQ(At(regT, tBStride), reg.R13)
	}
	g.Label("kfar")
	g.step(At(regB, 0), g.here)
	if strides {
		g.ADDQ(reg.R12, regX)
		g.ADDQ(reg.R13, regB)
	} else {
		g.ADDQ(At(regT, tAStride), regX)
		g.ADDQ(At(regT, tBStride), regB)
	}
	g.DECQ(regN)
	g.JNZ(operand.LabelRef("kfar"))
	g.Label("next")
	g.ADDQ(operand.U32(16), At(regT, tSegCur))
	g.DECQ(At(regT, tSegLeft))
	g.JNZ(operand.LabelRef("seg"))
}

// near is the loop over a segment whose elements of A are neighbours, unroll steps at a time, since each step's own additions to counters and pointers would keep some FMAs from their
// ports (a tenth of the time on Intel's processors). Where they are not, it jumps to notnear.
func (g *tiler) near() {
	g.CMPQ(At(regT, tAStride), operand.U8(4))
	g.JNE(operand.LabelRef("notnear"))

	stride := regT // the distance of rows of B; t comes back from its argument
	g.MOVQ(At(regT, tBStride), stride)
	g.SUBQ(operand.U8(unroll), regN)
	g.JB(operand.LabelRef("rest"))
	g.Align(32) // once in a function: with a second one Go's assembler (1.26) never ends
	g.Label("k")
	for i := range unroll {
		row := At(regB, 0)
		if i%2 == 1 {
			row = Idx(regB, stride, 1)
		}
		g.step(row, func(r int) operand.Mem {
			m := Idx(g.ptr[r], regX, 1)
			m.Disp = 4 * i
			return m
		})
		if i%2 == 1 {
			g.LEAQ(Idx(regB, stride, 2), regB)
		}
	}
	g.ADDQ(operand.U8(4*unroll), regX)
	g.SUBQ(operand.U8(unroll), regN)
	g.JAE(operand.LabelRef("k"))
	g.Label("rest")
	g.ADDQ(operand.U8(unroll), regN)
	g.JZ(operand.LabelRef("near"))
	g.Label("one")
	g.step(At(regB, 0), g.here)
	g.ADDQ(operand.U8(4), regX)
	g.ADDQ(stride, regB)
	g.DECQ(regN)
	g.JNZ(operand.LabelRef("one"))
	g.Label("near")
	g.Load(g.Param("t"), regT)
	g.JMP(operand.LabelRef("next"))
}

// unroll is the number of K indices in a round of the loop over neighbours in A.
const unroll = 4

// across is the same for rows that are neighbours and K indices that are not: a transposed A. One pointer serves all rows. Where the rows are not neighbours, it goes on at far.
func (g *tiler) across() {
	g.Label("notnear")
	g.CMPQ(At(regT, tAcross), operand.U8(0))
	g.JE(operand.LabelRef("far"))
	p, strideA, strideB := reg.RBX, reg.R8, regT // in the place of other row pointers, which are loaded anew for each tile
	g.LEAQ(Idx(g.ptr[0], regX, 1), p)
	g.MOVQ(At(regT, tAStride), strideA)
	g.MOVQ(At(regT, tBStride), strideB)
	element := func(r int) operand.Mem { return At(p, 4*r) }
	g.SUBQ(operand.U8(unroll), regN)
	g.JB(operand.LabelRef("restx"))
	g.Label("kx")
	for i := range unroll {
		row := At(regB, 0)
		el := element
		if i%2 == 1 {
			row = Idx(regB, strideB, 1)
			el = func(r int) operand.Mem {
				m := Idx(p, strideA, 1)
				m.Disp = 4 * r
				return m
			}
		}
		g.step(row, el)
		if i%2 == 1 {
			g.LEAQ(Idx(regB, strideB, 2), regB)
			g.LEAQ(Idx(p, strideA, 2), p)
		}
	}
	g.SUBQ(operand.U8(unroll), regN)
	g.JAE(operand.LabelRef("kx"))
	g.Label("restx")
	g.ADDQ(operand.U8(unroll), regN)
	g.JZ(operand.LabelRef("donex"))
	g.Label("onex")
	g.step(At(regB, 0), element)
	g.ADDQ(strideA, p)
	g.ADDQ(strideB, regB)
	g.DECQ(regN)
	g.JNZ(operand.LabelRef("onex"))
	g.Label("donex")
	g.Load(g.Param("t"), regT)
	g.JMP(operand.LabelRef("next"))
}

// here is the element of row r at regX.
func (g *tiler) here(r int) operand.Mem { return Idx(g.ptr[r], regX, 1) }

// step adds the products of one K index: row is its row of B, element(r) its element of row r of A.
func (g *tiler) step(row operand.Mem, element func(r int) operand.Mem) {
	for v := range g.vecs {
		g.load(v, row, g.b[v])
	}
	for r := range g.rows {
		a := g.a[r%len(g.a)]
		g.VBROADCASTSS(element(r), a)
		for v := range g.vecs {
			g.VFMADD231PS(g.b[v], a, g.acc[r][v])
		}
	}
}

// finish applies the activation and stores the accumulators.
func (g *tiler) finish() {
	g.MOVQ(At(regT, tAct), reg.RAX)
	g.TESTQ(reg.RAX, reg.RAX)
	g.JZ(operand.LabelRef("store"))
	g.zero(g.b[0])
	for r := range g.rows {
		for v := range g.vecs {
			// The second source (first operand here) is what comes out when either is a NaN or both are zeros.
			g.VMAXPS(g.acc[r][v], g.b[0], g.acc[r][v])
		}
	}
	g.Label("store")
	g.MOVQ(At(regT, g.ptrC), reg.RAX)
	g.MOVQ(At(regT, tCOffCur), reg.RBX)
	for r := range g.rows {
		g.MOVQ(At(reg.RBX, 8*r), reg.RCX)
		for v := range g.vecs {
			g.store(v, g.acc[r][v], Idx(reg.RAX, reg.RCX, 4))
		}
	}
}
