package train_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

const vocabulary = 601 // a prime number: no number of ranks divides it

// phrases are sequences of 5 words, and the word after each: a number, or where soft probabilities of all words. Some of the numbers are padding.
func phrases(t *testing.T, n int, soft bool) data.Dataset {
	t.Helper()
	x, y := tensor.New(dtype.I32, n, 5), tensor.New(dtype.I32, n, 5)
	for i := range x.I32() {
		x.I32()[i] = int32(i*i*37+i/5*11) % vocabulary
		if y.I32()[i] = (x.I32()[i]*3 + 1) % vocabulary; i%7 == 3 {
			y.I32()[i] = -1
		}
	}
	f := func(name string) []data.Field { return []data.Field{{Name: name, Shape: []int{5}, DType: dtype.I32}} }
	spec := data.Spec{Inputs: f("x"), Targets: f("y")}
	if soft {
		p := tensor.New(dtype.F32, n, 5, vocabulary)
		for i, k := range y.I32() {
			p.F32()[i*vocabulary+int(max(k, 0))] += 0.75
			p.F32()[i*vocabulary+i%vocabulary] += 0.25
		}
		y, spec.Targets = p, []data.Field{{Name: "y", Shape: []int{5, vocabulary}, DType: dtype.F32}}
	}
	ds, err := data.FromTensors(spec, []*tensor.Tensor{x}, []*tensor.Tensor{y})
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

// untied has a table and a last layer of the vocabulary.
func untied() (*nn.Model, error) {
	return nn.Sequential(nn.Embedding(vocabulary, 8), nn.TransformerBlock(2, nn.CausalAttention()), nn.Dense(vocabulary, nn.Softmax)), nil
}

// pairs looks each word's probabilities of the next up in its table: its last layer has a row for each word it may be given, and all scores of each.
func pairs() (*nn.Model, error) {
	return nn.Sequential(nn.Embedding(vocabulary, vocabulary), nn.Activate(nn.Softmax)), nil
}

// sharedTable shares its table with the last layer.
func sharedTable() (*nn.Model, error) {
	x := nn.InputOf("x", dtype.I32, 5)
	table := nn.Embedding(vocabulary, 8)
	y := nn.TransformerBlock(2, nn.CausalAttention(), nn.BlockDropout(0.1)).On(table.On(x))
	return nn.Functional([]*nn.Value{x}, []*nn.Value{nn.Activate(nn.Softmax).On(table.On(y))})
}

// Tables and last layers split over ranks compute what one process computes, up to rounding, though their rows and classes cannot be shared out evenly: with tied tables, labels smoothed and ignored, and metrics that are
// made of parts.
func TestTensorScores(t *testing.T) {
	metrics := []train.Option{train.Accuracy, train.TopK(300), train.BitsPerToken, train.Perplexity}
	adamw := func() *optim.Optimizer { return optim.AdamW(optim.Rate(0.01), optim.GlobalClipNorm(1)) }
	sgd := func() *optim.Optimizer { return optim.SGD(0.9, false, optim.Rate(0.5)) }
	for name, c := range map[string]struct {
		ranks, tensor int
		net           func() (*nn.Model, error)
		p             train.Parallel
		opt           func() *optim.Optimizer
		opts          []train.Option
		soft          bool
		split         []string
	}{
		"untied":     {ranks: 2, tensor: 2, net: untied, opt: adamw, opts: append(metrics, train.F1), split: []string{"embedding/embeddings", "dense/kernel", "dense/bias"}},
		"tied":       {ranks: 2, tensor: 2, net: sharedTable, opt: sgd, opts: metrics, split: []string{"embedding/embeddings"}},
		"two rows":   {ranks: 4, tensor: 2, net: sharedTable, p: train.Parallel{Shards: 3, Bucket: 1}, opt: adamw, opts: metrics, split: []string{"embedding/embeddings"}},
		"of four":    {ranks: 4, tensor: 4, net: untied, opt: sgd, opts: []train.Option{train.Accumulate(2)}, split: []string{"embedding/embeddings", "dense/kernel"}},
		"soft":       {ranks: 2, tensor: 2, net: untied, opt: sgd, opts: metrics, soft: true, split: []string{"embedding/embeddings", "dense/kernel"}},
		"whole":      {ranks: 2, tensor: 2, net: untied, opt: sgd, opts: []train.Option{train.MAE, train.Accuracy}, soft: true, split: []string{"dense/kernel"}},
		"zero":       {ranks: 4, tensor: 2, net: sharedTable, p: train.Parallel{Zero: 2}, opt: adamw, split: []string{"embedding/embeddings"}},
		"looked up":  {ranks: 2, tensor: 2, net: pairs, opt: sgd, opts: metrics, split: []string{"embedding/embeddings"}},
		"recomputed": {ranks: 2, tensor: 2, net: sharedTable, opt: sgd, opts: []train.Option{train.Recompute()}, split: []string{"embedding/embeddings"}},
	} {
		t.Run(name, func(t *testing.T) {
			ds, te := phrases(t, 42, c.soft), phrases(t, 21, c.soft)
			loss := train.SparseCategorical(train.Ignore(-1), train.Smooth(0.1))
			if c.soft {
				loss = train.Categorical(0.1)
			}
			fit := func(p train.Parallel) (*train.Model, *train.History, error) {
				net, err := c.net()
				if err != nil {
					return nil, nil, err
				}
				m, err := train.Compile(net, ds.Spec(), c.opt(), loss, append([]train.Option{train.Across(p), train.Threads(1), train.Seed(3)}, c.opts...)...)
				if err != nil {
					return nil, nil, err
				}
				h, err := m.Fit(context.Background(), ds, train.Epochs(2), train.BatchSize(16), train.Validate(te))
				return m, h, err
			}
			shards := max(c.p.Shards, c.ranks/c.tensor)
			one, want, err := fit(train.Parallel{Shards: shards})
			if err != nil {
				t.Fatal(err)
			}
			predicted, err := one.Predict(context.Background(), te, 4)
			if err != nil {
				t.Fatal(err)
			}
			allRanks(t, c.ranks, func(comm *dist.Comm) error {
				p := c.p
				p.Comm, p.Check, p.Tensor = comm, 1, c.tensor
				m, h, err := fit(p)
				if err != nil {
					return err
				}
				for _, s := range c.split {
					v, err := m.State().Get(s)
					if err != nil {
						return err
					}
					lo, hi := dist.Part(vocabulary, comm.Rank()%c.tensor, c.tensor)
					if sh := v.Shape(); sh[len(sh)-1] != hi-lo && sh[0] != hi-lo {
						return fmt.Errorf("rank %d has %v of %s", comm.Rank(), sh, s)
					}
				}
				y, err := m.Predict(context.Background(), te, 4)
				if err != nil {
					return err
				}
				for i := range y.Len() {
					if !(math.Abs(y.At(i)-predicted.At(i)) <= 5e-5) {
						return fmt.Errorf("prediction %d: %v, in one process %v", i, y.At(i), predicted.At(i))
					}
				}
				for i, e := range h.Epochs {
					for _, l := range e.Logs {
						if k, _ := want.Epochs[i].Log(l.Name); !(math.Abs(l.Value-k) <= 5e-5*max(1, k)) {
							return fmt.Errorf("epoch %d: %v, in one process %v", i+1, e.Logs, want.Epochs[i].Logs)
						}
					}
				}
				if err := m.Assemble(); err != nil || comm.Rank() > 0 {
					return err
				}
				for _, v := range one.State().Vars() {
					a, _ := one.State().Get(v.Name)
					b, err := m.State().Get(v.Name)
					if err != nil {
						return err
					}
					for i := range a.Len() {
						if d := math.Abs(a.At(i) - b.At(i)); !(d <= 5e-5) {
							return fmt.Errorf("%s[%d]: %v, in one process %v", v.Name, i, b.At(i), a.At(i))
						}
					}
				}
				return nil
			})
		})
	}
}

// Where all classes of a rank are ruled out (scores of -∞) the others' loss and gradients are those of one process, and finite.
func TestTensorScoresRuledOut(t *testing.T) {
	first, _ := dist.Part(vocabulary, 1, 2) // the classes from here on are rank 1's
	x, y := tensor.New(dtype.I32, 32, 5), tensor.New(dtype.I32, 32, 5)
	for i := range x.I32() {
		x.I32()[i], y.I32()[i] = int32(i*37)%vocabulary, int32(i*11%first)
	}
	f := func(name string) []data.Field { return []data.Field{{Name: name, Shape: []int{5}, DType: dtype.I32}} }
	ds, err := data.FromTensors(data.Spec{Inputs: f("x"), Targets: f("y")}, []*tensor.Tensor{x}, []*tensor.Tensor{y})
	if err != nil {
		t.Fatal(err)
	}
	fit := func(p train.Parallel) (*train.Model, *train.History, error) {
		net, err := untied()
		if err != nil {
			return nil, nil, err
		}
		m, err := train.Compile(net, ds.Spec(), optim.SGD(0.9, false, optim.Rate(0.5)), train.SparseCategoricalCrossentropy, train.Freeze("dense/bias"), train.Across(p), train.Threads(1), train.Seed(3), train.Accuracy, train.Perplexity)
		if err != nil {
			return nil, nil, err
		}
		bias, err := m.State().Get("dense/bias")
		if err != nil {
			return nil, nil, err
		}
		out := bias.F32()
		if p.Comm == nil {
			out = out[first:]
		}
		if p.Comm == nil || p.Comm.Rank() == 1 {
			for i := range out {
				out[i] = float32(math.Inf(-1))
			}
		}
		if err := m.State().Set("dense/bias", bias); err != nil {
			return nil, nil, err
		}
		h, err := m.Fit(context.Background(), ds, train.Epochs(2), train.BatchSize(16))
		return m, h, err
	}
	_, want, err := fit(train.Parallel{Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	allRanks(t, 2, func(comm *dist.Comm) error {
		_, h, err := fit(train.Parallel{Comm: comm, Tensor: 2})
		if err != nil {
			return err
		}
		for i, e := range h.Epochs {
			for _, l := range e.Logs {
				if k, _ := want.Epochs[i].Log(l.Name); !(math.Abs(l.Value-k) <= 5e-5*max(1, k)) {
					return fmt.Errorf("epoch %d: %v, in one process %v", i+1, e.Logs, want.Epochs[i].Logs)
				}
			}
		}
		return nil
	})
}
