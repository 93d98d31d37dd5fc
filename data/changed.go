package data

import (
	"math/rand/v2"
	"sync"

	"github.com/jouleml/joule/tensor"
)

// Changed is ds with random changes, each example's the same whenever it is read: those that a Loader with this seed makes in its first epoch.
func Changed(ds Dataset, seed uint64, ts ...Transform) (Dataset, error) {
	if len(ts) == 0 {
		return ds, nil
	}
	c := &changed{Dataset: ds, seed: seed}
	c.rng = rand.New(&c.pcg)
	for _, t := range ts {
		a, err := t(ds.Spec())
		if err != nil {
			return nil, err
		}
		c.apply = append(c.apply, a)
	}
	return c, nil
}

type changed struct {
	Dataset
	seed uint64

	mu    sync.Mutex // of what follows: changes own scratch memory
	apply []Apply
	pcg   rand.PCG
	rng   *rand.Rand
}

// Fill implements Dataset.
func (c *changed) Fill(idx []int, x, y []*tensor.Tensor) error {
	if err := c.Dataset.Fill(idx, x, y); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for row, i := range idx {
		seedExample(&c.pcg, c.seed, transformStream, 0, i)
		for _, a := range c.apply {
			a(c.rng, x, y, row)
		}
	}
	return nil
}
