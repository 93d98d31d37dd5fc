package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/pairs"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/generate"
	"github.com/jouleml/joule/text/score"
	"github.com/jouleml/joule/train"
)

// answers says whether a model reads a text and writes another.
func answers(m *train.Model) bool { return m.Spec.Grows != "" }

// answer writes about texts, which the ranks share, one line each, and at the end what it cost.
func (f *modelFlags) answer(c *cobra.Command, ranks *ranks, m *train.Model, texts []string, o generate.Options, attention bool, counters meterFlag) error {
	meter, err := ranks.meter(&counters)
	if err != nil {
		return err
	}
	a, err := generate.NewAnswerer(m)
	if err != nil {
		return err
	}
	rs, b, err := writeAbout(c.Context(), ranks, m, a, texts, o, meter)
	if err != nil || !ranks.first() {
		return err
	}
	w := c.OutOrStdout()
	for i, r := range rs {
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
		b.show(w)
	}
	return nil
}

// writeBill is what it cost to let a model write about texts.
type writeBill struct {
	texts, read, tokens int // tokens read and written
	ledger              *energy.Ledger
}

// writeAbout lets a model write about texts, which the ranks share, in an account of its own.
func writeAbout(ctx context.Context, ranks *ranks, m *train.Model, a *generate.Answerer, texts []string, o generate.Options, meter energy.Meter) (rs []generate.Answer, b writeBill, err error) {
	account, err := m.StartAccount(meter)
	if err != nil {
		return nil, b, err
	}
	if rs, err = parted(ranks, len(texts), func(lo, hi int) ([]generate.Answer, error) { return a.Run(ctx, texts[lo:hi], o) }); err != nil {
		return nil, b, err
	}
	b.texts = len(texts)
	for _, r := range rs {
		b.read, b.tokens = b.read+r.Prompt, b.tokens+r.Tokens
	}
	if b.ledger, err = account.Ledger(); err == nil {
		b.ledger, err = ranks.bill(b.ledger)
	}
	return rs, b, err
}

// phases are what reading (prefill), writing (decode) and the rest (idle) cost, in this order.
func phases(l *energy.Ledger) []energy.Line {
	by := l.By(func(k energy.Key) energy.Key { return energy.Key{Phase: k.Phase} })
	order := []string{"prefill", "decode"}
	slices.SortStableFunc(by, func(a, b energy.Line) int {
		place := func(e energy.Line) int {
			if i := slices.Index(order, e.Phase); i >= 0 {
				return i
			}
			return len(order)
		}
		return place(a) - place(b)
	})
	return by
}

// per is v for each of n things.
func per(v float64, n int) float64 { return v / float64(max(1, n)) }

// show prints the bill, reading and writing apart.
func (b writeBill) show(w io.Writer) {
	l := b.ledger
	fmt.Fprintf(w, "\n%d texts of %d tokens read, %d tokens written in %s\n", b.texts, b.read, b.tokens, energy.SI(l.Seconds, "s"))
	for _, e := range phases(l) {
		fmt.Fprintf(w, "  %-8s %10s %14s %10s", e.Phase, energy.SI(e.Seconds, "s"), energy.SI(float64(e.Cost.FLOPs), "FLOP"), energy.SI(e.Joules.Value, "J"))
		switch e.Phase {
		case "prefill":
			fmt.Fprintf(w, "  %s and %s a token read", energy.SI(per(e.Joules.Value, b.read), "J"), energy.SI(per(float64(e.Cost.FLOPs), b.read), "FLOP"))
		case "decode":
			fmt.Fprintf(w, "  %s and %s a token written", energy.SI(per(e.Joules.Value, b.tokens), "J"), energy.SI(per(float64(e.Cost.FLOPs), b.tokens), "FLOP"))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "all of it %s a token written, %s a text; energy: %v\n", energy.SI(per(l.Joules.Value, b.tokens), "J"), energy.SI(per(l.Joules.Value, b.texts), "J"), l.Joules)
}

// MarshalJSON is the bill for programs.
func (b writeBill) MarshalJSON() ([]byte, error) {
	l := b.ledger
	out := map[string]any{"texts": b.texts, "tokens_read": b.read, "tokens": b.tokens, "seconds": l.Seconds, "flops": l.Cost.FLOPs, "joules": l.Joules.Value, "joules_low": l.Joules.Low, "joules_high": l.Joules.High,
		"joules_per_token": per(l.Joules.Value, b.tokens)}
	for _, e := range phases(l) {
		out[e.Phase] = map[string]any{"seconds": e.Seconds, "flops": e.Cost.FLOPs, "joules": e.Joules.Value}
	}
	return json.Marshal(out)
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

// judge lets the model write about n test examples (0: all), which b is the bill of, and compares with the references, beside what needs no model: the source itself, its first sentence, and the
// target of the training example whose source is most like it.
func judge(c *cobra.Command, ranks *ranks, m *train.Model, set *data.Set, n int, o generate.Options, meter energy.Meter) (out []judged, test []pairs.Pair, b writeBill, err error) {
	test = pairs.Pairs(set.Test)
	if n > 0 {
		test = test[:min(n, len(test))]
	}
	if len(test) == 0 {
		return nil, nil, b, nil
	}
	a, err := generate.NewAnswerer(m)
	if err != nil {
		return nil, nil, b, err
	}
	var sources, references []string
	for _, p := range test {
		sources, references = append(sources, p.Source), append(references, p.Target)
	}
	rs, b, err := writeAbout(c.Context(), ranks, m, a, sources, o, meter)
	if err != nil {
		return nil, nil, b, err
	}
	own := pairs.Way{How: "the model"}
	for _, r := range rs {
		own.Texts = append(own.Texts, r.Text)
	}
	for _, w := range append([]pairs.Way{own}, pairs.Baselines(pairs.Pairs(set.Train), test)...) {
		j := judged{How: w.How, texts: w.Texts}
		if j.BLEU, err = score.CorpusBLEU(j.texts, references); err != nil {
			return nil, nil, b, err
		}
		if j.ROUGE, err = score.MeanROUGE(j.texts, references); err != nil {
			return nil, nil, b, err
		}
		out = append(out, j)
	}
	return out, test, b, nil
}

// written is a test text with what was written about it.
type written struct {
	Source    string `json:"source"`
	Reference string `json:"reference"`
	Text      string `json:"text"`
}

// textsOf are the texts that were judged.
func textsOf(j judged, test []pairs.Pair) []written {
	out := make([]written, len(test))
	for i, p := range test {
		out[i] = written{p.Source, p.Target, j.texts[i]}
	}
	return out
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
