//go:build !amd64

package qgemm

func (p *Plan) tile(w *worker, a []uint8, r, rows, j int) { p.tileGo(w, a, r, rows, j) }

func (p *Plan) tileMax(w *worker, acc []int32, r, j int) { p.tileMaxGo(w, acc, r, j) }

func (p *Plan) tilePairs([]int32, int, []uint8, int, int, bool) {
	panic("qgemm: a kernel that this processor lacks")
}

func spreadRows([]uint8, []uint8, int, [][2][pairBlock]uint8) {
	panic("qgemm: a kernel that this processor lacks")
}

func widenRows(dst []int16, src []uint8, n int) {
	for i, v := range src[:n] {
		dst[i] = int16(v)
	}
}

func requantize(level, []uint8, int, []int32, int, []float32, []float32, float32, int, int) int {
	return 0
}

func finishFloats(level, []float32, int, []int32, int, []float32, []float32, float32, int, int) int {
	return 0
}

func quantizeBlocks(level, []uint8, []float32, float32, float32) int { return 0 }

func maxPairs(level, []uint8, []uint8, int, int) bool { return false }

func maxBlocks(level, []uint8, []uint8, []uint8) int { return 0 }

func addBlocks(level, []uint8, []uint8, []uint8, float32, float32, float32, float32) int { return 0 }

func depthwiseBlocks([]int32, []uint8, []int16, int, int) int { return 0 }

func (p *Plan) fourPatches(*worker, []uint8, int, directPanel, float32, int) {
	panic("qgemm: a kernel that this processor lacks")
}

func hasUnit() bool { return false }

func (p *Plan) onUnit([]int32, []uint8, int, int) {
	panic("qgemm: a kernel that this processor lacks")
}

func maxRows([]int32, int, int) { panic("qgemm: a kernel that this processor lacks") }

func copyPatches([]uint8, int, []uint8, *Conv, int, int) bool { return false }

func depthwise([]int32, int, []uint8, *Conv, int, int, []int32, int) {
	panic("qgemm: a kernel that this processor lacks")
}
