//go:build unix

package main

import (
	"runtime"
	"syscall"
)

// peakRSS is the most memory, in bytes, that the process has had in RAM.
func peakRSS() int64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return int64(u.Maxrss) // bytes there, kB elsewhere
	}
	return int64(u.Maxrss) * 1024
}
