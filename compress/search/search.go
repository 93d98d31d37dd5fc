// Package search looks for the cheapest model that does as well as a trained one, by joules, latency or bytes.
//
// It goes in rounds. In a round units, filters and heads, a block, or the pooling behind a convolution (package structure) are taken away where that saves most, by the ledger of the model as it runs, for what it costs in loss; the narrower model learns from the original (distillation) for some
// epochs; and it is quantized; where bytes on disk count, it is also pruned and its weights share values (package pack). Each model that comes out of this is measured on training examples held out, and is a Candidate. Rounds go on while some candidate is within the allowed drop.
package search

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jouleml/joule/compress/pack"
	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/transfer"
)

// Target is what is to become little.
type Target string

// The targets.
const (
	Joules  Target = "joules"  // energy of an example, in batches
	Latency Target = "latency" // time of a batch of one
	Bytes   Target = "bytes"   // of the model on disk, which is then packed

	Parameters Target = "parameters" // their bytes, as most methods of pruning count: to compare with
)

// Targets lists them.
var Targets = []Target{Joules, Latency, Bytes, Parameters}

// Scores is how the units that go are chosen within an axis.
type Scores string

// The scores.
const (
	Magnitude Scores = "magnitude" // by their weights (structure.Dependencies.Magnitude)
	Taylor    Scores = "taylor"    // by the loss's gradient (structure.Dependencies.Taylor)
)

// Options say what is searched for, and how.
type Options struct {
	Target      Target
	MaxDrop     float64 // how much worse the model may do (quant.Quality.Drop)
	Budget      float64 // joules that the search may cost; 0: no limit. A candidate that is begun is brought to its end
	Epochs      int     // of learning after each narrowing; 0: 2
	Batch       int     // 0: 32
	Rounds      int     // at most; 0: 8
	Temperature float64 // of distillation; 0: 2
	Weight      float64 // of the teacher; 0: 0.5
	By          Scores  // "": Magnitude
	Pack        bool    // with another target than Bytes: the narrowest that is found is packed too, and only packed candidates can be the best
	Sparsity    float64 // of packed candidates; 0: 0.7
	Values      int     // that the weights of a kernel share there; 0: 15

	// Augment and Mixup change the examples that models learn from at random (train.Augment, train.Mixup), never those that they are compared on. The original then predicts in each step.
	Augment []data.Transform `json:"-"`
	Mixup   float64          `json:"-"`

	// Held, if not nil, is what candidates are compared on, in place of the last thousand training examples: those the original has learned from, so that it looks better on them than it is.
	Held data.Dataset `json:"-"`
	// Cache is a folder for what the original says about the training examples, which it is then asked once (transfer.Predictions); "": it predicts in each step.
	Cache string `json:"-"`
	// Timer, if not nil, leaves layers in floats that are slower as bytes where joules or latency count (quant.Faster).
	Timer quant.Timer `json:"-"`
}

func (o *Options) check() error {
	for _, d := range []struct {
		v *float64
		d float64
	}{{&o.Temperature, 2}, {&o.Weight, 0.5}, {&o.Sparsity, 0.7}} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	for _, d := range []struct {
		v *int
		d int
	}{{&o.Epochs, 2}, {&o.Batch, 32}, {&o.Rounds, 8}, {&o.Values, 15}} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	if o.By == "" {
		o.By = Magnitude
	}
	switch {
	case o.By != Magnitude && o.By != Taylor:
		return fmt.Errorf("search: unknown scores %q (known: magnitude, taylor)", o.By)
	case !slices.Contains(Targets, o.Target):
		return fmt.Errorf("search: unknown target %q (known: joules, latency, bytes, parameters)", o.Target)
	case !(o.MaxDrop >= 0 && o.MaxDrop < 1):
		return fmt.Errorf("search: a drop of at most %g; it must be from 0 to below 1", o.MaxDrop)
	case !(o.Budget >= 0):
		return fmt.Errorf("search: a budget of %g joules", o.Budget)
	case o.Epochs < 1 || o.Batch < 1 || o.Rounds < 1:
		return fmt.Errorf("search: %d epochs of batches of %d in %d rounds; all must be at least 1", o.Epochs, o.Batch, o.Rounds)
	}
	return (&pack.Options{Sparsity: o.Sparsity, Values: o.Values}).Check()
}

