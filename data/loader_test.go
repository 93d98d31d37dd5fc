package data_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/race"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// counting is n examples: example i has input [i, -i] and target i.
func counting(t testing.TB, n int) data.Dataset {
	t.Helper()
	x, y := make([]float32, 2*n), make([]int32, n)
	for i := range n {
		x[2*i], x[2*i+1], y[i] = float32(i), -float32(i), int32(i)
	}
	ds, err := data.FromSlices(x, shape.Of(2), y, shape.Of(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

// jitter adds a random number to an example's first input.
func jitter(data.Spec) (data.Apply, error) {
	return func(r *rand.Rand, x, y []*tensor.Tensor, row int) { x[0].F32()[2*row] += r.Float32() }, nil
}

func loader(t testing.TB, ds data.Dataset, cfg data.LoaderConfig) *data.Loader {
	t.Helper()
	l, err := data.NewLoader(ds, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// trace is the text of all values of the next n batches, or of all there are.
func trace(t testing.TB, l *data.Loader, n int) (lines []string) {
	t.Helper()
	for range n {
		at := l.Position()
		b, err := l.Next(context.Background())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if at.Epoch != b.Epoch || at.Step != b.Step {
			t.Fatalf("position %v before batch %d of epoch %d", at, b.Step, b.Epoch)
		}
		if b.X[0].Shape()[0] != b.N || b.Y[0].Shape()[0] != b.N {
			t.Fatalf("batch of %d: tensors %v %v", b.N, b.X[0].Shape(), b.Y[0].Shape())
		}
		lines = append(lines, fmt.Sprint(b.Epoch, b.Step, b.X[0].F32(), b.Y[0].I32()))
		for i := range b.X[0].F32() {
			b.X[0].F32()[i] = -99 // whatever a consumer leaves in the tensors must not be seen again
		}
	}
	return lines
}

func TestEveryExampleOnceAnEpoch(t *testing.T) {
	for _, c := range []struct {
		n, batch int
		dropLast bool
		sizes    []int
	}{
		{10, 4, false, []int{4, 4, 2}},
		{10, 4, true, []int{4, 4}},
		{8, 4, false, []int{4, 4}},
		{3, 4, false, []int{3}},
		{1, 1, false, []int{1}},
	} {
		l := loader(t, counting(t, c.n), data.LoaderConfig{Batch: c.batch, Shuffle: true, DropLast: c.dropLast, Epochs: 2, Seed: 5})
		if l.Steps() != len(c.sizes) || l.BatchSize() != c.sizes[0] {
			t.Errorf("%+v: Steps %d, BatchSize %d", c, l.Steps(), l.BatchSize())
		}
		for epoch := range 2 {
			seen := map[int32]int{}
			total := 0
			for step, want := range c.sizes {
				b, err := l.Next(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				if b.N != want || b.Epoch != epoch || b.Step != step {
					t.Fatalf("%+v: batch %d of epoch %d has N=%d", c, b.Step, b.Epoch, b.N)
				}
				for k, v := range b.Y[0].I32() {
					seen[v]++
					if x := b.X[0].F32(); x[2*k] != float32(v) || x[2*k+1] != -float32(v) {
						t.Fatalf("input and target of different examples: %v and %d", x[2*k:2*k+2], v)
					}
				}
				total += want
			}
			if len(seen) != total {
				t.Errorf("%+v: %d different examples among %d", c, len(seen), total)
			}
		}
		for range 2 {
			if _, err := l.Next(context.Background()); err != io.EOF {
				t.Errorf("after the last epoch: %v", err)
			}
		}
	}
}

func TestOrder(t *testing.T) {
	const n = 64
	order := func(seed uint64, epoch int) []int32 {
		l := loader(t, counting(t, n), data.LoaderConfig{Batch: n, Shuffle: true, Seed: seed})
		if err := l.Seek(data.Position{Epoch: epoch}); err != nil {
			t.Fatal(err)
		}
		b, err := l.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(b.Y[0].I32())
	}
	a := order(1, 0)
	if slices.IsSorted(a) {
		t.Error("not shuffled")
	}
	if !slices.Equal(a, order(1, 0)) {
		t.Error("the same seed and epoch give two orders")
	}
	if slices.Equal(a, order(1, 1)) || slices.Equal(a, order(2, 0)) {
		t.Error("another epoch or seed gives the same order")
	}
	// Pinned, so that checkpoints of older versions go on with the same batches.
	if got := fmt.Sprint(a[:8]); got != "[20 3 42 7 14 57 32 12]" {
		t.Errorf("order of seed 1, epoch 0 begins %s", got)
	}
}

// TestOrderIsUniform counts how often each example comes first: 20,000 draws over 10 examples deviate from 2,000 by less than 5 standard deviations.
func TestOrderIsUniform(t *testing.T) {
	const n, epochs = 10, 20000
	l := loader(t, counting(t, n), data.LoaderConfig{Batch: n, Shuffle: true, Seed: 3})
	var first, last [n]int
	for range epochs {
		b, err := l.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		first[b.Y[0].I32()[0]]++
		last[b.Y[0].I32()[n-1]]++
	}
	const sd = 42.4 // √(20000 · 0.1 · 0.9)
	for i := range n {
		if d := max(first[i]-2000, 2000-first[i], last[i]-2000, 2000-last[i]); float64(d) > 5*sd {
			t.Errorf("example %d is first %d times and last %d times of %d", i, first[i], last[i], epochs)
		}
	}
}

func TestResume(t *testing.T) {
	cfg := data.LoaderConfig{Batch: 3, Shuffle: true, Seed: 9, Epochs: 3, Transforms: []data.Transform{jitter}}
	ds := counting(t, 11)
	all := trace(t, loader(t, ds, cfg), 100)
	if len(all) != 12 {
		t.Fatalf("%d batches", len(all))
	}
	for prefetch := 1; prefetch <= 5; prefetch++ {
		cfg.Prefetch = prefetch
		for cut := range all {
			l := loader(t, ds, cfg)
			trace(t, l, cut)
			next := loader(t, ds, cfg)
			if err := next.Seek(l.Position()); err != nil {
				t.Fatal(err)
			}
			if got := trace(t, next, 100); !slices.Equal(got, all[cut:]) {
				t.Fatalf("prefetch %d, resumed at %d: %v, want %v", prefetch, cut, got, all[cut:])
			}
			if err := l.Seek(data.Position{}); err != nil { // back, in the middle of prefetching
				t.Fatal(err)
			}
			if got := trace(t, l, 100); !slices.Equal(got, all) {
				t.Fatalf("prefetch %d, rewound at %d: %v", prefetch, cut, got)
			}
		}
	}
}

// TestTransformDependsOnExample: the same example gets the same change wherever it stands in the epoch, and another one in the next epoch.
func TestTransformDependsOnExample(t *testing.T) {
	changes := func(shuffled bool, batch int) map[string]float32 {
		l := loader(t, counting(t, 20), data.LoaderConfig{Batch: batch, Shuffle: shuffled, Seed: 4, Epochs: 2, Transforms: []data.Transform{jitter}})
		m := map[string]float32{}
		for {
			b, err := l.Next(context.Background())
			if err == io.EOF {
				return m
			}
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range b.Y[0].I32() {
				m[fmt.Sprint(b.Epoch, " ", v)] = b.X[0].F32()[2*k]
			}
		}
	}
	a, b := changes(false, 20), changes(true, 3)
	if len(a) != 40 {
		t.Fatalf("%d changes", len(a))
	}
	for k, v := range a {
		if b[k] != v {
			t.Errorf("example %s: %v and %v", k, v, b[k])
		}
	}
	for i := range 20 {
		if a[fmt.Sprint("0 ", i)] == a[fmt.Sprint("1 ", i)] {
			t.Errorf("example %d changes alike in both epochs", i)
		}
	}
}

// faulty fails when it is asked for example bad, as long as bad is not negative, and waits for gate.
type faulty struct {
	data.Dataset
	bad  *int
	gate chan struct{}
}

var errBad = errors.New("bad example")

func (f faulty) Fill(idx []int, x, y []*tensor.Tensor) error {
	if f.gate != nil {
		<-f.gate
	}
	if f.bad != nil && slices.Contains(idx, *f.bad) {
		return errBad
	}
	return f.Dataset.Fill(idx, x, y)
}

func TestErrorNamesTheBatch(t *testing.T) {
	bad := 5
	l := loader(t, faulty{Dataset: counting(t, 10), bad: &bad}, data.LoaderConfig{Batch: 2, Prefetch: 4})
	if got := len(trace(t, l, 2)); got != 2 {
		t.Fatalf("%d batches before the bad one", got)
	}
	for range 2 {
		_, err := l.Next(context.Background())
		if !errors.Is(err, errBad) || !strings.Contains(err.Error(), "batch 2 of epoch 0") {
			t.Fatalf("error %v", err)
		}
	}
	bad = -1 // the fault is gone: the same batch comes
	if got := trace(t, l, 1); !strings.HasPrefix(got[0], "0 2 [4 -4 5 -5]") {
		t.Errorf("after the fault: %v", got)
	}
}

func TestCancel(t *testing.T) {
	gate := make(chan struct{})
	l := loader(t, faulty{Dataset: counting(t, 10), gate: gate}, data.LoaderConfig{Batch: 2})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	if _, err := l.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Next on a data set that hangs: %v", err)
	}
	if _, err := l.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Next with an ended context: %v", err)
	}
	close(gate)
	if got := trace(t, l, 1); !strings.HasPrefix(got[0], "0 0 [0 -0 1 -1]") {
		t.Errorf("after the cancelled call: %v", got)
	}
}

func TestCloseEndsTheGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 20 {
		l := loader(t, counting(t, 10), data.LoaderConfig{Batch: 2})
		trace(t, l, 1)
		l.Close()
		l.Close()
		if _, err := l.Next(context.Background()); err != data.ErrClosed {
			t.Fatalf("Next after Close: %v", err)
		}
		if err := l.Seek(data.Position{}); err != data.ErrClosed {
			t.Fatalf("Seek after Close: %v", err)
		}
	}
	for range 100 { // a goroutine that has said it is done may still be on its way out
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}

func TestNextAllocatesNothing(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	l := loader(t, counting(t, 1001), data.LoaderConfig{Batch: 10, Shuffle: true, Transforms: []data.Transform{jitter}})
	next := func() {
		if _, err := l.Next(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	next()
	if n := testing.AllocsPerRun(500, next); n != 0 { // five epochs, partial batches among them
		t.Errorf("%v allocations a step", n)
	}
}

func TestNewLoaderRefuses(t *testing.T) {
	ten := counting(t, 10)
	none := counting(t, 0)
	noFit := func(data.Spec) (data.Apply, error) { return nil, errors.New("does not fit") }
	for want, f := range map[string]func() (*data.Loader, error){
		"no examples":    func() (*data.Loader, error) { return data.NewLoader(none, data.LoaderConfig{}) },
		"negative":       func() (*data.Loader, error) { return data.NewLoader(ten, data.LoaderConfig{Batch: -1}) },
		"fewer than one": func() (*data.Loader, error) { return data.NewLoader(ten, data.LoaderConfig{Batch: 11, DropLast: true}) },
		"does not fit": func() (*data.Loader, error) {
			return data.NewLoader(ten, data.LoaderConfig{Transforms: []data.Transform{noFit}})
		},
		"no step 4 of": func() (*data.Loader, error) {
			l := loader(t, ten, data.LoaderConfig{Batch: 3})
			return nil, l.Seek(data.Position{Step: 4})
		},
		"no step -1 of": func() (*data.Loader, error) {
			l := loader(t, ten, data.LoaderConfig{})
			return nil, l.Seek(data.Position{Step: -1})
		},
		"step 0 of epoch -": func() (*data.Loader, error) {
			l := loader(t, ten, data.LoaderConfig{})
			return nil, l.Seek(data.Position{Epoch: -1})
		},
	} {
		if _, err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v", want, err)
		}
	}
}

func TestFromTensorsRefuses(t *testing.T) {
	spec := data.Spec{
		Inputs:  []data.Field{{Name: "x", Shape: shape.Of(2), DType: dtype.F32}},
		Targets: []data.Field{{Name: "y", DType: dtype.I32}},
		Classes: 3,
	}
	x, y := tensor.New(dtype.F32, 4, 2), tensor.Of([]int32{0, 1, 2, 0})
	list := func(ts ...*tensor.Tensor) []*tensor.Tensor { return ts }
	if _, err := data.FromTensors(spec, list(x), list(y)); err != nil {
		t.Fatal(err)
	}
	for want, f := range map[string]func() (data.Dataset, error){
		"without inputs": func() (data.Dataset, error) { return data.FromTensors(data.Spec{}, nil, nil) },
		"1 inputs and 0": func() (data.Dataset, error) { return data.FromTensors(spec, list(x), nil) },
		`"x" is f32[2]`: func() (data.Dataset, error) {
			return data.FromTensors(spec, list(tensor.New(dtype.F32, 4, 3)), list(y))
		},
		`"y" is i32[]`: func() (data.Dataset, error) { return data.FromTensors(spec, list(x), list(tensor.New(dtype.F32, 4))) },
		`"y" has 3 examples`: func() (data.Dataset, error) {
			return data.FromTensors(spec, list(x), list(tensor.Of([]int32{0, 1, 2})))
		},
		"example 2 has": func() (data.Dataset, error) {
			return data.FromTensors(spec, list(x), list(tensor.Of([]int32{0, 1, 3, 0})))
		},
		"whole number": func() (data.Dataset, error) {
			return data.FromSlices([]float32{1, 2, 3}, shape.Of(2), []int32{1}, nil, 0)
		},
		"no elements": func() (data.Dataset, error) { return data.FromSlices([]float32{}, shape.Of(0), []int32{}, nil, 0) },
		"2 labels": func() (data.Dataset, error) {
			return data.FromPixels([]byte{1, 2, 3}, shape.Of(1, 1, 1), []byte{0, 0}, []string{"a"})
		},
		"example 1 has": func() (data.Dataset, error) {
			return data.FromPixels([]byte{1, 2}, shape.Of(1, 1, 1), []byte{0, 1}, []string{"a"})
		},
	} {
		if _, err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v", want, err)
		}
	}
}

func TestFromPixels(t *testing.T) {
	ds, err := data.FromPixels([]byte{0, 51, 255, 3, 4, 5}, shape.Of(1, 3, 1), []byte{1, 0}, []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	x, y := ds.Spec().Tensors(3)
	if err := ds.Fill([]int{1, 0, 0}, x, y); err != nil {
		t.Fatal(err)
	}
	want := []float32{3. / 255, 4. / 255, 5. / 255, 0, 0.2, 1, 0, 0.2, 1}
	if !slices.Equal(x[0].F32(), want) || !slices.Equal(y[0].I32(), []int32{0, 1, 1}) {
		t.Errorf("%v %v", x[0].F32(), y[0].I32())
	}
}

func ExampleLoader() {
	x := []float32{0, 0, 0, 1, 1, 0, 1, 1} // four examples of two numbers
	y := []int32{0, 1, 1, 0}
	xor, err := data.FromSlices(x, shape.Of(2), y, shape.Of(), 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	batches, err := data.NewLoader(xor, data.LoaderConfig{Batch: 3, Epochs: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer batches.Close()
	for {
		b, err := batches.Next(context.Background())
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(b.Step, b.N, b.X[0].F32(), b.Y[0].I32())
	}
	// Output:
	// 0 3 [0 0 0 1 1 0] [0 1 1]
	// 1 1 [1 1] [0]
}

func BenchmarkNext(b *testing.B) {
	l := loader(b, counting(b, 60000), data.LoaderConfig{Shuffle: true})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Next(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
