//go:build !amd64

package isa

func detect() Level { return Portable }

func hasAVXVNNI() bool { return false }

// VNNI reports whether int8 dot products may be used.
func VNNI() bool { return false }

// BF16 reports whether bf16 dot products may be used.
func BF16() bool { return false }

// Wide reports whether the CPU starts two multiply-adds of 512 bits in a cycle.
func Wide() bool { return false }

func extras() []string { return nil }
