//go:build !amd64

package recur

// stream is not called on this processor.
func (p *Plan) stream([]float32, []float32, []float32, []float32) {
	panic("recur: not on this processor")
}
