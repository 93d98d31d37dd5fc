//go:build !((linux || darwin) && (amd64 || arm64) && !static)

package dl

import "runtime"

var unavailable = "dl: this binary cannot open C libraries: it was built with -tags static, or for " + runtime.GOOS + "/" + runtime.GOARCH +
	"; a build without that tag for Linux or macOS on amd64 or arm64 can"

func dlopen(string, bool) (uintptr, error) { return 0, ErrUnavailable }

func dlsym(uintptr, string) (uintptr, error) { return 0, ErrUnavailable }

// Bind panics: there are no addresses in this build.
func Bind(any, uintptr) { panic("dl: Bind in a build that opens no libraries") }

// Call panics: there are no addresses in this build.
func Call(uintptr, ...uintptr) uintptr { panic("dl: Call in a build that opens no libraries") }
