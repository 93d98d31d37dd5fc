package tfevents_test

import (
	"fmt"
	"os"
	"strings"

	"github.com/jouleml/joule/format/tfevents"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	w, err := tfevents.Create(dir) // tensorboard --logdir dir
	if err != nil {
		fmt.Println(err)
		return
	}
	for epoch, loss := range []float64{0.5, 0.25, 0.125} {
		err := w.Scalars(int64(epoch), tfevents.Scalar{Tag: "train/loss", Value: loss}, tfevents.Scalar{Tag: "energy/joules", Value: 40})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	if err := w.Close(); err != nil {
		fmt.Println(err)
		return
	}
	b, err := os.ReadFile(w.Path())
	fmt.Println(err, strings.Contains(string(b), "energy/joules"))
	// Output: <nil> true
}
