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
	b.joules = l.Joules.Scale(b.seconds / l.Seconds)
	b.bytes = rss.Peak()
	j.guess = b
	return nil
}

// dry tries model, data and disk on a few batches and prints the bill.
func (j *job) dry(ctx context.Context) error {
	if err := j.tryDisk(); err != nil {
		return err
	}
	loader, err := data.NewLoader(j.set.Train, data.LoaderConfig{Batch: j.spec.Fit.BatchSize, Shuffle: true, Seed: j.f.seed, Transforms: j.spec.Fit.Augment})
	if err != nil {
		return err
	}
	defer loader.Close()
	meter, why := energy.Open()
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
	for _, e := range why {
		fmt.Fprintln(j.out, "energy is estimated:", e)
	}
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
	return "energy estimated (" + energy.CPU.Name + ")"
}
