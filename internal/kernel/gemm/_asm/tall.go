package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

// genTall writes the kernel of tiles of 16 rows and one vector: each line of B is read once, forwards, and takes the processor as long as fetching it from the third-level cache does.
func genTall(c *File) {
	c.Begin("tallAVX512", "(c, in, bias, a, b *float32, cStride, rows, k, mask, act int)",
		"computes c[r][j] = act((in[r][j] + bias[j], or what there is of them) + Σ a[i][r]·b[i][j] over i in [0, k)) for r in [0, rows) and the columns j < 16 that mask names.\n"+
			"// a is [k][16], b [k][16]; rows of c and in are cStride bytes apart; rows in [1, 16], k > 0; act is 0, or 1: rectified.")
	acc, x := Z[:16], reg.Register(reg.Z16)
	c.Load(c.Param("mask"), reg.RAX)
	c.KMOVW(reg.EAX, reg.K1)
	stride, rows := reg.R8, reg.R9
	c.Load(c.Param("cStride"), stride)
	c.Load(c.Param("rows"), rows)

	c.VPXORD(x, x, x)
	c.Load(c.Param("bias"), reg.RAX)
	c.TESTQ(reg.RAX, reg.RAX)
	c.JZ(operand.LabelRef("nobias"))
	c.VMOVUPS_Z(At(reg.RAX, 0), reg.K1, x)
	c.Label("nobias")
	for r := range acc {
		c.VMOVAPS(x, acc[r])
	}
	c.Load(c.Param("in"), reg.RAX)
	c.TESTQ(reg.RAX, reg.RAX)
	c.JZ(operand.LabelRef("begin"))
	c.MOVQ(rows, reg.RCX)
	for r := range acc {
		c.VMOVUPS_Z(At(reg.RAX, 0), reg.K1, reg.Z17)
		c.VADDPS(reg.Z17, acc[r], acc[r])
		c.DECQ(reg.RCX)
		c.JZ(operand.LabelRef("begin"))
		c.ADDQ(stride, reg.RAX)
	}

	c.Label("begin")
	a, b, k := reg.RSI, reg.RDI, reg.RCX
	c.Load(c.Param("a"), a)
	c.Load(c.Param("b"), b)
	c.Load(c.Param("k"), k)
	const ahead = 1024 // bytes of B: the processor alone does not look beyond a page, which costs a quarter of the time
	step := func(i int) {
		v := []reg.Register{reg.Z16, reg.Z17, reg.Z18, reg.Z19}[i]
		c.PREFETCHT0(At(b, 64*i+ahead))
		c.VMOVUPS(At(b, 64*i), v)
		for r := range acc {
			c.VFMADD231PS_BCST(At(a, 64*i+4*r), v, acc[r])
		}
	}
	const unroll = 4
	c.SUBQ(operand.U8(unroll), k)
	c.JB(operand.LabelRef("rest"))
	c.Label("k")
	for i := range unroll {
		step(i)
	}
	c.ADDQ(operand.U32(64*unroll), a)
	c.ADDQ(operand.U32(64*unroll), b)
	c.SUBQ(operand.U8(unroll), k)
	c.JAE(operand.LabelRef("k"))
	c.Label("rest")
	c.ADDQ(operand.U8(unroll), k)
	c.JZ(operand.LabelRef("finish"))
	c.Label("one")
	step(0)
	c.ADDQ(operand.U8(64), a)
	c.ADDQ(operand.U8(64), b)
	c.DECQ(k)
	c.JNZ(operand.LabelRef("one"))

	c.Label("finish")
	c.Load(c.Param("act"), reg.RAX)
	c.TESTQ(reg.RAX, reg.RAX)
	c.JZ(operand.LabelRef("store"))
	c.VPXORD(x, x, x)
	for r := range acc {
		c.VMAXPS(acc[r], x, acc[r]) // as in a tile: the second source comes out when either is a NaN
	}
	c.Label("store")
	c.Load(c.Param("c"), reg.RAX)
	for r := range acc {
		c.VMOVUPS(acc[r], reg.K1, At(reg.RAX, 0))
		c.DECQ(rows)
		c.JZ(operand.LabelRef("end"))
		c.ADDQ(stride, reg.RAX)
	}
	c.Label("end")
	c.End()
}
