package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

// channels writes loops over n bytes of channels, whose offset is in c: body once for vectors and once for the tail. Labels
// are made different by id.
func (g *gen) channels(c reg.GPVirtual, n operand.Op, mask reg.Register, id string, body func(l *Lanes, id string)) {
	left := g.GP64()
	g.XORQ(c, c)
	g.Label("vectors" + id)
	g.MOVQ(n, left)
	g.SUBQ(c, left)
	g.CMPQ(left, operand.U32(uint32(g.Bytes())))
	g.JLT(operand.LabelRef("tail" + id))
	body(&Lanes{Gen: g.Gen}, id)
	g.ADDQ(operand.U32(uint32(g.Bytes())), c)
	g.JMP(operand.LabelRef("vectors" + id))
	g.Label("tail" + id)
	g.CMPQ(c, n)
	g.JGE(operand.LabelRef("done" + id))
	l := &Lanes{Gen: g.Gen, Tail: true, Mask: mask}
	body(l, id+"t")
	g.ADDQ(operand.U32(uint32(l.Step())), c)
	if l.Scalar() {
		g.JMP(operand.LabelRef("tail" + id))
	}
	g.Label("done" + id)
}

func genDepthwise(g *gen) {
	g.depthwise()
	g.depthwiseFilter()
}

// depthwise writes the gather of taps for a run of pixels.
func (g *gen) depthwise() {
	g.Begin("depthwise"+g.Suffix, "(y, x, w *float32, taps *int, nTaps, yStride, xStride, pixels, c int, bias *float32, relu int)",
		"is depthwiseGo.")
	y, x, w := g.Arg("y"), g.Arg("x"), g.Arg("w")
	sy, sx := g.ArgBytes("yStride"), g.ArgBytes("xStride")
	sx3 := g.GP64()
	g.LEAQ(Idx(sx, sx, 2), sx3)
	// The number of channels, in bytes, takes its argument's place: there are too few registers.
	n := g.Address("c")
	g.SHLQ(operand.U8(2), n)
	pixels := g.Address("pixels")
	mask := g.TailMask(n)
	c := g.GP64()
	g.Label("pixels")
	for _, p := range []int{8, 4, 1} {
		next := fmt.Sprint("less", p)
		if p > 1 {
			g.CMPQ(pixels, operand.U8(uint8(p)))
			g.JLT(operand.LabelRef(next))
		} else {
			g.CMPQ(pixels, operand.U8(0))
			g.JLE(operand.LabelRef(next))
		}
		g.channels(c, n, mask, fmt.Sprint("_", p), func(l *Lanes, id string) {
			acc := make([]reg.VecVirtual, p)
			for i := range acc {
				acc[i] = l.Vec()
			}
			bias := g.GP64()
			l.Zero(acc[0])
			g.Load(g.Param("bias"), bias)
			g.TESTQ(bias, bias)
			g.JZ(operand.LabelRef("nobias" + id))
			l.LoadVec(Idx(bias, c, 1), acc[0])
			g.Label("nobias" + id)
			for i := 1; i < p; i++ {
				g.VMOVAPS(acc[0], acc[i])
			}
			t, k, q, q4 := g.GP64(), g.GP64(), g.GP64(), g.GP64()
			g.Load(g.Param("taps"), t)
			g.Load(g.Param("nTaps"), k)
			wv := l.Vec()
			g.Label("tap" + id)
			g.MOVQ(At(t, 8), q)
			g.LEAQ(Idx(w, q, 4), q)
			l.LoadVec(Idx(q, c, 1), wv)
			g.MOVQ(At(t, 0), q)
			g.LEAQ(Idx(x, q, 4), q)
			g.ADDQ(c, q)
			for i := range acc {
				base := q
				if i >= 4 {
					if i == 4 {
						g.LEAQ(Idx(q, sx, 4), q4)
					}
					base = q4
				}
				m := At(base, 0)
				switch i % 4 {
				case 1:
					m = Idx(base, sx, 1)
				case 2:
					m = Idx(base, sx, 2)
				case 3:
					m = Idx(base, sx3, 1)
				}
				l.FMA(m, wv, acc[i])
			}
			g.ADDQ(operand.U8(16), t)
			g.DECQ(k)
			g.JNZ(operand.LabelRef("tap" + id))

			relu := g.GP64()
			g.Load(g.Param("relu"), relu)
			g.TESTQ(relu, relu)
			g.JZ(operand.LabelRef("store" + id))
			l.Zero(wv)
			for _, a := range acc {
				if l.Scalar() {
					g.VMAXSS(a, wv, a)
				} else {
					g.VMAXPS(a, wv, a) // in this order a NaN stays a NaN
				}
			}
			g.Label("store" + id)
			g.LEAQ(Idx(y, c, 1), q)
			for i, a := range acc {
				if i > 0 {
					g.ADDQ(sy, q)
				}
				l.StoreVec(a, At(q, 0))
			}
		})
		step := g.GP64()
		for _, s := range []struct{ p, by reg.Register }{{y, sy}, {x, sx}} {
			g.MOVQ(s.by, step)
			for n := p; n > 1; n /= 2 {
				g.ADDQ(step, step)
			}
			g.ADDQ(step, s.p)
		}
		g.SUBQ(operand.U8(uint8(p)), pixels)
		g.JMP(operand.LabelRef("pixels"))
		g.Label(next)
	}
	g.End()
}

