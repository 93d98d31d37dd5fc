package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// lanes is how many channels one step of a loop takes: whole vectors, or what is left of them at the end, which is a masked
// vector with AVX-512 and one channel at a time with AVX2.
type lanes struct {
	*gen
	tail bool
	mask reg.Register // of a tail, with AVX-512
}

func (l *lanes) scalar() bool { return l.tail && l.bytes == 32 }

func (l *lanes) vec() reg.VecVirtual {
	if l.scalar() {
		return l.XMM()
	}
	return l.gen.vec()
}

func (l *lanes) load(m operand.Mem, r reg.Register) {
	switch {
	case l.scalar():
		l.VMOVSS(m, r)
	case l.tail:
		l.VMOVUPS_Z(m, l.mask, r)
	default:
		l.VMOVUPS(m, r)
	}
}

func (l *lanes) store(r reg.Register, m operand.Mem) {
	switch {
	case l.scalar():
		l.VMOVSS(r, m)
	case l.tail:
		l.VMOVUPS(r, l.mask, m)
	default:
		l.VMOVUPS(r, m)
	}
}

// fma is acc += m·w.
func (l *lanes) fma(m operand.Mem, w, acc reg.Register) {
	switch {
	case l.scalar():
		l.VFMADD231SS(m, w, acc)
	case l.tail:
		l.VFMADD231PS(m, w, l.mask, acc)
	default:
		l.VFMADD231PS(m, w, acc)
	}
}

func (l *lanes) zero(r reg.Register) {
	if l.scalar() {
		l.VXORPS(r, r, r)
		return
	}
	l.gen.zero(r)
}

// step is the bytes of channels that one step takes.
func (l *lanes) step() int {
	if l.scalar() {
		return 4
	}
	return l.bytes
}

// channels writes loops over n bytes of channels, whose offset is in c: body once for vectors and once for the tail. Labels
// are made different by id.
func (g *gen) channels(c reg.GPVirtual, n operand.Op, mask reg.Register, id string, body func(l *lanes, id string)) {
	left := g.GP64()
	g.XORQ(c, c)
	g.Label("vectors" + id)
	g.MOVQ(n, left)
	g.SUBQ(c, left)
	g.CMPQ(left, operand.U32(uint32(g.bytes)))
	g.JLT(operand.LabelRef("tail" + id))
	body(&lanes{g, false, nil}, id)
	g.ADDQ(operand.U32(uint32(g.bytes)), c)
	g.JMP(operand.LabelRef("vectors" + id))
	g.Label("tail" + id)
	g.CMPQ(c, n)
	g.JGE(operand.LabelRef("done" + id))
	l := &lanes{g, true, mask}
	body(l, id+"t")
	g.ADDQ(operand.U32(uint32(l.step())), c)
	if l.scalar() {
		g.JMP(operand.LabelRef("tail" + id))
	}
	g.Label("done" + id)
}

// tailMask sets an opmask to the lanes of the last, partial vector of n bytes of channels.
func (g *gen) tailMask(n operand.Op) reg.Register {
	if g.bytes == 32 {
		return nil
	}
	r, m := g.GP64(), g.GP64()
	g.MOVQ(n, r)
	g.SHRQ(operand.U8(2), r)
	g.ANDQ(operand.U8(15), r)
	g.MOVQ(operand.U32(1), m)
	g.SHLXQ(r, m, m)
	g.DECQ(m)
	k := g.K()
	g.KMOVW(m.As32(), k)
	return k
}

func genDepthwise(g *gen) {
	g.depthwise()
	g.depthwiseFilter()
}

