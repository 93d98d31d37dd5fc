// Command attention writes attention_amd64.s and stubs_amd64.go of package attention: what stands between products on AMX, in AVX-512.
package main

import (
	"math"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
	"github.com/jouleml/joule/internal/kernel/vec/_asm/parts"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	l := Targets[1] // AVX-512
	fold(l)
	gradients(l)
	Generate()
}

// slack is how far scores may rise above the greatest so far before sums are brought to a new one: weights stay below e^8 and sums far from overflow, and nothing is less exact.
const slack = 8

// fold goes over the scores twice: for the greatest of each row, four rows at a time, and for the weights.
func fold(l *L) {
	TEXT("foldForAMX", NOSPLIT, "func(dst *uint32, s *float32, row, steps int, top, total, factor *float32, scale float32)")
	Doc("foldForAMX: of 16 rows of 32*steps scores, row bytes apart, the parts of e^(scale*score - top). top[i] becomes the greatest scale*score of row i if that is above top[i] + slack; factor[i] becomes e^(what top[i] was - top[i]), total[i] becomes total[i]*factor[i] and the sum of row i's. scale > 0.")
	s, row := Arg("s"), Arg("row")
	factor := Arg("factor")

	three := GP64()
	LEAQ(Mem{Base: row, Index: row, Scale: 2}, three)
	at, to, left, rows := GP64(), GP64(), GP64(), GP64()
	base := GP64()
	MOVQ(s, base)
	MOVQ(factor, to)
	MOVQ(U32(4), rows)
	Label("most")
	MOVQ(base, at)
	MOVQ(Address("steps"), left)
	var most [8]V
	for i := range most {
		most[i] = l.Load(l.F(math.Inf(-1)))
	}
	Label("mostStep")
	for i := range most {
		m := Mem{Base: at, Disp: i / 4 * 64}
		switch i % 4 {
		case 1:
			m.Index, m.Scale = row, 1
		case 2:
			m.Index, m.Scale = row, 2
		case 3:
			m.Index, m.Scale = three, 1
		}
		VMAXPS(m, most[i], most[i])
	}
	ADDQ(U32(128), at)
	DECQ(left)
	JNZ(LabelRef("mostStep"))
	for i := range 4 {
		VMAXPS(most[i], most[4+i], most[i])
		VMOVSS(l.Across(most[i], VMAXPS).AsX(), Mem{Base: to, Disp: 4 * i})
	}
	ADDQ(Imm(16), to)
	LEAQ(Mem{Base: base, Index: row, Scale: 4}, base)
	DECQ(rows)
	JNZ(LabelRef("most"))

	top, total := Arg("top"), Arg("total")
	old := l.Load(Mem{Base: top})
	scale := l.Broadcast("scale")
	now := l.Mul(scale, Mem{Base: factor})
	now = l.Blend(l.Cmp(GT, now, l.Add(old, l.F(slack))), now, old)
	l.Store(now, Mem{Base: top})
	f := l.ExpDown(l.Sub(old, now))
	l.Store(f, Mem{Base: factor})
	l.Store(l.Mul(f, Mem{Base: total}), Mem{Base: total})

	r := parts.Constants(l.New(), l.New())
	dst := Arg("dst")
	MOVQ(U32(16), rows)
	Label("row")
	m := l.New()
	VBROADCASTSS(Mem{Base: top}, m)
	sum := [2]V{l.Zero(), l.Zero()}
	MOVQ(s, at)
	MOVQ(dst, to)
	MOVQ(Address("steps"), left)
	Label("step")
	var x [2]V
	for i := range x {
		x[i] = l.Load(Mem{Base: at, Disp: 64 * i})
		VFMSUB213PS(m, scale, x[i])
		x[i] = l.ExpDown(x[i])
		VADDPS(x[i], sum[i], sum[i])
	}
	r.Split(x[0], x[1], Mem{Base: to}, l.New(), l.New(), l.New())
	ADDQ(U32(128), at)
	ADDQ(U32(parts.Step), to)
	DECQ(left)
	JNZ(LabelRef("step"))
	VADDPS(sum[0], sum[1], sum[0])
	one := l.Across(sum[0], VADDPS).AsX()
	VADDSS(Mem{Base: total}, one, one)
	VMOVSS(one, Mem{Base: total})
	ADDQ(row, s)
	ADDQ(Imm(64), dst)
	ADDQ(Imm(4), top)
	ADDQ(Imm(4), total)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// gradients has 2 rows by 32 keys at a time. Each gradient is split once and its parts packed twice, with its neighbour 16 keys on and with that 16 rows on.
func gradients(l *L) {
	TEXT("gradientsForAMX", NOSPLIT, "func(pT, ds, dsT *uint32, s, d *float32, half, rowBlock, colBlock, steps int, lse, delta *float32, scale float32)")
	Doc("gradientsForAMX: of rows 0 and 16 of 32*steps scores s and gradients d of weights, half bytes apart, the weights p = e^(scale*s - lse) and gradients of scores p*(d - delta), 0 where p is; the parts of p in columns, those of the gradients in rows and in columns. lse and delta are those of row 0, and 16 elements further on those of row 16. Blocks of rows are rowBlock, those of columns colBlock bytes apart.")
	pT, ds, dsT, s, d := Arg("pT"), Arg("ds"), Arg("dsT"), Arg("s"), Arg("d")
	half, rowBlock, colBlock, left := Arg("half"), Arg("rowBlock"), Arg("colBlock"), Arg("steps")
	p := Arg("lse")
	q := Arg("delta")
	var lse, delta [2]V
	for i := range 2 {
		lse[i], delta[i] = l.New(), l.New()
		VBROADCASTSS(Mem{Base: p, Disp: 64 * i}, lse[i])
		VBROADCASTSS(Mem{Base: q, Disp: 64 * i}, delta[i])
	}
	scale := l.Broadcast("scale")
	r := parts.Constants(l.New(), l.New())
	Label("step")
	var g [2][2]V // [row][half of the keys]
	at := func(base reg.Register, i, j int) Mem {
		m := Mem{Base: base, Disp: 64 * j}
		if i > 0 {
			m.Index, m.Scale = half, 1
		}
		return m
	}
	column := func(base reg.Register, j, part int) Mem {
		m := Mem{Base: base, Disp: part * parts.Tile}
		if j > 0 {
			m.Index, m.Scale = colBlock, 1
		}
		return m
	}
	for j := range 2 {
		var x [2]V
		for i := range 2 {
			x[i] = l.Load(at(s, i, j))
			VFMSUB213PS(lse[i], scale, x[i])
			x[i] = l.ExpDown(x[i])
			k := K()
			VPTESTMD(x[i], x[i], k)
			g[i][j] = l.Sub(l.Load(at(d, i, j)), delta[i])
			VMULPS_Z(x[i], g[i][j], k, g[i][j])
		}
		r.Split(x[0], x[1], column(pT, j, 0), l.New(), l.New(), l.New())
	}
	for part := range 3 {
		h := g
		if part < 2 {
			for i := range 2 {
				for j := range 2 {
					h[i][j] = l.New()
					r.Part(g[i][j], h[i][j])
				}
			}
		}
		for i := range 2 {
			m := Mem{Base: ds, Disp: part * parts.Tile}
			if i > 0 {
				m.Index, m.Scale = rowBlock, 1
			}
			r.Pack(h[i][0], h[i][1], l.New(), m)
			r.Pack(h[0][i], h[1][i], l.New(), column(dsT, i, part))
		}
	}
	ADDQ(U32(128), s)
	ADDQ(U32(128), d)
	ADDQ(U32(parts.Step), ds)
	LEAQ(Mem{Base: pT, Index: colBlock, Scale: 2}, pT)
	LEAQ(Mem{Base: dsT, Index: colBlock, Scale: 2}, dsT)
	DECQ(left)
	JNZ(LabelRef("step"))
	VZEROUPPER()
	RET()
}
