package train_test

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/compress/lora"
	"github.com/jouleml/joule/compress/prune"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/train"
)

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"conv2d", "conv2d/kernel", true}, {"conv2d", "conv2d_1/kernel", false}, {"conv2d/kernel", "conv2d/kernel", true}, {"conv*", "conv2d_1/kernel", true},
		{"*/bias", "a/b/bias", true}, {"*/bias", "a/b/kernel", false}, {"*attention*kernel", "block/attention/query/kernel", true}, {"*", "x", true},
		{"a*b*c", "abc", true}, {"a*b*c", "acb", false}, {"block/attention", "block/attention/query/kernel", true}, {"", "x", false},
	} {
		if got := train.Matches(c.pattern, c.name); got != c.want {
			t.Errorf("%q on %q: %v", c.pattern, c.name, got)
		}
	}
}

// points is a data set of three classes that a line separates.
func points(n int) data.Dataset {
	x, y := make([]float32, 4*n), make([]int32, n)
	for i := range n {
		for j := range 4 {
			x[4*i+j] = float32(math.Sin(float64(7*i + 3*j)))
		}
		switch s := x[4*i] + 2*x[4*i+1]; {
		case s > 0.7:
			y[i] = 2
		case s > -0.7:
			y[i] = 1
		}
	}
	d, err := data.FromSlices(x, shape.Of(4), y, shape.Of(), 3)
	if err != nil {
		panic(err)
	}
	return d
}

