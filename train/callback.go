package train

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"time"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/format/csvlog"
	"github.com/jouleml/joule/format/safetensors"
	"github.com/jouleml/joule/format/tfevents"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/tensor"
)

// Keeper is a Callback with a memory that a resumed training needs. State is a pointer that JSON can write and read; Key names it among
// the callbacks.
type Keeper interface {
	Callback
	Key() string
	State() any
}

// watch follows one value over epochs.
type watch struct {
	name     string
	minDelta float64
	s        struct {
		Best float64 `json:"best"`
		Wait int     `json:"wait"` // epochs since the best
		Seen bool    `json:"seen"`
	}
}

// better takes the epoch's value and reports whether it is the best so far. Values whose name ends in "loss", and errors, are better when lower.
func (w *watch) better(t *Training) (bool, error) {
	e := t.History.Epochs[len(t.History.Epochs)-1]
	v, err := e.watched(w.name)
	if err != nil {
		return false, err
	}
	if !w.s.Seen || Better(w.name, v, w.s.Best, w.minDelta) {
		w.s.Best, w.s.Wait, w.s.Seen = v, 0, true
		return true, nil
	}
	w.s.Wait++
	return false, nil
}

// watched is a value of the epoch by its name.
func (e *Epoch) watched(name string) (float64, error) {
	v, ok := e.Log(name)
	if !ok {
		var names []string
		for _, l := range e.Logs {
			names = append(names, l.Name)
		}
		return 0, fmt.Errorf("train: no value %q to watch; there are %s", name, strings.Join(names, ", "))
	}
	return v, nil
}

// LowerIsBetter reports whether a value of this name is better when it is lower: losses and errors.
func LowerIsBetter(name string) bool {
	for _, s := range []string{"loss", "mae", "rmse", "error"} {
		if n := len(name) - len(s); n >= 0 && name[n:] == s {
			return true
		}
	}
	return false
}

// Better reports whether v is better than best by more than delta, for a value of that name.
func Better(name string, v, best, delta float64) bool {
	if LowerIsBetter(name) {
		return v < best-delta
	}
	return v > best+delta
}

// EarlyStopping ends the training when a value has not become better by more than MinDelta for Patience epochs. With Restore the variables of the
// best epoch come back at the end.
type EarlyStopping struct {
	Hooks
	Watch    string // "val_loss" if empty
	Patience int
	MinDelta float64
	Restore  bool

	w    watch
	best []*tensor.Tensor
}

// Key implements Keeper.
func (c *EarlyStopping) Key() string { return "early_stopping" }

// State implements Keeper.
func (c *EarlyStopping) State() any { return &c.w.s }

// AfterEpoch implements Callback.
func (c *EarlyStopping) AfterEpoch(t *Training) error {
	c.w.name, c.w.minDelta = cmp.Or(c.Watch, "val_loss"), c.MinDelta
	better, err := c.w.better(t)
	if err != nil {
		return err
	}
	if better && c.Restore {
		if c.best, err = t.Model.variables(); err != nil {
			return err
		}
	}
	if c.w.s.Wait > c.Patience {
		t.Stop(fmt.Sprintf("early: %s has not been better than %.6g for %d epochs", c.w.name, c.w.s.Best, c.w.s.Wait))
	}
	return nil
}

// End implements Callback.
func (c *EarlyStopping) End(t *Training) error {
	if c.best == nil {
		return nil
	}
	return t.Model.setVariables(c.best)
}

// Anneal lowers the learning rate, whatever the schedule gives, along half a cosine from all of it to the share To after the last step.
type Anneal struct {
	Hooks
	To    float64 // 0: a hundredth
	Steps int64   // of the training; 0: its epochs
}

// AfterStep implements Callback.
func (c *Anneal) AfterStep(t *Training) error {
	to, steps := cmp.Or(c.To, 0.01), float64(cmp.Or(c.Steps, int64(t.Epochs)*int64(t.EpochSteps)))
	at := func(step int64) float64 {
		return to + (1-to)*(1+math.Cos(math.Pi*min(1, float64(step)/steps)))/2
	}
	t.ScaleRate(at(t.Steps) / at(t.Steps-1))
	return nil
}