// Measures are what a model costs and how well it does.
type Measures struct {
	Quality quant.Quality      `json:"quality"` // on the examples held out
	Joules  float64            `json:"joules"`  // of an example in batches of 32, estimated
	MS      float64            `json:"ms"`      // median of a batch of one
	BatchMS float64            `json:"batch_ms"`
	Bytes   int                `json:"bytes"`   // of the parameters
	Disk    int64              `json:"disk"`    // of the model file without the optimizer's state, packed where the candidate is
	Detail  []Layer            `json:"detail"`  // layer by layer
	Layers  map[string]float64 `json:"layers"`  // joules by layer, of an example
	Seconds map[string]float64 `json:"seconds"` // likewise
}

// value is what the target looks at.
func (m Measures) value(t Target) float64 {
	switch t {
	case Latency:
		return m.MS
	case Bytes:
		return float64(m.Disk)
	case Parameters:
		return float64(m.Bytes)
	}
	return m.Joules
}

// Candidate is a model that the search has made.
type Candidate struct {
	Name    string         `json:"name"`
	Round   int            `json:"round"`
	Widths  map[string]int `json:"widths,omitempty"`  // units that are left, of axes (structure.Axis) that have lost some
	Removed []string       `json:"removed,omitempty"` // blocks taken out whole
	Strided []string       `json:"strided,omitempty"` // convolutions that have taken the strides of the pooling behind them
	Format  string         `json:"format"`            // f32, int8 (bytes all through), weights int8 or weights int4; with packed before it, pruned and with shared values
	Measures
	// Narrowed, of the first round's model of floats, is what the result's is: finding it out takes as long as the rest of the round.
	Narrowed map[string]float64 `json:"narrowed,omitempty"`
	Drop     float64            `json:"drop"`
	Spent    float64            `json:"spent"` // joules that making and measuring it has cost, estimated or measured as the ledger says
	Front    bool               `json:"front"` // nothing else is at least as good in drop and target
	File     string             `json:"file,omitempty"`
	Run      string             `json:"run,omitempty"`
}

// Result is what the search has found.
type Result struct {
	Target     Target       `json:"target"`
	MaxDrop    float64      `json:"max_drop"`
	Held       int          `json:"held,omitempty"` // examples that models are compared on
	Original   Measures     `json:"original"`
	Candidates []*Candidate `json:"candidates"`
	Best       string       `json:"best,omitempty"` // "": none is within the drop and cheaper than the original
	Stopped    string       `json:"stopped"`        // why it ended
	Spent      float64      `json:"spent"`
	// Narrowed is by how much the loss of the original is greater when an axis loses a quarter of its units, or a block goes, before it learns again.
	Narrowed map[string]float64 `json:"narrowed,omitempty"`
	// Quantized is by how much it is greater when a layer alone computes on bytes.
	Quantized map[string]float64 `json:"quantized,omitempty"`
	// BreakEven is after how many examples the best has saved what the search has cost; 0: never, or there is no best.
	BreakEven float64 `json:"break_even_examples,omitempty"`
}

// Packed reports whether the candidate's file is packed (train.Model.SavePacked).
func (c *Candidate) Packed() bool { return strings.HasPrefix(c.Format, packed) }

// packed begins the formats of candidates that are pruned, share values and are packed.
const packed = "packed"

// Find is a candidate by name, nil of an unknown one.
func (r *Result) Find(name string) *Candidate {
	for _, c := range r.Candidates {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Predictions says after how many examples the search has paid for itself, such as "1.6 million predictions".
func (r *Result) Predictions() string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e12, "trillion"}, {1e9, "billion"}, {1e6, "million"}, {1e3, "thousand"}} {
		if r.BreakEven >= u.size {
			return fmt.Sprintf("%.3g %s predictions", r.BreakEven/u.size, u.name)
		}
	}
	return fmt.Sprintf("%.0f predictions", math.Ceil(r.BreakEven))
}

// Doubt says that models are compared on so few examples that the drops mean little, "" where they are enough.
func (r *Result) Doubt() string {
	const few = 100
	if r.Held == 0 || r.Held >= few && 1/float64(r.Held) <= max(r.MaxDrop, 1e-3) {
		return ""
	}
	return fmt.Sprintf("models were compared on %d examples held out alone, of which one is %.2g%%: drops mean little, also where one of %.2g%% is allowed; more data, or --held test, helps", r.Held, 100/float64(r.Held), 100*r.MaxDrop)
}

