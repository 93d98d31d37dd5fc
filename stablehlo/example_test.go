package stablehlo_test

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/stablehlo"
)

// Types as a program of StableHLO spells them.
func ExampleTypeText() {
	fmt.Println(stablehlo.TypeText(stablehlo.Of(dtype.F32), shape.Of(32, 10)))
	fmt.Println(stablehlo.TypeText(stablehlo.Of(dtype.I64), shape.Of()))
	// Output:
	// tensor<32x10xf32>
	// tensor<i64>
}
