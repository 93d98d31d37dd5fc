// Package atomicfile replaces files so that a reader sees the old content or the new, never a mixture, whatever happens in between:
// an error, a full disk, a kill or a loss of power.
//
// Write goes through a temporary file in the same folder, which is flushed to the disk before it is renamed over the target; then the
// folder is flushed, so that after Write has returned nil the new content survives a loss of power.
package atomicfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// FS is the file-system calls that a replacement makes, in the order in which it makes them. Tests put faults into it.
type FS interface {
	// Create makes a new file and fails when there is one already.
	Create(path string) (File, error)
	Rename(from, to string) error
	// SyncDir flushes a folder's entries to the disk, where the system has such a call.
	SyncDir(dir string) error
	Remove(path string) error
}

// File is an open file of an FS.
type File interface {
	io.Writer
	Sync() error
	Close() error
}

// OS is the machine's own file system.
var OS FS = osFS{}

type osFS struct{}

func (osFS) Create(path string) (File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
}
func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(path string) error     { return os.Remove(path) }
func (osFS) SyncDir(dir string) error     { return syncDir(dir) }

// A temporary file of "model" is called ".model.RANDOM.tmp": a dot, so that it stays out of sight and out of *-patterns.
const tempSuffix = ".tmp"

// IsTemp reports whether name (without folder) is one that Write gives its temporary files. A kill leaves such a file behind.
func IsTemp(name string) bool {
	return strings.HasPrefix(name, ".") && strings.HasSuffix(name, tempSuffix)
}

// Write replaces the file at path with what fill writes. On an error the old file is untouched and the temporary one removed, with one
// exception: when only the last step failed, the flushing of the folder, the new content is in place and the error says so.
func Write(path string, fill func(io.Writer) error) error { return WriteFS(OS, path, fill) }

// WriteBytes is Write of the given content.
func WriteBytes(path string, content []byte) error {
	return Write(path, func(w io.Writer) error { _, err := w.Write(content); return err })
}

// WriteFS is Write on another file system.
func WriteFS(fsys FS, path string, fill func(io.Writer) error) error {
	temp := tempName(path)
	if err := writeTemp(fsys, temp, fill); err != nil {
		return explain("writing", path, err)
	}
	if err := fsys.Rename(temp, path); err != nil {
		fsys.Remove(temp)
		return explain("replacing", path, err)
	}
	if err := fsys.SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("%s is written, but a loss of power might undo it: flushing the folder: %w", path, err)
	}
	return nil
}

// Reserve takes the room of a file of n bytes at path, or says why it cannot be written, before long work whose result it is to be. The caller gives the room back just before it writes.
func Reserve(path string, n int64) (release func(), err error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil, fmt.Errorf("writing %s: it is a folder", path)
	}
	temp := tempName(path)
	err = writeTemp(OS, temp, func(w io.Writer) error {
		zeros := make([]byte, 1<<16)
		for left := n; left > 0; left -= int64(len(zeros)) {
			if _, err := w.Write(zeros[:min(left, int64(len(zeros)))]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, explain("writing", path, err)
	}
	return func() { OS.Remove(temp) }, nil
}

// tempName is a new name for the temporary file of path.
func tempName(path string) string {
	dir, base := filepath.Split(path)
	return filepath.Join(dir, fmt.Sprintf(".%s.%016x%s", base, rand.Uint64(), tempSuffix))
}

// MkdirAll is os.MkdirAll, and the new folders survive a loss of power.
func MkdirAll(dir string) error {
	var made []string
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, d)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return explain("making", dir, err)
	}
	for _, d := range made {
		if err := OS.SyncDir(filepath.Dir(d)); err != nil {
			return explain("making", dir, err)
		}
	}
	return nil
}

// writeTemp writes and flushes the temporary file, and removes it when it cannot.
func writeTemp(fsys FS, temp string, fill func(io.Writer) error) error {
	f, err := fsys.Create(temp)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<16)
	err = fill(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync() // before the rename: otherwise a loss of power can leave the new name with no content
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		fsys.Remove(temp)
	}
	return err
}

// explain adds the path and what the user can do about it.
func explain(doing, path string, err error) error {
	return fmt.Errorf("%s %s: %w%s", doing, path, err, Remedy(err))
}

// Remedy says what a user can do about a failed call of the file system, as " (…)"; it is empty where nothing better than the error is known.
func Remedy(err error) string {
	switch {
	case isDiskFull(err):
		return " (the disk is full or a quota reached: free some space or choose another folder; what was there before is untouched)"
	case errors.Is(err, syscall.EROFS):
		return " (the folder is on a read-only file system: choose another folder)"
	case errors.Is(err, fs.ErrPermission):
		return " (no permission to write there: choose another folder or change its permissions)"
	case errors.Is(err, fs.ErrNotExist):
		return " (the folder does not exist: create it first)"
	}
	return ""
}
