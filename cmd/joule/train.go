package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/compress/prune"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/catalog"
	"github.com/jouleml/joule/data/pairs"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/format/csvlog"
	"github.com/jouleml/joule/generate"
	"github.com/jouleml/joule/internal/atomicfile"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/rss"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/train/runs"
	"github.com/jouleml/joule/transfer"
)

// trainFlags are the settings of joule train.
type trainFlags struct {
	epochs, batch, threads int
	seed                   uint64
	target                 float64
	out, resume            string
	dryRun, quiet, json    bool
	grid                   float64
	every                  time.Duration
	on                     backendFlags
	moved                  bool   // the backend is named together with --resume
	runID                  string // of the run on its way
	rankFlags
	meter meterFlag
}

func trainCmd() *cobra.Command {
	var f trainFlags
	c := &cobra.Command{
		Use:   "train [preset | spec.yaml]",
		Short: "Train a model; without arguments the main job: a convolutional network on MNIST",
		Long: "Train trains what a preset or a specification says, shows its progress, and ends with an account of what each layer cost.\n\n" +
			"Presets: " + strings.Join(spec.Presets(), ", ") + ". The run is kept in a folder of its own under --out.\n\n" +
			"Started by mpirun (mpirun -n 4 joule train) the ranks share every batch; docs/distributed.md says how. Rank 0 prints and writes.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return f.run(c, args)
		},
		ValidArgs: spec.Presets(),
	}
	fs := c.Flags()
	fs.IntVar(&f.epochs, "epochs", 0, "passes over the training data (default: as the specification says)")
	fs.IntVar(&f.batch, "batch", 0, "examples in a step (default: as the specification says)")
	fs.Uint64Var(&f.seed, "seed", 0, "the number that everything random follows from")
	fs.IntVar(&f.threads, "threads", 0, "threads to use (default: one for each CPU)")
	fs.Float64Var(&f.target, "target-accuracy", 0, "end when the accuracy on the test data is this high, such as 0.99")
	fs.StringVar(&f.out, "out", runs.DefaultRoot, "folder of all runs")
	fs.StringVar(&f.resume, "resume", "", "go on with a run: its id, the beginning of it, or last")
	fs.BoolVar(&f.dryRun, "dry-run", false, "try model, data and disk on a few batches and print the predicted bill")
	fs.BoolVar(&f.quiet, "quiet", false, "print the result alone")
	fs.BoolVar(&f.json, "json", false, "print one JSON object for each epoch and a last one with the result")
	fs.Float64Var(&f.grid, "grid", 0, "grams of CO2 equivalent of a kilowatt hour of your electricity, to print carbon")
	f.on.add(c)
	f.rankFlags.add(fs)
	f.meter.add(fs)
	fs.DurationVar(&f.every, "checkpoint-every", 30*time.Second, "time between checkpoints within an epoch")
	return c
}

// maxThreads is more than any machine has.
const maxThreads = 1024

func (f *trainFlags) check(given func(flag string) bool) error {
	switch {
	case given("epochs") && f.epochs == 0 || given("batch") && f.batch == 0:
		return usageError{errors.New("--epochs and --batch must be at least 1; without them the specification says how many")}
	case f.threads > maxThreads:
		return usageError{fmt.Errorf("--threads %d is more than %d", f.threads, maxThreads)}
	case f.epochs < 0 || f.batch < 0 || f.threads < 0:
		return usageError{errors.New("--epochs, --batch and --threads must not be negative")}
	case f.target < 0 || f.target > 1:
		return usageError{fmt.Errorf("--target-accuracy %g is not between 0 and 1", f.target)}
	case f.grid < 0:
		return usageError{fmt.Errorf("--grid %g is negative", f.grid)}
	case f.every <= 0:
		return usageError{fmt.Errorf("--checkpoint-every %v must be positive", f.every)}
	case f.dryRun && f.resume != "":
		return usageError{errors.New("--dry-run and --resume cannot be used together")}
	}
	if _, _, err := f.meter.open(); err != nil { // before a run is made
		return err
	}
	return f.rankFlags.verify()
}

