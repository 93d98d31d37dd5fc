// Command tgemm writes tgemm_amd64.s and stubs_amd64.go of package tgemm.
package main

import (
	"github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
	"github.com/jouleml/joule/internal/kernel/vec/_asm/parts"
	"github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
	"github.com/jouleml/joule/internal/kernel/vec/_asm/tiles"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	splitRows()
	splitColumns()
	splitAcross()
	products()
	Generate()
}

var z = simd.Z

const (
	tile = parts.Tile
	step = parts.Step
)

// split stores the parts of lo and hi at dst; see package parts. It changes the three vectors of free.
func split(lo, hi reg.VecPhysical, dst Mem, free []reg.VecPhysical) {
	rounding.Split(lo, hi, dst, free[0], free[1], free[2])
}

var rounding parts.Rounding

func constants() { rounding = parts.Constants(reg.Z30, reg.Z31) }

func splitRows() {
	TEXT("splitRowsAVX512", NOSPLIT, "func(dst *uint32, src *float32, row, rows, steps int)")
	Doc("splitRowsAVX512: the parts of rows (at most 16) of src, which are row bytes apart, by 32*steps elements of each: a tile for each part, three for each step.")
	Load(Param("dst"), reg.RDI)
	Load(Param("src"), reg.RSI)
	Load(Param("row"), reg.RDX)
	Load(Param("rows"), reg.RCX)
	Load(Param("steps"), reg.RBX)
	constants()
	Label("row")
	MOVQ(reg.RDI, reg.R8)
	MOVQ(reg.RSI, reg.R9)
	MOVQ(reg.RBX, reg.R10)
	Label("step")
	VMOVUPS(Mem{Base: reg.R9}, z[0])
	VMOVUPS(Mem{Base: reg.R9, Disp: 64}, z[1])
	split(z[0], z[1], Mem{Base: reg.R8}, z[2:5])
	ADDQ(U32(128), reg.R9)
	ADDQ(U32(step), reg.R8)
	DECQ(reg.R10)
	JNZ(LabelRef("step"))
	ADDQ(Imm(64), reg.RDI)
	ADDQ(reg.RDX, reg.RSI)
	DECQ(reg.RCX)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

func splitColumns() {
	TEXT("splitColumnsAVX512", NOSPLIT, "func(dst *uint32, src *float32, row, block, steps, blocks int, last uint32)")
	Doc("splitColumnsAVX512: the parts of 32*steps rows of src, which are row bytes apart, by blocks times 16 columns, of the last block those that the mask last names (the others count as 0): three tiles for each step, and block bytes from one block to the next.")
	Load(Param("dst"), reg.RDI)
	Load(Param("src"), reg.RSI)
	Load(Param("row"), reg.RDX)
	Load(Param("block"), reg.RCX)
	Load(Param("steps"), reg.RBX)
	Load(Param("last"), reg.EAX)
	KMOVW(reg.EAX, reg.K1)
	constants()
	blocks := lanes.Address("blocks")
	MOVQ(reg.RDX, reg.R12) // 16 rows
	SHLQ(Imm(4), reg.R12)
	Label("step")
	MOVQ(U32(16), reg.R13)
	Label("pair")
	MOVQ(reg.RDI, reg.R8)
	MOVQ(reg.RSI, reg.R9)
	MOVQ(blocks, reg.R10)
	DECQ(reg.R10)
	JZ(LabelRef("last"))
	Label("block")
	VMOVUPS(Mem{Base: reg.R9}, z[0])
	VMOVUPS(Mem{Base: reg.R9, Index: reg.R12, Scale: 1}, z[1])
	split(z[0], z[1], Mem{Base: reg.R8}, z[2:5])
	ADDQ(Imm(64), reg.R9)
	ADDQ(reg.RCX, reg.R8)
	DECQ(reg.R10)
	JNZ(LabelRef("block"))
	Label("last")
	VMOVUPS_Z(Mem{Base: reg.R9}, reg.K1, z[0])
	VMOVUPS_Z(Mem{Base: reg.R9, Index: reg.R12, Scale: 1}, reg.K1, z[1])
	split(z[0], z[1], Mem{Base: reg.R8}, z[2:5])
	ADDQ(Imm(64), reg.RDI)
	ADDQ(reg.RDX, reg.RSI)
	DECQ(reg.R13)
	JNZ(LabelRef("pair"))
	ADDQ(U32(step-1024), reg.RDI)
	ADDQ(reg.R12, reg.RSI)
	DECQ(reg.RBX)
	JNZ(LabelRef("step"))
	VZEROUPPER()
	RET()
}

// splitAcross turns two squares of 16 by 16, the lower and the upper halves of pairs, and splits their columns. The lower one waits in scratch while the upper one is turned.
func splitAcross() {
	TEXT("splitAcrossAVX512", NOSPLIT, "func(dst *uint32, src *float32, row, upper, next, steps int, scratch *[256]float32)")
	Doc("splitAcrossAVX512: the parts of 16 columns of src, whose rows are row bytes apart. The lower halves of a step's pairs are 16 rows of 16 from src on, the upper ones are upper bytes further on, and next is the distance of a step from the one before.")
	Load(Param("dst"), reg.RDI)
	Load(Param("src"), reg.RSI)
	Load(Param("row"), reg.RDX)
	Load(Param("upper"), reg.R8)
	Load(Param("next"), reg.R9)
	Load(Param("steps"), reg.RBX)
	Load(Param("scratch"), reg.R10)
	constants()
	Label("step")
	turn(reg.RSI)
	for i := range 16 {
		VMOVUPS(z[i], Mem{Base: reg.R10, Disp: 64 * i})
	}
	LEAQ(Mem{Base: reg.RSI, Index: reg.R8, Scale: 1}, reg.R11)
	turn(reg.R11)
	for i := range 16 {
		VMOVUPS(Mem{Base: reg.R10, Disp: 64 * i}, z[16])
		split(z[16], z[i], Mem{Base: reg.RDI, Disp: 64 * i}, z[17:20])
	}
	ADDQ(reg.R9, reg.RSI)
	ADDQ(U32(step), reg.RDI)
	DECQ(reg.RBX)
	JNZ(LabelRef("step"))
	VZEROUPPER()
	RET()
}

// turn loads 16 rows of 16, RDX bytes apart, from p on and leaves column i in z[i]: four rounds of exchanges, of elements, pairs, fours and eights. It uses z[16] to z[29], R12 and R13.
func turn(p reg.GPPhysical) {
	MOVQ(p, reg.R12)
	for i := range 16 {
		VMOVUPS(Mem{Base: reg.R12}, z[i])
		if i < 15 {
			ADDQ(reg.RDX, reg.R12)
		}
	}
	// Within each 128 bits: rows 4i to 4i+3 become their four columns.
	for i := 0; i < 16; i += 4 {
		a, b, c, d, t, u := z[i], z[i+1], z[i+2], z[i+3], z[16+i/4*2], z[17+i/4*2]
		VUNPCKLPS(b, a, t) // a0 b0 a1 b1
		VUNPCKHPS(b, a, u) // a2 b2 a3 b3
		VUNPCKLPS(d, c, a) // c0 d0 c1 d1
		VUNPCKHPS(d, c, b) // c2 d2 c3 d3
		VUNPCKHPD(a, t, c) // column 1
		VUNPCKLPD(a, t, a) // column 0
		VUNPCKHPD(b, u, d) // column 3
		VUNPCKLPD(b, u, t) // column 2
		VMOVAPS(c, u)
		VMOVAPS(t, c)
		VMOVAPS(u, b)
	}
	// z[4i+j] holds, in lane l, column 4l+j of rows 4i to 4i+3. Lanes are exchanged: z[4l+j] is to have lane i from z[4i+j].
	for j := range 4 {
		a, b, c, d := z[j], z[4+j], z[8+j], z[12+j]
		t, u, v, w := z[16], z[17], z[18], z[19]
		VSHUFF32X4(Imm(0x44), b, a, t) // a0 a1 b0 b1
		VSHUFF32X4(Imm(0xee), b, a, u) // a2 a3 b2 b3
		VSHUFF32X4(Imm(0x44), d, c, v) // c0 c1 d0 d1
		VSHUFF32X4(Imm(0xee), d, c, w) // c2 c3 d2 d3
		VSHUFF32X4(Imm(0x88), v, t, a) // a0 b0 c0 d0
		VSHUFF32X4(Imm(0xdd), v, t, b) // a1 b1 c1 d1
		VSHUFF32X4(Imm(0x88), w, u, c) // a2 b2 c2 d2
		VSHUFF32X4(Imm(0xdd), w, u, d) // a3 b3 c3 d3
	}
}

// products keeps 32 rows by 32 columns of c in tiles 0 to 3 and has two tiles of a (4, 5) and two of b (6, 7). Of the nine products of parts it leaves out those three that float32 would round
// away. The order is one of few loads in which the parts
// of either operand are added up from the greatest on: x times a power of two is then x to the last digit.
func products() {
	TEXT("productsAMX", NOSPLIT, "func(c, in *float32, a, b *uint32, cStride, inStride, aBlock, bBlock, steps, pairs int, config *[64]uint8)")
	Doc("productsAMX: c[r][j] = (in[r][j] if in is not nil) + the sum over k of a[r][k]*b[k][j], for pairs times 32 rows and 32 columns; k runs to 32*steps. Rows of c are cStride bytes apart, those of in inStride, which may be 0; a and b are what the splits make, aBlock and bBlock bytes from one 16 rows or columns to the next. config is for LDTILECFG.")
	Load(Param("config"), reg.RAX)
	tiles.Configure()
	Load(Param("c"), reg.RDI)
	Load(Param("in"), reg.RDX)
	Load(Param("a"), reg.RSI)
	Load(Param("cStride"), reg.RCX)
	Load(Param("pairs"), reg.R13)
	MOVQ(U32(64), reg.RAX)
	each := func(move func(t, base, stride, disp int), base, second, stride int) {
		move(0, base, stride, 0)
		move(1, base, stride, 64)
		move(2, second, stride, 0)
		move(3, second, stride, 64)
	}
	Label("pair")
	TESTQ(reg.RDX, reg.RDX)
	JNZ(LabelRef("load"))
	for t := range 4 {
		tiles.Zero(t)
	}
	JMP(LabelRef("begin"))
	Label("load")
	MOVQ(lanes.Address("inStride"), reg.R8)
	MOVQ(reg.R8, reg.R12)
	SHLQ(Imm(4), reg.R12)
	ADDQ(reg.RDX, reg.R12)
	each(tiles.Load, tiles.RDX, tiles.R12, tiles.R8)
	SHLQ(Imm(5), reg.R8)
	ADDQ(reg.R8, reg.RDX)
	Label("begin")
	MOVQ(reg.RSI, reg.R8)
	MOVQ(reg.RSI, reg.R9)
	ADDQ(lanes.Address("aBlock"), reg.R9)
	MOVQ(lanes.Address("b"), reg.R10)
	MOVQ(reg.R10, reg.R11)
	ADDQ(lanes.Address("bBlock"), reg.R11)
	MOVQ(lanes.Address("steps"), reg.RBX)
	Label("k")
	// Parts of a and b, -1 meaning what is there already.
	for _, p := range [][2]int{{0, 0}, {-1, 1}, {-1, 2}, {1, 1}, {-1, 0}, {2, -1}} {
		if p[0] >= 0 {
			tiles.Load(4, tiles.R8, tiles.RAX, p[0]*tile)
		}
		if p[1] >= 0 {
			tiles.Load(6, tiles.R10, tiles.RAX, p[1]*tile)
		}
		tiles.DPBF16(0, 4, 6)
		if p[1] >= 0 {
			tiles.Load(7, tiles.R11, tiles.RAX, p[1]*tile)
		}
		tiles.DPBF16(1, 4, 7)
		if p[0] >= 0 {
			tiles.Load(5, tiles.R9, tiles.RAX, p[0]*tile)
		}
		tiles.DPBF16(2, 5, 6)
		tiles.DPBF16(3, 5, 7)
	}
	for _, p := range []reg.GPPhysical{reg.R8, reg.R9, reg.R10, reg.R11} {
		ADDQ(U32(step), p)
	}
	DECQ(reg.RBX)
	JNZ(LabelRef("k"))
	MOVQ(reg.RCX, reg.R12)
	SHLQ(Imm(4), reg.R12)
	LEAQ(Mem{Base: reg.RDI, Index: reg.R12, Scale: 1}, reg.R8)
	each(tiles.Store, tiles.RDI, tiles.R8, tiles.RCX)
	LEAQ(Mem{Base: reg.RDI, Index: reg.R12, Scale: 2}, reg.RDI)
	MOVQ(lanes.Address("aBlock"), reg.R12)
	LEAQ(Mem{Base: reg.RSI, Index: reg.R12, Scale: 2}, reg.RSI)
	DECQ(reg.R13)
	JNZ(LabelRef("pair"))
	tiles.Release()
	RET()
}
