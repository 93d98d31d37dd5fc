// Command recur writes recur_amd64.s and stubs_amd64.go of package recur.
package main

import (
	"fmt"

	"github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
	"github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

func main() {
	ConstraintExpr("amd64")
	for _, gates := range []int{1, 3, 4} {
		stream(gates)
	}
	Generate()
}

var z = simd.Z

const units = 64 // of a block

// stream keeps the sums of all gates of a block in registers, so that the weights are read once and forwards, a row after the other.
func stream(gates int) {
	TEXT(fmt.Sprintf("stream%dAVX512", gates), NOSPLIT, "func(y, in, a, w *float32, k, gate int)")
	Doc(fmt.Sprintf("stream%dAVX512: y[g][j] = in[g][j] (0 if in is nil) + the sum over k of a[k]*w[k][g][j], for %d gates and 64 units; gates of y and in are gate bytes apart, w is [k][%d][64].", gates, gates, gates))
	y, in, a, w := lanes.Arg("y"), lanes.Arg("in"), lanes.Arg("a"), lanes.Arg("w")
	k, gate := lanes.Arg("k"), lanes.Arg("gate")
	vecs := gates * units / 16
	row := vecs * 64
	TESTQ(in, in)
	JNZ(LabelRef("in"))
	for i := range vecs {
		VPXORD(z[i], z[i], z[i])
	}
	JMP(LabelRef("k"))
	Label("in")
	for g := range gates {
		for v := range 4 {
			VMOVUPS(Mem{Base: in, Disp: 64 * v}, z[4*g+v])
		}
		ADDQ(gate, in)
	}
	Label("k")
	x := ZMM()
	VBROADCASTSS(Mem{Base: a}, x)
	for i := range vecs {
		VFMADD231PS(Mem{Base: w, Disp: 64 * i}, x, z[i])
	}
	ADDQ(Imm(4), a)
	ADDQ(U32(uint32(row)), w)
	DECQ(k)
	JNZ(LabelRef("k"))
	for g := range gates {
		for v := range 4 {
			VMOVUPS(z[4*g+v], Mem{Base: y, Disp: 64 * v})
		}
		ADDQ(gate, y)
	}
	VZEROUPPER()
	RET()
}
