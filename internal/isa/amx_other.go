//go:build !linux || !amd64

package isa

// AMX reports whether products of tiles of bf16 may be used.
func AMX() bool { return false }

// AMXInt8 reports whether products of tiles of bytes may be used.
func AMXInt8() bool { return false }
