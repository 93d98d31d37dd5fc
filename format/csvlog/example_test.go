package csvlog_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/jouleml/joule/format/csvlog"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "history.csv")

	log, err := csvlog.Open(path, "epoch")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer log.Close()
	for epoch, loss := range []float64{0.5, 0.25} {
		err := log.Append(int64(epoch+1), csvlog.Value{Name: "loss", Value: loss}, csvlog.Value{Name: "joules", Value: 40})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	b, err := os.ReadFile(path)
	fmt.Print(string(b), err)
	// Output:
	// epoch,loss,joules
	// 1,0.5,40
	// 2,0.25,40
	// <nil>
}