// depthwise writes the gather of taps for a run of pixels.
func (g *gen) depthwise() {
	g.begin("depthwise"+g.name, "(y, x, w *float32, taps *int, nTaps, yStride, xStride, pixels, c int, bias *float32, relu int)",
		"is depthwiseGo.")
	y, x, w := g.param("y"), g.param("x"), g.param("w")
	sy, sx := g.bytesOf(g.param("yStride")), g.bytesOf(g.param("xStride"))
	sx3 := g.GP64()
	g.LEAQ(idx(sx, sx, 2), sx3)
	// The number of channels, in bytes, takes its argument's place: there are too few registers.
	n := g.address("c")
	g.SHLQ(operand.U8(2), n)
	pixels := g.address("pixels")
	mask := g.tailMask(n)
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
		g.channels(c, n, mask, fmt.Sprint("_", p), func(l *lanes, id string) {
			acc := make([]reg.VecVirtual, p)
			for i := range acc {
				acc[i] = l.vec()
			}
			bias := g.GP64()
			l.zero(acc[0])
			g.Load(g.Param("bias"), bias)
			g.TESTQ(bias, bias)
			g.JZ(operand.LabelRef("nobias" + id))
			l.load(idx(bias, c, 1), acc[0])
			g.Label("nobias" + id)
			for i := 1; i < p; i++ {
				g.VMOVAPS(acc[0], acc[i])
			}
			t, k, q, q4 := g.GP64(), g.GP64(), g.GP64(), g.GP64()
			g.Load(g.Param("taps"), t)
			g.Load(g.Param("nTaps"), k)
			wv := l.vec()
			g.Label("tap" + id)
			g.MOVQ(at(t, 8), q)
			g.LEAQ(idx(w, q, 4), q)
			l.load(idx(q, c, 1), wv)
			g.MOVQ(at(t, 0), q)
			g.LEAQ(idx(x, q, 4), q)
			g.ADDQ(c, q)
			for i := range acc {
				base := q
				if i >= 4 {
					if i == 4 {
						g.LEAQ(idx(q, sx, 4), q4)
					}
					base = q4
				}
				m := at(base, 0)
				switch i % 4 {
				case 1:
					m = idx(base, sx, 1)
				case 2:
					m = idx(base, sx, 2)
				case 3:
					m = idx(base, sx3, 1)
				}
				l.fma(m, wv, acc[i])
			}
			g.ADDQ(operand.U8(16), t)
			g.DECQ(k)
			g.JNZ(operand.LabelRef("tap" + id))

			relu := g.GP64()
			g.Load(g.Param("relu"), relu)
			g.TESTQ(relu, relu)
			g.JZ(operand.LabelRef("store" + id))
			l.zero(wv)
			for _, a := range acc {
				if l.scalar() {
					g.VMAXSS(a, wv, a)
				} else {
					g.VMAXPS(a, wv, a) // in this order a NaN stays a NaN
				}
			}
			g.Label("store" + id)
			g.LEAQ(idx(y, c, 1), q)
			for i, a := range acc {
				if i > 0 {
					g.ADDQ(sy, q)
				}
				l.store(a, at(q, 0))
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
	g.end()
}

// depthwiseFilter writes the sums over a run of pixels, three taps at a time.
func (g *gen) depthwiseFilter() {
	g.begin("depthwiseFilter"+g.name, "(dw, x, dy *float32, taps *int, nTaps, yStride, xStride, pixels, c int)",
		"is depthwiseFilterGo.")
	dw, x, dy := g.param("dw"), g.param("x"), g.param("dy")
	sy, sx := g.bytesOf(g.param("yStride")), g.bytesOf(g.param("xStride"))
	n := g.address("c")
	g.SHLQ(operand.U8(2), n)
	nTaps, taps := g.address("nTaps"), g.address("taps")
	mask := g.tailMask(n)
	c := g.GP64()
	g.Label("taps")
	for _, k := range []int{3, 2, 1} {
		next := fmt.Sprint("less", k)
		g.CMPQ(nTaps, operand.U8(uint8(k)))
		g.JLT(operand.LabelRef(next))
		g.channels(c, n, mask, fmt.Sprint("_", k), func(l *lanes, id string) {
			// Pixels are taken two at a time, with sums of their own, since a sum waits four cycles for its last addition.
			even, odd := make([]reg.VecVirtual, k), make([]reg.VecVirtual, k)
			p := make([]reg.GPVirtual, k)
			t, q, left := g.GP64(), g.GP64(), g.GP64()
			g.MOVQ(taps, t)
			for i := range p {
				p[i], even[i], odd[i] = g.GP64(), l.vec(), l.vec()
				g.MOVQ(at(t, 16*i+8), q)
				g.LEAQ(idx(dw, q, 4), q)
				l.load(idx(q, c, 1), even[i])
				l.zero(odd[i])
				g.MOVQ(at(t, 16*i), q)
				g.LEAQ(idx(x, q, 4), p[i])
				g.ADDQ(c, p[i])
			}
			g.LEAQ(idx(dy, c, 1), q)
			g.Load(g.Param("pixels"), left)
			v := l.vec()
			g.SUBQ(operand.U8(2), left)
			g.JLT(operand.LabelRef("last" + id))
			g.Label("pair" + id)
			for _, acc := range [][]reg.VecVirtual{even, odd} {
				l.load(at(q, 0), v)
				g.ADDQ(sy, q)
				for i := range p {
					l.fma(at(p[i], 0), v, acc[i])
					g.ADDQ(sx, p[i])
				}
			}
			g.SUBQ(operand.U8(2), left)
			g.JGE(operand.LabelRef("pair" + id))
			g.Label("last" + id)
			g.ADDQ(operand.U8(2), left)
			g.JZ(operand.LabelRef("store" + id))
			l.load(at(q, 0), v)
			for i := range p {
				l.fma(at(p[i], 0), v, even[i])
			}
			g.Label("store" + id)
			for i := range p {
				if l.scalar() {
					g.VADDSS(odd[i], even[i], even[i])
				} else {
					g.VADDPS(odd[i], even[i], even[i])
				}
				g.MOVQ(at(t, 16*i+8), q)
				g.LEAQ(idx(dw, q, 4), q)
				l.store(even[i], idx(q, c, 1))
			}
		})
		g.ADDQ(operand.U8(uint8(16*k)), taps)
		g.SUBQ(operand.U8(uint8(k)), nTaps)
		g.JMP(operand.LabelRef("taps"))
		g.Label(next)
	}
	g.end()
}

// address is a parameter's place in memory.
func (g *gen) address(name string) operand.Mem {
	b, err := g.Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}
