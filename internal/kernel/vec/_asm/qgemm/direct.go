package main

import (
	"fmt"
	"strings"

	"github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
	"github.com/jouleml/joule/internal/kernel/vec/_asm/vex"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// convolution is a kernel that reads patches in the image, four at a time, and brings their sums to results at once.
type convolution struct {
	vectors     int  // of 16 columns, or of 8
	bytes       bool // of AVX-VNNI: vectors of 256 bits, groups of four bytes
	most, float bool // only the greatest of the four is kept; results are floats
	wide        bool // vectors of 512 bits
	depth       bool // each channel by itself
	at, other   [4]Mem
	q, p, b     reg.GPVirtual
}

func (k *convolution) name() string {
	name := "conv"
	if k.depth {
		name = "depth"
	}
	if k.float {
		name += "Float"
	}
	if k.most {
		name += "Max"
	}
	switch {
	case k.wide:
		return name + widths[k.vectors]
	case k.vectors == 1:
		name += "Slim"
	}
	if k.bytes {
		return name + "AVXVNNI"
	}
	return name + "AVX2"
}

// emit writes the kernel around what a step of weights adds and what becomes of a row's sums.
func (k *convolution) emit(zero func(), weights int, step func(), results func(row int, dst reg.GPVirtual)) {
	x, b, dst, result := "uint8", "int8", "uint8", "to whole numbers (halves to even), not below lo nor above 255"
	if !k.wide && !k.bytes {
		x, b = "int16", "int16"
	}
	if k.float {
		dst, result = "float32", "not below lo"
	}
	group, cols := 2, 8*k.vectors
	if k.bytes {
		group = 4
	}
	if k.wide {
		group, cols = 4, 16*k.vectors
	}
	TEXT(k.name(), NOSPLIT, fmt.Sprintf("func(dst *%s, x *%s, taps *int64, b *%s, scale, bias *float32, lo float32, places *[2]int64, n, groups, dx, dy, next int, cols uint64)", dst, x, b))
	sums, weights4 := fmt.Sprintf("the sums over groups of %d neighbours, taps (bytes) from where the patch begins, of x*b", group), fmt.Sprintf("groups times [%d][%d]", cols, group)
	taps := 8 // bytes of the taps of a step
	if k.depth {
		sums, weights4 = "the sums over pixels, taps (bytes) from where the patch begins, of x*b channel by channel", "groups times [16][4], each a number of 16 bits and zeros"
		if !k.wide {
			taps = 16
			sums = strings.Replace(sums, "over pixels", "over two pixels a group", 1)
			weights4 = "groups times [4][4][2]: channels 0 to 3, 8 to 11, 4 to 7 and 12 to 15"
		}
	}
	four := "for each of the four patches, results of one next bytes behind those of the one before"
	if k.most {
		four = "the greatest of the four patches"
	}
	Doc(fmt.Sprintf("%s: for n places, the first of whose numbers is bytes from x on and the second results from dst on, four patches, which begin there and dx, dy and dx+dy further on: %s, times scale plus bias, each rounded, %s: %s. b is %s. Of the columns those are stored that cols names%s.",
		k.name(), sums, result, four, weights4, map[bool]string{false: ": all"}[k.wide]))
	to, from, place := GP64(), GP64(), lanes.Arg("places")
	dx, dy, both, tap, n := lanes.Arg("dx"), lanes.Arg("dy"), GP64(), GP64(), GP64()
	LEAQ(Mem{Base: dx, Index: dy, Scale: 1}, both)
	k.q, k.p, k.b = GP64(), GP64(), GP64()
	k.at = [4]Mem{{Base: k.q}, {Base: k.q, Index: dx, Scale: 1}, {Base: k.q, Index: dy, Scale: 1}, {Base: k.q, Index: both, Scale: 1}}
	for i, m := range k.at {
		m.Base = k.p
		k.other[i] = m
	}
	Label("four")
	zero()
	MOVQ(Mem{Base: place}, from)
	MOVQ(Mem{Base: place, Disp: 8}, to)
	ADDQ(lanes.Address("x"), from)
	if k.float {
		SHLQ(Imm(2), to)
	}
	ADDQ(lanes.Address("dst"), to)
	ADDQ(Imm(16), place)
	MOVQ(lanes.Address("taps"), tap)
	MOVQ(lanes.Address("b"), k.b)
	MOVQ(lanes.Address("groups"), n)
	Label("tap")
	MOVQ(Mem{Base: tap}, k.q)
	ADDQ(from, k.q)
	if taps == 16 {
		MOVQ(Mem{Base: tap, Disp: 8}, k.p)
		ADDQ(from, k.p)
	}
	step()
	ADDQ(Imm(uint64(taps)), tap)
	ADDQ(U32(uint32(weights)), k.b)
	DECQ(n)
	JNZ(LabelRef("tap"))
	rows := 4
	if k.most {
		rows = 1
	}
	for r := range rows {
		results(r, to)
		ADDQ(lanes.Address("next"), to)
	}
	DECQ(lanes.Address("n"))
	JNZ(LabelRef("four"))
	VZEROUPPER()
	RET()
}

func conv512(vectors int, most, float, depth bool) {
	k := &convolution{vectors: vectors, most: most, float: float, wide: true, depth: depth}
	acc := make([][]reg.VecVirtual, 4)
	for r := range acc {
		acc[r] = make([]reg.VecVirtual, vectors)
		for v := range acc[r] {
			acc[r][v] = ZMM()
		}
	}
	bs, x := make([]reg.VecVirtual, vectors), ZMM()
	for v := range bs {
		bs[v] = ZMM()
	}
	k.emit(func() {
		for r := range acc {
			for v := range acc[r] {
				VPXORD(acc[r][v], acc[r][v], acc[r][v])
			}
		}
	}, 64*vectors, func() {
		for v := range bs {
			VMOVDQU8(Mem{Base: k.b, Disp: 64 * v}, bs[v])
		}
		for r := range acc {
			if depth {
				VPMOVZXBD(k.at[r], x)
				VPDPWSSD(bs[0], x, acc[r][0])
				continue
			}
			VPBROADCASTD(k.at[r], x)
			for v := range bs {
				VPDPBUSD(bs[v], x, acc[r][v])
			}
		}
	}, func(r int, dst reg.GPVirtual) {
		scale, bias, cols, lo, hi := GP64(), GP64(), GP64(), ZMM(), ZMM()
		MOVQ(lanes.Address("scale"), scale)
		MOVQ(lanes.Address("bias"), bias)
		MOVQ(lanes.Address("cols"), cols)
		if k.float {
			VBROADCASTSS(lanes.Address("lo"), lo)
		} else {
			limits(lo, hi)
		}
		for v, y := range acc[r] {
			if most {
				greatestOf(acc[0][v], acc[1][v], acc[2][v], acc[3][v])
			}
			mask := K()
			KMOVW(cols.As32(), mask)
			if v < vectors-1 {
				SHRQ(Imm(16), cols)
			}
			VCVTDQ2PS(y, y)
			s, b := Mem{Base: scale, Disp: 64 * v}, Mem{Base: bias, Disp: 64 * v}
			if k.float {
				VMULPS(s, y, y)
				VADDPS(b, y, y)
				VMAXPS(y, lo, y)
				VMOVUPS(y, mask, Mem{Base: dst, Disp: 64 * v})
				continue
			}
			scaled(y, s, b, lo, hi)
			VPMOVDB(y, mask, Mem{Base: dst, Disp: 16 * v})
		}
	})
}

// conv256 multiplies numbers of 16 bits, or bytes with AVX-VNNI.
func conv256(vectors int, most, float, depth, bytes bool) {
	k := &convolution{vectors: vectors, most: most, float: float, depth: depth, bytes: bytes}
	acc := make([][]vector, 4)
	var physical vex.Registers
	for r := range acc {
		for range vectors {
			if bytes {
				acc[r] = append(acc[r], physical.Next())
			} else {
				acc[r] = append(acc[r], YMM())
			}
		}
	}
	b, x, y, z := [2]vector{YMM(), YMM()}, vector(YMM()), YMM(), YMM()
	if bytes {
		b, x = [2]vector{physical.Next(), physical.Next()}, physical.Next()
	}
	k.emit(func() {
		for r := range acc {
			for _, a := range acc[r] {
				VPXOR(a, a, a)
			}
		}
	}, 32*vectors, func() {
		for v := range vectors {
			VMOVDQU(Mem{Base: k.b, Disp: 32 * v}, b[v])
		}
		for r := range acc {
			if depth {
				VMOVDQU(k.at[r], x)
				VMOVDQU(k.other[r], y)
				VPUNPCKLWD(y, x, z)
				VPUNPCKHWD(y, x, y)
				VPMADDWD(b[0], z, z)
				VPADDD(z, acc[r][0], acc[r][0])
				VPMADDWD(b[1], y, y)
				VPADDD(y, acc[r][1], acc[r][1])
				continue
			}
			VPBROADCASTD(k.at[r], x)
			for v := range vectors {
				if bytes {
					vex.DPBUSD(b[v].(reg.VecPhysical), x.(reg.VecPhysical), acc[r][v].(reg.VecPhysical))
					continue
				}
				VPMADDWD(b[v], x, y)
				VPADDD(y, acc[r][v], acc[r][v])
			}
		}
	}, func(r int, dst reg.GPVirtual) {
		if depth { // channels in their order again
			VPERM2I128(Imm(0x20), acc[r][1], acc[r][0], x)
			VPERM2I128(Imm(0x31), acc[r][1], acc[r][0], acc[r][1])
			VMOVDQA(x, acc[r][0])
		}
		scale, bias, lo, hi := GP64(), GP64(), YMM(), YMM()
		MOVQ(lanes.Address("scale"), scale)
		MOVQ(lanes.Address("bias"), bias)
		if k.float {
			VBROADCASTSS(lanes.Address("lo"), lo)
		} else {
			limits(lo, hi)
		}
		for v, y := range acc[r] {
			if most {
				greatestOf(acc[0][v], acc[1][v], acc[2][v], acc[3][v])
			}
			VCVTDQ2PS(y, y)
			s, b := Mem{Base: scale, Disp: 32 * v}, Mem{Base: bias, Disp: 32 * v}
			if k.float {
				VMULPS(s, y, y)
				VADDPS(b, y, y)
				VMAXPS(y, lo, y)
				VMOVUPS(y, Mem{Base: dst, Disp: 32 * v})
				continue
			}
			scaled(y, s, b, lo, hi)
		}
		switch {
		case k.float:
		case vectors == 2:
			pack(acc[r][0], acc[r][1], dst)
		default:
			packed(acc[r][0], acc[r][0])
			VMOVQ(acc[r][0].AsX(), Mem{Base: dst})
		}
	})
}

// convolutions writes all of them.
func convolutions() {
	for _, float := range []bool{false, true} {
		for _, most := range []bool{false, true} {
			for _, vectors := range []int{4, 2, 1} {
				conv512(vectors, most, float, false)
			}
			for _, bytes := range []bool{false, true} {
				conv256(2, most, float, false, bytes)
				conv256(1, most, float, false, bytes)
			}
		}
		conv512(1, false, float, true)
		conv256(2, false, float, true, false)
	}
}
