package lanes

import (
	"fmt"
	"math"
	"strings"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// An Instr combines two vectors of any size: VADDPS, VMAXPS, …
type Instr = func(...Op)

// Fold describes a function that combines the elements of slices into one number:
//
//	func NAME([DST []float32,] SRCS… []float32, SCALARS… float32) float32
//
// over the first n elements, n being the least of the lengths. The order of combination depends on n alone: lane i of
// accumulator j of 4 takes the elements at (4k+j)·Width + i, then the accumulators and then the lanes are combined in pairs.
type Fold struct {
	Name    string
	Doc     string
	Dst     bool // dst[i] = the term
	Srcs    []string
	Scalars []string
	Neutral float64 // where the accumulators start
	NaN     bool    // the result is NaN if any term is; for instructions that drop NaN
	Combine Instr
	Unroll  int
	Term    func(l *L, src, scalar []V) V
}

func signature(dst, slices, scalars []string, rest string) string {
	var p []string
	if s := append(append([]string{}, dst...), slices...); len(s) > 0 {
		p = append(p, strings.Join(s, ", ")+" []float32")
	}
	if len(scalars) > 0 {
		p = append(p, strings.Join(scalars, ", ")+" float32")
	}
	if rest != "" {
		p = append(p, rest)
	}
	return "func(" + strings.Join(p, ", ") + ")"
}

// Emit writes the function for l.
func (f Fold) Emit(l *L) {
	var dsts []string
	if f.Dst {
		dsts = []string{"dst"}
	}
	slices := append(dsts, f.Srcs...)
	TEXT(f.Name+l.Suffix, NOSPLIT, signature(nil, slices, f.Scalars, "")+" float32")
	Doc(fmt.Sprintf("%s%s: %s, with %d lanes.", f.Name, l.Suffix, f.Doc, l.Width))
	n, bases := l.bases(slices)
	var scalar []V
	for _, s := range f.Scalars {
		scalar = append(scalar, l.Broadcast(s))
	}
	acc := make([]V, f.Unroll)
	for i := range acc {
		acc[i] = l.Load(l.F(f.Neutral))
	}
	var nan M
	if f.NaN {
		nan = l.noLanes()
	}
	turn := 0
	l.Loop(n, f.Unroll, func(at func(reg.Register) Mem, m M) {
		var v []V
		for _, p := range bases[len(dsts):] {
			if m == nil {
				v = append(v, l.Load(at(p)))
			} else {
				v = append(v, l.LoadMasked(at(p), m))
			}
		}
		t := f.Term(l, v, scalar)
		if f.Dst {
			if m == nil {
				l.Store(t, at(bases[0]))
			} else {
				l.StoreMasked(t, m, at(bases[0]))
			}
		}
		if f.NaN {
			l.orInto(nan, l.Cmp(UN, t, t)) // lanes outside m hold the term of zeros, which is no NaN
		}
		if m != nil {
			t = l.Blend(m, t, l.Load(l.F(f.Neutral)))
		}
		a := acc[turn%f.Unroll]
		turn++
		f.Combine(t, a, a)
	})
	for s := 1; s < f.Unroll; s *= 2 {
		for i := 0; i+s < f.Unroll; i += 2 * s {
			f.Combine(acc[i+s], acc[i], acc[i])
		}
	}
	x := l.Across(acc[0], f.Combine)
	if f.NaN {
		end := fmt.Sprintf("nan%d", loops)
		l.jumpIfNone(nan, end)
		VMOVSS(l.F(math.NaN()).Mem, x)
		Label(end)
	}
	Give(x)
	VZEROUPPER()
	RET()
}

// bases loads the least length and the addresses of slices.
func (l *L) bases(slices []string) (reg.GPVirtual, []reg.Register) {
	n := GP64()
	var b []reg.Register
	for i, s := range slices {
		if i == 0 {
			Load(Param(s).Len(), n)
		} else {
			m := GP64()
			Load(Param(s).Len(), m)
			CMPQ(m, n)
			CMOVQLT(m, n)
		}
		b = append(b, Load(Param(s).Base(), GP64()))
	}
	return n, b
}

func (l *L) noLanes() M {
	if l.Wide() {
		k := K()
		KXORW(k, k, k)
		return k
	}
	return l.Zero()
}

// orInto adds the lanes of b to those of acc.
func (l *L) orInto(acc, b M) {
	if l.Wide() {
		KORW(b, acc, acc)
	} else {
		VORPS(b, acc, acc)
	}
}

func (l *L) jumpIfNone(m M, label string) {
	if l.Wide() {
		KORTESTW(m, m)
	} else {
		VPTEST(m, m)
	}
	JEQ(LabelRef(label))
}

// Across combines the lanes of v, halves first, into the first lane of the result.
func (l *L) Across(v V, in Instr) reg.VecVirtual {
	y := v.AsY()
	if l.Wide() {
		h := YMM()
		VEXTRACTF64X4(U8(1), v, h)
		in(h, y, h)
		y = h
	}
	x := XMM()
	VEXTRACTF128(U8(1), y, x)
	in(x, y.(reg.Vec).AsX(), x)
	t := XMM()
	VPERMILPS(U8(0x0e), x, t)
	in(t, x, x)
	VPERMILPS(U8(0x01), x, t)
	in(t, x, x)
	return x
}

// ColFold describes a function that combines the rows of row-major matrices, each column apart:
//
//	func NAME(OUTS…, SRCS…, COLS… []float32, rows, stride int)
//
// For j < len(OUTS[0]), OUTS[k][j] is the combination over i < rows of term k of SRCS[…][i*stride+j] and COLS[…][j]. Rows go in turn to
// as many accumulators as are unrolled, which are combined in pairs; rows may be 0.
type ColFold struct {
	Name, Doc  string
	Outs       []string
	Srcs, Cols []string
	Neutral    float64
	Max, Min   bool // instead of a sum; NaN wins
	Product    bool
	Tile, Rows int  // vectors side by side and rows that are in flight
	Stream     bool // the sources are longer than the caches: rows are fetched ahead
	Terms      func(l *L, src, col []V) []V
}

// Emit writes the function for l.
func (f ColFold) Emit(l *L) {
	TEXT(f.Name+l.Suffix, NOSPLIT, signature(f.Outs, append(append([]string{}, f.Srcs...), f.Cols...), nil, "rows, stride int"))
	Doc(fmt.Sprintf("%s%s: %s, with %d lanes.", f.Name, l.Suffix, f.Doc, l.Width))
	n := Load(Param(f.Outs[0]).Len(), GP64()).(reg.GPVirtual)
	rows := Arg("rows")
	stride := Arg("stride")
	SHLQ(U8(2), stride)
	ptr := func(names []string) (r []reg.Register) {
		for _, s := range names {
			r = append(r, Load(Param(s).Base(), GP64()))
		}
		return r
	}
	outs, srcs, cols := ptr(f.Outs), ptr(f.Srcs), ptr(f.Cols)

	tile := func(width, height int, m M) {
		id := fmt.Sprintf("tile%d", loops)
		loops++
		load := func(at Mem) V {
			if m != nil {
				return l.LoadMasked(at, m)
			}
			return l.Load(at)
		}
		var col [][]V
		for t := range width {
			var c []V
			for _, p := range cols {
				c = append(c, load(Mem{Base: p, Disp: t * l.Bytes()}))
			}
			col = append(col, c)
		}
		acc := make([][][]V, height) // [row][vector][out]
		for r := range acc {
			acc[r] = make([][]V, width)
			for t := range width {
				for range f.Outs {
					acc[r][t] = append(acc[r][t], l.Load(l.F(f.Neutral)))
				}
			}
		}
		var p []reg.Register
		for _, s := range srcs {
			q := GP64()
			MOVQ(s, q)
			p = append(p, q)
		}
		left := GP64()
		MOVQ(rows, left)
		rowsOf := func(label string, h int, next string) {
			Label(label)
			SUBQ(U8(uint8(h)), left)
			JLT(LabelRef(next))
			for r := range h {
				for t := range width {
					var v []V
					for _, q := range p {
						if f.Stream && m == nil {
							PREFETCHT0(Mem{Base: q, Index: stride, Scale: 8, Disp: t * l.Bytes()})
						}
						v = append(v, load(Mem{Base: q, Disp: t * l.Bytes()}))
					}
					for k, term := range f.Terms(l, v, col[t]) {
						f.combine(l, acc[r][t][k], term)
					}
				}
				for _, q := range p {
					ADDQ(stride, q)
				}
			}
			JMP(LabelRef(label))
			Label(next)
			ADDQ(U8(uint8(h)), left)
		}
		if height > 1 {
			rowsOf(id+"many", height, id+"few")
		}
		rowsOf(id+"one", 1, id+"end")
		for s := 1; s < height; s *= 2 {
			for r := 0; r+s < height; r += 2 * s {
				for t := range width {
					for k := range f.Outs {
						f.combine(l, acc[r][t][k], acc[r+s][t][k])
					}
				}
			}
		}
		for t := range width {
			for k, o := range outs {
				if m != nil {
					l.StoreMasked(acc[0][t][k], m, Mem{Base: o})
				} else {
					l.Store(acc[0][t][k], Mem{Base: o, Disp: t * l.Bytes()})
				}
			}
		}
		if m == nil {
			for _, list := range [][]reg.Register{outs, srcs, cols} {
				for _, q := range list {
					ADDQ(U32(uint32(width*l.Bytes())), q)
				}
			}
		}
	}
	step := func(label string, width, height int, next string) {
		Label(label)
		SUBQ(U32(uint32(width*l.Width)), n)
		JLT(LabelRef(next))
		tile(width, height, nil)
		JMP(LabelRef(label))
		Label(next)
		ADDQ(U32(uint32(width*l.Width)), n)
	}
	step("wide", f.Tile, f.Rows, "narrow")
	step("narrow1", 1, 2*f.Rows, "tail")
	JEQ(LabelRef("end"))
	tile(1, 2*f.Rows, l.TailMask(n))
	Label("end")
	VZEROUPPER()
	RET()
}

func (f ColFold) combine(l *L, acc, t V) {
	switch {
	case f.Max, f.Min:
		// t may be NaN: it wins, as the second operand. acc may be: then it must stay.
		nan := l.Cmp(UN, acc, acc)
		in := Instr(VMAXPS)
		if f.Min {
			in = VMINPS
		}
		d := l.New()
		in(t, acc, d)
		if l.Wide() {
			VBLENDMPS(acc, d, nan, acc)
		} else {
			VBLENDVPS(nan, acc, d, acc)
		}
	case f.Product:
		VMULPS(t, acc, acc)
	default:
		VADDPS(t, acc, acc)
	}
}
