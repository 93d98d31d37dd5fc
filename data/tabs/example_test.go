package tabs_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/jouleml/joule/data/tabs"
)

func Example() {
	dir, err := os.MkdirTemp("", "tabs")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "words.tsv")
	if err := os.WriteFile(path, []byte("cat\tKatze\ndog\tHund\n"), 0o600); err != nil {
		panic(err)
	}
	err = tabs.Read(path, "two words", func(a, b string) { fmt.Println(a, "→", b) })
	fmt.Println(err)
	// Output:
	// cat → Katze
	// dog → Hund
	// <nil>
}
