//go:build !amd64

package gemm

import "github.com/jouleml/joule/internal/isa"

// tileKernel has no version to offer: there is no level but Portable, which Run handles itself.
func tileKernel(isa.Level, int, int) func(*Tile) {
	panic(noAssembly)
}

func copyVec(dst, src *float32, dstStride, srcStride, rows, cols int) { panic(noAssembly) }

func transposeVec(dst, src *float32, dstStride, srcStride, rows, cols int) { panic(noAssembly) }

const noAssembly = "gemm: no assembly for this architecture"
