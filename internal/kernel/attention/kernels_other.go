//go:build !amd64

package attention

// Nothing runs on tiles here.

func foldRows(_ []uint32, _ []float32, _, _ int, _, _, _ []float32, _ float32) {
	panic("attention: no tiles on this processor")
}

func gradientRows(_, _, _ []uint32, _, _ []float32, _, _, _, _ int, _, _ []float32, _ float32) {
	panic("attention: no tiles on this processor")
}
