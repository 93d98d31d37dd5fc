// Command bgemm writes bgemm_amd64.s and stubs_amd64.go of package bgemm.
package main

import (
	"fmt"

	"github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
	"github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
	"github.com/jouleml/joule/internal/kernel/vec/_asm/tiles"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	for rows := 1; rows <= 6; rows++ {
		tile(rows)
	}
	interleave()
	amx()
	Generate()
}

var z = simd.Z

// dpbf16 is VDPBF16PS zmm[y], zmm[x], zmm[acc] by its bytes (EVEX.512.F3.0F38.W0 52 /r), which neither avo nor Go's assembler know: acc += the two products of bf16
// in each 32 bits of x and y.
func dpbf16(y, x, acc int) {
	inv := func(n, bit int) int { return 1 ^ n>>bit&1 }
	tiles.Bytes(
		0x62,
		inv(acc, 3)<<7|inv(y, 4)<<6|inv(y, 3)<<5|inv(acc, 4)<<4|2,
		(^x&15)<<3|1<<2|2,
		2<<5|inv(x, 4)<<3,
		0x52,
		0xc0|acc&7<<3|y&7,
	)
}

// tile keeps rows times 4 accumulators in z0…, four vectors of b behind them, and a pair of a.
func tile(rows int) {
	TEXT(fmt.Sprintf("tile%dBF16", rows), NOSPLIT, "func(c *float32, a, b *uint32, cStride, aRow, aGroup, groups, add int)")
	Doc(fmt.Sprintf("tile%dBF16: c[r][j] = (c[r][j] if add is not 0) + the sum over g of a[r][g]*b[g][j], products of pairs of bf16, for %d rows and 64 columns. Rows of c are cStride bytes apart; a[r][g] is aRow*r + aGroup*g bytes from a; b is groups times [64].", rows, rows))
	c, a, b := lanes.Arg("c"), lanes.Arg("a"), lanes.Arg("b")
	cStride, aRow, aGroup := lanes.Arg("cStride"), lanes.Arg("aRow"), lanes.Arg("aGroup")
	n := lanes.Arg("groups")
	// Rows 0, 1, 2 are at a + 0, 1, 2 times the stride, and 3, 4, 5 likewise from the fourth row on.
	at := func(p, third, stride reg.GPVirtual, r int) Mem {
		if r >= 3 {
			p, r = third, r-3
		}
		switch r {
		case 1:
			return Mem{Base: p, Index: stride, Scale: 1}
		case 2:
			return Mem{Base: p, Index: stride, Scale: 2}
		}
		return Mem{Base: p}
	}
	fourth := func(p, stride reg.GPVirtual) reg.GPVirtual {
		if rows <= 3 {
			return p
		}
		t := GP64()
		LEAQ(Mem{Base: p, Index: stride, Scale: 2}, t)
		ADDQ(stride, t)
		return t
	}
	a3, c3 := fourth(a, aRow), fourth(c, cStride)
	add := lanes.Address("add")
	CMPQ(add, Imm(0))
	JNE(LabelRef("load"))
	for i := range 4 * rows {
		VPXORD(z[i], z[i], z[i])
	}
	JMP(LabelRef("loop"))
	Label("load")
	for r := range rows {
		for v := range 4 {
			m := at(c, c3, cStride, r)
			m.Disp = 64 * v
			VMOVUPS(m, z[4*r+v])
		}
	}
	Label("loop")
	for v := range 4 {
		VMOVDQU32(Mem{Base: b, Disp: 64 * v}, z[24+v])
	}
	for r := range rows {
		x := 28 + r%4
		VPBROADCASTD(at(a, a3, aRow, r), z[x])
		for v := range 4 {
			dpbf16(24+v, x, 4*r+v)
		}
	}
	ADDQ(U32(256), b)
	ADDQ(aGroup, a)
	if rows > 3 {
		ADDQ(aGroup, a3)
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	for r := range rows {
		for v := range 4 {
			m := at(c, c3, cStride, r)
			m.Disp = 64 * v
			VMOVUPS(z[4*r+v], m)
		}
	}
	VZEROUPPER()
	RET()
}

// amx keeps 32 rows by 32 columns of c in tiles 0 to 3 and has two tiles of a (4, 5) and two of b (6, 7).
func amx() {
	TEXT("tilesAMX", NOSPLIT, "func(c *float32, a, b *uint32, cStride, aRow, steps, blocks int, config *[64]uint8)")
	Doc("tilesAMX: c[r][j] = the sum over g of a[r][g]*b[g][j], products of pairs of bf16, for blocks times 32 rows and 64 columns; g runs to 16*steps. Rows of c are cStride bytes apart, those of a aRow; b is [16*steps][64]. config is for LDTILECFG.")
	Load(Param("config"), reg.RAX)
	tiles.Configure()
	Load(Param("c"), reg.RDI)
	Load(Param("a"), reg.RSI)
	Load(Param("b"), reg.RDX)
	Load(Param("cStride"), reg.RCX)
	Load(Param("aRow"), reg.RAX)
	Load(Param("blocks"), reg.R13)
	MOVQ(U32(256), reg.RBX)
	steps := lanes.Address("steps")
	sixteen := func(stride, base reg.GPPhysical, to reg.GPPhysical) { // to = base + 16 rows
		MOVQ(stride, to)
		SHLQ(Imm(4), to)
		ADDQ(base, to)
	}
	Label("block")
	for half := range 2 {
		for t := range 4 {
			tiles.Zero(t)
		}
		MOVQ(reg.RSI, reg.R8)
		sixteen(reg.RAX, reg.RSI, reg.R9)
		LEAQ(Mem{Base: reg.RDX, Disp: 128 * half}, reg.R10)
		MOVQ(steps, reg.R11)
		loop := fmt.Sprintf("k%d", half)
		Label(loop)
		tiles.Load(4, tiles.R8, tiles.RAX, 0)
		tiles.Load(6, tiles.R10, tiles.RBX, 0)
		tiles.Load(7, tiles.R10, tiles.RBX, 64)
		tiles.DPBF16(0, 4, 6)
		tiles.Load(5, tiles.R9, tiles.RAX, 0)
		tiles.DPBF16(1, 4, 7)
		tiles.DPBF16(2, 5, 6)
		tiles.DPBF16(3, 5, 7)
		ADDQ(Imm(64), reg.R8)
		ADDQ(Imm(64), reg.R9)
		ADDQ(U32(4096), reg.R10)
		DECQ(reg.R11)
		JNZ(LabelRef(loop))
		sixteen(reg.RCX, reg.RDI, reg.R12)
		tiles.Store(0, tiles.RDI, tiles.RCX, 0)
		tiles.Store(1, tiles.RDI, tiles.RCX, 64)
		tiles.Store(2, tiles.R12, tiles.RCX, 0)
		tiles.Store(3, tiles.R12, tiles.RCX, 64)
		if half == 0 {
			ADDQ(U32(128), reg.RDI)
		}
	}
	SUBQ(U32(128), reg.RDI)
	for _, p := range [][2]reg.GPPhysical{{reg.RCX, reg.RDI}, {reg.RAX, reg.RSI}} { // 32 rows on
		MOVQ(p[0], reg.R12)
		SHLQ(Imm(5), reg.R12)
		ADDQ(reg.R12, p[1])
	}
	DECQ(reg.R13)
	JNZ(LabelRef("block"))
	tiles.Release()
	RET()
}

func interleave() {
	TEXT("interleaveAVX512", NOSPLIT, "func(dst *uint32, x, y *uint16, blocks int)")
	Doc("interleaveAVX512: dst[i] = x[i] | y[i]<<16, for blocks times 16 elements.")
	dst, x, y, n := lanes.Arg("dst"), lanes.Arg("x"), lanes.Arg("y"), lanes.Arg("blocks")
	u, v := ZMM(), ZMM()
	Label("loop")
	VPMOVZXWD(Mem{Base: x}, u)
	VPMOVZXWD(Mem{Base: y}, v)
	VPSLLD(Imm(16), v, v)
	VPORD(u, v, v)
	VMOVDQU32(v, Mem{Base: dst})
	ADDQ(Imm(32), x)
	ADDQ(Imm(32), y)
	ADDQ(Imm(64), dst)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
