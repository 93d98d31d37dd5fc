package spec_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

const split = `data: {name: x, take: 4, test: 3}
model: [Flatten, Dense: {units: 2, activation: softmax}]
compile: {optimizer: adam, loss: sparse_categorical_crossentropy, metrics: [accuracy]}
fit: {epochs: 9, batch_size: 4, until: {val_accuracy: 0.1}}
`

// inputs are the first values of all inputs.
func inputs(t *testing.T, ds data.Dataset) []float32 {
	t.Helper()
	var out []float32
	err := data.Each(ds, 1, func(_ int, x, _ []*tensor.Tensor) error {
		out = append(out, x[0].F32()[1])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A specification may use some examples of either part, the first or some at random, and end where a value is reached.
func TestSplitAndUntil(t *testing.T) {
	set := pictures(t, 40)
	ready := func(text string) *data.Set {
		t.Helper()
		s, err := spec.Parse([]byte(text), "a.yaml")
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Ready(set)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first, mixed := ready(split), ready(strings.Replace(split, "test: 3", "test: 3, shuffle: 0", 1))
	for _, d := range []*data.Set{first, mixed} {
		if d.Train.Len() != 4 || d.Test.Len() != 3 {
			t.Errorf("%d and %d examples", d.Train.Len(), d.Test.Len())
		}
	}
	all := inputs(t, set.Train)
	for i, v := range inputs(t, first.Test) {
		if v != all[i] {
			t.Errorf("example %d of the first is another", i)
		}
	}
	other := 0
	for i, v := range inputs(t, mixed.Train) {
		if v != all[i] {
			other++
		}
	}
	if other == 0 {
		t.Error("shuffle gives the first examples")
	}
	if d := ready(strings.Replace(split, "take: 4, test: 3", "test: 99", 1)); d.Train.Len() != 40 || d.Test.Len() != 40 {
		t.Errorf("%d and %d examples, where there are no more", d.Train.Len(), d.Test.Len())
	}

	fit := func(text string) (*train.History, error) {
		t.Helper()
		s, err := spec.Parse([]byte(text), "a.yaml")
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.Compile(set.Train.Spec(), 1, train.Threads(1))
		if err != nil {
			t.Fatal(err)
		}
		return m.Fit(context.Background(), set.Train, train.Epochs(s.Fit.Epochs), train.Validate(set.Test), train.Callbacks(s.Fit.Callbacks...))
	}
	h, err := fit(split)
	if err != nil || len(h.Epochs) != 1 || !strings.Contains(h.Stopped, "val_accuracy has reached") {
		t.Errorf("%+v, %v: it should end after an epoch", h, err)
	}
	if h, err = fit(strings.Replace(split, "val_accuracy: 0.1", "val_accuracy: 2, loss: 0.0000001", 1)); err != nil || len(h.Epochs) != 9 || h.Stopped != "" {
		t.Errorf("%+v, %v: it should not end early", h, err)
	}
	if _, err = fit(strings.Replace(split, "val_accuracy", "val_acc", 1)); err == nil || !strings.Contains(err.Error(), `no value "val_acc" to watch; there are loss, accuracy, val_loss, val_accuracy`) {
		t.Errorf("a value that is not there: %v", err)
	}
	for text, want := range map[string]string{
		strings.Replace(split, "take: 4", "take: -4", 1):                             "a.yaml:1: data: take and test are numbers of examples",
		strings.Replace(split, "take: 4, test: 3", "shuffle: 3", 1):                  "a.yaml:1: data: shuffle chooses examples at random: take or test says how many",
		strings.Replace(split, "test: 3", "shuffle: x", 1):                           "a.yaml:1: data: shuffle: want a value like",
		strings.Replace(split, "until: {val_accuracy: 0.1}", "until: {}", 1):         "a.yaml:4: fit: until says at which values",
		strings.Replace(split, "until: {val_accuracy: 0.1}", "until: 3", 1):          "a.yaml:4: until must be a mapping",
		strings.Replace(split, "until: {val_accuracy: 0.1}", "until: {loss: no}", 1): "a.yaml:4: until: loss: want a value like 0.001",
	} {
		if _, err := spec.Parse([]byte(text), "a.yaml"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}
