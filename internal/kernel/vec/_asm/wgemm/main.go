// Command wgemm writes wgemm_amd64.s and stubs_amd64.go of package wgemm.
package main

import (
	"fmt"

	"github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	for _, bits := range []int{8, 4} {
		for rows := 1; rows <= 6; rows++ {
			vnni(bits, rows)
		}
		for rows := 1; rows <= 2; rows++ {
			avx2(bits, rows)
		}
	}
	greatest()
	quantize()
	Generate()
}

// tile holds what both instruction sets share: pointers, and the loop over groups.
type tile struct {
	x, w, scale, aux, stride, groups, n reg.GPVirtual
	rows                                lanes.Rows
}

const signature = "func(y *float32, x *int8, w *uint8, scale *float32, aux *int32, stride, groups, inner int)"

func begin(name string, bits, rows, cols int) *tile {
	TEXT(name, NOSPLIT, signature)
	Doc(fmt.Sprintf("%s: y[r][j] = the sum over groups g of float(corr[g][r] + the sum over k of x[r][k]*w[k][j])*(scale[g][j]*sx[g][r]), each operation rounded, for %d rows of x, stride bytes apart, and %d columns; "+
		"w is %d-bit, groups times inner times [%d][4] bytes; aux is groups times {sx f32 [6], corr [6]}; y is [%d][%d].", name, rows, cols, bits, cols, rows, cols))
	t := &tile{n: GP64()}
	for _, p := range []struct {
		name string
		to   *reg.GPVirtual
	}{{"x", &t.x}, {"w", &t.w}, {"scale", &t.scale}, {"aux", &t.aux}, {"stride", &t.stride}, {"groups", &t.groups}} {
		*p.to = Load(Param(p.name), GP64()).(reg.GPVirtual)
	}
	t.rows = lanes.RowsAt(t.x, t.stride, rows)
	return t
}

// inner sets the counter of the loop over a group.
func (t *tile) inner() {
	MOVQ(lanes.Address("inner"), t.n)
}

// next moves on by n bytes of x and w bytes of weights.
func (t *tile) next(n, w int) {
	t.rows.Next(n)
	ADDQ(U32(uint32(w)), t.w)
}

// end goes on to the next group, whose scales are so many bytes on, as many as a row of y has, and stores y after the last.
func (t *tile) end(y [][2]reg.VecVirtual, row Constant) {
	ADDQ(row, t.scale)
	ADDQ(Imm(48), t.aux)
	DECQ(t.groups)
	JNZ(LabelRef("group"))
	dst, i := lanes.Arg("y"), 0
	for r := range y {
		for _, v := range y[r] {
			VMOVUPS(v, Mem{Base: dst, Disp: i * int(v.Size())})
			i++
		}
	}
	VZEROUPPER()
	RET()
}

func (t *tile) sx(r int) Mem   { return Mem{Base: t.aux, Disp: 4 * r} }
func (t *tile) corr(r int) Mem { return Mem{Base: t.aux, Disp: 24 + 4*r} }

// word broadcasts a constant of 32 bits.
func word(v uint32, z reg.VecVirtual) {
	r, t := GP32(), XMM()
	MOVL(U32(v), r)
	VMOVD(r, t)
	VPBROADCASTD(t, z)
}

func off(m Mem, n int) Mem { m.Disp += n; return m }

