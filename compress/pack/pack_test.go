package pack

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/compress/prune"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/mnist"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

func trained(tb testing.TB, n int) (*train.Model, *data.Set) {
	set, err := mnist.Load()
	if err != nil {
		tb.Fatal(err)
	}
	small := *set
	small.Train, small.Test = data.Take(set.Train, n), data.Take(set.Test, 500)
	m, err := train.Compile(nn.Sequential(nn.Conv2D(8, 3, nn.ReLU), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(32, nn.ReLU), nn.Dense(10, nn.Softmax)), set.Spec(), optim.Adam(optim.Rate(0.003)), train.SparseCategoricalCrossentropy, train.Accuracy)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := m.Fit(context.Background(), small.Train, train.Epochs(2)); err != nil {
		tb.Fatal(err)
	}
	return m, &small
}

func accuracy(t *testing.T, m *train.Model, ds data.Dataset) float64 {
	t.Helper()
	logs, err := m.Evaluate(context.Background(), ds, 100)
	if err != nil {
		t.Fatal(err)
	}
	return logs[1].Value
}

// All steps together make a model of bytes that nearly does as well and takes a fraction of the room, also read again from its file; each step alone works too.
func TestPack(t *testing.T) {
	m, set := trained(t, 4000)
	before := accuracy(t, m, set.Test)
	_, plain, err := m.PackedSize()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := m.PlainSize(); n != plain {
		t.Errorf("%d bytes without packing, and %d: %v", n, plain, err)
	}
	l := energy.NewLedger(energy.CPU, m.Cores())
	for _, c := range []struct {
		o     Options
		times int64
	}{{Options{Sparsity: 0.9, Values: 15, Int8: true, Teacher: &train.Teacher{Model: m, Temperature: 2, Weight: 0.5}}, 20}, {Options{Sparsity: 0.9}, 5}, {Options{Values: 15}, 6}, {Options{Int8: true}, 3}, {Options{Pattern: prune.Block, Sparsity: 0.75, Sparse: true, Rows: 32}, 3}} {
		q, err := Pack(context.Background(), m, set.Train, c.o, l)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "packed.safetensors")
		if err := q.SavePacked(path); err != nil {
			t.Fatal(err)
		}
		size, _, err := q.PackedSize()
		if err != nil {
			t.Fatal(err)
		}
		again, err := train.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		a := accuracy(t, again, set.Test)
		t.Logf("%+v: %d of %d bytes, accuracy %g, was %g", c.o, size, plain, a, before)
		if size*c.times > plain || a < before-0.04 && c.o.Pattern == "" || a < before-0.12 { // blocks need longer to learn again
			t.Errorf("%+v: %d of %d bytes, accuracy %g, was %g", c.o, size, plain, a, before)
		}
		if a != accuracy(t, q, set.Test) {
			t.Errorf("the file has another accuracy than the model")
		}
	}
	if l.Joules.Value <= 0 {
		t.Error("learning was not booked")
	}
	if now := accuracy(t, m, set.Test); now != before {
		t.Error("the model itself has changed")
	}
}

func TestMistakes(t *testing.T) {
	for want, o := range map[string]Options{"sparsity": {Sparsity: 1}, "shared values": {Values: -1}, "both must be": {Epochs: -1}, "do not go with bytes": {Sparse: true, Int8: true}, "unknown pattern": {Pattern: "x"}} {
		if _, err := Pack(context.Background(), nil, nil, o, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
}

// A model in a fraction of its bytes.
func Example() {
	m, set := trained(&testing.T{}, 2000)
	small, err := Pack(context.Background(), m, set.Train, Options{Sparsity: 0.8, Values: 15, Int8: true}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, plain, err := m.PackedSize()
	if err != nil {
		fmt.Println(err)
		return
	}
	packed, _, err := small.PackedSize()
	fmt.Println(packed*12 < plain, err, slices.ContainsFunc(small.Net.Layers(), func(l *nn.Layer) bool { return l.Class() == "QuantizedDense" }))
	// Output: true <nil> true
}
