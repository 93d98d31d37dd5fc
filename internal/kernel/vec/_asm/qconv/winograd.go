package main

import (
	"fmt"

	"github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Points along an axis come in the order 0, 1, -1, infinity, 2, -2, of which two results take the first four. The matrices are in package qgemm (winograd.go).

func winograd() {
	products()
	for _, h := range []int{4, 2} {
		for _, w := range []int{4, 2} {
			points(h, w)
			for _, float := range []bool{false, true} {
				for _, most := range []bool{false, true} {
					results(h, w, most, float)
				}
			}
		}
	}
}

// all is the points of an axis in memory, count those of a tile with so many results.
const all = 6

func count(results int) int { return results + 2 }

// products is a loop over rows, six at a time and then what is left of them.
func products() {
	const most = 6
	TEXT("winoProductsAVX2", NOSPLIT, "func(c *int32, a, b *int16, cStride, aStride, groups, rows int)")
	Doc("winoProductsAVX2: c[r][j] = the sum over k of a[r][k]*b[k][j], modulo 2^32, for rows rows and 16 columns; b is groups times [16][2]. Strides are those of rows, in bytes.")
	c, a, aStride, rows := lanes.Arg("c"), lanes.Arg("a"), lanes.Arg("aStride"), lanes.Arg("rows")
	cStride := lanes.Arg("cStride")
	p, p3, b, n := GP64(), GP64(), GP64(), GP64()
	var acc [most][2]reg.VecVirtual
	for r := range acc {
		acc[r] = [2]reg.VecVirtual{YMM(), YMM()}
	}
	b0, b1, x, y := YMM(), YMM(), YMM(), YMM()
	tile := func(rows int) {
		loop, odd, even := fmt.Sprint("loop", rows), fmt.Sprint("odd", rows), fmt.Sprint("even", rows)
		at := func(r, disp int) Mem {
			m := Mem{Base: p, Disp: disp}
			if r >= 3 {
				m.Base, r = p3, r-3
			}
			if r > 0 {
				m.Index, m.Scale = aStride, uint8(r)
			}
			return m
		}
		group := func(i int) {
			VMOVDQU(Mem{Base: b, Disp: 64 * i}, b0)
			VMOVDQU(Mem{Base: b, Disp: 64*i + 32}, b1)
			for r := range rows {
				VPBROADCASTD(at(r, 4*i), x)
				VPMADDWD(b0, x, y)
				VPADDD(y, acc[r][0], acc[r][0])
				VPMADDWD(b1, x, y)
				VPADDD(y, acc[r][1], acc[r][1])
			}
		}
		next := func(groups int) {
			ADDQ(U32(uint32(64*groups)), b)
			ADDQ(Imm(uint64(4*groups)), p)
			if rows > 3 {
				ADDQ(Imm(uint64(4*groups)), p3)
			}
		}
		MOVQ(a, p)
		if rows > 3 {
			LEAQ(Mem{Base: a, Index: aStride, Scale: 2}, p3)
			ADDQ(aStride, p3)
		}
		MOVQ(lanes.Address("b"), b)
		for r := range rows {
			VPXOR(acc[r][0], acc[r][0], acc[r][0])
			VPXOR(acc[r][1], acc[r][1], acc[r][1])
		}
		MOVQ(lanes.Address("groups"), n)
		SUBQ(Imm(2), n)
		JL(LabelRef(odd))
		Label(loop)
		group(0)
		group(1)
		next(2)
		SUBQ(Imm(2), n)
		JGE(LabelRef(loop))
		Label(odd)
		ADDQ(Imm(2), n)
		JZ(LabelRef(even))
		group(0)
		Label(even)
		for r := range rows {
			VMOVDQU(acc[r][0], Mem{Base: c})
			VMOVDQU(acc[r][1], Mem{Base: c, Disp: 32})
			ADDQ(cStride, c)
		}
	}
	Label("rows")
	for r := 1; r < most; r++ {
		CMPQ(rows, Imm(uint64(r)))
		JE(LabelRef(fmt.Sprint("last", r)))
	}
	tile(most)
	LEAQ(Mem{Base: a, Index: aStride, Scale: 2}, p)
	LEAQ(Mem{Base: p, Index: aStride, Scale: 4}, a)
	SUBQ(Imm(most), rows)
	JNZ(LabelRef("rows"))
	VZEROUPPER()
	RET()
	for r := 1; r < most; r++ {
		Label(fmt.Sprint("last", r))
		tile(r)
		VZEROUPPER()
		RET()
	}
}

// expand is pixels along an axis, four or six, to points, on numbers of 16 bits.
func expand(d []reg.VecVirtual) []reg.VecVirtual {
	add := func(a, b reg.VecVirtual) reg.VecVirtual { v := YMM(); VPADDW(b, a, v); return v }
	sub := func(a, b reg.VecVirtual) reg.VecVirtual { v := YMM(); VPSUBW(b, a, v); return v }
	times4 := func(a reg.VecVirtual) reg.VecVirtual { VPSLLW(Imm(2), a, a); return a }
	if len(d) == 4 {
		triple := func(a reg.VecVirtual) reg.VecVirtual { return add(a, add(a, a)) }
		return []reg.VecVirtual{times4(sub(d[0], d[2])), triple(add(d[2], d[1])), triple(sub(d[2], d[1])), times4(sub(d[3], d[1]))}
	}
	g, h := sub(d[4], d[2]), sub(d[3], d[1]) // d4-d2, d3-d1
	t0 := add(g, times4(sub(d[0], d[2])))
	h2 := add(h, h)
	far := sub(sub(d[5], d[3]), add(h2, h2))
	e, f := sub(d[4], times4(d[2])), sub(d[3], times4(d[1]))
	return []reg.VecVirtual{t0, add(e, f), sub(e, f), far, add(g, h2), sub(g, h2)}
}

// points is the transform of images for tiles of h by w results.
func points(h, w int) {
	TEXT(fmt.Sprintf("winoPoints%d%dAVX2", h, w), NOSPLIT, "func(dst *int16, pointStride int, src *uint8, line, pixel int, tmp *int16, blocks, tiles int)")
	Doc(fmt.Sprintf("winoPoints%d%dAVX2 takes the pixels of tiles of %d by %d results, which lie side by side, to points: of blocks times 16 channels each, one tile behind the other in dst. Pixels are pixel bytes apart, lines of them line and points pointStride; tmp has room for 36 times 16 numbers.", h, w, h, w))
	dst, step, line, pixel := lanes.Arg("dst"), lanes.Arg("pointStride"), lanes.Arg("line"), lanes.Arg("pixel")
	src, tmp := lanes.Arg("src"), lanes.Arg("tmp")
	from, p, p3, q, n, blocks := GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	rows, cols := count(h), count(w)
	Label("tile")
	MOVQ(src, from)
	MOVQ(lanes.Address("blocks"), blocks)
	Label("block")
	// Columns of pixels to points, in tmp line by line.
	MOVQ(from, p)
	LEAQ(Mem{Base: from, Index: line, Scale: 2}, p3)
	ADDQ(line, p3)
	MOVQ(tmp, q)
	MOVQ(U32(uint32(cols)), n)
	Label("column")
	d := make([]reg.VecVirtual, rows)
	for i := range d {
		d[i] = YMM()
		VPMOVZXBW(rowAt(p, p3, line, i), d[i])
	}
	for i, v := range expand(d) {
		VMOVDQU(v, Mem{Base: q, Disp: 32 * cols * i})
	}
	ADDQ(pixel, p)
	ADDQ(pixel, p3)
	ADDQ(Imm(32), q)
	DECQ(n)
	JNZ(LabelRef("column"))
	// Lines of tmp to points.
	MOVQ(dst, q)
	MOVQ(tmp, p)
	MOVQ(U32(uint32(rows)), n)
	Label("row")
	d = make([]reg.VecVirtual, cols)
	for i := range d {
		d[i] = YMM()
		VMOVDQU(Mem{Base: p, Disp: 32 * i}, d[i])
	}
	for _, v := range expand(d) {
		VMOVDQU(v, Mem{Base: q})
		ADDQ(step, q)
	}
	if cols < all { // points that are left out
		LEAQ(Mem{Base: q, Index: step, Scale: uint8(all - cols)}, q)
	}
	ADDQ(U32(uint32(32*cols)), p)
	DECQ(n)
	JNZ(LabelRef("row"))
	ADDQ(Imm(32), dst)
	ADDQ(Imm(16), from)
	DECQ(blocks)
	JNZ(LabelRef("block"))
	LEAQ(Mem{Base: src, Index: pixel, Scale: uint8(w)}, src)
	DECQ(lanes.Address("tiles"))
	JNZ(LabelRef("tile"))
	VZEROUPPER()
	RET()
}

// rowAt is row i of six that lie a stride apart from first on, the fourth at fourth.
func rowAt(first, fourth, stride reg.GPVirtual, i int) Mem {
	m := Mem{Base: first}
	if i >= 3 {
		m.Base, i = fourth, i-3
	}
	if i > 0 {
		m.Index, m.Scale = stride, uint8(i)
	}
	return m
}

// contract is sums at points along an axis to 24 times so many results, modulo 2^32.
func contract(at func(i int) Mem, results int) []reg.VecVirtual {
	pair := func(i int) (sum, difference reg.VecVirtual) {
		v, s := YMM(), YMM()
		VMOVDQU(at(i), v)
		VPADDD(at(i+1), v, s)
		VPSUBD(at(i+1), v, v)
		return s, v
	}
	s1, d1 := pair(1)
	if results == 2 {
		VPADDD(at(0), s1, s1)
		VPADDD(at(3), d1, d1)
		return []reg.VecVirtual{s1, d1}
	}
	s2, d2 := pair(4)
	y := []reg.VecVirtual{YMM(), YMM(), s2, d2}
	VPSUBD(s1, s2, y[0])
	VPADDD(at(0), y[0], y[0])
	VPADDD(d2, d2, d2)
	VPSUBD(d1, d2, y[1])
	VPSLLD(Imm(2), s2, s2)
	VPSUBD(s1, s2, s2)
	VPADDD(at(3), d2, d2)
	VPSLLD(Imm(2), d2, d2)
	VPSUBD(d1, d2, d2)
	return y
}

// results is the transform of sums for tiles of h by w results, and what follows.
func results(h, w int, most, float bool) {
	name, dst, size := "wino", "uint8", 1
	doc := "to whole numbers (halves to even), not below lo nor above 255"
	if float {
		name, dst, size, doc = name+"Float", "float32", 4, "not below lo"
	}
	if most {
		name += "Max"
	}
	name = fmt.Sprintf("%s%d%dAVX2", name, h, w)
	kept := fmt.Sprintf("tiles of %d by %d results", h, w)
	if most {
		kept += ", of each 2 by 2 of which only the greatest is kept"
	}
	TEXT(name, NOSPLIT, fmt.Sprintf("func(dst *%s, rowStride, colStride int, src *int32, pointStride, tileStride int, scale, bias *float32, lo float32, tmp *int32, blocks, tiles int)", dst))
	Doc(fmt.Sprintf("%s takes the sums of points to those of convolutions, for blocks times 8 channels of %s, which lie side by side: times scale plus bias, each rounded, %s. Sums of points are 576 times too large, modulo 2^32. Strides are in bytes; tmp has room for 36 times 8 numbers.", name, kept, doc))
	src, step, tmp := lanes.Arg("src"), lanes.Arg("pointStride"), lanes.Arg("tmp")
	cols := lanes.Arg("colStride")
	from, p, p3, q, n, scale, bias, to := GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	ninth, lo, hi := YMM(), YMM(), YMM()
	r := GP32()
	MOVL(U32(0x38e38e39), r) // 9 times that is 1, modulo 2^32
	VMOVD(r, ninth.AsX())
	VPBROADCASTD(ninth.AsX(), ninth)
	VBROADCASTSS(lanes.Address("lo"), lo)
	if !float {
		MOVL(U32(0x437f0000), r) // 255
		VMOVD(r, hi.AsX())
		VBROADCASTSS(hi.AsX(), hi)
		VCVTPS2DQ(lo, lo)
		VPACKSSDW(lo, lo, lo)
		VPACKUSWB(lo, lo, lo)
	}
	Label("tile")
	MOVQ(src, from)
	MOVQ(lanes.Address("dst"), to)
	MOVQ(lanes.Address("scale"), scale)
	MOVQ(lanes.Address("bias"), bias)
	count1 := GP64()
	MOVQ(lanes.Address("blocks"), count1)
	Label("block")
	// Columns of points to rows of results, in tmp.
	six := GP64()
	LEAQ(Mem{Base: step, Index: step, Scale: 2}, six)
	ADDQ(six, six)
	MOVQ(from, p)
	LEAQ(Mem{Base: from, Index: six, Scale: 2}, p3)
	ADDQ(six, p3)
	MOVQ(tmp, q)
	MOVQ(U32(uint32(count(w))), n)
	Label("column")
	for i, v := range contract(func(i int) Mem { return rowAt(p, p3, six, i) }, h) {
		VMOVDQU(v, Mem{Base: q, Disp: 32 * all * i})
	}
	ADDQ(step, p)
	ADDQ(step, p3)
	ADDQ(Imm(32), q)
	DECQ(n)
	JNZ(LabelRef("column"))
	// Rows of tmp to results.
	row := func(disp int) []reg.VecVirtual {
		y := contract(func(i int) Mem { return Mem{Base: p, Disp: disp + 32*i} }, w)
		for _, v := range y {
			VPMULLD(ninth, v, v) // 64 times the sum
		}
		return y
	}
	MOVQ(tmp, p)
	MOVQ(to, q)
	lines := 1
	if most {
		lines = 2
	}
	MOVQ(U32(uint32(h/lines)), n)
	Label("row")
	y := row(0)
	if most {
		pairs := func(y []reg.VecVirtual) (out []reg.VecVirtual) {
			for i := 0; i < w; i += 2 {
				VPMAXSD(y[i+1], y[i], y[i])
				out = append(out, y[i])
			}
			return out
		}
		y = pairs(y)
		for i, v := range pairs(row(32 * all)) {
			VPMAXSD(v, y[i], y[i])
		}
	}
	for _, v := range y {
		VPSRAD(Imm(6), v, v)
		VCVTDQ2PS(v, v)
		VMULPS(Mem{Base: scale}, v, v)
		VADDPS(Mem{Base: bias}, v, v)
		if float {
			VMAXPS(v, lo, v) // v where it is NaN: the second operand in Intel's order
		} else {
			VMINPS(v, hi, v)
			VCVTPS2DQ(v, v) // the least number where it is NaN
		}
	}
	store(q, cols, y, lo, float)
	ADDQ(lanes.Address("rowStride"), q)
	ADDQ(U32(uint32(32*all*lines)), p)
	DECQ(n)
	JNZ(LabelRef("row"))
	ADDQ(Imm(uint64(8*size)), to)
	ADDQ(Imm(32), from)
	ADDQ(Imm(32), scale)
	ADDQ(Imm(32), bias)
	DECQ(count1)
	JNZ(LabelRef("block"))
	for range w / lines {
		ADDQ(cols, lanes.Address("dst"))
	}
	ADDQ(lanes.Address("tileStride"), src)
	DECQ(lanes.Address("tiles"))
	JNZ(LabelRef("tile"))
	VZEROUPPER()
	RET()
}

// store writes the results of neighbouring pixels, cols bytes apart from dst on.
func store(dst, cols reg.GPVirtual, y []reg.VecVirtual, lo reg.VecVirtual, float bool) {
	pixel := GP64()
	MOVQ(dst, pixel)
	if float {
		for i, v := range y {
			if i > 0 {
				ADDQ(cols, pixel)
			}
			VMOVUPS(v, Mem{Base: pixel})
		}
		return
	}
	a, b := y[0], y[0]
	switch len(y) {
	case 1:
		VPACKSSDW(a, a, a)
	case 2:
		VPACKSSDW(y[1], a, a)
	case 4:
		b = y[2]
		VPACKSSDW(y[1], a, a)
		VPACKSSDW(y[3], b, b)
	}
	VPACKUSWB(b, a, a)
	VPMAXUB(lo, a, a)
	// Channels 0 to 3 of each pixel are in the lower half, 4 to 7 in the upper.
	upper, both := XMM(), XMM()
	VEXTRACTI128(Imm(1), a, upper)
	VPUNPCKLDQ(upper, a.AsX(), both)
	if len(y) > 2 {
		VPUNPCKHDQ(upper, a.AsX(), upper)
	}
	for i := range y {
		v := both
		if i >= 2 {
			v = upper
		}
		if i > 0 {
			ADDQ(cols, pixel)
		}
		if i%2 == 0 {
			VMOVQ(v, Mem{Base: pixel})
		} else {
			VMOVHPS(v, Mem{Base: pixel})
		}
	}
}