// depthwiseFilter writes the sums over a run of pixels, three taps at a time.
func (g *gen) depthwiseFilter() {
	g.Begin("depthwiseFilter"+g.Suffix, "(dw, x, dy *float32, taps *int, nTaps, yStride, xStride, pixels, c int)",
		"is depthwiseFilterGo.")
	dw, x, dy := g.Arg("dw"), g.Arg("x"), g.Arg("dy")
	sy, sx := g.ArgBytes("yStride"), g.ArgBytes("xStride")
	n := g.Address("c")
	g.SHLQ(operand.U8(2), n)
	nTaps, taps := g.Address("nTaps"), g.Address("taps")
	mask := g.TailMask(n)
	c := g.GP64()
	g.Label("taps")
	for _, k := range []int{3, 2, 1} {
		next := fmt.Sprint("less", k)
		g.CMPQ(nTaps, operand.U8(uint8(k)))
		g.JLT(operand.LabelRef(next))
		g.channels(c, n, mask, fmt.Sprint("_", k), func(l *Lanes, id string) {
			// Pixels are taken two at a time, with sums of their own, since a sum waits four cycles for its last addition.
			even, odd := make([]reg.VecVirtual, k), make([]reg.VecVirtual, k)
			p := make([]reg.GPVirtual, k)
			t, q, left := g.GP64(), g.GP64(), g.GP64()
			g.MOVQ(taps, t)
			for i := range p {
				p[i], even[i], odd[i] = g.GP64(), l.Vec(), l.Vec()
				g.MOVQ(At(t, 16*i+8), q)
				g.LEAQ(Idx(dw, q, 4), q)
				l.LoadVec(Idx(q, c, 1), even[i])
				l.Zero(odd[i])
				g.MOVQ(At(t, 16*i), q)
				g.LEAQ(Idx(x, q, 4), p[i])
				g.ADDQ(c, p[i])
			}
			g.LEAQ(Idx(dy, c, 1), q)
			g.Load(g.Param("pixels"), left)
			v := l.Vec()
			g.SUBQ(operand.U8(2), left)
			g.JLT(operand.LabelRef("last" + id))
			g.Label("pair" + id)
			for _, acc := range [][]reg.VecVirtual{even, odd} {
				l.LoadVec(At(q, 0), v)
				g.ADDQ(sy, q)
				for i := range p {
					l.FMA(At(p[i], 0), v, acc[i])
					g.ADDQ(sx, p[i])
				}
			}
			g.SUBQ(operand.U8(2), left)
			g.JGE(operand.LabelRef("pair" + id))
			g.Label("last" + id)
			g.ADDQ(operand.U8(2), left)
			g.JZ(operand.LabelRef("store" + id))
			l.LoadVec(At(q, 0), v)
			for i := range p {
				l.FMA(At(p[i], 0), v, even[i])
			}
			g.Label("store" + id)
			for i := range p {
				if l.Scalar() {
					g.VADDSS(odd[i], even[i], even[i])
				} else {
					g.VADDPS(odd[i], even[i], even[i])
				}
				g.MOVQ(At(t, 16*i+8), q)
				g.LEAQ(Idx(dw, q, 4), q)
				l.StoreVec(even[i], Idx(q, c, 1))
			}
		})
		g.ADDQ(operand.U8(uint8(16*k)), taps)
		g.SUBQ(operand.U8(uint8(k)), nTaps)
		g.JMP(operand.LabelRef("taps"))
		g.Label(next)
	}
	g.End()
}