// variables copies all variables.
func (m *Model) variables() ([]*tensor.Tensor, error) {
	var out []*tensor.Tensor
	for _, v := range m.kept() {
		t, err := m.state.Get(v.Name)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func (m *Model) setVariables(ts []*tensor.Tensor) error {
	for i, v := range m.kept()[:len(ts)] {
		if err := m.state.Set(v.Name, ts[i]); err != nil {
			return err
		}
	}
	return nil
}

// ReduceOnPlateau multiplies the learning rate by Factor when a value has not become better by more than MinDelta for Patience epochs.
type ReduceOnPlateau struct {
	Hooks
	Watch    string  // "val_loss" if empty
	Factor   float64 // in (0, 1); 0 means 0.1
	Patience int
	MinDelta float64
	MinRate  float64

	w watch
}

// Key implements Keeper.
func (c *ReduceOnPlateau) Key() string { return "reduce_on_plateau" }

// State implements Keeper.
func (c *ReduceOnPlateau) State() any { return &c.w.s }

// Begin implements Callback.
func (c *ReduceOnPlateau) Begin(*Training) error {
	if c.Factor == 0 {
		c.Factor = 0.1
	}
	if c.Factor < 0 || c.Factor >= 1 {
		return fmt.Errorf("train: ReduceOnPlateau: factor %g is not in (0, 1)", c.Factor)
	}
	return nil
}

// AfterEpoch implements Callback.
func (c *ReduceOnPlateau) AfterEpoch(t *Training) error {
	c.w.name, c.w.minDelta = cmp.Or(c.Watch, "val_loss"), c.MinDelta
	better, err := c.w.better(t)
	if err != nil || better || c.w.s.Wait < max(1, c.Patience) {
		return err
	}
	c.w.s.Wait = 0
	if t.Rate > c.MinRate {
		t.ScaleRate(max(c.Factor, c.MinRate/t.Rate))
	}
	return nil
}

// TargetReached ends the training after the first epoch in which a value is as good as Value.
type TargetReached struct {
	Hooks
	Watch string
	Value float64
}

// AfterEpoch implements Callback.
func (c *TargetReached) AfterEpoch(t *Training) error {
	v, err := t.History.Epochs[len(t.History.Epochs)-1].watched(c.Watch)
	if err != nil {
		return err
	}
	if v == c.Value || Better(c.Watch, v, c.Value, 0) {
		t.Stop(fmt.Sprintf("%s has reached %.6g, the target is %.6g", c.Watch, v, c.Value))
	}
	return nil
}

// CSV appends each epoch's values to a file.
type CSV struct {
	Hooks
	Path string
	log  *csvlog.Log
}

// Begin implements Callback.
func (c *CSV) Begin(t *Training) (err error) {
	if !t.Model.Writes() {
		return nil
	}
	c.log, err = csvlog.Open(c.Path, "epoch")
	return err
}

// AfterEpoch implements Callback.
func (c *CSV) AfterEpoch(t *Training) error {
	if c.log == nil {
		return nil
	}
	e := t.History.Epochs[len(t.History.Epochs)-1]
	vs := []csvlog.Value{{Name: "seconds", Value: e.Seconds}, {Name: "rate", Value: e.Rate}}
	for _, l := range e.Logs {
		vs = append(vs, csvlog.Value{Name: l.Name, Value: l.Value})
	}
	return c.log.Append(int64(e.Epoch), vs...)
}

// End implements Callback.
func (c *CSV) End(*Training) error {
	if c.log == nil {
		return nil
	}
	return c.log.Close()
}

// TensorBoard writes each epoch's values as an event file that TensorBoard shows.
type TensorBoard struct {
	Hooks
	Dir string
	w   *tfevents.Writer
}

// Begin implements Callback.
func (c *TensorBoard) Begin(t *Training) (err error) {
	if !t.Model.Writes() {
		return nil
	}
	c.w, err = tfevents.Create(c.Dir)
	return err
}

// AfterEpoch implements Callback.
func (c *TensorBoard) AfterEpoch(t *Training) error {
	if c.w == nil {
		return nil
	}
	e := t.History.Epochs[len(t.History.Epochs)-1]
	vs := []tfevents.Scalar{{Tag: "rate", Value: e.Rate}, {Tag: "seconds", Value: e.Seconds}}
	for _, l := range e.Logs {
		vs = append(vs, tfevents.Scalar{Tag: "epoch/" + l.Name, Value: l.Value})
	}
	return c.w.Scalars(int64(e.Epoch), vs...)
}

// End implements Callback.
func (c *TensorBoard) End(*Training) error {
	if c.w == nil {
		return nil
	}
	return c.w.Close()
}

// Checkpoints saves the whole state of the training in a folder: after each epoch, after Every seconds of steps, and when it ends or is
// interrupted. Files are replaced atomically; the last few and the best stay.
type Checkpoints struct {
	Hooks
	Dir   string
	Keep  int           // how many of the newest stay; 0: checkpoint.DefaultKeep
	Every time.Duration // 0: 30 s
	Watch string        // the value by which an epoch is best; none if empty
	// Keepers are the callbacks whose memory belongs in the checkpoint.
	Keepers []Keeper
	// Saved is told of each file, if not nil.
	Saved func(path string)
	// Extra, if not nil, gives sections to keep beside Joule's own, at each save. Every rank calls it, though rank 0 alone writes.
	Extra func() (map[string]json.RawMessage, error)

	last time.Time
	at   int64 // steps at the last save
}

// SectionProgress and SectionKeepers name parts of a checkpoint.
const (
	SectionProgress = "progress"
	SectionKeepers  = "callbacks"
)

// Begin implements Callback.
func (c *Checkpoints) Begin(t *Training) error {
	c.last, c.at = time.Now(), t.Steps
	return nil
}

// AfterStep implements Callback.
func (c *Checkpoints) AfterStep(t *Training) error {
	every := c.Every
	if every == 0 {
		every = 30 * time.Second
	}
	if t.Step == t.EpochSteps { // the end of the epoch follows at once
		return nil
	}
	if !t.Together(time.Since(c.last) >= every) {
		return nil
	}
	return c.save(t, math.NaN())
}

// AfterEpoch implements Callback.
func (c *Checkpoints) AfterEpoch(t *Training) error {
	score := math.NaN()
	if c.Watch != "" {
		if v, ok := t.History.Epochs[len(t.History.Epochs)-1].Log(c.Watch); ok {
			if score = v; LowerIsBetter(c.Watch) {
				score = -v
			}
		}
	}
	return c.save(t, score)
}

// End implements Callback. It saves what the last save does not have; a training that ended in an error keeps the last good one.
func (c *Checkpoints) End(t *Training) error {
	if t.Steps == c.at || t.failed() {
		return nil
	}
	return c.save(t, math.NaN())
}

func (c *Checkpoints) save(t *Training, score float64) error {
	s, err := t.Model.Checkpoint(t)
	if err != nil {
		return err
	}
	s.Score = score
	keep := map[string]any{}
	for _, k := range c.Keepers {
		keep[k.Key()] = k.State()
	}
	if s.Sections[SectionKeepers], err = json.Marshal(keep); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	if c.Extra != nil {
		more, err := c.Extra()
		if err != nil {
			return err
		}
		maps.Copy(s.Sections, more)
	}
	if !t.Model.Writes() {
		c.last, c.at = time.Now(), t.Steps
		return nil
	}
	path, err := checkpoint.Folder{Dir: c.Dir, Keep: c.Keep}.Save(s)
	if err != nil {
		return fmt.Errorf("train: checkpoint at step %d: %w", t.Steps, err)
	}
	c.last, c.at = time.Now(), t.Steps
	if c.Saved != nil {
		c.Saved(path)
	}
	return nil
}

// Checkpoint is the whole state of a training between two steps: variables, on rank 0 alone, and progress. All ranks must call it.
func (m *Model) Checkpoint(t *Training) (*checkpoint.State, error) {
	s := &checkpoint.State{Step: t.Steps, Epoch: int64(len(t.History.Epochs)), Score: math.NaN(), Sections: map[string]json.RawMessage{}}
	p, err := t.Progress()
	if err != nil {
		return nil, err
	}
	if s.Sections[SectionProgress], err = json.Marshal(p); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	if err := m.Unshare(); err != nil {
		return nil, err
	}
	if m.Writes() {
		if s.Tensors, err = m.tensors(true); err != nil {
			return nil, err
		}
	}
	m.unshared = nil // s has it; the model need not keep it too
	return s, m.describe(s.Sections)
}

func (m *Model) tensors(training bool) ([]safetensors.Named, error) {
	var out []safetensors.Named
	for _, v := range m.whole() {
		own := strings.HasPrefix(v.Name, teacherPrefix) || v.Name == shareVar // of a model that is its own teacher
		if _, carried := nn.Carried(v.Name); (carried || own) && !training {
			continue
		}
		t := m.unshared[v.Name]
		if t == nil {
			if m.sharded(v.Name) {
				if !m.Writes() {
					continue
				}
				return nil, errors.New("train: optimizer's state or layers are shared out over ranks: Unshare brings them here, and then the model can be saved")
			}
			var err error
			if t, err = m.state.Get(v.Name); err != nil {
				return nil, err
			}
		}
		out = append(out, safetensors.Named{Name: v.Name, Value: t})
	}
	return out, nil
}

// whole are the variables that a checkpoint keeps: kept, with those that are shared out over ranks in one piece.
func (m *Model) whole() []backend.Var {
	if m.parallel.zeroStage() == 0 && m.apart() == nil {
		return m.kept()
	}
	return m.declared // what else is kept are states of streams, which cannot be shared out
}

// Restore gives the model the variables of a checkpoint and the callbacks their memory; the result is for From. The model must have been compiled from the
// same specification.
func (m *Model) Restore(s *checkpoint.State, keepers ...Keeper) (*Progress, error) {
	for _, t := range s.Tensors { // states of streams, which are declared when a batch's program is made
		if _, ok := nn.Carried(t.Name); ok {
			if err := m.state.Add(backend.Var{Name: t.Name, Type: graph.TypeOf(t.Value)}); err != nil {
				return nil, fmt.Errorf("train: the checkpoint belongs to another model: %w", err)
			}
		}
	}
	if m.parallel.zeroStage() > 0 || m.apart() != nil {
		m.unshared = map[string]*tensor.Tensor{}
	}
	for _, v := range m.whole() {
		t := s.Tensor(v.Name)
		if t == nil {
			return nil, fmt.Errorf("train: the checkpoint has no variable %q: it belongs to another model or optimizer", v.Name)
		}
		if m.sharded(v.Name) && graph.TypeOf(t).Equal(v.Type) {
			m.unshared[v.Name] = t // Fit gives the ranks their parts
			continue
		}
		if err := m.put(v.Name, t); err != nil {
			return nil, fmt.Errorf("train: the checkpoint belongs to another model: %w", err)
		}
	}
	return m.RestoreProgress(s, keepers...)
}

// RestoreProgress is Restore without the variables: for ranks other than 0, whose variables Fit sets.
func (m *Model) RestoreProgress(s *checkpoint.State, keepers ...Keeper) (*Progress, error) {
	p := &Progress{}
	if err := json.Unmarshal(s.Sections[SectionProgress], p); err != nil {
		return nil, fmt.Errorf("train: the checkpoint's progress: %w", err)
	}
	if j := s.Sections[SectionKeepers]; j != nil {
		var kept map[string]json.RawMessage
		if err := json.Unmarshal(j, &kept); err != nil {
			return nil, fmt.Errorf("train: the checkpoint's callbacks: %w", err)
		}
		for _, k := range keepers {
			if j := kept[k.Key()]; j != nil {
				if err := json.Unmarshal(j, k.State()); err != nil {
					return nil, fmt.Errorf("train: the checkpoint's %s: %w", k.Key(), err)
				}
			}
		}
	}
	return p, nil
}
