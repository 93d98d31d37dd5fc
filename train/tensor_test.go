package train_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// tokens are sequences of 6 numbers below 11, and which of 3 classes they are.
func tokens(t *testing.T, n int) data.Dataset {
	t.Helper()
	x, y := tensor.New(dtype.I32, n, 6), tensor.New(dtype.I32, n)
	for i := range x.I32() {
		x.I32()[i] = int32(i*i*7%11+i/6) % 11
	}
	for i := range y.I32() {
		y.I32()[i] = (x.I32()[6*i] + x.I32()[6*i+1]) % 3
	}
	ds, err := data.FromTensors(data.Spec{Inputs: []data.Field{{Name: "x", Shape: []int{6}, DType: dtype.I32}}, Targets: []data.Field{{Name: "y", Shape: []int{}, DType: dtype.I32}}, Classes: 3},
		[]*tensor.Tensor{x}, []*tensor.Tensor{y})
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

// Layers split over ranks, alone and together with shared examples, compute what one process computes, up to rounding: blocks with grouped keys, gates and dropout, and pairs of Dense layers;
// with state shared out and norms limited. All ranks keep the same bits.
func TestTensorParallel(t *testing.T) {
	ds := tokens(t, 40) // batches of 16, 16, 8
	fit := func(p train.Parallel, opt *optim.Optimizer) (*train.Model, *train.History, error) {
		net := nn.Sequential(nn.Embedding(11, 8), nn.PositionEmbedding(6), nn.TransformerBlock(4, nn.KeyValueHeads(2), nn.Gated(), nn.BlockDropout(0.1), nn.SiLU, nn.CausalAttention()),
			nn.MultiHeadAttention(2, 4), nn.Flatten(), nn.Dense(6, nn.Tanh), nn.Dense(5, nn.ReLU), nn.Dense(3, nn.Softmax))
		m, err := train.Compile(net, ds.Spec(), opt, train.SparseCategoricalCrossentropy, train.Across(p), train.Threads(1), train.Seed(3), train.Accuracy)
		if err != nil {
			return nil, nil, err
		}
		h, err := m.Fit(context.Background(), ds, train.Epochs(2), train.BatchSize(16))
		return m, h, err
	}
	for _, c := range []struct {
		ranks int
		p     train.Parallel
		opt   func() *optim.Optimizer
	}{
		{2, train.Parallel{Tensor: 2}, func() *optim.Optimizer { return optim.SGD(0.9, false, optim.Rate(0.05), optim.GlobalClipNorm(1)) }},
		{4, train.Parallel{Tensor: 2, Zero: 2}, func() *optim.Optimizer { return optim.SGD(0.9, false, optim.Rate(0.05)) }},
	} {
		one, want, err := fit(train.Parallel{Shards: c.ranks / 2}, c.opt())
		if err != nil {
			t.Fatal(err)
		}
		allRanks(t, c.ranks, func(comm *dist.Comm) error {
			p := c.p
			p.Comm, p.Check = comm, 1
			m, h, err := fit(p, c.opt())
			if err != nil {
				return err
			}
			for _, q := range m.Params() {
				a, _ := one.State().Get(q.Name)
				b, _ := m.State().Get(q.Name)
				for i := range a.Len() {
					if d := math.Abs(a.At(i) - b.At(i)); d > 5e-5 {
						return fmt.Errorf("%s[%d]: %v, in one process %v", q.Name, i, b.At(i), a.At(i))
					}
				}
			}
			for i, e := range h.Epochs {
				a, _ := e.Log("accuracy")
				b, _ := want.Epochs[i].Log("accuracy")
				l, _ := e.Log("loss")
				k, _ := want.Epochs[i].Log("loss")
				if a != b || math.Abs(l-k) > 1e-5 {
					return fmt.Errorf("epoch %d: %v, in one process %v", i+1, e.Logs, want.Epochs[i].Logs)
				}
			}
			return nil
		})
	}
	tr, _ := load(t, 64)
	for _, c := range []struct {
		p    train.Parallel
		net  *nn.Model
		want string
	}{
		{train.Parallel{Tensor: 3}, small(), "do not divide 2 ranks"},
		{train.Parallel{Tensor: 2}, nn.Sequential(nn.Flatten(), nn.Dense(10, nn.Softmax)), "no layer of this model can be split over 2 ranks"},
		{train.Parallel{Tensor: 2, Local: 2}, small(), "local steps"},
		{train.Parallel{Tensor: 2, Shards: 4}, small(), "as many shards as ranks"},
	} {
		for _, err := range everyRank(t, 2, func(comm *dist.Comm) error {
			p := c.p
			p.Comm = comm
			m, err := train.Compile(c.net, tr.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Across(p))
			if err == nil {
				_, err = m.Fit(context.Background(), tr)
			}
			return err
		}) {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v: %v", c.p, err)
			}
		}
	}
}
