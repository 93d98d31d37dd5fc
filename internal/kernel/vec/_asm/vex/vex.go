// Package vex writes VPDPBUSD of 256 bits as AVX-VNNI has it (VEX.256.66.0F38.W0 50 /r), by its bytes: avo and Go's assembler know it as AVX-512 has it alone. Its registers are therefore physical.
package vex

import (
	"github.com/jouleml/joule/internal/kernel/vec/_asm/tiles"
	"github.com/mmcloughlin/avo/reg"
)

// Registers hands out registers one after another, from Y0 on.
type Registers struct{ next int }

var all = [...]reg.VecPhysical{reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15}

// Next is the next register.
func (r *Registers) Next() reg.VecPhysical {
	r.next++
	return all[r.next-1]
}

// Grid is rows of so many registers.
func (r *Registers) Grid(rows, n int) [][]reg.VecPhysical {
	out := make([][]reg.VecPhysical, rows)
	for i := range out {
		for range n {
			out[i] = append(out[i], r.Next())
		}
	}
	return out
}

// DPBUSD is acc += u·s in 32 bits, of fours of u8 and of s8.
func DPBUSD(s, u, acc reg.VecPhysical) {
	d, v, b := int(acc.PhysicalIndex()), int(u.PhysicalIndex()), int(s.PhysicalIndex())
	tiles.Bytes(0xc4, (1^d>>3)<<7|1<<6|(1^b>>3)<<5|2, (^v&15)<<3|1<<2|1, 0x50, 3<<6|d&7<<3|b&7)
}
