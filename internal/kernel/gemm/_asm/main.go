// Command _asm writes the assembly of package gemm and the Go declarations that go with it.
//
// Run it with `go generate ./internal/kernel/gemm`.
package main

import (
	"go/token"
	"go/types"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/gotypes"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

func main() {
	f := NewFile("gemm")
	genTiles(f)
	genCopies(f)
	genDots(f)
	genAxpys(f)
	genGrids(f)
	genTall(f)
	f.Write()
}

// begin starts func name(t *arg) in the assembly file.
func begin(c *File, name, arg string) {
	pkg := types.NewPackage("github.com/jouleml/joule/internal/kernel/gemm", "gemm")
	t := types.NewNamed(types.NewTypeName(token.NoPos, pkg, arg, nil), types.NewStruct(nil, nil), nil)
	v := types.NewVar(token.NoPos, pkg, "t", types.NewPointer(t))
	c.Function(name)
	c.Attributes(attr.NOSPLIT)
	c.Signature(gotypes.NewSignature(pkg, types.NewSignatureType(nil, nil, nil, types.NewTuple(v), nil, false)))
}
