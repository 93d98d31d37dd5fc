package generate

import (
	"slices"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/tensor"
)

// Sequences of different lengths that answer to different texts have the scores that each has alone, and keep them in another order.
func TestRaggedAnswers(t *testing.T) {
	set := numerals(t)
	m := small(t, set.Spec(), 2)
	source, length := tensor.New(dtype.I32, 2, 12), tensor.New(dtype.I32, 2) // [sequences, tokens], [sequences]
	for i := range source.I32() {
		source.I32()[i] = int32(i%7 + 1)
	}
	copy(length.I32(), []int32{12, 5})
	d, err := m.Decoder(2, 16)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Begin(source, length); err != nil {
		t.Fatal(err)
	}
	texts := [][]int32{{1, 2, 3, 4, 5}, {6}}
	if _, err := d.FeedEach(texts); err != nil {
		t.Fatal(err)
	}
	if got := d.Lens(); !slices.Equal(got, []int{5, 1}) {
		t.Fatalf("lengths %v", got)
	}
	if err := d.Reorder([]int{1, 0}); err != nil {
		t.Fatal(err)
	}
	y, err := d.FeedEach([][]int32{{7, 8}, {9}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]int32{{6, 7, 8}, {1, 2, 3, 4, 5, 9}} {
		one, err := m.Decoder(1, 16)
		if err != nil {
			t.Fatal(err)
		}
		if err := one.Begin(source.Slice(1-i, 2-i), length.Slice(1-i, 2-i)); err != nil {
			t.Fatal(err)
		}
		x, err := one.Feed(want)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range x.F32() {
			if w := y.Slice(i, i+1).F32()[k]; w-v > 1e-4 || v-w > 1e-4 {
				t.Fatalf("sequence %d, token %d: %v in company, %v alone", i, k, w, v)
			}
		}
	}
}
