package isa

import (
	"slices"

	"golang.org/x/sys/cpu"
)

func detect() Level {
	x := &cpu.X86
	switch {
	case x.HasAVX2 && x.HasFMA && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512CD && x.HasAVX512DQ && x.HasAVX512VL:
		return AVX512
	case hasAVXVNNI():
		return AVXVNNI
	case x.HasAVX2 && x.HasFMA:
		return AVX2
	}
	return Portable
}

func hasAVXVNNI() bool { return cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasAVXVNNI }

// VNNI reports whether int8 dot products (VPDPBUSD on 512-bit registers) may be used.
func VNNI() bool { return Current() == AVX512 && cpu.X86.HasAVX512VNNI }

// BF16 reports whether bf16 dot products (VDPBF16PS on 512-bit registers) may be used.
func BF16() bool { return Current() == AVX512 && cpu.X86.HasAVX512BF16 }

// TileConfig is what LDTILECFG reads: palette 1, and for each of the 8 tiles 64 bytes a row and 16 rows (Intel 64 and IA-32 Architectures Software Developer's Manual, vol. 1, ch. 18). Kernels of products on AMX load it first.
var TileConfig = func() (c [64]uint8) {
	c[0] = 1
	for t := range 8 {
		c[16+2*t], c[48+t] = 64, 16
	}
	return c
}()

// Wide reports whether the CPU starts two multiply-adds of 512 bits in a cycle, so that a whole vector costs no more than half of one: Intel's servers from Skylake on, AMD's from
// Zen 5 on. Zen 4 takes two cycles for each 512-bit instruction. It chooses among kernels of one result, bit for bit.
func Wide() bool { return Current() == AVX512 && wide }

var wide = func() bool {
	_, b, c, d := cpuid(0)
	switch [3]uint32{b, d, c} {
	case vendor("GenuineIntel"):
		return true
	case vendor("AuthenticAMD"):
		a, _, _, _ := cpuid(1)
		return a>>8&0xf+a>>20&0xff >= 0x1a // family (AMD64 Architecture Programmer's Manual, volume 3, CPUID Fn0000_0001)
	}
	return false
}()

func vendor(s string) (w [3]uint32) {
	for i := range w {
		w[i] = uint32(s[4*i]) | uint32(s[4*i+1])<<8 | uint32(s[4*i+2])<<16 | uint32(s[4*i+3])<<24
	}
	return w
}

// cpuid runs the instruction CPUID for a leaf (subleaf 0).
//
//go:noescape
func cpuid(leaf uint32) (a, b, c, d uint32)

// extras are what the CPU has beyond the levels.
func extras() (out []string) {
	for name, has := range map[string]bool{"vnni": cpu.X86.HasAVX512VNNI, "bf16": cpu.X86.HasAVX512BF16, "amx": cpu.X86.HasAMXTile && cpu.X86.HasAMXInt8 && cpu.X86.HasAMXBF16} {
		if has && Best() == AVX512 {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
