package random

import "github.com/jouleml/joule/internal/isa"

// words and uniform do the whole groups of blocks that dst has room for, from a block's number on, and return how many values those are.
// They call by name, not through a table, so that keys need not live on the heap.

func words(dst []uint32, block, counter uint64, keys *[2 * rounds]uint64) int {
	switch l := isa.Current(); {
	case l == isa.AVX512 && len(dst) >= 32:
		philoxAVX512(&dst[0], len(dst)/32, block, counter, keys)
		return len(dst) &^ 31
	case l >= isa.AVX2 && len(dst) >= 16:
		philoxAVX2(&dst[0], len(dst)/16, block, counter, keys)
		return len(dst) &^ 15
	}
	return 0
}

func uniform(dst []float32, block, counter uint64, keys *[2 * rounds]uint64) int {
	switch l := isa.Current(); {
	case l == isa.AVX512 && len(dst) >= 32:
		uniformAVX512(&dst[0], len(dst)/32, block, counter, keys)
		return len(dst) &^ 31
	case l >= isa.AVX2 && len(dst) >= 16:
		uniformAVX2(&dst[0], len(dst)/16, block, counter, keys)
		return len(dst) &^ 15
	}
	return 0
}
