//go:build !amd64

package gemm

import "github.com/jouleml/joule/internal/isa"

// tileKernel has no version to offer: there is no level but Portable, which Run handles itself.
func tileKernel(isa.Level, int, int, bool) func(*Tile) {
	panic("gemm: no assembly for this architecture")
}
