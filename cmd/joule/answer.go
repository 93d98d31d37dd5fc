package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/pairs"
	corpus "github.com/jouleml/joule/data/text"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/generate"
	"github.com/jouleml/joule/text"
	"github.com/jouleml/joule/text/score"
	"github.com/jouleml/joule/train"
)

// tokenizerOf is the tokenizer that a model was trained with.
func tokenizerOf(m *train.Model) (generate.Tokenizer, error) {
	if m.Spec.Tokenizer != nil {
		return text.Parse(m.Spec.Tokenizer)
	}
	return corpus.NewVocabulary(m.Spec.ClassNames)
}

// answers says whether a model reads a text and writes another.
func answers(m *train.Model) bool { return m.Spec.Grows != "" }

// answer writes about texts, one line each, and at the end what it cost.
func (f *modelFlags) answer(c *cobra.Command, m *train.Model, texts []string, o generate.Options, attention bool, counters meterFlag) error {
	a, err := generate.NewAnswerer(m)
	if err != nil {
		return err
	}
	meter, _, err := counters.open()
	if err != nil {
		return err
	}
	account, err := m.StartAccount(meter)
	if err != nil {
		return err
	}
	start := time.Now()
	rs, err := a.Run(c.Context(), texts, o)
	if err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	l, err := account.Ledger()
	if err != nil {
		return err
	}
	w := c.OutOrStdout()
	tokens := 0
	for i, r := range rs {
		tokens += r.Tokens
		if f.json {
			out := map[string]any{"source": texts[i], "text": r.Text, "source_tokens": r.Prompt, "not_read": r.Cut, "tokens": r.Tokens, "log_probability": r.LogProb, "ended_by": r.Why}
			if err := json.NewEncoder(w).Encode(out); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintln(w, r.Text)
		if attention {
			look, err := a.Attend(texts[i], r.Text)
			if err != nil {
				return err
			}
			showAttention(w, look)
		}
		if r.Cut > 0 {
			fmt.Fprintf(os.Stderr, "joule: the model did not read the last %d tokens of text %d: it takes %d\n", r.Cut, i+1, r.Prompt)
		}
	}
	if !f.json {
		fmt.Fprintf(w, "\n%d texts, %d tokens in %s; %s a token; %v\n", len(rs), tokens, energy.SI(seconds, "s"), energy.SI(l.Joules.Value/float64(max(1, tokens)), "J"), l.Joules)
	}
	return nil
}

// showAttention prints for each token written the three tokens that it looked at most.
func showAttention(w io.Writer, a generate.Attention) {
	for t, row := range a.P {
		by := make([]int, len(row))
		for i := range by {
			by[i] = i
		}
		slices.SortStableFunc(by, func(i, j int) int { return cmp.Compare(row[j], row[i]) })
		fmt.Fprintf(w, "  %-16q", a.Target[t])
		for _, i := range by[:min(3, len(by))] {
			fmt.Fprintf(w, "  %3.0f%% %-14q", 100*row[i], a.Source[i])
		}
		fmt.Fprintln(w)
	}
}

// lines are the lines of files, of the standard input where a file is "-"; empty ones are left out.
func lines(files []string, stdin io.Reader) ([]string, error) {
	var out []string
	for _, name := range files {
		r := stdin
		if name != "-" {
			f, err := os.Open(name)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			r = f
		}
		s := bufio.NewScanner(r)
		s.Buffer(nil, 1<<24)
		for s.Scan() {
			if t := strings.TrimSpace(s.Text()); t != "" {
				out = append(out, t)
			}
		}
		if err := s.Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out, nil
}

// judged is what a way of writing is worth on the test part.
type judged struct {
	How   string      `json:"how"`
	BLEU  score.BLEU  `json:"bleu"`
	ROUGE score.ROUGE `json:"rouge"`
	texts []string
}

// judge lets the model write about n test examples (0: all) and compares with the references, beside what needs no model: the source itself, its first sentence, and the target of the training
// example whose source is most like it.
func judge(c *cobra.Command, m *train.Model, set *data.Set, n int, o generate.Options) (out []judged, test []pairs.Pair, err error) {
	test = pairs.Pairs(set.Test)
	if n > 0 {
		test = test[:min(n, len(test))]
	}
	if len(test) == 0 {
		return nil, nil, nil
	}
	a, err := generate.NewAnswerer(m)
	if err != nil {
		return nil, nil, err
	}
	memory := pairs.NewMemory(pairs.Pairs(set.Train))
	var sources, references, lead, nearest, written []string
	for _, p := range test {
		sources, references, lead, nearest = append(sources, p.Source), append(references, p.Target), append(lead, pairs.Lead(p.Source)), append(nearest, memory.Nearest(p.Source).Target)
	}
	rs, err := a.Run(c.Context(), sources, o)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range rs {
		written = append(written, r.Text)
	}
	for _, j := range []judged{{How: "the model", texts: written}, {How: "nearest example", texts: nearest}, {How: "the source", texts: sources}, {How: "its first sentence", texts: lead}} {
		if j.BLEU, err = score.CorpusBLEU(j.texts, references); err != nil {
			return nil, nil, err
		}
		if j.ROUGE, err = score.MeanROUGE(j.texts, references); err != nil {
			return nil, nil, err
		}
		out = append(out, j)
	}
	return out, test, nil
}

// showJudged prints scores and some samples.
func showJudged(w io.Writer, js []judged, test []pairs.Pair) {
	fmt.Fprintf(w, "\n%-20s %-52s %s\n", fmt.Sprintf("%d texts by", len(test)), "BLEU", "ROUGE-1 / 2 / L")
	for _, j := range js {
		fmt.Fprintf(w, "%-20s %-52v %v\n", j.How, j.BLEU, j.ROUGE)
	}
	for k := range min(4, len(test)) {
		i := k * len(test) / 4
		fmt.Fprintf(w, "\n  source     %s\n  reference  %s\n  model      %s\n", test[i].Source, test[i].Target, js[0].texts[i])
	}
}
