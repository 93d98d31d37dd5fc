package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/compress/pack"
	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/compress/search"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/catalog"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/internal/atomicfile"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/report"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/train/runs"
)

// searchFile is the state of a search, in the folder of its run.
const searchFile = "search.json"

func compressCmd() *cobra.Command {
	var f modelFlags
	var o search.Options
	var on, to, drop, target, by, resume, held, measure string
	c := &cobra.Command{
		Use:   "compress [RUN | model.safetensors]",
		Short: "Search for the cheapest model that does as well as a trained one",
		Long: "Compress takes units, filters, attention heads and whole residual branches or layers away where that saves most of --target for the loss it costs, lets the narrower model learn from the original one, quantizes it, measures each model on examples held out, and goes on as long as one is " +
			"within --max-drop. Each model is a run in the history. It prints all of them, those that nothing else beats (the Pareto front) marked, writes the best, and says after how many predictions the search has paid for itself. " +
			"A search that was stopped goes on with --resume.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			err := writable(to)
			if err != nil {
				return err
			}
			if o.MaxDrop, err = parseShare("max-drop", drop); err != nil {
				return usageError{err}
			}
			if o.Target = search.Target(target); !slices.Contains(search.Targets, o.Target) {
				return usageError{fmt.Errorf("--target %s: joules, latency, bytes and parameters are known", target)}
			}
			if o.By = search.Scores(by); o.By != search.Magnitude && o.By != search.Taylor {
				return usageError{fmt.Errorf("--by %s: magnitude and taylor are known", by)}
			}
			if err := (&pack.Options{Sparsity: o.Sparsity, Values: o.Values}).Check(); err != nil || o.Sparsity == 0 || o.Values == 0 {
				return usageError{cmp.Or(err, errors.New("--sparsity and --values must be above 0"))}
			}
			if held != "train" && held != "test" {
				return usageError{fmt.Errorf("--held %s: train and test are known", held)}
			}
			k := &candidates{store: runs.Open(f.out), f: &f, state: searchState{Options: o, Ref: first(args, "last"), Data: on, Held: held}}
			if ref := cmp.Or(resume, measure); ref != "" {
				for _, name := range []string{"data", "max-drop", "target", "budget", "epochs", "batch", "rounds", "by", "sparsity", "values", "pack", "held"} {
					if len(args) > 0 || c.Flags().Changed(name) || resume != "" && measure != "" {
						return usageError{errors.New("--resume and --measure take the settings of their search; leave model and settings out")}
					}
				}
				if err := k.reopen(ref, measure != ""); err != nil {
					return err
				}
			}
			if measure != "" {
				return k.again(c, to)
			}
			return k.search(c, to)
		},
	}
	f.add(c)
	fs := c.Flags()
	fs.StringVar(&on, "data", "", "the data set (default: the one that the run was trained on)")
	fs.StringVar(&to, "to", "", "the file to write (default: the model's name with .compressed)")
	fs.StringVar(&drop, "max-drop", "0.5%", "how much worse the model may do: a difference of accuracy, a share of a loss")
	fs.StringVar(&target, "target", "joules", "what is to become little: joules (of an example), latency (of a batch of one) bytes (of the file, which is then pruned, shares values and is packed) or parameters (to compare with)")
	fs.Float64Var(&o.Budget, "budget", 0, "joules that the search may cost (default: no limit)")
	fs.IntVar(&o.Epochs, "epochs", 2, "epochs of learning after each narrowing")
	fs.IntVar(&o.Batch, "batch", 32, "examples in a step")
	fs.IntVar(&o.Rounds, "rounds", 8, "narrowings at most")
	fs.BoolVar(&o.Pack, "pack", false, "with another target than bytes: prune, share values and pack the narrowest model that was found, and choose among packed ones")
	fs.StringVar(&held, "held", "train", "what candidates are compared on: train (the last thousand training examples, from which they do not learn, but the original has, so that it looks better there than it is) or test (every second test example; the result is that on the others)")
	fs.Float64Var(&o.Sparsity, "sparsity", 0.7, "share of the weights of packed models that become zero")
	fs.IntVar(&o.Values, "values", 15, "values that the other weights of a layer of packed models share")
	fs.StringVar(&by, "by", "magnitude", "which units of a layer go: those of the smallest weights (magnitude), or those that the loss depends on least by its gradient (taylor)")
	fs.StringVar(&measure, "measure", "", "measure the original and all candidates of a search that has come to its end again, such as on a machine that does nothing else now, and choose the best anew: the id of its run, the beginning of it, or last")
	fs.StringVar(&resume, "resume", "", "go on with a search: the id of its run, the beginning of it, or last")
	return c
}

