// Command vec writes vec_amd64.s and stubs_amd64.go of package vec.
package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
)

func main() {
	ConstraintExpr("amd64")
	for _, l := range Targets {
		for _, f := range unary {
			Map{Name: f.name, Doc: "dst[i] = " + f.doc, Srcs: []string{"a"}, Unroll: f.unroll, Body: func(l *L, s, _ []V) V { return f.body(l, s[0]) }}.Emit(l)
		}
		for _, f := range binary {
			unroll := 4
			if f.name == "pow" {
				unroll = 1 // its 150 instructions keep the CPU busy
			}
			Map{Name: f.name + "VV", Doc: "dst[i] = " + f.doc + "(a[i], b[i])", Srcs: []string{"a", "b"}, Unroll: unroll, Body: func(l *L, s, _ []V) V { return f.body(l, s[0], s[1]) }}.Emit(l)
			Map{Name: f.name + "VS", Doc: "dst[i] = " + f.doc + "(a[i], s)", Srcs: []string{"a"}, Scalars: []string{"s"}, Unroll: unroll, Body: func(l *L, s, t []V) V { return f.body(l, s[0], t[0]) }}.Emit(l)
			if !f.commutes {
				Map{Name: f.name + "SV", Doc: "dst[i] = " + f.doc + "(s, a[i])", Srcs: []string{"a"}, Scalars: []string{"s"}, Unroll: unroll, Body: func(l *L, s, t []V) V { return f.body(l, t[0], s[0]) }}.Emit(l)
			}
		}
		Map{Name: "mulAddVVV", Doc: "dst[i] = a[i]*b[i] + c[i]", Srcs: []string{"a", "b", "c"}, Unroll: 4, Body: func(l *L, s, _ []V) V { return fma(l, s[0], s[1], s[2]) }}.Emit(l)
		Map{Name: "mulAddVSV", Doc: "dst[i] = a[i]*s + c[i]", Srcs: []string{"a", "c"}, Scalars: []string{"s"}, Unroll: 4, Body: func(l *L, s, t []V) V { return fma(l, s[0], t[0], s[1]) }}.Emit(l)
		Map{Name: "mulAddVSS", Doc: "dst[i] = a[i]*s + t", Srcs: []string{"a"}, Scalars: []string{"s", "t"}, Unroll: 4, Body: func(l *L, s, t []V) V { return fma(l, s[0], t[0], t[1]) }}.Emit(l)
		narrow(l)
	}
	Generate()
}

func fma(l *L, a, b, c V) V { l.FMA213(a, b, c); return a }

var unary = []struct {
	name, doc string
	unroll    int
	body      func(l *L, x V) V
}{
	{"neg", "-a[i]", 4, func(l *L, x V) V { return l.Xor(x, l.Bits(0x80000000)) }},
	{"abs", "|a[i]|", 4, func(l *L, x V) V { return l.Abs(x) }},
	{"sign", "the sign of a[i], as -1, 0 or 1", 2, func(l *L, x V) V {
		return l.Blend(l.Cmp(EQU, x, l.Zero()), x, l.Or(l.SignOf(x), l.F(1)))
	}},
	{"square", "a[i]²", 4, func(l *L, x V) V { return l.Mul(x, x) }},
	{"sqrt", "√a[i]", 2, func(l *L, x V) V { return l.Sqrt(x) }},
	{"rsqrt", "1/√a[i]", 2, func(l *L, x V) V { return l.Div(l.Load(l.F(1)), l.Sqrt(x)) }},
	{"recip", "1/a[i]", 2, func(l *L, x V) V { return l.Div(l.Load(l.F(1)), x) }},
	{"exp", "e^a[i]", 1, func(l *L, x V) V { return l.Exp(x) }},
	{"expm1", "e^a[i] - 1", 1, func(l *L, x V) V { return l.Expm1(x) }},
	{"log", "log a[i]", 1, func(l *L, x V) V { return l.Log(x) }},
	{"log1p", "log(1 + a[i])", 1, func(l *L, x V) V { return l.Log1p(x) }},
	{"tanh", "tanh a[i]", 1, func(l *L, x V) V { return l.Tanh(x) }},
	{"sigmoid", "1/(1 + e^-a[i])", 1, func(l *L, x V) V { return l.Sigmoid(x) }},
	{"softplus", "log(1 + e^a[i])", 1, func(l *L, x V) V { return l.Softplus(x) }},
	{"erf", "erf a[i]", 1, func(l *L, x V) V { return l.Erf(x) }},
	{"floor", "⌊a[i]⌋", 4, func(l *L, x V) V { return l.Round(x, Floor) }},
	{"ceil", "⌈a[i]⌉", 4, func(l *L, x V) V { return l.Round(x, Ceil) }},
	{"round", "a[i] to the nearest whole number, ties to even", 4, func(l *L, x V) V { return l.Round(x, Nearest) }},
	{"relu", "a[i] < 0 ? 0 : a[i]", 4, func(l *L, x V) V { return l.Max(l.Zero(), x) }},
}

