// Command qconv writes the kernels of package qgemm for convolutions of 3×3 with AVX2: conv3_amd64.s and conv3stubs_amd64.go.
package main

import . "github.com/mmcloughlin/avo/build"

func main() {
	ConstraintExpr("amd64")
	winograd()
	weave()
	for _, float := range []bool{false, true} {
		for _, most := range []bool{false, true} {
			grey(2, most, float)
			grey(1, most, float)
		}
	}
	Generate()
}
