package search

import (
	"cmp"
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
	pooled []string       // convolutions that take the strides of the pooling behind them
	scores map[string][]float64
	gain   float64 // what it saves of the target, predicted
}

// apply makes the smaller model.
func (c *cut) apply(m *train.Model, more ...train.Option) (*train.Model, error) {
	switch {
	case len(c.blocks) > 0:
		return structure.Remove(m, c.blocks, more...)
	case len(c.pooled) > 0:
		return structure.Stride(m, c.pooled, more...)
	}
	return structure.Narrow(m, c.widths, c.scores, more...)
}

// narrow makes the round's narrower model, which is then the current one; ok is false where nothing is left to take away.
func (s *search) narrow(ctx context.Context, round int) (ok bool, err error) {
	if c, m, err := s.keeper.Kept(round, "f32"); err != nil || c != nil {
		if err != nil {
			return false, err
		}
		s.stand(m, c)
		maps.Copy(s.result.Narrowed, c.Narrowed)
		return true, s.take(c, m, nil)
	}
	l := energy.NewLedger(energy.CPU, s.m.Cores())
	gone, err := s.choose(ctx, l)
	if err != nil || gone == nil {
		return false, err
	}
	student, err := s.pupil(gone)
	if err != nil {
		return false, err
	}
	if err := s.teach(ctx, student, l, 0); err != nil {
		return false, err
	}
	plain, err := s.plain(student)
	if err != nil {
		return false, err
	}
	all := maps.Clone(s.widths)
	maps.Copy(all, gone.widths)
	c := &Candidate{Name: fmt.Sprintf("round %d f32", round), Round: round, Widths: all, Removed: append(slices.Clone(s.removed), gone.blocks...), Strided: append(slices.Clone(s.strided), gone.pooled...), Format: "f32"}
	if round == 1 {
		c.Narrowed = maps.Clone(s.result.Narrowed)
	}
	if err := s.measure(ctx, c, plain, l); err != nil {
		return false, err
	}
	s.stand(plain, c)
	return true, s.take(c, plain, l)
}

// stand makes a candidate of floats the current one.
func (s *search) stand(m *train.Model, c *Candidate) {
	s.current, s.currentMeasures, s.widths, s.removed, s.strided = m, c.Measures, c.Widths, c.Removed, c.Strided
	s.models[c.Round] = m
}

// pupil is the current model without what a cut takes away, compiled to learn from the original if that can teach.
func (s *search) pupil(c *cut) (*train.Model, error) {
	if s.teacher == nil {
		return c.apply(s.current)
	}
	return c.apply(s.current, train.Distil(*s.teacher))
}

