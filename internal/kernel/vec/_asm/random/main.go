// Command random writes random_amd64.s and stubs_amd64.go of package random.
//
// A 64-bit lane holds one of a block's four words in its low half. VPMULUDQ reads no more than that half, so what the other
// half holds does not matter until the end, and a round is two products, two shifts and four exclusive ors.
package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
)

func main() {
	ConstraintExpr("amd64")
	for _, l := range Targets {
		philox(l, "philox", "uint32", "the words of the blocks", func(v V) V { return v })
		philox(l, "uniform", "float32", "the upper 24 bits of the words of the blocks, times 2^-24", func(v V) V {
			return l.Mul(l.ToFloat(l.Shr(v, 8)), l.F(1.0/(1<<24)))
		})
	}
	Generate()
}

func philox(l *L, name, elem, doc string, out func(V) V) {
	blocks := l.Width / 2 // in a vector of 64-bit lanes
	TEXT(name+l.Suffix, NOSPLIT, fmt.Sprintf("func(dst *%s, groups int, block uint64, counter uint64, keys *[20]uint64)", elem))
	Doc(fmt.Sprintf("%s%s: dst[0:groups*%d] = %s from number block on; keys are the two round keys of each of the 10 rounds.", name, l.Suffix, 4*blocks, doc))
	Pragma("noescape")
	dst, n, keys := Arg("dst"), Arg("groups"), Arg("keys")
	quad := func(param string) V {
		g, x, d := GP64(), XMM(), l.New()
		Load(Param(param), g)
		VMOVQ(g, x)
		VPBROADCASTQ(x, d)
		return d
	}
	bits := l.New()
	if l.Wide() {
		VMOVDQU64(order(l), bits)
	} else {
		VMOVDQU(order(l), bits)
	}
	block := add64(l, quad("block"), bits)
	counter := quad("counter")
	counterHi := shr64(l, counter)
	step := l.New()
	{
		g, x := GP64(), XMM()
		MOVQ(U32(uint32(blocks)), g)
		VMOVQ(g, x)
		VPBROADCASTQ(x, step)
	}
	m0, m1 := l.Load(l.Bits(0xd2511f53)), l.Load(l.Bits(0xcd9e8d57))

	Label("loop")
	SUBQ(Imm(1), n)
	JLT(LabelRef("end"))
	c := [4]V{block, shr64(l, block), counter, counterHi}
	for round := range 10 {
		p0, p1 := l.New(), l.New()
		VPMULUDQ(m0, c[0], p0)
		VPMULUDQ(m1, c[2], p1)
		key := func(v V, i int) V {
			k, d := Mem{Base: keys, Disp: 16*round + 8*i}, l.New()
			if l.Wide() {
				VPXORQ_BCST(k, v, d)
			} else {
				VPBROADCASTQ(k, d)
				VPXOR(v, d, d)
			}
			return d
		}
		c = [4]V{key(l.Xor(shr64(l, p1), c[1]), 0), p1, key(l.Xor(shr64(l, p0), c[3]), 1), p0}
	}
	q01, q23 := join(l, c[0], c[1]), join(l, c[2], c[3])
	even, odd := l.New(), l.New()
	VPUNPCKLQDQ(q23, q01, even)
	VPUNPCKHQDQ(q23, q01, odd)
	l.Store(out(even), Mem{Base: dst})
	l.Store(out(odd), Mem{Base: dst, Disp: l.Bytes()})
	next := add64(l, block, step)
	VMOVAPS(next, block)
	ADDQ(U32(uint32(2*l.Bytes())), dst)
	JMP(LabelRef("loop"))
	Label("end")
	VZEROUPPER()
	RET()
}

func add64(l *L, a, b V) V { d := l.New(); VPADDQ(b, a, d); return d }

func shr64(l *L, a V) V { d := l.New(); VPSRLQ(U8(32), a, d); return d }

// join is the low halves of a, and those of b above them.
func join(l *L, a, b V) V {
	d := l.New()
	VPSLLQ(U8(32), b, d)
	if !l.Wide() {
		VPBLENDD(U8(0xaa), d, a, d)
		return d
	}
	g, k := GP32(), K()
	MOVL(U32(0xaaaa), g)
	KMOVW(g, k)
	VPBLENDMD(d, a, k, d)
	return d
}

var orders = map[int]Mem{}

// order numbers the blocks of a group: with L lanes of 128 bits, element e of lane j is block e·L + j, so that the interleaving at the end
// leaves the blocks in order.
func order(l *L) Mem {
	m, ok := orders[l.Width]
	if !ok {
		m = GLOBL(fmt.Sprintf("order%d", l.Width), attr.RODATA|attr.NOPTR)
		lanes := l.Width / 4
		for j := range lanes {
			for e := range 2 {
				DATA(16*j+8*e, U64(e*lanes+j))
			}
		}
		orders[l.Width] = m
	}
	return m
}
