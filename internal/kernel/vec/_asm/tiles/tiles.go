// Package tiles writes AMX instructions by their bytes (VEX.128.0F38.W0), which neither avo nor Go's assembler know. Tiles are 0 to 7, general registers have the numbers of their encoding.
package tiles

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
)

const (
	none = 0
	p66  = 1
	f3   = 2
	f2   = 3
)

// Numbers of registers.
const (
	RAX, RCX, RDX, RBX, RSI, RDI = 0, 1, 2, 3, 6, 7
	R8, R9, R10, R11, R12        = 8, 9, 10, 11, 12
)

// Bytes writes bytes.
func Bytes(bs ...int) {
	for _, b := range bs {
		build.Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []operand.Op{operand.U8(b)}})
	}
}

// sib is an instruction with tile t and the memory at base + index + disp.
func sib(prefix, opcode, t, base, index, disp int) {
	head := []int{0xc4, 1<<7 | (1^index>>3)<<6 | (1^base>>3)<<5 | 2, 15<<3 | prefix, opcode}
	if disp == int(int8(disp)) {
		Bytes(append(head, 1<<6|t<<3|4, index&7<<3|base&7, disp)...)
		return
	}
	Bytes(append(head, 2<<6|t<<3|4, index&7<<3|base&7, disp&255, disp>>8&255, disp>>16&255, disp>>24&255)...)
}

// Load is TILELOADD: rows of 64 bytes, stride (a register) apart, from base + disp on.
func Load(t, base, stride, disp int) { sib(f2, 0x4b, t, base, stride, disp) }

// Store is TILESTORED.
func Store(t, base, stride, disp int) { sib(f3, 0x4b, t, base, stride, disp) }

// Zero is TILEZERO.
func Zero(t int) { Bytes(0xc4, 0xe2, 15<<3|f2, 0x49, 0xc0|t<<3) }

// DPBF16 is TDPBF16PS, c += a·b: a of 16 rows by 16 pairs, b of 16 pairs by 16 columns.
func DPBF16(c, a, b int) { Bytes(0xc4, 0xe2, (^b&15)<<3|f3, 0x5c, 0xc0|c<<3|a) }

// DPI8 is TDPBSSD, c += a·b in 32 bits: a of 16 rows by 16 fours of i8, b of 16 fours by 16 columns.
func DPI8(c, a, b int) { Bytes(0xc4, 0xe2, (^b&15)<<3|f2, 0x5e, 0xc0|c<<3|a) }

// DPU8I8 is TDPBUSD, the same of a of u8.
func DPU8I8(c, a, b int) { Bytes(0xc4, 0xe2, (^b&15)<<3|p66, 0x5e, 0xc0|c<<3|a) }

// Configure is LDTILECFG (RAX).
func Configure() { Bytes(0xc4, 0xe2, 15<<3|none, 0x49, 0x00) }

// Release is TILERELEASE.
func Release() { Bytes(0xc4, 0xe2, 15<<3|none, 0x49, 0xc0) }
