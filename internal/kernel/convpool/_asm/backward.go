package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// combine writes the sparse sums of rows, for strips of the given number of floats in the given number of rows, which are all
// kept in registers.
func (g *gen) combine(rows, strip int) {
	vecs := strip * 4 / g.bytes
	g.begin(fmt.Sprintf("combine%dx%d%s", rows, strip, g.name), "(dst *float32, dstOff *int32, dstRow int, src *float32, srcRow int, off *int32, gs *float32, count *int32, listStride, jobs int, sums *float32)",
		fmt.Sprintf("is combineGo for %d rows of %d floats.", rows, strip))
	dst, src, off, gs := g.param("dst"), g.param("src"), g.param("off"), g.param("gs")
	dstOff, count := g.param("dstOff"), g.param("count")
	srcs := []reg.Register{src}
	if rows > 1 {
		sr := g.bytesOf(g.param("srcRow"))
		for range rows - 1 {
			s := g.GP64()
			g.LEAQ(idx(srcs[len(srcs)-1], sr, 1), s)
			srcs = append(srcs, s)
		}
	}
	next := 0
	take := func() reg.Register { next++; return g.phys(next - 1) }
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
		g.MOVLQSX(at(dstOff, 0), p)
		g.LEAQ(idx(dst, p, 4), p)
		for r := range rows {
			if r == 1 {
				g.Load(g.Param("dstRow"), i)
			}
			if r > 0 {
				g.LEAQ(idx(p, i, 4), p)
			}
			for v := range vecs {
				f(at(p, v*g.bytes), acc[r][v])
			}
		}
	}
	rowsOf(func(m operand.Mem, r reg.Register) { g.VMOVUPS(m, r) })
	g.VXORPS(sumX, sumX, sumX)
	g.MOVLQSX(at(count, 0), n)
	g.XORQ(i, i)
	g.TESTQ(n, n)
	g.JLE(label("done"))
	align(g.Context, 32)
	g.Label("entry")
	g.MOVLQSX(idx(off, i, 4), p)
	g.VBROADCASTSS(idx(gs, i, 4), b)
	for r := range rows {
		for v := range vecs {
			m := idx(srcs[r], p, 4)
			m.Disp = v * g.bytes
			g.VFMADD231PS(m, b, acc[r][v])
		}
	}
	g.VADDSS(bX, sumX, sumX)
	g.INCQ(i)
	g.CMPQ(i, n)
	g.JLT(label("entry"))
	g.Label("done")
	rowsOf(func(m operand.Mem, r reg.Register) { g.VMOVUPS(r, m) })
	g.Load(g.Param("sums"), p)
	g.VADDSS(at(p, 0), sumX, sumX)
	g.VMOVSS(sumX, at(p, 0))
	g.ADDQ(operand.U8(4), p)
	g.Store(p, g.Param("sums"))
	g.Load(g.Param("listStride"), p)
	g.LEAQ(idx(off, p, 4), off)
	g.LEAQ(idx(gs, p, 4), gs)
	g.ADDQ(operand.U8(4), dstOff)
	g.ADDQ(operand.U8(4), count)
	g.Load(g.Param("jobs"), p)
	g.DECQ(p)
	g.Store(p, g.Param("jobs"))
	g.JNZ(label("job"))
	g.end()
}

// lanesGrad writes the gradient for nine filter taps of one input channel and one vector of output channels.
func (g *gen) lanesGrad() {
	g.begin("lanes"+g.name, "(acc *float32, pairs *float32, pairRow int, ix *uint8, dy *float32, stride, rows, windows int)",
		fmt.Sprintf("is lanesGo for %d channels.", g.bytes/4))
	accP, pairs, pr := g.param("acc"), g.param("pairs"), g.bytesOf(g.param("pairRow"))
	ix, dy, s := g.param("ix"), g.param("dy"), g.param("stride")
	next := 0
	take := func() reg.Register { next++; return g.phys(next - 1) }
	var acc []reg.Register
	for t := range 10 {
		r := take()
		g.VMOVUPS(at(accP, t*g.bytes), r)
		acc = append(acc, r)
	}
	ctl, d, q, swap := take(), take(), take(), take()
	if g.wide() {
		g.VMOVUPS(g.k(kSwap), swap)
	}
	n, p0, p1, p2 := g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.Label("row")
	g.MOVQ(pairs, p0)
	g.LEAQ(idx(p0, pr, 1), p1)
	g.LEAQ(idx(p1, pr, 1), p2)
	g.Load(g.Param("windows"), n)
	align(g.Context, 32)
	g.Label("window")
	if g.wide() {
		k := g.K()
		g.VPMOVZXBD(at(ix, 0), ctl)
		g.VPCMPUD(operand.U8(1), g.k(kFour), ctl, k) // below 4
		g.VMOVUPS_Z(at(dy, 0), k, d)
		g.VPERMILPS(ctl, swap, ctl)
	} else {
		g.VPMOVZXBD(at(ix, 0), ctl)
		g.VMOVDQU(g.k(kFour), q)
		g.VPCMPGTD(ctl, q, q)
		g.VANDPS(at(dy, 0), q, d)
		g.VMOVUPS(g.k(kSwap), q)
		g.VPERMILPS(ctl, q, ctl)
	}
	for ky, p := range []reg.Register{p0, p1, p2} {
		for kx := range 3 {
			if g.wide() {
				g.VBROADCASTF32X4(at(p, 8*kx), q)
			} else {
				g.VBROADCASTF128(at(p, 8*kx), q)
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
	g.LEAQ(idx(dy, s, 4), dy)
	g.DECQ(n)
	g.JNZ(label("window"))
	g.LEAQ(idx(pairs, pr, 2), pairs)
	left := g.Load(g.Param("rows"), g.GP64())
	g.DECQ(left)
	g.Store(left, g.Param("rows"))
	g.JNZ(label("row"))
	for t, r := range acc {
		g.VMOVUPS(r, at(accP, t*g.bytes))
	}
	g.end()
}
