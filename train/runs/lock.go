package runs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/jouleml/joule/internal/atomicfile"
)

// lock is a lock that the system lets go of when the process ends, however it ends.
type lock struct{ f *os.File }

// acquire takes the lock on the file at path, which it makes when it is missing; ErrRunning when another holds it.
func acquire(path string) (*lock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, atomicfile.Remedy(err))
	}
	for try := 0; ; try++ {
		err = tryLock(f, true)
		if err == nil {
			return &lock{f}, nil
		}
		if !errors.Is(err, errLocked) || try == 20 {
			break
		}
		time.Sleep(5 * time.Millisecond) // a listing holds the lock for an instant
	}
	f.Close()
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("%w: another process holds %s; wait for it or stop it", ErrRunning, path)
	}
	return nil, fmt.Errorf("locking %s: %w", path, err)
}

// release lets go of the lock.
func (l *lock) release() { l.f.Close() }

// lockIsFree reports whether nobody holds the lock. A missing file is free.
func lockIsFree(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = tryLock(f, false)
	if errors.Is(err, errLocked) {
		return false, nil
	}
	return err == nil, err
}
