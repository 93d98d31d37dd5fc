// Command wgemm writes wgemm_amd64.s and stubs_amd64.go of package wgemm.
package main

import (
	"fmt"

	"github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
	"github.com/jouleml/joule/internal/kernel/vec/_asm/tiles"
	"github.com/jouleml/joule/internal/kernel/vec/_asm/vex"
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
			avxvnni(bits, rows)
		}
		for panels := 1; panels <= 4; panels++ {
			rowVNNI(bits, panels)
			rowAVX2(bits, panels)
			rowAVXVNNI(bits, panels)
		}
	}
	greatest()
	quantize()
	quantizeRow()
	unpack()
	products()
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
func end[V reg.Register](t *tile, y [][2]V, row Constant) {
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
func word(v uint32, z Op) {
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
	end(t, y, U32(128))
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
			abs := YMM()
			VPABSB(p, abs)
			for v, w := range []reg.VecVirtual{a, b} {
				s := q
				if rows == 1 && v == 1 {
					s = YMM()
				}
				VPSIGNB(p, w, s)
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
	end(t, y, Imm(64))
}

// avxvnni is vnni on 256 bits, with registers for two rows.
func avxvnni(bits, rows int) {
	t := begin(fmt.Sprintf("tile%dAVXVNNI%d", bits, rows), bits, rows, 16)
	var free vex.Registers
	acc, y := make([][2]reg.VecPhysical, rows), make([][2]reg.VecPhysical, rows)
	for r := range rows {
		for v := range 2 {
			acc[r][v], y[r][v] = free.Next(), free.Next()
			VPXOR(y[r][v], y[r][v], y[r][v])
		}
	}
	lo, hi, mask, x := [2]reg.VecPhysical{free.Next(), free.Next()}, [2]reg.VecPhysical{free.Next(), free.Next()}, free.Next(), free.Next()
	word(map[int]uint32{8: 0x80808080, 4: 0x0f0f0f0f}[bits], mask)
	Label("group")
	for r := range rows {
		VPBROADCASTD(t.corr(r), acc[r][0])
		VMOVDQA(acc[r][0], acc[r][1])
	}
	t.inner()
	Label("loop")
	for v := range 2 {
		m := Mem{Base: t.w, Disp: 32 * v}
		if bits == 8 { // unsigned, 128 more
			VPXOR(m, mask, lo[v])
			continue
		}
		VMOVDQU(m, hi[v])
		VPAND(hi[v], mask, lo[v])
		VPSRLD(Imm(4), hi[v], hi[v])
		VPAND(hi[v], mask, hi[v])
	}
	for r := range rows {
		for h, w := range [][2]reg.VecPhysical{lo, hi}[:8/bits] {
			VPBROADCASTD(off(t.rows.At(r), 4*h), x)
			for v := range 2 {
				vex.DPBUSD(x, w[v], acc[r][v])
			}
		}
	}
	t.next(32/bits, 64)
	DECQ(t.n)
	JNZ(LabelRef("loop"))
	for r := range rows {
		VBROADCASTSS(t.sx(r), x)
		for v := range 2 {
			VCVTDQ2PS(acc[r][v], acc[r][v])
			VMULPS(Mem{Base: t.scale, Disp: 32 * v}, x, lo[v])
			VMULPS(lo[v], acc[r][v], acc[r][v])
			VADDPS(acc[r][v], y[r][v], y[r][v])
		}
	}
	end(t, y, Imm(64))
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

// quantizeRow is greatest and quantize in one, of a whole group.
func quantizeRow() {
	TEXT("quantizeAVX512", NOSPLIT, "func(dst *int8, x *float32, blocks int, last uint32, to, tiny float32) (scale float32, sum int32)")
	Doc("quantizeAVX512 brings blocks times 16 elements, and of 16 more those that the mask last names, to 8 bits: dst = round(x*(to/top)), halves to even, top being the greatest magnitude, NaNs aside, and all 0 where that is below tiny. It gives top/to (0 there) and the sum of dst.")
	dst, x, blocks := lanes.Arg("dst"), lanes.Arg("x"), lanes.Arg("blocks")
	last := K()
	r := Load(Param("last"), GP32()).(reg.GPVirtual)
	KMOVW(r, last)
	m := ZMM()
	word(0x7fffffff, m)
	top := [2]reg.VecVirtual{ZMM(), ZMM()}
	for _, t := range top {
		VPXORD(t, t, t)
	}
	v, u := ZMM(), ZMM()
	p, n := GP64(), GP64()
	MOVQ(x, p)
	MOVQ(blocks, n)
	SUBQ(Imm(2), n)
	JL(LabelRef("one"))
	Label("two")
	VPANDD(Mem{Base: p}, m, v)
	VPANDD(Mem{Base: p, Disp: 64}, m, u)
	VMAXPS(top[0], v, top[0]) // top where v is NaN: the second operand in Intel's order
	VMAXPS(top[1], u, top[1])
	ADDQ(U32(128), p)
	SUBQ(Imm(2), n)
	JGE(LabelRef("two"))
	Label("one")
	ADDQ(Imm(2), n)
	JZ(LabelRef("rest"))
	VPANDD(Mem{Base: p}, m, v)
	VMAXPS(top[0], v, top[0])
	ADDQ(Imm(64), p)
	Label("rest")
	VMOVUPS_Z(Mem{Base: p}, last, v)
	VPANDD(v, m, v)
	VMAXPS(top[0], v, top[0])
	VMAXPS(top[1], top[0], top[0])
	half := YMM()
	VEXTRACTF64X4(Imm(1), top[0], half)
	VMAXPS(half, top[0].AsY(), half)
	q, w := XMM(), XMM()
	VEXTRACTF128(Imm(1), half, q)
	VMAXPS(half.AsX(), q, q)
	VPERMILPS(Imm(0x4e), q, w)
	VMAXPS(w, q, q)
	VPERMILPS(Imm(0xb1), q, w)
	VMAXPS(w, q, q)
	inverse, scale, sum := ZMM(), XMM(), ZMM()
	VXORPS(scale, scale, scale)
	VPXORD(sum, sum, sum)
	VPXORD(inverse, inverse, inverse)
	VCOMISS(lanes.Address("tiny"), q)
	JCS(LabelRef("round"))
	VDIVSS(lanes.Address("to"), q, scale)
	VMOVSS(lanes.Address("to"), w)
	VDIVSS(q, w, w)
	VBROADCASTSS(w, inverse)
	Label("round")
	lanes.Give(scale)
	TESTQ(blocks, blocks)
	JZ(LabelRef("end"))
	Label("loop")
	VMULPS(Mem{Base: x}, inverse, v)
	VCVTPS2DQ(v, v)
	VPMOVSDB(v, q)
	VMOVDQU(q, Mem{Base: dst})
	VPMOVSXBD(q, v)
	VPADDD(v, sum, sum)
	ADDQ(Imm(64), x)
	ADDQ(Imm(16), dst)
	DECQ(blocks)
	JNZ(LabelRef("loop"))
	Label("end")
	VMOVUPS_Z(Mem{Base: x}, last, v)
	VMULPS(inverse, v, v)
	VCVTPS2DQ(v, v)
	VPMOVSDB(v, q)
	VMOVDQU8(q, last, Mem{Base: dst})
	VPMOVSXBD(q, v)
	VPADDD(v, sum, sum)
	VEXTRACTI64X4(Imm(1), sum, half)
	VPADDD(half, sum.AsY(), half)
	VEXTRACTI128(Imm(1), half, q)
	VPADDD(half.AsX(), q, q)
	VPSHUFD(Imm(0x4e), q, w)
	VPADDD(w, q, q)
	VPSHUFD(Imm(0xb1), q, w)
	VPADDD(w, q, q)
	VMOVD(q, r)
	Store(r, ReturnIndex(1))
	VZEROUPPER()
	RET()
}

// unpack makes bytes of a panel of 4 bits, for products.
func unpack() {
	TEXT("unpackAVX512", NOSPLIT, "func(dst *int8, w *uint8, blocks int)")
	Doc("unpackAVX512 makes of blocks times [32][4] bytes of two weights each (the lower halves, then the upper ones) twice as many [32][4] of i8.")
	dst, w, n := lanes.Arg("dst"), lanes.Arg("w"), lanes.Arg("blocks")
	mask, eight, lo, hi := ZMM(), ZMM(), ZMM(), ZMM()
	word(0x0f0f0f0f, mask)
	word(0x08080808, eight)
	Label("loop")
	for v := range 2 {
		VMOVDQU32(Mem{Base: w, Disp: 64 * v}, hi)
		VPANDD(hi, mask, lo)
		VPSRLD(Imm(4), hi, hi)
		VPANDD(hi, mask, hi)
		VPSUBB(eight, lo, lo)
		VPSUBB(eight, hi, hi)
		VMOVDQU32(lo, Mem{Base: dst, Disp: 64 * v})
		VMOVDQU32(hi, Mem{Base: dst, Disp: 128 + 64*v})
	}
	ADDQ(U32(128), w)
	ADDQ(U32(256), dst)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// products keeps 32 rows by 32 columns of sums in tiles 0 to 3 and has two tiles of x (4, 5) and two of w (6, 7); of the last 16 rows or fewer, the halves of them.
func products() {
	TEXT("productsAMX", NOSPLIT, "func(y *float32, x, w *int8, scale, sx *float32, yStride, xStride, sxStride, groups, steps, rows int, cols uint32, scratch *[1024]int32, config *[64]uint8)")
	Doc("productsAMX: y[r][j] = the sum over groups g of float(the sum over k of x[r][k]*w[k][j])*(scale[g][j]*sx[r][g]), each operation rounded, for those of 32 columns that cols names; k runs over 64*steps in each group. w is groups times 16*steps times [32][4] bytes, scale [groups][32]; strides are those of rows, in bytes. " +
		"Of x there must be whole 16 rows; others than the first rows count for nothing. config is for LDTILECFG.")
	kept := AllocLocal(16)
	Load(Param("config"), reg.RAX)
	tiles.Configure()
	Load(Param("cols"), reg.EAX)
	KMOVW(reg.EAX, reg.K2)
	SHRL(Imm(16), reg.EAX)
	KMOVW(reg.EAX, reg.K3)
	Load(Param("y"), reg.RDI)
	Load(Param("x"), reg.RSI)
	Load(Param("xStride"), reg.RDX)
	Load(Param("rows"), reg.RCX)
	Load(Param("sx"), reg.R13)
	Label("pair")
	MOVQ(reg.RSI, reg.R8)
	MOVQ(reg.RDX, reg.R9)
	SHLQ(Imm(4), reg.R9)
	ADDQ(reg.RSI, reg.R9)
	MOVQ(lanes.Address("w"), reg.R10)
	XORQ(reg.R11, reg.R11)
	KXORW(reg.K4, reg.K4, reg.K4)
	KXORW(reg.K5, reg.K5, reg.K5)
	Label("group")
	for t := range 4 {
		tiles.Zero(t)
	}
	MOVQ(lanes.Address("steps"), reg.RBX)
	MOVQ(U32(128), reg.RAX)
	MOVQ(lanes.Address("scratch"), reg.R12)
	CMPQ(reg.RCX, Imm(16))
	JLE(LabelRef("half"))
	Label("k")
	tiles.Load(4, tiles.R8, tiles.RDX, 0)
	tiles.Load(6, tiles.R10, tiles.RAX, 0)
	tiles.DPI8(0, 4, 6)
	tiles.Load(7, tiles.R10, tiles.RAX, 64)
	tiles.DPI8(1, 4, 7)
	tiles.Load(5, tiles.R9, tiles.RDX, 0)
	tiles.DPI8(2, 5, 6)
	tiles.DPI8(3, 5, 7)
	ADDQ(Imm(64), reg.R8)
	ADDQ(Imm(64), reg.R9)
	ADDQ(U32(2048), reg.R10)
	DECQ(reg.RBX)
	JNZ(LabelRef("k"))
	tiles.Store(2, tiles.R12, tiles.RAX, 2048)
	tiles.Store(3, tiles.R12, tiles.RAX, 2048+64)
	JMP(LabelRef("sums"))
	Label("half")
	tiles.Load(4, tiles.R8, tiles.RDX, 0)
	tiles.Load(6, tiles.R10, tiles.RAX, 0)
	tiles.DPI8(0, 4, 6)
	tiles.Load(7, tiles.R10, tiles.RAX, 64)
	tiles.DPI8(1, 4, 7)
	ADDQ(Imm(64), reg.R8)
	ADDQ(U32(2048), reg.R10)
	DECQ(reg.RBX)
	JNZ(LabelRef("half"))
	Label("sums")
	tiles.Store(0, tiles.R12, tiles.RAX, 0)
	tiles.Store(1, tiles.R12, tiles.RAX, 64)
	// R8 and R9 are needed for the rows now.
	MOVQ(reg.R8, kept)
	MOVQ(reg.R9, kept.Offset(8))
	MOVQ(reg.RDI, reg.RBX)
	LEAQ(Mem{Base: reg.R13, Index: reg.R11, Scale: 4}, reg.R8)
	MOVQ(reg.R11, reg.R9)
	SHLQ(Imm(7), reg.R9)
	ADDQ(lanes.Address("scale"), reg.R9)
	VMOVUPS(Mem{Base: reg.R9}, reg.Z0)
	VMOVUPS(Mem{Base: reg.R9, Disp: 64}, reg.Z1)
	MOVQ(U32(32), reg.R9)
	CMPQ(reg.RCX, reg.R9)
	CMOVQLT(reg.RCX, reg.R9)
	Label("row")
	VCVTDQ2PS(Mem{Base: reg.R12}, reg.Z2)
	VCVTDQ2PS(Mem{Base: reg.R12, Disp: 64}, reg.Z3)
	VBROADCASTSS(Mem{Base: reg.R8}, reg.Z4)
	VMULPS(reg.Z4, reg.Z0, reg.Z5)
	VMULPS(reg.Z4, reg.Z1, reg.Z6)
	VMOVUPS_Z(Mem{Base: reg.RBX}, reg.K4, reg.Z7)
	VMOVUPS_Z(Mem{Base: reg.RBX, Disp: 64}, reg.K5, reg.Z8)
	VMULPS(reg.Z5, reg.Z2, reg.Z2)
	VMULPS(reg.Z6, reg.Z3, reg.Z3)
	VADDPS(reg.Z2, reg.Z7, reg.Z2)
	VADDPS(reg.Z3, reg.Z8, reg.Z3)
	VMOVUPS(reg.Z2, reg.K2, Mem{Base: reg.RBX})
	VMOVUPS(reg.Z3, reg.K3, Mem{Base: reg.RBX, Disp: 64})
	ADDQ(lanes.Address("yStride"), reg.RBX)
	ADDQ(lanes.Address("sxStride"), reg.R8)
	ADDQ(reg.RAX, reg.R12)
	DECQ(reg.R9)
	JNZ(LabelRef("row"))
	KMOVW(reg.K2, reg.K4)
	KMOVW(reg.K3, reg.K5)
	MOVQ(kept, reg.R8)
	MOVQ(kept.Offset(8), reg.R9)
	INCQ(reg.R11)
	CMPQ(reg.R11, lanes.Address("groups"))
	JLT(LabelRef("group"))
	for _, a := range []struct {
		stride string
		to     reg.GPPhysical
	}{{"yStride", reg.RDI}, {"xStride", reg.RSI}, {"sxStride", reg.R13}} {
		MOVQ(lanes.Address(a.stride), reg.RBX)
		SHLQ(Imm(5), reg.RBX)
		ADDQ(reg.RBX, a.to)
	}
	SUBQ(Imm(32), reg.RCX)
	JG(LabelRef("pair"))
	tiles.Release()
	VZEROUPPER()
	RET()
}
