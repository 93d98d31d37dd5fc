//go:build !unix

package rss

import "runtime"

// Peak is what the Go runtime holds of memory, in bytes: the system's own figure is not read here.
func Peak() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}
