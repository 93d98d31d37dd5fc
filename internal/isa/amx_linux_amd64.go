package isa

import (
	"sync"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

// AMX reports whether products of tiles of bf16 (TDPBF16PS) may be used. Linux gives a process the tile registers when it asks for them (Documentation/arch/x86/xstate.rst),
// which this does at the first call. Signals then carry the tiles' 8 kB, for which Go's signal stacks have room.
func AMX() bool { return Current() == AVX512 && granted() }

// AMXInt8 reports whether products of tiles of bytes (TDPBSSD) may be used.
func AMXInt8() bool { return cpu.X86.HasAMXInt8 && VNNI() && AMX() }

var granted = sync.OnceValue(func() bool {
	const requestPermission, tileData = 0x1023, 18 // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
	if !cpu.X86.HasAMXTile || !cpu.X86.HasAMXBF16 {
		return false
	}
	_, _, errno := unix.RawSyscall(unix.SYS_ARCH_PRCTL, requestPermission, tileData, 0)
	return errno == 0
})
