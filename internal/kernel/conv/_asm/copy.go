package main

import (
	"github.com/mmcloughlin/avo/operand"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

// copyGroup writes the copy of one group of eight channels; AVX-512 has nothing to add to it.
func (g *gen) copyGroup() {
	g.Begin("copyGroup"+g.Suffix, "(dst, src *float32, srcStride, pixels int)",
		"copies eight channels of pixels > 0 pixels: dst[8p+j] = src[p·srcStride+j].")
	dst, src, n := g.Arg("dst"), g.Arg("src"), g.Arg("pixels")
	step := g.ArgBytes("srcStride")
	step3 := g.GP64()
	g.LEAQ(Idx(step, step, 2), step3)
	g.SUBQ(operand.U8(4), n)
	g.JLT(operand.LabelRef("rest"))
	g.Label("four")
	for i, m := range []operand.Mem{At(src, 0), Idx(src, step, 1), Idx(src, step, 2), Idx(src, step3, 1)} {
		v := g.YMM()
		g.VMOVUPS(m, v)
		g.VMOVUPS(v, At(dst, 32*i))
	}
	g.LEAQ(Idx(src, step, 4), src)
	g.ADDQ(operand.U32(128), dst)
	g.SUBQ(operand.U8(4), n)
	g.JGE(operand.LabelRef("four"))
	g.Label("rest")
	g.ADDQ(operand.U8(4), n)
	g.JZ(operand.LabelRef("done"))
	g.Label("one")
	v := g.YMM()
	g.VMOVUPS(At(src, 0), v)
	g.VMOVUPS(v, At(dst, 0))
	g.ADDQ(step, src)
	g.ADDQ(operand.U8(32), dst)
	g.DECQ(n)
	g.JNZ(operand.LabelRef("one"))
	g.Label("done")
	g.End()
}
