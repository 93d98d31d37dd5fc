package data_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/race"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// classed is examples with the given classes; the input of example i is i.
func classed(t testing.TB, classes []int32, n int) data.Dataset {
	t.Helper()
	x := make([]float32, len(classes))
	for i := range x {
		x[i] = float32(i)
	}
	ds, err := data.FromSlices(x, shape.Of(1), classes, shape.Of(), n)
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

// unlabelled hides that a data set knows its labels.
type unlabelled struct{ data.Dataset }

// values reads the first input of every example.
func values(t testing.TB, ds data.Dataset) []float32 {
	t.Helper()
	idx := make([]int, ds.Len())
	for i := range idx {
		idx[i] = i
	}
	x, y := ds.Spec().Tensors(len(idx))
	if err := ds.Fill(idx, x, y); err != nil {
		t.Fatal(err)
	}
	return x[0].F32()
}

func TestSplit(t *testing.T) {
	classes := make([]int32, 1000)
	for i := range classes {
		classes[i] = int32(i % 10 / 7) // seven of class 0 to three of class 1
	}
	ds := classed(t, classes, 2)
	for _, fraction := range []float64{0.1, 0.5, 0.333, 0.9995} {
		a, b, err := data.Split(ds, fraction, 1)
		if fraction == 0.9995 {
			if err == nil {
				t.Error("a part of no examples is no error")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		va, vb := values(t, a), values(t, b)
		if want := int(math.Round(1000 * fraction)); len(va) != want {
			t.Errorf("%v: %d examples", fraction, len(va))
		}
		all := slices.Sorted(slices.Values(append(slices.Clone(va), vb...)))
		for i, v := range all {
			if v != float32(i) {
				t.Fatalf("%v: the parts together are not the whole at %d", fraction, i)
			}
		}
		again, _, err := data.Split(ds, fraction, 1)
		if err != nil || !slices.Equal(values(t, again), va) {
			t.Errorf("%v: the same seed splits otherwise", fraction)
		}
		other, _, err := data.Split(ds, fraction, 2)
		if err != nil || slices.Equal(values(t, other), va) {
			t.Errorf("%v: another seed splits alike", fraction)
		}
	}
	for _, fraction := range []float64{0, 1, -1, 2, math.NaN()} {
		if _, _, err := data.Split(ds, fraction, 1); err == nil {
			t.Errorf("fraction %v is no error", fraction)
		}
	}
}

func TestSplitStratified(t *testing.T) {
	var classes []int32
	for c, n := range []int{50, 5, 1, 44} {
		for range n {
			classes = append(classes, int32(c))
		}
	}
	ds := classed(t, classes, 4)
	for _, d := range []data.Dataset{ds, unlabelled{ds}} {
		a, b, err := data.SplitStratified(d, 0.2, 3)
		if err != nil {
			t.Fatal(err)
		}
		count := func(d data.Dataset) (n [4]int) {
			labels, err := data.Labels(d)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range labels {
				n[c]++
			}
			return n
		}
		// 0.2 of each class is 10, 1, 0.2 and 8.8: the 20 examples need the one that class 3 lost most of by rounding down.
		if na, nb := count(a), count(b); na != [4]int{10, 1, 0, 9} || nb != [4]int{40, 4, 1, 35} {
			t.Errorf("classes %v and %v", na, nb)
		}
	}
	if _, _, err := data.SplitStratified(counting(t, 10), 0.5, 0); err == nil {
		t.Error("a data set without classes is split by class")
	}
}

func TestSubset(t *testing.T) {
	ds := classed(t, []int32{0, 1, 0, 1}, 2)
	s, err := data.Subset(ds, []int{3, 3, 0})
	if err != nil {
		t.Fatal(err)
	}
	if got := values(t, s); !slices.Equal(got, []float32{3, 3, 0}) {
		t.Errorf("values %v", got)
	}
	if l := s.(data.Labeler); l.Label(0) != 1 || l.Label(2) != 0 {
		t.Error("labels of other examples")
	}
	for _, bad := range [][]int{{-1}, {0, 4}} {
		if _, err := data.Subset(ds, bad); err == nil {
			t.Errorf("subset %v is no error", bad)
		}
	}
	for n, want := range map[int]int{-1: 0, 0: 0, 3: 3, 9: 4} {
		if got := data.Take(ds, n).Len(); got != want {
			t.Errorf("Take %d has %d examples", n, got)
		}
	}
}

func TestSample(t *testing.T) {
	ds := counting(t, 50)
	all := values(t, data.Sample(ds, 99, 1))
	first, sorted := values(t, data.Take(data.Sample(ds, 50, 1), 9)), values(t, ds)
	if !slices.Equal(values(t, data.Sample(ds, 9, 1)), first) {
		t.Error("9 examples are not the first of all")
	}
	if slices.Equal(values(t, data.Sample(ds, 9, 2)), first) || slices.Equal(all, sorted) {
		t.Error("another seed, or none, gives the same examples")
	}
	slices.Sort(all)
	slices.Sort(sorted)
	if !slices.Equal(all, sorted) || data.Sample(ds, -1, 1).Len() != 0 {
		t.Error("not each example once")
	}
}

func double(x, y, toX, toY []*tensor.Tensor) error {
	for i, v := range x[0].F32() {
		toX[0].F32()[i] = 2 * v
	}
	copy(toY[0].I32(), y[0].I32())
	return nil
}

func TestMap(t *testing.T) {
	ds := counting(t, 10)
	m, err := data.Map(ds, ds.Spec(), double)
	if err != nil {
		t.Fatal(err)
	}
	if got := data.Take(m, 3); !slices.Equal(values(t, got), []float32{0, 0, 2, -2, 4, -4}) {
		t.Errorf("values %v", values(t, got))
	}
	if _, err := data.Map(ds, data.Spec{}, double); err == nil {
		t.Error("a map to no fields is no error")
	}
}

func TestNorm(t *testing.T) {
	// Channel 0 is 1e4, 1e4+2 by turns (mean 1e4+1, deviation 1); channel 1 is constant.
	x := make([]float32, 0, 2400)
	for i := range 600 {
		x = append(x, 1e4+2*float32(i%2), 7, 1e4+2*float32((i+1)%2), 7)
	}
	ds, err := data.FromSlices(x, shape.Of(2, 2), make([]int32, 600), shape.Of(), 2)
	if err != nil {
		t.Fatal(err)
	}
	n, err := data.FitNorm(ds)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(n) != "{[10001 7] [1 1]}" {
		t.Errorf("fitted %v", n)
	}
	a, err := n.Apply(ds)
	if err != nil {
		t.Fatal(err)
	}
	if got := values(t, data.Take(a, 2)); !slices.Equal(got, []float32{-1, 0, 1, 0, 1, 0, -1, 0}) {
		t.Errorf("normalised %v", got)
	}
	if l, ok := a.(data.Labeler); !ok || l.Label(5) != 0 {
		t.Error("labels lost")
	}
	if _, err := n.Apply(counting(t, 3)); err != nil { // two values on the last axis as well
		t.Error(err)
	}
	ints, err := data.FromTensors(data.Spec{Inputs: []data.Field{{Name: "ids", Shape: shape.Of(2), DType: dtype.I32}}}, []*tensor.Tensor{tensor.New(dtype.I32, 5, 2)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Apply(ints); err == nil || !strings.Contains(err.Error(), `"ids" is i32`) {
		t.Errorf("integers: %v", err)
	}
	if _, err := (data.Norm{Mean: []float32{1}, Std: []float32{1}}).Apply(ds); err == nil {
		t.Error("one mean for two channels is no error")
	}
	if _, err := data.FitNorm(counting(t, 0)); err == nil {
		t.Error("a fit to nothing is no error")
	}
}

func TestDerivedAllocateNothing(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	ds := counting(t, 1001)
	n, err := data.FitNorm(ds)
	if err != nil {
		t.Fatal(err)
	}
	normal, err := n.Apply(ds)
	if err != nil {
		t.Fatal(err)
	}
	half, _, err := data.Split(normal, 0.5, 1)
	if err != nil {
		t.Fatal(err)
	}
	m, err := data.Map(half, half.Spec(), double)
	if err != nil {
		t.Fatal(err)
	}
	l := loader(t, m, data.LoaderConfig{Batch: 16, Shuffle: true, Epochs: 1000})
	next := func() {
		if _, err := l.Next(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 * l.Steps() {
		next()
	}
	if n := testing.AllocsPerRun(200, next); n != 0 {
		t.Errorf("%v allocations a step", n)
	}
}

func ExampleSplitStratified() {
	ds, err := data.FromSlices([]float32{1, 2, 3, 4, 5, 6}, shape.Of(1), []int32{0, 0, 0, 0, 1, 1}, shape.Of(), 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	test, train, err := data.SplitStratified(ds, 0.5, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	a, _ := data.Labels(test)
	b, _ := data.Labels(train)
	fmt.Println(a, b)
	// Output: [0 0 1] [0 0 1]
}

func ExampleFitNorm() {
	train, err := data.FromSlices([]float32{1, 10, 3, 30}, shape.Of(2), []float32{0, 1}, shape.Of(1), 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	norm, err := data.FitNorm(train)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(norm.Mean, norm.Std)
	// Output: [2 20] [1 10]
}

// Rows of one batch go on where those of the batch before ended.
func TestStreams(t *testing.T) {
	ds := classed(t, make([]int32, 11), 1)
	s, index, err := data.Streams(ds, 3)
	if err != nil {
		t.Fatal(err)
	}
	want := []float32{0, 3, 6, 1, 4, 7, 2, 5, 8}
	got := values(t, s)
	for i, w := range want {
		if len(got) != len(want) || got[i] != w || index[i] != int(w) {
			t.Fatalf("examples %v, numbers %v, want %v", got, index, want)
		}
	}
	for _, n := range []int{0, -1, 12} {
		if _, _, err := data.Streams(ds, n); err == nil || !strings.Contains(err.Error(), "streams") {
			t.Errorf("%d streams: error %v", n, err)
		}
	}
}
