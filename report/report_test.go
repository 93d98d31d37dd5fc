package report_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/compress/search"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/labelled"
	"github.com/jouleml/joule/data/mnist"
	"github.com/jouleml/joule/data/text"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/format/csvlog"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/report"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/train/runs"
)

// found is what a search has found: fifteen candidates, of which the tenth is the best.
func found() *search.Result {
	measures := func(f float64, bits int) search.Measures {
		return search.Measures{Quality: quant.Quality{Name: "accuracy", Value: 0.99 - 0.001*f, Loss: 0.03}, Joules: 4e-4 / (1 + f), MS: 0.02 / (1 + f), BatchMS: 0.3, Bytes: int(9e5 / (1 + f)), Disk: int64(9e5 / (1 + 3*f)),
			Layers: map[string]float64{"conv2d": 1e-4 / (1 + f), "dense": 2e-5},
			Detail: []search.Layer{{Name: "conv2d", Class: "Conv2D", Bits: bits, Sparsity: f / 20, FLOPs: 389376, Bytes: 1280}, {Name: "flatten", Class: "Flatten"}, {Name: "dense", Class: "Dense", Bits: 32, FLOPs: 200000, Bytes: 9e5}}}
	}
	r := &search.Result{Target: search.Bytes, MaxDrop: 0.005, Original: measures(0, 32), Held: 40, Stopped: "8 rounds are over", Spent: 251, Best: "round 9 packed int8", BreakEven: 6.4e5,
		Narrowed: map[string]float64{"conv2d": 0.0012}, Quantized: map[string]float64{"conv2d": -0.0001}}
	for i := range 15 {
		r.Candidates = append(r.Candidates, &search.Candidate{Name: fmt.Sprintf("round %d packed int8", i), Round: i, Measures: measures(float64(i), 4), Drop: 0.001 * float64(i), Run: "20261125-200000.000-abcd"})
	}
	r.Candidates[9].Detail = r.Candidates[9].Detail[:2] // its last layer went
	return r
}

// What a search has found stands in the report, whether there is a best or not.
func TestSearch(t *testing.T) {
	r := found()
	var b bytes.Buffer
	p := report.Page{Sections: report.OfSearch(r, []train.Log{{Name: "accuracy", Value: 0.99}}, []train.Log{{Name: "accuracy", Value: 0.989}})}
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"paid for itself after about 640 thousand predictions", "Beware: models were compared on 40 examples", "32 → 4", "0% → 45%", "32 → gone", "+0.0012", "-0.0001", "Pareto fronts", "test accuracy", "round 3 packed int8"} {
		if !strings.Contains(b.String(), want) && !strings.Contains(b.String(), strings.ReplaceAll(want, "+", "&#43;")) {
			t.Errorf("the report does not say %q", want)
		}
	}
	r.Candidates[9].Drop = -0.002
	p.Sections = report.OfSearch(r, nil, nil)
	b.Reset()
	if err := p.Write(&b); err != nil || !strings.Contains(b.String(), "it is better by 0.002 on") {
		t.Errorf("%v: a drop below zero is no drop", err)
	}
	r.Candidates[9].Drop = 0.009
	// A search has no curves, and its result comes first.
	run, err := report.OfRun(context.Background(), report.Run{Info: &runs.Info{State: runs.Done}, More: p.Sections})
	if err != nil || run.Sections[0].Title != p.Sections[0].Title {
		t.Errorf("%v: sections %v", err, run.Sections)
	}
	r.Best = ""
	p.Sections = report.OfSearch(r, nil, nil)
	b.Reset()
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	if len(p.Sections) != 2 || !strings.Contains(b.String(), "The one that drops least is round 0 packed int8") {
		t.Errorf("%d sections; without a best the closest must be named", len(p.Sections))
	}
}

