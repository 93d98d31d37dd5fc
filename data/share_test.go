package data_test

import (
	"context"
	"testing"

	"github.com/jouleml/joule/data"
)

// The shares of all ranks, in order, are the batches of one loader, also where the last batch has fewer examples than there are pieces.
func TestLoaderShares(t *testing.T) {
	rows := make([]float32, 35)
	for i := range rows {
		rows[i] = float32(i)
	}
	ds, err := data.FromSlices(rows, []int{1}, make([]int32, 35), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	cfg := data.LoaderConfig{Batch: 8, Shuffle: true, Seed: 5, Epochs: 2}
	whole, err := data.NewLoader(ds, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	var parts []*data.Loader
	for _, s := range []data.Share{{Of: 6, First: 0, Last: 1}, {Of: 6, First: 1, Last: 4}, {Of: 6, First: 4, Last: 6}} {
		cfg.Share = s
		l, err := data.NewLoader(ds, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		parts = append(parts, l)
	}
	for {
		b, err := whole.Next(context.Background())
		if err != nil {
			break
		}
		at := 0
		for _, l := range parts {
			p, err := l.Next(context.Background())
			if err != nil || p.Of != b.N || p.Step != b.Step || p.Epoch != b.Epoch {
				t.Fatalf("%+v of %+v: %v", p, b, err)
			}
			for i := range p.N {
				if p.X[0].At(i) != b.X[0].At(at) || p.Y[0].At(i) != b.Y[0].At(at) {
					t.Fatalf("epoch %d, step %d: example %d differs", b.Epoch, b.Step, at)
				}
				at++
			}
		}
		if at != b.N {
			t.Fatalf("epoch %d, step %d: %d of %d examples are shared out", b.Epoch, b.Step, at, b.N)
		}
	}
	for _, s := range []data.Share{{Of: 2, First: 1, Last: 1}, {Of: 2, First: 0, Last: 3}, {Of: 9, First: 0, Last: 1}} {
		cfg.Share = s
		if _, err := data.NewLoader(ds, cfg); err == nil {
			t.Errorf("share %+v of a batch of 8 was taken", s)
		}
	}
}
