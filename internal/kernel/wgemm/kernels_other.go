//go:build !amd64

package wgemm

func (p *Plan) run(y []float32, q []int8, w []uint8, scale []float32, aux []int32, _ int) {
	p.runGo(y, q, w, scale, aux)
}

func (p *Plan) row(_, _ []float32, _ []int8, _ []uint8, _ []float32, _ []int32, _ []uint8, _ Panels) {
	panic("wgemm: a kernel that this processor lacks")
}

func greatest(_ level, x []float32) float32 { return greatestGo(x) }

func round(_ level, q []int8, x []float32, inverse float32) int32 { return roundGo(q, x, inverse) }

func quantizeRow([]int8, []float32) (float32, int32) {
	panic("wgemm: a kernel that this processor lacks")
}

func hasUnit() bool { return false }

func (p *Plan) onUnit(*worker, int, int, int) {
	panic("wgemm: a kernel that this processor lacks")
}