// Keeper keeps candidates, so that a search that was stopped goes on where it was.
type Keeper interface {
	// Kept gives the candidate of a round and format that was kept before, with its model; nil if there is none.
	Kept(round int, format string) (*Candidate, *train.Model, error)
	// Keep keeps one; it may set File and Run.
	Keep(c *Candidate, m *train.Model, l *energy.Ledger) error
}

// search is a search on its way.
type search struct {
	Options
	m               *train.Model
	learn, held     data.Dataset
	keeper          Keeper
	log             func(c *Candidate)
	result          *Result
	formats         []string
	current         *train.Model
	currentMeasures Measures
	widths          map[string]int
	removed         []string
	strided         []string
	round           int
	models          map[int]*train.Model // of floats, by round
	teacher         *train.Teacher       // nil: the original cannot teach
	lessons         data.Dataset         // what models learn from, with what the teacher says if that is cached
	shared          *train.Model         // this round's, pruned and with shared values, in floats
}

// Run searches. log, if not nil, is told of each candidate. The models learn from set.Train but for the last thousand examples, on which they are compared.
func Run(ctx context.Context, m *train.Model, set *data.Set, o Options, k Keeper, log func(c *Candidate)) (*Result, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if set.Train.Len() < 20 {
		return nil, fmt.Errorf("search: %d training examples are too few to learn from and to compare models on; at least 20", set.Train.Len())
	}
	s := &search{Options: o, m: m, keeper: k, log: log, result: &Result{Target: o.Target, MaxDrop: o.MaxDrop, Narrowed: map[string]float64{}}, current: m, widths: map[string]int{}, models: map[int]*train.Model{0: m}, learn: set.Train, held: o.Held}
	var err error
	if n := min(1000, set.Train.Len()/5); s.held == nil {
		if s.learn, err = part(set.Train, 0, set.Train.Len()-n); err != nil {
			return nil, err
		}
		if s.held, err = part(set.Train, set.Train.Len()-n, set.Train.Len()); err != nil {
			return nil, err
		}
	}
	if err := s.ask(ctx); err != nil {
		return nil, err
	}
	s.formats = formats(m)
	if o.Target == Bytes {
		s.formats = append(s.formats, s.packedFormats()...)
	}
	s.result.Held = s.held.Len()
	if s.result.Original, _, err = Measure(ctx, m, s.held); err != nil {
		return nil, err
	}
	s.currentMeasures = s.result.Original
	if slices.Contains(s.formats, "int8") {
		if err := s.sensitivity(ctx); err != nil {
			return nil, err
		}
	}
	if s.result.Stopped, err = s.rounds(ctx); err != nil {
		return s.result, err
	}
	if o.Pack && o.Target != Bytes {
		if err := s.packNarrowest(ctx); err != nil {
			return s.result, err
		}
	}
	s.result.finish(o.Pack)
	return s.result, nil
}

// ask finds out whether the original can teach, which one that ends in a softmax can, and what it says about the training examples.
func (s *search) ask(ctx context.Context) error {
	s.lessons = s.learn
	t := &train.Teacher{Model: s.m, Temperature: s.Temperature, Weight: s.Weight}
	if _, err := s.m.With(s.m.Net, train.Distil(*t)); err != nil {
		return nil
	}
	s.teacher = t
	if s.Cache == "" || len(s.Augment) > 0 || s.Mixup != 0 { // it says nothing once about examples that differ each time
		return nil
	}
	a, err := s.m.StartAccount(nil)
	if err != nil {
		return err
	}
	r, err := transfer.Predictions(ctx, s.m, s.learn, 128, s.Cache)
	if err != nil {
		return err
	}
	if r.Computed {
		l, err := a.Ledger()
		if err != nil {
			return err
		}
		s.result.Spent += l.Joules.Value
	}
	s.teacher, s.lessons = &train.Teacher{Cached: true, Temperature: s.Temperature, Weight: s.Weight}, r.Data
	return nil
}

// packedFormats are those of packed candidates.
func (s *search) packedFormats() []string {
	if slices.Contains(s.formats, "int8") {
		return []string{packed + " f32", packed + " int8"}
	}
	return []string{packed + " f32"}
}

