package train_test

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// A model that is its own teacher learns, resumes with the same bits, and is saved without its teacher.
func TestSelfDistillation(t *testing.T) {
	ds := points(48)
	build := func() *train.Model {
		return adaptable(t, optim.Adam(optim.Rate(0.01)), train.Distil(train.Teacher{Self: true, Temperature: 2, Weight: 0.6}))
	}
	fit := func(m *train.Model, from *train.Progress, stop int, more ...train.Callback) *train.History {
		o := []train.FitOption{train.Epochs(4), train.BatchSize(16), train.Callbacks(append([]train.Callback{&watch{name: "body/kernel", stop: stop}}, more...)...)}
		if from != nil {
			o = append(o, train.From(from))
		}
		h, err := m.Fit(context.Background(), ds, o...)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	whole, alone := build(), adaptable(t, optim.Adam(optim.Rate(0.01)))
	h := fit(whole, nil, 0)
	fit(alone, nil, 0)
	first, _ := h.Epochs[0].Log("loss")
	last, _ := h.Epochs[3].Log("loss")
	if !(last < first) {
		t.Errorf("the loss went from %g to %g", first, last)
	}
	a, b := value(t, whole, "head/kernel"), value(t, alone, "head/kernel")
	if slices.Equal(a, b) {
		t.Error("the teacher makes no difference")
	}
	if s := value(t, whole, "teacher-share"); math.Abs(float64(s[0])-0.6) > 1e-6 {
		t.Errorf("in the last epoch the teacher counts %g, want 0.6", s[0])
	}
	dir := t.TempDir()
	part := build()
	fit(part, nil, 2, &train.Checkpoints{Dir: dir})
	found, err := checkpoint.Latest(dir)
	if err != nil {
		t.Fatal(err)
	}
	rest := build()
	p, err := rest.Restore(found.State)
	if err != nil {
		t.Fatal(err)
	}
	fit(rest, p, 0)
	for _, v := range whole.State().Vars() {
		if !slices.Equal(value(t, whole, v.Name), value(t, rest, v.Name)) {
			t.Errorf("%s differs after a resumption", v.Name)
		}
	}
	file := filepath.Join(dir, "m.safetensors")
	if err := whole.Save(file); err != nil {
		t.Fatal(err)
	}
	s, err := checkpoint.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range s.Tensors {
		if strings.HasPrefix(v.Name, "teacher") {
			t.Errorf("%s is in the saved model", v.Name)
		}
	}
	if _, err := train.Load(file); err != nil {
		t.Error(err)
	}
}

// value is a variable as f32, none of another type.
func value(t *testing.T, m *train.Model, name string) []float32 {
	t.Helper()
	v, err := m.State().Get(name)
	if err != nil {
		t.Fatal(err)
	}
	if v.DType() != dtype.F32 {
		return nil
	}
	return slices.Clone(v.F32())
}

// spoken is a data set with what a teacher says.
type spoken struct {
	data.Dataset
	y *tensor.Tensor
}

func (s spoken) Spec() data.Spec {
	d := s.Dataset.Spec()
	d.Targets = append(slices.Clone(d.Targets), data.Field{Name: "teacher", Shape: shape.Of(3), DType: dtype.F32})
	return d
}

func (s spoken) Fill(idx []int, x, y []*tensor.Tensor) error {
	for k, i := range idx {
		copy(y[1].Slice(k, k+1).F32(), s.y.Slice(i, i+1).F32())
	}
	return s.Dataset.Fill(idx, x, y[:1])
}

// What a teacher has said before is worth what it says in the step; with shards too.
func TestCachedTeacher(t *testing.T) {
	ds := points(24)
	teacher := adaptable(t, optim.Adam(optim.Rate(0.05)))
	if _, err := teacher.Fit(context.Background(), ds, train.Epochs(3), train.BatchSize(8)); err != nil {
		t.Fatal(err)
	}
	y, err := teacher.Predict(context.Background(), ds, 8)
	if err != nil {
		t.Fatal(err)
	}
	for _, shards := range []int{0, 2} {
		var got [2][]float32
		for i, k := range []train.Teacher{{Model: teacher, Temperature: 3, Weight: 0.8}, {Cached: true, Temperature: 3, Weight: 0.8}} {
			opts := []train.Option{train.Distil(k), train.Seed(7)}
			if shards > 0 {
				opts = append(opts, train.Across(train.Parallel{Shards: shards}))
			}
			m := adaptable(t, optim.SGD(0, false, optim.Rate(0.1)), opts...)
			from := ds
			if k.Cached {
				from = spoken{ds, y}
			}
			if _, err := m.Fit(context.Background(), from, train.Epochs(2), train.BatchSize(8), train.Validate(ds)); err != nil {
				t.Fatal(err)
			}
			got[i] = value(t, m, "head/kernel")
		}
		for i, v := range got[0] {
			if math.Abs(float64(v-got[1][i])) > 1e-5 {
				t.Fatalf("%d shards: with a teacher in the step %v, with what it has said %v", shards, got[0], got[1])
			}
		}
	}
	m := adaptable(t, optim.Adam(), train.Distil(train.Teacher{Cached: true, Temperature: 3, Weight: 0.8}))
	if _, err := m.Fit(context.Background(), ds); err == nil || !strings.Contains(err.Error(), "what the teacher has said") {
		t.Errorf("error %v", err)
	}
	for want, k := range map[string]train.Teacher{
		"one of the three":       {Model: teacher, Cached: true, Temperature: 1, Weight: 1},
		"the teacher is missing": {Temperature: 1, Weight: 1},
		"hints need the layers":  {Self: true, Temperature: 1, Weight: 1, Hints: []train.Hint{{Layer: "body", Weight: 1}}},
	} {
		if _, err := train.Compile(teacher.Net, ds.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Distil(k)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
