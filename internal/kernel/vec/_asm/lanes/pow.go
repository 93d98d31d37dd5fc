package lanes

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// Pow needs more than float32 in between: an error of one unit in log2 a is multiplied by up to 150. So its middle part works on
// float64 lanes, half as many to a vector, one half of the float32 vector after the other.

var doubles = map[uint64]Const{}

// D is the float64 constant x in every lane.
func (l *L) D(x float64) Const {
	u := math.Float64bits(x)
	k, ok := doubles[u]
	if !ok {
		k = Const{GLOBL(fmt.Sprintf("d%016x", u), attr.RODATA|attr.NOPTR)}
		for i := range 4 {
			DATA(8*i, U64(u))
		}
		doubles[u] = k
	}
	return k
}

func (l *L) loadD(c Const) V { d := l.New(); VBROADCASTSD(c.Mem, d); return d }

func (l *L) addD(a V, b Op) V { return l.two(insn{VADDPD, VADDPD_BCST}, a, b) }
func (l *L) subD(a V, b Op) V { return l.two(insn{VSUBPD, VSUBPD_BCST}, a, b) }
func (l *L) mulD(a V, b Op) V { return l.two(insn{VMULPD, VMULPD_BCST}, a, b) }
func (l *L) divD(a V, b Op) V { return l.two(insn{VDIVPD, VDIVPD_BCST}, a, b) }
func (l *L) minD(a V, b Op) V { return l.two(insn{VMINPD, VMINPD_BCST}, a, b) }
func (l *L) maxD(a V, b Op) V { return l.two(insn{VMAXPD, VMAXPD_BCST}, a, b) }

func (l *L) hornerD(x V, c []float64) V {
	p := l.loadD(l.D(c[len(c)-1]))
	for i := len(c) - 2; i >= 0; i-- {
		l.emit(insn{VFMADD213PD, VFMADD213PD_BCST}, x, l.D(c[i]), p)
	}
	return p
}

// log(m)/(2s) as a function of s², with s = (m-1)/(m+1) in [-1/7, 1/5].
var atanhTail = Fit(func(z float64) float64 {
	sum := 0.0
	for k := 30; k >= 0; k-- {
		sum = sum*z + 1/float64(2*k+1)
	}
	return sum
}, 0, 0.04, 7)

// 2^r on [-1/2, 1/2].
var exp2Poly = Fit(math.Exp2, -0.5, 0.5, 8)

// powHalf is m^b·2^(e·b) on float64 lanes.
func (l *L) powHalf(m, e, b V) V {
	one := l.D(1)
	s := l.divD(l.subD(m, one), l.addD(m, one))
	t := l.mulD(l.mulD(s, l.hornerD(l.mulD(s, s), atanhTail)), l.D(2*math.Log2E))
	t = l.mulD(l.addD(t, e), b)
	t = l.maxD(l.loadD(l.D(-200)), l.minD(l.loadD(l.D(200)), t)) // NaN stays
	n := l.New()
	if l.Wide() {
		VRNDSCALEPD(U8(Nearest), t, n)
	} else {
		VROUNDPD(U8(Nearest), t, n)
	}
	p := l.hornerD(l.subD(t, n), exp2Poly)
	// 2^n by way of the exponent: n + 1.5·2^52 has n in its lowest bits.
	i := l.addD(n, l.D(0x1.8p52+1023))
	VPSLLQ(U8(52), i, i)
	return l.mulD(p, i)
}

// half is half h of the float32 lanes as float64.
func (l *L) half(x V, h int) V {
	d := l.New()
	switch {
	case l.Wide() && h == 0:
		VCVTPS2PD(x.AsY(), d)
	case l.Wide():
		y := YMM()
		VEXTRACTF64X4(U8(1), x, y)
		VCVTPS2PD(y, d)
	case h == 0:
		VCVTPS2PD(x.AsX(), d)
	default:
		y := XMM()
		VEXTRACTF128(U8(1), x, y)
		VCVTPS2PD(y, d)
	}
	return d
}

// join rounds two halves to float32.
func (l *L) join(lo, hi V) V {
	d := l.New()
	if l.Wide() {
		a, b := YMM(), YMM()
		VCVTPD2PS(lo, a)
		VCVTPD2PS(hi, b)
		VINSERTF64X4(U8(1), b, a.AsZ(), d)
		return d
	}
	a, b := XMM(), XMM()
	VCVTPD2PSY(lo, a)
	VCVTPD2PSY(hi, b)
	VINSERTF128(U8(1), b, a.AsY(), d)
	return d
}

// Pow is a^b with the special values of Go's math.Pow.
func (l *L) Pow(a, b V) V {
	x := l.Abs(a)
	zero, inf := l.Zero(), l.F(math.Inf(1))
	// x = m·2^e with m in [3/4, 3/2); e is infinite for 0 and infinity, where m must be 1.
	small := l.Cmp(LT, x, l.Bits(0x00800000))
	y := l.Blend(small, l.Mul(x, l.F(1<<23)), x)
	m, e := l.split(y)
	e = l.Sub(e, l.Keep(small, l.Load(l.F(23))))
	isZero, isInf := l.Cmp(EQ, x, zero), l.Cmp(EQ, x, inf)
	one := l.Load(l.F(1))
	m = l.Blend(isZero, one, l.Blend(isInf, one, m))
	e = l.Blend(isZero, l.Load(l.F(math.Inf(-1))), l.Blend(isInf, l.Load(inf), e))
	m = l.Blend(l.Cmp(UN, a, a), a, m)
	r := l.join(l.powHalf(l.half(m, 0), l.half(e, 0), l.half(b, 0)), l.powHalf(l.half(m, 1), l.half(e, 1), l.half(b, 1)))

	// a below 0: the sign of an odd power, and NaN if b is no whole number and a is finite.
	h := l.Mul(b, l.F(0.5))
	whole := l.Cmp(EQ, l.Round(b, Nearest), b)
	odd := l.And(l.maskBits(whole), l.maskBits(l.Cmp(NEQ, l.Round(h, Nearest), h)))
	r = l.Xor(r, l.And(l.SignOf(a), odd))
	below := l.And(l.maskBits(l.Cmp(LT, a, zero)), l.maskBits(l.Cmp(LT, x, inf)))
	r = l.Or(r, l.andNot(l.maskBits(whole), below)) // all ones are a NaN
	// b = 0 or a = 1 give 1 whatever the other is; so does a = -1 with b infinite.
	r = l.Blend(l.Cmp(EQ, b, zero), one, r)
	r = l.Blend(l.Cmp(EQ, a, one), one, r)
	both := l.And(l.maskBits(l.Cmp(EQ, x, one)), l.maskBits(l.Cmp(EQ, l.Abs(b), inf)))
	return l.Or(l.And(one, both), l.andNot(both, r))
}

// andNot is b where the lanes of mask are 0.
func (l *L) andNot(mask, b V) V {
	d := l.New()
	if l.Wide() {
		VPANDND(b, mask, d)
	} else {
		VPANDN(b, mask, d)
	}
	return d
}