func vnni(bits, rows int) {
	t := begin(fmt.Sprintf("tile%dVNNI%d", bits, rows), bits, rows, 32)
	mask := ZMM()
	word(map[int]uint32{8: 0x80808080, 4: 0x0f0f0f0f}[bits], mask)
	acc, y := make([][2]reg.VecVirtual, rows), make([][2]reg.VecVirtual, rows)
	// Of few rows, sums of the upper halves are kept apart, so that fewer instructions wait for each other.
	apart := bits == 4 && rows <= 2
	upper := make([][2]reg.VecVirtual, rows)
	for r := range rows {
		for v := range 2 {
			acc[r][v], y[r][v] = ZMM(), ZMM()
			VPXORD(y[r][v], y[r][v], y[r][v])
			if upper[r][v] = acc[r][v]; apart {
				upper[r][v] = ZMM()
			}
		}
	}
	lo, hi := [2]reg.VecVirtual{ZMM(), ZMM()}, [2]reg.VecVirtual{ZMM(), ZMM()}
	Label("group")
	for r := range rows {
		VPBROADCASTD(t.corr(r), acc[r][0])
		VMOVDQA32(acc[r][0], acc[r][1])
		for v := range 2 {
			if apart {
				VPXORD(upper[r][v], upper[r][v], upper[r][v])
			}
		}
	}
	t.inner()
	Label("loop")
	for v := range 2 {
		m := Mem{Base: t.w, Disp: 64 * v}
		if rows <= 2 {
			PREFETCHT0(Mem{Base: t.w, Disp: 2048 + 64*v})
		}
		if bits == 8 { // unsigned, 128 more
			VPXORD(m, mask, lo[v])
			continue
		}
		VMOVDQU32(m, hi[v])
		VPANDD(hi[v], mask, lo[v])
		VPSRLD(Imm(4), hi[v], hi[v])
		VPANDD(hi[v], mask, hi[v])
	}
	for r := range rows {
		for v := range 2 {
			VPDPBUSD_BCST(t.rows.At(r), lo[v], acc[r][v])
		}
		if bits == 4 {
			for v := range 2 {
				VPDPBUSD_BCST(off(t.rows.At(r), 4), hi[v], upper[r][v])
			}
		}
	}
	t.next(32/bits, 128)
	DECQ(t.n)
	JNZ(LabelRef("loop"))
	for v := range 2 {
		VMOVUPS(Mem{Base: t.scale, Disp: 64 * v}, lo[v])
	}
	for r := range rows {
		for v := range 2 {
			if apart {
				VPADDD(upper[r][v], acc[r][v], acc[r][v])
			}
			VCVTDQ2PS(acc[r][v], acc[r][v])
			VMULPS_BCST(t.sx(r), lo[v], hi[v])
			VMULPS(hi[v], acc[r][v], acc[r][v])
			VADDPS(acc[r][v], y[r][v], y[r][v])
		}
	}
	t.end(y, U32(128))
}

func avx2(bits, rows int) {
	t := begin(fmt.Sprintf("tile%dAVX2%d", bits, rows), bits, rows, 16)
	ones, mask := YMM(), YMM()
	word(0x00010001, ones)
	if bits == 4 {
		word(0x0f0f0f0f, mask)
	}
	acc, y := make([][2]reg.VecVirtual, rows), make([][2]reg.VecVirtual, rows)
	for r := range rows {
		for v := range 2 {
			acc[r][v], y[r][v] = YMM(), YMM()
			VPXOR(y[r][v], y[r][v], y[r][v])
		}
	}
	a, b, p, q := YMM(), YMM(), YMM(), YMM()
	Label("group")
	for r := range rows {
		VPBROADCASTD(t.corr(r), acc[r][0])
		VMOVDQA(acc[r][0], acc[r][1])
	}
	t.inner()
	Label("loop")
	if bits == 8 {
		// |x| times w with the sign of x: at most 127·127 twice, which 16 bits hold.
		VMOVDQU(Mem{Base: t.w}, a)
		VMOVDQU(Mem{Base: t.w, Disp: 32}, b)
		for r := range rows {
			VPBROADCASTD(t.rows.At(r), p)
			for v, w := range []reg.VecVirtual{a, b} {
				s := q
				if rows == 1 && v == 1 {
					s = YMM()
				}
				VPSIGNB(p, w, s)
				abs := YMM()
				VPABSB(p, abs)
				VPMADDUBSW(s, abs, s)
				VPMADDWD(ones, s, s)
				VPADDD(s, acc[r][v], acc[r][v])
			}
		}
	} else {
		// Numbers from 0 to 15 times x: at most 4·15·127 in 16 bits.
		for v := range 2 {
			VMOVDQU(Mem{Base: t.w, Disp: 32 * v}, b)
			VPAND(b, mask, a)
			VPSRLD(Imm(4), b, b)
			VPAND(b, mask, b)
			for r := range rows {
				VPBROADCASTD(t.rows.At(r), p)
				VPMADDUBSW(p, a, p)
				VPBROADCASTD(off(t.rows.At(r), 4), q)
				VPMADDUBSW(q, b, q)
				VPADDW(q, p, p)
				VPMADDWD(ones, p, p)
				VPADDD(p, acc[r][v], acc[r][v])
			}
		}
	}
	t.next(32/bits, 64)
	DECQ(t.n)
	JNZ(LabelRef("loop"))
	for r := range rows {
		VBROADCASTSS(t.sx(r), p)
		for v := range 2 {
			VCVTDQ2PS(acc[r][v], acc[r][v])
			VMULPS(Mem{Base: t.scale, Disp: 32 * v}, p, q)
			VMULPS(q, acc[r][v], acc[r][v])
			VADDPS(acc[r][v], y[r][v], y[r][v])
		}
	}
	t.end(y, Imm(64))
}