// job is one training on its way.
type job struct {
	f       *trainFlags
	out     io.Writer
	spec    *spec.Spec
	set     *data.Set
	model   *train.Model
	run     *runs.Run
	from    *train.Progress
	past    *energy.Ledger // what earlier sessions of a resumed run have cost
	account *train.Account
	shown   *progress
	check   *train.Checkpoints
	guess   *bill
	ranks   *ranks
	began   bool           // this session has come to its first step
	whole   *train.Model   // of which model is the head, if frozen layers compute each example once
	divided *train.Divided // likewise
	teacher *train.Model   // if it predicts each example once
	result  *train.Model   // what the run ends in: the model, or one of integers made of it
	last    *energy.Ledger // the account of all ranks, when it was last gathered
}

func (f *trainFlags) run(c *cobra.Command, args []string) error {
	if err := f.check(c.Flags().Changed); err != nil {
		return err
	}
	r, err := f.join()
	if err != nil {
		return err
	}
	asked := *f
	err = f.shared(c, args, r)
	for r.recover(err, c.ErrOrStderr()) { // a rank has died, and the others can go on
		id, pieces := f.runID, f.pieces
		*f = asked
		f.lost = true
		if f.shards == 0 { // the bits are those of the training that was begun
			f.shards = pieces
		}
		if found, e := share(r, f.resumable(id), nil); e != nil {
			err = e
			continue
		} else if !found { // before the first checkpoint: from the beginning
			err = f.shared(c, args, r)
			continue
		}
		f.resume, f.seed, f.batch, f.runID = id, 0, 0, id
		err = f.again(c, r)
	}
	return r.leave(err)
}

// resumable reports whether a run has a checkpoint to go on from.
func (f *trainFlags) resumable(id string) bool {
	if id == "" {
		return false
	}
	_, err := checkpoint.Latest(filepath.Join(f.out, id, checkpointsDir))
	return err == nil
}

// again goes on with a run on the ranks that are left.
func (f *trainFlags) again(c *cobra.Command, r *ranks) error {
	j := &job{f: f, out: r.out(c.OutOrStdout()), ranks: r}
	if !r.first() {
		f.quiet, f.json = true, false
	}
	f.threads = r.threads(f.threads, c.ErrOrStderr())
	return j.resume(c.Context(), runs.Open(f.out))
}

