package lanes

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// ln 2 in two parts: multiples of the first by a whole number under 256 are exact.
var (
	ln2Hi = math.Floor(math.Ln2*(1<<16)) / (1 << 16)
	ln2Lo = math.Ln2 - ln2Hi
)

// (e^r - 1 - r)/r² on [-ln2/2, ln2/2].
var expTail = Fit(func(r float64) float64 {
	if math.Abs(r) < 0.05 {
		return 0.5 + r*(1./6+r*(1./24+r*(1./120+r*(1./720+r/5040))))
	}
	return (math.Expm1(r) - r) / (r * r)
}, -math.Ln2/2, math.Ln2/2, 4)

// reduceExp splits x = n·ln2 + r with a whole n and |r| ≤ ln2/2.
func (l *L) reduceExp(x V) (n, r V) {
	n = l.Round(l.Mul(x, l.F(math.Log2E)), Nearest)
	r = l.Load(x)
	l.FNMA231(r, n, l.F(ln2Hi))
	l.FNMA231(r, n, l.F(ln2Lo))
	return n, r
}

// clamp is x limited to [lo, hi]; NaN stays.
func (l *L) clamp(x V, lo, hi float64) V {
	return l.Max(l.Load(l.F(lo)), l.Min(l.Load(l.F(hi)), x))
}

// Exp is e^x, over the whole range: to denormals, 0 and infinity.
func (l *L) Exp(x V) V {
	n, r := l.reduceExp(l.clamp(x, -104, 89))
	p := l.expPoly(r)
	if l.Wide() {
		VSCALEFPS(n, p, p)
		return p
	}
	// 2^n in two factors that are normal numbers; only the second product rounds.
	i := l.ToInt(n)
	h := l.Sar(i, 1)
	p = l.Mul(p, l.pow2(h))
	return l.Mul(p, l.pow2(l.SubI(i, h)))
}

// ExpDown is e^x for x at most 88, 0 where that is below the least normal number, or NaN. It takes AVX-512.
func (l *L) ExpDown(x V) V {
	k := l.Cmp(NLT, x, l.F(-126*math.Ln2))
	n, r := l.reduceExp(x)
	p := l.expPoly(r)
	VSCALEFPS_Z(n, p, k, p)
	return p
}

// ExpNormal is e^x for |x| ≤ 87, or NaN.
func (l *L) ExpNormal(x V) V {
	n, r := l.reduceExp(x)
	return l.Mul(l.expPoly(r), l.pow2(l.ToInt(n)))
}

func (l *L) expPoly(r V) V { return l.Horner(r, append([]float64{1, 1}, expTail...)) }

// pow2 is 2^i for the integer lanes i in [-126, 127].
func (l *L) pow2(i V) V { return l.Shl(l.AddI(i, l.Bits(127)), 23) }

// Expm1 is e^x - 1: with x = n·ln2 + r, twice (2^(n-1)·(e^r - 1) + (2^(n-1) - 1/2)).
func (l *L) Expm1(x V) V {
	n, r := l.reduceExp(l.clamp(x, -18, 89))
	q := l.Horner(r, expTail)
	p := l.Mul(r, r)
	l.FMA213(p, q, r)
	s := l.pow2(l.SubI(l.ToInt(n), l.Bits(1)))
	l.FMA213(p, s, l.Sub(s, l.F(0.5)))
	return l.Or(l.Add(p, p), l.SignOf(x))
}

// (log(1+f) - f + f²/2)/f³ on [-1/4, 1/2].
var logTail = Fit(func(f float64) float64 {
	if math.Abs(f) < 0.02 {
		s := 0.
		for k := 12; k >= 3; k-- {
			s = s*f + float64(2*(k&1)-1)/float64(k)
		}
		return s
	}
	return (math.Log1p(f) - f + f*f/2) / (f * f * f)
}, -0.25, 0.5, 8)

