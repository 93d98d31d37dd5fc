package train_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/mnist"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

func small() *nn.Model {
	return nn.Sequential(nn.Conv2D(4, 3, nn.ReLU), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(10, nn.Softmax))
}

func load(t testing.TB, n int) (tr, te data.Dataset) {
	t.Helper()
	s, err := mnist.Load()
	if err != nil {
		t.Fatal(err)
	}
	return head{s.Train, n}, head{s.Test, n / 4}
}

// head is the first n examples.
type head struct {
	data.Dataset
	n int
}

func (h head) Len() int { return h.n }

func compile(t testing.TB, opts ...train.Option) *train.Model {
	t.Helper()
	tr, _ := load(t, 4)
	m, err := train.Compile(small(), tr.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, append(opts, train.Accuracy)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// bits is all of a model's variables, as text.
func bits(t testing.TB, m *train.Model) string {
	t.Helper()
	var b strings.Builder
	for _, v := range m.State().Vars() {
		x, err := m.State().Get(v.Name)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(v.Name)
		b.Write(x.Bytes())
	}
	return b.String()
}

func TestFitLearnsDigits(t *testing.T) {
	tr, te := load(t, 4000)
	m := compile(t)
	h, err := m.Fit(context.Background(), tr, train.Epochs(3), train.BatchSize(32), train.Validate(te))
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := h.Epochs[2].Log("val_accuracy"); len(h.Epochs) != 3 || a < 0.85 || h.Steps != 375 {
		t.Fatalf("%+v", h)
	}
	r, err := m.Evaluate(context.Background(), te, 100)
	if err != nil {
		t.Fatal(err)
	}
	// Another batch size adds up in another order: the loss may differ in the last digits, the decisions not.
	if a, _ := h.Epochs[2].Log("val_accuracy"); r[1].Value != a {
		t.Errorf("accuracy %v, in batches of 100 %v", a, r[1].Value)
	}
	p, err := m.Predict(context.Background(), te, 64)
	if err != nil || !p.Shape().Equal([]int{1000, 10}) {
		t.Fatalf("predictions %v, %v", p, err)
	}
}

// The same seed gives the same bits for any number of threads, and another seed others.
func TestSameBitsForAnyThreads(t *testing.T) {
	tr, _ := load(t, 200)
	var first string
	for i, o := range [][]train.Option{{train.Threads(1)}, {train.Threads(2)}, {train.Threads(3)}, {train.Threads(2), train.Seed(9)}} {
		m := compile(t, o...)
		if _, err := m.Fit(context.Background(), tr, train.Epochs(2), train.BatchSize(32)); err != nil {
			t.Fatal(err)
		}
		switch b := bits(t, m); {
		case i == 0:
			first = b
		case i < 3 && b != first:
			t.Errorf("%d threads give other bits than 1", i+1)
		case i == 3 && b == first:
			t.Error("another seed gives the same bits")
		}
	}
}

// stopAt keeps the progress and variables of a step and interrupts the training there.
type stopAt struct {
	train.Hooks
	step   int64
	cancel func()
	p      *train.Progress
}

func (s *stopAt) AfterStep(t *train.Training) error {
	if t.Steps != s.step {
		return nil
	}
	s.cancel()
	var err error
	s.p, err = t.Progress()
	return err
}

// A training that was stopped anywhere and goes on in a new process ends with the bits and the logs of one that was not.
func TestResumeGivesTheSameBits(t *testing.T) {
	tr, te := load(t, 200)
	opts := []train.FitOption{train.Epochs(3), train.BatchSize(32), train.Validate(te)}
	whole := compile(t)
	want, err := whole.Fit(context.Background(), tr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []int64{1, 6, 8, 13, 20} {
		a := compile(t)
		ctx, cancel := context.WithCancel(context.Background())
		s := &stopAt{step: step, cancel: cancel}
		if _, err := a.Fit(ctx, tr, append(opts, train.Callbacks(s))...); !errors.Is(err, train.ErrInterrupted) {
			t.Fatalf("step %d: error %v", step, err)
		}
		b := compile(t, train.Seed(77)) // whatever it had is replaced
		for _, v := range a.State().Vars() {
			x, _ := a.State().Get(v.Name)
			if err := b.State().Set(v.Name, x); err != nil {
				t.Fatal(err)
			}
		}
		b2 := compile(t) // the order of the data follows from the seed of the run
		copyState(t, b2, b)
		got, err := b2.Fit(context.Background(), tr, append(opts, train.From(s.p))...)
		if err != nil {
			t.Fatal(err)
		}
		if bits(t, b2) != bits(t, whole) {
			t.Errorf("stopped after step %d: other bits", step)
		}
		for i, e := range want.Epochs {
			for j, l := range e.Logs {
				if got.Epochs[i].Logs[j] != l {
					t.Errorf("stopped after step %d: epoch %d has %v, want %v", step, i+1, got.Epochs[i].Logs[j], l)
				}
			}
		}
	}
}

func copyState(t *testing.T, to, from *train.Model) {
	t.Helper()
	for _, v := range from.State().Vars() {
		x, _ := from.State().Get(v.Name)
		if err := to.State().Set(v.Name, x); err != nil {
			t.Fatal(err)
		}
	}
}

// n accumulated batches of b examples are one batch of n·b.
func TestAccumulate(t *testing.T) {
	tr, _ := load(t, 128)
	a := compile(t, train.Accumulate(4))
	if _, err := a.Fit(context.Background(), tr, train.BatchSize(16), train.InOrder()); err != nil {
		t.Fatal(err)
	}
	b := compile(t)
	if _, err := b.Fit(context.Background(), tr, train.BatchSize(64), train.InOrder()); err != nil {
		t.Fatal(err)
	}
	for _, p := range b.Params() {
		x, _ := a.State().Get(p.Name)
		y, _ := b.State().Get(p.Name)
		for i := range x.Len() {
			if d := math.Abs(x.At(i) - y.At(i)); d > 1e-4 {
				t.Fatalf("%s[%d]: %g against %g", p.Name, i, x.At(i), y.At(i))
			}
		}
	}
}

// A loss that is no number names the layer and the line that made it, and leaves the model as it was.
func TestDivergenceNamesTheLayer(t *testing.T) {
	tr, _ := load(t, 320)
	m := compile(t)
	for range 3 {
		w, _ := m.State().Get("dense/kernel")
		w.Set(5, math.Inf(1))
		if err := m.State().Set("dense/kernel", w); err != nil {
			t.Fatal(err)
		}
	}
	_, err := m.Fit(context.Background(), tr, train.BatchSize(32))
	if err == nil || !strings.Contains(err.Error(), "layer dense") || !strings.Contains(err.Error(), "fit_test.go") {
		t.Fatalf("error %v", err)
	}
}

func TestBadShapesNameTheLayer(t *testing.T) {
	tr, _ := load(t, 4)
	net := nn.Sequential(nn.Flatten(), nn.Conv2D(8, 3), nn.Dense(10))
	_, err := train.Compile(net, tr.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy)
	var g *graph.Error
	if !errors.As(err, &g) || !strings.Contains(err.Error(), "conv2d") || !strings.Contains(err.Error(), "[1 784]") || !strings.Contains(err.Error(), "fit_test.go") {
		t.Fatalf("error %v", err)
	}
	_, err = train.Compile(small(), tr.Spec(), optim.Adam(), train.MeanSquaredError)
	if err == nil || !strings.Contains(err.Error(), "mean_squared_error") {
		t.Fatalf("error %v", err)
	}
}

// rates notes the rate of each step.
type rates struct {
	train.Hooks
	seen []float64
}

func (r *rates) AfterStep(t *train.Training) error {
	r.seen = append(r.seen, t.Rate)
	return nil
}

// Anneal lowers the rate along half a cosine, over all epochs or so many steps, on top of the schedule.
func TestAnneal(t *testing.T) {
	for _, c := range []struct {
		anneal train.Anneal
		steps  int // that the rate falls over; 24 are done
		to     float64
	}{{train.Anneal{}, 24, 0.01}, {train.Anneal{Steps: 16, To: 0.5}, 16, 0.5}} {
		m := adaptable(t, optim.SGD(0, false, optim.Rate(0.2)))
		var r rates
		if _, err := m.Fit(context.Background(), points(256), train.Epochs(3), train.BatchSize(32), train.Callbacks(&c.anneal, &r)); err != nil {
			t.Fatal(err)
		}
		if len(r.seen) != 24 {
			t.Fatalf("%d steps", len(r.seen))
		}
		for i, got := range r.seen {
			want := 0.2 * (c.to + (1-c.to)*(1+math.Cos(math.Pi*math.Min(1, float64(i)/float64(c.steps))))/2)
			if math.Abs(got-want) > 1e-6*want {
				t.Errorf("%+v: step %d has the rate %g, want %g", c.anneal, i, got, want)
			}
		}
	}
}