var binary = []struct {
	name, doc string
	commutes  bool
	body      func(l *L, a, b V) V
}{
	{"add", "sum", true, func(l *L, a, b V) V { return l.Add(a, b) }},
	{"sub", "difference", false, func(l *L, a, b V) V { return l.Sub(a, b) }},
	{"mul", "product", true, func(l *L, a, b V) V { return l.Mul(a, b) }},
	{"div", "quotient", false, func(l *L, a, b V) V { return l.Div(a, b) }},
	// VMAXPS gives its second operand for NaN and for two zeros: take both orders, and them to get +0 for (+0, -0).
	{"max", "max", true, func(l *L, a, b V) V {
		return l.Blend(l.Cmp(UN, a, b), l.Add(a, b), l.And(l.Max(a, b), l.Max(b, a)))
	}},
	{"min", "min", true, func(l *L, a, b V) V {
		return l.Blend(l.Cmp(UN, a, b), l.Add(a, b), l.Or(l.Min(a, b), l.Min(b, a)))
	}},
	{"pow", "pow", false, func(l *L, a, b V) V { return l.Pow(a, b) }},
	{"reluGrad", "a if b > 0 else 0: with", false, func(l *L, a, b V) V { return l.Keep(l.Cmp(GT, b, l.Zero()), a) }},
}

var compares = []struct {
	name string
	pred int
}{{"eq", EQ}, {"ne", NEQ}, {"lt", LT}, {"le", LE}, {"gt", GT}, {"ge", GE}}

