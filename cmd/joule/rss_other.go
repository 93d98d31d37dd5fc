//go:build !unix

package main

import "runtime"

// peakRSS is what the Go runtime holds of memory, in bytes: the system's own figure is not read here.
func peakRSS() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}
