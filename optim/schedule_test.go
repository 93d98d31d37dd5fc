package optim_test

import (
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/optim"
)

func TestSchedules(t *testing.T) {
	steps, err := optim.Step(1, 0.1, 10, 20)
	if err != nil {
		t.Fatal(err)
	}
	cosine := optim.Cosine(2, 1, 100)
	cycle := optim.OneCycle(1, 100)
	for _, c := range []struct {
		name string
		s    optim.Schedule
		want map[int64]float64
	}{
		{"constant", optim.Constant(0.3), map[int64]float64{0: 0.3, 1e9: 0.3}},
		{"step", steps, map[int64]float64{0: 1, 9: 1, 10: 0.1, 19: 0.1, 20: 0.01, 1000: 0.01}},
		{"cosine", cosine, map[int64]float64{0: 2, 25: 1.5 + 0.5*math.Cos(math.Pi/4), 50: 1.5, 100: 1, 500: 1}},
		{"cosine of no steps", optim.Cosine(2, 1, 0), map[int64]float64{0: 2, 1: 1}},
		{"warm-up", optim.Warmup(4, cosine), map[int64]float64{0: 0.5, 1: 1, 3: 2, 4: 2, 54: 1.5, 104: 1}},
		{"no warm-up", optim.Warmup(0, cosine), map[int64]float64{0: 2, 50: 1.5}},
		{"one cycle", cycle, map[int64]float64{0: 1. / 25, 15: (1 + 1./25) / 2, 30: 1, 65: (1 + 1/25e4) / 2, 100: 1 / 25e4, 1000: 1 / 25e4}},
	} {
		for step, want := range c.want {
			if got := c.s.At(step); math.Abs(got-want) > 1e-12 {
				t.Errorf("%s: rate %g at step %d, want %g", c.name, got, step, want)
			}
		}
	}
	if _, err := optim.Step(1, 0.1, 20, 10); err == nil || !strings.Contains(err.Error(), "must ascend") {
		t.Errorf("steps that do not ascend: error %v", err)
	}
}

func TestSettingsThatMakeNoSense(t *testing.T) {
	for name, o := range map[string]*optim.Optimizer{
		"decay": optim.Adam(optim.Decay(-1)), "value": optim.Adam(optim.ClipValue(-1)), "norm": optim.SGD(0, false, optim.ClipNorm(-1)),
		"global": optim.Lion(optim.GlobalClipNorm(-1)), "rate": optim.Adam(optim.Rate(-0.1)), "NaN": optim.Adam(optim.Rate(math.NaN())),
		"infinite": optim.RMSprop(0, false, optim.Rate(math.Inf(1))),
	} {
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), o.Name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for _, o := range []*optim.Optimizer{optim.SGD(0, false), optim.SGD(0.9, true), optim.Adam(), optim.AdamW(), optim.RMSprop(0, false), optim.Lion()} {
		if err := o.Check(); err != nil {
			t.Error(err)
		}
	}
	// Keras's defaults.
	for _, c := range []struct {
		o           *optim.Optimizer
		rate, decay float64
	}{{optim.SGD(0, false), 0.01, 0}, {optim.Adam(), 0.001, 0}, {optim.AdamW(), 0.001, 0.004}, {optim.RMSprop(0, false), 0.001, 0}, {optim.Lion(), 0.001, 0}} {
		if c.o.Schedule.At(5) != c.rate || c.o.WeightDecay != c.decay {
			t.Errorf("%s: rate %g, decay %g", c.o.Name, c.o.Schedule.At(5), c.o.WeightDecay)
		}
	}
}
