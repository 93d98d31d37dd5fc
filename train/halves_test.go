package train_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// halved compares two stages on a backend whose programs do not stop in their middle with one process there: the losses of the epochs and all variables.
func halved(t *testing.T, b backend.Backend, examples int, tol float64) {
	t.Helper()
	ds := tokens(t, examples) // batches of 16
	fit := func(p train.Parallel) (*train.Model, *train.History, int64, error) {
		net := nn.Sequential(nn.Embedding(11, 8), nn.PositionEmbedding(6), nn.TransformerBlock(2, nn.BlockDropout(0.1), nn.CausalAttention()), nn.BatchNormalization(), nn.Flatten(), nn.Dense(3, nn.Softmax))
		m, err := train.Compile(net, ds.Spec(), optim.SGD(0.9, false, optim.Rate(0.05)), train.SparseCategoricalCrossentropy, train.On(b), train.Across(p), train.Threads(1), train.Seed(3), train.Accuracy)
		if err != nil {
			return nil, nil, 0, err
		}
		a, err := m.StartAccount(nil)
		if err != nil {
			return nil, nil, 0, err
		}
		h, err := m.Fit(context.Background(), ds, train.Epochs(2), train.BatchSize(16))
		if err != nil {
			return nil, nil, 0, err
		}
		l, err := a.Ledger()
		return m, h, l.Cost.FLOPs, err
	}
	one, want, flops, err := fit(train.Parallel{Shards: 4})
	if err != nil {
		t.Fatal(err)
	}
	asked := make([]int64, 2)
	allRanks(t, 2, func(c *dist.Comm) error {
		m, h, n, err := fit(train.Parallel{Comm: c, Shards: 4, Pipeline: 2, Cuts: []string{"batch_normalization"}, Check: 1, Bucket: 1})
		if err != nil {
			return err
		}
		asked[c.Rank()] = n
		for i, e := range h.Epochs {
			for _, name := range []string{"loss", "accuracy"} {
				got, _ := e.Log(name)
				own, _ := want.Epochs[i].Log(name)
				if !(math.Abs(got-own) <= tol) {
					return fmt.Errorf("epoch %d: %s %v, in one process %v", i+1, name, got, own)
				}
			}
		}
		if err := m.Assemble(); err != nil || c.Rank() > 0 {
			return err
		}
		return alike(one, m, tol)
	})
	if sum := asked[0] + asked[1]; sum < flops*99/100 || sum > flops*101/100 { // what is computed again is not asked for
		t.Errorf("stages count arithmetic of %d, one process %d", asked, flops)
	}
}

// On the reference, whose programs do not stop in their middle, stages compute the forward pass twice and leave what one process leaves there.
func TestPipelineInHalves(t *testing.T) { halved(t, ref.Backend{}, 27, 1e-5) }

// So do those on XLA; several devices in one process are refused.
func TestXLAPipeline(t *testing.T) {
	halved(t, backendtest.XLA(t, 1), 32, 1e-4) // shards of one size: XLA takes its time to compile
	two := backendtest.XLA(t, 2)
	for _, err := range everyRank(t, 2, func(c *dist.Comm) error {
		s := stagedModels()[1]
		s.opts = append(slices.Clone(s.opts), train.On(two))
		_, _, _, err := s.fit(t, train.Parallel{Comm: c, Pipeline: 2})
		return err
	}) {
		if err == nil || !strings.Contains(err.Error(), "--devices 2): start a rank for each") {
			t.Errorf("%v", err)
		}
	}
}
