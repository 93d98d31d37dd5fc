// Command spgemm writes spgemm_amd64.s and stubs_amd64.go of package spgemm.
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
	for _, rows := range []int{12, 4} {
		block512(rows)
	}
	block512One()
	block2(6)
	block2One()
	pairs512(4)
	pairs512One()
	pairs2()
	Generate()
}

func begin(name, index, doc string) (x, w, ix, stride, steps reg.GPVirtual) {
	TEXT(name, NOSPLIT, fmt.Sprintf("func(y, x, w *float32, index *%s, stride, ystride, steps int)", index))
	Doc(name + ": " + doc)
	return lanes.Arg("x"), lanes.Arg("w"), lanes.Arg("index"), lanes.Arg("stride"), lanes.Arg("steps")
}

const blockDoc = "y[r][j] = the sum over s of x[r][index[s]]*w[s][j] for %d rows of x, stride bytes apart, and 16 columns; rows of y are ystride bytes apart.%s"

// rowAddresses gives the addresses of rows from base on; third is three strides.
func rowAddresses(base, stride, third reg.GPVirtual, rows int) func(r int) Mem {
	bases := []reg.GPVirtual{base}
	for r := 3; r < rows; r += 3 {
		b := GP64()
		LEAQ(Mem{Base: bases[len(bases)-1], Index: third, Scale: 1}, b)
		bases = append(bases, b)
	}
	return func(r int) Mem {
		m := Mem{Base: bases[r/3]}
		if r%3 > 0 {
			m.Index, m.Scale = stride, uint8(r%3)
		}
		return m
	}
}

func threeTimes(stride reg.GPVirtual) reg.GPVirtual {
	t := GP64()
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, t)
	return t
}

// column is the address of x at the next index.
func column(x, ix reg.GPVirtual, disp int) reg.GPVirtual {
	k, q := GP64(), GP64()
	MOVLQSX(Mem{Base: ix, Disp: disp}, k)
	LEAQ(Mem{Base: x, Index: k, Scale: 4}, q)
	return q
}

// store writes the rows of y.
func store(rows int, write func(r int, at Mem)) {
	y, ys := lanes.Arg("y"), lanes.Arg("ystride")
	for r := range rows {
		write(r, Mem{Base: y})
		if r+1 < rows {
			ADDQ(ys, y)
		}
	}
	VZEROUPPER()
	RET()
}

func zeros(n int, f func() reg.VecVirtual, wide bool) []reg.VecVirtual {
	out := make([]reg.VecVirtual, n)
	for i := range out {
		if out[i] = f(); wide {
			VPXORD(out[i], out[i], out[i])
		} else {
			VXORPS(out[i], out[i], out[i])
		}
	}
	return out
}

func block512(rows int) {
	x, w, ix, stride, n := begin(fmt.Sprintf("blockAVX512%d", rows), "int32", fmt.Sprintf(blockDoc, rows, ""))
	third := threeTimes(stride)
	acc := zeros(rows, ZMM, true)
	v := ZMM()
	Label("loop")
	at := rowAddresses(column(x, ix, 0), stride, third, rows)
	VMOVUPS(Mem{Base: w}, v)
	for r := range rows {
		VFMADD231PS_BCST(at(r), v, acc[r])
	}
	ADDQ(Imm(4), ix)
	ADDQ(Imm(64), w)
	DECQ(n)
	JNZ(LabelRef("loop"))
	store(rows, func(r int, at Mem) { VMOVUPS(acc[r], at) })
}

func block512One() {
	x, w, ix, _, n := begin("blockAVX5121", "int32", fmt.Sprintf(blockDoc, 1, " steps is a multiple of 4: sums of every fourth are kept apart."))
	acc := zeros(4, ZMM, true)
	SHRQ(Imm(2), n)
	Label("loop")
	for i := range 4 {
		v := ZMM()
		VMOVUPS(Mem{Base: w, Disp: 64 * i}, v)
		VFMADD231PS_BCST(Mem{Base: column(x, ix, 4*i)}, v, acc[i])
	}
	ADDQ(Imm(16), ix)
	ADDQ(U32(256), w)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VADDPS(acc[1], acc[0], acc[0])
	VADDPS(acc[3], acc[2], acc[2])
	VADDPS(acc[2], acc[0], acc[0])
	store(1, func(_ int, at Mem) { VMOVUPS(acc[0], at) })
}

func block2(rows int) {
	x, w, ix, stride, n := begin(fmt.Sprintf("blockAVX2%d", rows), "int32", fmt.Sprintf(blockDoc, rows, ""))
	third := threeTimes(stride)
	acc := zeros(2*rows, YMM, false)
	lo, hi, b := YMM(), YMM(), YMM()
	Label("loop")
	at := rowAddresses(column(x, ix, 0), stride, third, rows)
	VMOVUPS(Mem{Base: w}, lo)
	VMOVUPS(Mem{Base: w, Disp: 32}, hi)
	for r := range rows {
		VBROADCASTSS(at(r), b)
		VFMADD231PS(lo, b, acc[2*r])
		VFMADD231PS(hi, b, acc[2*r+1])
	}
	ADDQ(Imm(4), ix)
	ADDQ(Imm(64), w)
	DECQ(n)
	JNZ(LabelRef("loop"))
	store(rows, func(r int, at Mem) {
		VMOVUPS(acc[2*r], at)
		at.Disp = 32
		VMOVUPS(acc[2*r+1], at)
	})
}

