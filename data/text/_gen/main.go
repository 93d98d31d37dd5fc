// Command gen makes opticks.txt.gz of package text out of the copy of Newton's Opticks that the Go distribution carries for its own tests.
package main

import (
	"bytes"
	"compress/gzip"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		log.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "src/testdata/Isaac.Newton-Opticks.txt"))
	if err != nil {
		log.Fatal(err)
	}
	at := bytes.Index(b, []byte("OPTICKS:"))
	if at < 0 {
		log.Fatal("the text has another beginning than expected")
	}
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if _, err := z.Write(b[at:]); err != nil {
		log.Fatal(err)
	}
	if err := z.Close(); err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("..", "opticks.txt.gz"), out.Bytes(), 0o666); err != nil {
		log.Fatal(err)
	}
}
