package lanes

import (
	"fmt"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Map describes a function over float32 slices, element by element:
//
//	func NAME(dst, SRCS… []float32, SCALARS… float32)
//
// which handles the first n elements of each slice, n being the least of their lengths.
type Map struct {
	Name    string
	Doc     string
	Srcs    []string // names of source slices
	Scalars []string
	Streams []string // sources that are longer than the caches: they are fetched ahead
	Unroll  int      // vectors an iteration
	Body    func(l *L, src, scalar []V) V
}

// Emit writes the function for l.
func (f Map) Emit(l *L) {
	sig := "func(dst"
	for _, s := range f.Srcs {
		sig += ", " + s
	}
	sig += " []float32"
	for _, s := range f.Scalars {
		sig += ", " + s + " float32"
	}
	TEXT(f.Name+l.Suffix, NOSPLIT, sig+")")
	Doc(fmt.Sprintf("%s%s: %s, with %d lanes.", f.Name, l.Suffix, f.Doc, l.Width))
	n := GP64()
	Load(Param("dst").Len(), n)
	for _, s := range f.Srcs {
		m := GP64()
		Load(Param(s).Len(), m)
		CMPQ(m, n)
		CMOVQLT(m, n)
	}
	dst := Load(Param("dst").Base(), GP64())
	var src []reg.Register
	for _, s := range f.Srcs {
		src = append(src, Load(Param(s).Base(), GP64()))
	}
	var scalar []V
	for _, s := range f.Scalars {
		scalar = append(scalar, l.Broadcast(s))
	}
	l.Loop(n, f.Unroll, func(at func(reg.Register) Mem, m M) {
		var v []V
		for i, p := range src {
			if m == nil && slices.Contains(f.Streams, f.Srcs[i]) {
				PREFETCHT0(further(at(p)))
			}
			if m == nil {
				v = append(v, l.Load(at(p)))
			} else {
				v = append(v, l.LoadMasked(at(p), m))
			}
		}
		r := f.Body(l, v, scalar)
		if m == nil {
			l.Store(r, at(dst))
		} else {
			l.StoreMasked(r, m, at(dst))
		}
	})
	VZEROUPPER()
	RET()
}

// further is the place that is fetched ahead while at is read: some lines that the processor, left alone, begins to fetch too late where few arrays are read at once.
func further(at Mem) Mem {
	at.Disp += 2048
	return at
}

var loops int

// Loop runs body for every vector of n elements: unroll at a time, then one at a time, then the rest under mask m. at gives the
// place of the vector in the float32 array that starts at p. It spoils n.
func (l *L) Loop(n reg.GPVirtual, unroll int, body func(at func(p reg.Register) Mem, m M)) {
	id := fmt.Sprintf("loop%d", loops)
	loops++
	i := GP64()
	XORQ(i, i)
	step := func(label string, u int, next string) {
		Label(label)
		SUBQ(U32(uint32(u*l.Width)), n)
		JLT(LabelRef(next))
		for j := range u {
			body(func(p reg.Register) Mem { return Mem{Base: p, Index: i, Scale: 4, Disp: j * l.Bytes()} }, nil)
		}
		ADDQ(U32(uint32(u*l.Width)), i)
		JMP(LabelRef(label))
		Label(next)
		ADDQ(U32(uint32(u*l.Width)), n)
	}
	if unroll > 1 {
		step(id+"many", unroll, id+"few")
	}
	step(id+"one", 1, id+"tail")
	JEQ(LabelRef(id + "end"))
	m := l.TailMask(n)
	body(func(p reg.Register) Mem { return Mem{Base: p, Index: i, Scale: 4} }, m)
	Label(id + "end")
}
