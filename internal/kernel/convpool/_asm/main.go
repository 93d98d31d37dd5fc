// Command _asm writes the assembly of package convpool and the Go declarations that go with it.
//
// Run it with `go generate ./internal/kernel/convpool`.
package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

func main() {
	f := NewFile("convpool")
	constants(f.Context)
	for _, l := range Levels {
		g := &gen{&Gen{File: f, Level: l}}
		g.direct()
		g.points()
		g.filters()
		g.pooled()
		g.lanesGrad()
		for _, strip := range []int{48, 96} {
			g.combine(1, strip)
			if g.Wide() {
				g.combine(3, strip)
			}
		}
	}
	f.Write()
}

// gen writes functions for one level.
type gen struct{ *Gen }

// Constants: 64 bytes each.
const (
	kOne   = 64 * iota // integers 1
	kTwo               // integers 2
	kThree             // integers 3
	kFour              // integers 4
	kHalf              // floats 0.5
	kSwap              // integers 0 2 1 3, repeated
)

func constants(c *build.Context) {
	c.StaticGlobal("constants")
	c.DataAttributes(attr.NOPTR | attr.RODATA)
	for i, f := range []func(j int) uint32{
		func(int) uint32 { return 1 },
		func(int) uint32 { return 2 },
		func(int) uint32 { return 3 },
		func(int) uint32 { return 4 },
		func(int) uint32 { return 0x3f000000 },
		func(j int) uint32 { return uint32([]int{0, 2, 1, 3}[j%4]) },
	} {
		for j := range 16 {
			c.AddDatum(64*i+4*j, operand.U32(f(j)))
		}
	}
}

func (g *gen) k(off int) operand.Mem {
	return operand.NewDataAddr(operand.NewStaticSymbol("constants"), off)
}

// again counts a parameter down and goes back to the label until it is 0.
func (g *gen) again(param, label string) {
	left := g.Arg(param)
	g.DECQ(left)
	g.Store(left, g.Param(param))
	g.JNZ(operand.LabelRef(label))
}
