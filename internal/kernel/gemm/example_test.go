package gemm_test

import (
	"fmt"

	"github.com/jouleml/joule/internal/kernel/gemm"
)

// A dense layer with ReLU: y = max(0, x·w + bias) for a batch of 2.
func ExamplePlan() {
	layer := gemm.New(gemm.Spec{M: 2, K: 3, N: 2, Bias: true, Act: gemm.ReLU})
	x := []float32{
		1, 2, 3,
		4, 5, 6,
	}
	w := []float32{
		1, 0,
		0, 1,
		1, -1,
	}
	y := make([]float32, 4)
	layer.Run(nil, x, w, y, []float32{10, -3}, nil)
	fmt.Println(y)
	// Output: [14 0 20 0]
}

// A 2×2 filter over a 3×3 image with one channel, in place: the patch of an output pixel is two segments of two floats, one a
// line of the image.
func ExampleTile() {
	image := []float32{
		1, 2, 3,
		4, 5, 6,
		7, 8, 9,
	}
	filter := []float32{1, 10, 100, 1000} // [2·2·1 channels in, 1 channel out]
	out := make([]float32, 4)
	t := &gemm.Tile{
		A:       image,
		AOff:    []int{0, 1, 3, 4}, // where the patches start
		AStride: 1,
		Segs:    []gemm.Seg{{Off: 0, Len: 2}, {Off: 3, Len: 2}},
		B:       filter, LDB: 1, Cols: 1,
		C: out, COff: []int{0, 1, 2, 3},
	}
	t.Run()
	fmt.Println(out)
	// Output: [5421 6532 8754 9865]
}
