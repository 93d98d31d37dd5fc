package dl

import (
	"runtime"
	"unsafe"
)

// Pointer is the address of *p for C. Whoever calls keeps the memory alive. What p points to is on Go's heap, which does not move: a variable on a goroutine's stack would be somewhere else when the
// stack has grown on the way to C, which then reads and writes what is nobody's, or somebody else's.
func Pointer[T any](p *T) uintptr {
	if escapes {
		escaped = unsafe.Pointer(p)
		runtime.KeepAlive(escaped)
	}
	return uintptr(unsafe.Pointer(p))
}

// Never true; but what may be stored in a variable of the package is put on the heap by the compiler.
var (
	escapes bool
	escaped unsafe.Pointer
)