// Log is the natural logarithm; NaN below 0.
func (l *L) Log(x V) V {
	if l.Wide() {
		m, e, g := l.New(), l.New(), l.New()
		VGETMANTPS(U8(0xb), x, m) // in [3/4, 3/2), NaN below 0
		VGETEXPPS(x, e)
		VGETEXPPS(m, g)
		return l.logOf(m, l.Sub(e, g), nil)
	}
	// Make denormals normal.
	small := l.Cmp(LT, x, l.Bits(0x00800000))
	y := l.Blend(small, l.Mul(x, l.F(1<<23)), x)
	m, e := l.split(y)
	e = l.Sub(e, l.And(small.(V), l.F(23)))
	return l.logEnds(x, l.logOf(m, e, nil))
}

// split gives m in [3/4, 3/2) and e with x = m·2^e, for positive normal x.
func (l *L) split(x V) (m, e V) {
	i := l.Sar(l.SubI(x, l.F(0.75)), 23)
	return l.SubI(x, l.Shl(i, 23)), l.ToFloat(i)
}

// logOf is log(m) + e·ln2 + c.
func (l *L) logOf(m, e, c V) V {
	f := l.Sub(m, l.F(1))
	p := l.Horner(f, logTail)
	p = l.Mul(p, f)
	s := l.Mul(f, f)
	p = l.Mul(p, s)
	l.FNMA231(p, s, l.F(0.5))
	l.FMA231(p, e, l.F(ln2Lo))
	if c != nil {
		p = l.Add(p, c)
	}
	p = l.Add(p, f)
	l.FMA231(p, e, l.F(ln2Hi))
	return p
}

// logEnds puts in what the logarithm y of x must be at 0, infinity and NaN, and below 0.
func (l *L) logEnds(x, y V) V {
	y = l.Blend(l.Cmp(NLT, x, l.F(math.Inf(1))), x, y)
	zero := l.Zero()
	y = l.Blend(l.Cmp(EQ, x, zero), l.Load(l.F(math.Inf(-1))), y)
	return l.Blend(l.Cmp(LT, x, zero), l.Load(l.Bits(0x7fc00000)), y)
}

// Log1p is log(1+x). With u = 1+x rounded, it is log(u) + (x - (u-1))/u.
func (l *L) Log1p(x V) V {
	u := l.Add(x, l.F(1))
	m, e := l.split(u)
	c := l.Div(l.Sub(x, l.Sub(u, l.F(1))), u)
	return l.Or(l.logEnds(u, l.logOf(m, e, c)), l.SignOf(x))
}

// (tanh(x) - x)/x³ as a function of x² on [0, 0.625²].
var tanhTail = Fit(func(z float64) float64 {
	x := math.Sqrt(z)
	if x < 0.05 {
		return -1./3 + z*(2./15+z*(-17./315+z*62/2835))
	}
	return (math.Tanh(x) - x) / (x * z)
}, 0, 0.625*0.625, 5)

// Tanh is the hyperbolic tangent: an odd polynomial below 0.625, 1 - 2/(e^2|x| + 1) above.
func (l *L) Tanh(x V) V {
	t := l.Abs(x)
	e := l.ExpNormal(l.Min(l.Load(l.F(20)), l.Add(t, t)))
	big := l.Div(l.Load(l.F(-2)), l.Add(e, l.F(1)))
	big = l.Add(big, l.F(1))
	z := l.Mul(x, x)
	p := l.Mul(l.Horner(z, tanhTail), z)
	l.FMA213(p, t, t)
	r := l.Blend(l.Cmp(LT, t, l.F(0.625)), p, big)
	return l.Or(r, l.SignOf(x))
}

// Sigmoid is 1/(1 + e^-x), by way of e^-|x| so that it keeps its relative precision far below 0.
func (l *L) Sigmoid(x V) V {
	z := l.Exp(l.Or(x, l.Bits(0x80000000)))
	one := l.Load(l.F(1))
	num := l.Blend(l.Cmp(LT, x, l.Zero()), z, one)
	return l.Div(num, l.Add(z, one))
}

// Softplus is log(1 + e^x) = max(x, 0) + log1p(e^-|x|).
func (l *L) Softplus(x V) V {
	z := l.Exp(l.Or(x, l.Bits(0x80000000)))
	return l.Add(l.Log1p(z), l.Max(l.Zero(), x))
}

