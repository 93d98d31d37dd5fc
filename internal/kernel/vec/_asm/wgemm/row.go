package main

import (
	"fmt"

	"github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
	"github.com/jouleml/joule/internal/kernel/vec/_asm/vex"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// wide is a row of x by several panels at once: as many sums as that are enough for no instruction to wait for another's sum, so that a row takes the time that its weights take to come.
type wide struct {
	x, w, step, triple, scale, aux, groups, n reg.GPVirtual
	bits, panels, vectors                     int // vectors: of a panel
	bytes                                     int // of a vector
	acc                                       []reg.Register
}

func beginWide(suffix string, bits, panels, vectors, size int) *wide {
	name, cols := fmt.Sprintf("row%d%s%d", bits, suffix, panels), vectors*size/4
	TEXT(name, NOSPLIT, "func(y, in *float32, x *int8, w *uint8, scale *float32, aux, sums *int32, yStride, inStride, wStride, scaleStride, groups, inner int)")
	Doc(fmt.Sprintf("%s: y[p][j] = in[p][j] + the sum over groups g of float(corr[g] + the sum over k of x[k]*w[p][k][j])*(scale[p][g][j]*sx[g]), each operation rounded, the sum before in, for %d panels of %d columns, which are so many bytes apart as the strides say; "+
		"x, w, scale and aux are as for tile%d%s1, and y must not overlap in.%s", name, panels, cols, bits, suffix,
		map[bool]string{true: " Weights are as they are, and corr is in sums, for each column, as scales are."}[suffix == "VNNI" && bits == 8]))
	t := &wide{x: lanes.Arg("x"), w: lanes.Arg("w"), step: lanes.Arg("wStride"), triple: GP64(), scale: lanes.Arg("scale"), aux: lanes.Arg("aux"), groups: lanes.Arg("groups"), n: GP64(),
		bits: bits, panels: panels, vectors: vectors, bytes: size}
	LEAQ(Mem{Base: t.step, Index: t.step, Scale: 2}, t.triple)
	return t
}

// at is the weights of vector v of panel p.
func (t *wide) at(p, v int) Mem {
	m := Mem{Base: t.w, Disp: v * t.bytes}
	switch p {
	case 1, 2:
		m.Index, m.Scale = t.step, uint8(p)
	case 3:
		m.Index, m.Scale = t.triple, 1
	}
	return m
}

// begin sets the sums of a group to what corrects them.
func (t *wide) begin(move func(Op, Op)) {
	VPBROADCASTD(Mem{Base: t.aux, Disp: 24}, t.acc[0])
	for _, a := range t.acc[1:] {
		move(t.acc[0], a)
	}
}

// next goes on to the next step of a group.
func (t *wide) next() {
	ADDQ(Imm(uint64(32/t.bits)), t.x)
	ADDQ(Imm(uint64(t.vectors*t.bytes)), t.w)
	DECQ(t.n)
	JNZ(LabelRef("loop"))
}

// each calls f for every vector, with where it lies in something that panels of are stride bytes apart in.
func (t *wide) each(base reg.GPVirtual, stride string, f func(i int, at Mem)) {
	p := GP64()
	MOVQ(base, p)
	for i := range t.panels * t.vectors {
		if i > 0 && i%t.vectors == 0 {
			ADDQ(lanes.Address(stride), p)
		}
		f(i, Mem{Base: p, Disp: i % t.vectors * t.bytes})
	}
}

// nextGroup goes on to the next group.
func (t *wide) nextGroup() {
	ADDQ(Imm(uint64(t.vectors*t.bytes)), t.scale)
	ADDQ(Imm(48), t.aux)
	DECQ(t.groups)
	JNZ(LabelRef("group"))
}

func rowVNNI(bits, panels int) {
	t := beginWide("VNNI", bits, panels, 2, 64)
	mask, x, x2 := ZMM(), ZMM(), ZMM()
	word(map[int]uint32{8: 0x80808080, 4: 0x0f0f0f0f}[bits], mask)
	y := make([]reg.VecVirtual, 2*panels)
	for i := range y {
		t.acc = append(t.acc, ZMM())
		y[i] = ZMM()
		VPXORD(y[i], y[i], y[i])
	}
	var sums reg.GPVirtual
	if bits == 8 {
		sums = lanes.Arg("sums")
	}
	Label("group")
	if bits == 8 {
		t.each(sums, "scaleStride", func(i int, at Mem) { VMOVDQU32(at, t.acc[i]) })
		ADDQ(Imm(128), sums)
	} else {
		t.begin(func(a, b Op) { VMOVDQA32(a, b) })
	}
	MOVQ(lanes.Address("inner"), t.n)
	Label("loop")
	for p := range panels {
		for v := range 2 {
			PREFETCHT0(off(t.at(p, v), 2048))
		}
	}
	VPBROADCASTD(Mem{Base: t.x}, x)
	if bits == 4 {
		VPBROADCASTD(Mem{Base: t.x, Disp: 4}, x2)
	} else { // unsigned, 128 more
		VPXORD(mask, x, x)
	}
	for i, a := range t.acc {
		lo, hi := ZMM(), ZMM()
		if bits == 8 {
			VPDPBUSD(t.at(i/2, i%2), x, a)
			continue
		}
		VMOVDQU32(t.at(i/2, i%2), hi)
		VPANDD(hi, mask, lo)
		VPSRLD(Imm(4), hi, hi)
		VPANDD(hi, mask, hi)
		VPDPBUSD(x, lo, a)
		VPDPBUSD(x2, hi, a)
	}
	t.next()
	sx, by := ZMM(), ZMM()
	VBROADCASTSS(Mem{Base: t.aux}, sx)
	t.each(t.scale, "scaleStride", func(i int, at Mem) {
		VCVTDQ2PS(t.acc[i], t.acc[i])
		VMULPS(at, sx, by)
		VMULPS(by, t.acc[i], t.acc[i])
		VADDPS(t.acc[i], y[i], y[i])
	})
	t.nextGroup()
	t.each(lanes.Arg("in"), "inStride", func(i int, at Mem) { VADDPS(at, y[i], y[i]) })
	t.each(lanes.Arg("y"), "yStride", func(i int, at Mem) { VMOVUPS(y[i], at) })
	VZEROUPPER()
	RET()
}

// rowAVX2 keeps y in memory: there are half as many registers.
func rowAVX2(bits, panels int) {
	t := beginWide("AVX2", bits, panels, 2, 32)
	ones, mask, x, x2, s, u := YMM(), YMM(), YMM(), YMM(), YMM(), YMM()
	for range 2 * panels {
		t.acc = append(t.acc, YMM())
	}
	y := t.clear(s)
	word(0x00010001, ones)
	if bits == 4 {
		word(0x0f0f0f0f, mask)
	}
	Label("group")
	t.begin(func(a, b Op) { VMOVDQA(a, b) })
	MOVQ(lanes.Address("inner"), t.n)
	Label("loop")
	VPBROADCASTD(Mem{Base: t.x}, x)
	if bits == 8 { // |x| times w with the sign of x: at most 127·127 twice, which 16 bits hold.
		VPABSB(x, x2)
		for i, a := range t.acc {
			v := []reg.VecVirtual{s, u}[i%2]
			VMOVDQU(t.at(i/2, i%2), v)
			VPSIGNB(x, v, v)
			VPMADDUBSW(v, x2, v)
			VPMADDWD(ones, v, v)
			VPADDD(v, a, a)
		}
	} else { // Numbers from 0 to 15 times x: at most 4·15·127 in 16 bits.
		VPBROADCASTD(Mem{Base: t.x, Disp: 4}, x2)
		for i, a := range t.acc {
			VMOVDQU(t.at(i/2, i%2), s)
			VPSRLD(Imm(4), s, u)
			VPAND(s, mask, s)
			VPAND(u, mask, u)
			VPMADDUBSW(x, s, s)
			VPMADDUBSW(x2, u, u)
			VPADDW(u, s, s)
			VPMADDWD(ones, s, s)
			VPADDD(s, a, a)
		}
	}
	t.finish(y, x, x2)
}

// rowAVXVNNI is rowAVX2 on weights of 8 bits that are 128 more, or of 4 as they are.
func rowAVXVNNI(bits, panels int) {
	t := beginWide("AVXVNNI", bits, panels, 2, 32)
	var free vex.Registers
	acc := free.Grid(1, 2*panels)[0]
	for _, a := range acc {
		t.acc = append(t.acc, a)
	}
	mask, x, x2, lo, hi := free.Next(), free.Next(), free.Next(), free.Next(), free.Next()
	y := t.clear(x)
	word(map[int]uint32{8: 0x80808080, 4: 0x0f0f0f0f}[bits], mask)
	Label("group")
	t.begin(func(a, b Op) { VMOVDQA(a, b) })
	MOVQ(lanes.Address("inner"), t.n)
	Label("loop")
	VPBROADCASTD(Mem{Base: t.x}, x)
	if bits == 4 {
		VPBROADCASTD(Mem{Base: t.x, Disp: 4}, x2)
	}
	for i, a := range acc {
		if bits == 8 {
			VPXOR(t.at(i/2, i%2), mask, lo)
			vex.DPBUSD(x, lo, a)
			continue
		}
		VMOVDQU(t.at(i/2, i%2), lo)
		VPSRLD(Imm(4), lo, hi)
		VPAND(lo, mask, lo)
		VPAND(hi, mask, hi)
		vex.DPBUSD(x, lo, a)
		vex.DPBUSD(x2, hi, a)
	}
	t.finish(y, x, x2)
}

// clear makes y in memory zeros, with a register for that, and gives where it is.
func (t *wide) clear(zero Op) reg.GPVirtual {
	y := lanes.Arg("y")
	VPXOR(zero, zero, zero)
	t.each(y, "yStride", func(_ int, at Mem) { VMOVUPS(zero, at) })
	return y
}

// finish ends the loop over a group, whose sums it adds to y in memory, and those over groups.
func (t *wide) finish(y reg.GPVirtual, x, x2 Op) {
	t.next()
	VBROADCASTSS(Mem{Base: t.aux}, x)
	t.each(t.scale, "scaleStride", func(i int, at Mem) {
		VCVTDQ2PS(t.acc[i], t.acc[i])
		VMULPS(at, x, x2)
		VMULPS(x2, t.acc[i], t.acc[i])
	})
	t.each(y, "yStride", func(i int, at Mem) {
		VADDPS(at, t.acc[i], t.acc[i])
		VMOVUPS(t.acc[i], at)
	})
	t.nextGroup()
	t.each(lanes.Arg("in"), "inStride", func(i int, at Mem) { VADDPS(at, t.acc[i], t.acc[i]) })
	t.each(y, "yStride", func(i int, at Mem) { VMOVUPS(t.acc[i], at) })
	VZEROUPPER()
	RET()
}
