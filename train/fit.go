package train

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// ErrInterrupted is what Fit returns, wrapped, when its context was cancelled. The model is as the last finished step left it.
var ErrInterrupted = errors.New("training was interrupted")

// Log is a named number of an epoch: "loss", "accuracy", "val_loss", …
type Log struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// MarshalJSON writes a value that is not finite as null, for which JSON has no other word.
func (l Log) MarshalJSON() ([]byte, error) {
	v := &l.Value
	if math.IsNaN(*v) || math.IsInf(*v, 0) {
		v = nil
	}
	return json.Marshal(struct {
		Name  string   `json:"name"`
		Value *float64 `json:"value"`
	}{l.Name, v})
}

// UnmarshalJSON reads null as NaN.
func (l *Log) UnmarshalJSON(b []byte) error {
	var s struct {
		Name  string
		Value *float64
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	l.Name, l.Value = s.Name, math.NaN()
	if s.Value != nil {
		l.Value = *s.Value
	}
	return nil
}

// Epoch is what one pass over the training data gave.
type Epoch struct {
	Epoch   int     `json:"epoch"` // from 1
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"rate"` // the learning rate of its last step
	Logs    []Log   `json:"logs"`
}

// Log is the value of the given name, and whether there is one.
func (e *Epoch) Log(name string) (float64, bool) {
	for _, l := range e.Logs {
		if l.Name == name {
			return l.Value, true
		}
	}
	return math.NaN(), false
}

// History is what Fit gives.
type History struct {
	Epochs  []Epoch `json:"epochs"`
	Steps   int64   `json:"steps"` // batches trained on, over all sessions of a resumed run
	Seconds float64 `json:"seconds"`
	Stopped string  `json:"stopped,omitempty"` // why it ended before the last epoch
}

// FitOption refines Fit.
type FitOption func(f *fit)

// Epochs sets how often the training data is gone through; the default is 1.
func Epochs(n int) FitOption { return func(f *fit) { f.epochs = n } }

// BatchSize sets the number of examples in a step; the default is 32.
func BatchSize(n int) FitOption { return func(f *fit) { f.batch = n } }

// Validate evaluates on ds after each epoch, as val_loss and so on.
func Validate(ds data.Dataset) FitOption { return func(f *fit) { f.validation = ds } }

// InOrder trains on the data in its own order; without it each epoch has a new random order, which depends on the seed and the epoch alone.
func InOrder() FitOption { return func(f *fit) { f.inOrder = true } }

// Augment changes examples at random as they are loaded.
func Augment(t ...data.Transform) FitOption {
	return func(f *fit) { f.transforms = append(f.transforms, t...) }
}

// Mixup mixes each example, after Augment's changes, with another one, which is drawn from the whole data set and changed on its own: the example's share is drawn from Beta(alpha, alpha), the rest is the
// other's, and so are the targets (arXiv:1710.09412). Class numbers become probabilities; the metrics of the training take the class of the greater share for the right one. Inputs must be f32.
func Mixup(alpha float64) FitOption { return func(f *fit) { f.mixup = alpha } }

// MaxSteps ends the training after n steps.
func MaxSteps(n int64) FitOption { return func(f *fit) { f.maxSteps = n } }

// Callbacks are told of every step and epoch, in order.
func Callbacks(cs ...Callback) FitOption {
	return func(f *fit) { f.callbacks = append(f.callbacks, cs...) }
}

// From goes on with the training that p describes; see Model.Restore.
func From(p *Progress) FitOption { return func(f *fit) { f.from = p } }

// Progress is where a training stands between two steps: what a checkpoint keeps beside the model's variables.
type Progress struct {
	Position data.Position     `json:"position"` // of the next batch
	Steps    int64             `json:"steps"`
	Updates  int64             `json:"updates"` // optimizer steps, which the learning rate's schedule counts
	Factor   float64           `json:"factor"`  // what callbacks have multiplied the rate by
	LossSum  float64           `json:"loss_sum"`
	Examples int64             `json:"examples"` // of the epoch so far
	Meters   []json.RawMessage `json:"meters"`
	History  History           `json:"history"`
	EpochSec float64           `json:"epoch_seconds"` // spent on the epoch so far
}

// Training is a fit in progress, as callbacks see it.
type Training struct {
	Model      *Model
	Epochs     int     // to be done in all
	EpochSteps int     // batches in an epoch
	BatchSize  int     // examples in a full batch
	Epoch      int     // the current one, from 1
	Step       int     // batches done of this epoch
	Steps      int64   // batches done in all
	Examples   int64   // examples done of this epoch
	Loss       float64 // mean of the epoch so far
	LastLoss   float64 // of the last batch
	Rate       float64 // of the last step
	Started    time.Time
	History    *History

	f *fit
}

// Logs are the running values of the epoch: loss and metrics; after the epoch's end also those of validation.
func (t *Training) Logs() []Log { return t.f.logs() }

// Data is what the model learns from, changed at random as in the first epoch (Augment), not mixed.
func (t *Training) Data() (data.Dataset, error) {
	return data.Changed(t.f.ds, t.Model.seed, t.f.transforms...)
}

// Stop ends the training after the current step or epoch, with the reason for the history.
func (t *Training) Stop(reason string) { t.History.Stopped = reason }

// failed reports, in End, that the training ended in an error.
func (t *Training) failed() bool { return t.f.bad }

// ScaleRate multiplies the learning rate from now on.
func (t *Training) ScaleRate(by float64) { t.f.p.Factor *= by }

// Together reports whether to do now what rank 0 has wished: a wish is carried by the next step's sums, so that all ranks see it after the same step. A process alone does at
// once what it wishes.
func (t *Training) Together(wish bool) bool {
	if t.Model.Comm() == nil {
		return wish
	}
	t.f.wish.save = wish && t.Model.Writes()
	return t.f.all.save
}

// Progress is what a checkpoint must keep to go on after the last step. All ranks must call it.
func (t *Training) Progress() (*Progress, error) { return t.f.progress() }

// Callback is told what happens during Fit. An error ends the training.
type Callback interface {
	Begin(t *Training) error // before the first step
	AfterStep(t *Training) error
	AfterEpoch(t *Training) error // the epoch is the last of t.History.Epochs
	End(t *Training) error        // after the last step, also when interrupted
}

// Hooks is a Callback that does nothing; embed it to implement only what is needed.
type Hooks struct{}

// Begin implements Callback.
func (Hooks) Begin(*Training) error { return nil }

// AfterStep implements Callback.
func (Hooks) AfterStep(*Training) error { return nil }

// AfterEpoch implements Callback.
func (Hooks) AfterEpoch(*Training) error { return nil }

// End implements Callback.
func (Hooks) End(*Training) error { return nil }

// fit is one call of Fit.
type fit struct {
	m          *Model
	epochs     int
	batch      int
	maxSteps   int64
	validation data.Dataset
	inOrder    bool
	transforms []data.Transform
	mixup      float64 // 0: examples are not mixed
	callbacks  []Callback
	from       *Progress

	p      Progress
	meters []meter
	t      *Training
	g      *group // nil: a batch is one piece, in this process
	ds     data.Dataset
	loader *data.Loader
	begun  time.Time // of this session's part of the epoch
	start  time.Time // of this session
	before float64   // seconds of earlier sessions
	snap   *snapshot
	wish   wishes // of this rank, for the next step
	all    wishes // of all ranks, at the last step
	bad    bool   // the training ended in an error other than an interruption
}

// Fit trains on ds. It returns the history also with an error. When ctx is cancelled it finishes the step and returns an error that wraps
// ErrInterrupted; a loss that is not a number ends it with the layer in which that arose.
func (m *Model) Fit(ctx context.Context, ds data.Dataset, opts ...FitOption) (*History, error) {
	f := &fit{m: m, epochs: 1, batch: 32}
	for _, o := range opts {
		o(f)
	}
	if err := f.check(ds); err != nil {
		return nil, err
	}
	cfg := data.LoaderConfig{Batch: f.batch, Shuffle: !f.inOrder, Seed: m.seed, Epochs: f.epochs, Transforms: f.transforms, Mixup: f.mixup}
	var err error
	if m.Net.Stateful() {
		if m.sharing() {
			return nil, errors.New("train: the training of a stateful model cannot be shared out: its states go from each batch to the next")
		}
		f.batch, f.inOrder = min(f.batch, ds.Len()), true
		cfg.Batch, cfg.Shuffle, cfg.Flat = f.batch, false, true
		if ds, _, err = data.Streams(ds, f.batch); err != nil {
			return nil, fmt.Errorf("train: %w", err)
		}
		if _, err := m.programOf(programKey{mode: train, batch: f.batch}); err != nil { // its states are there from the first snapshot on
			return nil, err
		}
	}
	if m.sharing() {
		if f.g, err = m.group(); err != nil {
			return nil, err
		}
		if rest := ds.Len() % f.batch; f.g.norms != nil && rest > 0 && rest < f.g.Shards {
			return nil, fmt.Errorf("train: the last batch of an epoch has %d examples, too few for %d ranks that compute together (synchronised batch normalisation): choose another batch size than %d", rest, f.g.Shards, f.batch)
		}
		cfg.Share = data.Share{Of: f.g.Shards, First: f.g.lo, Last: f.g.hi}
		if err := m.sync(fmt.Sprint(ds.Len(), f.epochs, f.batch, f.inOrder, f.maxSteps, len(f.transforms), f.mixup)); err != nil {
			return nil, err
		}
	}
	if f.mixup != 0 && f.m.pipe != nil {
		return nil, errors.New("train: mixup does not go with pipeline stages: leave out one of the two")
	}
	f.ds = ds
	f.loader, err = data.NewLoader(ds, cfg)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	defer f.loader.Close()
	start := time.Now()
	if err := f.begin(start); err != nil {
		return nil, err
	}
	h := &f.p.History
	err = f.loop(ctx)
	f.bad = err != nil && !errors.Is(err, ErrInterrupted)
	h.Seconds, h.Steps = f.before+time.Since(start).Seconds(), f.p.Steps
	for _, c := range f.callbacks {
		if e := c.End(f.t); e != nil {
			err = errors.Join(err, e)
		}
	}
	return h, err
}

func (f *fit) check(ds data.Dataset) error {
	switch {
	case f.m.fixed:
		return errors.New("train: the model was compiled for prediction alone (Fixed)")
	case f.epochs < 1:
		return fmt.Errorf("train: %d epochs: at least 1 is needed", f.epochs)
	case f.batch < 1:
		return fmt.Errorf("train: a batch of %d examples: at least 1 is needed", f.batch)
	case ds.Len() == 0:
		return errors.New("train: the training data has no examples")
	case f.m.teacher != nil && f.m.teacher.Cached && (len(f.transforms) > 0 || f.mixup != 0):
		return errors.New("train: a teacher that has predicted each example once says nothing about changed ones: let it predict in every step, or leave out Augment and Mixup")
	case f.mixup != 0 && f.m.Net.Stateful():
		return errors.New("train: mixup does not go with a stateful model, whose examples follow one another")
	}
	for i, d := range []data.Dataset{ds, f.validation} {
		if d == nil {
			continue
		}
		s := d.Spec()
		if t := f.m.teacher; i == 0 && t != nil && t.Cached {
			n := len(f.m.Spec.Targets)
			if len(s.Targets) != n+1 {
				return fmt.Errorf("train: the training data has %d targets; %d and what the teacher has said (transfer.Predictions) are needed", len(s.Targets), n)
			}
			own, err := f.m.Outputs()
			if err != nil {
				return err
			}
			if said := s.Targets[n]; said.DType != own.DType || !said.Shape.Equal(own.Shape) {
				return fmt.Errorf("train: the teacher has said %v%v, the model gives %v%v", said.DType, said.Shape, own.DType, own.Shape)
			}
			s.Targets = s.Targets[:n]
		}
		if err := f.m.fits(s); err != nil {
			return err
		}
	}
	return nil
}

// fits checks that data has the shapes and types that the model was compiled for.
func (m *Model) fits(s data.Spec) error {
	same := func(kind string, a, b []data.Field) error {
		if len(a) != len(b) {
			return fmt.Errorf("train: the model was compiled for data with %d %ss, this has %d", len(b), kind, len(a))
		}
		for i := range a {
			if a[i].DType != b[i].DType || !a[i].Shape.Equal(b[i].Shape) {
				return fmt.Errorf("train: %s %d (%s) is %v%v, the model was compiled for %v%v", kind, i, a[i].Name, a[i].DType, a[i].Shape, b[i].DType, b[i].Shape)
			}
		}
		return nil
	}
	if err := same("input", s.Inputs, m.Spec.Inputs); err != nil {
		return err
	}
	return same("target", s.Targets, m.Spec.Targets)
}

func (f *fit) begin(now time.Time) error {
	f.p.Factor = 1
	for _, k := range f.m.metrics {
		f.meters = append(f.meters, k.make())
	}
	if f.from != nil {
		f.p = *f.from
		if len(f.p.Meters) > 0 && len(f.p.Meters) != len(f.meters) {
			return fmt.Errorf("train: the checkpoint has the state of %d metrics, the model %d", len(f.p.Meters), len(f.meters))
		}
		if !f.m.Writes() {
			f.p.Meters = nil // rank 0 has what all have gathered
		}
		for i, j := range f.p.Meters {
			if err := json.Unmarshal(j, f.meters[i].running()); err != nil {
				return fmt.Errorf("train: metric %s in the checkpoint: %w", f.m.metrics[i].Name, err)
			}
		}
		if f.p.Position.Epoch < f.epochs {
			if err := f.loader.Seek(f.p.Position); err != nil {
				return fmt.Errorf("train: %w", err)
			}
		}
		f.p.History.Stopped = ""
	}
	f.begun, f.start, f.before = now, now, f.p.History.Seconds
	f.t = &Training{Model: f.m, Epochs: f.epochs, EpochSteps: f.loader.Steps(), BatchSize: f.batch, Started: now, History: &f.p.History, f: f}
	f.place()
	for _, c := range f.callbacks {
		if err := c.Begin(f.t); err != nil {
			return err
		}
	}
	return nil
}

// place brings what callbacks see up to date.
func (f *fit) place() {
	t := f.t
	t.Epoch, t.Step, t.Steps, t.Examples = f.p.Position.Epoch+1, f.p.Position.Step, f.p.Steps, f.p.Examples
	if f.p.Examples > 0 {
		t.Loss = f.p.LossSum / float64(f.p.Examples)
	}
}

func (f *fit) loop(ctx context.Context) error {
	for f.p.Position.Epoch < f.epochs && f.t.History.Stopped == "" {
		f.m.epoch = f.p.Position.Epoch
		if f.g != nil {
			if err := f.g.restage(); err != nil {
				return err
			}
		}
		if f.p.Position.Step == 0 {
			if err := f.m.resetStates(carryTrain); err != nil {
				return err
			}
			if err := f.m.learnFromSelf(f.p.Position.Epoch, f.epochs); err != nil {
				return err
			}
		}
		if f.g == nil && (f.snap == nil || f.p.Position.Step == 0) {
			if err := f.snapshot(); err != nil {
				return err
			}
		}
		wait := ctx
		if f.m.Comm() != nil { // ranks stop after the same step
			wait = context.WithoutCancel(ctx)
			f.wish.stop = ctx.Err() != nil
		}
		b, err := f.m.next(wait, f.loader)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if wait.Err() != nil {
			return f.interrupted()
		}
		if err != nil {
			return fmt.Errorf("train: %w", err)
		}
		if err := f.step(b); err != nil {
			return err
		}
		if b.Step+1 == f.loader.Steps() {
			if err := f.endEpoch(ctx); err != nil {
				return err
			}
		}
		if f.all.stop && f.p.Position.Epoch < f.epochs {
			return f.interrupted()
		}
		if f.maxSteps > 0 && f.p.Steps >= f.maxSteps && f.t.History.Stopped == "" {
			f.t.Stop(fmt.Sprintf("after %d steps, as asked", f.maxSteps))
		}
	}
	return nil
}

func (f *fit) interrupted() error {
	f.t.History.Stopped = "interrupted"
	return fmt.Errorf("train: epoch %d, step %d: %w", f.t.Epoch, f.t.Step, ErrInterrupted)
}

// next is what the step after progress p does, and its learning rate.
func (f *fit) next(p *Progress) (k mode, rate float64) {
	if n := int64(f.m.accumulate); n > 1 && (p.Steps+1)%n != 0 {
		k = gather
	}
	return k, f.m.opt.Schedule.At(p.Updates) * p.Factor
}

// count adds a step that has been done.
func (p *Progress) count(k mode) {
	p.Steps++
	if k == train {
		p.Updates++
	}
}

// compute runs the programs of a step, and shows the metrics its predictions.
func (f *fit) compute(b *data.Batch, k mode, rate float64) (loss float64, err error) {
	judge := func(classes int, pred, y *tensor.Tensor) { show(f.meters, classes, pred, y) }
	if f.g != nil {
		if len(f.meters) == 0 {
			judge = nil
		}
		meet := true
		f.g.updates = f.p.Updates
		if err := f.g.warm(); err != nil {
			return 0, err
		}
		if h := int64(f.g.Local); h > 1 && f.m.Comm() != nil {
			n := f.p.Steps + 1
			meet = n%h == 0 || b.Step+1 == f.loader.Steps() || n == f.maxSteps
			loss, f.all, err = f.g.alone(b, k, rate, f.wish, meet, &f.p.LossSum, judge)
		} else {
			loss, f.all, err = f.g.step(b, k, rate, f.wish, judge)
		}
		if err != nil {
			return 0, fmt.Errorf("train: epoch %d, step %d: %w", b.Epoch+1, b.Step+1, err)
		}
		f.wish = wishes{}
		if math.IsNaN(loss) || math.IsInf(loss, 0) {
			return 0, f.divergedShared(b, loss)
		}
		if every := f.g.Check; f.m.Comm() != nil && meet && every >= 0 && (f.p.Steps+1)%int64(cmp.Or(every, defaultCheck)) == 0 {
			return loss, f.m.same(f.p.Steps + 1)
		}
		return loss, nil
	}
	p, err := f.m.program(k, b.X, b.Y)
	if err != nil {
		return 0, err
	}
	if err := p.run(b.X, b.Y, rate); err != nil {
		return 0, err
	}
	if loss = p.loss(); math.IsNaN(loss) || math.IsInf(loss, 0) {
		return 0, f.diverged(b, loss)
	}
	if len(f.meters) > 0 {
		judge(p.classes, p.prediction(), b.Y[0])
	}
	return loss, nil
}

// step trains on one batch.
func (f *fit) step(b *data.Batch) error {
	mode, rate := f.next(&f.p)
	loss, err := f.compute(b, mode, rate)
	if err != nil {
		return err
	}
	f.p.count(mode)
	f.p.LossSum += loss * float64(b.Of)
	f.p.Examples += int64(b.Of)
	f.p.Position = f.loader.Position()
	f.t.LastLoss, f.t.Rate = loss, rate
	f.place()
	if b.Step+1 == f.loader.Steps() { // the position is already in the next epoch; callbacks still see this one
		f.t.Epoch, f.t.Step = b.Epoch+1, b.Step+1
	}
	for _, c := range f.callbacks {
		if err := c.AfterStep(f.t); err != nil {
			return err
		}
	}
	return nil
}

func (f *fit) logs() []Log {
	out := []Log{{"loss", f.t.Loss}}
	for i, k := range f.meters {
		out = append(out, Log{f.m.metrics[i].Name, k.value()})
	}
	return out
}

// endEpoch evaluates, records the epoch and begins the next.
func (f *fit) endEpoch(ctx context.Context) error {
	var err error
	if f.meters, err = f.m.joinMeters(f.meters); err != nil {
		return err
	}
	e := Epoch{Epoch: f.t.Epoch, Rate: f.t.Rate, Logs: f.logs()}
	if f.validation != nil {
		// The epoch is brought to its end also when the training is interrupted meanwhile: a checkpoint stands between steps or between epochs.
		r, err := f.m.Evaluate(context.WithoutCancel(ctx), f.validation, f.batch)
		if err != nil {
			return err
		}
		for _, l := range r {
			e.Logs = append(e.Logs, Log{"val_" + l.Name, l.Value})
		}
	}
	now := time.Now()
	e.Seconds = f.p.EpochSec + now.Sub(f.begun).Seconds()
	f.begun, f.p.EpochSec = now, 0
	f.p.History.Epochs = append(f.p.History.Epochs, e)
	f.p.History.Steps = f.p.Steps
	f.p.LossSum, f.p.Examples = 0, 0
	for i, k := range f.m.metrics {
		f.meters[i] = k.make()
	}
	for _, c := range f.callbacks {
		if err := c.AfterEpoch(f.t); err != nil {
			return err
		}
	}
	return nil
}

func (f *fit) progress() (*Progress, error) {
	p := f.p
	p.Meters = nil
	all, err := f.m.joinMeters(f.meters)
	if err != nil {
		return nil, err
	}
	for _, k := range all {
		j, err := json.Marshal(k.running())
		if err != nil {
			return nil, fmt.Errorf("train: %w", err)
		}
		p.Meters = append(p.Meters, j)
	}
	p.EpochSec += time.Since(f.begun).Seconds()
	p.History.Steps, p.History.Seconds = p.Steps, f.before+time.Since(f.start).Seconds()
	p.History.Epochs = append([]Epoch(nil), p.History.Epochs...)
	return &p, nil
}

// Evaluate gives loss and metrics on ds, in batches of the given size (0: 32).
func (m *Model) Evaluate(ctx context.Context, ds data.Dataset, batch int) ([]Log, error) {
	if ds.Len() == 0 {
		return nil, errors.New("train: there are no examples to evaluate on")
	}
	if err := m.fits(ds.Spec()); err != nil {
		return nil, err
	}
	// All that happens from here on is booked as evaluation, the waiting for batches included.
	start, waited, waits := time.Now(), m.waited, m.waits
	defer func() {
		m.evaluated += time.Since(start)
		m.waited, m.waits = waited, waits
	}()
	var meters []meter
	for _, k := range m.metrics {
		meters = append(meters, k.make())
	}
	losses := map[int]float64{} // by the first example of the batch
	err := m.each(ctx, ds, batch, evaluate, func(at int, b *data.Batch, p *program, _ []int) {
		losses[at] = p.loss() * float64(b.N)
		show(meters, p.classes, p.prediction(), b.Y[0])
	})
	if err != nil {
		return nil, err
	}
	if meters, err = m.joinMeters(meters); err != nil {
		return nil, err
	}
	if c := m.Comm(); c != nil {
		all, err := dist.Gather(c, losses)
		if err != nil {
			return nil, err
		}
		for _, l := range all {
			maps.Copy(losses, l)
		}
	}
	sum := 0.0
	for _, at := range slices.Sorted(maps.Keys(losses)) {
		sum += losses[at]
	}
	out := []Log{{"loss", sum / float64(ds.Len())}}
	for i, k := range meters {
		out = append(out, Log{m.metrics[i].Name, k.value()})
	}
	return out, nil
}

// Predict gives the model's output for every example of ds, [examples …], in batches of the given size (0: 32).
func (m *Model) Predict(ctx context.Context, ds data.Dataset, batch int) (*tensor.Tensor, error) {
	var out *tensor.Tensor
	place := func(dt dtype.Type, sh shape.Shape) {
		if out == nil {
			out = tensor.New(dt, append([]int{ds.Len()}, sh...)...)
		}
	}
	var own []byte
	err := m.each(ctx, ds, batch, predict, func(at int, b *data.Batch, p *program, index []int) {
		y := p.prediction()
		place(y.DType(), y.Shape()[1:])
		for r, i := range index {
			copy(out.Slice(i, i+1).Bytes(), y.Slice(r, r+1).Bytes())
		}
		if index != nil {
			return
		}
		copy(out.Slice(at, at+b.N).Bytes(), y.Bytes())
		if m.Comm() != nil {
			own = append(own, y.Bytes()...)
		}
	})
	c := m.Comm()
	if err != nil || c == nil {
		return out, err
	}
	parts, err := c.GatherTexts(own)
	if err != nil {
		return nil, err
	}
	if out == nil { // fewer batches than ranks
		f, err := m.Outputs()
		if err != nil {
			return nil, err
		}
		place(f.DType, f.Shape)
	}
	row := len(out.Bytes()) / max(1, ds.Len())
	for r, p := range parts {
		turn, ok := m.results(r)
		if !ok {
			continue
		}
		for _, at := range m.starts(ds.Len(), batch, turn) {
			n := min(cmp.Or(batch, 32), ds.Len()-at)
			if len(p) < n*row {
				return nil, fmt.Errorf("train: rank %d predicted fewer examples than it should have", r)
			}
			copy(out.Slice(at, at+n).Bytes(), p[:n*row])
			p = p[n*row:]
		}
	}
	return out, nil
}

// next is the loader's next batch; the time that it is waited for is booked as phase data.
func (m *Model) next(ctx context.Context, l *data.Loader) (*data.Batch, error) {
	start := time.Now()
	b, err := l.Next(ctx)
	m.waited += time.Since(start)
	m.waits++
	return b, err
}

// starts are the first examples of the batches that a rank evaluates whose turn it is: every rank takes each n-th batch.
func (m *Model) starts(examples, batch, turn int) []int {
	var out []int
	batch = cmp.Or(batch, 32)
	_, of := m.turn()
	for at := turn * batch; at < examples; at += of * batch {
		out = append(out, at)
	}
	return out
}

// each runs a program over a data set, in order: over this rank's batches. f is told the batch's first example; if the model carries states, the data are read as streams, at counts batches,
// and index has the numbers of the batch's examples.
func (m *Model) each(ctx context.Context, ds data.Dataset, batch int, k mode, f func(at int, b *data.Batch, p *program, index []int)) error {
	if !m.Net.Stateful() {
		return m.inOrder(ctx, ds, batch, k, func(at int, b *data.Batch, p *program) { f(at, b, p, nil) })
	}
	if m.Comm() != nil {
		return errors.New("train: a stateful model cannot be shared out: its states go from each batch to the next")
	}
	n := 0
	return m.eachStream(ds, cmp.Or(batch, 32), k, func(part data.Dataset, batch int, index []int) error {
		return m.inOrder(ctx, part, batch, k, func(_ int, b *data.Batch, p *program) {
			f(n, b, p, index[:b.N])
			n, index = n+1, index[b.N:]
		})
	})
}

// inOrder runs a program over this rank's batches of a data set. f is told the batch's first example, or, where batches hold examples of one size and the order is
// another, a number that grows and that no other batch of any rank has.
func (m *Model) inOrder(ctx context.Context, ds data.Dataset, batch int, k mode, f func(at int, b *data.Batch, p *program)) error {
	batch = min(cmp.Or(batch, 32), max(1, ds.Len()))
	turn, of := m.turn()
	starts := m.starts(ds.Len(), batch, turn)
	if m.Comm() != nil {
		if len(starts) == 0 {
			return nil
		}
		var idx []int
		for _, at := range starts {
			for i := at; i < min(at+batch, ds.Len()); i++ {
				idx = append(idx, i)
			}
		}
		var err error
		if ds, err = data.Subset(ds, idx); err != nil {
			return fmt.Errorf("train: %w", err)
		}
	}
	flat := k == predict || m.Net.Stateful() // in the order of the data
	_, sized := ds.(data.Bucketed)
	sized = sized && !flat
	l, err := data.NewLoader(ds, data.LoaderConfig{Batch: batch, Epochs: 1, Flat: flat})
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	defer l.Close()
	for {
		b, err := m.next(ctx, l)
		if errors.Is(err, io.EOF) && m.pipe != nil {
			return m.pipe.arrived()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("train: %w", err)
		}
		p, err := m.through(k, b)
		if err != nil {
			return err
		}
		if p == nil {
			continue
		}
		at := b.Step*of + turn // batches of one size stand in an order of their own
		if !sized {
			at = starts[b.Step]
		}
		f(at, b, p)
	}
}