// shared is what each rank does.
func (f *trainFlags) shared(c *cobra.Command, args []string, r *ranks) error {
	j := &job{f: f, out: r.out(c.OutOrStdout()), ranks: r}
	if !r.first() {
		f.quiet, f.json = true, false
	}
	f.threads = r.threads(f.threads, c.ErrOrStderr())
	if err := r.inRows(c.ErrOrStderr()); err != nil {
		return err
	}
	store := runs.Open(f.out)
	name := "mnist"
	if len(args) > 0 {
		name = args[0]
	}
	if f.resume != "" {
		f.moved = c.Flags().Changed("backend") || c.Flags().Changed("plugin") || c.Flags().Changed("devices")
		if len(args) > 0 || c.Flags().Changed("seed") || f.batch != 0 {
			return usageError{errors.New("--resume goes on with the specification, seed and batch of its run; leave them out")}
		}
		return j.resume(c.Context(), store)
	}
	var err error
	if j.spec, err = spec.Open(name); err != nil {
		return err
	}
	if err := j.prepare(); err != nil {
		return err
	}
	if f.dryRun {
		if !r.first() {
			return nil
		}
		return j.dry(c.Context())
	}
	if !r.first() {
		return j.train(c.Context())
	}
	j.run, err = store.Create(runs.Info{Name: j.spec.Name, Spec: j.spec.Text, Seed: f.seed, ISA: f.on.isa(), Threads: j.model.Cores(), Version: version(), CPU: isa.CPU(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH + ", " + runtime.Version(), Settings: j.settings()})
	if err != nil {
		return err
	}
	return j.train(c.Context())
}

// talks reports whether it is printed what goes on.
func (f *trainFlags) talks() bool { return !f.quiet && !f.json }

// prepare opens the data and compiles the model.
func (j *job) prepare() error {
	f := j.f
	if f.epochs > 0 {
		j.spec.Fit.Epochs = f.epochs
	}
	if f.batch > 0 {
		j.spec.Fit.BatchSize = f.batch
	}
	given := f.slow != noSlow && !f.kept && !f.dryRun
	if err := f.rankFlags.take(j.spec.Ranks); err != nil {
		return err
	}
	note, err := f.fit(j.ranks.size(), j.spec.Applications(), given)
	if err != nil {
		return err
	}
	if note != "" && j.ranks.first() && (!f.quiet || f.lost) && !f.dryRun {
		fmt.Fprintln(os.Stderr, "joule:", note)
	}
	if j.set, err = openData(j.spec, f.out); err != nil {
		return err
	}
	if beams, _ := j.spec.Texts(); beams > 0 {
		if _, ok := j.set.Train.(*pairs.Encoded); !ok {
			return j.spec.AtTeacher(errors.New("distil: texts: a teacher writes about pairs of texts (data: pairs:FILE, debian-en-de, debian-synopses), all of them: without take"))
		}
	}
	if f.dryRun { // one rank tries its steps alone
		f.Zero, f.Tensor, f.Pipeline, f.Cuts = 0, 0, 0, ""
	}
	opts, err := f.on.options(train.Threads(f.threads), train.Seed(f.seed), train.Across(j.ranks.parallel(&f.rankFlags)))
	if err != nil {
		return err
	}
	if f.on.opened != nil && f.talks() {
		fmt.Fprintln(j.out, f.on.opened)
	}
	j.spec.Once = !f.dryRun
	if j.teacher, err = j.spec.Teacher(train.Threads(f.threads)); err != nil {
		return err
	}
	j.model, err = j.spec.Compile(j.set.Test.Spec(), j.updates(), opts...)
	if err == nil && j.spec.Cached() {
		j.whole = j.model
		if j.divided, err = j.model.Divide(); err == nil {
			j.model = j.divided.Head
		}
	}
	if err == nil && len(j.spec.Taken) > 0 && f.talks() {
		fmt.Fprintf(j.out, "took over %s", strings.Join(j.spec.Taken, ", "))
		if len(j.spec.Left) > 0 {
			fmt.Fprintf(j.out, "; new are %s", strings.Join(j.spec.Left, ", "))
		}
		fmt.Fprintln(j.out)
	}
	if err == nil && j.ranks.size() > 1 && f.Local <= 1 && f.Tensor <= 1 {
		f.pieces = j.model.Shards()
	}
	if err == nil && f.talks() && j.model.Stages() != nil {
		fmt.Fprintf(j.out, "pipeline stages begin with %s; %d micro-batches in a step\n", strings.Join(j.model.Stages(), ", "), j.model.Shards())
	}
	if err == nil && f.talks() {
		if frozen := cmp.Or(j.whole, j.model).FrozenPart(); frozen != "" {
			fmt.Fprintln(j.out, frozen)
		}
	}
	return err
}

// computeOnce replaces the data by what frozen layers give for it, or adds what a teacher says about it, from files in the cache; what it costs to make them is booked. Rank 0 makes them before the others look for them, who make
// their own where they do not see rank 0's files.
func (j *job) computeOnce(ctx context.Context, meter energy.Meter) (*data.Set, error) {
	set := j.set
	dir, err := catalog.Dir()
	if err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, "results")
	teacher := j.teacher
	who, m := "the teacher", teacher
	if j.divided != nil {
		who, m = "the frozen layers", j.divided.Body
	}
	if m == nil {
		return set, nil
	}
	if !j.ranks.first() {
		if err := j.ranks.comm.Barrier(); err != nil {
			return nil, err
		}
	}
	out := *set
	computed, examples := false, 0
	var files []string
	beams, _ := j.spec.Texts()
	spent := energy.NewLedger(m.EnergyModel(), m.Cores())
	for _, part := range []*data.Dataset{&out.Train, &out.Test} {
		account, err := m.StartAccount(meter)
		if err != nil {
			return nil, err
		}
		var r *transfer.Results
		switch {
		case teacher == nil:
			r, err = transfer.Features(ctx, j.divided, *part, 32, dir)
		case part == &out.Test:
			continue
		case beams > 0:
			examples = out.Train.Len()
			out.Train, computed, err = j.taught(ctx, teacher, dir)
		default:
			r, err = transfer.Predictions(ctx, teacher, *part, 32, dir)
		}
		if err != nil {
			return nil, err
		}
		if r != nil {
			*part = r.Data
			files = append(files, filepath.Base(r.Path))
			if examples += r.Data.Len(); !r.Computed {
				continue
			}
			computed = true
		}
		l, err := account.Ledger()
		if err != nil {
			return nil, err
		}
		if part == &out.Test { // what is known about examples to validate on is part of validating
			for i := range l.Lines {
				l.Lines[i].Phase = energy.PhaseEvaluate
			}
		}
		spent.Merge(l)
	}
	if j.ranks.first() && j.ranks.size() > 1 {
		if err := j.ranks.comm.Barrier(); err != nil {
			return nil, err
		}
	}
	if first, err := share(j.ranks, files, nil); err != nil || !slices.Equal(first, files) {
		return nil, cmp.Or(err, errors.New("what frozen layers or a teacher say once: this rank has other weights or data than rank 0"))
	}
	if !computed {
		if j.f.talks() {
			fmt.Fprintf(j.out, "what %s said about %d examples was read from %s\n", who, examples, dir)
		}
		return &out, nil
	}
	if teacher != nil {
		for i := range spent.Lines {
			spent.Lines[i].Layer = strings.TrimSuffix("teacher/"+spent.Lines[i].Layer, "/")
		}
	}
	if j.f.talks() {
		did := "said once what %d examples are"
		if beams > 0 {
			did = "wrote once about %d texts"
		}
		fmt.Fprintf(j.out, "%s "+did+": %s, %v\n", who, examples, energy.SI(spent.Seconds, "s"), spent.Joules)
	}
	past := energy.NewLedger(j.model.EnergyModel(), j.model.Cores())
	if j.past != nil {
		past = j.past
	}
	past.Merge(spent)
	past.Examples -= spent.Examples
	j.past = past
	return &out, nil
}

