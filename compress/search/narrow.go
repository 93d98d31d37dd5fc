package search

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/compress/structure"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/train"
)

// cut is what a round takes away.
type cut struct {
	widths map[string]int // units that stay, of axes that lose some
	blocks []string       // taken out whole
	scores map[string][]float64
}

// apply makes the smaller model.
func (c *cut) apply(m *train.Model, more ...train.Option) (*train.Model, error) {
	if len(c.blocks) == 0 {
		return structure.Narrow(m, c.widths, c.scores, more...)
	}
	m, err := structure.Remove(m, c.blocks, more...)
	if err != nil || len(c.widths) == 0 {
		return m, err
	}
	return structure.Narrow(m, c.widths, c.scores, more...)
}

// narrow makes the round's narrower model, which is then the current one; ok is false where nothing is left to take away.
func (s *search) narrow(ctx context.Context, round int) (ok bool, err error) {
	if c, m, err := s.keeper.Kept(round, "f32"); err != nil || c != nil {
		if err != nil {
			return false, err
		}
		s.current, s.currentMeasures, s.widths, s.removed = m, c.Measures, c.Widths, c.Removed
		return true, s.take(c, m, nil)
	}
	l := energy.NewLedger(energy.CPU, s.m.Cores())
	gone, err := s.choose(ctx, l)
	if err != nil || gone == nil {
		return false, err
	}
	student, err := gone.apply(s.current, train.Distil(train.Teacher{Model: s.m, Temperature: s.Temperature, Weight: s.Weight}))
	if err != nil { // models that end in no softmax learn without a teacher
		if student, err = gone.apply(s.current); err != nil {
			return false, err
		}
	}
	if err := s.teach(ctx, student, l); err != nil {
		return false, err
	}
	plain, err := s.plain(student)
	if err != nil {
		return false, err
	}
	all := maps.Clone(s.widths)
	maps.Copy(all, gone.widths)
	removed := append(slices.Clone(s.removed), gone.blocks...)
	c := &Candidate{Name: fmt.Sprintf("round %d f32", round), Round: round, Widths: all, Removed: removed, Format: "f32"}
	if err := s.measure(ctx, c, plain, l); err != nil {
		return false, err
	}
	s.current, s.currentMeasures, s.widths, s.removed = plain, c.Measures, all, removed
	return true, s.take(c, plain, l)
}

// teach lets a model learn for the search's epochs, and books what that costs.
func (s *search) teach(ctx context.Context, m *train.Model, l *energy.Ledger, more ...train.FitOption) error {
	a, err := m.StartAccount(nil)
	if err != nil {
		return err
	}
	if _, err := m.Fit(ctx, s.learn, append([]train.FitOption{train.Epochs(s.Epochs), train.BatchSize(s.Batch)}, more...)...); err != nil {
		return err
	}
	spent, err := a.Ledger()
	if err != nil {
		return err
	}
	l.Merge(spent)
	return nil
}

