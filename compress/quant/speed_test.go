package quant_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/train"
)

// costs is a Timer by what each layer takes as floats and as bytes, whatever the machine.
func costs(floats, bytes map[string]float64, change float64) quant.Timer {
	return func(_ context.Context, models ...*train.Model) ([][]float64, error) {
		var out [][]float64
		for _, m := range models {
			took, last := 0.0, false
			saved, err := m.Net.Saved()
			if err != nil {
				return nil, err
			}
			for _, l := range saved.Layers {
				if l.Class == "Flatten" || l.Class == "Activation" {
					continue
				}
				isBytes := strings.HasPrefix(l.Class, "Quantized")
				cost := floats
				if isBytes {
					cost = bytes
				}
				if took += cost[l.Name]; isBytes != last { // values have to become bytes, or floats again
					took += change
				}
				last = isBytes
			}
			out = append(out, []float64{took, 2 * took})
		}
		return out, nil
	}
}

// Layers that are slower as bytes stay in floats, alone or two together where one alone would gain nothing; a model that is slower all the same is refused.
func TestFaster(t *testing.T) {
	m, set := trained(t, nn.Flatten(), nn.Dense(32, nn.ReLU).Named("a"), nn.Dense(32, nn.ReLU).Named("b"), nn.Dense(32, nn.ReLU).Named("c"), nn.Dense(10, nn.Softmax).Named("d"))
	ones := map[string]float64{"a": 1, "b": 1, "c": 1, "d": 1}
	for _, c := range []struct {
		name   string
		bytes  map[string]float64
		change float64
		keep   []string
		slower bool
	}{
		{"all faster", map[string]float64{"a": 0.5, "b": 0.5, "c": 0.5, "d": 0.5}, 0.1, nil, false},
		{"one slower", map[string]float64{"a": 0.2, "b": 3, "c": 0.5, "d": 0.5}, 0.1, []string{"b"}, false},
		{"a pair slower", map[string]float64{"a": 0.1, "b": 1.5, "c": 1.5, "d": 0.1}, 0.4, []string{"b", "c"}, false},
		{"hardly slower", map[string]float64{"a": 0.5, "b": 0.5, "c": 1.02, "d": 0.5}, 0, nil, false},
		{"all slower", map[string]float64{"a": 2, "b": 2, "c": 2, "d": 2}, 0.1, nil, true},
	} {
		q, r, tried, err := quant.Faster(context.Background(), m, set.Train, quant.Options{Examples: 100}, costs(ones, c.bytes, c.change))
		if c.slower != errors.Is(err, quant.ErrSlower) || !c.slower && err != nil || q == nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if c.slower {
			if !strings.Contains(err.Error(), "ms against") {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		var kept []string
		for _, l := range r.Layers {
			if !l.Bytes && l.Why == "slower as bytes" {
				kept = append(kept, l.Name)
			}
		}
		if !slices.Equal(kept, c.keep) {
			t.Errorf("%s: %v stayed in floats, want %v", c.name, kept, c.keep)
		}
		var said []string
		for _, v := range tried {
			if v.Kept {
				said = append(said, v.Layers...)
			}
		}
		if slices.Sort(said); !slices.Equal(said, c.keep) {
			t.Errorf("%s: said that %v stay in floats, want %v", c.name, said, c.keep)
		}
		if a, b := accuracy(t, m, data.Take(set.Test, 500)), accuracy(t, q, data.Take(set.Test, 500)); b < a-0.03 {
			t.Errorf("%s: accuracy %g became %g", c.name, a, b)
		}
	}
	failed := errors.New("no clock")
	if _, _, _, err := quant.Faster(context.Background(), m, set.Train, quant.Options{Examples: 100}, func(context.Context, ...*train.Model) ([][]float64, error) { return nil, failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
}

// The clock gives a time for each model and each batch that there are examples for.
func TestClock(t *testing.T) {
	m, set := trained(t, nn.Flatten(), nn.Dense(10, nn.Softmax))
	got, err := quant.Clock(data.Take(set.Test, 40), 1, 32, 128)(context.Background(), m, m)
	if err != nil || len(got) != 2 || len(got[0]) != 2 || len(got[1]) != 2 || !(got[0][0] > 0 && got[1][1] > 0) {
		t.Errorf("%v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := quant.Clock(set.Test, 1)(ctx, m); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := quant.Clock(data.Take(set.Test, 3), 32)(context.Background(), m); err == nil {
		t.Error("three examples are enough for a batch of 32")
	}
}