// taught is the training data with the texts that a teacher writes about its sources as targets, of which files are kept; computed says that it has written some of them now.
func (j *job) taught(ctx context.Context, teacher *train.Model, dir string) (out data.Dataset, computed bool, err error) {
	e := j.set.Train.(*pairs.Encoded) // prepare has seen to it
	a, err := generate.NewAnswerer(teacher)
	if err != nil {
		return nil, false, j.spec.AtTeacher(fmt.Errorf("distil: texts: the teacher cannot write: %w", err))
	}
	beams, both := j.spec.Texts()
	sources := make([]string, e.Len())
	for i := range sources {
		sources[i] = e.Pair(i).Source
	}
	texts, n, err := a.Once(ctx, sources, generate.Options{Beams: beams, LengthPenalty: 1}, dir)
	if err != nil {
		return nil, false, err
	}
	t, kept, err := e.Rewritten(texts, both)
	if err != nil {
		return nil, false, err
	}
	if kept > 0 && j.f.talks() {
		fmt.Fprintf(j.out, "of %d texts that the teacher wrote nothing about, or more than there is room for, the targets stay\n", kept)
	}
	return t, n > 0, nil
}

// steps is the number of batches of the whole training.
func (j *job) steps() int64 {
	n, b := j.set.Train.Len(), j.spec.Fit.BatchSize
	if _, both := j.spec.Texts(); both { // what the teacher writes comes to it
		n *= 2
	}
	if j.spec.Stateful() { // streams: what does not fill them is left out
		return int64(j.spec.Fit.Epochs) * int64(n/min(n, b))
	}
	return int64(j.spec.Fit.Epochs) * int64((n+b-1)/b)
}

func (j *job) updates() int64 { return j.steps() / int64(j.spec.Fit.Accumulate) }

