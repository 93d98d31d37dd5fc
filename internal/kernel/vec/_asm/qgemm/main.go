// Command qgemm writes qgemm_amd64.s and stubs_amd64.go of package qgemm.
package main

import (
	"fmt"
	"strings"

	"github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
	"github.com/jouleml/joule/internal/kernel/vec/_asm/tiles"
	"github.com/jouleml/joule/internal/kernel/vec/_asm/vex"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	for rows := 1; rows <= 6; rows++ {
		vnni(rows, 4, false)
		vnni(rows, 2, false)
		vnni(rows, 1, false)
		avx2(rows, false)
		avxvnni(rows, false)
	}
	vnni(4, 4, true)
	vnni(4, 2, true)
	vnni(4, 1, true)
	avx2(4, true)
	avxvnni(4, true)
	widen()
	requantize512()
	requantize256()
	maximum()
	pairs()
	quantize()
	sum()
	depthwise()
	products()
	maxRows()
	patches()
	finish512()
	finish256()
	depthwise512()
	convolutions()
	pairTiles()
	Generate()
}

// vector is a register, virtual or not.
type vector interface {
	reg.Register
	reg.Vec
}

// greatest says in a comment that only the greatest of the rows' sums are kept.
const greatest = " Only the greatest of each column is stored: c is one row."

// widths are the names of so many vectors of 16 columns.
var widths = map[int]string{4: "VNNI", 2: "VNNINarrow", 1: "VNNISlim"}

// zeros are the sums of rows and so many vectors of 16 columns.
func zeros(rows, vectors int) [][]reg.VecVirtual {
	acc := make([][]reg.VecVirtual, rows)
	for r := range acc {
		acc[r] = make([]reg.VecVirtual, vectors)
		for v := range acc[r] {
			acc[r][v] = ZMM()
			VPXORD(acc[r][v], acc[r][v], acc[r][v])
		}
	}
	return acc
}

// greatestRow leaves the greatest sums of all rows in the first.
func greatestRow(acc [][]reg.VecVirtual) [][]reg.VecVirtual {
	for _, row := range acc[1:] {
		for v := range row {
			VPMAXSD(row[v], acc[0][v], acc[0][v])
		}
	}
	return acc[:1]
}

// vnni is the tile of rows and so many vectors of 16 columns.
func vnni(rows, vectors int, most bool) {
	name, doc := fmt.Sprintf("tile%s%d", widths[vectors], rows), ""
	cols := 16 * vectors
	if most {
		name, doc = name+"Max", greatest
	}
	TEXT(name, NOSPLIT, "func(c *int32, a *uint8, b *int8, stride, groups int)")
	Doc(fmt.Sprintf("%s: c[r][j] = the sum over k of a[r][k]*b[k][j] for %d rows of a, stride bytes apart, and %d columns; b is groups times [%d][4]; c is [%d][%d].%s", name, rows, cols, cols, rows, cols, doc))
	c, a, b := lanes.Arg("c"), lanes.Arg("a"), lanes.Arg("b")
	stride, n := lanes.Arg("stride"), lanes.Arg("groups")
	row := lanes.RowsAt(a, stride, rows)
	acc := zeros(rows, vectors)
	bs := make([]reg.VecVirtual, vectors)
	for v := range bs {
		bs[v] = ZMM()
	}
	x := ZMM()
	Label("loop")
	for v := range bs {
		VMOVDQU8(Mem{Base: b, Disp: 64 * v}, bs[v])
	}
	for r := range acc {
		VPBROADCASTD(row.At(r), x)
		for v := range bs {
			VPDPBUSD(bs[v], x, acc[r][v])
		}
	}
	ADDQ(U32(uint32(64*vectors)), b)
	row.Next(4)
	DECQ(n)
	JNZ(LabelRef("loop"))
	if most {
		acc = greatestRow(acc)
	}
	for r := range acc {
		for v := range acc[r] {
			VMOVDQU32(acc[r][v], Mem{Base: c, Disp: 64*vectors*r + 64*v})
		}
	}
	VZEROUPPER()
	RET()
}

