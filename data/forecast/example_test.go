package forecast_test

import (
	"fmt"
	"strings"

	"github.com/jouleml/joule/data/forecast"
)

// Windows of three rows that forecast the next: the last fifth of the rows is the test part.
func ExamplePrepare() {
	table, err := forecast.ReadCSV(strings.NewReader("day,load\n1,10\n2,12\n3,11\n4,13\n5,12\n6,14\n7,13\n8,15\n9,14\n10,16\n"), "load.csv", "day")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = forecast.Prepare(table, forecast.Config{Length: 3, Targets: []string{"load"}})
	fmt.Println(err)
	_, err = forecast.Prepare(table, forecast.Config{Length: 3, Targets: []string{"lod"}})
	fmt.Println(err)
	// Output:
	// <nil>
	// forecast: there is no column "lod" to forecast (columns: load)
}
