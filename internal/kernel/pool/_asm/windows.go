package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const shape = "taps *int, nTaps, step, count, c int"

// step loads the distance from one window to the next, in bytes.
func (g *gen) step() reg.Register {
	r := g.param("step")
	g.SHLQ(operand.U8(2), r)
	return r
}

func (g *gen) max() {
	var x, y, step reg.Register
	g.function("max", "(y, x *float32, "+shape+")", func() {
		x, y, step = g.param("x"), g.param("y"), g.step()
	}, func() {
		best, v, at := g.vec(), g.vec(), g.GP64()
		g.MOVQ(g.taps, at)
		g.MOVQ(operand.Mem{Base: at}, at)
		g.LEAQ(operand.Mem{Base: g.c, Index: at, Scale: 4}, at)
		g.load(idx(x, at), best)
		g.each("tap", func(at reg.Register) {
			g.load(idx(x, at), v)
			g.VMAXPS(best, v, best) // in this order best stays if it or v is a NaN
		})
		g.store(best, idx(y, g.c))
	}, func() {
		g.ADDQ(step, x)
		g.ADDQ(g.n, y)
	})
}

// share is the factor of a mean, in all lanes.
func (g *gen) share() reg.Register {
	r := g.vec()
	g.VBROADCASTSS(g.address("share"), r)
	return r
}

func (g *gen) sum() {
	var x, y, step reg.Register
	g.function("sum", "(y, x *float32, "+shape+", share float32)", func() {
		x, y, step = g.param("x"), g.param("y"), g.step()
	}, func() {
		sum, v := g.vec(), g.vec()
		g.zero(sum)
		g.each("tap", func(at reg.Register) {
			g.load(idx(x, at), v)
			g.VADDPS(v, sum, sum)
		})
		share := g.share()
		g.VMULPS(share, sum, sum)
		g.store(sum, idx(y, g.c))
	}, func() {
		g.ADDQ(step, x)
		g.ADDQ(g.n, y)
	})
}

func (g *gen) pick() {
	var x, y, step, v reg.Register
	g.function("pick", "(y, x, v *float32, "+shape+")", func() {
		x, y, v, step = g.param("x"), g.param("y"), g.param("v"), g.step()
	}, func() {
		best, val, a, b, at := g.vec(), g.vec(), g.vec(), g.vec(), g.GP64()
		g.MOVQ(g.taps, at)
		g.MOVQ(operand.Mem{Base: at}, at)
		g.LEAQ(operand.Mem{Base: g.c, Index: at, Scale: 4}, at)
		g.load(idx(x, at), best)
		g.load(idx(v, at), val)
		g.each("tap", func(at reg.Register) {
			g.load(idx(x, at), a)
			g.load(idx(v, at), b)
			m := g.greater(a, best)
			g.choose(m, a, best)
			g.choose(m, b, val)
		})
		g.store(val, idx(y, g.c))
	}, func() {
		g.ADDQ(step, x)
		g.ADDQ(step, v)
		g.ADDQ(g.n, y)
	})
}

// one is a vector of the integer 1.
func (g *gen) one() reg.Register {
	r := g.vec()
	one, x := g.GP32(), g.XMM()
	g.MOVL(operand.U32(1), one)
	g.VMOVD(one, x)
	g.VPBROADCASTD(x, r)
	return r
}

func (g *gen) scatter() {
	var x, dx, dy, step reg.Register
	g.function("scatter", "(dx, x, dy *float32, "+shape+", add int)", func() {
		x, dx, dy, step = g.param("x"), g.param("dx"), g.param("dy"), g.step()
	}, func() {
		// The number of the tap that is greatest, then a look at each tap whether it is that.
		best, where, t, v, at := g.vec(), g.vec(), g.vec(), g.vec(), g.GP64()
		g.MOVQ(g.taps, at)
		g.MOVQ(operand.Mem{Base: at}, at)
		g.LEAQ(operand.Mem{Base: g.c, Index: at, Scale: 4}, at)
		g.load(idx(x, at), best)
		g.zero(where)
		g.zero(t)
		one := g.one()
		g.each("tap", func(at reg.Register) {
			g.load(idx(x, at), v)
			m := g.greater(v, best)
			g.choose(m, v, best)
			g.choose(m, t, where)
			g.VPADDD(one, t, t)
		})
		d, add := g.vec(), g.GP64()
		g.load(idx(dy, g.c), d)
		g.Load(g.Param("add"), add)
		g.zero(t)
		g.each("send", func(at reg.Register) {
			m := g.equal(where, t)
			g.VPADDD(one, t, t)
			g.only(m, d, v)
			g.addOrStore(add, v, idx(dx, at), "send")
		})
	}, func() {
		g.ADDQ(step, x)
		g.ADDQ(step, dx)
		g.ADDQ(g.n, dy)
	})
}

// addOrStore adds v to memory if add is not 0, else stores it there.
func (g *gen) addOrStore(add, v reg.Register, m operand.Mem, id string) {
	g.TESTQ(add, add)
	g.JZ(operand.LabelRef(id + "_store" + g.id))
	old := g.vec()
	g.load(m, old)
	g.VADDPS(v, old, old)
	g.store(old, m)
	g.JMP(operand.LabelRef(id + "_done" + g.id))
	g.Label(id + "_store" + g.id)
	g.store(v, m)
	g.Label(id + "_done" + g.id)
}

func (g *gen) spread() {
	var dx, dy, step reg.Register
	g.function("spread", "(dx, dy *float32, "+shape+", share float32, add int)", func() {
		dx, dy, step = g.param("dx"), g.param("dy"), g.step()
	}, func() {
		d, add := g.vec(), g.GP64()
		g.load(idx(dy, g.c), d)
		share := g.share()
		g.VMULPS(share, d, d)
		g.Load(g.Param("add"), add)
		g.each("tap", func(at reg.Register) { g.addOrStore(add, d, idx(dx, at), "tap") })
	}, func() {
		g.ADDQ(step, dx)
		g.ADDQ(g.n, dy)
	})
}
