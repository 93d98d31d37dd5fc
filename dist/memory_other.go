//go:build !linux

package dist

func makeMemory(int) (mem []byte, path string, err error) { return nil, "", errNoMemory }

func openMemory(string, int) ([]byte, error) { return nil, errNoMemory }

func removeMemory(string) {}

func closeMemory([]byte) {}
