package series_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/jouleml/joule/data/series"
)

// Labelled series, one a line, as the UCR archive keeps them: the class first.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "series")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "rise.tsv")
	if err := os.WriteFile(file, []byte("up\t1\t2\t3\ndown\t3\t2\t1\n"), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	set, err := series.Open("rise", file, file, false)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(set.Train.Len(), set.Spec().ClassNames, set.Spec().Inputs[0].Shape)
	// Output: 2 [down up] [3 1]
}