// packNarrowest packs the models of the rounds, the last of those within the drop first, until a packed one is within it too. It does not go by what was measured: on a machine that has other things to do that may be anything, and a
// later round has less left.
func (s *search) packNarrowest(ctx context.Context) error {
	for round := s.Rounds; round >= 0; round-- {
		if s.models[round] == nil || !slices.ContainsFunc(s.result.Candidates, func(c *Candidate) bool { return c.Round == round && s.within(c) }) {
			continue
		}
		s.round, s.current = round, s.models[round]
		s.widths, s.removed, s.strided = map[string]int{}, nil, nil
		if f := s.result.Find(fmt.Sprintf("round %d f32", round)); f != nil {
			s.widths, s.removed, s.strided = f.Widths, f.Removed, f.Strided
		}
		fits := false
		for _, f := range s.packedFormats() {
			c, err := s.quantize(ctx, round, f)
			if err != nil {
				return err
			}
			fits = fits || c != nil && s.within(c)
		}
		if fits {
			return nil
		}
	}
	return nil
}

func part(ds data.Dataset, lo, hi int) (data.Dataset, error) {
	idx := make([]int, hi-lo)
	for i := range idx {
		idx[i] = lo + i
	}
	return data.Subset(ds, idx)
}

// formats are those that a model can take: bytes all through where products of bytes take up most of it, weights of few bits where attention, recurrent layers or embeddings do.
func formats(m *train.Model) []string {
	for _, l := range m.Net.Layers() {
		if slices.Contains([]string{"MultiHeadAttention", "TransformerBlock", "Embedding", "LSTM", "GRU", "SimpleRNN", "Bidirectional"}, l.Class()) {
			return []string{"weights int8", "weights int4"}
		}
	}
	return []string{"int8"}
}

// within reports whether a candidate drops by no more than is allowed, roundings of differences aside.
func (r *Result) within(c *Candidate) bool { return c.Drop <= r.MaxDrop+1e-9 }

func (s *search) within(c *Candidate) bool { return s.result.within(c) }

// rounds goes on until something ends the search, and says what.
func (s *search) rounds(ctx context.Context) (string, error) {
	for round := range s.Rounds + 1 {
		fits := false
		s.round = round
		if round > 0 {
			ok, err := s.narrow(ctx, round)
			if err != nil {
				return "", err
			}
			if !ok {
				return "nothing is left that could be taken away", nil
			}
			c := s.result.Candidates[len(s.result.Candidates)-1]
			fits = s.within(c)
		}
		for _, f := range s.formats {
			c, err := s.quantize(ctx, round, f)
			if err != nil {
				return "", err
			}
			fits = fits || c != nil && s.within(c)
		}
		switch {
		case s.Budget > 0 && s.result.Spent >= s.Budget:
			return "the budget is spent", nil
		case round > 0 && !fits:
			return "narrower models drop by more than is allowed", nil
		}
	}
	return fmt.Sprintf("%d rounds are over", s.Rounds), nil
}

// sensitivity finds out what bytes do to each layer of the original alone.
func (s *search) sensitivity(ctx context.Context) error {
	start := time.Now()
	effects, err := quant.Sensitivity(ctx, s.m, data.Take(s.learn, 256), data.Take(s.held, 500), quant.Options{})
	if err != nil {
		return err
	}
	s.result.Quantized = map[string]float64{}
	for _, e := range effects {
		s.result.Quantized[e.Layer] = e.Loss
	}
	l := energy.NewLedger(energy.CPU, s.m.Cores())
	l.Close(time.Since(start), nil)
	s.result.Spent += l.Joules.Value
	return nil
}

// take books a candidate, new or kept before.
func (s *search) take(c *Candidate, m *train.Model, l *energy.Ledger) error {
	c.Drop = c.Quality.Drop(s.result.Original.Quality)
	if l != nil {
		if err := s.keeper.Keep(c, m, l); err != nil {
			return err
		}
	}
	s.result.Spent += c.Spent
	s.result.Candidates = append(s.result.Candidates, c)
	if s.log != nil {
		s.log(c)
	}
	return nil
}

// measure fills in what a candidate costs, and books what finding that out has cost.
func (s *search) measure(ctx context.Context, c *Candidate, m *train.Model, l *energy.Ledger) error {
	var more *energy.Ledger
	var err error
	if c.Measures, more, err = Measure(ctx, m, s.held); err != nil {
		return err
	}
	if c.Packed() {
		if c.Disk, _, err = m.PackedSize(); err != nil {
			return err
		}
	}
	l.Merge(more)
	c.Spent = l.Joules.Value
	return nil
}

