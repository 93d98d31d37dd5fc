package gemm

import "github.com/jouleml/joule/internal/isa"

// tileKernel is the version of the tile kernel for that many rows and vectors.
func tileKernel(l isa.Level, rows, vecs int, masked bool) func(*Tile) {
	switch {
	case l == isa.AVX512:
		return tilesAVX512[vecs][rows]
	case masked:
		return tilesAVX2Masked[vecs][rows]
	}
	return tilesAVX2[vecs][rows]
}
