package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/internal/atomicfile"
	"github.com/jouleml/joule/report"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/train/runs"
)

// Files of a run's folder.
const (
	modelFile      = "model.safetensors"
	layersFile     = "model.json"
	ledgerFile     = "ledger.json"
	reportFile     = "report.html"
	historyFile    = "history.csv"
	eventsDir      = "events"
	checkpointsDir = "checkpoints"
)

func reportCmd() *cobra.Command {
	var out string
	var threads int
	c := &cobra.Command{
		Use:   "report [RUN]",
		Short: "Write a run's report.html again: curves, predictions, cost of each layer, one file that opens offline",
		Long: "Report makes report.html in the run's folder (its id, the beginning of it, or last, the default). Training makes it at its end; this makes it for runs of earlier versions, for runs that were killed, " +
			"and for runs that are in progress.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if threads < 0 {
				return usageError{errors.New("--threads must not be negative")}
			}
			info, err := runs.Open(out).Get(first(args, "last"))
			if err != nil {
				return err
			}
			if len(info.Ledger) == 0 { // of a run that was killed: the account stands in its last checkpoint or file
				info.Ledger = ledgerOf(info)
			}
			r := report.Run{Info: info}
			s, err := searchOf(info)
			if err != nil {
				return err
			}
			if s != nil && s.Result != nil {
				r.More = report.OfSearch(s.Result, s.Before, s.After)
			}
			if err := trained(&r, modelFlags{out: out, threads: threads}); err != nil {
				r.Missing = err.Error()
			}
			if err := writeReport(c.Context(), r); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), filepath.Join(info.Dir, reportFile))
			return nil
		},
	}
	c.Flags().StringVar(&out, "out", runs.DefaultRoot, "folder of all runs")
	c.Flags().IntVar(&threads, "threads", 0, "threads to use (default: one for each CPU)")
	return c
}

// writeReport makes the report of a run in its folder.
func writeReport(ctx context.Context, r report.Run) error {
	var err error
	if r.History, err = r.Info.History(); err != nil {
		return err
	}
	p, err := report.OfRun(ctx, r)
	if err != nil {
		return err
	}
	return p.Save(filepath.Join(r.Info.Dir, reportFile))
}

// trained gives the report the run's data, and its model: as it was saved at the end, or else as its newest checkpoint has it.
func trained(r *report.Run, f modelFlags) error {
	s, err := spec.Parse([]byte(r.Info.Spec), "the specification of run "+r.Info.ID)
	if err != nil {
		return err
	}
	set, err := openData(s, f.out)
	if err != nil {
		return err
	}
	m, err := train.Load(filepath.Join(r.Info.Dir, modelFile), train.Threads(f.threads))
	if errors.Is(err, fs.ErrNotExist) {
		found, e := checkpoint.Latest(filepath.Join(r.Info.Dir, checkpointsDir))
		if e != nil {
			return fmt.Errorf("the run has no model and no checkpoint: %w", e)
		}
		s.Resumed = true
		if m, err = s.Compile(set.Test.Spec(), 1, train.Threads(f.threads)); err == nil {
			_, err = m.Restore(found.State)
		}
	}
	if err != nil {
		return err
	}
	r.Model, r.Set = m, set
	return nil
}

// ledgerOf is the account of a run that ended without saying how, nil if there is none.
func ledgerOf(i *runs.Info) json.RawMessage {
	if b, err := os.ReadFile(filepath.Join(i.Dir, ledgerFile)); err == nil && json.Valid(b) {
		return b
	}
	found, err := checkpoint.Latest(filepath.Join(i.Dir, checkpointsDir))
	if err != nil {
		return nil
	}
	return found.Sections[checkpoint.SectionLedger]
}

// writeReport writes report.html as the run stands; o is how it ended. What goes wrong is told, but a run does not fail by it.
func (j *job) writeReport(ctx context.Context, o *runs.Outcome) {
	info := j.run.Info()
	info.State, info.Results, info.Ledger, info.Settings = o.State, o.Results, o.Ledger, o.Settings
	if o.Error != nil {
		info.Error = o.Error.Error()
	}
	r := report.Run{Info: &info, Model: cmp.Or(j.result, j.model), Set: j.set}
	if o.State == runs.Interrupted { // the user is waiting
		r.Limit = 1000
	}
	if err := writeReport(context.WithoutCancel(ctx), r); err != nil {
		fmt.Fprintf(os.Stderr, "joule: no report: %v (joule report %s%s tries again)\n", err, info.ID, outFlag(j.f.out))
		return
	}
	o.Artifacts["report"] = reportFile
}

// keepLayers writes model.json beside the weights: the layers, the data they are for and how the model was compiled, for people and for other programs.
func (j *job) keepLayers() error {
	text, err := j.result.Describe()
	if err != nil {
		return err
	}
	return atomicfile.WriteBytes(j.run.Path(layersFile), text)
}

// settings are the run's hyperparameters, with what the command line changed.
func (j *job) settings() map[string]string {
	f := j.spec.Fit
	s := map[string]string{
		"epochs": fmt.Sprint(f.Epochs), "batch size": fmt.Sprint(f.BatchSize), "data": j.spec.Data,
		"training examples": fmt.Sprint(j.set.Train.Len()), "test examples": fmt.Sprint(j.set.Test.Len()),
	}
	c := j.model.Config()
	s["optimizer"], s["loss"], s["metrics"] = c.Optimizer, c.Loss, strings.Join(c.Metrics, ", ")
	s["parameters"] = fmt.Sprint(j.model.ParamCount())
	if c := j.spec.Changes(); c != "" {
		s["augmentation"] = c
	}
	if f.Accumulate > 1 {
		s["batches added up for an update"] = fmt.Sprint(f.Accumulate)
	}
	if j.f.target > 0 {
		s["target accuracy"] = fmt.Sprint(j.f.target)
	}
	return s
}
