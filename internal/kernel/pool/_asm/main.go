// Command _asm writes the assembly of package pool and the Go declarations that go with it.
//
// Run it with `go generate ./internal/kernel/pool`.
package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

func main() {
	file := NewFile("pool")
	for _, l := range Levels {
		g := &gen{Lanes: Lanes{Gen: &Gen{File: file, Level: l}}}
		g.max()
		g.sum()
		g.pick()
		g.scatter()
		g.spread()
	}
	file.Write()
}

// gen writes functions for one level. All have loops of the same form: over the windows of a run, over their channels, over
// the pixels of the window (its taps).
type gen struct {
	Lanes

	// Of the function in progress.
	taps, nTaps operand.Mem
	n           operand.Mem   // bytes of the channels of a pixel
	c           reg.GPVirtual // byte offset of the channels in progress
	id          string        // makes the labels of vectors and tail differ
}

// function writes func name: for each window of the run, before is called, then body for each vector of channels, then after.
// Parameters taps, nTaps, count (of windows) and c (channels) are used here.
func (g *gen) function(name, sig string, setup, body, next func()) {
	g.Begin(name+g.Suffix, sig, "is "+name+"Go.")
	g.taps, g.nTaps = g.Address("taps"), g.Address("nTaps")
	n, count := g.Address("c"), g.Address("count")
	g.n = n
	g.SHLQ(operand.U8(2), n)
	setup()
	g.Mask = g.TailMask(n)
	g.c = g.GP64()
	left := g.GP64()
	g.Label("window")
	g.XORQ(g.c, g.c)
	g.Label("vectors")
	g.MOVQ(n, left)
	g.SUBQ(g.c, left)
	g.CMPQ(left, operand.U32(uint32(g.Bytes())))
	g.JLT(operand.LabelRef("tail"))
	g.Tail, g.id = false, ""
	body()
	g.ADDQ(operand.U32(uint32(g.Bytes())), g.c)
	g.JMP(operand.LabelRef("vectors"))
	g.Label("tail")
	g.CMPQ(g.c, n)
	g.JGE(operand.LabelRef("next"))
	g.Tail, g.id = true, "_tail"
	body()
	g.ADDQ(operand.U8(4), g.c)
	if g.Scalar() {
		g.JMP(operand.LabelRef("tail"))
	}
	g.Label("next")
	next()
	g.DECQ(count)
	g.JNZ(operand.LabelRef("window"))
	g.End()
}

// each writes the loop over the taps from the first on: f gets a register with the byte offset of the tap's channels in
// progress from the window.
func (g *gen) each(id string, f func(at reg.Register)) {
	t, k, at := g.GP64(), g.GP64(), g.GP64()
	g.MOVQ(g.taps, t)
	g.MOVQ(g.nTaps, k)
	id += g.id
	g.Label(id)
	g.MOVQ(operand.Mem{Base: t}, at)
	g.LEAQ(operand.Mem{Base: g.c, Index: at, Scale: 4}, at)
	f(at)
	g.ADDQ(operand.U8(8), t)
	g.DECQ(k)
	g.JNZ(operand.LabelRef(id))
}

// condition is a comparison's result: a vector of masks or an opmask.
type condition reg.Register

// greater is x > y, no for NaNs.
func (g *gen) greater(x, y reg.Register) condition {
	const gt = 0x1e // GT_OQ
	if !g.Wide() {
		m := g.Vec()
		g.VCMPPS(operand.U8(gt), y, x, m)
		return m
	}
	k := g.K()
	g.VCMPPS(operand.U8(gt), y, x, k)
	return k
}

func (g *gen) equal(x, y reg.Register) condition {
	if !g.Wide() {
		m := g.Vec()
		g.VPCMPEQD(y, x, m)
		return m
	}
	k := g.K()
	g.VPCMPEQD(y, x, k)
	return k
}

// choose sets r to x where c holds.
func (g *gen) choose(c condition, x, r reg.Register) {
	if !g.Wide() {
		g.VBLENDVPS(c, x, r, r)
		return
	}
	g.VMOVAPS(x, c, r)
}

// only sets r to x where c holds and to 0 elsewhere.
func (g *gen) only(c condition, x, r reg.Register) {
	if !g.Wide() {
		g.VANDPS(c, x, r)
		return
	}
	g.VMOVAPS_Z(x, c, r)
}
