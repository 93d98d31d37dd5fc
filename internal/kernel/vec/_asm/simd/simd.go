package simd

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Level is an instruction set.
type Level struct {
	Suffix string // of function names
	Width  int    // lanes of 4 bytes of a vector
}

// Levels are the instruction sets that things are generated for: AVX2 with FMA3, and AVX-512 with F, BW, DQ and VL.
var Levels = []Level{{"AVX2", 8}, {"AVX512", 16}}

// Wide reports whether l is AVX-512.
func (l Level) Wide() bool { return l.Width == 16 }

// Bytes is the size of a vector.
func (l Level) Bytes() int { return 4 * l.Width }

// Y and Z are the vector registers by number; Y from 16 on take AVX-512.
var (
	Y = []reg.VecPhysical{reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7,
		reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15,
		reg.Y16, reg.Y17, reg.Y18, reg.Y19, reg.Y20, reg.Y21, reg.Y22, reg.Y23,
		reg.Y24, reg.Y25, reg.Y26, reg.Y27, reg.Y28, reg.Y29, reg.Y30, reg.Y31}
	Z = []reg.VecPhysical{reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7,
		reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
		reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23,
		reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31}
)

// Gen writes functions for one level.
type Gen struct {
	*File
	Level
}

// Vec is an unset register.
func (g *Gen) Vec() reg.VecVirtual {
	if g.Wide() {
		return g.ZMM()
	}
	return g.YMM()
}

// Phys is vector register i itself, for functions that need most of them.
func (g *Gen) Phys(i int) reg.Register {
	if g.Wide() {
		return Z[i]
	}
	return Y[i]
}

// Zero sets r to 0.
func (g *Gen) Zero(r reg.Register) {
	if g.Wide() {
		g.VPXORD(r, r, r)
	} else {
		g.VXORPS(r, r, r)
	}
}

// TailMask sets an opmask to the lanes of the last, partial vector of n bytes of channels; nil with AVX2.
func (g *Gen) TailMask(n operand.Op) reg.Register {
	if !g.Wide() {
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

// Lanes is how many channels one step of a loop takes: whole vectors, or what is left of them at the end, which is a masked
// vector with AVX-512 and one channel at a time with AVX2.
type Lanes struct {
	*Gen
	Tail bool
	Mask reg.Register // of a tail, with AVX-512
}

// Scalar reports whether a step takes one channel.
func (l *Lanes) Scalar() bool { return l.Tail && !l.Wide() }

// Vec is an unset register.
func (l *Lanes) Vec() reg.VecVirtual {
	if l.Scalar() {
		return l.XMM()
	}
	return l.Gen.Vec()
}

// LoadVec reads the channels of a step; lanes that are not in use become 0.
func (l *Lanes) LoadVec(m operand.Mem, r reg.Register) {
	switch {
	case l.Scalar():
		l.VMOVSS(m, r)
	case l.Tail:
		l.VMOVUPS_Z(m, l.Mask, r)
	default:
		l.VMOVUPS(m, r)
	}
}

// StoreVec writes the channels of a step.
func (l *Lanes) StoreVec(r reg.Register, m operand.Mem) {
	switch {
	case l.Scalar():
		l.VMOVSS(r, m)
	case l.Tail:
		l.VMOVUPS(r, l.Mask, m)
	default:
		l.VMOVUPS(r, m)
	}
}

// FMA is acc += m·w.
func (l *Lanes) FMA(m operand.Mem, w, acc reg.Register) {
	switch {
	case l.Scalar():
		l.VFMADD231SS(m, w, acc)
	case l.Tail:
		l.VFMADD231PS(m, w, l.Mask, acc)
	default:
		l.VFMADD231PS(m, w, acc)
	}
}

// Step is the bytes of channels that one step takes.
func (l *Lanes) Step() int {
	if l.Scalar() {
		return 4
	}
	return l.Bytes()
}
