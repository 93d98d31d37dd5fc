package main

import (
	"fmt"

	"github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Convolutions of images of one channel: nine taps are five pairs, whose weights for 16 filters, or 8, stay in ten registers, or five.

// weave makes pairs of neighbours down an image.
func weave() {
	TEXT("weaveAVX2", NOSPLIT, "func(dst, a, b *int16, blocks int)")
	Doc("weaveAVX2: dst[i] = a[i], b[i], for blocks times 16 such pairs.")
	dst, a, b, n := lanes.Arg("dst"), lanes.Arg("a"), lanes.Arg("b"), lanes.Arg("blocks")
	x, y, z := YMM(), YMM(), YMM()
	Label("loop")
	VMOVDQU(Mem{Base: a}, x)
	VMOVDQU(Mem{Base: b}, y)
	VPUNPCKLWD(y, x, z) // 0 to 3, 8 to 11
	VPUNPCKHWD(y, x, x) // 4 to 7, 12 to 15
	VPERM2I128(Imm(0x20), x, z, y)
	VPERM2I128(Imm(0x31), x, z, x)
	VMOVDQU(y, Mem{Base: dst})
	VMOVDQU(x, Mem{Base: dst, Disp: 32})
	ADDQ(Imm(32), a)
	ADDQ(Imm(32), b)
	ADDQ(Imm(64), dst)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// greyPairs are the pairs of taps: three of the first two columns, two of the third.
const greyPairs = 5

func grey(vectors int, most, float bool) {
	name, dst, result := "grey", "uint8", "to whole numbers (halves to even), not below lo nor above 255"
	if float {
		name, dst, result = name+"Float", "float32", "not below lo"
	}
	of, rows := "each patch", 1
	if most {
		name, of, rows = name+"Max", "the greatest of each four patches, neighbours across and down", 2
	}
	if vectors == 1 {
		name += "Slim"
	}
	name += "AVX2"
	cols := 8 * vectors
	TEXT(name, NOSPLIT, fmt.Sprintf("func(dst *%s, next int, x, pairs *int16, line, step int, b *int16, scale, bias *float32, lo float32, n int)", dst))
	Doc(fmt.Sprintf("%s: for n results side by side, next bytes apart, the sums of %d filters on patches of 3 by 3, of %s, times scale plus bias, each rounded, %s. x is the image, lines of it line bytes apart and patches step; pairs has each pixel with the one below it, at twice the distances. b is [5][%d][2]: the first two taps of each line, the last of the first two lines, the last of the third and zero.", name, cols, of, result, cols))
	to, next, x, pairs := lanes.Arg("dst"), lanes.Arg("next"), lanes.Arg("x"), lanes.Arg("pairs")
	line, step, b, n := lanes.Arg("line"), lanes.Arg("step"), lanes.Arg("b"), lanes.Arg("n")
	scale, bias, fourth := lanes.Arg("scale"), lanes.Arg("bias"), GP64()
	LEAQ(Mem{Base: x, Index: line, Scale: 2}, fourth)
	ADDQ(line, fourth)
	vecs := func() []reg.VecVirtual {
		return []reg.VecVirtual{YMM(), YMM()}[:vectors]
	}
	var w [greyPairs][]reg.VecVirtual
	for g := range w {
		w[g] = vecs()
		for v := range w[g] {
			VMOVDQU(Mem{Base: b, Disp: 32 * (vectors*g + v)}, w[g][v])
		}
	}
	sum, other := vecs(), vecs()
	p, y := YMM(), YMM()
	patch := func(acc []reg.VecVirtual, down, right int) {
		for g := range w {
			m := rowAt(x, fourth, line, down+min(g, 2))
			m.Disp = 2 * right
			switch g {
			case 3:
				m = Mem{Base: pairs, Disp: 4*right + 8}
				if down > 0 {
					m.Index, m.Scale = line, 2
				}
			case 4:
				m.Disp += 4
			}
			VPBROADCASTD(m, p)
			for v := range acc {
				if g == 0 {
					VPMADDWD(w[g][v], p, acc[v])
					continue
				}
				VPMADDWD(w[g][v], p, y)
				VPADDD(y, acc[v], acc[v])
			}
		}
	}
	Label("result")
	patch(sum, 0, 0)
	for i := 1; i < rows*rows; i++ {
		patch(other, i/2, i%2)
		for v := range sum {
			VPMAXSD(other[v], sum[v], sum[v])
		}
	}
	VBROADCASTSS(lanes.Address("lo"), p)
	if !float {
		r := GP32()
		MOVL(U32(0x437f0000), r) // 255
		VMOVD(r, y.AsX())
		VBROADCASTSS(y.AsX(), y)
	}
	for v, s := range sum {
		VCVTDQ2PS(s, s)
		VMULPS(Mem{Base: scale, Disp: 32 * v}, s, s)
		VADDPS(Mem{Base: bias, Disp: 32 * v}, s, s)
		if float {
			VMAXPS(s, p, s) // s where it is NaN: the second operand in Intel's order
			VMOVUPS(s, Mem{Base: to, Disp: 32 * v})
			continue
		}
		VMAXPS(p, s, s) // lo where it is NaN
		VMINPS(y, s, s)
		VCVTPS2DQ(s, s)
	}
	if !float {
		if vectors == 2 {
			VPACKUSDW(sum[1], sum[0], sum[0]) // lanes: 0 2 1 3
			VPERMQ(Imm(0xd8), sum[0], sum[0])
			VEXTRACTI128(Imm(1), sum[0], p.AsX())
			VPACKUSWB(p.AsX(), sum[0].AsX(), sum[0].AsX())
			VMOVDQU(sum[0].AsX(), Mem{Base: to})
		} else {
			VEXTRACTI128(Imm(1), sum[0], p.AsX())
			VPACKUSDW(p.AsX(), sum[0].AsX(), sum[0].AsX())
			VPACKUSWB(sum[0].AsX(), sum[0].AsX(), sum[0].AsX())
			VMOVQ(sum[0].AsX(), Mem{Base: to})
		}
	}
	ADDQ(next, to)
	ADDQ(step, x)
	ADDQ(step, fourth)
	LEAQ(Mem{Base: pairs, Index: step, Scale: 2}, pairs)
	DECQ(n)
	JNZ(LabelRef("result"))
	VZEROUPPER()
	RET()
}