// erf(x)/x - 1 as a function of x² on [0, 0.95²], and -log(1 - erf(x)) on [0.95, 4].
var (
	erfSmall = Fit(func(z float64) float64 {
		x := math.Sqrt(z)
		if x < 1e-3 {
			return 2/math.SqrtPi*(1-z/3) - 1
		}
		return math.Erf(x)/x - 1
	}, 0, 0.95*0.95, 6)
	erfLarge = Fit(func(x float64) float64 { return -math.Log(math.Erfc(x)) }, 0.95, 4, 8)
)

// Erf is the error function: an odd polynomial below 0.95, 1 - exp(-p(|x|)) above (the form of N. Juffa's erff).
func (l *L) Erf(x V) V {
	t := l.Abs(x)
	q := l.Horner(l.Min(l.Load(l.F(4)), t), erfLarge)
	e := l.ExpNormal(l.Xor(q, l.Bits(0x80000000)))
	big := l.Sub(l.Load(l.F(1)), e)
	z := l.Mul(x, x)
	p := l.Horner(z, erfSmall)
	l.FMA213(p, t, t)
	r := l.Blend(l.Cmp(LT, t, l.F(0.95)), p, big)
	return l.Or(r, l.SignOf(x))
}

// π/2 in three parts of 24 bits each.
var halfPi = func() [3]float64 {
	a := float64(float32(math.Pi / 2))
	b := float64(float32(math.Pi/2 - a))
	const tail = 6.123233995736766e-17 // π/2 - float64(π/2)
	return [3]float64{a, b, math.Pi/2 - a - b + tail}
}()

var (
	sinTail = Fit(func(z float64) float64 {
		x := math.Sqrt(z)
		if x < 0.1 {
			return -1./6 + z*(1./120+z*(-1./5040+z/362880))
		}
		return (math.Sin(x) - x) / (x * z)
	}, 0, math.Pi*math.Pi/16, 3)
	cosTail = Fit(func(z float64) float64 {
		if z < 0.05 {
			return 1./24 + z*(-1./720+z*(1./40320-z/3628800))
		}
		return (math.Cos(math.Sqrt(z)) - 1 + z/2) / (z * z)
	}, 0, math.Pi*math.Pi/16, 3)
)

// SinLimit is the largest |x| that SinCos handles.
const SinLimit = 1 << 15

// SinCos is sin(x), or cos(x), for |x| ≤ SinLimit, NaN or infinite: x = n·π/2 + r, n mod 4 picks ±sin r or ±cos r.
func (l *L) SinCos(x V, cos bool) V {
	n := l.Round(l.Mul(x, l.F(2/math.Pi)), Nearest)
	r := l.Load(x)
	for _, c := range halfPi {
		l.FNMA231(r, n, l.F(c))
	}
	i := l.ToInt(n)
	if cos {
		i = l.AddI(i, l.Bits(1))
	}
	z := l.Mul(r, r)
	s := l.Mul(l.Horner(z, sinTail), z)
	l.FMA213(s, r, r)
	c := l.Horner(z, cosTail)
	l.FMA213(c, z, l.F(-0.5))
	l.FMA213(c, z, l.F(1))
	odd := l.Cmp(NEQ, l.ToFloat(l.AndI(i, l.Bits(1))), l.Zero())
	v := l.Blend(odd, c, s)
	if !cos {
		// sin(-0) = -0: r is +0 there.
		v = l.Or(v, l.And(l.SignOf(x), l.maskBits(l.Cmp(EQ, x, l.Zero()))))
	}
	return l.Xor(v, l.Shl(l.AndI(i, l.Bits(2)), 30))
}

// AndI is the bitwise and; for integer lanes.
func (l *L) AndI(a V, b Op) V { return l.And(a, b) }

// maskBits is all ones in the lanes of m.
func (l *L) maskBits(m any) V {
	if !l.Wide() {
		return m.(V)
	}
	d := l.New()
	VPMOVM2D(m.(Op), d)
	return d
}