func avx2(rows int, most bool) {
	name, doc := fmt.Sprintf("tileAVX2%d", rows), ""
	if most {
		name, doc = name+"Max", greatest
	}
	TEXT(name, NOSPLIT, "func(c *int32, a *int16, b *int16, stride, groups int)")
	Doc(fmt.Sprintf("%s: c[r][j] = the sum over k of a[r][k]*b[k][j] for %d rows of a, stride bytes apart, and 16 columns; b is groups times [16][2]; c is [%d][16].%s", name, rows, rows, doc))
	c, a, b := lanes.Arg("c"), lanes.Arg("a"), lanes.Arg("b")
	stride, n := lanes.Arg("stride"), lanes.Arg("groups")
	row := lanes.RowsAt(a, stride, rows)
	acc := make([][]reg.VecVirtual, rows)
	for r := range acc {
		acc[r] = make([]reg.VecVirtual, 2)
		for v := range acc[r] {
			acc[r][v] = YMM()
			VPXOR(acc[r][v], acc[r][v], acc[r][v])
		}
	}
	b0, b1, x, y := YMM(), YMM(), YMM(), YMM()
	Label("loop")
	VMOVDQU(Mem{Base: b}, b0)
	VMOVDQU(Mem{Base: b, Disp: 32}, b1)
	for r := range rows {
		VPBROADCASTD(row.At(r), x)
		VPMADDWD(b0, x, y)
		VPADDD(y, acc[r][0], acc[r][0])
		VPMADDWD(b1, x, y)
		VPADDD(y, acc[r][1], acc[r][1])
	}
	ADDQ(U32(64), b)
	row.Next(4)
	DECQ(n)
	JNZ(LabelRef("loop"))
	if most {
		acc = greatestRow(acc)
	}
	for r := range acc {
		for v := range acc[r] {
			VMOVDQU(acc[r][v], Mem{Base: c, Disp: 64*r + 32*v})
		}
	}
	VZEROUPPER()
	RET()
}

// avxvnni is the tile of rows and 16 columns on 256 bits.
func avxvnni(rows int, most bool) {
	name, doc := fmt.Sprintf("tileAVXVNNI%d", rows), ""
	if most {
		name, doc = name+"Max", greatest
	}
	TEXT(name, NOSPLIT, "func(c *int32, a *uint8, b *int8, stride, groups int)")
	Doc(fmt.Sprintf("%s: c[r][j] = the sum over k of a[r][k]*b[k][j] for %d rows of a, stride bytes apart, and 16 columns; b is groups times [16][4]; c is [%d][16].%s", name, rows, rows, doc))
	c, a, b := lanes.Arg("c"), lanes.Arg("a"), lanes.Arg("b")
	stride, n := lanes.Arg("stride"), lanes.Arg("groups")
	row := lanes.RowsAt(a, stride, rows)
	var r vex.Registers
	acc, bs, x := r.Grid(rows, 2), r.Grid(1, 2)[0], r.Next()
	for _, row := range acc {
		for _, a := range row {
			VPXOR(a, a, a)
		}
	}
	Label("loop")
	for v := range bs {
		VMOVDQU(Mem{Base: b, Disp: 32 * v}, bs[v])
	}
	for r := range acc {
		VPBROADCASTD(row.At(r), x)
		for v := range bs {
			vex.DPBUSD(bs[v], x, acc[r][v])
		}
	}
	ADDQ(U32(64), b)
	row.Next(4)
	DECQ(n)
	JNZ(LabelRef("loop"))
	for r := range acc {
		for v := range acc[r] {
			switch {
			case !most:
				VMOVDQU(acc[r][v], Mem{Base: c, Disp: 64*r + 32*v})
			case r > 0:
				VPMAXSD(acc[r][v], acc[0][v], acc[0][v])
			}
		}
	}
	for v := range 2 {
		if most {
			VMOVDQU(acc[0][v], Mem{Base: c, Disp: 32 * v})
		}
	}
	VZEROUPPER()
	RET()
}

