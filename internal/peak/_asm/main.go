// Command _asm writes the assembly of package peak.
//
// Run it with `go generate ./internal/peak`.
package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

var (
	ymm = []reg.Register{reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7,
		reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15}
	zmm = []reg.Register{reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7,
		reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15}
)

func main() {
	fma("fmaAVX2", ymm)
	fma("fmaAVX512", zmm)
	read("readAVX2", ymm)
	read("readAVX512", zmm)
	Generate()
}

// chains is the number of independent accumulators: at least latency × units of any CPU so far (5 × 2).
const chains = 12

func fma(name string, v []reg.Register) {
	TEXT(name, attr.NOSPLIT, "func(n int)")
	Doc(name + " does n rounds of 12 independent vector FMAs, n > 0.")
	n := Load(Param("n"), reg.RAX)
	for _, r := range v[:chains+2] {
		zero(r)
	}
	Label("loop")
	for _, r := range v[:chains] {
		VFMADD231PS(v[chains], v[chains+1], r)
	}
	DECQ(n)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func read(name string, v []reg.Register) {
	TEXT(name, attr.NOSPLIT, "func(p *byte, n int)")
	Doc(name + " loads n blocks of 512 bytes from p on, n > 0.")
	p := Load(Param("p"), reg.RAX)
	n := Load(Param("n"), reg.RCX)
	size := int(v[0].Size())
	Label("loop")
	for i := range 512 / size {
		VMOVUPS(operand.Mem{Base: p, Disp: i * size}, v[i])
	}
	ADDQ(operand.U32(512), p)
	DECQ(n)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func zero(r reg.Register) {
	if r.Size() == 32 {
		VXORPS(r, r, r)
	} else {
		VPXORD(r, r, r)
	}
}
