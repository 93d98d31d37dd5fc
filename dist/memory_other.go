//go:build !linux

package dist

func makeMark(string, uint64) (name string, err error) { return "", errNoMemory }

func hasMark(folder, name string, mark uint64) bool { return false }

func makeMemory(folder string, size int) (mem []byte, name string, err error) {
	return nil, "", errNoMemory
}

func openMemory(folder, name string, size int) ([]byte, error) { return nil, errNoMemory }

func removeMemory(folder, name string) {}

func closeMemory([]byte) {}
