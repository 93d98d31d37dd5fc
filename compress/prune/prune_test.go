package prune

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/mnist"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

func digits(t *testing.T, n int) data.Dataset {
	t.Helper()
	set, err := mnist.Load()
	if err != nil {
		t.Fatal(err)
	}
	return data.Take(set.Train, n)
}

func model(t *testing.T, ds data.Dataset, opts ...train.Option) *train.Model {
	t.Helper()
	m, err := train.Compile(nn.Sequential(nn.Flatten(), nn.Dense(32, nn.ReLU), nn.Dense(10, nn.Softmax)), ds.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, append(opts, train.Accuracy)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func fit(t *testing.T, m *train.Model, ds data.Dataset, opts ...train.FitOption) {
	t.Helper()
	if _, err := m.Fit(context.Background(), ds, opts...); err != nil {
		t.Fatal(err)
	}
}

func accuracy(t *testing.T, m *train.Model, ds data.Dataset) float64 {
	t.Helper()
	logs, err := m.Evaluate(context.Background(), ds, 100)
	if err != nil {
		t.Fatal(err)
	}
	return logs[1].Value
}

func kernel(t *testing.T, m *train.Model, name string) *tensor.Tensor {
	t.Helper()
	w, err := m.State().Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Every method reaches its sparsity exactly, and the network has learned.
func TestMethods(t *testing.T) {
	ds := digits(t, 3200)
	type wrapper interface {
		train.Wrapper
		train.Callback
	}
	for name, p := range map[string]wrapper{
		"magnitude": &Magnitude{Sparsity: 0.7, Every: 10}, "global": &Magnitude{Sparsity: 0.7, Every: 10, Global: true},
		"movement": &Movement{Magnitude{Sparsity: 0.7, Every: 10}}, "snip": &SNIP{Magnitude: Magnitude{Sparsity: 0.7}}, "snip global": &SNIP{Magnitude: Magnitude{Sparsity: 0.7, Global: true}, Examples: 64},
		"block": &Magnitude{Sparsity: 0.75, Every: 10, Pattern: Block, Skip: []string{"dense_1"}}, "2:4": &Magnitude{Every: 10, Pattern: "2:4"},
	} {
		t.Run(name, func(t *testing.T) {
			m := model(t, ds, train.Wrapped(p))
			fit(t, m, ds, train.Epochs(2), train.Callbacks(p))
			if err := m.Merge(); err != nil {
				t.Fatal(err)
			}
			all, by, err := Sparsity(m)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]float64{"block": 0.75, "2:4": 0.5}[name]
			if want == 0 {
				want = 0.7
			}
			if name == "block" {
				all = by["dense/kernel"]
			}
			if math.Abs(all-want) > 1e-3 {
				t.Errorf("sparsity %g, want %g (%v)", all, want, by)
			}
			if a := accuracy(t, m, ds); a < 0.6 {
				t.Errorf("accuracy %g", a)
			}
		})
	}
}

// Patterns keep what they say, and the weights of most worth.
func TestPattern(t *testing.T) {
	const k, n = 12, 40
	r := rand.New(rand.NewPCG(3, 4))
	s := make([]float32, k*n)
	for i := range s {
		s[i] = r.Float32()
	}
	gone := Pattern("2:4").gone(s, k, n, 0.5)
	for j := range n {
		for at := 0; at < k; at += 4 {
			var kept, lost []float32
			for i := at; i < at+4; i++ {
				if gone[i*n+j] {
					lost = append(lost, s[i*n+j])
				} else {
					kept = append(kept, s[i*n+j])
				}
			}
			if len(kept) != 2 || slices.Max(lost) > slices.Min(kept) {
				t.Fatalf("output %d, inputs %d to %d: kept %v, lost %v", j, at, at+3, kept, lost)
			}
		}
	}
	gone = Block.gone(s, k, n, 0.75)
	for from := 0; from < n; from += blockWidth {
		kept := 0
		for i := range k {
			row := gone[i*n+from : i*n+min(n, from+blockWidth)]
			if slices.Contains(row, true) != !slices.Contains(row, false) {
				t.Fatalf("a block is gone in part")
			}
			if !row[0] {
				kept++
			}
		}
		if kept != 3 {
			t.Errorf("the panel at %d keeps %d of 12 inputs, want 3", from, kept)
		}
	}
}

// The network of a lottery has its first weights where weights are left, until it has trained.
func TestLottery(t *testing.T) {
	ds := digits(t, 1600)
	p := &Lottery{Magnitude: Magnitude{Sparsity: 0.8}, Rounds: 2, Rewind: 5}
	m := model(t, ds, train.Wrapped(p))
	fit(t, m, ds, train.MaxSteps(5))
	first := kernel(t, m, "dense/kernel")
	m = model(t, ds, train.Wrapped(p))
	seen := 0
	watch := &atBegin{f: func(m *train.Model) {
		mask, w := kernel(t, m, maskPrefix+"dense/kernel").F32(), kernel(t, m, "dense/kernel").F32()
		if seen++; seen < 3 { // the beginning itself, and the first whole training, which goes on from it
			return
		}
		zeros := 0
		for i := range w {
			if mask[i] == 0 {
				zeros++
			}
			if w[i] != first.F32()[i] {
				t.Fatalf("training %d begins with weight %d at %g, not %g", seen, i, w[i], first.F32()[i])
			}
		}
		if want := 1 - math.Pow(0.2, float64(seen-2)/2); math.Abs(float64(zeros)/float64(len(w))-want) > 1e-3 {
			t.Errorf("training %d: %d of %d weights are gone, want a share of %g", seen, zeros, len(w), want)
		}
	}}
	if _, err := p.Train(context.Background(), m, ds, train.Epochs(1), train.Callbacks(watch)); err != nil {
		t.Fatal(err)
	}
	if seen != 4 {
		t.Errorf("%d trainings", seen)
	}
	if err := m.Merge(); err != nil {
		t.Fatal(err)
	}
	if all, _, err := Sparsity(m); err != nil || math.Abs(all-0.8) > 1e-3 {
		t.Errorf("sparsity %g, %v", all, err)
	}
}

type atBegin struct {
	train.Hooks
	f func(m *train.Model)
}

func (c *atBegin) Begin(t *train.Training) error { c.f(t.Model); return nil }

// Shared weights have the codebook's values, zeros stay zeros, training moves the values, and the packed file is small and predicts the same bits.
func TestShared(t *testing.T) {
	ds := digits(t, 3200)
	p := &Magnitude{Sparsity: 0.9, Every: 10}
	m := model(t, ds, train.Wrapped(p))
	fit(t, m, ds, train.Epochs(3), train.Callbacks(p))
	if err := m.Merge(); err != nil {
		t.Fatal(err)
	}
	before := accuracy(t, m, ds)
	s := &Shared{Values: 7, Skip: []string{"dense_1"}}
	shared, err := m.With(m.Net, train.Wrapped(s), train.RateFactor("codebook/*", 0.1))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range m.Params() {
		if err := shared.State().Set(v.Name, kernel(t, m, v.Name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Start(shared); err != nil {
		t.Fatal(err)
	}
	book := kernel(t, shared, bookPrefix+"dense/kernel")
	at := accuracy(t, shared, ds)
	fit(t, shared, ds, train.Epochs(1), train.Callbacks(s))
	if slices.Equal(book.F32(), kernel(t, shared, bookPrefix+"dense/kernel").F32()) {
		t.Error("training has not moved the codebook")
	}
	if err := shared.Merge(); err != nil {
		t.Fatal(err)
	}
	w, old := kernel(t, shared, "dense/kernel").F32(), kernel(t, m, "dense/kernel").F32()
	values := map[float32]bool{}
	for i := range w {
		if values[w[i]] = true; w[i] != 0 && old[i] == 0 {
			t.Fatalf("weight %d was zero and is %g", i, w[i])
		}
	}
	if len(values) > 8 {
		t.Errorf("%d values", len(values))
	}
	if a := accuracy(t, shared, ds); a < before-0.03 || at < before-0.1 {
		t.Errorf("accuracy %g, with a codebook %g, refined %g", before, at, a)
	}
	dir := t.TempDir()
	packed, plain := filepath.Join(dir, "a.safetensors"), filepath.Join(dir, "b.safetensors")
	if err := shared.SavePacked(packed); err != nil {
		t.Fatal(err)
	}
	if err := shared.Save(plain); err != nil {
		t.Fatal(err)
	}
	again, err := train.Load(packed)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(kernel(t, again, "dense/kernel").F32(), w) {
		t.Error("the packed weights are others")
	}
	a, err := os.Stat(packed)
	if err != nil {
		t.Fatal(err)
	}
	if a.Size()*20 > int64(4*shared.ParamCount()) {
		t.Errorf("%d bytes for %d parameters", a.Size(), shared.ParamCount())
	}
}

// k-means finds clusters that are plainly there, and copes with few and with no values.
func TestCluster(t *testing.T) {
	book, index := cluster([]float32{-1, 0, 3.1, 2.9, -1.1, -0.9, 0, 3}, 2)
	if !slices.Equal(index, []int32{1, 0, 2, 2, 1, 1, 0, 2}) || math.Abs(float64(book[1]+1)) > 1e-6 || math.Abs(float64(book[2]-3)) > 1e-6 {
		t.Errorf("%v %v", book, index)
	}
	if book, index = cluster(make([]float32, 4), 3); slices.Max(index) != 0 || slices.Max(book) != 0 {
		t.Errorf("zeros: %v %v", book, index)
	}
	if book, index = cluster([]float32{2, 2}, 5); book[index[0]] != 2 || book[0] != 0 {
		t.Errorf("one value: %v %v", book, index)
	}
}

func TestMistakes(t *testing.T) {
	for want, p := range map[string]interface{ Check() error }{
		"above 0 and below 1": &Magnitude{}, "in this order": &Magnitude{Sparsity: 0.5, Start: 0.9, Stop: 0.1}, "makes no sense": &Magnitude{Sparsity: 0.5, Every: -1},
		"unknown pattern": &Magnitude{Pattern: "4:2"}, "makes the sparsity 0.5": &Magnitude{Pattern: "2:4", Sparsity: 0.9}, "global does not": &Magnitude{Pattern: "2:4", Global: true},
		"1 to 4095": &Shared{Values: 5000}, "unknown pattern \"diag": &Magnitude{Pattern: "diagonal", Sparsity: 0.5},
	} {
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
	ds := digits(t, 64)
	l := &Lottery{Magnitude: Magnitude{Sparsity: 0.5}, Rounds: 1}
	if _, err := l.Train(context.Background(), model(t, ds), ds); err == nil || !strings.Contains(err.Error(), "not compiled with this lottery") {
		t.Error(err)
	}
	l.Rounds = 0
	if _, err := l.Train(context.Background(), model(t, ds, train.Wrapped(l)), ds); err == nil || !strings.Contains(err.Error(), "at least one round") {
		t.Error(err)
	}
	p := &SNIP{Magnitude: Magnitude{Sparsity: 0.5}}
	m := model(t, ds, train.Wrapped(p), train.Freeze("dense"))
	if err := p.Choose(context.Background(), m, ds); err == nil || !strings.Contains(err.Error(), "is frozen") {
		t.Error(err)
	}
	// Weights of zeros: all are of the same worth, and as many go as were asked for.
	q := &Magnitude{Sparsity: 0.5}
	m = model(t, ds, train.Wrapped(q))
	w := kernel(t, m, "dense/kernel")
	clear(w.F32())
	if err := m.State().Set("dense/kernel", w); err != nil {
		t.Fatal(err)
	}
	if err := q.Apply(m, 0.5); err != nil {
		t.Error(err)
	}
	w.F32()[w.Len()-1] = float32(math.NaN())
	if err := m.State().Set("dense/kernel", w); err != nil {
		t.Fatal(err)
	}
	if err := q.Apply(m, 0.5); err == nil || !strings.Contains(err.Error(), "not a number") {
		t.Error(err)
	}
	s := &Shared{Values: 3}
	m = model(t, ds, train.Wrapped(s))
	if err := m.State().Set("dense/kernel", w); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(m); err == nil || !strings.Contains(err.Error(), "not finite") {
		t.Error(err)
	}
}

// Matrices whose zeros follow a pattern become sparse ones that predict nearly the same, also read from a file; where products would be no faster they stay dense, and it is said why.
func TestSparse(t *testing.T) {
	ds := digits(t, 320)
	wide := func(p *Magnitude) *train.Model {
		m, err := train.Compile(nn.Sequential(nn.Flatten(), nn.Dense(1340, nn.ReLU), nn.Dense(40, nn.ReLU), nn.Dense(10, nn.Softmax)), ds.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Accuracy, train.Wrapped(p))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
		if err := p.Apply(m, p.Sparsity); err != nil {
			t.Fatal(err)
		}
		if err := m.Merge(); err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, c := range []struct {
		p    Magnitude
		rows int
		want []string
	}{{Magnitude{Pattern: Block, Sparsity: 0.75}, 32, []string{"block", "block", ""}}, {Magnitude{Pattern: "2:4"}, 1, []string{"2:4", "", ""}}} {
		m := wide(&c.p)
		s, report, err := Sparse(m, c.rows)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range report {
			if l.Format != c.want[i] || (l.Why == "") != (l.Format != "") || l.Format != "" && l.After >= l.Before {
				t.Errorf("%s: %+v", c.p.Pattern, l)
			}
		}
		path := filepath.Join(t.TempDir(), "sparse.safetensors")
		for _, save := range []func(string) error{s.Save, s.SavePacked} {
			if err := save(path); err != nil {
				t.Fatal(err)
			}
			again, err := train.Load(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range []int{1, 5, 32} {
				x, y := ds.Spec().Tensors(n)
				if err := ds.Fill(make([]int, n), x, y); err != nil {
					t.Fatal(err)
				}
				a, err := m.PredictBatch(x...)
				if err != nil {
					t.Fatal(err)
				}
				b, err := again.PredictBatch(x...)
				if err != nil {
					t.Fatal(err)
				}
				for i, v := range a.F32() {
					if math.Abs(float64(v-b.F32()[i])) > 1e-5 {
						t.Fatalf("%s, batch %d: prediction %d is %g, was %g", c.p.Pattern, n, i, b.F32()[i], v)
					}
				}
			}
		}
		before, _, err := Sparsity(m)
		if err != nil {
			t.Fatal(err)
		}
		if after, _, err := Sparsity(s); err != nil || math.Abs(before-after) > 0.02 {
			t.Errorf("%v: sparsity %g, was %g", err, after, before)
		}
	}
	if _, _, err := Sparse(wide(&Magnitude{Pattern: "2:4"}), 32); !errors.Is(err, ErrNoSparse) || !strings.Contains(err.Error(), "no faster for 32 rows") {
		t.Error(err)
	}
	if _, _, err := Sparse(model(t, ds), 32); !errors.Is(err, ErrNoSparse) || !strings.Contains(err.Error(), "follow no pattern") {
		t.Error(err)
	}
	if _, _, err := Sparse(model(t, ds), 0); err == nil {
		t.Error("no rows were taken")
	}
}
