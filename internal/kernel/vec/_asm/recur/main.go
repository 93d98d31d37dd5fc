// Command recur writes recur_amd64.s and stubs_amd64.go of package recur.
package main

import (
	"fmt"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	for _, l := range Targets {
		for _, gates := range []int{1, 3, 4} {
			stream(l, gates)
		}
		lstm(l)
		gru(l)
		lstmBack(l)
		gruBack(l)
	}
	touch()
	publish()
	Generate()
}

// panelUnits is how many units' sums, of all gates, fit the registers and leave room for what is multiplied.
func panelUnits(l *L, gates int) int {
	switch {
	case l.Wide() || gates == 1:
		return 64
	case gates == 3:
		return 32
	}
	return 16
}

// stream keeps the sums of all gates of a panel in registers, so that the weights are read once and forwards, a row after the other. Two rows a turn: fewer instructions to wait in line while
// weights come out of the L2 cache.
func stream(l *L, gates int) {
	units := panelUnits(l, gates)
	TEXT(fmt.Sprintf("stream%d%s", gates, l.Suffix), NOSPLIT, "func(y, in, a, w *float32, k, yGate, inGate int)")
	Doc(fmt.Sprintf("stream%d%s: y[g][j] = in[g][j] + the sum over k (even) of a[k]*w[k][g][j], for %d gates and %d units; gates of y are yGate bytes apart, those of in inGate, and w is [k][%d][%d].", gates, l.Suffix, gates, units, gates, units))
	y, in, a, w := Arg("y"), Arg("in"), Arg("a"), Arg("w")
	k, yGate, inGate := Arg("k"), Arg("yGate"), Arg("inGate")
	each := units / l.Width // vectors of a gate
	sums := make([]V, gates*each)
	for i := range sums {
		if i > 0 && i%each == 0 {
			ADDQ(inGate, in)
		}
		sums[i] = l.Load(Mem{Base: in, Disp: i % each * l.Bytes()})
	}
	row := len(sums) * l.Bytes()
	Label("k")
	for r := range 2 {
		x := l.New()
		VBROADCASTSS(Mem{Base: a, Disp: 4 * r}, x)
		for i, s := range sums {
			l.FMA231(s, x, Mem{Base: w, Disp: r*row + i*l.Bytes()})
		}
	}
	ADDQ(Imm(8), a)
	ADDQ(U32(uint32(2*row)), w)
	SUBQ(Imm(2), k)
	JNZ(LabelRef("k"))
	for i, s := range sums {
		if i > 0 && i%each == 0 {
			ADDQ(yGate, y)
		}
		l.Store(s, Mem{Base: y, Disp: i % each * l.Bytes()})
	}
	VZEROUPPER()
	RET()
}

// touch asks for lines that another core has written, all at once.
func touch() {
	TEXT("touchAVX2", NOSPLIT, "func(p *float32, lines int)")
	Doc("touchAVX2 fetches lines of 64 bytes from p on into the cache.")
	p, n := Arg("p"), Arg("lines")
	Label("loop")
	PREFETCHT0(Mem{Base: p})
	ADDQ(Imm(64), p)
	DECQ(n)
	JNZ(LabelRef("loop"))
	RET()
}

// publish is a store behind all stores before it, as this processor's are, without the fence of Go's atomic store: work goes on while the line travels.
func publish() {
	TEXT("publishAVX2", NOSPLIT, "func(p *int64, v int64)")
	Doc("publishAVX2 sets *p to v after all that was written before.")
	p, v := Arg("p"), Arg("v")
	MOVQ(v, Mem{Base: p})
	RET()
}

// gated is gate g of a matrix whose gates are stride bytes apart; triple is three times stride.
func gated(p, stride, triple reg.GPVirtual, g int) Mem {
	switch g {
	case 0:
		return Mem{Base: p}
	case 3:
		return Mem{Base: p, Index: triple, Scale: 1}
	}
	return Mem{Base: p, Index: stride, Scale: uint8(g)}
}

func tripled(stride reg.GPVirtual) reg.GPVirtual {
	t := GP64()
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, t)
	return t
}