// quantize makes the current model's candidate in a format; nil where no layer of it can take that.
func (s *search) quantize(ctx context.Context, round int, format string) (*Candidate, error) {
	if c, m, err := s.keeper.Kept(round, format); err != nil || c != nil {
		if err != nil {
			return nil, err
		}
		if format == packed+" f32" {
			s.shared = m
		}
		return c, s.take(c, m, nil)
	}
	l := energy.NewLedger(energy.CPU, s.m.Cores())
	var q *train.Model
	var err error
	start := time.Now()
	switch format {
	case "int8":
		if s.Timer == nil || s.Target != Joules && s.Target != Latency {
			q, _, err = quant.Static(ctx, s.current, s.learn, quant.Options{Correct: true})
			break
		}
		// One that is slower all the same is a candidate like others: what it takes is measured.
		if q, _, _, err = quant.Faster(ctx, s.current, s.learn, quant.Options{Correct: true}, s.Timer); errors.Is(err, quant.ErrSlower) {
			err = nil
		}
	case "weights int8":
		q, _, err = quant.Weights(ctx, s.current, nil, quant.WeightOptions{Bits: 8})
	case "weights int4":
		q, _, err = quant.Weights(ctx, s.current, s.learn, quant.WeightOptions{Bits: 4, Method: quant.GPTQ})
	case packed + " f32":
		q, err = pack.Pack(ctx, s.current, s.lessons, pack.Options{Sparsity: s.Sparsity, Values: s.Values, Epochs: s.Epochs, Batch: s.Batch, Teacher: s.teacher, Anneal: true, Augment: s.Augment, Mixup: s.Mixup}, l)
		s.shared, start = q, time.Now()
	default: // packed int8, of what was packed as f32 in this round
		q, _, err = quant.Static(ctx, s.shared, s.learn, quant.Options{PerTensor: true, Correct: true})
	}
	if err != nil {
		return nil, err
	}
	l.Close(time.Since(start), nil) // looking at examples, rounding and comparing times, as time at rest
	c := &Candidate{Name: fmt.Sprintf("round %d %s", round, format), Round: round, Widths: s.widths, Removed: s.removed, Strided: s.strided, Format: format}
	if err := s.measure(ctx, c, q, l); err != nil {
		return nil, err
	}
	return c, s.take(c, q, l)
}

// finish finds the front and the best.
func (r *Result) finish(packed bool) {
	for _, c := range r.Candidates {
		c.Front = !slices.ContainsFunc(r.Candidates, func(o *Candidate) bool {
			a, b := o.value(r.Target), c.value(r.Target)
			return o.Drop <= c.Drop && a <= b && (o.Drop < c.Drop || a < b)
		})
	}
	var best *Candidate
	for _, c := range r.Candidates {
		if r.within(c) && (c.Packed() || !packed) && c.value(r.Target) < r.Original.value(r.Target) && (best == nil || c.value(r.Target) < best.value(r.Target)) {
			best = c
		}
	}
	if r.Best, r.BreakEven = "", 0; best == nil {
		return
	}
	r.Best = best.Name
	if saves := r.Original.Joules - best.Joules; saves > 0 {
		r.BreakEven = r.Spent / saves
	}
}

// Again measures the original m and all candidates again on ds, as on a machine that has other things to do joules and times are too great, and chooses the front and the best anew. Quality is left as it was. load opens a candidate's model.
func (r *Result) Again(ctx context.Context, m *train.Model, ds data.Dataset, packed bool, load func(c *Candidate) (*train.Model, error)) error {
	measure := func(m *train.Model, to *Measures) error {
		now, l, err := Measure(ctx, m, ds)
		if err != nil {
			return err
		}
		now.Quality, now.Disk = to.Quality, to.Disk
		*to = now
		r.Spent += l.Joules.Value
		return nil
	}
	if err := measure(m, &r.Original); err != nil {
		return err
	}
	for _, c := range r.Candidates {
		m, err := load(c)
		if err != nil {
			return err
		}
		if err := measure(m, &c.Measures); err != nil {
			return err
		}
	}
	r.finish(packed)
	return nil
}

// Closest is the candidate that drops least: what to show where none is good enough.
func (r *Result) Closest() *Candidate {
	var out *Candidate
	for _, c := range r.Candidates {
		if out == nil || c.Drop < out.Drop {
			out = c
		}
	}
	return out
}

// Memory is a Keeper that keeps nothing.
type Memory struct{}

// Kept implements Keeper.
func (Memory) Kept(int, string) (*Candidate, *train.Model, error) { return nil, nil, nil }

// Keep implements Keeper.
func (Memory) Keep(*Candidate, *train.Model, *energy.Ledger) error { return nil }
