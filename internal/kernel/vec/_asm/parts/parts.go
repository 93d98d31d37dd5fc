// Package parts writes how float32 become three bf16 each, for kernels of products on AMX (package tgemm says how they are used).
package parts

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	Tile = 1024     // bytes of a tile: 16 rows of 16 pairs
	Step = 3 * Tile // bytes of the three parts of 16 rows (or columns) by 32 of K
)

// Rounding has the constants of Part.
type Rounding struct{ half, upper reg.Register }

// Constants sets half and upper, by way of EAX, for Part.
func Constants(half, upper reg.Register) Rounding {
	MOVL(U32(0x8000), reg.EAX)
	VPBROADCASTD(reg.EAX, half)
	MOVL(U32(0xffff0000), reg.EAX)
	VPBROADCASTD(reg.EAX, upper)
	return Rounding{half, upper}
}

// Part sets h to x rounded to bf16 and takes it from x.
func (r Rounding) Part(x, h reg.Register) {
	VPADDD(r.half, x, h)
	VPANDD(r.upper, h, h)
	VSUBPS(h, x, x)
}

// Pack stores pairs of a part, the lower halves from lo, at m. It changes t. What is below bf16's digits in hi is cut off: the rest of a tiny number, if tiny numbers are not taken as zero.
func (r Rounding) Pack(lo, hi, t reg.Register, m Mem) {
	const or = 0xf8 // t | hi & upper
	VPSRLD(Imm(16), lo, t)
	VPTERNLOGD(U8(or), r.upper, hi, t)
	VMOVDQU32(t, m)
}

// Split stores the parts of lo and hi, in pairs, at dst and a tile and two tiles further on. It changes lo, hi and the three vectors of free.
func (r Rounding) Split(lo, hi reg.Register, dst Mem, free ...reg.Register) {
	x, h := [2]reg.Register{lo, hi}, [2]reg.Register{free[0], free[1]}
	for part := range 3 {
		if part < 2 {
			r.Part(x[0], h[0])
			r.Part(x[1], h[1])
		} else {
			h = x
		}
		r.Pack(h[0], h[1], free[2], Mem{Base: dst.Base, Index: dst.Index, Scale: dst.Scale, Disp: dst.Disp + part*Tile})
	}
}
