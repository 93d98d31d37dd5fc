package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

// genCopies writes the routines that rearrange matrices.
func genCopies(c *File) {
	c.Begin("panelsAVX2", "(dst, src *float32, srcStride, rows, width, panels, panelStride int)",
		"copies dst[p·panelStride+i·width+j] = src[i·srcStride+p·width+j] for i in [0, rows), p in [0, panels) and j in [0, width);"+
			" rows and panels > 0, width a positive multiple of 8 floats, strides in bytes.")
	dst, src := c.Load(c.Param("dst"), reg.RDI), c.Load(c.Param("src"), reg.RSI)
	ss := c.Load(c.Param("srcStride"), reg.R9)
	rows := c.Load(c.Param("rows"), reg.RCX)
	width := c.Load(c.Param("width"), reg.R8)
	c.SHLQ(operand.U8(2), width)
	ps := c.Load(c.Param("panelStride"), reg.R10)
	c.Label("row")
	c.MOVQ(src, reg.R11) // within the source row
	c.MOVQ(dst, reg.R12) // row of the panel
	c.Load(c.Param("panels"), reg.RDX)
	c.Label("panel")
	c.XORQ(reg.RAX, reg.RAX)
	c.Label("vector")
	c.VMOVUPS(Idx(reg.R11, reg.RAX, 1), reg.Y0)
	c.VMOVUPS(reg.Y0, Idx(reg.R12, reg.RAX, 1))
	c.ADDQ(operand.U32(32), reg.RAX)
	c.CMPQ(reg.RAX, width)
	c.JLT(operand.LabelRef("vector"))
	c.ADDQ(width, reg.R11)
	c.ADDQ(ps, reg.R12)
	c.DECQ(reg.RDX)
	c.JNZ(operand.LabelRef("panel"))
	c.ADDQ(width, dst)
	c.ADDQ(ss, src)
	c.DECQ(rows)
	c.JNZ(operand.LabelRef("row"))
	c.End()

	c.Begin("transposeAVX2", "(dst, src *float32, dstStride, srcStride, rows, cols int)",
		"copies dst[j][i] = src[i][j] for i in [0, rows) and j in [0, cols), both positive multiples of 8; strides in bytes.")
	c.Load(c.Param("dst"), reg.RDI)
	c.Load(c.Param("src"), reg.RSI)
	c.Load(c.Param("dstStride"), reg.R8)
	c.Load(c.Param("srcStride"), reg.R9)
	c.Load(c.Param("rows"), reg.RCX)
	c.LEAQ(Idx(reg.R9, reg.R9, 2), reg.R10) // 3 source rows
	c.LEAQ(Idx(reg.R8, reg.R8, 2), reg.R11) // 3 destination rows
	c.Label("rows8")
	c.MOVQ(reg.RSI, reg.RAX) // source block
	c.MOVQ(reg.RDI, reg.RBX) // destination block
	c.Load(c.Param("cols"), reg.RDX)
	c.Label("block")
	c.LEAQ(Idx(reg.RAX, reg.R9, 4), reg.R12)
	line := func(base, base4, s, s3 reg.Register, i int) operand.Mem {
		if i >= 4 {
			base = base4
		}
		switch i % 4 {
		case 0:
			return At(base, 0)
		case 1:
			return Idx(base, s, 1)
		case 2:
			return Idx(base, s, 2)
		}
		return Idx(base, s3, 1)
	}
	// Row i and row i+4 share a register for each half of the columns, so that only shuffles within halves remain:
	// Y(i) holds columns 0–3, Y(4+i) columns 4–7, of rows i (low half) and i+4 (high half).
	for i := range 4 {
		for h := range 2 {
			lo, hi := line(reg.RAX, reg.R12, reg.R9, reg.R10, i), line(reg.RAX, reg.R12, reg.R9, reg.R10, i+4)
			lo.Disp, hi.Disp = 16*h, 16*h
			y := Y[4*h+i]
			c.VMOVUPS(lo, y.AsX())
			c.VINSERTF128(operand.U8(1), hi, y, y)
		}
	}
	c.LEAQ(Idx(reg.RBX, reg.R8, 4), reg.R12)
	for h := range 2 {
		r := Y[4*h : 4*h+4]
		t := Y[8:]
		c.VUNPCKLPS(r[1], r[0], t[0]) // r0c0 r1c0 r0c1 r1c1
		c.VUNPCKHPS(r[1], r[0], t[1]) // r0c2 r1c2 r0c3 r1c3
		c.VUNPCKLPS(r[3], r[2], t[2])
		c.VUNPCKHPS(r[3], r[2], t[3])
		for j, s := range []struct {
			a, b int
			sel  uint8
		}{{0, 2, 0x44}, {0, 2, 0xee}, {1, 3, 0x44}, {1, 3, 0xee}} {
			c.VSHUFPS(operand.U8(s.sel), t[s.b], t[s.a], t[4+j])
			c.VMOVUPS(t[4+j], line(reg.RBX, reg.R12, reg.R8, reg.R11, 4*h+j))
		}
	}
	c.ADDQ(operand.U32(32), reg.RAX)
	c.LEAQ(Idx(reg.RBX, reg.R8, 8), reg.RBX)
	c.SUBQ(operand.U32(8), reg.RDX)
	c.JNZ(operand.LabelRef("block"))
	c.LEAQ(Idx(reg.RSI, reg.R9, 8), reg.RSI)
	c.ADDQ(operand.U32(32), reg.RDI)
	c.SUBQ(operand.U32(8), reg.RCX)
	c.JNZ(operand.LabelRef("rows8"))
	c.End()
}
