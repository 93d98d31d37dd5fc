package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/internal/nearest"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/train/runs"
)

func runsCmd() *cobra.Command {
	var out, sortBy, state string
	var asJSON, reverse bool
	var limit int
	c := &cobra.Command{Use: "runs", Short: "List, show, compare and delete runs", Args: cobra.NoArgs}
	list := func(c *cobra.Command, _ []string) error {
		q := order(sortBy, reverse)
		if q.State = runs.State(state); state != "" && !slices.Contains(states, state) {
			return usageError{fmt.Errorf("--state %q: it is one of %s%s", state, strings.Join(states, ", "), nearest.Hint(state, states))}
		}
		if q.Limit = limit; limit < 0 {
			return usageError{fmt.Errorf("--limit %d must not be negative", limit)}
		}
		l, err := runs.Open(out).List(q)
		if err != nil {
			return err
		}
		for _, p := range l.Problems {
			fmt.Fprintln(os.Stderr, "joule:", p)
		}
		if asJSON {
			return json.NewEncoder(c.OutOrStdout()).Encode(l.Runs)
		}
		if len(l.Runs) == 0 {
			fmt.Fprintf(c.OutOrStdout(), "no runs in %s%s; joule train makes one\n", out, map[bool]string{true: " that are " + state}[state != ""])
			return nil
		}
		width := 16
		for _, r := range l.Runs {
			width = max(width, utf8.RuneCountInString(r.Name))
		}
		fmt.Fprintf(c.OutOrStdout(), "%-26s %-*s %-12s %9s %9s %9s\n", "run", width, "name", "state", "time", "accuracy", "energy")
		for _, r := range l.Runs {
			fmt.Fprintf(c.OutOrStdout(), "%-26s %-*s %-12s %9s %9s %9s\n", r.ID, width, r.Name, r.State, r.Duration().Round(time.Second), result(r.Results, "test_accuracy", "%.4f"), joulesOf(r.Results))
		}
		return nil
	}
	c.RunE = list
	c.PersistentFlags().StringVar(&out, "out", runs.DefaultRoot, "folder of all runs")
	c.PersistentFlags().BoolVar(&asJSON, "json", false, "print JSON")
	ls := &cobra.Command{Use: "list", Short: "List runs, the newest first", Args: cobra.NoArgs, RunE: list}
	for _, c := range []*cobra.Command{c, ls} {
		c.Flags().StringVar(&sortBy, "sort", "", "the best first by accuracy, loss, time, energy or the name of a result such as test_f1; or by start, name, state, host, isa, threads, seed")
		c.Flags().BoolVar(&reverse, "reverse", false, "the other way round")
		c.Flags().StringVar(&state, "state", "", "only runs that are done, running, interrupted or failed")
		c.Flags().IntVar(&limit, "limit", 0, "at most so many (0: all)")
	}
	c.AddCommand(ls,
		&cobra.Command{Use: "show RUN", Short: "Show one run: results, history, account", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			r, err := runs.Open(out).Get(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(r)
			}
			return showRun(c, r)
		}},
		&cobra.Command{Use: "compare RUN RUN", Short: "Set two runs side by side", Args: cobra.ExactArgs(2), RunE: func(c *cobra.Command, args []string) error {
			d, err := runs.Open(out).Compare(args[0], args[1])
			if err != nil {
				return err
			}
			if asJSON {
				return compareJSON(c.OutOrStdout(), d)
			}
			fmt.Fprintf(c.OutOrStdout(), "%-20s %-28s %-28s %s\n", "", d.A.ID, d.B.ID, "second / first")
			for _, s := range d.Settings {
				if s.Name == "spec" {
					s.A, s.B = "(differs)", "(differs)"
				}
				fmt.Fprintf(c.OutOrStdout(), "%-20s %-28s %s\n", s.Name, s.A, s.B)
			}
			for _, p := range d.Results {
				ratio := ""
				if r := p.B / p.A; r-r == 0 {
					ratio = fmt.Sprintf("%.3f", r)
				}
				fmt.Fprintf(c.OutOrStdout(), "%-20s %-28s %-28s %s\n", p.Name, number(p.A), number(p.B), ratio)
			}
			return nil
		}},
		&cobra.Command{Use: "delete RUN", Short: "Delete a run with all its files", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			id, err := runs.Open(out).Delete(args[0])
			if err == nil {
				fmt.Fprintln(c.OutOrStdout(), "deleted", id)
			}
			return err
		}})
	for _, s := range c.Commands() {
		s.Args = usageArgs(s.Args)
	}
	return c
}

