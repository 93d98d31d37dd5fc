package train_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/text"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

const verse = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs; how vexingly quick daft zebras jump; " +
	"sphinx of black quartz, judge my vow; the five boxing wizards jump quickly; jackdaws love my big sphinx of quartz, and waltz, bad nymph, for quick jigs vex. "

// reader is a small language model of the characters of verse whose states are carried, or not.
func reader(t *testing.T, length int, stateful bool) (*train.Model, *data.Set) {
	t.Helper()
	set, err := text.Chars("verse", strings.Repeat(verse, 2), text.Config{Length: length})
	if err != nil {
		t.Fatal(err)
	}
	opts := []nn.Option{nn.ReturnSequences()}
	if stateful {
		opts = append(opts, nn.Stateful())
	}
	net := nn.Sequential(nn.Embedding(set.Spec().Classes, 8), nn.LSTM(12, opts...), nn.GRU(10, opts...), nn.Dense(set.Spec().Classes, nn.Softmax))
	m, err := train.Compile(net, set.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.BitsPerToken, train.Seed(3), train.Threads(2))
	if err != nil {
		t.Fatal(err)
	}
	return m, set
}

func state(t *testing.T, to, from *train.Model) {
	t.Helper()
	for _, p := range to.Params() {
		x, err := from.State().Get(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		if err := to.State().Set(p.Name, x); err != nil {
			t.Fatal(err)
		}
	}
}

// A sequence read piece by piece by a stateful model has the predictions that it has as a whole.
func TestStatesAreCarriedFromBatchToBatch(t *testing.T) {
	const length, pieces = 6, 4
	whole, set := reader(t, length*pieces, false)
	m, _ := reader(t, length, true)
	state(t, m, whole)
	x, y := set.Spec().Tensors(2)
	if err := set.Train.Fill([]int{3, 7}, x, y); err != nil {
		t.Fatal(err)
	}
	want, err := whole.PredictBatch(x[0])
	if err != nil {
		t.Fatal(err)
	}
	classes := set.Spec().Classes
	for range 2 { // after ResetStates once more
		for p := range pieces {
			part := tensor.Of(append(append([]int32{}, x[0].I32()[p*length:(p+1)*length]...), x[0].I32()[(pieces+p)*length:(pieces+p+1)*length]...), 2, length)
			got, err := m.PredictBatch(part)
			if err != nil {
				t.Fatal(err)
			}
			for row := range 2 {
				for i := range length * classes {
					a, b := got.At(row*length*classes+i), want.At((row*pieces+p)*length*classes+i)
					if math.Abs(a-b) > 2e-6 {
						t.Fatalf("row %d, piece %d, value %d: %g, of the whole sequence %g", row, p, i, a, b)
					}
				}
			}
		}
		if err := m.ResetStates(); err != nil {
			t.Fatal(err)
		}
	}
}

// Fit is the loop that truncated backpropagation through time says: streams side by side, states that go on, zeros at the beginning of each epoch. An evaluation between steps changes nothing.
func TestFitOfStatefulModels(t *testing.T) {
	const batch, epochs = 5, 2
	m, set := reader(t, 7, true)
	h, err := m.Fit(context.Background(), set.Train, train.Epochs(epochs), train.BatchSize(batch), train.Validate(set.Test))
	if err != nil {
		t.Fatal(err)
	}
	steps := set.Train.Len() / batch
	if h.Steps != int64(epochs*steps) {
		t.Fatalf("%d steps, %d examples in %d streams have %d", h.Steps, set.Train.Len(), batch, epochs*steps)
	}
	own, _ := reader(t, 7, true)
	x, y := set.Spec().Tensors(batch)
	for range epochs {
		if err := own.ResetStates(); err != nil {
			t.Fatal(err)
		}
		for s := range steps {
			var idx []int
			for r := range batch {
				idx = append(idx, r*steps+s)
			}
			if err := set.Train.Fill(idx, x, y); err != nil {
				t.Fatal(err)
			}
			if _, err := own.Step(x, y, 1e-3); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, p := range m.Params() {
		a, _ := m.State().Get(p.Name)
		b, _ := own.State().Get(p.Name)
		if string(a.Bytes()) != string(b.Bytes()) {
			t.Errorf("%s differs from that of the loop by hand", p.Name)
		}
	}
	// Without the states the training goes another way.
	free, _ := reader(t, 7, false)
	if _, err := free.Fit(context.Background(), set.Train, train.Epochs(epochs), train.BatchSize(batch), train.InOrder()); err != nil {
		t.Fatal(err)
	}
	a, _ := m.State().Get("lstm/kernel")
	if b, _ := free.State().Get("lstm/kernel"); string(a.Bytes()) == string(b.Bytes()) {
		t.Error("carried states make no difference")
	}
}

// Predictions stand at their examples' places, with the state of all examples before them of the same stream; what does not fill the streams follows the last.
func TestPredictOfStatefulModels(t *testing.T) {
	m, set := reader(t, 9, true)
	n := set.Train.Len()
	const batch = 4
	if n%batch == 0 {
		t.Fatalf("%d examples leave nothing over", n)
	}
	got, err := m.Predict(context.Background(), set.Train, batch)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ResetStates(); err != nil {
		t.Fatal(err)
	}
	steps := n / batch
	x, y := set.Spec().Tensors(1)
	loss := 0.0
	for i := range n {
		if i%steps == 0 && i < batch*steps { // a stream begins
			if err := m.ResetStates(); err != nil {
				t.Fatal(err)
			}
		}
		if err := set.Train.Fill([]int{i}, x, y); err != nil {
			t.Fatal(err)
		}
		p, err := m.PredictBatch(x[0])
		if err != nil {
			t.Fatal(err)
		}
		classes := set.Spec().Classes
		for k := range p.Len() {
			if a, b := got.At(i*p.Len()+k), p.At(k); math.Abs(a-b) > 2e-6 {
				t.Fatalf("example %d, value %d: %g, one by one %g", i, k, a, b)
			}
		}
		for k, c := range y[0].I32() {
			loss -= math.Log(p.At(k*classes + int(c)))
		}
	}
	logs, err := m.Evaluate(context.Background(), set.Train, batch)
	if err != nil {
		t.Fatal(err)
	}
	if want := loss / float64(n*9); math.Abs(logs[0].Value-want) > 1e-5*want {
		t.Errorf("loss %g, one by one %g", logs[0].Value, want)
	}
}

// A stateful training that is stopped within an epoch and goes on from its checkpoint ends with the same bits, carried states included.
func TestResumeOfStatefulModels(t *testing.T) {
	opts := func(dir string, more ...train.Callback) []train.FitOption {
		return []train.FitOption{train.Epochs(3), train.BatchSize(5), train.Callbacks(append([]train.Callback{&train.Checkpoints{Dir: dir, Every: time.Nanosecond}}, more...)...)}
	}
	whole, set := reader(t, 7, true)
	want, err := whole.Fit(context.Background(), set.Train, append(opts(t.TempDir()), train.Validate(set.Test))...)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []int64{1, 10, 29} {
		dir := t.TempDir()
		a, _ := reader(t, 7, true)
		ctx, cancel := context.WithCancel(context.Background())
		if _, err := a.Fit(ctx, set.Train, append(opts(dir, &stopAt{step: step, cancel: cancel}), train.Validate(set.Test))...); !errors.Is(err, train.ErrInterrupted) {
			t.Fatalf("step %d: error %v", step, err)
		}
		found, err := checkpoint.Latest(dir)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := reader(t, 7, true)
		p, err := b.Restore(found.State)
		if err != nil {
			t.Fatal(err)
		}
		if p.Steps != step {
			t.Fatalf("the checkpoint is of step %d, not %d", p.Steps, step)
		}
		got, err := b.Fit(context.Background(), set.Train, append(opts(dir), train.Validate(set.Test), train.From(p))...)
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, v := range whole.State().Vars() {
			x, _ := whole.State().Get(v.Name)
			y, err := b.State().Get(v.Name)
			if err != nil {
				t.Fatal(err)
			}
			if w, ok := nn.Carried(v.Name); ok && strings.HasPrefix(w, "train") {
				seen++
			}
			if string(x.Bytes()) != string(y.Bytes()) {
				t.Errorf("stopped after step %d: %s has other bits", step, v.Name)
			}
		}
		if seen != 3 { // state and cell of the LSTM, state of the GRU
			t.Errorf("%d carried states", seen)
		}
		for i, e := range want.Epochs {
			for k, l := range e.Logs {
				if got.Epochs[i].Logs[k] != l {
					t.Errorf("stopped after step %d: epoch %d: %v, want %v", step, i+1, got.Epochs[i].Logs[k], l)
				}
			}
		}
	}
}