// train runs the training from where it stands to its end, and the run to its outcome.
func (j *job) train(ctx context.Context) error {
	var err error
	if j.run != nil {
		j.f.runID = j.run.Info().ID
	}
	if j.f.runID, err = share(j.ranks, j.f.runID, nil); err != nil {
		return err
	}
	if !j.ranks.first() {
		_, err := j.fit(ctx)
		return err
	}
	if j.ranks.size() > 1 { // when a rank dies, the launcher asks the others to end and soon after makes them
		stop := context.AfterFunc(ctx, func() {
			fmt.Fprintf(os.Stderr, "joule: asked to end (by you, or by the launcher because a rank has died); go on with: mpirun … joule train --resume %s%s\n", j.run.Info().ID, outFlag(j.f.out))
		})
		defer stop()
	}
	results, err := j.fit(ctx)
	o := runs.Outcome{State: runs.Done, Results: results, Artifacts: map[string]string{"history": historyFile, "events": eventsDir}, Settings: j.settings()}
	switch {
	case errors.Is(err, train.ErrInterrupted), errors.Is(err, context.Canceled):
		o.State = runs.Interrupted
	case err != nil:
		o.State, o.Error = runs.Failed, err
	}
	if o.State == runs.Failed && !j.began && j.from == nil { // such as at a pattern that matches nothing: the last run is the one before
		return errors.Join(err, j.run.Discard())
	}
	if e := j.keepLedger(&o); e != nil {
		err = errors.Join(err, e)
	}
	if o.State == runs.Done {
		o.Artifacts["model"], o.Artifacts["layers"] = modelFile, layersFile
	}
	j.writeReport(ctx, &o)
	if e := j.run.Finish(o); e != nil {
		err = errors.Join(err, e)
	}
	if o.State == runs.Interrupted {
		return fmt.Errorf("%w; go on with: joule train --resume %s%s", err, j.run.Info().ID, outFlag(j.f.out))
	}
	return err
}

// keepLedger writes the account to the run's folder and into its outcome.
func (j *job) keepLedger(o *runs.Outcome) error {
	if j.account == nil { // it failed before anything was spent
		return nil
	}
	l := j.last // all ranks'
	if l == nil {
		var err error
		if l, err = j.ledger(); err != nil {
			return err
		}
	}
	var err error
	if o.Ledger, err = json.Marshal(l); err != nil {
		return err
	}
	o.Artifacts["ledger"] = ledgerFile
	return atomicfile.WriteBytes(j.run.Path(ledgerFile), o.Ledger)
}

func outFlag(out string) string {
	if out == runs.DefaultRoot {
		return ""
	}
	return " --out " + out
}

