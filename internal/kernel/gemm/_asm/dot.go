package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

// genDots writes dotsAVX2: rows of a matrix times one vector, four rows at a time. It reads the matrix once, so it is bound by
// loads, not by FMAs, and wider vectors would not make it faster.
func genDots(c *File) {
	c.Begin("dotsAVX2", "(y, x, b *float32, stride, rows, k int)", "computes y[r] = Σ x[i]·b[r·stride+i] over i in [0, k) for r in [0, rows); rows and k > 0, stride in bytes.\n"+
		"// Every y[r] is summed in the same order whatever its place.")

	y, x := c.Load(c.Param("y"), reg.RDI), c.Load(c.Param("x"), reg.RSI)
	b := c.Load(c.Param("b"), reg.RAX)
	stride := c.Load(c.Param("stride"), reg.R8)
	rows := c.Load(c.Param("rows"), reg.RCX)
	k := c.Load(c.Param("k"), reg.RDX)
	// Y15: mask of the last k%8 elements. R9: bytes in whole vectors, R10: bytes in whole pairs of vectors.
	c.MOVQ(k, reg.RBX)
	c.ANDQ(operand.U32(7), reg.RBX)
	c.SHLQ(operand.U8(2), reg.RBX)
	c.LEAQ(operand.NewDataAddr(operand.NewStaticSymbol("lanemask"), 32), reg.R11)
	c.SUBQ(reg.RBX, reg.R11)
	c.VMOVUPS(At(reg.R11, 0), reg.Y15)
	c.MOVQ(k, reg.R9)
	c.SHRQ(operand.U8(3), reg.R9)
	c.SHLQ(operand.U8(5), reg.R9)
	c.MOVQ(k, reg.R10)
	c.SHRQ(operand.U8(4), reg.R10)
	c.SHLQ(operand.U8(6), reg.R10)

	body := func(n int) {
		ptr := []reg.Register{reg.RAX, reg.RBX, reg.R11, reg.R12}[:n]
		l := func(s string) string { return fmt.Sprintf("%s%d", s, n) }
		c.Label(l("rows"))
		c.CMPQ(rows, operand.U32(uint32(n)))
		c.JLT(operand.LabelRef(l("done")))
		for i := 1; i < n; i++ {
			c.LEAQ(Idx(ptr[i-1], stride, 1), ptr[i])
		}
		for i := range 2 * n {
			c.VXORPS(Y[i], Y[i], Y[i])
		}
		c.XORQ(reg.R13, reg.R13)
		c.CMPQ(reg.R13, reg.R10)
		c.JGE(operand.LabelRef(l("one")))
		c.Label(l("two"))
		for h := range 2 {
			m := Idx(x, reg.R13, 1)
			m.Disp = 32 * h
			c.VMOVUPS(m, Y[8+h])
			for i, p := range ptr {
				m := Idx(p, reg.R13, 1)
				m.Disp = 32 * h
				c.VFMADD231PS(m, Y[8+h], Y[2*i+h])
			}
		}
		c.ADDQ(operand.U32(64), reg.R13)
		c.CMPQ(reg.R13, reg.R10)
		c.JLT(operand.LabelRef(l("two")))
		c.Label(l("one"))
		c.CMPQ(reg.R13, reg.R9)
		c.JGE(operand.LabelRef(l("tail")))
		c.VMOVUPS(Idx(x, reg.R13, 1), reg.Y8)
		for i, p := range ptr {
			c.VFMADD231PS(Idx(p, reg.R13, 1), reg.Y8, Y[2*i])
		}
		c.ADDQ(operand.U32(32), reg.R13)
		c.Label(l("tail"))
		c.TESTQ(operand.U32(7), k)
		c.JZ(operand.LabelRef(l("sum")))
		c.VMASKMOVPS(Idx(x, reg.R13, 1), reg.Y15, reg.Y8)
		for i, p := range ptr {
			c.VMASKMOVPS(Idx(p, reg.R13, 1), reg.Y15, reg.Y9)
			c.VFMADD231PS(reg.Y9, reg.Y8, Y[2*i])
		}
		c.Label(l("sum"))
		for i := range n {
			c.VADDPS(Y[2*i+1], Y[2*i], Y[2*i])
		}
		// The same pairs are added for four rows as for one, where the other three are copies.
		r := func(i int) reg.Register { return Y[2*(i%n)] }
		c.VHADDPS(r(1), r(0), reg.Y8)
		c.VHADDPS(r(3), r(2), reg.Y9)
		c.VHADDPS(reg.Y9, reg.Y8, reg.Y8)
		c.VEXTRACTF128(operand.U8(1), reg.Y8, reg.X9)
		c.VADDPS(reg.X9, reg.X8, reg.X8)
		if n == 4 {
			c.VMOVUPS(reg.X8, At(y, 0))
		} else {
			c.VMOVSS(reg.X8, At(y, 0))
		}
		c.LEAQ(Idx(ptr[n-1], stride, 1), b)
		c.ADDQ(operand.U32(uint32(4*n)), y)
		c.SUBQ(operand.U32(uint32(n)), rows)
		c.JMP(operand.LabelRef(l("rows")))
		c.Label(l("done"))
	}
	body(4)
	body(1)
	c.End()
}

