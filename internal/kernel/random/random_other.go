//go:build !amd64

package random

// words and uniform do the first values of dst by vector instructions where there are any, and return how many those are.

func words([]uint32, uint64, uint64, *[2 * rounds]uint64) int { return 0 }

func uniform([]float32, uint64, uint64, *[2 * rounds]uint64) int { return 0 }
