package quant

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/train"
)

// Quality is how well a model does: its first metric, or its loss if it has none.
type Quality struct {
	Name  string  // of the metric
	Value float64 // of it
	Loss  float64
}

// QualityOf evaluates a model.
func QualityOf(ctx context.Context, m *train.Model, ds data.Dataset) (Quality, error) {
	logs, err := m.Evaluate(ctx, ds, 128)
	if err != nil {
		return Quality{}, err
	}
	q := Quality{Name: logs[0].Name, Value: logs[0].Value, Loss: logs[0].Value}
	if len(logs) > 1 {
		q.Name, q.Value = logs[1].Name, logs[1].Value
	}
	return q, nil
}

// Drop is how much worse q is than what it comes from: of shares such as accuracy their difference, of losses and whatever else is better when lower the share by which it is greater.
func (q Quality) Drop(from Quality) float64 {
	if train.LowerIsBetter(q.Name) || strings.HasPrefix(q.Name, "bits") || strings.HasPrefix(q.Name, "perplexity") {
		return (q.Value - from.Value) / math.Max(math.Abs(from.Value), 1e-12)
	}
	return from.Value - q.Value
}

// Effect is what quantizing one layer alone does.
type Effect struct {
	Layer string
	Drop  float64 // Quality.Drop
	Loss  float64 // by how much the loss is greater
	Kept  bool    // whether Mixed left it in floats
}

// Sensitivity quantizes each layer that can be by itself and evaluates the result on some examples, the most sensitive layer first.
func Sensitivity(ctx context.Context, m *train.Model, calibrate, evaluate data.Dataset, o Options) ([]Effect, error) {
	before, err := QualityOf(ctx, m, evaluate)
	if err != nil {
		return nil, err
	}
	n, err := networkOf(m.Net)
	if err != nil {
		return nil, err
	}
	for _, e := range n.Layers {
		e.original = slices.Clone(e.Inputs)
	}
	n.classify(o.Keep)
	var names, others []string
	for _, e := range n.Layers {
		if e.gone || e.kind != takes {
			continue
		}
		if e.Class == "Add" {
			others = append(others, e.Name)
			continue
		}
		names = append(names, e.Name)
	}
	var out []Effect
	for _, name := range names {
		one := o
		one.Keep = slices.Concat(o.Keep, others)
		for _, v := range names {
			if v != name {
				one.Keep = append(one.Keep, v)
			}
		}
		q, _, err := Static(ctx, m, calibrate, one)
		if err != nil {
			return nil, fmt.Errorf("quant: layer %s alone: %w", name, err)
		}
		after, err := QualityOf(ctx, q, evaluate)
		if err != nil {
			return nil, err
		}
		out = append(out, Effect{Layer: name, Drop: after.Drop(before), Loss: after.Loss - before.Loss})
	}
	slices.SortStableFunc(out, func(a, b Effect) int {
		switch {
		case a.Loss > b.Loss:
			return -1
		case a.Loss < b.Loss:
			return 1
		}
		return 0
	})
	return out, nil
}

// ErrDrop says that no choice of layers keeps the drop within the limit.
var ErrDrop = errors.New("quant: the model drops by more than the limit whatever layers stay in floats")

// Mixed quantizes all layers that can be, and then leaves one after another in floats, the most sensitive first, until the model drops by no more than the limit on the examples it is evaluated on. Where only one
// layer is left and the drop is still greater, the error is ErrDrop.
func Mixed(ctx context.Context, m *train.Model, calibrate, evaluate data.Dataset, o Options, maxDrop float64) (*train.Model, *Report, []Effect, error) {
	if !(maxDrop >= 0) {
		return nil, nil, nil, fmt.Errorf("quant: a drop of at most %g: it must be a number from 0 on", maxDrop)
	}
	effects, err := Sensitivity(ctx, m, calibrate, evaluate, o)
	if err != nil {
		return nil, nil, nil, err
	}
	before, err := QualityOf(ctx, m, evaluate)
	if err != nil {
		return nil, nil, nil, err
	}
	best := math.Inf(1)
	for i := range effects {
		q, r, err := Static(ctx, m, calibrate, o)
		if err != nil {
			return nil, nil, nil, err
		}
		after, err := QualityOf(ctx, q, evaluate)
		if err != nil {
			return nil, nil, nil, err
		}
		if best = min(best, after.Drop(before)); after.Drop(before) <= maxDrop {
			return q, r, effects, nil
		}
		o.Keep = append(slices.Clone(o.Keep), effects[i].Layer)
		effects[i].Kept = true
	}
	return nil, nil, effects, fmt.Errorf("%w: %.4g is allowed, the least was %.4g", ErrDrop, maxDrop, best)
}