// fit trains, evaluates, saves and reports.
func (j *job) fit(ctx context.Context) (runs.Values, error) {
	meter, err := j.ranks.meter(&j.f.meter)
	if err != nil {
		return nil, err
	}
	j.shown = newProgress(j, meter)
	var folder, events string
	if j.run != nil {
		folder, events = j.run.Path(checkpointsDir), j.run.Path(eventsDir)
	}
	j.check = &train.Checkpoints{Dir: folder, Every: j.f.every, Watch: "val_loss", Keepers: j.keepers(), Extra: j.sections}
	set := j.set
	ready, err := j.computeOnce(ctx, meter)
	if err != nil { // the report of a run that was stopped has the data as it is
		return nil, err
	}
	j.set = ready
	if j.account, err = j.model.StartAccount(meter); err != nil {
		return nil, err
	}
	cs := append([]train.Callback{}, j.spec.Fit.Callbacks...)
	if j.f.target > 0 {
		cs = append(cs, &train.TargetReached{Watch: "val_accuracy", Value: j.f.target})
	}
	// The history and the account are written before the checkpoint that says that they are there.
	cs = append(cs, &historian{j: j}, j.check, &train.TensorBoard{Dir: events}, j.shown)
	opts := []train.FitOption{train.Epochs(j.spec.Fit.Epochs), train.BatchSize(j.spec.Fit.BatchSize), train.Validate(j.set.Test), train.Callbacks(cs...), train.Augment(j.spec.Fit.Augment...), train.Mixup(j.spec.Fit.Mixup)}
	if j.from != nil {
		opts = append(opts, train.From(j.from))
	}
	h, err := j.model.Fit(ctx, j.set.Train, opts...)
	j.began = h != nil // without a history, it ended before the first step
	j.shown.clear()
	if err != nil {
		l, e := j.ledger()
		if e != nil || h == nil {
			return nil, errors.Join(err, e)
		}
		return j.spent(h, l), err
	}
	var test []train.Log
	if j.divided != nil && !j.spec.Rounds() { // what frozen layers say about the test part is known
		if test, err = j.model.Evaluate(ctx, j.set.Test, 128); err != nil {
			return nil, err
		}
	}
	if j.set = set; j.divided != nil {
		if err := j.whole.Join(j.divided); err != nil {
			return nil, err
		}
		j.model = j.whole
	}
	result, err := j.spec.Quantized(ctx, j.model, j.set.Train)
	if err != nil {
		return nil, err
	}
	j.result = result
	if result == j.model {
		if err := j.model.Merge(); err != nil { // masks and low-rank changes become weights
			return nil, err
		}
	}
	if test == nil {
		if test, err = result.Evaluate(ctx, j.set.Test, 128); err != nil {
			return nil, err
		}
	}
	if j.ranks.trace != nil {
		if err := j.ranks.trace.write(j.f.timeline, j.ranks.comm); err != nil {
			return nil, err
		}
	}
	own, err := j.ledger()
	if err != nil {
		return nil, err
	}
	if err := j.model.Unshare(); err != nil {
		return nil, err
	}
	l, reports, err := j.gather(own)
	if err == nil { // rank 0 has whole layers again
		err = j.model.Assemble()
	}
	if err != nil || !j.ranks.first() {
		return nil, err
	}
	j.last = l
	if err := result.Save(j.run.Path(modelFile)); err != nil {
		return nil, err
	}
	if err := j.keepLayers(); err != nil {
		return nil, err
	}
	r := j.spent(h, l)
	for _, l := range test {
		r["test_"+l.Name] = l.Value
	}
	if r["sparsity"], _, err = prune.Sparsity(j.model); err != nil {
		return nil, err
	}
	if len(reports) > 0 {
		r["ranks"] = float64(len(reports))
		for _, k := range reports {
			r["bytes_sent"] += float64(k.Sent)
			if k.Across > 0 {
				r["bytes_across_machines"] += float64(k.Across)
			}
			r["seconds_waiting"] += k.Waiting
		}
	}
	j.report(h, r, test, l, reports)
	if j.f.talks() {
		if err := j.reportForecast(ctx, j.out); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// spent is what the training has cost so far and what it was predicted to cost.
func (j *job) spent(h *train.History, l *energy.Ledger) runs.Values {
	r := runs.Values{
		"steps": float64(h.Steps), "seconds": h.Seconds, "epochs": float64(len(h.Epochs)), "peak_rss_bytes": float64(rss.Peak()), "step_ms_median": j.shown.medianStep(), "step_ms_mean": j.shown.meanStep(),
		"flops": float64(l.Cost.FLOPs), "bytes": float64(l.Cost.Bytes()), "joules": l.Joules.Value, "joules_low": l.Joules.Low, "joules_high": l.Joules.High,
		"joules_evaluate": 0, // of them, for validation and the test in the end
	}
	for _, e := range l.Lines {
		if e.Phase == energy.PhaseEvaluate {
			r["joules_evaluate"] += e.Joules.Value
		}
	}
	if g := j.guess; g != nil {
		r["predicted_seconds"], r["predicted_joules"], r["predicted_bytes"] = g.seconds, g.joules.Value, float64(g.bytes)
	}
	return r
}

// sections are what the run's checkpoints keep for its next session.
func (j *job) sections() (map[string]json.RawMessage, error) {
	own, err := j.ledger()
	if err != nil {
		return nil, err
	}
	l, _, err := j.gather(own)
	if err != nil {
		return nil, err
	}
	j.last = l
	shards := j.f.shards
	if shards == 0 {
		shards = j.f.pieces
	}
	out := map[string]json.RawMessage{}
	for name, v := range map[string]any{sessionSection: session{j.spec.Fit.Epochs, j.spec.Fit.BatchSize, j.f.target, shards, j.f.asked, j.f.on}, checkpoint.SectionLedger: l} {
		text, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		out[name] = text
	}
	return out, nil
}

// ledger is the account of the run so far, earlier sessions included.
func (j *job) ledger() (*energy.Ledger, error) {
	l, err := j.account.Ledger()
	if err != nil {
		return nil, err
	}
	l.Grid, l.Examples = j.f.grid, j.shown.examples
	if j.past != nil {
		l.Merge(j.past)
	}
	return l, nil
}

// historian writes each epoch to the run's history.
type historian struct {
	train.Hooks
	j *job
}

func (h *historian) AfterEpoch(t *train.Training) error {
	own, err := h.j.ledger()
	if err != nil {
		return err
	}
	l, _, err := h.j.gather(own)
	if err != nil || !t.Model.Writes() {
		return err
	}
	e := t.History.Epochs[len(t.History.Epochs)-1]
	row := runs.Epoch{Epoch: int64(e.Epoch), Seconds: e.Seconds, Joules: l.Joules.Value - h.j.shown.joulesBefore}
	h.j.shown.joulesBefore = l.Joules.Value
	for _, v := range e.Logs {
		row.Metrics = append(row.Metrics, csvlog.Value{Name: v.Name, Value: v.Value})
	}
	return h.j.run.Append(row)
}

// report prints the result: for people, or as one JSON object.
func (j *job) report(h *train.History, r runs.Values, test []train.Log, l *energy.Ledger, ranks []rankReport) {
	if j.f.json {
		out := map[string]any{"run": j.run.Info().ID, "dir": j.run.Info().Dir, "energy_source": l.Joules.Source.String(), "stopped": h.Stopped}
		if at := j.shown.firstStep; !at.IsZero() {
			out["first_step_at"] = at // the clock when the first step of this session had ended
		}
		if len(ranks) > 0 {
			out["by_rank"] = ranks
		}
		j.printResults(r, out)
		return
	}
	if !j.f.quiet {
		fmt.Fprintf(j.out, "\n%s\n", l.Table())
		if n := j.model.Positions(); n > 0 { // a sequence model: what a position costs, and in which part
			fmt.Fprintf(j.out, "%s\n", j.model.PartsTable(l, func(string) int64 { return l.Examples * int64(n) }, false))
		}
		if len(ranks) > 0 {
			rankTable(j.out, ranks)
			fmt.Fprintln(j.out)
		}
		if j.guess != nil {
			fmt.Fprintf(j.out, "predicted from the first steps: %s and %s; real: %s and %s\n", energy.SI(j.guess.seconds, "s"), energy.SI(j.guess.joules.Value, "J"),
				energy.SI(h.Seconds, "s"), energy.SI(l.Joules.Value, "J"))
		}
	}
	if h.Stopped != "" {
		fmt.Fprintln(j.out, "stopped:", h.Stopped)
	}
	var scores []string
	for _, t := range append(test[1:len(test):len(test)], test[0]) { // metrics, then the loss
		scores = append(scores, fmt.Sprintf("%s %.4f", t.Name, t.Value))
	}
	fmt.Fprintf(j.out, "test %s; %s for %d steps (median %.2f ms, mean %.2f ms); peak memory %s; %v\n", strings.Join(scores, ", "),
		energy.SI(h.Seconds, "s"), h.Steps, r["step_ms_median"], r["step_ms_mean"], energy.SI(r["peak_rss_bytes"], "B"), l.Joules)
	fmt.Fprintf(j.out, "run %s in %s\n", j.run.Info().ID, j.run.Info().Dir)
}

// printResults prints a result as one JSON object: numbers beside what else there is to say.
func (j *job) printResults(r runs.Values, out map[string]any) {
	for k, v := range r {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			out[k] = v
		}
	}
	text, _ := json.Marshal(out)
	fmt.Fprintln(j.out, string(text))
}
