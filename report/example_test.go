package report_test

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/jouleml/joule/report"
)

// A page is sections of parts, written as one file that opens offline.
func ExamplePage() {
	p := report.Page{Title: "Sizes", Sections: []report.Section{{
		Title: "Size against accuracy",
		Parts: []report.Part{
			&report.Points{Title: "Front", X: "size", Y: "accuracy", XUnit: "B", Front: true, Points: []report.Point{{Label: "f32", X: 900e3, Y: 0.9916}, {Label: "int8", X: 227e3, Y: 0.9916}}},
			&report.Table{Columns: []string{"model", "size"}, Rows: [][]string{{"f32", report.Quantity(900e3, "B")}, {"int8", report.Quantity(227e3, "B")}}},
		},
	}}}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.Contains(b.String(), "<td>227 kB</td>"), strings.Contains(b.String(), "http://"))
	// Output: true false
}