func block2One() {
	x, w, ix, _, n := begin("blockAVX21", "int32", fmt.Sprintf(blockDoc, 1, " steps is a multiple of 4: sums of every fourth are kept apart."))
	acc := zeros(8, YMM, false)
	SHRQ(Imm(2), n)
	Label("loop")
	for i := range 4 {
		b := YMM()
		VBROADCASTSS(Mem{Base: column(x, ix, 4*i)}, b)
		VFMADD231PS(Mem{Base: w, Disp: 64 * i}, b, acc[2*i])
		VFMADD231PS(Mem{Base: w, Disp: 64*i + 32}, b, acc[2*i+1])
	}
	ADDQ(Imm(16), ix)
	ADDQ(U32(256), w)
	DECQ(n)
	JNZ(LabelRef("loop"))
	for h := range 2 {
		VADDPS(acc[2+h], acc[h], acc[h])
		VADDPS(acc[6+h], acc[4+h], acc[4+h])
		VADDPS(acc[4+h], acc[h], acc[h])
	}
	store(1, func(_ int, at Mem) {
		VMOVUPS(acc[0], at)
		at.Disp = 32
		VMOVUPS(acc[1], at)
	})
}

const pairsDoc = "y[r][j] = the sum over groups g of x[r][4g+a]*w[2g][j] + x[r][4g+b]*w[2g+1][j], where a and b are bits 0, 1 and 2, 3 of index[g][j], for %d rows of x, stride bytes apart, and 16 columns; steps is the number of groups%s."

// places loads the indices of a group as controls of VPERMILPS, which looks at two bits of each element.
func places512(ix reg.GPVirtual, disp int) (a, b reg.VecVirtual) {
	a, b = ZMM(), ZMM()
	VPMOVZXBD(Mem{Base: ix, Disp: disp}, a)
	VPSRLD(Imm(2), a, b)
	return a, b
}

func pairs512(rows int) {
	x, w, ix, stride, n := begin(fmt.Sprintf("pairsAVX512%d", rows), "uint8", fmt.Sprintf(pairsDoc, rows, ""))
	third := threeTimes(stride)
	acc := zeros(2*rows, ZMM, true)
	Label("loop")
	at := rowAddresses(x, stride, third, rows)
	a, b := places512(ix, 0)
	v, u := ZMM(), ZMM()
	VMOVUPS(Mem{Base: w}, v)
	VMOVUPS(Mem{Base: w, Disp: 64}, u)
	for r := range rows {
		four, p, q := ZMM(), ZMM(), ZMM()
		VBROADCASTF32X4(at(r), four)
		VPERMILPS(a, four, p)
		VPERMILPS(b, four, q)
		VFMADD231PS(v, p, acc[2*r])
		VFMADD231PS(u, q, acc[2*r+1])
	}
	ADDQ(Imm(16), x)
	ADDQ(Imm(16), ix)
	ADDQ(U32(128), w)
	DECQ(n)
	JNZ(LabelRef("loop"))
	store(rows, func(r int, at Mem) {
		VADDPS(acc[2*r+1], acc[2*r], acc[2*r])
		VMOVUPS(acc[2*r], at)
	})
}

func pairs512One() {
	x, w, ix, _, n := begin("pairsAVX5121", "uint8", fmt.Sprintf(pairsDoc, 1, ", an even one"))
	acc := zeros(4, ZMM, true)
	SHRQ(Imm(1), n)
	Label("loop")
	for g := range 2 {
		a, b := places512(ix, 16*g)
		four, p, q := ZMM(), ZMM(), ZMM()
		VBROADCASTF32X4(Mem{Base: x, Disp: 16 * g}, four)
		PREFETCHT0(Mem{Base: w, Disp: 2048 + 128*g})
		PREFETCHT0(Mem{Base: w, Disp: 2048 + 64 + 128*g})
		VPERMILPS(a, four, p)
		VPERMILPS(b, four, q)
		VFMADD231PS(Mem{Base: w, Disp: 128 * g}, p, acc[2*g])
		VFMADD231PS(Mem{Base: w, Disp: 128*g + 64}, q, acc[2*g+1])
	}
	ADDQ(Imm(32), x)
	ADDQ(Imm(32), ix)
	ADDQ(U32(256), w)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VADDPS(acc[1], acc[0], acc[0])
	VADDPS(acc[3], acc[2], acc[2])
	VADDPS(acc[2], acc[0], acc[0])
	store(1, func(_ int, at Mem) { VMOVUPS(acc[0], at) })
}

func pairs2() {
	x, w, ix, _, n := begin("pairsAVX21", "uint8", fmt.Sprintf(pairsDoc, 1, ""))
	acc := zeros(4, YMM, false)
	Label("loop")
	four := YMM()
	VBROADCASTF128(Mem{Base: x}, four)
	for h := range 2 {
		a, b, p, q := YMM(), YMM(), YMM(), YMM()
		VPMOVZXBD(Mem{Base: ix, Disp: 8 * h}, a)
		VPSRLD(Imm(2), a, b)
		VPERMILPS(a, four, p)
		VPERMILPS(b, four, q)
		VFMADD231PS(Mem{Base: w, Disp: 32 * h}, p, acc[2*h])
		VFMADD231PS(Mem{Base: w, Disp: 64 + 32*h}, q, acc[2*h+1])
	}
	ADDQ(Imm(16), x)
	ADDQ(Imm(16), ix)
	ADDQ(U32(128), w)
	DECQ(n)
	JNZ(LabelRef("loop"))
	store(1, func(_ int, at Mem) {
		for h := range 2 {
			VADDPS(acc[2*h+1], acc[2*h], acc[2*h])
			at.Disp = 32 * h
			VMOVUPS(acc[2*h], at)
		}
	})
}
