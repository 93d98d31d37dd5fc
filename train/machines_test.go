package train_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// However ranks are spread over machines, whatever way they share a training, weights and losses are the bits of ranks on one machine, and the account says what went between machines.
func TestMachinesGiveTheSameBits(t *testing.T) {
	tr, te := load(t, 77) // batches of 32: the last has 13
	scheme, err := dist.ParseScheme("powersgd:2")
	if err != nil {
		t.Fatal(err)
	}
	signs, err := dist.ParseScheme("onebit:2")
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		what   string
		across int64
	}
	for name, p := range map[string]train.Parallel{
		"gradients": {}, "many buckets": {Bucket: 1}, "ZeRO 1": {Zero: 1}, "ZeRO 2": {Zero: 2}, "two shards each": {Shards: 8}, "stages": {Pipeline: 2}, "split layers": {Tensor: 2}, "split layers, state shared out": {Tensor: 2, Zero: 1}, "one normalisation": {SyncNorm: true},
		"PowerSGD": {Compress: scheme}, "one bit": {Compress: signs}, "local steps": {Local: 2, OuterMomentum: 0.9, OuterRate: 0.7},
	} {
		run := func(of ...int) []result {
			t.Helper()
			out := make([]result, len(of))
			var mu sync.Mutex
			for r, err := range everyRankOf(dist.LocalOn(of), func(c *dist.Comm) error {
				p := p
				p.Comm, p.Check = c, 1
				opts := []train.Option{train.Across(p), train.Threads(1), train.Seed(3), train.Accuracy}
				if p.Local < 2 && p.Compress == nil && p.Pipeline < 2 {
					opts = append(opts, train.Accumulate(2))
				}
				m, err := train.Compile(everything(), tr.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, opts...)
				if err != nil {
					return err
				}
				h, err := m.Fit(context.Background(), tr, train.Epochs(2), train.BatchSize(32), train.Validate(te))
				if err != nil {
					return err
				}
				across := m.Exchange().Across
				if err := m.Assemble(); err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				out[c.Rank()] = result{what: fmt.Sprint(h.Epochs[0].Logs, h.Epochs[1].Logs), across: across}
				if m.Writes() {
					out[c.Rank()].what += bits(t, m)
				}
				return nil
			}) {
				if err != nil && !errors.Is(err, dist.ErrLost) {
					t.Fatalf("%s on machines %v: rank %d: %v", name, of, r, err)
				}
			}
			return out
		}
		want := run(0, 0, 0, 0)
		for _, of := range [][]int{{0, 0, 1, 1}, {0, 0, 0, 1}, {0, 1, 0, 1}} {
			got := run(of...)
			for r := range got {
				if got[r].what != want[r].what {
					t.Errorf("%s on machines %v: rank %d: other bits than on one machine", name, of, r)
				}
				if got[r].across <= 0 || want[r].across != 0 {
					t.Errorf("%s on machines %v: rank %d sent %d bytes to other machines; on one machine %d", name, of, r, got[r].across, want[r].across)
				}
			}
		}
	}
}
