// Package dl opens C libraries at run time (dlopen), so that one binary built without cgo can use what a machine happens to have: NVML, a PJRT plugin, an MPI.
//
// A binary that contains this package on Linux needs the system's dynamic loader and C library, as docs/decisions/dlopen.md explains. The build tag "static"
// leaves all of that out: every Open then gives ErrUnavailable, and so it does on systems for which there is no loader here (Windows among them).
//
// What a library does is outside Go's safety: a wrong signature given to Func corrupts memory. Keep bindings small and next to the header they were written from.
package dl

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUnavailable is what Open gives where this build cannot open C libraries at all. Its text says why and what to do.
var ErrUnavailable = errors.New(unavailable)

// Available reports whether this build can open C libraries.
func Available() bool { return unavailable == "" }

// Lib is an open library. It stays open until the process ends: C code may have left callbacks, threads or thread-local storage behind, so nothing is ever unloaded.
type Lib struct {
	path   string
	handle uintptr
}

// Open opens the first of the paths that can be opened. A path without a slash is looked for where the system's loader looks (LD_LIBRARY_PATH, ld.so.cache). All symbols are
// resolved at once, and they are visible to this library alone. The error names every path with the loader's own reason.
func Open(paths ...string) (*Lib, error) { return open(false, paths) }

// OpenGlobal is Open with the library's symbols visible to libraries that are opened later (RTLD_GLOBAL), which some MPI libraries need for their plugins.
func OpenGlobal(paths ...string) (*Lib, error) { return open(true, paths) }

func open(global bool, paths []string) (*Lib, error) {
	if !Available() {
		return nil, ErrUnavailable
	}
	if len(paths) == 0 {
		return nil, errors.New("dl: no path given")
	}
	var reasons []string
	for _, p := range paths {
		if p == "" || strings.ContainsRune(p, 0) {
			reasons = append(reasons, fmt.Sprintf("%q is no path", p)) // an empty path would open this program itself
			continue
		}
		h, err := dlopen(p, global)
		if err == nil {
			return &Lib{p, h}, nil
		}
		reasons = append(reasons, err.Error())
	}
	return nil, fmt.Errorf("dl: %s", strings.Join(reasons, "; "))
}

// Path is the path that was opened.
func (l *Lib) Path() string { return l.path }

// Sym is the address of a function or variable of the library.
func (l *Lib) Sym(name string) (uintptr, error) {
	a, err := dlsym(l.handle, name)
	if err != nil {
		return 0, fmt.Errorf("dl: %s has no symbol %s (an older or another library?): %w", l.path, name, err)
	}
	return a, nil
}

// Func makes *fn, a variable of a Go function type, call the library's function of that name. Arguments and results may be integers, floats, uintptr, pointers, strings (copied
// and closed with a zero byte) and bool. It panics where fn is no pointer to such a function, which is a mistake in the program.
func (l *Lib) Func(fn any, name string) error {
	a, err := l.Sym(name)
	if err != nil {
		return err
	}
	Bind(fn, a)
	return nil
}
