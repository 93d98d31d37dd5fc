//go:build !amd64

package qgemm

func winoExpand(int, []int16, int, []uint8, int, int, []int16, int, int) {
	panic("qgemm: a kernel that this processor lacks")
}

func winoProducts([]int32, []int16, []int16, int, int, int, int) {
	panic("qgemm: a kernel that this processor lacks")
}

func winoBytes(int, bool, []uint8, *winoResult, []int32, []float32, []float32, float32, []int32, int) {
	panic("qgemm: a kernel that this processor lacks")
}

func winoFloats(int, bool, []float32, *winoResult, []int32, []float32, []float32, float32, []int32, int) {
	panic("qgemm: a kernel that this processor lacks")
}

func weave([]int16, []int16, []int16, int) { panic("qgemm: a kernel that this processor lacks") }

func greyBytes(bool, []uint8, int, []int16, []int16, int, int, []int16, []float32, []float32, float32, int) {
	panic("qgemm: a kernel that this processor lacks")
}

func greyFloats(bool, []float32, int, []int16, []int16, int, int, []int16, []float32, []float32, float32, int) {
	panic("qgemm: a kernel that this processor lacks")
}
