//go:build !amd64

package tgemm

// New plans nothing on this processor: none of these is called.

const notHere = "tgemm: not on this processor"

// SplitRows panics.
func SplitRows(dst []uint32, src []float32, ld, rows, steps int) { panic(notHere) }

// SplitColumns panics.
func SplitColumns(dst []uint32, src []float32, ld, block, steps, cols int) { panic(notHere) }

// SplitAcross panics.
func SplitAcross(scratch *[BlockRows * BlockRows]float32, dst []uint32, src []float32, ld, upper, next, steps int) {
	panic(notHere)
}

// Multiply panics.
func Multiply(c []float32, ldc int, in []float32, ldi int, a []uint32, aBlock int, b []uint32, bBlock, steps, pairs int) {
	panic(notHere)
}
