// Package lanes writes vector code once for AVX2 and for AVX-512.
//
// Terminology: a lane holds one float32. An L is the target: 8 lanes in a YMM register (AVX2 and FMA3) or 16 in a ZMM register
// (AVX-512 F, BW, DQ, VL). Methods named after an arithmetic step emit one instruction, or the few that stand for it on that
// target, and return a fresh virtual register; avo allocates the physical ones. A mask is a K register or, on AVX2, a
// vector of all-ones and all-zeros lanes. Constants are read from memory, once per use: as a broadcast operand on AVX-512,
// as 32 bytes on AVX2. So they cost no registers.
package lanes

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

// V is a vector of L.Width lanes.
type V = reg.VecVirtual

// M is a mask of lanes.
type M = reg.Register

// L is a target instruction set.
type L struct{ simd.Level }

// Targets are the instruction sets that everything is generated for.
var Targets = targets()

func targets() []*L {
	var out []*L
	for _, l := range simd.Levels {
		out = append(out, &L{l})
	}
	return out
}

// New is an unset register.
func (l *L) New() V {
	if l.Wide() {
		return ZMM()
	}
	return YMM()
}

// Const is a constant of 4 bytes in every lane.
type Const struct{ Mem }

var consts = map[uint32]Const{}

// Bits is the constant with these bits in every lane.
func (l *L) Bits(u uint32) Const {
	k, ok := consts[u]
	if !ok {
		k = Const{GLOBL(fmt.Sprintf("k%08x", u), attr.RODATA|attr.NOPTR)}
		for i := range 8 {
			DATA(4*i, U32(u))
		}
		consts[u] = k
	}
	return k
}

// F is the constant x in every lane.
func (l *L) F(x float64) Const { return l.Bits(math.Float32bits(float32(x))) }

// opmem is the operand as avo wants it.
func opmem(o Op) Op {
	if k, ok := o.(Const); ok {
		return k.Mem
	}
	return o
}

type insn struct{ plain, bcst func(...Op) }

// emit writes d = in(a, b), b being a register, memory or a constant.
func (l *L) emit(in insn, a, b Op, d Op) {
	if k, ok := b.(Const); ok && l.Wide() {
		in.bcst(k.Mem, a, d)
		return
	}
	in.plain(opmem(b), a, d)
}

func (l *L) two(in insn, a V, b Op) V {
	d := l.New()
	l.emit(in, a, b, d)
	return d
}

// Load is a copy of the register, memory or constant.
func (l *L) Load(o Op) V {
	d := l.New()
	switch o := o.(type) {
	case Const:
		VBROADCASTSS(o.Mem, d)
	default:
		VMOVUPS(o, d)
	}
	return d
}

// Zero is 0 in every lane.
func (l *L) Zero() V {
	d := l.New()
	if l.Wide() {
		VPXORD(d, d, d)
	} else {
		VXORPS(d, d, d)
	}
	return d
}

// Arithmetic: a op b.
func (l *L) Add(a V, b Op) V { return l.two(insn{VADDPS, VADDPS_BCST}, a, b) }
func (l *L) Sub(a V, b Op) V { return l.two(insn{VSUBPS, VSUBPS_BCST}, a, b) }
func (l *L) Mul(a V, b Op) V { return l.two(insn{VMULPS, VMULPS_BCST}, a, b) }
func (l *L) Div(a V, b Op) V { return l.two(insn{VDIVPS, VDIVPS_BCST}, a, b) }

// Min is a < b ? a : b, so b if either is NaN or both are zeros.
func (l *L) Min(a V, b Op) V { return l.two(insn{VMINPS, VMINPS_BCST}, a, b) }

// Max is a > b ? a : b, so b if either is NaN or both are zeros.
func (l *L) Max(a V, b Op) V { return l.two(insn{VMAXPS, VMAXPS_BCST}, a, b) }

// Bitwise operations.
func (l *L) And(a V, b Op) V { return l.two(insn{VANDPS, VANDPS_BCST}, a, b) }
func (l *L) Or(a V, b Op) V  { return l.two(insn{VORPS, VORPS_BCST}, a, b) }
func (l *L) Xor(a V, b Op) V { return l.two(insn{VXORPS, VXORPS_BCST}, a, b) }