// trainedPage is the report of a small real training.
func trainedPage(t *testing.T) *report.Page {
	t.Helper()
	digits, err := mnist.Load()
	if err != nil {
		t.Fatal(err)
	}
	set := &data.Set{Train: data.Take(digits.Train, 640), Test: data.Take(digits.Test, 300)}
	net := nn.Sequential(nn.Flatten(), nn.Dense(24, nn.ReLU), nn.Dense(10, nn.Softmax))
	m, err := train.Compile(net, set.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Accuracy)
	if err != nil {
		t.Fatal(err)
	}
	a, err := m.StartAccount(nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := m.Fit(context.Background(), set.Train, train.Epochs(3), train.BatchSize(32), train.Validate(set.Test))
	if err != nil {
		t.Fatal(err)
	}
	l, err := a.Ledger()
	if err != nil {
		t.Fatal(err)
	}
	l.Grid, l.Examples = 380, 3*640
	text, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	table := &csvlog.Table{Key: "epoch", Columns: []string{"seconds", "joules", "loss", "accuracy", "val_loss", "val_accuracy"}}
	for _, e := range h.Epochs {
		row := csvlog.Row{Key: int64(e.Epoch), Values: []float64{e.Seconds, math.NaN()}}
		for _, v := range e.Logs {
			row.Values = append(row.Values, v.Value)
		}
		table.Rows = append(table.Rows, row)
	}
	now := time.Date(2026, 11, 25, 20, 0, 0, 0, time.UTC)
	info := &runs.Info{ID: "20261125-200000.000-abcd", Name: "digits & <more>", Spec: "name: digits\n", Host: "box", ISA: "avx2", Threads: 2, Start: now, End: now.Add(time.Minute), State: runs.Done, Ledger: text,
		Results: runs.Values{"test_accuracy": 0.9, "test_loss": 0.3, "seconds": h.Seconds, "steps": float64(h.Steps), "predicted_seconds": 2, "predicted_joules": 3, "flops": 1e9, "joules": l.Joules.Value}}
	more := append(report.OfSearch(found(), []train.Log{{Name: "accuracy", Value: 0.99}}, []train.Log{{Name: "accuracy", Value: 0.989}}), report.Section{Title: "Smaller", Text: "What compression gives.",
		Parts: []report.Part{&report.Points{Title: "Size against accuracy", X: "size", Y: "accuracy", XUnit: "B", Front: true, Points: []report.Point{{"whole", 9e5, 0.99}, {"int8", 2.3e5, 0.989}, {"bad", 5e5, 0.97}}}}})
	p, err := report.OfRun(context.Background(), report.Run{Info: info, History: table, Model: m, Set: set, More: more})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOfRun(t *testing.T) {
	p := trainedPage(t)
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	html := b.String()
	for _, want := range []string{"digits &amp; &lt;more&gt;", "Confusion matrix", "data:image/png;base64,", "Wrong, the surest", "CO2 equivalent", "backward", "dense_1", "real / predicted", "Time of an epoch", "Size against accuracy", `class="curve dash"`} {
		if !strings.Contains(html, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(html, "Energy of an epoch") {
		t.Error("a curve of nothing but NaN is drawn")
	}
	html = regexp.MustCompile(`base64,[^"]*`).ReplaceAllString(html, "")
	for _, bad := range []string{"ZgotmplZ", "NaN", "Inf"} {
		if strings.Contains(html, bad) {
			t.Errorf("%s in the page: …%s…", bad, html[max(0, strings.Index(html, bad)-80):][:160])
		}
	}
	if m := regexp.MustCompile(`(?i)(src|href|url)\s*[=(]\s*["']?(https?:|//)[^"' >]*`).FindString(html); m != "" {
		t.Errorf("asks for %s", m)
	}
	// Every phase of every layer is a row, and the last row is the ledger's total.
	var ledger *report.Table
	for _, s := range p.Sections {
		for _, part := range s.Parts {
			if x, ok := part.(*report.Table); ok && x.Total != nil && x.Total[0] == "total" {
				ledger = x
			}
		}
	}
	if ledger == nil || ledger.Total[8] != "100.0%" {
		t.Fatalf("the account: %+v", ledger)
	}
}

// A run that came to nothing still has a report.
func TestBareRun(t *testing.T) {
	i := &runs.Info{ID: "x", Name: "bare", State: runs.Failed, Error: "loss is NaN at conv2d", Start: time.Now()}
	p, err := report.OfRun(context.Background(), report.Run{Info: i, History: &csvlog.Table{}, Missing: "there is no model"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "report.html")
	if err := p.Save(file); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"loss is NaN at conv2d", "No epoch has been finished", "there is no model", "failed"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q", want)
		}
	}
	i.Ledger = json.RawMessage(`{"lines": 3}`)
	if _, err := report.OfRun(context.Background(), report.Run{Info: i, History: &csvlog.Table{}}); err == nil || !strings.Contains(err.Error(), "account") {
		t.Errorf("a damaged account: %v", err)
	}
}

func model(t *testing.T, net *nn.Model, spec data.Spec, loss train.Loss) *train.Model {
	t.Helper()
	m, err := train.Compile(net, spec, optim.Adam(), loss)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// titles are those of a section's parts.
func titles(s report.Section) string {
	var out []string
	for _, p := range s.Parts {
		switch p := p.(type) {
		case *report.Lines:
			out = append(out, "lines "+p.Title)
		case *report.Table:
			out = append(out, "table "+p.Title)
		case *report.Points:
			out = append(out, "points "+p.Title)
		case *report.Pictures:
			out = append(out, "pictures "+p.Title)
		case *report.Matrix:
			out = append(out, "matrix "+p.Title)
		case *report.Text:
			out = append(out, "text "+p.Title)
		case *report.Shares:
			out = append(out, "shares "+p.Title)
		}
	}
	return strings.Join(out, "; ")
}

// Other kinds of data than pictures: series, rows of a table, numbers to predict, text.
func TestKindsOfData(t *testing.T) {
	const n = 12
	x, class, number := make([]float32, n*8), make([]int32, n), make([]float32, n)
	for i := range x {
		x[i] = float32(i%7) / 7
	}
	for i := range class {
		class[i], number[i] = int32(i%2), float32(i)
	}
	check := func(name string, ds data.Dataset, err error, net *nn.Model, loss train.Loss, want string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		s, err := report.Predictions(context.Background(), model(t, net, ds.Spec(), loss), ds, 0)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := titles(s); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	ds, err := data.FromSlices(x, shape.Of(8), class, shape.Of(), 2)
	check("rows", ds, err, nn.Sequential(nn.Dense(2, nn.Softmax)), train.SparseCategoricalCrossentropy, "matrix Confusion matrix; table Classes; table Wrong")
	ds, err = data.FromSlices(x, shape.Of(4, 2), class, shape.Of(), 2)
	check("series", ds, err, nn.Sequential(nn.Flatten(), nn.Dense(2, nn.Softmax)), train.SparseCategoricalCrossentropy, "lines ✗")
	ds, err = data.FromSlices(x, shape.Of(8), number, shape.Of(1), 0)
	check("numbers", ds, err, nn.Sequential(nn.Dense(1, nn.Linear)), train.MeanSquaredError, "points Prediction against truth; table The greatest errors")

	set, err := text.Chars("abc", strings.Repeat("abcabd", 60), text.Config{Length: 8})
	if err != nil {
		t.Fatal(err)
	}
	classes := set.Spec().Classes
	m := model(t, nn.Sequential(nn.Embedding(classes, 8), nn.LSTM(8, nn.ReturnSequences()), nn.Dense(classes, nn.Softmax)), set.Spec(), train.SparseCategoricalCrossentropy)
	if s, err := report.Predictions(context.Background(), m, set.Test, 0); err != nil || len(s.Parts) > 0 {
		t.Errorf("a model of text has no classes of examples: %v %s", err, titles(s))
	}
	s, err := report.Texts(context.Background(), m, set.Test, 2, 10)
	if err != nil || titles(s) != "text Text 1; text Text 2" || len(s.Parts[0].(*report.Text).Body) != 10 {
		t.Errorf("texts: %v %+v", err, s)
	}
}

// Texts come in batches of several lengths, but an example keeps its number: what is said of it is said beside its own class and input.
func TestNumbersOfTexts(t *testing.T) {
	var all []labelled.Example
	for i, n := range []int{12, 1, 6, 1, 12, 3} {
		all = append(all, labelled.Example{Text: strings.Repeat([]string{"low ", "high "}[i%2], n), Class: []string{"low", "high", "mid"}[i%3]})
	}
	k, err := labelled.Train(all, "wordpiece:40")
	if err != nil {
		t.Fatal(err)
	}
	set, err := labelled.New("texts", all, all, labelled.Config{Tokenizer: k, Length: 16})
	if err != nil {
		t.Fatal(err)
	}
	spec := set.Spec()
	tokens, length := nn.InputOf("tokens", dtype.I32, 16), nn.InputOf("length", dtype.I32)
	y := nn.Dense(spec.Classes, nn.Softmax).On(nn.GlobalAveragePool1D().On(nn.Embedding(k.Size(), 4).On(tokens), length))
	net, err := nn.Functional([]*nn.Value{tokens, length}, []*nn.Value{y})
	if err != nil {
		t.Fatal(err)
	}
	s, err := report.Predictions(context.Background(), model(t, net, spec, train.SparseCategoricalCrossentropy), set.Test, 0)
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	x, label := spec.Tensors(1)
	for _, p := range s.Parts {
		table, ok := p.(*report.Table)
		if !ok || table.Columns[0] != "example" {
			continue
		}
		for _, r := range table.Rows {
			rows++
			i, err := strconv.Atoi(r[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := set.Test.Fill([]int{i}, x, label); err != nil {
				t.Fatal(err)
			}
			if truth, _, _ := strings.Cut(r[1], ","); truth != all[i].Class {
				t.Errorf("example %d is of class %s, the report says %s", i, all[i].Class, truth)
			}
			if r[3] != report.Quantity(x[0].At(0), "") {
				t.Errorf("example %d begins with token %v, the report says %s", i, x[0].At(0), r[3])
			}
		}
	}
	if rows != len(all) {
		t.Errorf("%d of %d examples are shown", rows, len(all))
	}
}

// With many classes the commonest mistakes are listed in place of a matrix that nobody could read.
func TestManyClasses(t *testing.T) {
	names, counts := make([]string, 40), make([][]int, 40)
	for i := range names {
		names[i], counts[i] = strings.Repeat("x", i+1), make([]int, 40)
		counts[i][i], counts[i][(i+1)%40] = 10, i
	}
	parts := report.Confusion(names, counts)
	first, ok := parts[0].(*report.Table)
	if !ok || len(first.Rows) != 24 || first.Rows[0][2] != "39" {
		t.Fatalf("%+v", parts[0])
	}
}

func TestQuantity(t *testing.T) {
	for _, c := range []struct {
		v    float64
		unit string
		want string
	}{{0.99163, "", "0.9916"}, {12345678, "", "12\u202f345\u202f678"}, {-5000, "", "-5000"}, {math.NaN(), "J", "–"}, {0.123, "%", "12.3%"}, {2.7e6, "B", "2.70 MB"}, {0.0292734, "", "0.02927"}, {1e-7, "", "1e-07"}, {123.456, "", "123.5"}} {
		if got := report.Quantity(c.v, c.unit); got != c.want {
			t.Errorf("Quantity(%g, %q) = %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

// Charts stay within their frame whatever the values are.
func TestChartsHold(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, ys := range [][]float64{{}, {nan}, {inf, 1, 2}, {0, 0, 0}, {1e-30, 1e30}, {-5, 5}, {3}} {
		xs := make([]float64, len(ys))
		for i := range xs {
			xs[i] = float64(i + 1)
		}
		p := report.Page{Title: "t", Sections: []report.Section{{Title: "s", Parts: []report.Part{
			&report.Lines{Title: "l", Series: []report.Series{{"a", xs, ys}}},
			&report.Points{Title: "p", Diagonal: true, Front: true, Points: points(xs, ys)},
			&report.Bars{Title: "b", Parts: []string{""}, Unit: "J", Rows: bars(ys)},
		}}}}
		var b bytes.Buffer
		if err := p.Write(&b); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
			t.Errorf("%v: not a number in the page", ys)
		}
	}
}

func points(xs, ys []float64) (out []report.Point) {
	for i := range xs {
		out = append(out, report.Point{X: xs[i], Y: ys[i]})
	}
	return out
}

func bars(ys []float64) (out []report.Bar) {
	for _, y := range ys {
		out = append(out, report.Bar{Name: "n", Values: []float64{y}})
	}
	return out
}

// A ledger of many layers: the bars fold the small ones, the table has all, and both add up.
func TestLedgerFolds(t *testing.T) {
	l := energy.NewLedger(energy.CPU, 1)
	for i := range 60 {
		l.Book(energy.Key{Layer: strings.Repeat("l", i+1), Op: "dot", Phase: "forward"}, 1, time.Duration(i+1)*time.Millisecond, energy.Cost{FLOPs: int64(i), Executed: int64(i)}, true)
	}
	l.Close(2*time.Second, nil)
	s := report.Ledger(l, nil)
	for _, p := range s.Parts {
		switch p := p.(type) {
		case *report.Bars:
			got := 0.0
			for _, r := range p.Rows {
				for _, v := range r.Values {
					got += v
				}
			}
			if p.Unit == "s" && math.Abs(got-l.Seconds) > 1e-9 {
				t.Errorf("%s: %g s, the ledger has %g", p.Title, got, l.Seconds)
			}
			if len(p.Rows) > 18 {
				t.Errorf("%s has %d rows", p.Title, len(p.Rows))
			}
		case *report.Table:
			if len(p.Rows) != 61 {
				t.Errorf("the table has %d rows", len(p.Rows))
			}
		}
	}
}
