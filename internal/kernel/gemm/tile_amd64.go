package gemm

import "github.com/jouleml/joule/internal/isa"

// tileKernel is the version of the tile kernel for that many rows and columns.
func tileKernel(l isa.Level, rows, cols int) func(*Tile) {
	switch {
	case l == isa.AVX512 && narrow(l, cols):
		return tilesAVX512Narrow[(cols+7)/8][rows]
	case l == isa.AVX512 && cols%16 != 0:
		return tilesAVX512Masked[(cols+15)/16][rows]
	case l == isa.AVX512:
		return tilesAVX512[(cols+15)/16][rows]
	case cols%8 != 0:
		return tilesAVX2Masked[(cols+7)/8][rows]
	}
	return tilesAVX2[(cols+7)/8][rows]
}

func panelsVec(dst, src *float32, srcStride, rows, width, panels, panelStride int) {
	panelsAVX2(dst, src, srcStride, rows, width, panels, panelStride)
}

func transposeVec(dst, src *float32, dstStride, srcStride, rows, cols int) {
	transposeAVX2(dst, src, dstStride, srcStride, rows, cols)
}

func dotsVec(y, x, b *float32, stride, rows, k int) { dotsAVX2(y, x, b, stride, rows, k) }

func axpysVec(y, x, b *float32, xStride, stride, k, n int) {
	axpysAVX2(y, x, b, xStride, stride, k, n)
}

// gridRows is the most rows of x in a call of gridVec.
func gridRows(l isa.Level) int {
	if l == isa.AVX512 {
		return len(gridsAVX512) - 1
	}
	return len(gridsAVX2) - 1
}

func gridVec(l isa.Level, m int, y, x, b *float32, yStride, xStride, bStride, rows, k int) {
	if l == isa.AVX512 && m > 1 {
		gridsAVX512[m](y, x, b, yStride, xStride, bStride, rows, k)
		return
	}
	gridsAVX2[m](y, x, b, yStride, xStride, bStride, rows, k)
}

// tallVec computes rows (at most tallRows) of cols (at most 16) columns of C: from in (nil: none, else like c) and bias (nil: none), and k rows of a ([k][tallRows]) and b ([k][16]).
func tallVec(c, in, bias, a, b *float32, ldc, rows, k, cols int, act Act) {
	tallAVX512(c, in, bias, a, b, 4*ldc, rows, k, 1<<cols-1, int(act))
}
