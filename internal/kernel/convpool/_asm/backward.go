package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

// combine writes the sparse sums of rows, for strips of the given number of floats in the given number of rows, which are all
// kept in registers.
func (g *gen) combine(rows, strip int) {
	vecs := strip * 4 / g.Bytes()
	g.Begin(fmt.Sprintf("combine%dx%d%s", rows, strip, g.Suffix), "(dst *float32, dstOff *int32, dstRow int, src *float32, srcRow int, off *int32, gs *float32, count *int32, listStride, jobs int, sums *float32)",
		fmt.Sprintf("is combineGo for %d rows of %d floats.", rows, strip))
	dst, src, off, gs := g.Arg("dst"), g.Arg("src"), g.Arg("off"), g.Arg("gs")
	dstOff, count := g.Arg("dstOff"), g.Arg("count")
	srcs := []reg.Register{src}
	if rows > 1 {
		sr := g.ArgBytes("srcRow")
		for range rows - 1 {
			s := g.GP64()
			g.LEAQ(Idx(srcs[len(srcs)-1], sr, 1), s)
			srcs = append(srcs, s)
		}
	}
	next := 0
	take := func() reg.Register { next++; return g.Phys(next - 1) }
	var acc [][]reg.Register
	for range rows {
		var a []reg.Register
		for range vecs {
			a = append(a, take())
		}
		acc = append(acc, a)
	}
	b, sum := take(), take()
	var sumX, bX reg.Register = sum.(reg.Vec).AsX(), b.(reg.Vec).AsX()
	i, p, n := g.GP64(), g.GP64(), g.GP64()

	g.Label("job")
	// rowsOf visits the strips of dst with their registers.
	rowsOf := func(f func(m operand.Mem, r reg.Register)) {
		g.MOVLQSX(At(dstOff, 0), p)
		g.LEAQ(Idx(dst, p, 4), p)
		for r := range rows {
			if r == 1 {
				g.Load(g.Param("dstRow"), i)
			}
			if r > 0 {
				g.LEAQ(Idx(p, i, 4), p)
			}
			for v := range vecs {
				f(At(p, v*g.Bytes()), acc[r][v])
			}
		}
	}
	rowsOf(func(m operand.Mem, r reg.Register) { g.VMOVUPS(m, r) })
	g.VXORPS(sumX, sumX, sumX)
	g.MOVLQSX(At(count, 0), n)
	g.XORQ(i, i)
	g.TESTQ(n, n)
	g.JLE(operand.LabelRef("done"))
	g.Align(32)
	g.Label("entry")
	g.MOVLQSX(Idx(off, i, 4), p)
	g.VBROADCASTSS(Idx(gs, i, 4), b)
	for r := range rows {
		for v := range vecs {
			m := Idx(srcs[r], p, 4)
			m.Disp = v * g.Bytes()
			g.VFMADD231PS(m, b, acc[r][v])
		}
	}
	g.VADDSS(bX, sumX, sumX)
	g.INCQ(i)
	g.CMPQ(i, n)
	g.JLT(operand.LabelRef("entry"))
	g.Label("done")
	rowsOf(func(m operand.Mem, r reg.Register) { g.VMOVUPS(r, m) })
	g.Load(g.Param("sums"), p)
	g.VADDSS(At(p, 0), sumX, sumX)
	g.VMOVSS(sumX, At(p, 0))
	g.ADDQ(operand.U8(4), p)
	g.Store(p, g.Param("sums"))
	g.Load(g.Param("listStride"), p)
	g.LEAQ(Idx(off, p, 4), off)
	g.LEAQ(Idx(gs, p, 4), gs)
	g.ADDQ(operand.U8(4), dstOff)
	g.ADDQ(operand.U8(4), count)
	g.Load(g.Param("jobs"), p)
	g.DECQ(p)
	g.Store(p, g.Param("jobs"))
	g.JNZ(operand.LabelRef("job"))
	g.End()
}

// lanesGrad writes the gradient for nine filter taps of one input channel and one vector of output channels.
func (g *gen) lanesGrad() {
	g.Begin("lanes"+g.Suffix, "(acc *float32, pairs *float32, pairRow int, ix *uint8, dy *float32, stride, rows, windows int)",
		fmt.Sprintf("is lanesGo for %d channels.", g.Bytes()/4))
	accP, pairs, pr := g.Arg("acc"), g.Arg("pairs"), g.ArgBytes("pairRow")
	ix, dy, s := g.Arg("ix"), g.Arg("dy"), g.Arg("stride")
	next := 0
	take := func() reg.Register { next++; return g.Phys(next - 1) }
	var acc []reg.Register
	for t := range 10 {
		r := take()
		g.VMOVUPS(At(accP, t*g.Bytes()), r)
		acc = append(acc, r)
	}
	ctl, d, q, swap := take(), take(), take(), take()
	if g.Wide() {
		g.VMOVUPS(g.k(kSwap), swap)
	}
	n, p0, p1, p2 := g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.Label("row")
	g.MOVQ(pairs, p0)
	g.LEAQ(Idx(p0, pr, 1), p1)
	g.LEAQ(Idx(p1, pr, 1), p2)
	g.Load(g.Param("windows"), n)
	g.Align(32)
	g.Label("window")
	if g.Wide() {
		k := g.K()
		g.VPMOVZXBD(At(ix, 0), ctl)
		g.VPCMPUD(operand.U8(1), g.k(kFour), ctl, k) // below 4
		g.VMOVUPS_Z(At(dy, 0), k, d)
		g.VPERMILPS(ctl, swap, ctl)
	} else {
		g.VPMOVZXBD(At(ix, 0), ctl)
		g.VMOVDQU(g.k(kFour), q)
		g.VPCMPGTD(ctl, q, q)
		g.VANDPS(At(dy, 0), q, d)
		g.VMOVUPS(g.k(kSwap), q)
		g.VPERMILPS(ctl, q, ctl)
	}
	for ky, p := range []reg.Register{p0, p1, p2} {
		for kx := range 3 {
			if g.Wide() {
				g.VBROADCASTF32X4(At(p, 8*kx), q)
			} else {
				g.VBROADCASTF128(At(p, 8*kx), q)
			}
			g.VPERMILPS(ctl, q, q)
			g.VFMADD231PS(q, d, acc[3*ky+kx])
		}
	}
	g.VADDPS(d, acc[9], acc[9])
	for _, p := range []reg.Register{p0, p1, p2} {
		g.ADDQ(operand.U8(16), p)
	}
	g.ADDQ(s, ix)
	g.LEAQ(Idx(dy, s, 4), dy)
	g.DECQ(n)
	g.JNZ(operand.LabelRef("window"))
	g.LEAQ(Idx(pairs, pr, 2), pairs)
	g.again("rows", "row")
	for t, r := range acc {
		g.VMOVUPS(r, At(accP, t*g.Bytes()))
	}
	g.End()
}
