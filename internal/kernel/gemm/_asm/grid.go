package main

import (
	"bytes"
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

// genGrids writes the kernels of dot products of a few rows with many, all with all: four of the many at a time, each vector of
// which is used for all of the few.
func genGrids(c *File) {
	const sig = "(y, x, b *float32, yStride, xStride, bStride, rows, k int)"
	table := new(bytes.Buffer)
	for _, f := range []struct {
		Level
		least, most int
	}{{Levels[0], 1, 2}, {Levels[1], 2, 6}} {
		fmt.Fprintf(table, "\nvar grids%s = [...]func%s{\n", f.Suffix, sig)
		for m := f.least; m <= f.most; m++ {
			name := fmt.Sprintf("grid%s_%d", f.Suffix, m)
			c.Begin(name, sig, fmt.Sprintf("computes y[i·yStride+r] = Σ x[i·xStride+j]·b[r·bStride+j] over j in [0, k) for i in [0, %d) and r in [0, rows);\n"+
				"// rows and k > 0, strides in bytes. Every element is summed in the same order whatever its place.", m))
			genGrid(&Gen{File: c, Level: f.Level}, m)
			fmt.Fprintf(table, "%d: %s,\n", m, name)
		}
		fmt.Fprintf(table, "}\n")
	}
	c.Stubs.Write(table.Bytes())
}

func genGrid(c *Gen, m int) {
	lanes, step := uint32(c.Width), operand.U32(uint32(c.Bytes()))
	mask := reg.Register(reg.Y15)
	if c.Wide() {
		mask = reg.K1
	}
	y, x0, x3, xs := reg.RDI, reg.RSI, reg.RDX, reg.R8
	b0, b3, bs, first := reg.RAX, reg.RBX, reg.R9, reg.R13 // first: of this round's rows
	count, rows, ys, whole := reg.RCX, reg.R10, reg.R11, reg.R12

	// The mask of the last k%lanes elements.
	c.Load(c.Param("k"), whole)
	c.MOVQ(whole, count)
	c.ANDQ(operand.U32(lanes-1), count)
	tailMask(c.File, mask, c.Width)
	if c.Wide() {
		c.SHRQ(operand.U8(4), whole)
	} else {
		c.SHRQ(operand.U8(3), whole)
	}
	c.Load(c.Param("y"), y)
	c.Load(c.Param("b"), first)
	c.Load(c.Param("yStride"), ys)
	c.Load(c.Param("xStride"), xs)
	c.Load(c.Param("bStride"), bs)
	c.Load(c.Param("rows"), rows)

	// Row i of three that begin at a pointer.
	third := func(p, stride reg.Register, i int) operand.Mem {
		if i == 0 {
			return At(p, 0)
		}
		return Idx(p, stride, uint8(i))
	}
	load := func(masked bool, src operand.Mem, dst reg.Register) {
		switch {
		case !masked:
			c.VMOVUPS(src, dst)
		case c.Wide():
			c.VMOVUPS_Z(src, mask, dst)
		default:
			c.VMASKMOVPS(src, mask, dst)
		}
	}
	bv := func(r int) reg.Register { return c.Phys(4*m + r) }
	xv := func(i int) reg.Register { return c.Phys(4*m + 4 + i%2) }
	body := func(n int) {
		l := func(s string) string { return fmt.Sprintf("%s%d", s, n) }
		acc := func(i, r int) reg.Register { return c.Phys(4*i + r) }
		multiply := func(masked bool) {
			for r := range n {
				row := third(b0, bs, r)
				if r == 3 {
					row = At(b3, 0)
				}
				load(masked, row, bv(r))
			}
			for i := range m {
				row := third(x0, xs, i)
				if i >= 3 {
					row = third(x3, xs, i-3)
				}
				load(masked, row, xv(i))
				for r := range n {
					c.VFMADD231PS(bv(r), xv(i), acc(i, r))
				}
			}
		}
		c.Label(l("rows"))
		c.CMPQ(rows, operand.U32(uint32(n)))
		c.JLT(operand.LabelRef(l("done")))
		c.MOVQ(first, b0)
		if n > 3 {
			c.LEAQ(Idx(bs, bs, 2), b3)
			c.ADDQ(b0, b3)
		}
		c.Load(c.Param("x"), x0)
		if m > 3 {
			c.LEAQ(Idx(xs, xs, 2), x3)
			c.ADDQ(x0, x3)
		}
		for i := range m {
			for r := range n {
				c.Zero(acc(i, r))
			}
		}
		c.MOVQ(whole, count)
		c.TESTQ(count, count)
		c.JZ(operand.LabelRef(l("tail")))
		c.Label(l("vector"))
		multiply(false)
		c.ADDQ(step, b0)
		c.ADDQ(step, x0)
		if n > 3 {
			c.ADDQ(step, b3)
		}
		if m > 3 {
			c.ADDQ(step, x3)
		}
		c.DECQ(count)
		c.JNZ(operand.LabelRef(l("vector")))
		c.Label(l("tail"))
		c.Load(c.Param("k"), count)
		c.TESTQ(operand.U32(lanes-1), count)
		c.JZ(operand.LabelRef(l("sum")))
		multiply(true)
		c.Label(l("sum"))
		// Lanes are added up in registers of the first row, which is done by then: the same pairs for four rows as for one.
		c.MOVQ(y, x0)
		for i := range m {
			for r := range n {
				dst := Y[r]
				if c.Wide() {
					half := Y[4*m+r]
					c.VEXTRACTF64X4(operand.U8(1), acc(i, r), half)
					c.VADDPS(half, Y[4*i+r], dst)
				} else if i > 0 {
					c.VMOVUPS(Y[4*i+r], dst)
				}
			}
			s := func(r int) reg.Register { return Y[r%n] }
			c.VHADDPS(s(1), s(0), s(0))
			if n > 1 {
				c.VHADDPS(s(3), s(2), s(2))
			}
			c.VHADDPS(s(2), s(0), s(0))
			c.VEXTRACTF128(operand.U8(1), s(0), reg.X1)
			c.VADDPS(reg.X1, reg.X0, reg.X0)
			if n == 4 {
				c.VMOVUPS(reg.X0, At(x0, 0))
			} else {
				c.VMOVSS(reg.X0, At(x0, 0))
			}
			if i < m-1 {
				c.ADDQ(ys, x0)
			}
		}
		if n == 4 {
			c.LEAQ(Idx(first, bs, 4), first)
		} else {
			c.ADDQ(bs, first)
		}
		c.ADDQ(operand.U32(uint32(4*n)), y)
		c.SUBQ(operand.U32(uint32(n)), rows)
		c.JMP(operand.LabelRef(l("rows")))
		c.Label(l("done"))
	}
	body(4)
	body(1)
	c.End()
}
