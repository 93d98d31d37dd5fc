package spgemm

import "github.com/jouleml/joule/internal/isa"

// tilesOf are the ways that a level computes, from the one of most rows to that of one.
func tilesOf(l isa.Level, pairs bool) []tile {
	switch {
	case l >= isa.AVX512 && pairs:
		return []tile{{rows: 4, pairs: pairsAVX5124}, {rows: 1, pairs: pairsAVX5121}}
	case l >= isa.AVX512:
		return []tile{{rows: 12, blocks: blockAVX51212}, {rows: 4, blocks: blockAVX5124}, {rows: 1, blocks: blockAVX5121}}
	case l >= isa.AVX2 && pairs:
		return []tile{{rows: 1, pairs: pairsAVX21}}
	case l >= isa.AVX2:
		return []tile{{rows: 6, blocks: blockAVX26}, {rows: 1, blocks: blockAVX21}}
	}
	return []tile{{rows: 1}}
}