// each runs body for every vector of n units, the last perhaps under a mask, and moves the pointers on.
func each(l *L, n reg.GPVirtual, pointers []reg.GPVirtual, body func(load func(Mem) V, store func(V, Mem))) {
	Label("one")
	SUBQ(Imm(uint64(l.Width)), n)
	JLT(LabelRef("tail"))
	body(func(p Mem) V { return l.Load(p) }, l.Store)
	for _, p := range pointers {
		ADDQ(Imm(uint64(l.Bytes())), p)
	}
	JMP(LabelRef("one"))
	Label("tail")
	ADDQ(Imm(uint64(l.Width)), n)
	JEQ(LabelRef("end"))
	m := l.TailMask(n)
	body(func(p Mem) V { return l.LoadMasked(p, m) }, func(v V, p Mem) { l.StoreMasked(v, m, p) })
	Label("end")
	VZEROUPPER()
	RET()
}

func lstm(l *L) {
	TEXT("lstm"+l.Suffix, NOSPLIT, "func(h, c, gate, sum, last *float32, n, gateStride, sumStride int)")
	Doc("lstm" + l.Suffix + ": gates 0, 1 and 3 are σ(sum), gate 2 is tanh(sum); c = gate1*last + gate0*gate2; h = gate3*tanh(c). Gates are gateStride bytes apart, sums sumStride; gate may be sum.")
	h, c, gate, sum, last := Arg("h"), Arg("c"), Arg("gate"), Arg("sum"), Arg("last")
	n, gs, ss := Arg("n"), Arg("gateStride"), Arg("sumStride")
	g3, s3 := tripled(gs), tripled(ss)
	each(l, n, []reg.GPVirtual{h, c, gate, sum, last}, func(load func(Mem) V, store func(V, Mem)) {
		in := l.Sigmoid(load(gated(sum, ss, s3, 0)))
		store(in, gated(gate, gs, g3, 0))
		cell := l.Tanh(load(gated(sum, ss, s3, 2)))
		store(cell, gated(gate, gs, g3, 2))
		state := l.Mul(in, cell)
		forget := l.Sigmoid(load(gated(sum, ss, s3, 1)))
		store(forget, gated(gate, gs, g3, 1))
		l.FMA231(state, forget, load(Mem{Base: last}))
		store(state, Mem{Base: c})
		out := l.Sigmoid(load(gated(sum, ss, s3, 3)))
		store(out, gated(gate, gs, g3, 3))
		store(l.Mul(out, l.Tanh(state)), Mem{Base: h})
	})
}

func gru(l *L) {
	TEXT("gru"+l.Suffix, NOSPLIT, "func(h, third, gate, x, q, last *float32, n, gateStride, qStride int)")
	Doc("gru" + l.Suffix + ": gates 0 and 1 are σ(x+q), gate 2 is tanh(x+gate1*q); third = q[2]; h = gate0*(last-gate2) + gate2. Gates of x and gate are gateStride bytes apart, those of q qStride; gate may be q.")
	h, third, gate, x, q, last := Arg("h"), Arg("third"), Arg("gate"), Arg("x"), Arg("q"), Arg("last")
	n, gs, qs := Arg("n"), Arg("gateStride"), Arg("qStride")
	at := func(p, stride reg.GPVirtual, g int) Mem { return gated(p, stride, nil, g) }
	each(l, n, []reg.GPVirtual{h, third, gate, x, q, last}, func(load func(Mem) V, store func(V, Mem)) {
		reset := l.Sigmoid(l.Add(load(at(x, gs, 1)), load(at(q, qs, 1))))
		store(reset, at(gate, gs, 1))
		product := load(at(q, qs, 2))
		store(product, Mem{Base: third})
		l.FMA213(product, reset, load(at(x, gs, 2)))
		fresh := l.Tanh(product)
		store(fresh, at(gate, gs, 2))
		z := l.Sigmoid(l.Add(load(at(x, gs, 0)), load(at(q, qs, 0))))
		store(z, at(gate, gs, 0))
		d := l.Sub(load(Mem{Base: last}), fresh)
		l.FMA213(d, z, fresh)
		store(d, Mem{Base: h})
	})
}

