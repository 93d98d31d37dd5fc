// Package search looks for the cheapest model that does as well as a trained one, by joules, latency or bytes.
//
// It goes in rounds. In a round units and filters are taken away where that saves most, by the ledger of the model as it runs, for what it costs in loss; the narrower model learns from the original (distillation) for some
// epochs; and it is quantized. Each model that comes out of this is measured on training examples held out, and is a Candidate. Rounds go on while some candidate is within the allowed drop.
package search

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/train"
)

// Target is what is to become little.
type Target string

// The targets.
const (
	Joules  Target = "joules"  // energy of an example, in batches
	Latency Target = "latency" // time of a batch of one
	Bytes   Target = "bytes"   // of the parameters
)

// Targets lists them.
var Targets = []Target{Joules, Latency, Bytes}

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
}

func (o *Options) check() error {
	for _, d := range []struct {
		v *float64
		d float64
	}{{&o.Temperature, 2}, {&o.Weight, 0.5}} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	for _, d := range []struct {
		v *int
		d int
	}{{&o.Epochs, 2}, {&o.Batch, 32}, {&o.Rounds, 8}} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	switch {
	case !slices.Contains(Targets, o.Target):
		return fmt.Errorf("search: unknown target %q (known: joules, latency, bytes)", o.Target)
	case !(o.MaxDrop >= 0 && o.MaxDrop < 1):
		return fmt.Errorf("search: a drop of at most %g; it must be from 0 to below 1", o.MaxDrop)
	case !(o.Budget >= 0):
		return fmt.Errorf("search: a budget of %g joules", o.Budget)
	case o.Epochs < 1 || o.Batch < 1 || o.Rounds < 1:
		return fmt.Errorf("search: %d epochs of batches of %d in %d rounds; all must be at least 1", o.Epochs, o.Batch, o.Rounds)
	}
	return nil
}

// Measures are what a model costs and how well it does.
type Measures struct {
	Quality quant.Quality      `json:"quality"` // on the examples held out
	Joules  float64            `json:"joules"`  // of an example in batches of 32, estimated
	MS      float64            `json:"ms"`      // median of a batch of one
	BatchMS float64            `json:"batch_ms"`
	Bytes   int                `json:"bytes"`   // of the parameters
	Layers  map[string]float64 `json:"layers"`  // joules by layer, of an example
	Seconds map[string]float64 `json:"seconds"` // likewise
}

// value is what the target looks at.
func (m Measures) value(t Target) float64 {
	switch t {
	case Latency:
		return m.MS
	case Bytes:
		return float64(m.Bytes)
	}
	return m.Joules
}

// Candidate is a model that the search has made.
type Candidate struct {
	Name   string         `json:"name"`
	Round  int            `json:"round"`
	Widths map[string]int `json:"widths,omitempty"` // outputs that are left, of layers that have lost some
	Format string         `json:"format"`           // f32, int8 (bytes all through), or weights int8, weights int4
	Measures
	Drop  float64 `json:"drop"`
	Spent float64 `json:"spent"` // joules that making and measuring it has cost, estimated or measured as the ledger says
	Front bool    `json:"front"` // nothing else is at least as good in drop and target
	File  string  `json:"file,omitempty"`
	Run   string  `json:"run,omitempty"`
}

// Result is what the search has found.
type Result struct {
	Target     Target       `json:"target"`
	MaxDrop    float64      `json:"max_drop"`
	Original   Measures     `json:"original"`
	Candidates []*Candidate `json:"candidates"`
	Best       string       `json:"best,omitempty"` // "": none is within the drop and cheaper than the original
	Stopped    string       `json:"stopped"`        // why it ended
	Spent      float64      `json:"spent"`
	// BreakEven is after how many examples the best has saved what the search has cost; 0: never, or there is no best.
	BreakEven float64 `json:"break_even_examples,omitempty"`
}

// Find is a candidate by name, nil of an unknown one.
func (r *Result) Find(name string) *Candidate {
	for _, c := range r.Candidates {
		if c.Name == name {
			return c
		}
	}
	return nil
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
}

