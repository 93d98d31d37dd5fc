package data_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// unit is n examples of as many classes: example i has class i and as input a one in place i.
func unit(t testing.TB, n int) data.Dataset {
	t.Helper()
	x, y := make([]float32, n*n), make([]int32, n)
	for i := range n {
		x[i*n+i], y[i] = 1, int32(i)
	}
	ds, err := data.FromSlices(x, shape.Of(n), y, shape.Of(), n)
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

// mixed are the inputs and targets of all examples of the loader's next batches, one a line, by step.
func mixed(t testing.TB, l *data.Loader) (x, y [][]float32) {
	t.Helper()
	for {
		b, err := l.Next(context.Background())
		if err != nil {
			return x, y
		}
		for i := range b.N {
			x = append(x, append([]float32{}, b.X[0].Slice(i, i+1).F32()...))
			y = append(y, append([]float32{}, b.Y[0].Slice(i, i+1).F32()...))
		}
	}
}

// Targets are mixed as inputs are, and shares have the mean and the variance of Beta(α, α).
func TestMixup(t *testing.T) {
	const n = 40
	for _, alpha := range []float64{0.1, 0.4, 1, 3} {
		l := loader(t, unit(t, n), data.LoaderConfig{Batch: 16, Shuffle: true, Seed: 5, Epochs: 250, Mixup: alpha})
		x, y := mixed(t, l)
		if len(x) != 250*n {
			t.Fatalf("%d examples", len(x))
		}
		var sum, squares, others float64
		partners := map[int]int{}
		for k := range x {
			if fmt.Sprint(x[k]) != fmt.Sprint(y[k]) {
				t.Fatalf("input %v with target %v", x[k], y[k])
			}
			total := 0.0
			var in []int
			for i, v := range y[k] {
				if total += float64(v); v > 0 {
					in = append(in, i)
				}
			}
			if math.Abs(total-1) > 1e-6 || len(in) > 2 {
				t.Fatalf("target %v", y[k])
			}
			if len(in) == 2 { // which of the two is the example and which the other is not seen, but Beta(α, α) is symmetric
				v := float64(y[k][in[0]])
				sum += v
				squares += (v - 0.5) * (v - 0.5)
				others++
				partners[in[0]]++
			}
		}
		if others < 0.5*float64(len(x)) && alpha >= 0.4 || len(partners) != n-1 {
			t.Errorf("alpha %g: %v of %d examples are mixed, with %d partners", alpha, others, len(x), len(partners))
		}
		if alpha < 0.4 { // shares that round to 0 or 1 are not seen here
			continue
		}
		want := 1 / (4 * (2*alpha + 1))
		if mean, v := sum/others, squares/others; math.Abs(mean-0.5) > 0.02 || math.Abs(v/want-1) > 0.06 {
			t.Errorf("alpha %g: mean %g, variance %g, want 0.5 and %g", alpha, mean, v, want)
		}
	}
}

// An example is mixed the same whoever else is in its batch: for other batch sizes, after Seek, and in the shares of ranks. Other seeds and epochs mix otherwise.
func TestMixupDependsOnTheExample(t *testing.T) {
	noise := func(data.Spec) (data.Apply, error) {
		return func(r *rand.Rand, x, _ []*tensor.Tensor, row int) {
			for i := range 12 {
				x[0].F32()[row*12+i] += r.Float32() / 100
			}
		}, nil
	}
	ds := unit(t, 12)
	run := func(cfg data.LoaderConfig) string {
		cfg.Mixup, cfg.Transforms = 0.7, []data.Transform{noise}
		x, y := mixed(t, loader(t, ds, cfg))
		return fmt.Sprint(x, y)
	}
	want := run(data.LoaderConfig{Batch: 12, Epochs: 1, Seed: 3})
	if got := run(data.LoaderConfig{Batch: 5, Epochs: 1, Seed: 3}); got != want {
		t.Errorf("batches of 5: %s\nbatches of 12: %s", got, want)
	}
	if got := run(data.LoaderConfig{Batch: 12, Epochs: 1, Seed: 4}); got == want {
		t.Error("two seeds mix the same")
	}
	cfg := data.LoaderConfig{Batch: 5, Epochs: 2, Seed: 3, Shuffle: true, Mixup: 0.7, Transforms: []data.Transform{noise}}
	x, _ := mixed(t, loader(t, ds, cfg))
	if len(x) != 24 {
		t.Fatal(len(x))
	}
	again := loader(t, ds, cfg)
	if err := again.Seek(data.Position{Epoch: 1, Step: 1}); err != nil {
		t.Fatal(err)
	}
	rest, _ := mixed(t, again)
	if fmt.Sprint(rest) != fmt.Sprint(x[17:]) {
		t.Error("after Seek examples are mixed otherwise")
	}
	// Ranks, of batches of 5, the last of 2.
	var parts [][][]float32
	for r := range 2 {
		c := cfg
		c.Share = data.Share{Of: 2, First: r, Last: r + 1}
		p, _ := mixed(t, loader(t, ds, c))
		parts = append(parts, p)
	}
	at := [2]int{}
	for k := 0; k < len(x); {
		size := 5
		if k%12 == 10 {
			size = 2
		}
		for i := range size {
			r := 0
			if i >= size/2 {
				r = 1
			}
			if fmt.Sprint(parts[r][at[r]]) != fmt.Sprint(x[k]) {
				t.Fatalf("example %d of rank %d is %v, of one loader %v", at[r], r, parts[r][at[r]], x[k])
			}
			at[r]++
			k++
		}
	}
}

// Numbers are mixed as they are.
func TestMixupOfNumbers(t *testing.T) {
	x, y := make([]float32, 30), make([]float32, 60)
	for i := range 30 {
		x[i], y[2*i], y[2*i+1] = float32(i), 2*float32(i), 7
	}
	ds, err := data.FromSlices(x, shape.Of(1), y, shape.Of(2), 0)
	if err != nil {
		t.Fatal(err)
	}
	between := 0
	gx, gy := mixed(t, loader(t, ds, data.LoaderConfig{Epochs: 1, Mixup: 1}))
	for i := range gx {
		if v := gx[i][0]; math.Abs(float64(gy[i][0]-2*v)) > 1e-4 || math.Abs(float64(gy[i][1]-7)) > 1e-5 || v < 0 || v > 29 {
			t.Errorf("input %v with target %v", gx[i], gy[i])
		} else if v != float32(int(v)) {
			between++
		}
	}
	if between < 20 {
		t.Errorf("%d of 30 are mixed", between)
	}
}

func TestMixupMistakes(t *testing.T) {
	tokens, err := data.FromSlices(make([]int32, 8), shape.Of(2), make([]int32, 4), shape.Of(), 2)
	if err != nil {
		t.Fatal(err)
	}
	none, err := data.FromSlices(make([]float32, 8), shape.Of(2), make([]int32, 4), shape.Of(), 0)
	if err != nil {
		t.Fatal(err)
	}
	s := data.Spec{Inputs: []data.Field{{Name: "x", Shape: shape.Of(1), DType: dtype.F32}}, Targets: []data.Field{{Name: "a", DType: dtype.F32}, {Name: "b", DType: dtype.F32}}}
	two, err := data.FromTensors(s, []*tensor.Tensor{tensor.New(dtype.F32, 4, 1)}, []*tensor.Tensor{tensor.New(dtype.F32, 4), tensor.New(dtype.F32, 4)})
	if err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]struct {
		ds    data.Dataset
		alpha float64
	}{
		`inputs of f32, but "x" is i32[2]`:                {tokens, 1},
		`"y" is i32[] of 0 classes`:                       {none, 1},
		"one target, these have 2":                        {two, 1},
		"above 0 and at most 1e6, not -1":                 {unit(t, 4), -1},
		"above 0 and at most 1e6, not NaN":                {unit(t, 4), math.NaN()},
		"above 0 and at most 1e6, not +Inf":               {unit(t, 4), math.Inf(1)},
		"examples of one size, these come in several":     {sized{unit(t, 4)}, 1},
		"mixup: classes 9 and 9 are not both among the 4": {wrong{unit(t, 4)}, 1},
	} {
		l, err := data.NewLoader(c.ds, data.LoaderConfig{Mixup: c.alpha})
		if err == nil {
			_, err = l.Next(context.Background())
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// sized has examples of two sizes.
type sized struct{ data.Dataset }

func (s sized) Buckets() []data.Spec { return []data.Spec{s.Spec(), s.Spec()} }
func (s sized) Bucket(int) int       { return 0 }

// wrong has classes that there are not.
type wrong struct{ data.Dataset }

func (w wrong) Fill(idx []int, x, y []*tensor.Tensor) error {
	for i := range idx {
		y[0].I32()[i] = 9
	}
	return nil
}
