package train_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// watch notes, before the first step and after each epoch, the values of a variable, and stops the training after an epoch.
type watch struct {
	train.Hooks
	name string
	seen [][]float32
	stop int
}

func (w *watch) look(t *train.Training) error {
	v, err := t.Model.State().Get(w.name)
	if err == nil {
		w.seen = append(w.seen, slices.Clone(v.F32()))
	}
	return err
}

func (w *watch) Begin(t *train.Training) error { return w.look(t) }

func (w *watch) AfterEpoch(t *train.Training) error {
	if t.Epoch == w.stop {
		t.Stop("as asked")
	}
	return w.look(t)
}

// A parameter that thaws in an epoch is as it was until then, and its first update is one of Adam's first: as long as the learning rate.
func TestThaw(t *testing.T) {
	const rate = 1e-3
	ds := points(32)
	opts := []train.Option{train.Freeze("body", "norm"), train.Thaw(2, "body/kernel"), train.Thaw(3, "norm"), train.Unfreeze("norm/beta")}
	m := adaptable(t, optim.Adam(optim.Rate(rate)), opts...)
	w := &watch{name: "body/kernel"}
	if _, err := m.Fit(context.Background(), ds, train.Epochs(2), train.BatchSize(32), train.Callbacks(w)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(w.seen[0], w.seen[1]) {
		t.Error("frozen weights moved in epoch 1")
	}
	most := 0.0
	for i, v := range w.seen[2] {
		most = max(most, math.Abs(float64(v-w.seen[1][i])))
	}
	if math.Abs(most-rate) > 1e-5 {
		t.Errorf("the first update of thawed weights is %g long, want %g", most, rate)
	}
	if got, want := m.FrozenPart(), "1 of 8 parameters stay as they are; others are trained from epoch 2, 3 on"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A training that is stopped between two stages, saved and taken up ends with the same bits as one that was left alone.
func TestThawResumes(t *testing.T) {
	ds := points(32)
	make := func() *train.Model {
		return adaptable(t, optim.Adam(), train.Freeze("body", "norm"), train.Thaw(2, "body"), train.Thaw(4, "norm"))
	}
	fit := func(m *train.Model, from *train.Progress, stop int, more ...train.Callback) {
		o := []train.FitOption{train.Epochs(5), train.BatchSize(8), train.Callbacks(append([]train.Callback{&watch{name: "body/kernel", stop: stop}}, more...)...)}
		if from != nil {
			o = append(o, train.From(from))
		}
		if _, err := m.Fit(context.Background(), ds, o...); err != nil && !errors.Is(err, train.ErrInterrupted) {
			t.Fatal(err)
		}
	}
	whole := make()
	fit(whole, nil, 0)
	for stop := 1; stop <= 4; stop++ {
		dir := t.TempDir()
		part := make()
		fit(part, nil, stop, &train.Checkpoints{Dir: dir})
		found, err := checkpoint.Latest(dir)
		if err != nil {
			t.Fatal(err)
		}
		rest := make()
		p, err := rest.Restore(found.State)
		if err != nil {
			t.Fatal(err)
		}
		fit(rest, p, 0)
		for _, v := range whole.State().Vars() {
			a, err := whole.State().Get(v.Name)
			if err != nil {
				t.Fatal(err)
			}
			b, err := rest.State().Get(v.Name)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(a.Bytes(), b.Bytes()) {
				t.Errorf("stopped after epoch %d: %s differs", stop, v.Name)
			}
		}
	}
}

// Ranks that share a training in which parameters thaw give the bits of one process with as many shards, resumed in the middle too, and what a batch in one piece gives up to rounding.
func TestThawOnRanks(t *testing.T) {
	ds := points(37)
	fit := func(c *dist.Comm, shards, epochs int) (*train.Model, error) {
		m := adaptable(t, optim.Adam(), train.Threads(1), train.Freeze("body", "norm"), train.Thaw(2, "body"), train.Thaw(4, "norm"), train.Across(train.Parallel{Comm: c, Shards: shards, Check: 1}))
		w := &watch{name: "body/kernel"}
		dir := t.TempDir()
		o := []train.FitOption{train.Epochs(5), train.BatchSize(8), train.Callbacks(w, &train.Checkpoints{Dir: dir})}
		if epochs < 5 {
			w.stop = epochs
		}
		if _, err := m.Fit(context.Background(), ds, o...); err != nil {
			return nil, err
		}
		if !slices.Equal(w.seen[0], w.seen[1]) || len(w.seen) > 2 && slices.Equal(w.seen[1], w.seen[2]) {
			return nil, errors.New("the body was to thaw in epoch 2")
		}
		if epochs == 5 {
			return m, nil
		}
		found, err := checkpoint.Latest(dir)
		if err != nil {
			return nil, err
		}
		rest := adaptable(t, optim.Adam(), train.Threads(1), train.Freeze("body", "norm"), train.Thaw(2, "body"), train.Thaw(4, "norm"), train.Across(train.Parallel{Comm: c, Shards: shards, Check: 1}))
		p, err := rest.Restore(found.State)
		if err != nil {
			return nil, err
		}
		_, err = rest.Fit(context.Background(), ds, train.Epochs(5), train.BatchSize(8), train.From(p))
		return rest, err
	}
	whole, err := fit(nil, 0, 5)
	if err != nil {
		t.Fatal(err)
	}
	want, err := fit(nil, 4, 5)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"body/kernel", "head/kernel"} { // statistics of a normalisation are a shard's while it is trained, in the last epochs
		for i, v := range values(t, want, name) {
			if d := math.Abs(float64(v - values(t, whole, name)[i])); d > 0.02 {
				t.Errorf("%s[%d] differs by %g between a batch in one piece and in four", name, i, d)
			}
		}
	}
	for stop := 1; stop < 5; stop++ {
		again, err := fit(nil, 4, stop)
		if err != nil {
			t.Fatal(err)
		}
		if bits(t, again) != bits(t, want) {
			t.Errorf("resumed after epoch %d: other bits", stop)
		}
	}
	for ranks := 2; ranks <= 4; ranks += 2 {
		allRanks(t, ranks, func(c *dist.Comm) error {
			m, err := fit(c, 4, 5)
			if err == nil && bits(t, m) != bits(t, want) {
				err = errors.New("other bits than one process")
			}
			return err
		})
	}
}

func TestThawMistakes(t *testing.T) {
	for want, opts := range map[string][]train.Option{
		`unfreeze: no parameter matches "bodi"`: {train.Freeze("body"), train.Unfreeze("bodi")},
		`epoch 0 of "body" must be at least 1`:  {train.Freeze("body"), train.Thaw(0, "body")},
		"no parameter is trained in the first":  {train.Freeze("*"), train.Thaw(2, "*")},
		"do not go with state shared out":       {train.Freeze("body"), train.Thaw(2, "body"), train.Across(train.Parallel{Shards: 2, Local: 4})},
		"the model has no trainable parameter":  {train.Freeze("*")},
	} {
		_, err := train.Compile(adaptable(t, optim.Adam()).Net, points(8).Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, opts...)
		if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(want, "the model ")) {
			t.Errorf("%s: error %v", want, err)
		}
	}
	m := adaptable(t, optim.Adam(), train.Freeze("*"), train.Unfreeze("head"))
	if fmt.Sprint(m.Frozen("body/kernel"), m.Frozen("head/kernel"), m.Thaws()) != "true false false" {
		t.Error("the last rule that matches does not count")
	}
}
