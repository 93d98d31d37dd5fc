package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
)

// trig emits sin or cos, which stops before a vector with an argument that the short reduction cannot take.
func trig(l *L, name string, cos bool) {
	TEXT(name+l.Suffix, NOSPLIT, "func(dst, a []float32) int")
	Doc(name+l.Suffix+": dst[i] = "+name+" a[i] for the elements of the shorter slice, up to a vector with an |a[i]| > 2^15;",
		"it returns how many elements it did.")
	n, m, i := GP64(), GP64(), GP64()
	Load(Param("dst").Len(), n)
	Load(Param("a").Len(), m)
	CMPQ(m, n)
	CMOVQLT(m, n)
	dst, a := Load(Param("dst").Base(), GP64()), Load(Param("a").Base(), GP64())
	XORQ(i, i)
	id := name + l.Suffix
	at := func(p Op) Mem { return Mem{Base: p.(reg.Register), Index: i, Scale: 4} }
	body := func(m M) {
		var x V
		if m == nil {
			x = l.Load(at(a))
		} else {
			x = l.LoadMasked(at(a), m)
		}
		l.JumpIfAny(l.Cmp(GT, l.Abs(x), l.F(SinLimit)), id+"end")
		y := l.SinCos(x, cos)
		if m == nil {
			l.Store(y, at(dst))
		} else {
			l.StoreMasked(y, m, at(dst))
		}
	}
	Label(id + "loop")
	SUBQ(U32(uint32(l.Width)), n)
	JLT(LabelRef(id + "tail"))
	body(nil)
	ADDQ(U32(uint32(l.Width)), i)
	JMP(LabelRef(id + "loop"))
	Label(id + "tail")
	ADDQ(U32(uint32(l.Width)), n)
	JEQ(LabelRef(id + "end"))
	left := GP64()
	MOVQ(n, left)
	body(l.TailMask(n))
	ADDQ(left, i)
	Label(id + "end")
	Store(i, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