var states = []string{string(runs.Done), string(runs.Running), string(runs.Interrupted), string(runs.Failed)}

// order is the query that --sort asks for: the best first, which is the highest accuracy but the lowest loss, time and energy.
func order(by string, reverse bool) runs.Query {
	q := runs.Query{Sort: by}
	switch by {
	case "accuracy", "loss":
		q.Sort = "test_" + by
	case "time":
		q.Sort = "seconds"
	case "energy":
		q.Sort = "joules"
	}
	costs := []string{"seconds", "joules", "joules_low", "joules_high", "flops", "bytes", "peak_rss_bytes", "step_ms_median", "step_ms_mean", "steps", "epochs", "duration", "name", "state", "host", "isa"}
	q.Ascending = slices.Contains(costs, q.Sort) || train.LowerIsBetter(q.Sort)
	q.Ascending = q.Ascending != reverse
	return q
}

// number writes a result, "-" for one that a run does not have.
func number(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf("%.6g", v)
}

// compareJSON prints two runs side by side as one object.
func compareJSON(w io.Writer, d *runs.Comparison) error {
	a, b := runs.Values{}, runs.Values{}
	for _, p := range d.Results {
		for v, at := range map[*float64]runs.Values{&p.A: a, &p.B: b} {
			if !math.IsNaN(*v) {
				at[p.Name] = *v
			}
		}
	}
	type side struct {
		ID      string      `json:"id"`
		Results runs.Values `json:"results"`
	}
	return json.NewEncoder(w).Encode(map[string]any{"a": side{d.A.ID, a}, "b": side{d.B.ID, b}, "differences": d.Settings})
}

func result(v runs.Values, name, format string) string {
	if x, ok := v[name]; ok {
		return fmt.Sprintf(format, x)
	}
	return "-"
}

func joulesOf(v runs.Values) string {
	if x, ok := v["joules"]; ok {
		return energy.SI(x, "J")
	}
	return "-"
}

func showRun(c *cobra.Command, r *runs.Info) error {
	w := c.OutOrStdout()
	fmt.Fprintf(w, "run %s (%s), %s, seed %d, %d threads, %s, on %s\n", r.ID, r.Name, r.State, r.Seed, r.Threads, r.ISA, r.Host)
	if r.Error != "" {
		fmt.Fprintln(w, "error:", r.Error)
	}
	var names []string
	for k := range r.Results {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		fmt.Fprintf(w, "  %-18s %.6g\n", k, r.Results[k])
	}
	for _, k := range slices.Sorted(maps.Keys(r.Artifacts)) {
		fmt.Fprintf(w, "  %-18s %s\n", k, filepath.Join(r.Dir, r.Artifacts[k]))
	}
	h, err := r.History()
	if err != nil {
		return err
	}
	if len(h.Rows) > 0 {
		fmt.Fprintf(w, "\n%6s", "epoch")
		for _, n := range h.Columns {
			fmt.Fprintf(w, " %14s", n)
		}
		fmt.Fprintln(w)
		for _, row := range h.Rows {
			fmt.Fprintf(w, "%6d", row.Key)
			for _, v := range row.Values {
				fmt.Fprintf(w, " %14.5g", v)
			}
			fmt.Fprintln(w)
		}
	}
	if len(r.Ledger) > 0 {
		var l energy.Ledger
		if err := json.Unmarshal(r.Ledger, &l); err != nil {
			return fmt.Errorf("the account of run %s: %w", r.ID, err)
		}
		fmt.Fprintf(w, "\n%s", l.Table())
	}
	return nil
}
