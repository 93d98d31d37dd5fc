package data_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Each example is changed as a loader changes it in its first epoch, however often and in whatever order it is read.
func TestChanged(t *testing.T) {
	ds, err := data.FromSlices(make([]float32, 20), shape.Of(2), make([]int32, 10), shape.Of(), 1)
	if err != nil {
		t.Fatal(err)
	}
	add := func(data.Spec) (data.Apply, error) {
		return func(r *rand.Rand, x, _ []*tensor.Tensor, row int) { x[0].Slice(row, row+1).F32()[1] += r.Float32() }, nil
	}
	c, err := data.Changed(ds, 7, add, add)
	if err != nil {
		t.Fatal(err)
	}
	l, err := data.NewLoader(ds, data.LoaderConfig{Batch: 10, Seed: 7, Epochs: 1, Transforms: []data.Transform{add, add}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := l.Next(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := b.X[0].F32()
	x, y := c.Spec().Tensors(2)
	for range 2 {
		for _, i := range []int{9, 3, 0, 6} {
			if err := c.Fill([]int{i, 9 - i}, x, y); err != nil {
				t.Fatal(err)
			}
			if got := x[0].F32(); got[1] == 0 || !slices.Equal(got, append(slices.Clone(want[2*i:2*i+2]), want[2*(9-i):2*(9-i)+2]...)) {
				t.Fatalf("examples %d and %d are %v; a loader makes of them %v", i, 9-i, got, want)
			}
		}
	}
	if same, err := data.Changed(ds, 7); err != nil || same != ds {
		t.Errorf("without changes: %v, %v", same, err)
	}
}
