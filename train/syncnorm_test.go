package train_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// With statistics over all ranks, three ranks leave what one process leaves that has the whole batch in one piece, up to rounding; with each shard's own they do not. Batches do not divide.
func TestSyncNorm(t *testing.T) {
	tr, _ := load(t, 86) // batches of 32, 32, 22
	fit := func(b backend.Backend, p train.Parallel, steps int64) (*train.Model, error) {
		net := nn.Sequential(nn.Conv2D(3, 3), nn.BatchNormalization(), nn.Activate(nn.ReLU), nn.MaxPool2D(4), nn.Flatten(), nn.Dense(8), nn.BatchNormalization(), nn.Dense(10, nn.Softmax))
		m, err := train.Compile(net, tr.Spec(), optim.SGD(0.9, false, optim.Rate(0.05)), train.SparseCategoricalCrossentropy, train.Across(p), train.Threads(1), train.Seed(3), train.On(b))
		if err == nil {
			_, err = m.Fit(context.Background(), tr, train.BatchSize(32), train.MaxSteps(steps))
		}
		return m, err
	}
	farthest := func(a, b *train.Model) (d float64) {
		for _, p := range a.Params() {
			x, _ := a.State().Get(p.Name)
			y, _ := b.State().Get(p.Name)
			for i := range x.Len() {
				d = max(d, math.Abs(x.At(i)-y.At(i)))
			}
		}
		return d
	}
	for _, c := range []struct {
		b     backend.Backend
		steps int64
	}{{cpu.Backend{}, 6}, {ref.Backend{}, 1}} {
		one, err := fit(c.b, train.Parallel{}, c.steps)
		if err != nil {
			t.Fatal(err)
		}
		for _, sync := range []bool{true, false} {
			if !sync && c.steps == 1 {
				continue
			}
			allRanks(t, 3, func(comm *dist.Comm) error {
				m, err := fit(c.b, train.Parallel{Comm: comm, SyncNorm: sync, Check: 1}, c.steps)
				if err != nil {
					return err
				}
				if d := farthest(one, m); (d < 2e-4) != sync {
					return fmt.Errorf("%s, synchronised: %v: weights are %g apart from one process's", c.b.Name(), sync, d)
				}
				return nil
			})
		}
	}
	for _, bad := range []struct {
		p    train.Parallel
		want string
	}{{train.Parallel{SyncNorm: true, Shards: 4}, "as many shards as ranks"}, {train.Parallel{SyncNorm: true, Local: 3}, "local steps"}} {
		for _, err := range everyRank(t, 2, func(comm *dist.Comm) error {
			p := bad.p
			p.Comm = comm
			_, err := fit(cpu.Backend{}, p, 1)
			return err
		}) {
			if err == nil || !errors.Is(err, dist.ErrLost) && !strings.Contains(err.Error(), bad.want) {
				t.Errorf("%+v: %v", bad.p, err)
			}
		}
	}
	rest, _ := load(t, 66)
	for _, err := range everyRank(t, 3, func(comm *dist.Comm) error {
		m, err := train.Compile(everything(), rest.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Across(train.Parallel{Comm: comm, SyncNorm: true}))
		if err == nil {
			_, err = m.Fit(context.Background(), rest)
		}
		return err
	}) {
		if err == nil || !strings.Contains(err.Error(), "too few for 3 ranks") {
			t.Error(err)
		}
	}
}
