//go:build (linux || darwin) && (amd64 || arm64) && !static

package dl

import "github.com/ebitengine/purego"

const unavailable = ""

func dlopen(path string, global bool) (uintptr, error) {
	mode := purego.RTLD_NOW | purego.RTLD_LOCAL
	if global {
		mode = purego.RTLD_NOW | purego.RTLD_GLOBAL
	}
	return purego.Dlopen(path, mode)
}

func dlsym(handle uintptr, name string) (uintptr, error) { return purego.Dlsym(handle, name) }

// Bind makes *fn, a variable of a Go function type, call the C function at an address (from Sym, or out of a table of functions that a library gave). See Func.
func Bind(fn any, address uintptr) { purego.RegisterFunc(fn, address) }

// Call calls the C function at an address with integers and pointers, and gives its first result. It is quicker than a bound function and allocates nothing; what a pointer
// points to must be kept alive, and from moving, by the caller (runtime.Pinner, runtime.KeepAlive).
func Call(address uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(address, args...)
	return r
}
