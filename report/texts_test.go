package report_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/pairs"
	"github.com/jouleml/joule/data/text"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/report"
	"github.com/jouleml/joule/train"
)

// writer is a small trained encoder-decoder that reads figures and writes them as words.
func writer(t *testing.T) (*train.Model, *data.Set) {
	t.Helper()
	names := strings.Fields("null eins zwei drei vier")
	var all []pairs.Pair
	for a := range 5 {
		for b := range 5 {
			all = append(all, pairs.Pair{Source: fmt.Sprintf("%d %d", a, b), Target: names[a] + " " + names[b]})
		}
	}
	set, err := pairs.New("figures", all, all[:9], pairs.Config{Vocabulary: 290, Source: 6, Target: 12})
	if err != nil {
		t.Fatal(err)
	}
	n, width := set.Spec().Classes, 16
	source, length, target := nn.InputOf("source", dtype.I32, 6), nn.InputOf("source_length", dtype.I32), nn.InputOf("target", dtype.I32, 12)
	tokens := nn.Embedding(n, width, nn.KernelInit(nn.GlorotUniform))
	memory := nn.TransformerBlock(2).On(nn.PositionEmbedding(6).On(tokens.On(source)), length)
	y := nn.TransformerBlock(2, nn.CausalAttention()).On(nn.PositionEmbedding(12).On(tokens.On(target)), memory, length)
	net, err := nn.Functional([]*nn.Value{source, length, target}, []*nn.Value{nn.Dense(n, nn.Softmax).On(y)})
	if err != nil {
		t.Fatal(err)
	}
	m, err := train.Compile(net, set.Spec(), optim.Adam(optim.Rate(0.01)), train.SparseCategorical(train.Ignore(-1)), train.Seed(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Fit(context.Background(), set.Train, train.Epochs(20), train.BatchSize(8)); err != nil {
		t.Fatal(err)
	}
	return m, set
}

// A model that reads and writes is shown with its scores, its texts and what they looked at.
func TestAnswers(t *testing.T) {
	m, set := writer(t)
	s, err := report.Answers(context.Background(), m, set, 5)
	if err != nil {
		t.Fatal(err)
	}
	got := titles(s)
	for _, want := range []string{"table Scores; text Text 1; shares What text 1 looked at", "text Text 5"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s; want %s", got, want)
		}
	}
	var maps []*report.Shares
	for _, p := range s.Parts {
		switch p := p.(type) {
		case *report.Table:
			if len(p.Rows) != 4 || p.Rows[0][0] != "the model" || p.Rows[1][2] != "1.000" { // the test pairs are in the training part
				t.Errorf("scores %q", p.Rows)
			}
		case *report.Shares:
			maps = append(maps, p)
		}
	}
	if len(maps) != 4 {
		t.Fatalf("%d maps", len(maps))
	}
	for _, p := range maps {
		if len(p.P) != len(p.Rows) || p.Rows[len(p.Rows)-1] != "<end>" || !strings.HasPrefix(p.Columns[1], "␣") {
			t.Errorf("%d rows for %q, columns %q", len(p.P), p.Rows, p.Columns)
		}
		for _, row := range p.P {
			sum := 0.0
			for _, x := range row {
				sum += x
			}
			if len(row) != len(p.Columns) || math.Abs(sum-1) > 1e-5 {
				t.Errorf("a row of %d for %d columns adds up to %g", len(row), len(p.Columns), sum)
			}
		}
	}
	if s, err := report.Texts(context.Background(), m, set.Test, 2, 4); err != nil || len(s.Parts) > 0 {
		t.Errorf("it goes on with no text: %v %s", err, titles(s))
	}
}

// Texts know the tokenizer that a model was trained with, not characters alone.
func TestTextsOfTokens(t *testing.T) {
	corpus := strings.Repeat("the cat sits on the mat and the cät eats. ", 40)
	from := []text.Source{text.Memory("cats", corpus)}
	k, err := text.TokenizerFor("bpe:280", from, 0.2)
	if err != nil {
		t.Fatal(err)
	}
	set, err := text.Tokens("cats", from, k, text.Config{Length: 8, Test: 0.2}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n := set.Spec().Classes
	m := model(t, nn.Sequential(nn.Embedding(n, 8), nn.GRU(8, nn.ReturnSequences()), nn.Dense(n, nn.Softmax)), set.Spec(), train.SparseCategoricalCrossentropy)
	s, err := report.Texts(context.Background(), m, set.Test, 2, 10)
	if err != nil || titles(s) != "text Text 1; text Text 2" {
		t.Fatalf("%v %s", err, titles(s))
	}
	if p := s.Parts[0].(*report.Text); p.Body == "" || !strings.Contains(corpus, p.Lead) {
		t.Errorf("%+v", p)
	}
}

// Shares that are no numbers are nothing, and the page stays a page.
func TestSharesHold(t *testing.T) {
	p := report.Page{Title: "t", Sections: []report.Section{{Title: "s", Parts: []report.Part{
		&report.Shares{Title: "m", Rows: []string{"<b>", "y"}, Columns: []string{"a"}, P: [][]float64{{math.NaN()}, {7}}}}}}}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	if h := b.String(); strings.Contains(h, "NaN") || strings.Contains(h, "<b>") || !strings.Contains(h, ">100</td>") || strings.Contains(h, "ZgotmplZ") {
		t.Error(h[strings.Index(h, "<main"):])
	}
}