// greatest is the greatest magnitude.
func greatest() {
	TEXT("greatestAVX2", NOSPLIT, "func(x *float32, blocks int) float32")
	Doc("greatestAVX2 is the greatest magnitude of blocks times 8 elements, NaNs aside.")
	x, n := lanes.Arg("x"), lanes.Arg("blocks")
	m, top, v := YMM(), YMM(), YMM()
	word(0x7fffffff, m)
	VXORPS(top, top, top)
	Label("loop")
	VANDPS(Mem{Base: x}, m, v)
	VMAXPS(top, v, top) // top where v is NaN: the second operand in Intel's order
	ADDQ(Imm(32), x)
	DECQ(n)
	JNZ(LabelRef("loop"))
	u := XMM()
	VEXTRACTF128(Imm(1), top, u)
	VMAXPS(u, top.AsX(), u)
	w := XMM()
	VPERMILPS(Imm(0x4e), u, w)
	VMAXPS(w, u, u)
	VPERMILPS(Imm(0xb1), u, w)
	VMAXPS(w, u, u)
	lanes.Give(u)
	VZEROUPPER()
	RET()
}

func quantize() {
	TEXT("quantizeAVX2", NOSPLIT, "func(dst *int8, x *float32, inverse float32, blocks int) int32")
	Doc("quantizeAVX2: dst = round(x*inverse), halves to even, from -128 to 127, for blocks times 8 elements; it gives their sum.")
	dst, x, n := lanes.Arg("dst"), lanes.Arg("x"), lanes.Arg("blocks")
	inverse, v, sum := YMM(), YMM(), YMM()
	VBROADCASTSS(lanes.Address("inverse"), inverse)
	VPXOR(sum, sum, sum)
	u := XMM()
	Label("loop")
	VMULPS(Mem{Base: x}, inverse, v)
	VCVTPS2DQ(v, v)
	VEXTRACTI128(Imm(1), v, u)
	VPACKSSDW(u, v.AsX(), u)
	VPACKSSWB(u, u, u)
	MOVQ(u, Mem{Base: dst})
	VPMOVSXBD(u, v)
	VPADDD(v, sum, sum)
	ADDQ(Imm(32), x)
	ADDQ(Imm(8), dst)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VEXTRACTI128(Imm(1), sum, u)
	VPADDD(u, sum.AsX(), u)
	w := XMM()
	VPSHUFD(Imm(0x4e), u, w)
	VPADDD(w, u, u)
	VPSHUFD(Imm(0xb1), u, w)
	VPADDD(w, u, u)
	r := GP32()
	VMOVD(u, r)
	Store(r, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