// Run searches. log, if not nil, is told of each candidate. The models learn from set.Train but for the last thousand examples, on which they are compared.
func Run(ctx context.Context, m *train.Model, set *data.Set, o Options, k Keeper, log func(c *Candidate)) (*Result, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if set.Train.Len() < 20 {
		return nil, fmt.Errorf("search: %d training examples are too few to learn from and to compare models on; at least 20", set.Train.Len())
	}
	s := &search{Options: o, m: m, keeper: k, log: log, result: &Result{Target: o.Target, MaxDrop: o.MaxDrop}, current: m, widths: map[string]int{}}
	n := min(1000, set.Train.Len()/5)
	var err error
	if s.learn, err = part(set.Train, 0, set.Train.Len()-n); err != nil {
		return nil, err
	}
	if s.held, err = part(set.Train, set.Train.Len()-n, set.Train.Len()); err != nil {
		return nil, err
	}
	s.formats = formats(m)
	if s.result.Original, _, err = Measure(ctx, m, s.held); err != nil {
		return nil, err
	}
	s.currentMeasures = s.result.Original
	if s.result.Stopped, err = s.rounds(ctx); err != nil {
		return s.result, err
	}
	s.finish()
	return s.result, nil
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
func (s *search) within(c *Candidate) bool { return c.Drop <= s.MaxDrop+1e-9 }

// rounds goes on until something ends the search, and says what.
func (s *search) rounds(ctx context.Context) (string, error) {
	for round := range s.Rounds + 1 {
		fits := false
		if round > 0 {
			ok, err := s.narrow(ctx, round)
			if err != nil {
				return "", err
			}
			if !ok {
				return "no layer is left that could lose outputs", nil
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

// narrow makes the round's narrower model, which is then the current one; ok is false where nothing is left to take away.
func (s *search) narrow(ctx context.Context, round int) (ok bool, err error) {
	if c, m, err := s.keeper.Kept(round, "f32"); err != nil || c != nil {
		if err != nil {
			return false, err
		}
		s.current, s.currentMeasures, s.widths = m, c.Measures, c.Widths
		return true, s.take(c, m, nil)
	}
	l := energy.NewLedger(energy.CPU, s.m.Cores())
	widths, err := s.choose(ctx, l)
	if err != nil || widths == nil {
		return false, err
	}
	student, err := Narrow(s.current, widths, train.Distil(train.Teacher{Model: s.m, Temperature: s.Temperature, Weight: s.Weight}))
	if err != nil { // models that end in no softmax learn without a teacher
		if student, err = Narrow(s.current, widths); err != nil {
			return false, err
		}
	}
	a, err := student.StartAccount(nil)
	if err != nil {
		return false, err
	}
	if _, err := student.Fit(ctx, s.learn, train.Epochs(s.Epochs), train.BatchSize(s.Batch)); err != nil {
		return false, err
	}
	spent, err := a.Ledger()
	if err != nil {
		return false, err
	}
	l.Merge(spent)
	plain, err := s.current.With(student.Net) // without the teacher
	if err != nil {
		return false, err
	}
	for _, p := range plain.Params() {
		v, err := student.State().Get(p.Name)
		if err == nil {
			err = plain.State().Set(p.Name, v)
		}
		if err != nil {
			return false, err
		}
	}
	all := map[string]int{}
	for name, n := range s.widths {
		all[name] = n
	}
	for name, n := range widths {
		all[name] = n
	}
	c := &Candidate{Name: fmt.Sprintf("round %d f32", round), Round: round, Widths: all, Format: "f32"}
	if err := s.measure(ctx, c, plain, l); err != nil {
		return false, err
	}
	s.current, s.currentMeasures, s.widths = plain, c.Measures, all
	return true, s.take(c, plain, l)
}

// measure fills in what a candidate costs, and books what finding that out has cost.
func (s *search) measure(ctx context.Context, c *Candidate, m *train.Model, l *energy.Ledger) error {
	var more *energy.Ledger
	var err error
	if c.Measures, more, err = Measure(ctx, m, s.held); err != nil {
		return err
	}
	l.Merge(more)
	c.Spent = l.Joules.Value
	return nil
}

// saved is the share of what the layers cost that a round is to save before the model learns again.
const saved = 0.3

// choose decides which outputs go: a quarter of a layer's at a time, where that saves most for the loss it costs, until enough is saved.
func (s *search) choose(ctx context.Context, l *energy.Ledger) (map[string]int, error) {
	ls, err := links(s.current)
	if err != nil {
		return nil, err
	}
	now := map[string]int{}
	for _, k := range ls {
		now[k.layer] = k.outputs
	}
	cost := s.byLayer()
	for _, k := range ls {
		for _, name := range k.between {
			cost[k.layer] += cost[name]
		}
	}
	total, counted := 0.0, map[string]bool{} // of the layers that can save something: the rest of a prediction, time at rest included, is no measure for them
	for _, k := range ls {
		for _, name := range []string{k.layer, k.next} {
			if !counted[name] {
				counted[name] = true
				total += cost[name]
			}
		}
	}
	loss := s.currentMeasures.Quality.Loss
	out := map[string]int{}
	sum := 0.0
	sample := data.Take(s.held, 500)
	for sum < saved*total {
		best, least, gain, width := "", math.Inf(-1), 0.0, 0
		for _, k := range ls {
			n := fewer(now[k.layer])
			if n == now[k.layer] || 2*n < k.outputs { // at most half of a layer goes in a round
				continue
			}
			try := map[string]int{k.layer: n}
			for name, n := range out {
				if name != k.layer {
					try[name] = n
				}
			}
			m, err := Narrow(s.current, try)
			if err != nil {
				return nil, err
			}
			a, err := m.StartAccount(nil)
			if err != nil {
				return nil, err
			}
			q, err := quant.QualityOf(ctx, m, sample)
			if err != nil {
				return nil, err
			}
			spent, err := a.Ledger()
			if err != nil {
				return nil, err
			}
			l.Merge(spent)
			gone := 1 - float64(n)/float64(now[k.layer])
			g := gone * (cost[k.layer] + cost[k.next])
			score := g / math.Max(q.Loss-loss, 0.01*math.Abs(loss)+1e-6)
			if score > least {
				best, least, gain, width = k.layer, score, g, n
			}
		}
		if best == "" {
			break
		}
		for i := range ls { // what is left costs less
			if ls[i].layer == best {
				f := float64(width) / float64(now[best])
				cost[best], cost[ls[i].next] = cost[best]*f, cost[ls[i].next]*f
			}
		}
		now[best], out[best] = width, width
		sum += gain
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

// byLayer is what the target counts, by layer of the current model.
func (s *search) byLayer() map[string]float64 {
	from := s.currentMeasures.Layers
	switch s.Target {
	case Latency:
		from = s.currentMeasures.Seconds
	case Bytes:
		from = map[string]float64{}
		for _, p := range s.current.Params() {
			for _, l := range s.current.Net.Layers() {
				if train.Matches(l.Name(), p.Name) {
					from[l.Name()] += float64(p.Type.Bytes())
				}
			}
		}
	}
	out := map[string]float64{}
	for k, v := range from {
		out[k] = v
	}
	return out
}

// fewer is three quarters of a width, in whole groups of what vectors take where it is great; at least 2.
func fewer(n int) int {
	to := n * 3 / 4
	for _, g := range []int{16, 8, 4} {
		if n >= 3*g {
			to = max(g, to/g*g)
			break
		}
	}
	if to < 2 {
		return n
	}
	return to
}

// quantize makes the current model's candidate in a format; nil where no layer of it can take that.
func (s *search) quantize(ctx context.Context, round int, format string) (*Candidate, error) {
	if c, m, err := s.keeper.Kept(round, format); err != nil || c != nil {
		if err != nil {
			return nil, err
		}
		return c, s.take(c, m, nil)
	}
	l := energy.NewLedger(energy.CPU, s.m.Cores())
	var q *train.Model
	var err error
	start := time.Now()
	switch format {
	case "int8":
		q, _, err = quant.Static(ctx, s.current, s.learn, quant.Options{Correct: true})
	case "weights int8":
		q, _, err = quant.Weights(ctx, s.current, nil, quant.WeightOptions{Bits: 8})
	default:
		q, _, err = quant.Weights(ctx, s.current, s.learn, quant.WeightOptions{Bits: 4, Method: quant.GPTQ})
	}
	if err != nil {
		return nil, err
	}
	l.Close(time.Since(start), nil) // looking at examples and rounding, as time at rest
	c := &Candidate{Name: fmt.Sprintf("round %d %s", round, format), Round: round, Widths: s.widths, Format: format}
	if err := s.measure(ctx, c, q, l); err != nil {
		return nil, err
	}
	return c, s.take(c, q, l)
}

// finish finds the front and the best.
func (s *search) finish() {
	r := s.result
	for _, c := range r.Candidates {
		c.Front = !slices.ContainsFunc(r.Candidates, func(o *Candidate) bool {
			a, b := o.value(s.Target), c.value(s.Target)
			return o.Drop <= c.Drop && a <= b && (o.Drop < c.Drop || a < b)
		})
	}
	var best *Candidate
	for _, c := range r.Candidates {
		if s.within(c) && c.value(s.Target) < r.Original.value(s.Target) && (best == nil || c.value(s.Target) < best.value(s.Target)) {
			best = c
		}
	}
	if best == nil {
		return
	}
	r.Best = best.Name
	if saves := r.Original.Joules - best.Joules; saves > 0 {
		r.BreakEven = r.Spent / saves
	}
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

const (
	windows = 6
	window  = 50 * time.Millisecond
)

// Measure evaluates a model on examples and measures its predictions: joules are those of the ledger.
func Measure(ctx context.Context, m *train.Model, ds data.Dataset) (Measures, *energy.Ledger, error) {
	out := Measures{Layers: map[string]float64{}, Seconds: map[string]float64{}}
	total := energy.NewLedger(energy.CPU, m.Cores())
	a, err := m.StartAccount(nil)
	if err != nil {
		return out, nil, err
	}
	if out.Quality, err = quant.QualityOf(ctx, m, ds); err != nil {
		return out, nil, err
	}
	l, err := a.Ledger()
	if err != nil {
		return out, nil, err
	}
	total.Merge(l)
	for _, p := range m.Params() {
		out.Bytes += p.Type.Bytes()
	}
	for _, n := range []int{1, min(32, ds.Len())} {
		x, y := ds.Spec().Tensors(n)
		idx := make([]int, n)
		for i := range idx {
			idx[i] = i
		}
		if err := ds.Fill(idx, x, y); err != nil {
			return out, nil, err
		}
		for range 3 { // warm
			if _, err := m.PredictBatch(x...); err != nil {
				return out, nil, err
			}
		}
		// Of some windows the one of fewest joules counts: whatever else the machine does can only add to it.
		var ms []float64
		var best *energy.Ledger
		least, count := math.Inf(1), 0.0
		for range windows {
			if a, err = m.StartAccount(nil); err != nil {
				return out, nil, err
			}
			k := 0
			for start := time.Now(); k < 3 || k < 200 && time.Since(start) < window; k++ {
				t := time.Now()
				if _, err := m.PredictBatch(x...); err != nil {
					return out, nil, err
				}
				ms = append(ms, time.Since(t).Seconds()*1e3)
				if err := ctx.Err(); err != nil {
					return out, nil, err
				}
			}
			if l, err = a.Ledger(); err != nil {
				return out, nil, err
			}
			total.Merge(l)
			if v := l.Joules.Value / float64(k*n); v < least {
				least, best, count = v, l, float64(k*n)
			}
		}
		slices.Sort(ms)
		by := best.By(func(k energy.Key) energy.Key { return energy.Key{Layer: k.Layer} })
		if n == 1 {
			out.MS = ms[len(ms)/2]
			for _, line := range by {
				out.Seconds[line.Layer] += line.Seconds / count
			}
		}
		if n > 1 || ds.Len() < 2 {
			out.BatchMS = ms[len(ms)/2]
			out.Joules = least
			for _, line := range by {
				out.Layers[line.Layer] += line.Joules.Value / count
			}
		}
	}
	if out.Joules == 0 {
		return out, nil, errors.New("search: no prediction could be measured")
	}
	return out, total, nil
}
