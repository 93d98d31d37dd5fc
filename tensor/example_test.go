package tensor_test

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/tensor"
)

func Example() {
	x := tensor.Of([]float32{1, 2, 3, 4, 5, 6}, 3, 2) // [3 2], keeps the slice
	last := x.Slice(2, 3)                             // a view of the last row
	last.F32()[0] = 50
	fmt.Println(x.Shape(), x.DType(), x.F32())
	fmt.Println(tensor.New(dtype.I32, 2, 2).At(3))
	// Output:
	// [3 2] f32 [1 2 3 4 50 6]
	// 0
}
