//go:build !amd64

package isa

// Flush does nothing here: only amd64 is taught to take tiny numbers as zero.
func Flush() (before uint32) { return 0 }

// Unflush does nothing here.
func Unflush(before uint32) {}
