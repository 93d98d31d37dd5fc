//go:build unix

package runs

import (
	"os"
	"syscall"
)

const errLocked = syscall.EWOULDBLOCK

// tryLock locks f until it is closed, against everybody or only against those who want it alone. It does not wait.
func tryLock(f *os.File, alone bool) error {
	how := syscall.LOCK_SH
	if alone {
		how = syscall.LOCK_EX
	}
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err != syscall.EINTR {
			return err
		}
	}
}
