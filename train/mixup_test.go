package train_test

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/augment"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// hot is a data set whose class numbers are written as probabilities.
type hot struct{ data.Dataset }

func (h hot) Spec() data.Spec {
	s := h.Dataset.Spec()
	s.Targets = []data.Field{{Name: "label", DType: dtype.F32, Shape: shape.Of(s.Classes)}}
	return s
}

func (h hot) Fill(idx []int, x, y []*tensor.Tensor) error {
	numbers := tensor.New(dtype.I32, len(idx))
	if err := h.Dataset.Fill(idx, x, []*tensor.Tensor{numbers}); err != nil {
		return err
	}
	p, k := y[0].F32(), h.Dataset.Spec().Classes
	clear(p)
	for i, c := range numbers.I32() {
		p[i*k+int(c)] = 1
	}
	return nil
}

// Mixed class numbers are worth what mixed probabilities are, smoothing included, and validation knows class numbers still.
func TestMixupOfClassNumbers(t *testing.T) {
	tr, te := load(t, 61)
	run := func(ds data.Dataset, loss train.Loss, opts ...train.FitOption) (string, *train.History) {
		t.Helper()
		m, err := train.Compile(small(), ds.Spec(), optim.Adam(), loss, train.Accuracy, train.Seed(2))
		if err != nil {
			t.Fatal(err)
		}
		h, err := m.Fit(context.Background(), ds, append(opts, train.Epochs(2), train.BatchSize(16))...)
		if err != nil {
			t.Fatal(err)
		}
		return bits(t, m), h
	}
	a, ha := run(tr, train.SparseCategorical(train.Smooth(0.1)), train.Mixup(0.4), train.Validate(te))
	b, hb := run(hot{tr}, train.Categorical(0.1), train.Mixup(0.4))
	if a != b {
		t.Error("class numbers that are mixed and probabilities that are mixed give other weights")
	}
	if plain, _ := run(tr, train.SparseCategorical(train.Smooth(0.1))); plain == a {
		t.Error("mixup changes nothing")
	}
	for _, name := range []string{"loss", "accuracy"} {
		x, _ := ha.Epochs[1].Log(name)
		if y, ok := hb.Epochs[1].Log(name); !ok || x != y {
			t.Errorf("%s is %g, of probabilities %g", name, x, y)
		}
	}
	if v, ok := ha.Epochs[1].Log("val_loss"); !ok || !(v > 0) {
		t.Errorf("loss of the validation %g", v)
	}
}

// Weights and history do not depend on the number of ranks, nor on where a training was stopped.
func TestMixupOnRanks(t *testing.T) {
	tr, te := load(t, 77) // batches of 16: the last has 13
	resumedOnRanks(t, tr, []int{2, 4, 3}, []int64{3, 7, 1000}, train.Epochs(2), train.BatchSize(16), train.Validate(te), train.Augment(augment.RandomCrop(2)), train.Mixup(1))
}

// A teacher sees what the student sees, changed and mixed: one that says the same as the student has nothing to teach.
func TestTeacherSeesTheSameView(t *testing.T) {
	tr, _ := load(t, 64)
	teacher := compile(t)
	if _, err := teacher.Fit(context.Background(), tr, train.Epochs(1), train.BatchSize(16)); err != nil {
		t.Fatal(err)
	}
	var first float64
	for i, own := range []bool{true, false} {
		m := compile(t, train.Seed(9), train.Distil(train.Teacher{Model: teacher, Temperature: 2, Weight: 1}))
		if own {
			for _, p := range teacher.Params() {
				v, err := teacher.State().Get(p.Name)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.State().Set(p.Name, v); err != nil {
					t.Fatal(err)
				}
			}
		}
		h, err := m.Fit(context.Background(), tr, train.BatchSize(64), train.Augment(augment.FlipHorizontal(0.5), augment.RandomCrop(3)), train.Mixup(1))
		if err != nil {
			t.Fatal(err)
		}
		l, _ := h.Epochs[0].Log("loss")
		if i == 0 {
			first = l
		} else if math.Abs(first) > 1e-6 || l < 1e-2 {
			t.Errorf("loss %g of the teacher itself, %g of another student", first, l)
		}
	}
}

func TestMixupMistakes(t *testing.T) {
	tr, _ := load(t, 40)
	ignoring, err := train.Compile(small(), tr.Spec(), optim.Adam(), train.SparseCategorical(train.Ignore(-1)))
	if err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]struct {
		m    *train.Model
		ds   data.Dataset
		opts []train.FitOption
	}{
		"alpha must be above 0":                      {compile(t), tr, []train.FitOption{train.Mixup(-2)}},
		"says nothing about changed ones":            {adaptable(t, optim.Adam(), train.Distil(train.Teacher{Cached: true, Temperature: 1, Weight: 1})), points(8), []train.FitOption{train.Mixup(1)}},
		"with a label to ignore needs class numbers": {ignoring, tr, []train.FitOption{train.Mixup(1)}},
	} {
		if _, err := c.m.Fit(context.Background(), c.ds, c.opts...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
