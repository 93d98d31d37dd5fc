package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

const shape = "taps *int, nTaps, step, count, c int"

func (g *gen) max() {
	var x, y, step reg.Register
	g.function("max", "(y, x *float32, "+shape+")", func() {
		x, y, step = g.Arg("x"), g.Arg("y"), g.ArgBytes("step")
	}, func() {
		best, v, at := g.Vec(), g.Vec(), g.GP64()
		g.MOVQ(g.taps, at)
		g.MOVQ(operand.Mem{Base: at}, at)
		g.LEAQ(operand.Mem{Base: g.c, Index: at, Scale: 4}, at)
		g.LoadVec(Idx(x, at, 1), best)
		g.each("tap", func(at reg.Register) {
			g.LoadVec(Idx(x, at, 1), v)
			g.VMAXPS(best, v, best) // in this order best stays if it or v is a NaN
		})
		g.StoreVec(best, Idx(y, g.c, 1))
	}, func() {
		g.ADDQ(step, x)
		g.ADDQ(g.n, y)
	})
}

// share is the factor of a mean, in all lanes.
func (g *gen) share() reg.Register {
	r := g.Vec()
	g.VBROADCASTSS(g.Address("share"), r)
	return r
}

func (g *gen) sum() {
	var x, y, step reg.Register
	g.function("sum", "(y, x *float32, "+shape+", share float32)", func() {
		x, y, step = g.Arg("x"), g.Arg("y"), g.ArgBytes("step")
	}, func() {
		sum, v := g.Vec(), g.Vec()
		g.Zero(sum)
		g.each("tap", func(at reg.Register) {
			g.LoadVec(Idx(x, at, 1), v)
			g.VADDPS(v, sum, sum)
		})
		share := g.share()
		g.VMULPS(share, sum, sum)
		g.StoreVec(sum, Idx(y, g.c, 1))
	}, func() {
		g.ADDQ(step, x)
		g.ADDQ(g.n, y)
	})
}

func (g *gen) pick() {
	var x, y, step, v reg.Register
	g.function("pick", "(y, x, v *float32, "+shape+")", func() {
		x, y, v, step = g.Arg("x"), g.Arg("y"), g.Arg("v"), g.ArgBytes("step")
	}, func() {
		best, val, a, b, at := g.Vec(), g.Vec(), g.Vec(), g.Vec(), g.GP64()
		g.MOVQ(g.taps, at)
		g.MOVQ(operand.Mem{Base: at}, at)
		g.LEAQ(operand.Mem{Base: g.c, Index: at, Scale: 4}, at)
		g.LoadVec(Idx(x, at, 1), best)
		g.LoadVec(Idx(v, at, 1), val)
		g.each("tap", func(at reg.Register) {
			g.LoadVec(Idx(x, at, 1), a)
			g.LoadVec(Idx(v, at, 1), b)
			m := g.greater(a, best)
			g.choose(m, a, best)
			g.choose(m, b, val)
		})
		g.StoreVec(val, Idx(y, g.c, 1))
	}, func() {
		g.ADDQ(step, x)
		g.ADDQ(step, v)
		g.ADDQ(g.n, y)
	})
}

// one is a vector of the integer 1.
func (g *gen) one() reg.Register {
	r := g.Vec()
	one, x := g.GP32(), g.XMM()
	g.MOVL(operand.U32(1), one)
	g.VMOVD(one, x)
	g.VPBROADCASTD(x, r)
	return r
}

func (g *gen) scatter() {
	var x, dx, dy, step reg.Register
	g.function("scatter", "(dx, x, dy *float32, "+shape+", add int)", func() {
		x, dx, dy, step = g.Arg("x"), g.Arg("dx"), g.Arg("dy"), g.ArgBytes("step")
	}, func() {
		// The number of the tap that is greatest, then a look at each tap whether it is that.
		best, where, t, v, at := g.Vec(), g.Vec(), g.Vec(), g.Vec(), g.GP64()
		g.MOVQ(g.taps, at)
		g.MOVQ(operand.Mem{Base: at}, at)
		g.LEAQ(operand.Mem{Base: g.c, Index: at, Scale: 4}, at)
		g.LoadVec(Idx(x, at, 1), best)
		g.Zero(where)
		g.Zero(t)
		one := g.one()
		g.each("tap", func(at reg.Register) {
			g.LoadVec(Idx(x, at, 1), v)
			m := g.greater(v, best)
			g.choose(m, v, best)
			g.choose(m, t, where)
			g.VPADDD(one, t, t)
		})
		d, add := g.Vec(), g.GP64()
		g.LoadVec(Idx(dy, g.c, 1), d)
		g.Load(g.Param("add"), add)
		g.Zero(t)
		g.each("send", func(at reg.Register) {
			m := g.equal(where, t)
			g.VPADDD(one, t, t)
			g.only(m, d, v)
			g.addOrStore(add, v, Idx(dx, at, 1), "send")
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
	old := g.Vec()
	g.LoadVec(m, old)
	g.VADDPS(v, old, old)
	g.StoreVec(old, m)
	g.JMP(operand.LabelRef(id + "_done" + g.id))
	g.Label(id + "_store" + g.id)
	g.StoreVec(v, m)
	g.Label(id + "_done" + g.id)
}

func (g *gen) spread() {
	var dx, dy, step reg.Register
	g.function("spread", "(dx, dy *float32, "+shape+", share float32, add int)", func() {
		dx, dy, step = g.Arg("dx"), g.Arg("dy"), g.ArgBytes("step")
	}, func() {
		d, add := g.Vec(), g.GP64()
		g.LoadVec(Idx(dy, g.c, 1), d)
		share := g.share()
		g.VMULPS(share, d, d)
		g.Load(g.Param("add"), add)
		g.each("tap", func(at reg.Register) { g.addOrStore(add, d, Idx(dx, at, 1), "tap") })
	}, func() {
		g.ADDQ(step, dx)
		g.ADDQ(g.n, dy)
	})
}