// Integer steps on 32-bit lanes.
func (l *L) AddI(a V, b Op) V { return l.two(insn{VPADDD, VPADDD_BCST}, a, b) }
func (l *L) SubI(a V, b Op) V { return l.two(insn{VPSUBD, VPSUBD_BCST}, a, b) }

func (l *L) Shl(a V, n int) V { d := l.New(); VPSLLD(U8(n), a, d); return d }
func (l *L) Shr(a V, n int) V { d := l.New(); VPSRLD(U8(n), a, d); return d }
func (l *L) Sar(a V, n int) V { d := l.New(); VPSRAD(U8(n), a, d); return d }

func (l *L) ToInt(a Op) V    { d := l.New(); VCVTPS2DQ(a, d); return d }  // nearest, ties to even
func (l *L) TruncInt(a Op) V { d := l.New(); VCVTTPS2DQ(a, d); return d } // towards 0
func (l *L) ToFloat(a Op) V  { d := l.New(); VCVTDQ2PS(a, d); return d }
func (l *L) Sqrt(a Op) V     { d := l.New(); VSQRTPS(a, d); return d }

// FMA213 sets x = x*y + z.
func (l *L) FMA213(x, y V, z Op) { l.emit(insn{VFMADD213PS, VFMADD213PS_BCST}, y, z, x) }

// FMA231 sets acc += a*b.
func (l *L) FMA231(acc, a V, b Op) { l.emit(insn{VFMADD231PS, VFMADD231PS_BCST}, a, b, acc) }

// FNMA231 sets acc -= a*b.
func (l *L) FNMA231(acc, a V, b Op) { l.emit(insn{VFNMADD231PS, VFNMADD231PS_BCST}, a, b, acc) }

// Rounding modes of Round.
const (
	Nearest = 8
	Floor   = 9
	Ceil    = 10
)

// Round is a rounded to an integer; ties go to even under Nearest.
func (l *L) Round(a Op, mode int) V {
	d := l.New()
	if l.Wide() {
		VRNDSCALEPS(U8(mode), a, d)
	} else {
		VROUNDPS(U8(mode), a, d)
	}
	return d
}

// Predicates of Cmp. U: true if unordered.
const (
	EQ  = 0x00
	LT  = 0x11
	LE  = 0x12
	NEQ = 0x04
	GE  = 0x1d
	GT  = 0x1e
	UN  = 0x03 // either is NaN
	EQU = 0x08 // equal or unordered
	NLT = 0x15 // not less: greater, equal or unordered
)

// Cmp is the mask of a pred b.
func (l *L) Cmp(pred int, a V, b Op) M {
	if !l.Wide() {
		d := YMM()
		VCMPPS(U8(pred), opmem(b), a, d)
		return d
	}
	k := K()
	if c, ok := b.(Const); ok {
		VCMPPS_BCST(U8(pred), c.Mem, a, k)
	} else {
		VCMPPS(U8(pred), b, a, k)
	}
	return k
}

// Blend is yes where m, else no.
func (l *L) Blend(m M, yes Op, no V) V {
	d := l.New()
	if !l.Wide() {
		VBLENDVPS(m, opmem(yes), no, d)
		return d
	}
	if c, ok := yes.(Const); ok {
		VBLENDMPS_BCST(c.Mem, no, m, d)
	} else {
		VBLENDMPS(yes, no, m, d)
	}
	return d
}

// Keep is a where m, else 0.
func (l *L) Keep(m M, a V) V {
	d := l.New()
	if l.Wide() {
		VMOVAPS_Z(a, m, d)
	} else {
		VANDPS(a, m, d)
	}
	return d
}

// Abs clears the sign.
func (l *L) Abs(a V) V { return l.And(a, l.Bits(0x7fffffff)) }

// SignOf keeps nothing but the sign bit.
func (l *L) SignOf(a V) V { return l.And(a, l.Bits(0x80000000)) }

