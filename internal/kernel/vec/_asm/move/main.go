// Command move writes move_amd64.s and stubs_amd64.go of package move.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
)

func main() {
	ConstraintExpr("amd64")
	for _, l := range Targets {
		Map{Name: "addTo", Doc: "dst[i] = a[i] + b[i]", Srcs: []string{"a", "b"}, Unroll: 4, Body: func(l *L, s, _ []V) V { return l.Add(s[0], s[1]) }}.Emit(l)
	}
	transpose()
	Generate()
}

// transpose emits the 8×8 transposition of 4-byte elements: pairs, then quadruples, then halves of registers are interchanged.
func transpose() {
	TEXT("transposeAVX2", NOSPLIT, "func(dst, src *uint32, dstStride, srcStride, rows, cols int)")
	Doc("transposeAVX2: dst[j*dstStride+i] = src[i*srcStride+j] for i < rows and j < cols, which are multiples of 8 above 0.")
	dst, src := Arg("dst"), Arg("src")
	ds, ss := Arg("dstStride"), Arg("srcStride")
	SHLQ(U8(2), ds)
	SHLQ(U8(2), ss)
	rows := Arg("rows")
	cols := Arg("cols")
	ds3, ss3 := GP64(), GP64()
	LEAQ(Mem{Base: ds, Index: ds, Scale: 2}, ds3)
	LEAQ(Mem{Base: ss, Index: ss, Scale: 2}, ss3)

	Label("rows")
	d, s, n := GP64(), GP64(), GP64()
	MOVQ(dst, d)
	MOVQ(src, s)
	MOVQ(cols, n)
	Label("cols")
	half := GP64()
	LEAQ(Mem{Base: s, Index: ss, Scale: 4}, half)
	var r [8]reg.VecVirtual
	for i := range r {
		r[i] = YMM()
		VMOVUPS(row(s, half, ss, ss3, i), r[i])
	}
	var t [8]reg.VecVirtual
	for i := 0; i < 8; i += 2 { // t: a0 b0 a1 b1 | a4 b4 a5 b5, and a2 b2 a3 b3 | …
		t[i], t[i+1] = YMM(), YMM()
		VUNPCKLPS(r[i+1], r[i], t[i])
		VUNPCKHPS(r[i+1], r[i], t[i+1])
	}
	var q [8]reg.VecVirtual
	for i := 0; i < 8; i += 4 {
		for k := range 2 {
			q[i+2*k], q[i+2*k+1] = YMM(), YMM()
			VSHUFPS(U8(0x44), t[i+k+2], t[i+k], q[i+2*k])
			VSHUFPS(U8(0xee), t[i+k+2], t[i+k], q[i+2*k+1])
		}
	}
	LEAQ(Mem{Base: d, Index: ds, Scale: 4}, half)
	for i := range 4 {
		lo, hi := YMM(), YMM()
		VPERM2F128(U8(0x20), q[i+4], q[i], lo)
		VPERM2F128(U8(0x31), q[i+4], q[i], hi)
		VMOVUPS(lo, row(d, half, ds, ds3, i))
		VMOVUPS(hi, row(d, half, ds, ds3, i+4))
	}
	ADDQ(U8(32), s)
	LEAQ(Mem{Base: d, Index: ds, Scale: 8}, d)
	SUBQ(U8(8), n)
	JNE(LabelRef("cols"))
	ADDQ(U8(32), dst)
	LEAQ(Mem{Base: src, Index: ss, Scale: 8}, src)
	SUBQ(U8(8), rows)
	JNE(LabelRef("rows"))
	VZEROUPPER()
	RET()
}

// row is row i of 8, given the first and the fifth.
func row(base, half, stride, stride3 reg.Register, i int) Mem {
	if i >= 4 {
		base = half
	}
	switch i % 4 {
	case 1:
		return Mem{Base: base, Index: stride, Scale: 1}
	case 2:
		return Mem{Base: base, Index: stride, Scale: 2}
	case 3:
		return Mem{Base: base, Index: stride3, Scale: 1}
	}
	return Mem{Base: base}
}
