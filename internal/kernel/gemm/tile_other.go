//go:build !amd64

package gemm

import "github.com/jouleml/joule/internal/isa"

// tileKernel has no version to offer: there is no level but Portable, which Run handles itself.
func tileKernel(isa.Level, int, int) func(*Tile) {
	panic(noAssembly)
}

func panelsVec(dst, src *float32, srcStride, rows, width, panels, panelStride int) {
	panic(noAssembly)
}

func transposeVec(dst, src *float32, dstStride, srcStride, rows, cols int) { panic(noAssembly) }

func dotsVec(y, x, b *float32, stride, rows, k int) { panic(noAssembly) }

func axpysVec(y, x, b *float32, xStride, stride, k, n int) { panic(noAssembly) }

func gridRows(isa.Level) int { return 1 }

func gridVec(l isa.Level, m int, y, x, b *float32, yStride, xStride, bStride, rows, k int) {
	panic(noAssembly)
}

const noAssembly = "gemm: no assembly for this architecture"

func tallVec(c, in, bias, a, b *float32, ldc, rows, k, cols int, act Act) { panic("gemm: no assembly") }
