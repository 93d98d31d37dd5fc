//go:build !linux

package dist

import "runtime"

func yield() { runtime.Gosched() }
