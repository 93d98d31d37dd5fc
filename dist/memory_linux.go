package dist

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// in is the path of a file in a folder, whatever another rank says that its name is.
func in(folder, name string) string { return filepath.Join(folder, filepath.Base(name)) }

// left is the age from which on a file is one that a killed process has left: ranks that look for each other need theirs for moments, and do with messages if it goes too early.
const left = time.Hour

// sweep removes files that killed processes have left.
func sweep(folder string) {
	files, _ := filepath.Glob(filepath.Join(folder, "joule-*"))
	for _, f := range files {
		st, err := os.Lstat(f)
		if err == nil && st.Mode().IsRegular() && time.Since(st.ModTime()) > left && strings.Trim(filepath.Base(f)[len("joule-"):], "0123456789") == "" {
			_ = os.Remove(f)
		}
	}
}

// makeMark makes a file with a mark for processes that see the folder.
func makeMark(folder string, mark uint64) (name string, err error) {
	sweep(folder)
	f, err := os.CreateTemp(folder, "joule-*")
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := f.Write(binary.LittleEndian.AppendUint64(nil, mark)); err != nil {
		removeMemory(folder, f.Name())
		return "", err
	}
	return filepath.Base(f.Name()), nil
}

// hasMark reports whether a file begins with a mark.
func hasMark(folder, name string, mark uint64) bool {
	f, err := os.Open(in(folder, name))
	if err != nil {
		return false
	}
	defer f.Close()
	var text [8]byte
	n, err := f.ReadAt(text[:], 0)
	return err == nil && n == len(text) && binary.LittleEndian.Uint64(text[:]) == mark
}

// makeMemory makes memory of so many bytes that other processes can open by the name.
func makeMemory(folder string, size int) (mem []byte, name string, err error) {
	f, err := os.CreateTemp(folder, "joule-*")
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	// All of it must be there: touching what a full file system cannot give would end the process.
	err = syscall.Fallocate(int(f.Fd()), 0, 0, int64(size))
	if err == nil {
		mem, err = mapFile(f, size)
	}
	if err != nil {
		removeMemory(folder, f.Name())
		return nil, "", err
	}
	return mem, filepath.Base(f.Name()), nil
}

// openMemory opens what another process has made.
func openMemory(folder, name string, size int) ([]byte, error) {
	f, err := os.OpenFile(in(folder, name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() != int64(size) {
		return nil, errNoMemory
	}
	return mapFile(f, size)
}

func mapFile(f *os.File, size int) ([]byte, error) {
	return syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
}

func removeMemory(folder, name string) { _ = os.Remove(in(folder, name)) }

func closeMemory(mem []byte) { _ = syscall.Munmap(mem) }
