package search

import (
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/mnist"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

func model(t *testing.T, examples int, layers ...*nn.Layer) (*train.Model, *data.Set) {
	t.Helper()
	set, err := mnist.Load()
	if err != nil {
		t.Fatal(err)
	}
	small := *set
	small.Train, small.Test = data.Take(set.Train, 3000), data.Take(set.Test, 500)
	m, err := train.Compile(nn.Sequential(layers...), set.Spec(), optim.Adam(optim.Rate(0.003)), train.SparseCategoricalCrossentropy, train.Accuracy)
	if err != nil {
		t.Fatal(err)
	}
	if examples > 0 {
		if _, err := m.Fit(context.Background(), data.Take(set.Train, examples), train.Epochs(1)); err != nil {
			t.Fatal(err)
		}
	}
	return m, &small
}

// keeper keeps candidates in memory.
type keeper struct {
	c map[string]*Candidate
	m map[string]*train.Model
	n int // kept now
}

func (k *keeper) Kept(round int, format string) (*Candidate, *train.Model, error) {
	for name, c := range k.c {
		if c.Round == round && c.Format == format {
			d := *c
			return &d, k.m[name], nil
		}
	}
	return nil, nil, nil
}

func (k *keeper) Keep(c *Candidate, m *train.Model, l *energy.Ledger) error {
	if l.Joules.Value <= 0 {
		return context.DeadlineExceeded
	}
	d := *c
	k.c[c.Name], k.m[c.Name] = &d, m
	k.n++
	return nil
}

// The search finds a cheaper model within the drop, says when it has paid for itself, and goes on from what was kept.
func TestRun(t *testing.T) {
	m, set := model(t, 6400, nn.Flatten(), nn.Dense(96, nn.ReLU), nn.Dense(64, nn.ReLU), nn.Dense(10, nn.Softmax))
	k := &keeper{c: map[string]*Candidate{}, m: map[string]*train.Model{}}
	o := Options{Target: Bytes, MaxDrop: 0.03, Epochs: 1, Rounds: 2}
	r, err := Run(context.Background(), m, set, o, k, nil)
	if err != nil {
		t.Fatal(err)
	}
	best := r.Find(r.Best)
	if best == nil || best.Disk*4 > r.Original.Disk || best.Drop > 0.03 || !best.Front {
		t.Fatalf("best: %+v of %+v", best, r.Original)
	}
	if r.Spent <= 0 || len(r.Candidates) < 3 || k.n != len(r.Candidates) {
		t.Errorf("%d candidates, %d kept, %g J", len(r.Candidates), k.n, r.Spent)
	}
	for _, c := range r.Candidates { // a round takes some, not all
		for name, n := range c.Widths {
			if full := map[string]int{"dense": 96, "dense_1": 64}[name]; n*(1<<c.Round) < full {
				t.Errorf("%s leaves %d of the %d outputs of %s", c.Name, n, full, name)
			}
		}
	}
	delete(k.c, r.Candidates[len(r.Candidates)-1].Name)
	k.n = 0
	again, err := Run(context.Background(), m, set, o, k, nil)
	if err != nil {
		t.Fatal(err)
	}
	if k.n != 1 || len(again.Candidates) != len(r.Candidates) {
		t.Errorf("going on made %d candidates anew and has %d, was %d", k.n, len(again.Candidates), len(r.Candidates))
	}
	if len(r.Narrowed) != 2 || !maps.Equal(again.Narrowed, r.Narrowed) {
		t.Errorf("how sensitive layers are to losing units: %v, and after going on %v", r.Narrowed, again.Narrowed)
	}
	if r.Held != 600 || r.Doubt() != "" {
		t.Errorf("compared on %d examples: %q", r.Held, r.Doubt())
	}
	few := Result{Held: 50, MaxDrop: 0.005}
	if !strings.Contains(few.Doubt(), "50 examples") {
		t.Errorf("50 examples for a drop of 0.005: %q", few.Doubt())
	}
	// A budget ends it at once; a drop that is impossible leaves no best, but the closest.
	r, err = Run(context.Background(), m, set, Options{Target: Joules, MaxDrop: 0.03, Budget: 1e-9, Epochs: 1}, Memory{}, nil)
	if err != nil || r.Stopped != "the budget is spent" || len(r.Candidates) != 1 {
		t.Errorf("%v: %+v", err, r)
	}
	// What is slower as bytes stays in floats, where time counts.
	for target, want := range map[Target]string{Latency: "Dense", Parameters: "QuantizedDense"} {
		slow := &keeper{c: map[string]*Candidate{}, m: map[string]*train.Model{}}
		o := Options{Target: target, MaxDrop: 0.03, Budget: 1e-9, Epochs: 1, Timer: slowBytes("dense_1")}
		if _, err := Run(context.Background(), m, set, o, slow, nil); err != nil {
			t.Fatal(err)
		}
		for name, q := range slow.m {
			saved, err := q.Net.Saved()
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range saved.Layers {
				if l.Name == "dense_1" && l.Class != want {
					t.Errorf("by %s, %s: dense_1 is a %s, want %s", target, name, l.Class, want)
				}
			}
		}
		if len(slow.m) != 1 {
			t.Errorf("by %s: %d candidates", target, len(slow.m))
		}
	}
	// Weights that cannot be rounded without harm: the first layer's tell a digit by differences of a thousandth of their size.
	w, err := m.State().Get("dense_1/kernel")
	if err != nil {
		t.Fatal(err)
	}
	spoil(w)
	if err := m.State().Set("dense_1/kernel", w); err != nil {
		t.Fatal(err)
	}
	r, err = Run(context.Background(), m, set, Options{Target: Bytes, MaxDrop: 0, Epochs: 1, Budget: 1e-9}, Memory{}, nil)
	if err != nil || r.Best != "" || r.Closest() == nil {
		t.Errorf("%v: best %q, closest %v", err, r.Best, r.Closest())
	}
}

// slowBytes is a timer for which a model takes as long as it has layers of floats, but for the named one, which takes a hundred times as long as bytes.
func slowBytes(layer string) quant.Timer {
	return func(_ context.Context, models ...*train.Model) ([][]float64, error) {
		var out [][]float64
		for _, m := range models {
			saved, err := m.Net.Saved()
			if err != nil {
				return nil, err
			}
			took := 1.0
			for _, l := range saved.Layers {
				switch bytes := strings.HasPrefix(l.Class, "Quantized"); {
				case bytes && l.Name == layer:
					took += 100
				case !bytes:
					took++
				}
			}
			out = append(out, []float64{took})
		}
		return out, nil
	}
}

// What parts of a layer take is the layer's: a search that looked at whole layers alone would think that Transformer blocks cost nothing.
func TestMeasureBlocks(t *testing.T) {
	set, err := mnist.Load()
	if err != nil {
		t.Fatal(err)
	}
	net := nn.Sequential(nn.Reshape(28, 28), nn.TransformerBlock(4), nn.Flatten(), nn.Dense(10, nn.Softmax))
	m, err := train.Compile(net, set.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Accuracy)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := Measure(context.Background(), m, data.Take(set.Test, 64))
	if err != nil {
		t.Fatal(err)
	}
	for what, by := range map[string]map[string]float64{"joules": got.Layers, "seconds": got.Seconds} {
		total := 0.0
		for _, v := range by {
			total += v
		}
		if by["transformer_block"] < total/2 {
			t.Errorf("%s: the block takes %g of %g: %v", what, by["transformer_block"], total, by)
		}
	}
}

// By joules a convolution loses the pooling behind it where the two take most of them, or a layer its units where that does; by parameters, which strides do not save, units go whatever takes the joules.
func TestChoose(t *testing.T) {
	m, set := model(t, 3200, nn.Conv2D(16, 3, nn.ReLU), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(16, nn.ReLU), nn.Dense(10, nn.Softmax))
	for _, c := range []struct {
		target  Target
		joules  map[string]float64
		strided bool
	}{
		{Joules, map[string]float64{"conv2d": 9e-6, "max_pooling2d": 3e-5, "dense": 8e-6}, true},
		{Joules, map[string]float64{"conv2d": 1e-7, "max_pooling2d": 1e-7, "dense": 8e-6}, false},
		{Parameters, map[string]float64{"conv2d": 9e-6, "max_pooling2d": 3e-5, "dense": 8e-6}, false},
	} {
		o := Options{Target: c.target, Epochs: 1}
		if err := o.check(); err != nil {
			t.Fatal(err)
		}
		s := &search{Options: o, m: m, current: m, currentMeasures: Measures{Layers: c.joules}, learn: set.Train, held: set.Test, round: 2}
		if err := s.ask(context.Background()); err != nil || s.teacher == nil {
			t.Fatal(err, s.teacher)
		}
		gone, err := s.choose(context.Background(), energy.NewLedger(energy.CPU, 1))
		if err != nil {
			t.Fatal(err)
		}
		if strided := slices.Equal(gone.pooled, []string{"conv2d"}); strided != c.strided || strided != (len(gone.widths) == 0) {
			t.Errorf("%s, %v: strides of %v, widths %v", c.target, c.joules, gone.pooled, gone.widths)
		}
	}
}

// A search for another target than bytes packs the narrowest that it has found, compares on the examples it is given, and asks the teacher once. Measured again, what was found stays, and the best follows what was measured.
func TestPack(t *testing.T) {
	m, set := model(t, 3200, nn.Flatten(), nn.Dense(64, nn.ReLU), nn.Dense(10, nn.Softmax))
	k := &keeper{c: map[string]*Candidate{}, m: map[string]*train.Model{}}
	o := Options{Target: Parameters, MaxDrop: 0.5, Epochs: 1, Rounds: 1, Pack: true, Held: set.Test, Cache: t.TempDir()}
	r, err := Run(context.Background(), m, set, o, k, nil)
	if err != nil {
		t.Fatal(err)
	}
	best := r.Find(r.Best)
	if best == nil || best.Format != "packed int8" || best.Round != 1 || r.Find("round 0 packed f32") != nil {
		t.Fatalf("best %+v", best)
	}
	if files, err := os.ReadDir(o.Cache); err != nil || len(files) != 1 {
		t.Errorf("%v: %d files of what the teacher says", err, len(files))
	}
	drop, disk, spent := best.Drop, best.Disk, r.Spent
	load := func(c *Candidate) (*train.Model, error) { return k.m[c.Name], nil }
	if err := r.Again(context.Background(), m, set.Test, true, load); err != nil || r.Find(r.Best) != best || best.Drop != drop || best.Disk != disk || r.Spent <= spent {
		t.Errorf("%v: best %q, drop %g was %g", err, r.Best, best.Drop, drop)
	}
	load = func(c *Candidate) (*train.Model, error) { return m, nil } // what has as many parameters as the original is no gain
	if err := r.Again(context.Background(), m, set.Test, false, load); err != nil || r.Best != "" || r.BreakEven != 0 {
		t.Errorf("%v: best %q", err, r.Best)
	}
}

// spoil gives each unit a weight of an input that is as great as all others are not.
func spoil(w *tensor.Tensor) {
	n := w.Shape()[1]
	for i := range w.F32() {
		if i/n == 0 {
			w.F32()[i] = 300 * float32(1+i%3)
		}
	}
}

func TestMistakes(t *testing.T) {
	m, set := model(t, 0, nn.Flatten(), nn.Dense(10, nn.Softmax))
	for want, o := range map[string]Options{
		"unknown target": {Target: "watts"}, "a drop": {Target: Joules, MaxDrop: 2}, "a budget": {Target: Joules, Budget: -1}, "at least 1": {Target: Joules, Epochs: -1},
	} {
		if _, err := Run(context.Background(), m, set, o, Memory{}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
	set.Train = data.Take(set.Train, 5)
	if _, err := Run(context.Background(), m, set, Options{Target: Joules}, Memory{}, nil); err == nil || !strings.Contains(err.Error(), "too few") {
		t.Errorf("%v", err)
	}
}

// Models learn from changed examples, and are compared on those held out as they are; what the original would have said once about each is asked in each step.
func TestAugment(t *testing.T) {
	m, set := model(t, 1200, nn.Flatten(), nn.Dense(16, nn.ReLU), nn.Dense(10, nn.Softmax))
	changed := 0
	o := Options{Target: Bytes, MaxDrop: 0.5, Epochs: 1, Rounds: 1}
	plain, err := Run(context.Background(), m, set, o, Memory{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o.Cache, o.Mixup = t.TempDir(), 0.2
	o.Augment = []data.Transform{func(data.Spec) (data.Apply, error) {
		return func(_ *rand.Rand, x, _ []*tensor.Tensor, row int) {
			changed++
			clear(x[0].Slice(row, row+1).F32())
		}, nil
	}}
	blind, err := Run(context.Background(), m, set, o, Memory{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if changed < 3*960 { // narrowing, pruning and sharing
		t.Errorf("%d examples were changed", changed)
	}
	if blind.Original.Quality != plain.Original.Quality {
		t.Errorf("the original is judged by changed examples: %v, without changes %v", blind.Original.Quality, plain.Original.Quality)
	}
	narrow, seeing := blind.Find("round 1 f32"), plain.Find("round 1 f32")
	if narrow == nil || seeing == nil || narrow.Quality.Loss == seeing.Quality.Loss {
		t.Errorf("the narrower model learned nothing else from blank pictures: %+v, %+v", narrow, seeing)
	}
}

// Great numbers of predictions are said in words.
func TestPredictions(t *testing.T) {
	for n, want := range map[float64]string{0.2: "1 predictions", 812: "812 predictions", 2600: "2.6 thousand predictions", 1.631e6: "1.63 million predictions", 2.98e9: "2.98 billion predictions", 4e12: "4 trillion predictions"} {
		if got := (&Result{BreakEven: n}).Predictions(); got != want {
			t.Errorf("%v: %q, not %q", n, got, want)
		}
	}
}
