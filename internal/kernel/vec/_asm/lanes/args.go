package lanes

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Arg loads a parameter into a register of its own.
func Arg(param string) reg.GPVirtual { return Load(Param(param), GP64()).(reg.GPVirtual) }

// Address is a parameter's place in memory.
func Address(param string) Mem { return address(Param(param)) }

// Rows are up to 6 rows of a matrix, in as few registers as that takes.
type Rows struct {
	n              int
	first, fourth  reg.GPVirtual
	stride, double reg.GPVirtual
}

// RowsAt are n rows that lie stride bytes apart from p on.
func RowsAt(p, stride reg.GPVirtual, n int) Rows {
	r := Rows{n, p, p, stride, p}
	if n > 2 {
		r.double = GP64()
		LEAQ(Mem{Base: stride, Index: stride, Scale: 1}, r.double)
	}
	if n > 3 {
		r.fourth = GP64()
		LEAQ(Mem{Base: p, Index: r.double, Scale: 1}, r.fourth)
		ADDQ(stride, r.fourth)
	}
	return r
}

// At is the place of row i.
func (r Rows) At(i int) Mem {
	base := r.first
	if i >= 3 {
		base, i = r.fourth, i-3
	}
	switch i {
	case 1:
		return Mem{Base: base, Index: r.stride, Scale: 1}
	case 2:
		return Mem{Base: base, Index: r.double, Scale: 1}
	}
	return Mem{Base: base}
}

// Next moves the rows on by n bytes.
func (r Rows) Next(n int) {
	ADDQ(Imm(uint64(n)), r.first)
	if r.n > 3 {
		ADDQ(Imm(uint64(n)), r.fourth)
	}
}
