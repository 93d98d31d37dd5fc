package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/generate"
)

func generateCmd() *cobra.Command {
	var f modelFlags
	var o generate.Options
	var prompts []string
	var context int
	var counters meterFlag
	var attention bool
	rf := rankFlags{deadline: dist.DefaultDeadline}
	c := &cobra.Command{
		Use:   "generate [RUN | model.safetensors]",
		Short: "Let a language model go on with a text",
		Long: "Generate continues a prompt with the model of a run (its id, the beginning of it, or last, the default) or of a file, prints the text as it is written, and ends with what a token cost.\n\n" +
			"Options apply in this order: repetition penalty, temperature, top-k, top-p, min-p. Temperature 0 always takes the most probable token.\n\n" +
			"A model that reads a text and writes another (translate, summarize) reads the prompt and writes about it, with the most probable tokens or the best of --beams.\n\n" +
			"Ranks that mpirun has started share several prompts; one is written by rank 0 alone. With --tensor they share the model too, and rows of so many share the prompts.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			check := o
			if o.Beams > 1 && !c.Flags().Changed("temperature") {
				check.Temperature = 0 // what it is for models that read a text; for others the search refuses it
			}
			if err := check.Check(); err != nil {
				return usageError{err}
			}
			ranks, err := rf.join()
			if err != nil {
				return err
			}
			defer func() { err = ranks.leave(err) }()
			f.threads = ranks.threads(f.threads, c.ErrOrStderr())
			opts, err := rf.together(ranks)
			if err != nil {
				return err
			}
			if attention && opts != nil {
				return usageError{errors.New("--attention looks at all heads of a model, of which a rank has a part with --tensor: leave out one of the two")}
			}
			m, _, err := f.load(first(args, "last"), opts...)
			if err != nil {
				return err
			}
			if answers(m) {
				if !c.Flags().Changed("temperature") {
					o.Temperature = 0
				}
				if o.Beams > 1 && !c.Flags().Changed("length-penalty") {
					o.LengthPenalty = 1
				}
				return f.answer(c, ranks, m, prompts, o, attention, counters)
			}
			vocabulary, err := generate.TokenizerOf(m)
			if err != nil {
				return err
			}
			if in := m.Spec.Inputs; context == 0 && len(in) == 1 && len(in[0].Shape) == 1 {
				context = in[0].Shape[0]
			}
			if err := o.Check(); err != nil {
				return usageError{err}
			}
			g, err := generate.New(m, vocabulary, context)
			if err != nil {
				return err
			}
			if len(prompts) == 1 && !ranks.writes() {
				return nil
			}
			meter, err := ranks.meter(&counters)
			if err != nil {
				return err
			}
			a, err := m.StartAccount(meter)
			if err != nil {
				return err
			}
			w := ranks.out(c.OutOrStdout())
			prompt := prompts[0]
			emit := func(s string) error {
				_, err := io.WriteString(w, s)
				return err
			}
			if f.json {
				emit = nil
			} else if len(prompts) == 1 {
				fmt.Fprint(w, prompt)
			}
			start := time.Now()
			var r generate.Result
			var all []generate.Result
			if len(prompts) == 1 {
				r, err = g.Run(c.Context(), prompt, o, emit)
				all = []generate.Result{r}
			} else {
				all, err = parted(ranks, len(prompts), func(lo, hi int) ([]generate.Result, error) { return g.RunAll(c.Context(), prompts[lo:hi], o) })
				r = generate.Result{Why: "all"}
				for _, x := range all {
					r.Prompt, r.Tokens = r.Prompt+x.Prompt, r.Tokens+x.Tokens
				}
			}
			if err != nil {
				if !f.json {
					fmt.Fprintln(w)
				}
				return err
			}
			seconds := time.Since(start).Seconds()
			for _, x := range all {
				if n := g.Sees(x.Prompt); n < x.Prompt && ranks.first() {
					fmt.Fprintf(os.Stderr, "joule: a prompt has %d tokens and the model takes %d: it has seen the last %d of them\n", x.Prompt, context, n)
				}
			}
			l, err := a.Ledger()
			if err != nil {
				return err
			}
			if len(prompts) > 1 {
				l, err = ranks.bill(l)
			} else {
				l, err = ranks.billRow(l)
			}
			if err != nil || !ranks.first() {
				return err
			}
			if f.json {
				out := map[string]any{
					"prompt_tokens": r.Prompt, "tokens": r.Tokens, "seconds": seconds, "joules": l.Joules.Value, "joules_low": l.Joules.Low, "joules_high": l.Joules.High, "energy_source": l.Joules.Source.String(),
					"flops": l.Cost.FLOPs, "flops_per_token": float64(l.Cost.FLOPs) / float64(r.Prompt+r.Tokens), "joules_per_token": l.Joules.Value / float64(max(1, r.Tokens)),
				}
				if len(prompts) == 1 {
					out["prompt"], out["text"], out["log_probability"], out["ended_by"] = prompt, r.Text, r.LogProb, r.Why
				} else {
					var texts []map[string]any
					for i, x := range all {
						texts = append(texts, map[string]any{"prompt": prompts[i], "text": x.Text, "prompt_tokens": x.Prompt, "tokens": x.Tokens, "log_probability": x.LogProb, "ended_by": x.Why})
					}
					out["texts"] = texts
				}
				return json.NewEncoder(w).Encode(out)
			}
			if len(prompts) > 1 {
				for i, x := range all {
					fmt.Fprintf(w, "%s%s\n\n", prompts[i], x.Text)
				}
				fmt.Fprintf(w, "%d texts, ", len(all))
				r.Why = "stop texts or the number of tokens"
			} else {
				fmt.Fprint(w, "\n\n")
			}
			fmt.Fprintf(w, "%d tokens after a prompt of %d in %s (%.0f tokens/s); ended by %s\n", r.Tokens, r.Prompt, energy.SI(seconds, "s"), float64(r.Tokens)/seconds, r.Why)
			for _, e := range phases(l) {
				fmt.Fprintf(w, "  %-8s %10s %14s %10s\n", e.Phase, energy.SI(e.Seconds, "s"), energy.SI(float64(e.Cost.FLOPs), "FLOP"), energy.SI(e.Joules.Value, "J"))
			}
			if len(prompts) == 1 && ranks.team <= 1 || ranks.size() == 1 { // else it has the positions of this rank alone
				read := a.Positions()
				fmt.Fprint(w, m.PartsTable(l, func(phase string) int64 { return read[phase] }, true))
			}
			fmt.Fprintf(w, "%s and %s a token; %v\n", energy.SI(l.Joules.Value/float64(max(1, r.Tokens)), "J"), energy.SI(float64(l.Cost.FLOPs)/float64(r.Prompt+r.Tokens), "FLOP"), l.Joules)
			return nil
		},
	}
	f.add(c)
	f.on.add(c)
	fs := c.Flags()
	counters.add(fs)
	rf.addTensor(fs)
	fs.StringArrayVar(&prompts, "prompt", []string{"\n"}, "the text to go on with; given several times, all are gone on with at once")
	fs.IntVar(&o.Tokens, "tokens", 200, "the most tokens to write")
	fs.Float64Var(&o.Temperature, "temperature", 0.8, "what scores are divided by; 0 always takes the most probable token")
	fs.IntVar(&o.TopK, "top-k", 0, "draw from the so many most probable tokens (0: all)")
	fs.Float64Var(&o.TopP, "top-p", 0, "draw from the most probable tokens that together have this probability (0: all)")
	fs.Float64Var(&o.MinP, "min-p", 0, "draw from the tokens with this share of the greatest probability (0: all)")
	fs.Float64Var(&o.Repetition, "repetition-penalty", 1, "above 1: tokens of the text so far become less probable")
	fs.Uint64Var(&o.Seed, "seed", 0, "the number that draws follow from")
	fs.StringArrayVar(&o.Stop, "stop", nil, "end before this text (may be given several times)")
	fs.IntVar(&o.Beams, "beams", 1, "search with so many continuations at a time (needs --temperature 0)")
	fs.Float64Var(&o.LengthPenalty, "length-penalty", 0, "of beam search: divide a continuation's score by its length to this power")
	fs.BoolVar(&attention, "attention", false, "of a model that reads a text: print for each token written the tokens of the text that it looked at most")
	fs.IntVar(&context, "context", 0, "tokens that the model sees at most (default: as many as in training)")
	return c
}
