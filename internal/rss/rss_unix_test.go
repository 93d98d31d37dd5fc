//go:build unix

package rss

import (
	"runtime"
	"testing"
)

func TestHighWater(t *testing.T) {
	if n, ok := highWater([]byte("Name:\tjoule\nVmPeak:\t  900 kB\nVmHWM:\t   812 kB\n")); !ok || n != 812*1024 {
		t.Errorf("%d, %v", n, ok)
	}
	for _, bad := range []string{"", "VmPeak:\t 9 kB\n", "VmHWM:\t many kB\n"} {
		if n, ok := highWater([]byte(bad)); ok {
			t.Errorf("%q gives %d", bad, n)
		}
	}
}

// What was touched counts, and goes on counting when it is gone.
func TestPeak(t *testing.T) {
	const size = 64 << 20
	before := Peak()
	if before <= 0 {
		t.Fatalf("peak %d", before)
	}
	b := make([]byte, size)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	runtime.KeepAlive(b)
	if after := Peak(); after < size {
		t.Errorf("peak %d after %d bytes were touched (before: %d)", after, size, before)
	}
}
