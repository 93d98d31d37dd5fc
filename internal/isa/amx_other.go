//go:build !linux || !amd64

package isa

// AMX reports whether products of tiles of bf16 may be used.
func AMX() bool { return false }
