package isa

import "golang.org/x/sys/cpu"

func detect() Level {
	x := &cpu.X86
	switch {
	case x.HasAVX2 && x.HasFMA && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512CD && x.HasAVX512DQ && x.HasAVX512VL:
		return AVX512
	case x.HasAVX2 && x.HasFMA:
		return AVX2
	}
	return Portable
}

// VNNI reports whether int8 dot products (VPDPBUSD on 512-bit registers) may be used.
func VNNI() bool { return Current() == AVX512 && cpu.X86.HasAVX512VNNI }

// BF16 reports whether bf16 dot products (VDPBF16PS on 512-bit registers) may be used.
func BF16() bool { return Current() == AVX512 && cpu.X86.HasAVX512BF16 }