// Horner is c[0] + x*(c[1] + x*(c[2] + …)).
func (l *L) Horner(x V, c []float64) V {
	p := l.Load(l.F(c[len(c)-1]))
	for i := len(c) - 2; i >= 0; i-- {
		l.FMA213(p, x, l.F(c[i]))
	}
	return p
}

// Broadcast is the float32 parameter in every lane. (Not by avo's Load and Store, which take MOVSS: a Xeon of the Sapphire Rapids kind waits some 250 cycles for each instruction of the old
// encoding while upper halves of vector registers are in use.)
func (l *L) Broadcast(param string) V {
	d := l.New()
	VBROADCASTSS(address(Param(param)), d)
	return d
}

// Give stores the float32 result.
func Give(x Op) { VMOVSS(x, address(ReturnIndex(0))) }

func address(c gotypes.Component) Mem {
	b, err := c.Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

// TailMask sets up a mask of the first n lanes, n being in [0, Width).
func (l *L) TailMask(n reg.GPVirtual) M {
	p := GP64()
	LEAQ(tailTable(), p)
	NEGQ(n)
	d := l.New()
	VMOVUPS(Mem{Base: p, Index: n, Scale: 4, Disp: 64}, d)
	if !l.Wide() {
		return d
	}
	k := K()
	VPMOVD2M(d, k)
	return k
}

var tails Mem

// tailTable is 16 times -1, then 16 times 0.
func tailTable() Mem {
	if tails.Symbol.Name == "" {
		tails = GLOBL("tails", attr.RODATA|attr.NOPTR)
		for i := range 32 {
			v := uint32(0xffffffff)
			if i >= 16 {
				v = 0
			}
			DATA(4*i, U32(v))
		}
	}
	return tails
}

// LoadMasked reads the lanes of m and sets the others to 0; it touches no memory of theirs.
func (l *L) LoadMasked(p Mem, m M) V {
	d := l.New()
	if l.Wide() {
		VMOVUPS_Z(p, m, d)
	} else {
		VMASKMOVPS(p, m, d)
	}
	return d
}

// Store writes every lane.
func (l *L) Store(v V, p Mem) { VMOVUPS(v, p) }

// StoreMasked writes the lanes of m alone.
func (l *L) StoreMasked(v V, m M, p Mem) {
	if l.Wide() {
		VMOVUPS(v, m, p)
	} else {
		VMASKMOVPS(v, m, p)
	}
}

// StoreMaskBytes writes a byte per lane: 1 where m, else 0.
func (l *L) StoreMaskBytes(m M, p Mem) {
	if l.Wide() {
		x := XMM()
		VMOVDQU8_Z(l.ones(), m, x)
		VMOVDQU(x, p)
		return
	}
	lo, hi := m.(reg.VecVirtual).AsX(), XMM()
	VEXTRACTI128(U8(1), m, hi)
	VPACKSSDW(hi, lo, hi)
	VPACKSSWB(hi, hi, hi)
	VPAND(l.ones(), hi, hi)
	VMOVQ(hi, p)
}

// ones is 16 bytes of 1.
func (l *L) ones() Mem { return l.Bits(0x01010101).Mem }

// LoadMaskBytes is the mask of the lanes whose bytes at p are not 0.
func (l *L) LoadMaskBytes(p Mem) M {
	d := l.New()
	VPMOVZXBD(p, d)
	if l.Wide() {
		k := K()
		VPTESTMD(d, d, k)
		return k
	}
	m := YMM()
	VPCMPGTD(l.Zero(), d, m)
	return m
}

// StoreLow16 writes the low halves of the lanes.
func (l *L) StoreLow16(v V, p Mem) {
	if l.Wide() {
		VPMOVDW(v, p)
		return
	}
	d := YMM()
	VPACKUSDW(v, v, d)
	VPERMQ(U8(0x08), d, d)
	VMOVDQU(d.AsX(), p)
}

// JumpIfAny goes to the label if any lane is in m.
func (l *L) JumpIfAny(m M, label string) {
	if l.Wide() {
		KORTESTW(m, m)
	} else {
		VPTEST(m, m)
	}
	JNE(LabelRef(label))
}
