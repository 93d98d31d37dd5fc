//go:build !unix

package atomicfile

import (
	"errors"
	"syscall"
)

// syncDir does nothing: Windows has no such call, NTFS logs a rename before it returns.
func syncDir(string) error { return nil }

// Windows says ERROR_HANDLE_DISK_FULL or ERROR_DISK_FULL.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.Errno(39)) || errors.Is(err, syscall.Errno(112))
}