// teach lets a model learn for the search's epochs, or for so many steps if that is not 0, at a rate that falls, and books what that costs.
func (s *search) teach(ctx context.Context, m *train.Model, l *energy.Ledger, steps int64) error {
	a, err := m.StartAccount(nil)
	if err != nil {
		return err
	}
	if _, err := m.Fit(ctx, s.lessons, train.Epochs(s.Epochs), train.BatchSize(s.Batch), train.MaxSteps(steps), train.Callbacks(&train.Anneal{Steps: steps}), train.Augment(s.Augment...), train.Mixup(s.Mixup)); err != nil {
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

// trial is how many steps a cut learns before it is compared with cuts of another kind, and rivals how many of these there are beside the one of axes.
const (
	trial  = 300
	rivals = 3
)

// choose decides what goes: units of axes, a whole block, or the pooling behind a convolution. These differ too much in what they do to the loss before anything is learned again, so each learns for some steps first;
// the one that then saves most for the loss it costs goes.
func (s *search) choose(ctx context.Context, l *energy.Ledger) (*cut, error) {
	d, err := structure.Analyze(s.current)
	if err != nil {
		return nil, err
	}
	cost := s.byLayer()
	sample := data.Take(s.held, 1000)
	loss, err := s.lossOf(ctx, s.current, sample, l)
	if err != nil {
		return nil, err
	}
	score := func(gain, rise float64) float64 { return gain / math.Max(rise, 0.01*math.Abs(loss)+1e-6) }
	rise := func(try *cut) (float64, error) {
		m, err := try.apply(s.current)
		if err != nil {
			return 0, err
		}
		now, err := s.lossOf(ctx, m, sample, l)
		return now - loss, err
	}
	type rival struct {
		cut   *cut
		score float64
	}
	var all []rival
	for _, b := range d.Blocks {
		c := &cut{blocks: []string{b.Name}}
		for _, layer := range b.Layers {
			c.gain += cost[layer]
		}
		all = append(all, rival{cut: c})
	}
	for _, p := range d.Pooled {
		// A pooling that is fused with its convolution is booked there.
		all = append(all, rival{cut: &cut{pooled: []string{p.Conv}, gain: (cost[p.Conv] + cost[p.Pool]) * float64(p.Places-1) / float64(p.Places)}})
	}
	if s.Target == Bytes || s.Target == Parameters { // strides save no parameter
		all = slices.DeleteFunc(all, func(r rival) bool { return len(r.cut.pooled) > 0 })
	}
	for i := range all {
		r, err := rise(all[i].cut)
		if err != nil {
			return nil, err
		}
		all[i].score = score(all[i].cut.gain, r)
		if len(all[i].cut.blocks) > 0 && s.round == 1 {
			s.result.Narrowed[all[i].cut.blocks[0]] = r
		}
	}
	all = slices.DeleteFunc(all, func(r rival) bool { return r.cut.gain <= 0 })
	slices.SortStableFunc(all, func(a, b rival) int { return cmp.Compare(b.score, a.score) })
	all = all[:min(rivals, len(all))]
	units, err := s.units(ctx, d, cost, rise, score)
	if err != nil {
		return nil, err
	}
	if units != nil {
		all = append(all, rival{cut: units})
	}
	if len(all) < 2 {
		for _, r := range all {
			return r.cut, nil
		}
		return nil, nil
	}
	var best rival
	for _, r := range all {
		m, err := s.pupil(r.cut)
		if err != nil {
			return nil, err
		}
		if err := s.teach(ctx, m, l, trial); err != nil {
			return nil, err
		}
		plain, err := s.plain(m)
		if err != nil {
			return nil, err
		}
		now, err := s.lossOf(ctx, plain, sample, l)
		if err != nil {
			return nil, err
		}
		if r.score = score(r.cut.gain, now-loss); best.cut == nil || r.score > best.score {
			best = r
		}
	}
	return best.cut, nil
}

// lossOf is a model's loss on examples; what finding it out costs is booked.
func (s *search) lossOf(ctx context.Context, m *train.Model, ds data.Dataset, l *energy.Ledger) (float64, error) {
	a, err := m.StartAccount(nil)
	if err != nil {
		return 0, err
	}
	q, err := quant.QualityOf(ctx, m, ds)
	if err != nil {
		return 0, err
	}
	spent, err := a.Ledger()
	if err != nil {
		return 0, err
	}
	l.Merge(spent)
	return q.Loss, nil
}

// units takes units away, a quarter of an axis at a time, where that saves most for the loss it costs before anything is learned, until enough is saved; nil if nothing can be.
func (s *search) units(ctx context.Context, d *structure.Dependencies, cost map[string]float64, rise func(*cut) (float64, error), score func(gain, rise float64) float64) (*cut, error) {
	out := &cut{widths: map[string]int{}}
	var err error
	if s.By == Taylor {
		out.scores, err = d.Taylor(ctx, s.current, s.learn, 1024)
	} else {
		out.scores, err = d.Magnitude(s.current)
	}
	if err != nil {
		return nil, err
	}
	cost = maps.Clone(cost)
	total := 0.0 // of the layers that can save something: the rest of a prediction, time at rest included, is no measure for them
	able := map[string]bool{}
	now := map[string]int{}
	for _, a := range d.Axes {
		now[a.Name] = a.Units
		for layer := range a.Shares {
			able[layer] = true
		}
	}
	for layer := range able {
		total += cost[layer]
	}
	for first := true; out.gain < saved*total; first = false {
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
					out.gain += gain
				}
			}
		}
		if best == nil {
			break
		}
		best()
	}
	if len(out.widths) == 0 {
		return nil, nil
	}
	return out, nil
}

// byLayer is what the target counts, by layer of the current model.
func (s *search) byLayer() map[string]float64 {
	switch s.Target {
	case Latency:
		return maps.Clone(s.currentMeasures.Seconds)
	case Bytes, Parameters:
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