// plain is a model without its teacher and whatever else it learned with.
func (s *search) plain(m *train.Model) (*train.Model, error) {
	out, err := s.m.With(m.Net)
	if err != nil {
		return nil, err
	}
	for _, p := range out.Params() {
		v, err := m.State().Get(p.Name)
		if err == nil {
			err = out.State().Set(p.Name, v)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// saved is the share of what the layers cost that a round is to save before the model learns again.
const saved = 0.3

// choose decides what goes: a quarter of an axis at a time, or a whole block, where that saves most for the loss it costs, until enough is saved.
func (s *search) choose(ctx context.Context, l *energy.Ledger) (*cut, error) {
	d, err := structure.Analyze(s.current)
	if err != nil {
		return nil, err
	}
	out := &cut{widths: map[string]int{}}
	if s.By == Taylor {
		out.scores, err = d.Taylor(ctx, s.current, s.learn, 1024)
	} else {
		out.scores, err = d.Magnitude(s.current)
	}
	if err != nil {
		return nil, err
	}
	cost := s.byLayer()
	total := 0.0 // of the layers that can save something: the rest of a prediction, time at rest included, is no measure for them
	able := map[string]bool{}
	now := map[string]int{}
	for _, a := range d.Axes {
		now[a.Name] = a.Units
		for layer := range a.Shares {
			able[layer] = true
		}
	}
	for _, b := range d.Blocks {
		for _, layer := range b.Layers {
			able[layer] = true
		}
	}
	for layer := range able {
		total += cost[layer]
	}
	loss := s.currentMeasures.Quality.Loss
	sum := 0.0
	sample := data.Take(s.held, 500)
	rise := func(try *cut) (float64, error) {
		m, err := try.apply(s.current)
		if err != nil {
			return 0, err
		}
		a, err := m.StartAccount(nil)
		if err != nil {
			return 0, err
		}
		q, err := quant.QualityOf(ctx, m, sample)
		if err != nil {
			return 0, err
		}
		spent, err := a.Ledger()
		if err != nil {
			return 0, err
		}
		l.Merge(spent)
		return q.Loss - loss, nil
	}
	score := func(gain, rise float64) float64 { return gain / math.Max(rise, 0.01*math.Abs(loss)+1e-6) }
	for first := true; sum < saved*total; first = false {
		var best func()
		least := math.Inf(-1)
		for _, a := range d.Axes {
			n := fewer(now[a.Name])
			if n == now[a.Name] || 2*n < a.Units { // at most half of an axis goes in a round
				continue
			}
			try := &cut{widths: maps.Clone(out.widths), scores: out.scores}
			try.widths[a.Name] = n
			r, err := rise(try)
			if err != nil {
				return nil, err
			}
			if first && s.round == 1 {
				s.result.Narrowed[a.Name] = r
			}
			gain := a.Saves(cost) * float64(a.Units) * float64(now[a.Name]-n) / float64(now[a.Name])
			if v := score(gain, r); v > least {
				least = v
				best = func() {
					f := float64(n) / float64(now[a.Name])
					for layer, share := range a.Shares { // what is left costs less
						cost[layer] -= cost[layer] * share * float64(a.Units) * (1 - f)
					}
					now[a.Name], out.widths[a.Name] = n, n
					sum += gain
				}
			}
		}
		if first { // a block goes alone: with it the axes change
			for _, b := range d.Blocks {
				gain := 0.0
				for _, layer := range b.Layers {
					gain += cost[layer]
				}
				r, err := rise(&cut{blocks: []string{b.Name}})
				if err != nil {
					return nil, err
				}
				if s.round == 1 {
					s.result.Narrowed[b.Name] = r
				}
				if v := score(gain, r); v > least && gain > 0 {
					least = v
					best = func() {
						out.blocks = []string{b.Name}
						sum = total
					}
				}
			}
		}
		if best == nil {
			break
		}
		best()
	}
	if len(out.widths) == 0 && len(out.blocks) == 0 {
		return nil, nil
	}
	return out, nil
}

// byLayer is what the target counts, by layer of the current model.
func (s *search) byLayer() map[string]float64 {
	switch s.Target {
	case Latency:
		return maps.Clone(s.currentMeasures.Seconds)
	case Bytes:
		out := map[string]float64{}
		for _, p := range s.current.Params() {
			for _, l := range s.current.Net.Layers() {
				if train.Matches(l.Name(), p.Name) {
					out[l.Name()] += float64(p.Type.Bytes())
				}
			}
		}
		return out
	}
	return maps.Clone(s.currentMeasures.Layers)
}

// fewer is about three quarters of a width, in whole groups of what vectors take: of 16 (the floats of AVX-512), at small widths of 8 or 4. What stands between two such widths costs as much as the greater or more: a first
// convolution of 24 filters took longer than one of 32, and one of 12 than one of 16. It is at least 2, or 1 of few heads.
func fewer(n int) int {
	to := n * 3 / 4
	switch {
	case n > 16:
		to = max(16, to/16*16)
	case n > 8:
		to = 8
	case n > 4:
		to = 4
	case n == 2:
		return 1
	}
	if to < 2 {
		return n
	}
	return to
}