// slope is y(1-y), bend 1-y².
func slope(l *L, y V) V { return l.Mul(y, l.Sub(l.Load(l.F(1)), y)) }
func bend(l *L, y V) V {
	d := l.Load(l.F(1))
	l.FNMA231(d, y, y)
	return d
}

func lstmBack(l *L) {
	TEXT("lstmBack"+l.Suffix, NOSPLIT, "func(dx, dh, dc, ds, gate, c, last *float32, n, stride int)")
	Doc("lstmBack" + l.Suffix + ": the gradients dx of the sums from those of the state, dh+ds, and of the cell, dc, which becomes that of the cell before; dh becomes 0. Gates are stride bytes apart.")
	dx, dh, dc, ds, gate, c, last := Arg("dx"), Arg("dh"), Arg("dc"), Arg("ds"), Arg("gate"), Arg("c"), Arg("last")
	n, s := Arg("n"), Arg("stride")
	s3 := tripled(s)
	each(l, n, []reg.GPVirtual{dx, dh, dc, ds, gate, c, last}, func(load func(Mem) V, store func(V, Mem)) {
		d := l.Add(load(Mem{Base: dh}), load(Mem{Base: ds}))
		store(l.Zero(), Mem{Base: dh})
		tc := l.Tanh(load(Mem{Base: c}))
		out := load(gated(gate, s, s3, 3))
		store(l.Mul(l.Mul(d, tc), slope(l, out)), gated(dx, s, s3, 3))
		dcell := load(Mem{Base: dc})
		l.FMA231(dcell, l.Mul(d, out), bend(l, tc))
		in, cell := load(gated(gate, s, s3, 0)), load(gated(gate, s, s3, 2))
		store(l.Mul(l.Mul(dcell, cell), slope(l, in)), gated(dx, s, s3, 0))
		store(l.Mul(l.Mul(dcell, in), bend(l, cell)), gated(dx, s, s3, 2))
		forget := load(gated(gate, s, s3, 1))
		store(l.Mul(l.Mul(dcell, load(Mem{Base: last})), slope(l, forget)), gated(dx, s, s3, 1))
		store(l.Mul(dcell, forget), Mem{Base: dc})
	})
}

func gruBack(l *L) {
	TEXT("gruBack"+l.Suffix, NOSPLIT, "func(dx, dq, dh, ds, gate, third, last *float32, n, stride int)")
	Doc("gruBack" + l.Suffix + ": the gradients dx of the projected input and dq of the product from that of the state, dh+ds; dh becomes what passes by the product. Gates are stride bytes apart.")
	dx, dq, dh, ds, gate, third, last := Arg("dx"), Arg("dq"), Arg("dh"), Arg("ds"), Arg("gate"), Arg("third"), Arg("last")
	n, s := Arg("n"), Arg("stride")
	at := func(p reg.GPVirtual, g int) Mem { return gated(p, s, nil, g) }
	each(l, n, []reg.GPVirtual{dx, dq, dh, ds, gate, third, last}, func(load func(Mem) V, store func(V, Mem)) {
		d := l.Add(load(Mem{Base: dh}), load(Mem{Base: ds}))
		z, fresh := load(at(gate, 0)), load(at(gate, 2))
		dz := l.Mul(l.Mul(l.Sub(load(Mem{Base: last}), fresh), d), slope(l, z))
		store(dz, at(dx, 0))
		store(dz, at(dq, 0))
		by := l.Mul(d, z)
		store(by, Mem{Base: dh})
		dn := l.Mul(l.Sub(d, by), bend(l, fresh))
		store(dn, at(dx, 2))
		reset := load(at(gate, 1))
		store(l.Mul(dn, reset), at(dq, 2))
		dr := l.Mul(l.Mul(dn, load(Mem{Base: third})), slope(l, reset))
		store(dr, at(dx, 1))
		store(dr, at(dq, 1))
	})
}
