// Command _asm writes the assembly of package conv and the Go declarations that go with it.
//
// Run it with `go generate ./internal/kernel/conv`.
package main

import (
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

func main() {
	f := NewFile("conv")
	constants(f.Context)
	(&gen{Gen: &Gen{File: f, Level: Levels[0]}}).copyGroup()
	for _, l := range Levels {
		g := &gen{Gen: &Gen{File: f, Level: l}}
		genWinograd(g)
		genDepthwise(g)
	}
	f.Write()
}

// gen writes functions for one level.
type gen struct {
	*Gen
	held map[string]reg.Register // constants in registers, of the function in progress
}