func widen() {
	TEXT("widenAVX2", NOSPLIT, "func(dst *int16, src *uint8, blocks int)")
	Doc("widenAVX2 copies blocks times 16 bytes to 16-bit numbers.")
	dst, src, n := lanes.Arg("dst"), lanes.Arg("src"), lanes.Arg("blocks")
	x := YMM()
	Label("loop")
	VPMOVZXBW(Mem{Base: src}, x)
	VMOVDQU(x, Mem{Base: dst})
	ADDQ(Imm(16), src)
	ADDQ(Imm(32), dst)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func maximum() {
	TEXT("maxBytesAVX2", NOSPLIT, "func(dst, a, b *uint8, blocks int)")
	Doc("maxBytesAVX2: dst = the greater of a and b, for blocks times 16 bytes.")
	dst, a, b, n := lanes.Arg("dst"), lanes.Arg("a"), lanes.Arg("b"), lanes.Arg("blocks")
	x := XMM()
	Label("loop")
	VMOVDQU(Mem{Base: a}, x)
	VPMAXUB(Mem{Base: b}, x, x)
	VMOVDQU(x, Mem{Base: dst})
	ADDQ(Imm(16), a)
	ADDQ(Imm(16), b)
	ADDQ(Imm(16), dst)
	DECQ(n)
	JNZ(LabelRef("loop"))
	RET()
}

// requantizeLoop emits the loops over rows and blocks of 16 columns, whose results are size bytes; block does one, with scale and bias at the given registers. With masked, k names the columns of a block that are stored: all but of the last.
func requantizeLoop(masked bool, size int, block func(dst, c, s, b reg.Register, k Op)) {
	dst, dstStride := lanes.Arg("dst"), lanes.Arg("dstStride")
	c, cStride := lanes.Arg("c"), lanes.Arg("cStride")
	s, b := lanes.Arg("scale"), lanes.Arg("bias")
	rows := lanes.Arg("rows")
	blocks := lanes.Address("blocks")
	d1, c1, s1, b1, n := GP64(), GP64(), GP64(), GP64(), GP64()
	k, all, last := K(), K(), K()
	if masked {
		r := Load(Param("last"), GP32()).(reg.GPVirtual)
		KMOVW(r, last)
		KXNORW(all, all, all)
	}
	Label("row")
	MOVQ(dst, d1)
	MOVQ(c, c1)
	MOVQ(s, s1)
	MOVQ(b, b1)
	MOVQ(blocks, n)
	Label("block")
	if masked {
		KMOVW(all, k)
		CMPQ(n, Imm(1))
		JNE(LabelRef("full"))
		KMOVW(last, k)
		Label("full")
	}
	block(d1, c1, s1, b1, k)
	ADDQ(Imm(64), c1)
	ADDQ(Imm(64), s1)
	ADDQ(Imm(64), b1)
	ADDQ(Imm(uint64(size)), d1)
	DECQ(n)
	JNZ(LabelRef("block"))
	ADDQ(dstStride, dst)
	ADDQ(cStride, c)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// lastDoc says what the mask does.
const lastDoc = " Of the last 16 those are stored that last names."

const requantizeSignature = "func(dst *uint8, dstStride int, c *int32, cStride int, scale, bias *float32, lo float32, blocks, rows int)"

const requantizeDoc = ": dst = c*scale + bias, each rounded, then to whole numbers (halves to even), not below lo nor above 255, for rows of blocks times 16 elements; strides are in bytes."

// limits broadcasts lo and 255.
func limits(lo, hi reg.VecVirtual) {
	VBROADCASTSS(lanes.Address("lo"), lo)
	byteMax(hi)
}

// byteMax broadcasts 255, as floats.
func byteMax(hi reg.VecVirtual) {
	r, t := GP32(), XMM()
	MOVL(U32(0x437f0000), r)
	VMOVD(r, t)
	VBROADCASTSS(t, hi)
}

// scaled is x = x*scale + bias, each rounded, then to whole numbers from lo to hi.
func scaled(x vector, scale, bias Op, lo, hi reg.VecVirtual) {
	VMULPS(scale, x, x)
	VADDPS(bias, x, x)
	whole(x, lo, hi)
}

// whole is x to whole numbers (halves to even) from lo to hi, lo for NaN, which is what the second operand in Intel's order gives.
func whole(x vector, lo, hi reg.VecVirtual) {
	VMAXPS(lo, x, x)
	VMINPS(hi, x, x)
	VCVTPS2DQ(x, x)
}

// greatestOf leaves the greatest of four vectors of integers in a.
func greatestOf(a, b, c, d vector) {
	VPMAXSD(b, a, a)
	VPMAXSD(d, c, c)
	VPMAXSD(c, a, a)
}

func requantize512() {
	TEXT("requantizeAVX512", NOSPLIT, strings.Replace(requantizeSignature, ", rows int", ", rows int, last uint32", 1))
	Doc("requantizeAVX512" + requantizeDoc + lastDoc)
	lo, hi, x := ZMM(), ZMM(), ZMM()
	limits(lo, hi)
	requantizeLoop(true, 16, func(dst, c, s, b reg.Register, k Op) {
		VCVTDQ2PS(Mem{Base: c}, x)
		scaled(x, Mem{Base: s}, Mem{Base: b}, lo, hi)
		VPMOVDB(x, k, Mem{Base: dst})
	})
}

// packed leaves 16 whole numbers from 0 to 255 in two registers as bytes in the lower half of the first.
func packed(x, y vector) {
	VPACKUSDW(y, x, x)      // lanes: x0 y0 x1 y1
	VPERMQ(Imm(0xd8), x, x) // x0 x1 y0 y1
	u := XMM()
	VEXTRACTI128(Imm(1), x, u) // y
	VPACKUSWB(u, x.AsX(), x.AsX())
}

// pack writes them.
func pack(x, y vector, dst reg.Register) {
	packed(x, y)
	VMOVDQU(x.AsX(), Mem{Base: dst})
}

func requantize256() {
	TEXT("requantizeAVX2", NOSPLIT, requantizeSignature)
	Doc("requantizeAVX2" + requantizeDoc)
	lo, hi, x, y := YMM(), YMM(), YMM(), YMM()
	limits(lo, hi)
	requantizeLoop(false, 16, func(dst, c, s, b reg.Register, _ Op) {
		for i, v := range []reg.VecVirtual{x, y} {
			VCVTDQ2PS(Mem{Base: c, Disp: 32 * i}, v)
			scaled(v, Mem{Base: s, Disp: 32 * i}, Mem{Base: b, Disp: 32 * i}, lo, hi)
		}
		pack(x, y, dst)
	})
}

func quantize() {
	TEXT("quantizeAVX2", NOSPLIT, "func(dst *uint8, x *float32, inverse, zero float32, blocks int)")
	Doc("quantizeAVX2: dst = min(255, max(0, round(x*inverse) + zero)), halves to even and 0 for NaN, for blocks times 16 elements.")
	dst, src, n := lanes.Arg("dst"), lanes.Arg("x"), lanes.Arg("blocks")
	inverse, zero, lo, hi, x, y := YMM(), YMM(), YMM(), YMM(), YMM(), YMM()
	for i, name := range []string{"inverse", "zero"} {
		VBROADCASTSS(lanes.Address(name), []reg.VecVirtual{inverse, zero}[i])
	}
	byteMax(hi)
	VXORPS(lo, lo, lo)
	Label("loop")
	for i, v := range []reg.VecVirtual{x, y} {
		VMULPS(Mem{Base: src, Disp: 32 * i}, inverse, v)
		VROUNDPS(Imm(0), v, v)
		VADDPS(zero, v, v)
		whole(v, lo, hi)
	}
	pack(x, y, dst)
	ADDQ(Imm(64), src)
	ADDQ(Imm(16), dst)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func pairs() {
	TEXT("maxPairsAVX2", NOSPLIT, "func(dst, src *uint8, blocks, pixels int)")
	Doc("maxPairsAVX2: pixels of blocks times 16 bytes, each the greater of two neighbours in src, byte by byte.")
	dst, src, blocks, pixels := lanes.Arg("dst"), lanes.Arg("src"), lanes.Arg("blocks"), lanes.Arg("pixels")
	width, n := GP64(), GP64()
	MOVQ(blocks, width)
	SHLQ(Imm(4), width) // bytes of a pixel
	x := XMM()
	Label("pixel")
	MOVQ(blocks, n)
	Label("block")
	VMOVDQU(Mem{Base: src}, x)
	VPMAXUB(Mem{Base: src, Index: width, Scale: 1}, x, x)
	VMOVDQU(x, Mem{Base: dst})
	ADDQ(Imm(16), src)
	ADDQ(Imm(16), dst)
	DECQ(n)
	JNZ(LabelRef("block"))
	ADDQ(width, src) // past the second of the pair
	DECQ(pixels)
	JNZ(LabelRef("pixel"))
	RET()
}

// sum is the sum of two arrays of bytes with a scale each.
func sum() {
	TEXT("addAVX2", NOSPLIT, "func(dst, a, b *uint8, scaleA, scaleB, offset, lo float32, blocks int)")
	Doc("addAVX2: dst = a*scaleA + b*scaleB + offset, each operation rounded, then to whole numbers (halves to even), not below lo nor above 255, for blocks times 16 bytes.")
	dst, a, b, n := lanes.Arg("dst"), lanes.Arg("a"), lanes.Arg("b"), lanes.Arg("blocks")
	lo, hi := YMM(), YMM()
	limits(lo, hi)
	sa, sb, offset, v, w, x := YMM(), YMM(), YMM(), YMM(), YMM(), YMM()
	for i, name := range []string{"scaleA", "scaleB", "offset"} {
		VBROADCASTSS(lanes.Address(name), []reg.VecVirtual{sa, sb, offset}[i])
	}
	Label("loop")
	for i, v := range []reg.VecVirtual{v, w} {
		VPMOVZXBD(Mem{Base: a, Disp: 8 * i}, v)
		VCVTDQ2PS(v, v)
		VMULPS(sa, v, v)
		VPMOVZXBD(Mem{Base: b, Disp: 8 * i}, x)
		VCVTDQ2PS(x, x)
		VMULPS(sb, x, x)
		VADDPS(x, v, v)
		VADDPS(offset, v, v)
		whole(v, lo, hi)
	}
	pack(v, w, dst)
	ADDQ(Imm(16), a)
	ADDQ(Imm(16), b)
	ADDQ(Imm(16), dst)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// depthwise sums a patch channel by channel, two pixels at a time.
func depthwise() {
	TEXT("depthwiseAVX2", NOSPLIT, "func(acc *int32, x *uint8, w *int16, channels, pairs, blocks int)")
	Doc("depthwiseAVX2: acc[c] = the sum over p of x[2p][c]*w[p][c][0] + x[2p+1][c]*w[p][c][1] for blocks times 8 of the channels; x is [2*pairs][channels].")
	acc, x, w := lanes.Arg("acc"), lanes.Arg("x"), lanes.Arg("w")
	channels, blocks := lanes.Arg("channels"), lanes.Arg("blocks")
	pairs := lanes.Address("pairs")
	sum, v := YMM(), YMM()
	a, b := XMM(), XMM()
	px, pw, n := GP64(), GP64(), GP64()
	Label("block")
	VPXOR(sum, sum, sum)
	MOVQ(x, px)
	MOVQ(w, pw)
	MOVQ(pairs, n)
	Label("pair")
	VMOVQ(Mem{Base: px}, a)
	VMOVQ(Mem{Base: px, Index: channels, Scale: 1}, b)
	VPUNPCKLBW(b, a, a)
	VPMOVZXBW(a, v)
	VPMADDWD(Mem{Base: pw}, v, v)
	VPADDD(v, sum, sum)
	LEAQ(Mem{Base: px, Index: channels, Scale: 2}, px)
	LEAQ(Mem{Base: pw, Index: channels, Scale: 4}, pw)
	DECQ(n)
	JNZ(LabelRef("pair"))
	VMOVDQU(sum, Mem{Base: acc})
	ADDQ(Imm(32), acc)
	ADDQ(Imm(8), x)
	ADDQ(Imm(32), w)
	DECQ(blocks)
	JNZ(LabelRef("block"))
	VZEROUPPER()
	RET()
}

// products keeps 32 rows by 32 columns of sums in tiles 0 to 3 and has two tiles of a (4, 5) and two of b (6, 7); of the last 16 rows, the halves of them.
func products() {
	TEXT("productsAMX", NOSPLIT, "func(c *int32, a *uint8, b *int8, cStride, aStride, bStride, steps, rows int, config *[64]uint8)")
	Doc("productsAMX: c[r][j] = the sum over k of a[r][k]*b[k][j] for rows rows, a multiple of 16, and 32 columns; k runs over 64*steps. Strides of c and a are those of rows, in bytes; of b there are 16*steps times [32][4], bStride bytes apart. config is for LDTILECFG.")
	Load(Param("config"), reg.RAX)
	tiles.Configure()
	Load(Param("c"), reg.RDI)
	Load(Param("a"), reg.RSI)
	Load(Param("aStride"), reg.RDX)
	Load(Param("bStride"), reg.RAX)
	Load(Param("rows"), reg.RCX)
	Load(Param("cStride"), reg.R13)
	MOVQ(reg.RAX, reg.R11) // 16 times that: a step
	SHLQ(Imm(4), reg.R11)
	Label("pair")
	MOVQ(reg.RSI, reg.R8)
	MOVQ(reg.RDX, reg.R9)
	SHLQ(Imm(4), reg.R9)
	ADDQ(reg.RSI, reg.R9)
	MOVQ(lanes.Address("b"), reg.R10)
	MOVQ(lanes.Address("steps"), reg.RBX)
	for t := range 4 {
		tiles.Zero(t)
	}
	CMPQ(reg.RCX, Imm(16))
	JLE(LabelRef("half"))
	Label("k")
	tiles.Load(4, tiles.R8, tiles.RDX, 0)
	tiles.Load(6, tiles.R10, tiles.RAX, 0)
	tiles.DPU8I8(0, 4, 6)
	tiles.Load(7, tiles.R10, tiles.RAX, 64)
	tiles.DPU8I8(1, 4, 7)
	tiles.Load(5, tiles.R9, tiles.RDX, 0)
	tiles.DPU8I8(2, 5, 6)
	tiles.DPU8I8(3, 5, 7)
	ADDQ(Imm(64), reg.R8)
	ADDQ(Imm(64), reg.R9)
	ADDQ(reg.R11, reg.R10)
	DECQ(reg.RBX)
	JNZ(LabelRef("k"))
	MOVQ(reg.R13, reg.R12)
	SHLQ(Imm(4), reg.R12)
	ADDQ(reg.RDI, reg.R12)
	MOVQ(reg.R13, reg.R8)
	tiles.Store(2, tiles.R12, tiles.R8, 0)
	tiles.Store(3, tiles.R12, tiles.R8, 64)
	JMP(LabelRef("store"))
	Label("half")
	tiles.Load(4, tiles.R8, tiles.RDX, 0)
	tiles.Load(6, tiles.R10, tiles.RAX, 0)
	tiles.DPU8I8(0, 4, 6)
	tiles.Load(7, tiles.R10, tiles.RAX, 64)
	tiles.DPU8I8(1, 4, 7)
	ADDQ(Imm(64), reg.R8)
	ADDQ(reg.R11, reg.R10)
	DECQ(reg.RBX)
	JNZ(LabelRef("half"))
	MOVQ(reg.R13, reg.R8)
	Label("store")
	tiles.Store(0, tiles.RDI, tiles.R8, 0)
	tiles.Store(1, tiles.RDI, tiles.R8, 64)
	SHLQ(Imm(5), reg.R8)
	ADDQ(reg.R8, reg.RDI)
	MOVQ(reg.RDX, reg.R8)
	SHLQ(Imm(5), reg.R8)
	ADDQ(reg.R8, reg.RSI)
	SUBQ(Imm(32), reg.RCX)
	JG(LabelRef("pair"))
	tiles.Release()
	VZEROUPPER()
	RET()
}

// maxRows keeps the greatest of four rows.
func maxRows() {
	TEXT("maxRowsAVX512", NOSPLIT, "func(c *int32, vectors, windows int)")
	Doc("maxRowsAVX512: row i of c becomes the greatest, column by column, of its rows 4i to 4i+3, for windows rows of vectors times 16 columns.")
	c, vectors, windows := lanes.Arg("c"), lanes.Arg("vectors"), lanes.Arg("windows")
	row, n, from, last := GP64(), GP64(), GP64(), GP64()
	MOVQ(vectors, row)
	SHLQ(Imm(6), row)
	MOVQ(c, from)
	x := ZMM()
	Label("window")
	MOVQ(vectors, n)
	Label("vector")
	LEAQ(Mem{Base: from, Index: row, Scale: 2}, last)
	VMOVDQU32(Mem{Base: from}, x)
	VPMAXSD(Mem{Base: from, Index: row, Scale: 1}, x, x)
	VPMAXSD(Mem{Base: last}, x, x)
	VPMAXSD(Mem{Base: last, Index: row, Scale: 1}, x, x)
	VMOVDQU32(x, Mem{Base: c})
	ADDQ(Imm(64), from)
	ADDQ(Imm(64), c)
	DECQ(n)
	JNZ(LabelRef("vector"))
	LEAQ(Mem{Base: from, Index: row, Scale: 2}, from)
	ADDQ(row, from)
	DECQ(windows)
	JNZ(LabelRef("window"))
	VZEROUPPER()
	RET()
}

// patches copies patches of neighbouring pixels.
func patches() {
	TEXT("patchesAVX512", NOSPLIT, "func(dst, x *uint8, stride, lines, line, step, next, n int, last uint64)")
	Doc("patchesAVX512 copies n patches of lines lines of line bytes each, which lie step bytes apart in x and one behind the other in dst. Patches are next bytes apart in x and stride in dst. last names the bytes of a line that are left after as many whole 64 as leave some.")
	dst, x, lines, line := lanes.Arg("dst"), lanes.Arg("x"), lanes.Arg("lines"), lanes.Arg("line")
	step, n := lanes.Arg("step"), lanes.Arg("n")
	last, r := K(), GP64()
	MOVQ(lanes.Address("last"), r)
	KMOVQ(r, last)
	d, s, l, at, v := GP64(), GP64(), GP64(), GP64(), ZMM()
	Label("patch")
	MOVQ(dst, d)
	MOVQ(x, s)
	MOVQ(lines, l)
	Label("line")
	XORQ(at, at)
	MOVQ(line, r)
	SUBQ(Imm(64), r)
	JLE(LabelRef("rest"))
	Label("whole")
	VMOVDQU8(Mem{Base: s, Index: at, Scale: 1}, v)
	VMOVDQU8(v, Mem{Base: d, Index: at, Scale: 1})
	ADDQ(Imm(64), at)
	SUBQ(Imm(64), r)
	JG(LabelRef("whole"))
	Label("rest")
	VMOVDQU8_Z(Mem{Base: s, Index: at, Scale: 1}, last, v)
	VMOVDQU8(v, last, Mem{Base: d, Index: at, Scale: 1})
	ADDQ(step, s)
	ADDQ(line, d)
	DECQ(l)
	JNZ(LabelRef("line"))
	ADDQ(lanes.Address("stride"), dst)
	ADDQ(lanes.Address("next"), x)
	DECQ(n)
	JNZ(LabelRef("patch"))
	VZEROUPPER()
	RET()
}

const finishDoc = ": dst = c*scale + bias, each rounded, not below lo, for rows of blocks times 16 elements; strides are in bytes."

func finish512() {
	TEXT("finishAVX512", NOSPLIT, "func(dst *float32, dstStride int, c *int32, cStride int, scale, bias *float32, lo float32, blocks, rows int, last uint32)")
	Doc("finishAVX512" + finishDoc + lastDoc)
	lo, x := ZMM(), ZMM()
	VBROADCASTSS(lanes.Address("lo"), lo)
	requantizeLoop(true, 64, func(dst, c, s, b reg.Register, k Op) {
		VCVTDQ2PS(Mem{Base: c}, x)
		VMULPS(Mem{Base: s}, x, x)
		VADDPS(Mem{Base: b}, x, x)
		VMAXPS(x, lo, x) // x where it is NaN: the second operand in Intel's order
		VMOVUPS(x, k, Mem{Base: dst})
	})
}

func finish256() {
	TEXT("finishAVX2", NOSPLIT, "func(dst *float32, dstStride int, c *int32, cStride int, scale, bias *float32, lo float32, blocks, rows int)")
	Doc("finishAVX2" + finishDoc)
	lo, x := YMM(), YMM()
	VBROADCASTSS(lanes.Address("lo"), lo)
	requantizeLoop(false, 64, func(dst, c, s, b reg.Register, _ Op) {
		for i := range 2 {
			VCVTDQ2PS(Mem{Base: c, Disp: 32 * i}, x)
			VMULPS(Mem{Base: s, Disp: 32 * i}, x, x)
			VADDPS(Mem{Base: b, Disp: 32 * i}, x, x)
			VMAXPS(x, lo, x)
			VMOVUPS(x, Mem{Base: dst, Disp: 32 * i})
		}
	})
}

// depthwise512 sums patches channel by channel, where they lie: a byte and a weight are the lower halves of pairs of 16 bits, whose upper halves are zero.
func depthwise512() {
	TEXT("depthwiseVNNI", NOSPLIT, "func(acc *int32, accStride int, x *uint8, channels, line, next int, w *int32, lines, taps, blocks, pixels int, last uint32)")
	Doc("depthwiseVNNI: for pixels pixels, next bytes apart in x, acc[c] = the sum over lines lines, line bytes apart, and taps pixels of them, channels bytes apart, of x*w; w is [lines*taps][blocks*16], each from -128 to 127 in the lower 16 bits and 0 above. Of the last 16 channels those are read that last names; all are stored.")
	acc, x := lanes.Arg("acc"), lanes.Arg("x")
	channels, line := lanes.Arg("channels"), lanes.Address("line")
	k, all, last := K(), K(), K()
	r := Load(Param("last"), GP32()).(reg.GPVirtual)
	KMOVW(r, last)
	KXNORW(all, all, all)
	width := GP64() // bytes of the weights of a tap
	MOVQ(lanes.Address("blocks"), width)
	SHLQ(Imm(6), width)
	p, q, a, wb, wp, n, l, t := GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	sum, v := ZMM(), ZMM()
	Label("pixel")
	MOVQ(x, p)
	MOVQ(acc, a)
	MOVQ(lanes.Address("w"), wb)
	MOVQ(lanes.Address("blocks"), n)
	Label("block")
	KMOVW(all, k)
	CMPQ(n, Imm(1))
	JNE(LabelRef("full"))
	KMOVW(last, k)
	Label("full")
	VPXORD(sum, sum, sum)
	MOVQ(wb, wp)
	XORQ(q, q)
	MOVQ(lanes.Address("lines"), l)
	Label("line")
	MOVQ(q, r.As64())
	ADDQ(p, r.As64())
	MOVQ(lanes.Address("taps"), t)
	Label("tap")
	VPMOVZXBD_Z(Mem{Base: r.As64()}, k, v)
	VPDPWSSD(Mem{Base: wp}, v, sum)
	ADDQ(channels, r.As64())
	ADDQ(width, wp)
	DECQ(t)
	JNZ(LabelRef("tap"))
	ADDQ(line, q)
	DECQ(l)
	JNZ(LabelRef("line"))
	VMOVDQU32(sum, Mem{Base: a})
	ADDQ(Imm(64), a)
	ADDQ(Imm(16), p)
	ADDQ(Imm(64), wb)
	DECQ(n)
	JNZ(LabelRef("block"))
	ADDQ(lanes.Address("accStride"), acc)
	ADDQ(lanes.Address("next"), x)
	DECQ(lanes.Address("pixels"))
	JNZ(LabelRef("pixel"))
	VZEROUPPER()
	RET()
}
