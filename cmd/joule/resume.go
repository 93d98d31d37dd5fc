package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/train/runs"
)

// sessionSection keeps, in a checkpoint, what the run's sessions need beyond the model: the command line's settings and the account so far.
const sessionSection = "session"

type session struct {
	Epochs int     `json:"epochs"`
	Batch  int     `json:"batch"`
	Target float64 `json:"target"`
	Shards int     `json:"shards,omitempty"`
	slow
	backendFlags
}

// newest finds a run's newest whole checkpoint.
func (j *job) newest(store *runs.Store) (*resumed, *checkpoint.State, error) {
	info, err := store.Get(j.f.resume)
	if err != nil {
		return nil, nil, err
	}
	found, err := checkpoint.Latest(filepath.Join(info.Dir, checkpointsDir))
	if err != nil {
		return nil, nil, fmt.Errorf("run %s cannot be resumed: %w", info.ID, err)
	}
	for _, e := range found.Skipped {
		fmt.Fprintln(os.Stderr, "joule: skipped a checkpoint:", e)
	}
	return &resumed{ID: info.ID, Spec: info.Spec, Seed: info.Seed, Path: found.Path, Step: found.Step, Epoch: found.Epoch, Sections: found.Sections, Done: info.State == runs.Done, Results: info.Results}, found.State, nil
}

// resume takes up a run at its newest whole checkpoint. Rank 0 reads it; the others hear of it.
func (j *job) resume(ctx context.Context, store *runs.Store) error {
	var at *resumed
	var kept *checkpoint.State
	var err error
	if j.ranks.first() {
		at, kept, err = j.newest(store)
	}
	if at, err = share(j.ranks, at, err); err != nil {
		return err
	}
	if j.spec, err = spec.Parse([]byte(at.Spec), "the specification of run "+at.ID); err != nil {
		return err
	}
	var s session
	if err := json.Unmarshal(at.Sections[sessionSection], &s); err != nil {
		return fmt.Errorf("%s: section %s: %w", at.Path, sessionSection, err)
	}
	j.f.seed, j.f.batch = at.Seed, s.Batch
	if j.f.epochs == 0 {
		j.f.epochs = s.Epochs
	}
	if j.f.target == 0 {
		j.f.target = s.Target
	}
	if !j.f.moved { // a run goes on where it was, unless it is to be moved: a checkpoint fits every backend
		j.f.on = s.backendFlags
	}
	if at.Done && j.f.epochs == s.Epochs { // no error: who resumes again and again until it ends is told that it has
		if j.f.json {
			j.printResults(at.Results, map[string]any{"run": at.ID, "dir": filepath.Join(store.Root(), at.ID), "stopped": "done"})
			return nil
		}
		fmt.Fprintf(j.out, "run %s is done: there is nothing to go on with; --epochs %d or more trains it further\n", at.ID, s.Epochs+1)
		return nil
	}
	if j.f.shards == 0 {
		j.f.shards = s.Shards
	}
	if j.f.slow == noSlow && s.Local > 0 { // no flag says otherwise
		j.f.slow, j.f.kept = s.slow, true
		if err := j.f.rankFlags.verify(); err != nil {
			return err
		}
	}
	n := j.ranks.size()
	// Stages, and ranks that split layers, compute the same shards.
	for _, same := range []int{j.f.stages(n, j.spec.Applications()), j.f.split(n)} {
		if same > 1 && n%same == 0 {
			n /= same
		}
	}
	if j.f.shards != 0 && j.f.shards < n {
		return usageError{fmt.Errorf("run %s cuts its batches into %d shards, too few for %d ranks: resume it on at most %d ranks, or with --shards %d, which changes the sums' rounding", at.ID, j.f.shards, n, j.f.shards, n)}
	}
	j.spec.Resumed = true
	if err := j.prepare(); err != nil {
		return err
	}
	if kept != nil {
		j.from, err = j.model.Restore(at.state(kept), j.keepers()...)
	} else {
		j.from, err = j.model.RestoreProgress(at.state(nil), j.keepers()...)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", at.Path, err)
	}
	if !j.ranks.first() {
		return j.train(ctx)
	}
	if l := at.Sections[checkpoint.SectionLedger]; l != nil {
		j.past = &energy.Ledger{}
		if err := json.Unmarshal(l, j.past); err != nil {
			return fmt.Errorf("%s: section %s: %w", at.Path, checkpoint.SectionLedger, err)
		}
	}
	if j.run, err = store.Resume(at.ID); err != nil {
		return err
	}
	return j.train(ctx)
}

// keepers are the callbacks of the specification that have a memory.
func (j *job) keepers() []train.Keeper {
	var out []train.Keeper
	for _, c := range j.spec.Fit.Callbacks {
		if k, ok := c.(train.Keeper); ok {
			out = append(out, k)
		}
	}
	return out
}
