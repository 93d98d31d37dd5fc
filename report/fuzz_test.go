package report_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/jouleml/joule/format/csvlog"
	"github.com/jouleml/joule/report"
	"github.com/jouleml/joule/train/runs"
)

// Whatever a run's files say, its report is a page or an error, and nothing of it becomes markup.
func FuzzOfRun(f *testing.F) {
	f.Add("mnist", `{"lines":[{"layer":"dense","phase":"forward","seconds":1,"cost":{"flops":3},"energy":{"joules":2}}]}`, 0.5, "forward")
	f.Add("<script>alert(1)</script>", `{"lines":[{"layer":"<b>","phase":"<i>","seconds":-1}]}`, -1e300, "</title>")
	f.Add("", "null", 0.0, "")
	f.Fuzz(func(t *testing.T, name, ledger string, v float64, word string) {
		i := &runs.Info{ID: word, Name: name, State: runs.Done, Spec: word, Error: word, Host: name, Ledger: []byte(ledger), Results: runs.Values{"test_accuracy": v, "seconds": v, "joules": v, "predicted_seconds": v}, Settings: map[string]string{word: name}}
		h := &csvlog.Table{Key: "epoch", Columns: []string{"loss", "joules", word}, Rows: []csvlog.Row{{Key: 1, Values: []float64{v, v, v}}, {Key: 3, Values: []float64{-v, 2, v}}}}
		p, err := report.OfRun(context.Background(), report.Run{Info: i, History: h})
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := p.Write(&b); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "<script") {
			t.Error("a name became a script")
		}
	})
}
