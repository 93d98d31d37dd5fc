//go:build !amd64

package isa

// Flush does nothing here: only amd64 is taught to take tiny numbers as zero.
func Flush() (before uint32) { return 0 }

// Mode is this thread's mode of arithmetic, for SetMode: always 0 here.
func Mode() uint32 { return 0 }

// SetMode does nothing here.
func SetMode(uint32) {}
