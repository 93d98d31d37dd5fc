//go:build !amd64

package tgemm

// New plans nothing on this processor: none of these is called.

const notHere = "tgemm: not on this processor"

func inRows([]uint32, []float32, int, int, int)                                       { panic(notHere) }
func inColumns([]uint32, []float32, int, int, int, int)                               { panic(notHere) }
func across(*worker, []uint32, []float32, int, int, int, int)                         { panic(notHere) }
func multiply([]float32, int, []float32, int, []uint32, int, []uint32, int, int, int) { panic(notHere) }
