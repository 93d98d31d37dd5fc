package prune

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// Movement prunes weights that training moves towards zero, whatever their size (arXiv:2005.07683), which suits models that begin at trained weights. Each weight has a score that is learned with the gradient
// ∂L/∂(w·mask)·w, straight through the mask, by the training's optimizer; the weights of the lowest scores are masked, and come back if their scores rise.
type Movement struct{ Magnitude }

const scorePrefix = "movement/"

// Wrap implements train.Wrapper.
func (p *Movement) Wrap(c *nn.Call, param nn.Param, w *graph.Node) *graph.Node {
	masked := p.Magnitude.Wrap(c, param, w)
	if masked == w {
		return w
	}
	p.score = func(m *train.Model, name string, _, _ *tensor.Tensor) ([]float32, error) {
		s, err := m.State().Get(scorePrefix + name)
		if err != nil {
			return nil, fmt.Errorf("prune: %w", err)
		}
		return s.F32(), nil
	}
	s := c.Extra(scorePrefix+param.Name, nn.Zeros, true, w.Shape()...)
	return op.Add(masked, op.Mul(op.Sub(s, op.StopGradient(s)), op.StopGradient(w))) // the second part is zero, and gives s its gradient
}

// SNIP prunes once, before the first step: the weights that go are those of the least |∂L/∂w·w| over some examples (arXiv:1810.02340). The schedule of Magnitude has no effect.
type SNIP struct {
	Magnitude
	Examples int // 0: 512
}

// Begin implements train.Callback: it sets the masks, unless the training goes on from a checkpoint, which has them.
func (p *SNIP) Begin(t *train.Training) error {
	if err := p.Magnitude.Begin(t); err != nil || t.Steps > 0 {
		return err
	}
	ds, err := t.Data()
	if err != nil {
		return fmt.Errorf("prune: %w", err)
	}
	return p.Choose(context.Background(), t.Model, ds)
}

// AfterStep implements train.Callback.
func (p *SNIP) AfterStep(*train.Training) error { return nil }

// Choose sets the masks by examples of a data set.
func (p *SNIP) Choose(ctx context.Context, m *train.Model, ds data.Dataset) error {
	n := p.Examples
	if n == 0 {
		n = 512
	}
	if n = min(n, ds.Len()); n < 1 {
		return errors.New("prune: no example to choose weights by")
	}
	batch := min(32, n)
	sums := map[string][]float32{}
	err := data.Each(data.Take(ds, n/batch*batch), batch, func(_ int, x, y []*tensor.Tensor) error {
		grads, err := m.Gradients(x, y)
		if err != nil {
			return fmt.Errorf("prune: %w", err)
		}
		for _, name := range p.names {
			g := grads[name]
			if g == nil {
				return fmt.Errorf("prune: %s is frozen and has no gradient to choose by; leave it out with skip", name)
			}
			if sums[name] == nil {
				sums[name] = make([]float32, g.Len())
			}
			for i, v := range g.F32() {
				sums[name][i] += v
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	p.score = func(_ *train.Model, name string, w, _ *tensor.Tensor) ([]float32, error) {
		out := make([]float32, w.Len())
		for i, v := range w.F32() {
			out[i] = float32(math.Abs(float64(v * sums[name][i])))
		}
		return out, nil
	}
	return p.Apply(m, p.Sparsity)
}

// Lottery finds a sparse network that learns as well as the whole one from its first weights: it trains, removes a share of the weights that are left, the smallest, gives the others the values that they had after Rewind steps
// (arXiv:1803.03635; arXiv:1912.05671 for rewinding to later than the first), and does so again.
type Lottery struct {
	Magnitude       // Sparsity is that of the end; the schedule has no effect
	Rounds    int   // of training and removing, before the last training
	Rewind    int64 // steps
}

// AfterStep implements train.Callback.
func (p *Lottery) AfterStep(*train.Training) error { return nil }

// Train trains the model, compiled with train.Wrapped(p), Rounds+1 times with the options of Fit, and leaves the sparse one in it. After round r a share 1-(1-Sparsity)^(r/Rounds) of the weights is gone.
func (p *Lottery) Train(ctx context.Context, m *train.Model, ds data.Dataset, opts ...train.FitOption) (*train.History, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if p.Rounds < 1 || p.Rewind < 0 {
		return nil, fmt.Errorf("prune: a lottery of %d rounds, rewound to step %d; it takes at least one round and a step from 0 on", p.Rounds, p.Rewind)
	}
	if len(p.names) == 0 {
		return nil, errors.New("prune: the model was not compiled with this lottery (train.Wrapped), or all of its weights are skipped")
	}
	if p.Rewind > 0 {
		if _, err := m.Fit(ctx, ds, append(append([]train.FitOption{}, opts...), train.MaxSteps(p.Rewind))...); err != nil {
			return nil, err
		}
	}
	first := map[string]*tensor.Tensor{}
	for _, v := range m.State().Vars() {
		t, err := m.State().Get(v.Name)
		if err != nil {
			return nil, fmt.Errorf("prune: %w", err)
		}
		first[v.Name] = t
	}
	for r := 0; ; r++ {
		h, err := m.Fit(ctx, ds, opts...)
		if err != nil || r == p.Rounds {
			return h, err
		}
		if err := p.Apply(m, 1-math.Pow(1-p.Sparsity, float64(r+1)/float64(p.Rounds))); err != nil {
			return nil, err
		}
		for _, name := range p.names {
			mask, err := m.State().Get(maskPrefix + name)
			if err != nil {
				return nil, fmt.Errorf("prune: %w", err)
			}
			first[maskPrefix+name] = mask
		}
		for name, t := range first {
			if err := m.State().Set(name, t); err != nil {
				return nil, fmt.Errorf("prune: %w", err)
			}
		}
	}
}
