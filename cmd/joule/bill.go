package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/internal/rss"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// billSteps is how many steps a prediction rests on.
const billSteps = 40

// bill is a prediction of what a training costs.
type bill struct {
	seconds float64
	joules  energy.Joules
	bytes   int64 // of memory
}

// predict makes the bill of the whole training from the times of its first steps, in milliseconds.
func (j *job) predict(ms []float64) error {
	s := slices.Sorted(slices.Values(ms))
	l, err := j.account.Ledger()
	if err != nil {
		return err
	}
	b := &bill{}
	b.seconds = s[len(s)/2] * 1e-3 * float64(j.steps())
	b.joules = l.Joules.Scale(b.seconds / l.Seconds * float64(j.ranks.size()))
	b.bytes = rss.Peak()
	j.guess = b
	return nil
}

// dry tries model, data and disk on a few batches and prints the bill.
func (j *job) dry(ctx context.Context) error {
	if err := j.tryDisk(); err != nil {
		return err
	}
	loader, err := data.NewLoader(j.set.Train, data.LoaderConfig{Batch: j.spec.Fit.BatchSize, Shuffle: true, Seed: j.f.seed, Transforms: j.spec.Fit.Augment, Mixup: j.spec.Fit.Mixup})
	if err != nil {
		return err
	}
	defer loader.Close()
	meter, why, err := j.f.meter.open()
	if err != nil {
		return err
	}
	var ms []float64
	for i := range billSteps + 5 {
		if i == 5 { // the first steps compile and warm up
			if j.account, err = j.model.StartAccount(meter); err != nil {
				return err
			}
		}
		b, err := loader.Next(ctx)
		if err != nil {
			return err
		}
		start := time.Now()
		if _, err := j.model.Step(b.X, b.Y, 1e-4); err != nil {
			return err
		}
		if i >= 5 {
			ms = append(ms, time.Since(start).Seconds()*1e3)
		}
	}
	if err := j.predict(ms); err != nil {
		return err
	}
	g := j.guess
	c := j.model.StepCost(j.spec.Fit.BatchSize)
	fmt.Fprintf(j.out, "%s: %d epochs of %d examples, batch %d: %d steps\n", j.spec.Name, j.spec.Fit.Epochs, j.set.Train.Len(), j.spec.Fit.BatchSize, j.steps())
	fmt.Fprintf(j.out, "tried %d steps: model, data and disk are fine\n", billSteps)
	fmt.Fprintf(j.out, "predicted: %s, %v, %s of memory, %s of arithmetic\n", energy.SI(g.seconds, "s"), g.joules, energy.SI(float64(g.bytes), "B"), energy.SI(float64(c.FLOPs*j.steps()), "FLOP"))
	if err := j.priceRecompute(ctx, loader, ms); err != nil {
		return err
	}
	for _, e := range why {
		fmt.Fprintln(j.out, "energy is estimated:", e)
	}
	return nil
}

// priceRecompute says what it costs a model with Transformer blocks to compute them again in the backward pass, and what memory that saves: seconds and joules of a step against bytes.
// ms are the times of steps of the model as it is.
func (j *job) priceRecompute(ctx context.Context, loader *data.Loader, ms []float64) error {
	other := *j.spec
	if other.Fit.Recompute = nil; j.spec.Fit.Recompute == nil {
		other.Fit.Recompute = []string{}
		if !slices.ContainsFunc(j.model.Net.Layers(), func(l *nn.Layer) bool { return l.Class() == "TransformerBlock" }) {
			return nil
		}
	}
	type price struct {
		seconds, joules float64
		bytes           int64
		cost            energy.Cost
	}
	of := func(m *train.Model, ms []float64) (p price, err error) {
		b := j.spec.Fit.BatchSize
		if p.bytes, err = m.StepMemory(b); err != nil {
			return p, err
		}
		for _, r := range m.NodeCosts(b, false) {
			p.joules += r.Joules.Value
			p.cost = p.cost.Add(r.Cost)
		}
		s := slices.Sorted(slices.Values(ms))
		p.seconds = s[len(s)/2] / 1e3
		return p, nil
	}
	next := func() (x, y []*tensor.Tensor, err error) {
		b, err := loader.Next(ctx)
		if err != nil {
			return nil, nil, err
		}
		return b.X, b.Y, nil
	}
	sized := false
	if _, sized = j.set.Train.(data.Bucketed); sized { // batches differ in size: both models are tried on one of the greatest
		n := j.spec.Fit.BatchSize
		x, y := j.set.Train.Spec().Tensors(n)
		idx := make([]int, n)
		for i := range idx {
			idx[i] = i % j.set.Train.Len()
		}
		if err := j.set.Train.Fill(idx, x, y); err != nil {
			return err
		}
		next = func() ([]*tensor.Tensor, []*tensor.Tensor, error) { return x, y, nil }
	}
	try := func(m *train.Model) (ms []float64, err error) {
		for i := range billSteps/4 + 2 {
			if i == 2 {
				if _, err := m.StartAccount(nil); err != nil {
					return nil, err
				}
			}
			x, y, err := next()
			if err != nil {
				return nil, err
			}
			start := time.Now()
			if _, err := m.Step(x, y, 1e-4); err != nil {
				return nil, err
			}
			if i >= 2 {
				ms = append(ms, time.Since(start).Seconds()*1e3)
			}
		}
		return ms, nil
	}
	var err error
	if sized {
		if ms, err = try(j.model); err != nil {
			return err
		}
	}
	own, err := of(j.model, ms)
	if err != nil {
		return err
	}
	m, err := other.Compile(j.set.Spec(), j.updates(), train.Threads(j.f.threads), train.Seed(j.f.seed))
	if err != nil {
		return err
	}
	times, err := try(m)
	if err != nil {
		return err
	}
	twin, err := of(m, times)
	if err != nil {
		return err
	}
	with, without := own, twin
	if j.spec.Fit.Recompute == nil {
		with, without = twin, own
	}
	line := func(what string, p price) {
		fmt.Fprintf(j.out, "  %-26s %10s %10s %14s  ≈%s estimated\n", what, energy.SI(float64(p.bytes), "B"), energy.SI(p.seconds, "s"), energy.SI(float64(p.cost.Executed), "FLOP run"), energy.SI(p.joules, "J"))
	}
	fmt.Fprintln(j.out, "a step's memory, time, arithmetic and energy (fit: {recompute: true} computes blocks again in the backward pass):")
	line("keeping what blocks compute", without)
	line("computing it again", with)
	return nil
}

// tryDisk checks that a model can be saved where the run will be.
func (j *job) tryDisk() error {
	root := j.f.out
	made := false
	if _, err := os.Stat(root); os.IsNotExist(err) {
		if err := os.MkdirAll(root, 0o777); err != nil {
			return fmt.Errorf("runs cannot be kept in %s: %w", root, err)
		}
		made = true
	}
	dir, err := os.MkdirTemp(root, ".try-")
	if err != nil {
		return fmt.Errorf("runs cannot be kept in %s: %w", root, err)
	}
	err = j.model.Save(dir + "/" + modelFile)
	os.RemoveAll(dir)
	if made {
		os.Remove(root)
	}
	return err
}

// source says where figures of energy come from.
func (j *job) source() string {
	if j.shown != nil && j.shown.meter != nil {
		return "energy " + j.shown.meter.Source().String()
	}
	return "energy estimated (" + j.model.EnergyModel().Name + ")"
}
