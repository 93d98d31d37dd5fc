package dist

import (
	"os"
	"syscall"
)

// makeMemory makes memory of so many bytes that other processes can open by the path.
func makeMemory(size int) (mem []byte, path string, err error) {
	f, err := os.CreateTemp(shmFolder, "joule-*")
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
		removeMemory(f.Name())
		return nil, "", err
	}
	return mem, f.Name(), nil
}

// openMemory opens what another process has made.
func openMemory(path string, size int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
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

func removeMemory(path string) { _ = os.Remove(path) }

func closeMemory(mem []byte) { _ = syscall.Munmap(mem) }