func adaptable(t *testing.T, opt *optim.Optimizer, opts ...train.Option) *train.Model {
	t.Helper()
	net := nn.Sequential(nn.Dense(16, nn.ReLU).Named("body"), nn.BatchNormalization().Named("norm"), nn.Dense(3, nn.Softmax).Named("head"))
	m, err := train.Compile(net, points(8).Spec(), opt, train.SparseCategoricalCrossentropy, append([]train.Option{train.Seed(3), train.Accuracy}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func values(t *testing.T, m *train.Model, name string) []float32 {
	t.Helper()
	v, err := m.State().Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(v.F32())
}

func fitted(t *testing.T, m *train.Model, epochs int, cs ...train.Callback) {
	t.Helper()
	if _, err := m.Fit(context.Background(), points(256), train.Epochs(epochs), train.Callbacks(cs...)); err != nil {
		t.Fatal(err)
	}
}

func predicted(t *testing.T, m *train.Model) []float32 {
	t.Helper()
	x, _ := points(8).Spec().Tensors(8)
	for i := range x[0].F32() {
		x[0].F32()[i] = float32(math.Cos(float64(i)))
	}
	y, err := m.PredictBatch(x...)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(y.F32())
}

func TestFreezeAndRates(t *testing.T) {
	m := adaptable(t, optim.SGD(0, false, optim.Rate(0.1)), train.Freeze("body", "norm"), train.RateFactor("*", 0.5), train.RateFactor("head/bias", 2))
	before := map[string][]float32{}
	for _, p := range m.Params() {
		before[p.Name] = values(t, m, p.Name)
	}
	all := adaptable(t, optim.SGD(0, false, optim.Rate(0.1)), train.Freeze("norm"))
	x, y := points(8).Spec().Tensors(8)
	if err := points(8).Fill([]int{0, 1, 2, 3, 4, 5, 6, 7}, x, y); err != nil {
		t.Fatal(err)
	}
	for _, k := range []*train.Model{m, all} {
		if _, err := k.Step(x, y, 0.1); err != nil {
			t.Fatal(err)
		}
	}
	for name, old := range before {
		now, free := values(t, m, name), values(t, all, name)
		if strings.HasPrefix(name, "head") {
			factor := float32(0.5)
			if name == "head/bias" {
				factor = 2
			}
			for i := range old {
				if want := factor * (free[i] - old[i]); math.Abs(float64(now[i]-old[i]-want)) > 1e-7 {
					t.Fatalf("%s moved by %g, want %g", name, now[i]-old[i], want)
				}
			}
		} else if !slices.Equal(old, now) {
			t.Errorf("%s was frozen and moved", name)
		}
	}
	for want, opt := range map[string]train.Option{
		`no parameter matches "bodyy"`: train.Freeze("bodyy"), `no parameter matches "x"`: train.RateFactor("x", 1), "must be a positive number": train.RateFactor("head", 0),
		"no trainable parameter": train.Freeze("*"),
	} {
		_, err := train.Compile(m.Net, m.Spec, optim.Adam(), train.SparseCategoricalCrossentropy, opt)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
}

func TestLoadWeights(t *testing.T) {
	a := adaptable(t, optim.Adam())
	fitted(t, a, 1)
	file := filepath.Join(t.TempDir(), "a.safetensors")
	if err := a.Save(file); err != nil {
		t.Fatal(err)
	}
	b := adaptable(t, optim.Adam(), train.Seed(9))
	head := values(t, b, "head/kernel")
	taken, left, err := b.LoadWeights(file, "body", "norm")
	if err != nil || !slices.Contains(taken, "body/kernel") || !slices.Equal(left, []string{"head/kernel", "head/bias"}) {
		t.Fatalf("%v %v %v", taken, left, err)
	}
	if !slices.Equal(values(t, a, "body/kernel"), values(t, b, "body/kernel")) || !slices.Equal(head, values(t, b, "head/kernel")) {
		t.Error("other weights than it says")
	}
	if _, _, err := b.LoadWeights(file, "tail"); err == nil || !strings.Contains(err.Error(), "body/kernel[4 16]") {
		t.Error(err)
	}
}

// The loss is what the formula says, and a student that only hears its teacher comes to predict as it does.
func TestDistil(t *testing.T) {
	teacher := adaptable(t, optim.Adam(optim.Rate(0.01)))
	fitted(t, teacher, 10)
	const temperature, weight = 3.0, 0.7
	student := adaptable(t, optim.SGD(0, false), train.Seed(5), train.Distil(train.Teacher{Model: teacher, Temperature: temperature, Weight: weight}))
	x, y := points(8).Spec().Tensors(8)
	if err := points(8).Fill([]int{0, 1, 2, 3, 4, 5, 6, 7}, x, y); err != nil {
		t.Fatal(err)
	}
	// The student's scores in training use the batch's statistics, so compare models without normalisation: their losses at rate 0.
	net := func() *nn.Model { return nn.Sequential(nn.Dense(3, nn.Softmax).Named("d")) }
	plain, err := train.Compile(net(), teacher.Spec, optim.SGD(0, false), train.SparseCategoricalCrossentropy, train.Seed(1))
	if err != nil {
		t.Fatal(err)
	}
	big, err := train.Compile(net(), teacher.Spec, optim.SGD(0, false), train.SparseCategoricalCrossentropy, train.Seed(2))
	if err != nil {
		t.Fatal(err)
	}
	both, err := train.Compile(net(), teacher.Spec, optim.SGD(0, false), train.SparseCategoricalCrossentropy, train.Seed(1), train.Distil(train.Teacher{Model: big, Temperature: temperature, Weight: weight}))
	if err != nil {
		t.Fatal(err)
	}
	hard, err := plain.Step(x, y, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := both.Step(x, y, 0)
	if err != nil {
		t.Fatal(err)
	}
	soft := func(m *train.Model) []float64 {
		w, b := values(t, m, "d/kernel"), values(t, m, "d/bias")
		var out []float64
		for i := range 8 {
			sum, row := 0.0, make([]float64, 3)
			for c := range 3 {
				s := float64(b[c])
				for j := range 4 {
					s += float64(x[0].F32()[4*i+j]) * float64(w[3*j+c])
				}
				row[c] = math.Exp(s / temperature)
				sum += row[c]
			}
			for c := range row {
				out = append(out, row[c]/sum)
			}
		}
		return out
	}
	p, q := soft(big), soft(both)
	kl := 0.0
	for i := range p {
		kl += p[i] * math.Log(p[i]/q[i]) / 8
	}
	if want := (1-weight)*hard + weight*temperature*temperature*kl; math.Abs(got-want) > 1e-5 {
		t.Errorf("loss %g, the formula gives %g", got, want)
	}
	// Weight 1: labels do not matter.
	pupil := adaptable(t, optim.Adam(optim.Rate(0.01)), train.Seed(8), train.Distil(train.Teacher{Model: teacher, Temperature: 2, Weight: 1}))
	apart := func() float64 {
		d := 0.0
		a, b := predicted(t, teacher), predicted(t, pupil)
		for i := range a {
			d += math.Abs(float64(a[i] - b[i]))
		}
		return d
	}
	before := apart()
	fitted(t, pupil, 12)
	if after := apart(); after > before/3 {
		t.Errorf("the student was %g away from its teacher and is %g away", before, after)
	}
	for _, v := range student.State().Vars() {
		if strings.HasPrefix(v.Name, "teacher:") {
			file := filepath.Join(t.TempDir(), "s.safetensors")
			if err := student.Save(file); err != nil {
				t.Fatal(err)
			}
			again, err := train.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range again.State().Vars() {
				if strings.HasPrefix(w.Name, "teacher") {
					t.Errorf("the file has %s", w.Name)
				}
			}
			break
		}
	}
	for want, tc := range map[string]train.Teacher{
		"temperature must be": {Model: teacher, Weight: 1}, "weight of a teacher": {Model: teacher, Temperature: 1, Weight: 2},
		"input 0 of the teacher": {Model: speaker(t, 6, nn.TransformerBlock(2)), Temperature: 1, Weight: 1},
	} {
		if _, err := train.Compile(net(), teacher.Spec, optim.Adam(), train.SparseCategoricalCrossentropy, train.Distil(tc)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
}

func same(a, b []float32, tol float64) bool {
	for i := range a {
		if !(math.Abs(float64(a[i]-b[i])) <= tol) {
			return false
		}
	}
	return len(a) == len(b)
}

func TestLoRA(t *testing.T) {
	base := adaptable(t, optim.Adam())
	l := &lora.Adapter{Rank: 2, Scale: 4, On: []string{"body"}}
	m := adaptable(t, optim.Adam(optim.Rate(0.01)), train.Wrapped(l))
	if !same(predicted(t, base), predicted(t, m), 0) {
		t.Error("an adapter that has learnt nothing changes predictions")
	}
	w := values(t, m, "body/kernel")
	dir := t.TempDir()
	fitted(t, m, 3, &train.Checkpoints{Dir: dir})
	if !slices.Equal(w, values(t, m, "body/kernel")) {
		t.Error("a kernel with an adapter moved")
	}
	found, err := checkpoint.Latest(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := train.Load(found.Path); err == nil || !strings.Contains(err.Error(), "lora/body/kernel/") || !strings.Contains(err.Error(), "Wrapped") {
		t.Errorf("a checkpoint without its adapter: %v", err)
	}
	if again, err := train.Load(found.Path, train.Wrapped(l)); err != nil || !same(predicted(t, m), predicted(t, again), 0) {
		t.Errorf("a checkpoint with its adapter predicts something else: %v", err)
	}
	if err := m.Save(filepath.Join(t.TempDir(), "x.safetensors")); err == nil || !strings.Contains(err.Error(), "Merge") {
		t.Error(err)
	}
	before := predicted(t, m)
	if err := m.Merge(); err != nil {
		t.Fatal(err)
	}
	if !same(before, predicted(t, m), 1e-6) || slices.Equal(w, values(t, m, "body/kernel")) {
		t.Error("merging changes predictions, or nothing")
	}
	if n := len(m.Params()); n != len(base.Params()) {
		t.Errorf("%d parameters after merging, %d without an adapter", n, len(base.Params()))
	}
	if (&lora.Adapter{}).Check() == nil {
		t.Error("rank 0")
	}
}

func TestPrune(t *testing.T) {
	for _, global := range []bool{false, true} {
		p := &prune.Magnitude{Sparsity: 0.75, Global: global, Every: 4}
		m := adaptable(t, optim.Adam(optim.Rate(0.01)), train.Wrapped(p))
		fitted(t, m, 4, p)
		before := predicted(t, m)
		if err := m.Merge(); err != nil {
			t.Fatal(err)
		}
		if !same(before, predicted(t, m), 1e-7) {
			t.Error("merging changes predictions")
		}
		all, by, err := prune.Sparsity(m)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(all-0.75) > 0.02 || !global && (math.Abs(by["body/kernel"]-0.75) > 0.02 || math.Abs(by["head/kernel"]-0.75) > 0.02) {
			t.Errorf("global %v: sparsity %g, %v", global, all, by)
		}
		file := filepath.Join(t.TempDir(), "m.safetensors")
		if err := m.Save(file); err != nil {
			t.Fatal(err)
		}
		again, err := train.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		if !same(before, predicted(t, again), 1e-7) {
			t.Error("the file predicts something else")
		}
	}
	p := &prune.Magnitude{Sparsity: 0.8, Start: 0.2, Stop: 0.6}
	for at, want := range map[float64]float64{0: 0, 0.1: 0, 0.4: 0.8 * (1 - 0.125), 0.6: 0.8, 1: 0.8} {
		if got := p.Target(at); math.Abs(got-want) > 1e-12 {
			t.Errorf("target %g at %g, want %g", got, at, want)
		}
	}
	for _, bad := range []prune.Magnitude{{}, {Sparsity: 1}, {Sparsity: 0.5, Start: 0.5, Stop: 0.2}, {Sparsity: 0.5, Every: -1}} {
		if bad.Check() == nil {
			t.Errorf("%+v passes", bad.Sparsity)
		}
	}
}
