package main

import (
	"fmt"

	"github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// pairTiles writes what multiplies bytes with AVX2 where no sum of two products leaves 16 bits.
func pairTiles() {
	for rows := 1; rows <= 6; rows++ {
		pairTile(rows, false)
	}
	pairTile(4, true)
	spread()
}

func pairTile(rows int, most bool) {
	name, doc := fmt.Sprintf("tilePairsAVX2%d", rows), ""
	if most {
		name, doc = name+"Max", greatest
	}
	TEXT(name, NOSPLIT, "func(c *int32, cStride int, a *uint8, stride int, at *int32, b *int8, first *int32, starts *int, panels int)")
	Doc(fmt.Sprintf("%s: for %d rows of a, stride bytes apart, and panels times 16 columns c[r][j] = first[j] + the sum over groups g of the panel and i below 4 of a[r][at[g]+i]*b[g][j][i]; b is groups times [16][4], starts says where those of each panel begin and the last ends, of which the first is at at and b; "+
		"rows of c lie cStride bytes apart. Of the products of a group neither the first two nor the last two may add up to more than 16 bits.%s", name, rows, doc))
	c, stride, place := lanes.Arg("c"), lanes.Arg("stride"), GP64()
	row := make([]reg.GPVirtual, rows) // a register each: sums of addresses would take the vectors' ports
	row[0] = lanes.Arg("a")
	for r := range rows - 1 {
		row[r+1] = GP64()
		LEAQ(Mem{Base: row[r], Index: stride, Scale: 1}, row[r+1])
	}
	ones, b0, x, y := YMM(), YMM(), YMM(), YMM()
	at, b, n := lanes.Arg("at"), lanes.Arg("b"), GP64()
	VPCMPEQD(ones, ones, ones)
	VPSRLW(Imm(15), ones, ones)
	Label("panel")
	starts := place
	MOVQ(lanes.Address("starts"), starts)
	MOVQ(Mem{Base: starts, Disp: 8}, n)
	SUBQ(Mem{Base: starts}, n)
	ADDQ(Imm(8), lanes.Address("starts"))
	acc, first := make([][]reg.VecVirtual, rows), place
	MOVQ(lanes.Address("first"), first)
	ADDQ(Imm(64), lanes.Address("first"))
	for r := range acc {
		acc[r] = []reg.VecVirtual{YMM(), YMM()}
		for v := range acc[r] {
			VMOVDQU(Mem{Base: first, Disp: 32 * v}, acc[r][v])
		}
	}
	group := func(i int) {
		MOVLQSX(Mem{Base: at, Disp: 4 * i}, place)
		VMOVDQU(Mem{Base: b, Disp: 64 * i}, b0)
		for r := range acc {
			VPBROADCASTD(Mem{Base: row[r], Index: place, Scale: 1}, x)
			VPMADDUBSW(b0, x, y)
			VPMADDUBSW(Mem{Base: b, Disp: 64*i + 32}, x, x) // there is no register left for it
			VPMADDWD(ones, y, y)
			VPADDD(y, acc[r][0], acc[r][0])
			VPMADDWD(ones, x, x)
			VPADDD(x, acc[r][1], acc[r][1])
		}
	}
	TESTQ(U32(1), n)
	JZ(LabelRef("even"))
	group(0)
	ADDQ(Imm(4), at)
	ADDQ(Imm(64), b)
	Label("even")
	SHRQ(Imm(1), n)
	JZ(LabelRef("end"))
	Label("loop")
	group(0)
	group(1)
	ADDQ(Imm(8), at)
	ADDQ(U32(128), b)
	DECQ(n)
	JNZ(LabelRef("loop"))
	Label("end")
	if most {
		acc = greatestRow(acc)
	}
	MOVQ(c, place)
	for r := range acc {
		for v := range acc[r] {
			VMOVDQU(acc[r][v], Mem{Base: place, Disp: 32 * v})
		}
		ADDQ(lanes.Address("cStride"), place)
	}
	ADDQ(Imm(64), c)
	DECQ(lanes.Address("panels"))
	JNZ(LabelRef("panel"))
	VZEROUPPER()
	RET()
}

// spread makes the ways of a row.
func spread() {
	TEXT("spreadAVX2", NOSPLIT, "func(dst, src *uint8, blocks, ways int, how *[2][32]uint8)")
	Doc("spreadAVX2: for blocks times 32 bytes of src, ways times 32 bytes of dst: those that how[w][0] names in each half of 16, with the bits of how[w][1] turned.")
	dst, src, n, step := lanes.Arg("dst"), lanes.Arg("src"), lanes.Arg("blocks"), lanes.Arg("ways")
	how, h, end := lanes.Arg("how"), GP64(), GP64()
	order, turn, x := YMM(), YMM(), [2]reg.VecVirtual{YMM(), YMM()}
	SHLQ(Imm(5), step)
	LEAQ(Mem{Base: how, Index: step, Scale: 2}, end)
	blocks := func(name string, n int) {
		for i := range n {
			VMOVDQU(Mem{Base: src, Disp: 32 * i}, x[i])
		}
		MOVQ(how, h)
		Label(name)
		VMOVDQU(Mem{Base: h}, order)
		VMOVDQU(Mem{Base: h, Disp: 32}, turn)
		for i := range n {
			y := YMM()
			VPSHUFB(order, x[i], y)
			VPXOR(turn, y, y)
			to := Mem{Base: dst}
			if i == 1 {
				to.Index, to.Scale = step, 1
			}
			VMOVDQU(y, to)
		}
		ADDQ(Imm(64), h)
		ADDQ(Imm(32), dst)
		CMPQ(h, end)
		JNE(LabelRef(name))
		ADDQ(U32(uint32(32*n)), src)
	}
	SUBQ(Imm(2), n)
	JL(LabelRef("one"))
	Label("two")
	blocks("ways2", 2)
	ADDQ(step, dst)
	SUBQ(Imm(2), n)
	JGE(LabelRef("two"))
	Label("one")
	ADDQ(Imm(2), n)
	JZ(LabelRef("end"))
	blocks("ways1", 1)
	Label("end")
	VZEROUPPER()
	RET()
}
