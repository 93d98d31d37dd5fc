// Command update writes update_amd64.s and stubs_amd64.go of package update.
//
// No step is fused: products and sums round apart, as in the portable code, so that every instruction set gives the same bits.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
)

// A rule reads w, g and its slots (in[0], in[1], in[2:]) and returns the new w and slots. c gives coefficient i; g and w come scaled and decayed.
type rule struct {
	name, doc    string
	slots, coefs int
	step         func(l *L, w, g V, s []V, c []V) (V, []V)
}

var rules = []rule{
	{"sgd", "w -= g*lr", 0, 1, func(l *L, w, g V, _, c []V) (V, []V) {
		return l.Sub(w, l.Mul(g, c[0])), nil
	}},
	{"momentum", "m = m*mu - g*lr; w += m", 1, 2, func(l *L, w, g V, s, c []V) (V, []V) {
		m := l.Sub(l.Mul(s[0], c[1]), l.Mul(g, c[0]))
		return l.Add(w, m), []V{m}
	}},
	{"nesterov", "m = m*mu - g*lr; w += m*mu - g*lr", 1, 2, func(l *L, w, g V, s, c []V) (V, []V) {
		d := l.Mul(g, c[0])
		m := l.Sub(l.Mul(s[0], c[1]), d)
		return l.Add(w, l.Sub(l.Mul(m, c[1]), d)), []V{m}
	}},
	{"adam", "m += (g-m)*b1; v += (g*g-v)*b2; w -= m*alpha/(sqrt(v)+eps)", 2, 4, func(l *L, w, g V, s, c []V) (V, []V) {
		m := l.Add(s[0], l.Mul(l.Sub(g, s[0]), c[1]))
		v := l.Add(s[1], l.Mul(l.Sub(l.Mul(g, g), s[1]), c[2]))
		return l.Sub(w, l.Div(l.Mul(m, c[0]), l.Add(l.Sqrt(v), c[3]))), []V{m, v}
	}},
	{"lion", "w -= sign(m*b1 + g*a1)*lr; m = m*b2 + g*a2", 1, 5, func(l *L, w, g V, s, c []V) (V, []V) {
		u := l.Add(l.Mul(s[0], c[1]), l.Mul(g, c[2]))
		sign := l.Blend(l.Cmp(EQU, u, l.Zero()), u, l.Or(l.SignOf(u), l.F(1)))
		m := l.Add(l.Mul(s[0], c[3]), l.Mul(g, c[4]))
		return l.Sub(w, l.Mul(sign, c[0])), []V{m}
	}},
	{"rms", "v = v*rho + g*g*a; w -= g*lr/sqrt(v+eps)", 1, 4, func(l *L, w, g V, s, c []V) (V, []V) {
		v := l.Add(l.Mul(s[0], c[1]), l.Mul(l.Mul(g, g), c[2]))
		return l.Sub(w, l.Div(l.Mul(g, c[0]), l.Sqrt(l.Add(v, c[3])))), []V{v}
	}},
	{"rmsMomentum", "v = v*rho + g*g*a; m = m*mu + g*lr/sqrt(v+eps); w -= m", 2, 5, func(l *L, w, g V, s, c []V) (V, []V) {
		v := l.Add(l.Mul(s[0], c[1]), l.Mul(l.Mul(g, g), c[2]))
		m := l.Add(l.Mul(s[1], c[4]), l.Div(l.Mul(g, c[0]), l.Sqrt(l.Add(v, c[3]))))
		return l.Sub(w, m), []V{v, m}
	}},
	{"rmsCentered", "v = v*rho + g*g*a; m = m*mu + g*lr/sqrt(v-avg*avg+eps) with avg = avg*rho + g*a; w -= m", 3, 5, func(l *L, w, g V, s, c []V) (V, []V) {
		v := l.Add(l.Mul(s[0], c[1]), l.Mul(l.Mul(g, g), c[2]))
		avg := l.Add(l.Mul(s[2], c[1]), l.Mul(g, c[2]))
		den := l.Sqrt(l.Add(l.Sub(v, l.Mul(avg, avg)), c[3]))
		m := l.Add(l.Mul(s[1], c[4]), l.Div(l.Mul(g, c[0]), den))
		return l.Sub(w, m), []V{v, m, avg}
	}},
}

func main() {
	ConstraintExpr("amd64")
	for _, l := range Targets {
		for _, r := range rules {
			emit(l, r)
		}
	}
	Generate()
}

func emit(l *L, r rule) {
	TEXT(r.name+l.Suffix, NOSPLIT, "func(w, grad, s0, s1, s2 []float32, c *[8]float32)")
	Doc(fmt.Sprintf("%s%s: with g = grad*c[0] and w -= w*c[1], %s, for the elements of w, with %d lanes. The coefficients are c[2], c[3], ….", r.name, l.Suffix, r.doc, l.Width))
	n := Load(Param("w").Len(), GP64()).(reg.GPVirtual)
	c := Arg("c")
	coef := func(i int) V {
		d := l.New()
		VBROADCASTSS(Mem{Base: c, Disp: 4 * i}, d)
		return d
	}
	scale, decay := coef(0), coef(1)
	var coefs []V
	for i := range r.coefs {
		coefs = append(coefs, coef(2+i))
	}
	var slots []reg.Register
	w, g := Load(Param("w").Base(), GP64()), Load(Param("grad").Base(), GP64())
	for i := range r.slots {
		slots = append(slots, Load(Param(fmt.Sprint("s", i)).Base(), GP64()))
	}
	l.Loop(n, 1, func(at func(reg.Register) Mem, m M) {
		load := func(p reg.Register) V {
			if m != nil {
				return l.LoadMasked(at(p), m)
			}
			return l.Load(at(p))
		}
		store := func(v V, p reg.Register) {
			if m != nil {
				l.StoreMasked(v, m, at(p))
			} else {
				l.Store(v, at(p))
			}
		}
		gv := l.Mul(scale, load(g))
		var s []V
		for _, p := range slots {
			s = append(s, load(p))
		}
		wv := load(w)
		wv = l.Sub(wv, l.Mul(wv, decay))
		wv, s = r.step(l, wv, gv, s, coefs)
		store(wv, w)
		for i, p := range slots {
			store(s[i], p)
		}
	})
	VZEROUPPER()
	RET()
}
