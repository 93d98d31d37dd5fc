package report

import (
	"context"
	"fmt"
	"html/template"
	"math"
	"strings"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/pairs"
	"github.com/jouleml/joule/generate"
	"github.com/jouleml/joule/text/score"
	"github.com/jouleml/joule/train"
)

// Texts lets a language model go on with n beginnings taken from the test text, for so many tokens each. It gives no parts for other models.
func Texts(ctx context.Context, m *train.Model, test data.Dataset, n, tokens int) (Section, error) {
	s := Section{Title: "Texts"}
	in := m.Spec.Inputs
	if len(in) != 1 || len(in[0].Shape) != 1 || test.Len() == 0 {
		return s, nil
	}
	tok, err := generate.TokenizerOf(m)
	if err != nil {
		return s, nil // no model of text
	}
	g, err := generate.New(m, tok, in[0].Shape[0])
	if err != nil {
		return s, nil // it does not write
	}
	o := generate.Options{Tokens: tokens, Temperature: 0.8}
	s.Text = fmt.Sprintf("Written by the model at temperature %g, seed %d. What it was given is the test text's and stands first, in another colour.", o.Temperature, o.Seed)
	x, y := test.Spec().Tensors(1)
	for i := range min(n, test.Len()) {
		if err := test.Fill([]int{i * test.Len() / n}, x, y); err != nil {
			return s, fmt.Errorf("report: %w", err)
		}
		// Where tokens are bytes, the beginning may lie within a character.
		lead := strings.Trim(tok.Decode(x[0].I32()[:min(in[0].Shape[0]/2, 48)]), "\uFFFD")
		if lead == "" {
			continue
		}
		r, err := g.Run(ctx, lead, o, nil)
		if err != nil {
			return s, fmt.Errorf("report: %w", err)
		}
		s.Parts = append(s.Parts, &Text{Title: fmt.Sprintf("Text %d", i+1), Lead: lead, Body: r.Text, Mono: true})
	}
	return s, nil
}

const (
	scored   = 256 // test pairs that are written about for a report, at most
	answered = 8   // of them are shown
	mapped   = 4   // of those with a map of attention
	mapWidth = 40  // tokens of source and text that a map has at most
)

// Answers lets a model that reads a text and writes another write about at most so many test pairs, greedily: what that is worth beside ways that need no model, some of it beside the
// references, and for the shortest of these a map of what each token written looked at. It gives no parts for other models.
func Answers(ctx context.Context, m *train.Model, set *data.Set, limit int) (Section, error) {
	s := Section{Title: "Texts"}
	all := pairs.Pairs(set.Test)
	if m.Spec.Grows == "" || len(all) == 0 {
		return s, nil
	}
	a, err := generate.NewAnswerer(m)
	if err != nil {
		return s, nil // it does not write
	}
	var test []pairs.Pair
	n := min(limit, len(all))
	var sources, references []string
	for i := range n { // spread over the set
		p := all[i*len(all)/n]
		test, sources, references = append(test, p), append(sources, p.Source), append(references, p.Target)
	}
	rs, err := a.Run(ctx, sources, generate.Options{})
	if err != nil {
		return s, fmt.Errorf("report: %w", err)
	}
	own := pairs.Way{How: "the model"}
	for _, r := range rs {
		own.Texts = append(own.Texts, r.Text)
	}
	s.Text = fmt.Sprintf("Written by the model about %s of %s test texts, spread evenly, with the most probable token each time. joule eval scores all of them, with beams. Maps show what share of each token written looked at which token read, in percent: the cross-attention of the last block, the mean of its heads.", thousands(int64(n)), thousands(int64(len(all))))
	t := &Table{Title: "Scores", Columns: []string{"written by", "BLEU", "ROUGE-1", "ROUGE-2", "ROUGE-L"}, Right: []bool{false, true, true, true, true}}
	for _, w := range append([]pairs.Way{own}, pairs.Baselines(pairs.Pairs(set.Train), test)...) {
		b, err := score.CorpusBLEU(w.Texts, references)
		if err != nil {
			return s, fmt.Errorf("report: %w", err)
		}
		r, err := score.MeanROUGE(w.Texts, references)
		if err != nil {
			return s, fmt.Errorf("report: %w", err)
		}
		t.Rows = append(t.Rows, []string{w.How, fmt.Sprintf("%.2f", b.Score), fmt.Sprintf("%.3f", r.One), fmt.Sprintf("%.3f", r.Two), fmt.Sprintf("%.3f", r.L)})
	}
	s.Parts = append(s.Parts, t)
	maps := 0
	for k := range min(answered, n) {
		i := k * n / min(answered, n)
		s.Parts = append(s.Parts, &Text{Title: fmt.Sprintf("Text %d", k+1), Lead: test[i].Source, Body: "\n\nreference  " + test[i].Target + "\nmodel      " + own.Texts[i], Mono: true})
		if maps == mapped || own.Texts[i] == "" {
			continue
		}
		look, err := a.Attend(test[i].Source, own.Texts[i])
		if err != nil {
			return s, nil // a model without attention from text to text has no maps
		}
		if len(look.Source) > mapWidth || len(look.Target) > mapWidth {
			continue
		}
		maps++
		s.Parts = append(s.Parts, &Shares{Title: fmt.Sprintf("What text %d looked at", k+1), RowTitle: "written", ColumnTitle: "read",
			Rows: visible(look.Target), Columns: visible(look.Source), P: look.P})
	}
	return s, nil
}

var signs = strings.NewReplacer(" ", "␣", "\n", "⏎", "\t", "⇥")

// visible are tokens as a map shows them: with their spaces as signs.
func visible(tokens []string) []string {
	out := make([]string, len(tokens))
	for i, t := range tokens {
		out[i] = signs.Replace(t)
	}
	return out
}

// Shares is a map of how each row divides a whole among the columns: P[i][j] from 0 to 1.
type Shares struct {
	Title         string
	RowTitle      string
	ColumnTitle   string
	Rows, Columns []string
	P             [][]float64
}

func (*Shares) kind() string { return "shares" }

// Cell is a share as a whole percentage, and the depth of its colour.
type Cell struct{ Percent, Shade int }

// Cells are the shares for drawing; what is no number is nothing.
func (s *Shares) Cells() [][]Cell {
	out := make([][]Cell, len(s.P))
	for i, row := range s.P {
		for _, p := range row {
			if !finite(p) {
				p = 0
			}
			p = min(max(p, 0), 1)
			out[i] = append(out[i], Cell{int(math.Round(100 * p)), int(math.Round(85 * math.Sqrt(p)))})
		}
	}
	return out
}

// Tone is the style of a cell.
func (c Cell) Tone() template.CSS { return tone(c.Shade) }
