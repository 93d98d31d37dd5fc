//go:build unix

package rss

import (
	"bufio"
	"bytes"
	"os"
	"runtime"
	"strconv"
	"syscall"
)

// Peak is the greatest resident memory, in bytes, that this program has had since it was started; 0 where the system does not say.
//
// On Linux it is VmHWM of /proc/self/status (proc_pid_status(5)): getrusage's figure also counts what the parent held when it started the program.
func Peak() int64 {
	if b, err := os.ReadFile("/proc/self/status"); err == nil {
		if n, ok := highWater(b); ok {
			return n
		}
	}
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return int64(u.Maxrss) // bytes there, kB elsewhere
	}
	return int64(u.Maxrss) * 1024
}

// highWater finds the line VmHWM, which is in kB.
func highWater(status []byte) (int64, bool) {
	for s := bufio.NewScanner(bytes.NewReader(status)); s.Scan(); {
		f := bytes.Fields(s.Bytes())
		if len(f) == 3 && string(f[0]) == "VmHWM:" && string(f[2]) == "kB" {
			n, err := strconv.ParseInt(string(f[1]), 10, 64)
			return n * 1024, err == nil
		}
	}
	return 0, false
}