// searchState is what is kept of a search between two sessions.
type searchState struct {
	Options    search.Options      `json:"options"`
	Ref        string              `json:"model"` // a run or a file
	File       string              `json:"file"`  // of the model
	Data       string              `json:"data"`
	Split      spec.Split          `json:"split,omitzero"` // of the data
	Held       string              `json:"held,omitempty"` // train or test
	Spec       string              `json:"spec,omitempty"` // of the model's run, so that a candidate's run knows its data
	Candidates []*search.Candidate `json:"candidates"`
	Result     *search.Result      `json:"result,omitempty"`
	Before     []train.Log         `json:"test_before,omitempty"`
	After      []train.Log         `json:"test_after,omitempty"`
}

// candidates keeps each candidate as a run, and the list of them in the search's own.
type candidates struct {
	store *runs.Store
	f     *modelFlags
	run   *runs.Run
	state searchState
}

// search runs the search, from where it stands, and prints what it finds.
func (k *candidates) search(c *cobra.Command, to string) error {
	s, err := k.f.subject(cmp.Or(k.state.File, k.state.Ref), k.state.Data)
	if err != nil {
		return err
	}
	m, set := s.model, s.set
	if set == nil {
		return usageError{errors.New("--data says which data set to learn from and to measure on")}
	}
	if k.state.Data == "" {
		k.state.Data, k.state.Split = s.data, s.split
	} else {
		set = k.state.Split.Apply(set)
	}
	if set, err = k.divide(set); err != nil {
		return err
	}
	dir, err := catalog.Dir()
	if err != nil {
		return err
	}
	k.state.Options.Cache = filepath.Join(dir, "results")
	if k.run == nil {
		if err := k.begin(s.path); err != nil {
			return err
		}
	}
	if s.spec == nil && k.state.Spec != "" { // gone on with: the model was opened by its file
		if s.spec, err = spec.Parse([]byte(k.state.Spec), "the specification of the model's run"); err != nil {
			return err
		}
	}
	k.state.Options.Augment, k.state.Options.Mixup = s.changes()
	if v := s.changed(); v != "" && !k.f.json {
		fmt.Fprintf(c.ErrOrStderr(), "models learn%s\n", v)
	}
	k.state.Options.Timer = quant.Clock(set.Test, quantizedBatches[:2]...)
	r, err := search.Run(c.Context(), m, set, k.state.Options, k, func(s *search.Candidate) {
		if !k.f.json {
			fmt.Fprintf(c.ErrOrStderr(), "%-28s drop %+.4f  %s an example  %s  %s\n", s.Name, s.Drop, energy.SI(s.Joules, "J"), energy.SI(s.MS/1e3, "s"), energy.SI(float64(s.Bytes), "B"))
		}
	})
	if err != nil {
		o := runs.Outcome{State: runs.Failed, Error: err}
		if c.Context().Err() != nil {
			o = runs.Outcome{State: runs.Interrupted}
			err = fmt.Errorf("%w; go on with: joule compress --resume %s%s", err, k.run.Info().ID, outFlag(k.f.out))
		} else if len(k.state.Candidates) == 0 { // such as data of too few examples: nothing is there to go on with
			return errors.Join(err, k.run.Discard())
		}
		return errors.Join(err, k.run.Finish(o))
	}
	return k.conclude(c, s, r, set, to)
}