// bytesFirst emits a function whose other side is narrower than float32, so that there is no masked tail on AVX2. It does whole
// vectors alone and returns how many elements it did.
func bytesFirst(l *L, name, doc, sig string, slices []string, scalars []string, body func(at func(p string, size int) Mem, s []V)) {
	TEXT(name+l.Suffix, NOSPLIT, sig)
	Doc(name + l.Suffix + ": " + doc + ", for whole vectors of the shortest slice; it returns how many elements those are.")
	n := GP64()
	Load(Param(slices[0]).Len(), n)
	base := map[string]Op{slices[0]: Load(Param(slices[0]).Base(), GP64())}
	for _, s := range slices[1:] {
		m := GP64()
		Load(Param(s).Len(), m)
		CMPQ(m, n)
		CMOVQLT(m, n)
		base[s] = Load(Param(s).Base(), GP64())
	}
	var sc []V
	for _, s := range scalars {
		sc = append(sc, l.Broadcast(s))
	}
	ANDQ(I8(int8(-l.Width)), n)
	i := GP64()
	XORQ(i, i)
	id := name + l.Suffix
	JMP(LabelRef(id + "check"))
	Label(id + "loop")
	body(func(p string, size int) Mem {
		return Mem{Base: base[p].(reg.Register), Index: i, Scale: uint8(size)}
	}, sc)
	ADDQ(U32(uint32(l.Width)), i)
	Label(id + "check")
	CMPQ(i, n)
	JLT(LabelRef(id + "loop"))
	Store(i, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

func narrow(l *L) {
	for _, c := range compares {
		bytesFirst(l, c.name+"VV", "dst[i] = 1 if a[i] "+c.name+" b[i], else 0", "func(dst []uint8, a, b []float32) int", []string{"dst", "a", "b"}, nil,
			func(at func(string, int) Mem, _ []V) {
				l.StoreMaskBytes(l.Cmp(c.pred, l.Load(at("a", 4)), at("b", 4)), at("dst", 1))
			})
		bytesFirst(l, c.name+"VS", "dst[i] = 1 if a[i] "+c.name+" s, else 0", "func(dst []uint8, a []float32, s float32) int", []string{"dst", "a"}, []string{"s"},
			func(at func(string, int) Mem, s []V) {
				l.StoreMaskBytes(l.Cmp(c.pred, l.Load(at("a", 4)), s[0]), at("dst", 1))
			})
	}
	sel := func(name, doc, sig string, slices, scalars []string, pick func(at func(string, int) Mem, s []V) (a, b V)) {
		bytesFirst(l, name, doc, sig, slices, scalars, func(at func(string, int) Mem, s []V) {
			m := l.LoadMaskBytes(at("mask", 1))
			a, b := pick(at, s)
			l.Store(l.Blend(m, a, b), at("dst", 4))
		})
	}
	sel("selectVV", "dst[i] = mask[i] != 0 ? a[i] : b[i]", "func(dst []float32, mask []uint8, a, b []float32) int", []string{"dst", "mask", "a", "b"}, nil,
		func(at func(string, int) Mem, _ []V) (V, V) { return l.Load(at("a", 4)), l.Load(at("b", 4)) })
	sel("selectVS", "dst[i] = mask[i] != 0 ? a[i] : s", "func(dst []float32, mask []uint8, a []float32, s float32) int", []string{"dst", "mask", "a"}, []string{"s"},
		func(at func(string, int) Mem, s []V) (V, V) { return l.Load(at("a", 4)), s[0] })
	sel("selectSV", "dst[i] = mask[i] != 0 ? s : a[i]", "func(dst []float32, mask []uint8, a []float32, s float32) int", []string{"dst", "mask", "a"}, []string{"s"},
		func(at func(string, int) Mem, s []V) (V, V) { return s[0], l.Load(at("a", 4)) })

	bytesFirst(l, "toBFloat16", "dst[i] = a[i] rounded to nearest, ties to even", "func(dst []uint16, a []float32) int", []string{"dst", "a"}, nil,
		func(at func(string, int) Mem, _ []V) {
			x := l.Load(at("a", 4))
			lsb := l.And(l.Shr(x, 16), l.Bits(1))
			r := l.Shr(l.AddI(l.AddI(x, l.Bits(0x7fff)), lsb), 16)
			nan := l.Or(l.Shr(x, 16), l.Bits(0x40))
			l.StoreLow16(l.Blend(l.Cmp(UN, x, x), nan, r), at("dst", 2))
		})
	bytesFirst(l, "fromBFloat16", "dst[i] = a[i]", "func(dst []float32, a []uint16) int", []string{"dst", "a"}, nil,
		func(at func(string, int) Mem, _ []V) {
			d := l.New()
			VPMOVZXWD(at("a", 2), d)
			l.Store(l.Shl(d, 16), at("dst", 4))
		})
	bytesFirst(l, "toInt32", "dst[i] = a[i] towards 0, saturated; 0 for NaN", "func(dst []int32, a []float32) int", []string{"dst", "a"}, nil,
		func(at func(string, int) Mem, _ []V) {
			x := l.Load(at("a", 4))
			r := l.Blend(l.Cmp(GE, x, l.F(1<<31)), l.Load(l.Bits(math.MaxInt32)), l.TruncInt(x))
			l.Store(l.Blend(l.Cmp(UN, x, x), l.Zero(), r), at("dst", 4))
		})
	bytesFirst(l, "fromInt32", "dst[i] = a[i]", "func(dst []float32, a []int32) int", []string{"dst", "a"}, nil,
		func(at func(string, int) Mem, _ []V) { l.Store(l.ToFloat(at("a", 4)), at("dst", 4)) })
	bytesFirst(l, "fromUint8", "dst[i] = a[i]*s", "func(dst []float32, a []uint8, s float32) int", []string{"dst", "a"}, []string{"s"},
		func(at func(string, int) Mem, s []V) {
			d := l.New()
			VPMOVZXBD(at("a", 1), d)
			l.Store(l.Mul(l.ToFloat(d), s[0]), at("dst", 4))
		})
	bytesFirst(l, "fromInt8", "dst[i] = a[i]*s", "func(dst []float32, a []int8, s float32) int", []string{"dst", "a"}, []string{"s"},
		func(at func(string, int) Mem, s []V) {
			d := l.New()
			VPMOVSXBD(at("a", 1), d)
			l.Store(l.Mul(l.ToFloat(d), s[0]), at("dst", 4))
		})
	for _, cos := range []bool{false, true} {
		name := map[bool]string{false: "sin", true: "cos"}[cos]
		trig(l, name, cos)
	}
}
