package structure

import (
	"context"
	"fmt"
	"math"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// Magnitude scores the units of every axis: the norm of the weights that make a unit times that of the weights that take it. Behind a batch normalisation its factor stands for the weights that make the unit, since the
// normalisation undoes their size; of a unit that is constant on the training data it counts as nearly zero. A unit whose weights are all zero has the score 0.
func (d *Dependencies) Magnitude(m *train.Model) (map[string][]float64, error) {
	values, err := parameters(m)
	if err != nil {
		return nil, err
	}
	out := map[string][]float64{}
	for _, a := range d.Axes {
		if out[a.Name], err = a.magnitude(values); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (a *Axis) magnitude(values map[string]*tensor.Tensor) ([]float64, error) {
	gives, takes, factors := make([]float64, a.Units), make([]float64, a.Units), []float64(nil)
	for _, p := range a.places {
		sum := gives
		switch p.role {
		case taken:
			sum = takes
		case offset:
			continue
		case scale:
			if factors == nil {
				factors = make([]float64, a.Units)
			}
			layer := p.param[:len(p.param)-len("gamma")]
			variance := values[layer+"moving_variance"].F32()
			for i, v := range values[p.param].F32() {
				if u := p.unit[i]; u >= 0 {
					s := float64(variance[i])
					factors[u] += float64(v) * float64(v) * s / (s + 1e-3)
				}
			}
			continue
		}
		each(values[p.param], p, func(u, _ int, w float32) { sum[u] += float64(w) * float64(w) })
	}
	if factors != nil {
		gives = factors
	}
	for i := range gives {
		gives[i] = math.Sqrt(gives[i] * takes[i])
		if math.IsNaN(gives[i]) || math.IsInf(gives[i], 0) {
			return nil, fmt.Errorf("structure: the weights of unit %d of %s are not finite; the model cannot be pruned", i, a.Name)
		}
	}
	return gives, nil
}

// each goes through the elements of a parameter that belong to units of an axis, with their places.
func each(t *tensor.Tensor, p place, f func(unit, at int, w float32)) {
	s := t.Shape()
	inner := s[p.axis+1:].Size()
	for i, w := range t.F32() {
		if u := p.unit[i/inner%s[p.axis]]; u >= 0 {
			f(u, i, w)
		}
	}
}

// Taylor scores units by how much the loss would change if they were zero, to the first order (arXiv:1906.10771): the square of the sum of gradient times weight over the weights that take a unit, which is the derivative
// by a factor of the unit, averaged over batches of 32 of the first n examples (all of them if there are fewer).
func (d *Dependencies) Taylor(ctx context.Context, m *train.Model, ds data.Dataset, n int) (map[string][]float64, error) {
	if n = min(n, ds.Len()); n < 1 {
		return nil, fmt.Errorf("structure: scores by gradients need at least one example, not %d", n)
	}
	values, err := parameters(m)
	if err != nil {
		return nil, err
	}
	out := map[string][]float64{}
	for _, a := range d.Axes {
		out[a.Name] = make([]float64, a.Units)
	}
	batch := min(32, n)
	count := n / batch
	err = data.Each(data.Take(ds, count*batch), batch, func(_ int, x, y []*tensor.Tensor) error {
		grads, err := m.Gradients(x, y)
		if err != nil {
			return err
		}
		for _, a := range d.Axes {
			sums := make([]float64, a.Units)
			for _, p := range a.places {
				g := grads[p.param]
				if p.role != taken || g == nil {
					continue
				}
				dw := g.F32()
				each(values[p.param], p, func(u, i int, w float32) { sums[u] += float64(w) * float64(dw[i]) })
			}
			for u, s := range sums {
				out[a.Name][u] += s * s
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	for name, s := range out {
		for u := range s {
			s[u] /= float64(count)
			if math.IsNaN(s[u]) || math.IsInf(s[u], 0) {
				return nil, fmt.Errorf("structure: the gradients of unit %d of %s are not finite; the model cannot be pruned by them", u, name)
			}
		}
	}
	return out, nil
}

// Saves is what one unit less of an axis saves, given what each layer costs, as the layer is now.
func (a *Axis) Saves(cost map[string]float64) float64 {
	sum := 0.0
	for _, layer := range sortedKeys(a.Shares) {
		sum += a.Shares[layer] * cost[layer]
	}
	return sum
}