// divide takes the test examples apart if candidates are compared on some of them: the result is that on the others.
func (k *candidates) divide(set *data.Set) (*data.Set, error) {
	if k.state.Held != "test" {
		return set, nil
	}
	var idx [2][]int
	for i := range set.Test.Len() {
		idx[i%2] = append(idx[i%2], i)
	}
	out := *set
	var err error
	if k.state.Options.Held, err = data.Subset(set.Test, idx[0]); err == nil {
		out.Test, err = data.Subset(set.Test, idx[1])
	}
	return &out, err
}

// conclude tests and writes the best of what was found, and prints everything.
func (k *candidates) conclude(c *cobra.Command, s *subject, r *search.Result, set *data.Set, to string) error {
	m := s.model
	var after []train.Log
	result := m
	if best := r.Find(r.Best); best != nil {
		q, err := train.Load(best.File, train.Threads(k.f.threads))
		if err != nil {
			return err
		}
		to = cmp.Or(to, s.beside("compressed"))
		for _, path := range []string{k.run.Path(modelFile), to} { // in the search's run, so that other commands find it there
			if err := save(q, best, path); err != nil {
				return err
			}
		}
		result = q
		if after, err = q.Evaluate(c.Context(), set.Test, 128); err != nil {
			return err
		}
	} else {
		to = ""
	}
	before, err := m.Evaluate(c.Context(), set.Test, 128)
	if err != nil {
		return err
	}
	k.state.Before, k.state.After = before, after
	if err := k.finish(c.Context(), r, after, result, set); err != nil {
		return err
	}
	if k.f.json {
		return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{"run": k.run.Info().ID, "result": r, "file": to, "test_before": before, "test_after": after})
	}
	printSearch(c.OutOrStdout(), r, before, after, to)
	info := k.run.Info()
	fmt.Fprintf(c.OutOrStdout(), "run %s, with Pareto charts in %s\n", info.ID, filepath.Join(info.Dir, reportFile))
	return nil
}

// save writes a candidate's model.
func save(m *train.Model, c *search.Candidate, to string) error {
	if c.Packed() {
		return m.SavePacked(to)
	}
	return m.SavePlain(to)
}

// again measures what a search has found again, and chooses the best anew.
func (k *candidates) again(c *cobra.Command, to string) error {
	s, err := k.f.subject(cmp.Or(k.state.File, k.state.Ref), k.state.Data)
	if err != nil {
		return err
	}
	set, err := k.divide(k.state.Split.Apply(s.set))
	if err != nil {
		return err
	}
	r := k.state.Result
	err = r.Again(c.Context(), s.model, set.Test, k.state.Options.Pack, func(c *search.Candidate) (*train.Model, error) {
		return train.Load(c.File, train.Threads(k.f.threads))
	})
	if err != nil {
		return errors.Join(err, k.run.Finish(runs.Outcome{State: runs.Done, Results: k.run.Info().Results, Ledger: k.run.Info().Ledger}))
	}
	k.state.Candidates = r.Candidates
	return k.conclude(c, s, r, set, to)
}

// reopen takes up a search, which has come to its end or not; last is the last search, not the last run.
func (k *candidates) reopen(ref string, ended bool) error {
	if ref == "last" {
		all, err := k.store.List(runs.Query{})
		if err != nil {
			return err
		}
		for _, info := range all.Runs {
			if _, err := os.Stat(filepath.Join(info.Dir, searchFile)); err == nil {
				ref = info.ID
				break
			}
		}
		if ref == "last" {
			return errors.New("no search of joule compress is there to go on with")
		}
	}
	info, err := k.store.Get(ref)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(info.Dir, searchFile))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("run %s is no search of joule compress", info.ID)
	}
	if err == nil {
		err = json.Unmarshal(b, &k.state)
	}
	if err != nil {
		return fmt.Errorf("run %s: %s: %w", info.ID, searchFile, err)
	}
	switch {
	case ended && k.state.Result == nil:
		return fmt.Errorf("the search %s has not come to its end; go on with: joule compress --resume %s%s", info.ID, info.ID, outFlag(k.f.out))
	case !ended && k.state.Result != nil:
		return fmt.Errorf("the search %s has come to its end; its result is in %s", info.ID, filepath.Join(info.Dir, searchFile))
	}
	k.run, err = k.store.Resume(info.ID)
	return err
}