// genAxpys writes axpysAVX2: a vector times a matrix, four rows of the matrix at a time, so that each row is read in one long run.
func genAxpys(c *File) {
	c.Begin("axpysAVX2", "(y, x, b *float32, xStride, stride, k, n int)", "computes y[j] += Σ x[i·xStride]·b[i·stride+j] over i in [0, k), in that order, for j in [0, n); k and n > 0,\n"+
		"// strides in bytes.")

	y, x := c.Load(c.Param("y"), reg.RDI), c.Load(c.Param("x"), reg.RSI)
	b := c.Load(c.Param("b"), reg.RAX)
	xs, stride := c.Load(c.Param("xStride"), reg.R9), c.Load(c.Param("stride"), reg.R8)
	k := c.Load(c.Param("k"), reg.RCX)
	n := c.Load(c.Param("n"), reg.RDX)
	// Y15: mask of the last n%8 elements, R10 their number. RDX: bytes in whole vectors.
	c.MOVQ(n, reg.R10)
	c.ANDQ(operand.U32(7), reg.R10)
	c.LEAQ(operand.NewDataAddr(operand.NewStaticSymbol("lanemask"), 32), reg.R11)
	c.MOVQ(reg.R10, reg.RBX)
	c.SHLQ(operand.U8(2), reg.RBX)
	c.SUBQ(reg.RBX, reg.R11)
	c.VMOVUPS(At(reg.R11, 0), reg.Y15)
	c.SHRQ(operand.U8(3), n)
	c.SHLQ(operand.U8(5), n)

	body := func(rows int) {
		ptr := []reg.Register{reg.RAX, reg.RBX, reg.R11, reg.R12}[:rows]
		l := func(s string) string { return fmt.Sprintf("%s%d", s, rows) }
		c.Label(l("rows"))
		c.CMPQ(k, operand.U32(uint32(rows)))
		c.JLT(operand.LabelRef(l("done")))
		for i := 1; i < rows; i++ {
			c.LEAQ(Idx(ptr[i-1], stride, 1), ptr[i])
		}
		for i := range rows {
			c.VBROADCASTSS(At(x, 0), Y[i])
			c.ADDQ(xs, x)
		}
		c.XORQ(reg.R13, reg.R13)
		c.TESTQ(n, n)
		c.JZ(operand.LabelRef(l("tail")))
		c.Label(l("vector"))
		c.VMOVUPS(Idx(y, reg.R13, 1), reg.Y8)
		for i, p := range ptr {
			c.VFMADD231PS(Idx(p, reg.R13, 1), Y[i], reg.Y8)
		}
		c.VMOVUPS(reg.Y8, Idx(y, reg.R13, 1))
		c.ADDQ(operand.U32(32), reg.R13)
		c.CMPQ(reg.R13, n)
		c.JLT(operand.LabelRef(l("vector")))
		c.Label(l("tail"))
		c.TESTQ(reg.R10, reg.R10)
		c.JZ(operand.LabelRef(l("next")))
		c.VMASKMOVPS(Idx(y, reg.R13, 1), reg.Y15, reg.Y8)
		for i, p := range ptr {
			c.VMASKMOVPS(Idx(p, reg.R13, 1), reg.Y15, reg.Y9)
			c.VFMADD231PS(reg.Y9, Y[i], reg.Y8)
		}
		c.VMASKMOVPS(reg.Y8, reg.Y15, Idx(y, reg.R13, 1))
		c.Label(l("next"))
		c.LEAQ(Idx(ptr[rows-1], stride, 1), b)
		c.SUBQ(operand.U32(uint32(rows)), k)
		c.JMP(operand.LabelRef(l("rows")))
		c.Label(l("done"))
	}
	body(4)
	body(1)
	c.End()
}
