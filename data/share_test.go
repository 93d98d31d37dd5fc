package data_test

import (
	"context"
	"testing"

	"github.com/jouleml/joule/data"
)

// shared is so many examples, each its number.
func shared(t *testing.T, n int) data.Dataset {
	t.Helper()
	rows := make([]float32, n)
	for i := range rows {
		rows[i] = float32(i)
	}
	ds, err := data.FromSlices(rows, []int{1}, make([]int32, n), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

// The shares of all ranks, in order, are the batches of one loader, also where the last batch has fewer examples than there are pieces, or a share more rows of it than of the others.
func TestLoaderShares(t *testing.T) {
	for _, c := range []struct {
		n, batch int
		shares   []data.Share
	}{
		{35, 8, []data.Share{{Of: 6, First: 0, Last: 1}, {Of: 6, First: 1, Last: 4}, {Of: 6, First: 4, Last: 6}}},
		{23, 12, []data.Share{{Of: 8, First: 0, Last: 2}, {Of: 8, First: 2, Last: 3}, {Of: 8, First: 3, Last: 8}}},
	} {
		ds := shared(t, c.n)
		cfg := data.LoaderConfig{Batch: c.batch, Shuffle: true, Seed: 5, Epochs: 2}
		whole, err := data.NewLoader(ds, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer whole.Close()
		var parts []*data.Loader
		for _, s := range c.shares {
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
				if err != nil || p.Of != b.N || p.Step != b.Step || p.Epoch != b.Epoch || p.N == 0 && p.X != nil {
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
	}
	ds, cfg := shared(t, 35), data.LoaderConfig{Batch: 8, Shuffle: true, Seed: 5, Epochs: 2}
	for _, s := range []data.Share{{Of: 2, First: 1, Last: 1}, {Of: 2, First: 0, Last: 3}, {Of: 9, First: 0, Last: 1}} {
		cfg.Share = s
		if _, err := data.NewLoader(ds, cfg); err == nil {
			t.Errorf("share %+v of a batch of 8 was taken", s)
		}
	}
}
