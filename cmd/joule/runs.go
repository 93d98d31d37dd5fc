package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/train/runs"
)

func runsCmd() *cobra.Command {
	var out, sortBy string
	var asJSON bool
	c := &cobra.Command{Use: "runs", Short: "List, show, compare and delete runs", Args: cobra.NoArgs}
	list := func(c *cobra.Command, _ []string) error {
		l, err := runs.Open(out).List(runs.Query{Sort: sortBy})
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
			fmt.Fprintf(c.OutOrStdout(), "no runs in %s yet\n", out)
			return nil
		}
		fmt.Fprintf(c.OutOrStdout(), "%-26s %-16s %-12s %9s %9s %9s\n", "run", "name", "state", "time", "accuracy", "energy")
		for _, r := range l.Runs {
			fmt.Fprintf(c.OutOrStdout(), "%-26s %-16s %-12s %9s %9s %9s\n", r.ID, r.Name, r.State, r.Duration().Round(time.Second), result(r.Results, "test_accuracy", "%.4f"), joulesOf(r.Results))
		}
		return nil
	}
	c.RunE = list
	c.PersistentFlags().StringVar(&out, "out", runs.DefaultRoot, "folder of all runs")
	c.PersistentFlags().BoolVar(&asJSON, "json", false, "print JSON")
	c.PersistentFlags().StringVar(&sortBy, "sort", "", "sort by start, name, state, duration or the name of a result such as test_accuracy or joules")
	c.AddCommand(&cobra.Command{Use: "list", Short: "List runs, the newest first", Args: cobra.NoArgs, RunE: list},
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
			fmt.Fprintf(c.OutOrStdout(), "%-20s %-28s %-28s\n", "", d.A.ID, d.B.ID)
			for _, s := range d.Settings {
				if s.Name == "spec" {
					s.A, s.B = "(differs)", "(differs)"
				}
				fmt.Fprintf(c.OutOrStdout(), "%-20s %-28s %-28s\n", s.Name, s.A, s.B)
			}
			for _, p := range d.Results {
				fmt.Fprintf(c.OutOrStdout(), "%-20s %-28.6g %-28.6g\n", p.Name, p.A, p.B)
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