// begin makes the search's run.
func (k *candidates) begin(path string) error {
	var err error
	if k.state.File, err = filepath.Abs(path); err != nil {
		return err
	}
	if !strings.HasSuffix(k.state.Ref, ".safetensors") {
		info, err := k.store.Get(k.state.Ref)
		if err != nil {
			return err
		}
		k.state.Spec, k.state.Ref = info.Spec, info.ID // what last means changes
	}
	if k.run, err = k.store.Create(runs.Info{Name: "compress " + k.state.Ref, Spec: k.state.Spec, ISA: isa.Current().String(), Version: version()}); err != nil {
		return err
	}
	return k.write()
}

func (k *candidates) write() error {
	b, err := json.MarshalIndent(k.state, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteBytes(k.run.Path(searchFile), b)
}

// Kept implements search.Keeper.
func (k *candidates) Kept(round int, format string) (*search.Candidate, *train.Model, error) {
	for _, c := range k.state.Candidates {
		if c.Round == round && c.Format == format {
			m, err := train.Load(c.File, train.Threads(k.f.threads))
			if err != nil {
				return nil, nil, fmt.Errorf("candidate %q: %w", c.Name, err)
			}
			again := *c
			return &again, m, nil
		}
	}
	return nil, nil, nil
}

// Keep implements search.Keeper.
func (k *candidates) Keep(c *search.Candidate, m *train.Model, l *energy.Ledger) error {
	run, err := k.store.Create(runs.Info{Name: c.Name + " of " + k.state.Ref, Of: k.run.Info().ID, Spec: k.state.Spec, ISA: isa.Current().String(), Version: version()})
	if err != nil {
		return err
	}
	c.Run = run.Info().ID
	o := runs.Outcome{State: runs.Done, Artifacts: map[string]string{"model": modelFile}, Results: runs.Values{
		"held_" + c.Quality.Name: c.Quality.Value, "held_loss": c.Quality.Loss, "drop": c.Drop, "joules": l.Joules.Value, "seconds": l.Seconds, "example_joules": c.Joules, "latency_ms": c.MS, "parameter_bytes": float64(c.Bytes), "disk_bytes": float64(c.Disk),
	}}
	if c.File, err = filepath.Abs(run.Path(modelFile)); err == nil {
		err = save(m, c, c.File)
	}
	if err == nil {
		o.Ledger, err = json.Marshal(l)
	}
	if err != nil {
		o.State, o.Error = runs.Failed, err
	}
	if err := errors.Join(err, run.Finish(o)); err != nil {
		return err
	}
	again := *c
	k.state.Candidates = append(k.state.Candidates, &again)
	return k.write()
}

// finish writes the result, and the report of the search with the model that came out of it.
func (k *candidates) finish(ctx context.Context, r *search.Result, tests []train.Log, result *train.Model, set *data.Set) error {
	k.state.Result = r
	if err := k.write(); err != nil {
		return err
	}
	o := runs.Outcome{State: runs.Done, Results: runs.Values{"joules": r.Spent, "candidates": float64(len(r.Candidates))}, Artifacts: map[string]string{"search": searchFile}}
	if r.Best != "" {
		o.Artifacts["model"] = modelFile
	}
	for _, l := range tests {
		o.Results["test_"+l.Name] = l.Value
	}
	info := k.run.Info()
	info.State, info.Results = o.State, o.Results
	if err := writeReport(ctx, report.Run{Info: &info, Model: result, Set: set, More: report.OfSearch(r, k.state.Before, k.state.After)}); err != nil {
		return errors.Join(err, k.run.Finish(o))
	}
	o.Artifacts["report"] = reportFile
	return k.run.Finish(o)
}

// searchOf is the search that a run was, nil of other runs.
func searchOf(info *runs.Info) (*searchState, error) {
	b, err := os.ReadFile(filepath.Join(info.Dir, searchFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var s searchState
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return nil, fmt.Errorf("run %s: %s: %w", info.ID, searchFile, err)
	}
	return &s, nil
}

// printSearch prints what was found.
func printSearch(w io.Writer, r *search.Result, before, after []train.Log, file string) {
	o := r.Original
	fmt.Fprintf(w, "  %-26s %10s %9s %12s %12s %12s %12s %12s\n", "", o.Quality.Name, "drop", "J/example ≈", "batch of 1", "batch of 32", "parameters", "on disk")
	line := func(mark, name string, m search.Measures, drop float64) {
		fmt.Fprintf(w, "%-2s%-26s %10.4f %+9.4f %12s %12s %12s %12s %12s\n", mark, name, m.Quality.Value, drop, energy.SI(m.Joules, "J"), energy.SI(m.MS/1e3, "s"), energy.SI(m.BatchMS/1e3, "s"), energy.SI(float64(m.Bytes), "B"), energy.SI(float64(m.Disk), "B"))
	}
	line("", "original", o, 0)
	for _, c := range r.Candidates {
		line(map[bool]string{true: "*"}[c.Front], c.Name, c.Measures, c.Drop)
	}
	fmt.Fprintf(w, "* nothing else is at least as good in drop and %s. Quality is that on %d examples held out. The search ended because %s; it cost ≈%s.\n", r.Target, r.Held, r.Stopped, energy.SI(r.Spent, "J"))
	if v := r.Doubt(); v != "" {
		fmt.Fprintf(w, "warning: %s\n", v)
	}
	fmt.Fprintln(w)
	best := r.Find(r.Best)
	if best == nil {
		fmt.Fprintf(w, "No model drops by at most %.4g and needs less (%s) than the original; nothing is written.", r.MaxDrop, r.Target)
		if c := r.Closest(); c != nil {
			fmt.Fprintf(w, " The one that drops least is %s, by %.4g: run %s.", c.Name, c.Drop, c.Run)
		}
		fmt.Fprintln(w)
		return
	}
	fmt.Fprintf(w, "best: %s\n", best.Name)
	for i, l := range after {
		fmt.Fprintf(w, "%-24s %12.4f %12.4f %+9.4f\n", "test "+l.Name, before[i].Value, l.Value, l.Value-before[i].Value)
	}
	var worse []string
	for _, v := range []struct {
		what     string
		old, now float64
		unit     string
	}{{"energy of an example ≈", o.Joules, best.Joules, "J"}, {"batch of 1", o.MS / 1e3, best.MS / 1e3, "s"}, {"batch of 32", o.BatchMS / 1e3, best.BatchMS / 1e3, "s"}, {"parameters", float64(o.Bytes), float64(best.Bytes), "B"}, {"on disk", float64(o.Disk), float64(best.Disk), "B"}} {
		fmt.Fprintf(w, "%-24s %12s %12s %8.2f×\n", v.what, energy.SI(v.old, v.unit), energy.SI(v.now, v.unit), v.old/v.now)
		if v.now > v.old {
			worse = append(worse, strings.TrimSuffix(v.what, " ≈"))
		}
	}
	if len(worse) > 0 {
		fmt.Fprintf(w, "It is WORSE than the original in: %s.\n", strings.Join(worse, ", "))
	}
	layers := report.SearchLayers(r, best)
	columns(w, append([][]string{layers.Columns}, layers.Rows...))
	fmt.Fprintln(w, "Joules are those of an example in batches of 32; narrower and as bytes: by how much the original's loss grows when the layer loses a quarter of its units (or goes), and when it alone computes on bytes, before anything is learned again.")
	if r.BreakEven > 0 {
		fmt.Fprintf(w, "The search has paid for itself after about %s.\n", r.Predictions())
	} else {
		fmt.Fprintln(w, "The search never pays for itself: the best needs no fewer joules than the original.")
	}
	fmt.Fprintf(w, "written to %s\n", file)
}

// columns prints a table whose first column is to the left, with the widths that it needs.
func columns(w io.Writer, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, v := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(v))
		}
	}
	for _, row := range rows {
		fmt.Fprintf(w, "  %-*s", widths[0], row[0])
		for i, v := range row[1:] {
			fmt.Fprintf(w, "  %*s", widths[i+1], v)
		}
		fmt.Fprintln(w)
	}
}
