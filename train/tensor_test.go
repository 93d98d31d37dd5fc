package train_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/compress/lora"
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

// mixed has layers of all kinds that can be split, and some that cannot.
func mixed() *nn.Model {
	return nn.Sequential(nn.Embedding(11, 8), nn.PositionEmbedding(6), nn.TransformerBlock(4, nn.KeyValueHeads(2), nn.Gated(), nn.BlockDropout(0.1), nn.SiLU, nn.CausalAttention()),
		nn.MultiHeadAttention(2, 4), nn.Flatten(), nn.Dense(6, nn.Tanh), nn.Dense(5, nn.ReLU), nn.Dense(3, nn.Softmax))
}

func fitMixed(ds data.Dataset, p train.Parallel, opt *optim.Optimizer, opts []train.Option, more ...train.FitOption) (*train.Model, *train.History, error) {
	all := append([]train.Option{train.Across(p), train.Threads(1), train.Seed(3), train.Accuracy}, opts...)
	m, err := train.Compile(mixed(), ds.Spec(), opt, train.SparseCategoricalCrossentropy, all...)
	if err != nil {
		return nil, nil, err
	}
	h, err := m.Fit(context.Background(), ds, append([]train.FitOption{train.Epochs(2), train.BatchSize(16)}, more...)...)
	return m, h, err
}

// ranksBits are the values of variables on each rank.
type ranksBits struct {
	mu   sync.Mutex
	vars []map[string]*tensor.Tensor
}

func (b *ranksBits) add(rank int, m *train.Model) error {
	own := map[string]*tensor.Tensor{}
	for _, v := range m.State().Vars() {
		t, err := m.State().Get(v.Name)
		if err != nil {
			return err
		}
		own[v.Name] = t
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.vars) <= rank {
		b.vars = append(b.vars, nil)
	}
	b.vars[rank] = own
	return nil
}

// Layers split over ranks, alone and together with shared examples, compute what one process computes, up to rounding: blocks with grouped keys, gates and dropout, and pairs of Dense layers; with norms limited, weights
// that decay, accumulated and compressed gradients, several shards a row, and state shared out. A rank has its part alone of weights and state, whole ones are the same bits on all ranks, and parts on all that have the same.
func TestTensorParallel(t *testing.T) {
	ds, te := tokens(t, 43), tokens(t, 21) // batches of 16, 16, 11
	half, err := dist.ParseScheme("bf16")
	if err != nil {
		t.Fatal(err)
	}
	onebit, err := dist.ParseScheme("onebit:2")
	if err != nil {
		t.Fatal(err)
	}
	sgd := func(set ...optim.Setting) *optim.Optimizer {
		return optim.SGD(0.9, false, append(set, optim.Rate(0.05))...)
	}
	adamw := func(set ...optim.Setting) *optim.Optimizer { return optim.AdamW(append(set, optim.Rate(0.002))...) }
	for name, c := range map[string]struct {
		ranks int
		p     train.Parallel
		opt   func() *optim.Optimizer
		opts  []train.Option
		tol   float64
	}{
		"two": {ranks: 2, p: train.Parallel{}, opt: func() *optim.Optimizer { return sgd(optim.GlobalClipNorm(1)) }},
		"each norm": {ranks: 2, p: train.Parallel{}, opt: func() *optim.Optimizer {
			return sgd(optim.ClipNorm(0.05), optim.GlobalClipNorm(0.1), optim.ClipValue(0.03))
		}},
		"four":        {ranks: 4, p: train.Parallel{Bucket: 1}, opt: func() *optim.Optimizer { return adamw(optim.ClipNorm(0.1)) }},
		"accumulated": {ranks: 4, p: train.Parallel{}, opt: func() *optim.Optimizer { return sgd(optim.GlobalClipNorm(0.2)) }, opts: []train.Option{train.Accumulate(2)}},
		"shards":      {ranks: 4, p: train.Parallel{Shards: 5}, opt: func() *optim.Optimizer { return adamw() }},
		"recomputed":  {ranks: 2, p: train.Parallel{Shards: 2}, opt: func() *optim.Optimizer { return adamw() }, opts: []train.Option{train.Recompute()}},
		"frozen":      {ranks: 2, p: train.Parallel{}, opt: func() *optim.Optimizer { return sgd(optim.GlobalClipNorm(1)) }, opts: []train.Option{train.Freeze("embedding", "transformer_block/attention", "dense")}},
		"any order":   {ranks: 4, p: train.Parallel{AnyOrder: true}, opt: func() *optim.Optimizer { return sgd() }},
		"compressed":  {ranks: 4, p: train.Parallel{Compress: half}, opt: func() *optim.Optimizer { return sgd() }, tol: 5e-3},
		"one bit":     {ranks: 4, p: train.Parallel{Compress: onebit}, opt: func() *optim.Optimizer { return optim.Adam(optim.Rate(0.002)) }, tol: 0.2},
		"zero":        {ranks: 4, p: train.Parallel{Zero: 2}, opt: func() *optim.Optimizer { return sgd() }},
		"zero of one": {ranks: 2, p: train.Parallel{Zero: 2}, opt: func() *optim.Optimizer { return adamw(optim.ClipNorm(0.1)) }},
		"zero gather": {ranks: 4, p: train.Parallel{Zero: 1, Bucket: 1}, opt: func() *optim.Optimizer { return adamw(optim.GlobalClipNorm(0.2)) }, opts: []train.Option{train.Accumulate(2)}},
		"zero shards": {ranks: 4, p: train.Parallel{Zero: 2, Shards: 4}, opt: func() *optim.Optimizer { return adamw(optim.GlobalClipNorm(0.2)) }},
	} {
		t.Run(name, func(t *testing.T) {
			shards, tol := max(c.p.Shards, c.ranks/2), max(5e-5, c.tol)
			one, want, err := fitMixed(ds, train.Parallel{Shards: shards}, c.opt(), c.opts, train.Validate(te))
			if err != nil {
				t.Fatal(err)
			}
			predicted, err := one.Predict(context.Background(), te, 4)
			if err != nil {
				t.Fatal(err)
			}
			var got ranksBits
			allRanks(t, c.ranks, func(comm *dist.Comm) error {
				p := c.p
				p.Comm, p.Check, p.Tensor = comm, 1, 2
				m, h, err := fitMixed(ds, p, c.opt(), c.opts, train.Validate(te))
				if err != nil {
					return err
				}
				if e := m.Exchange(); e.Within <= 0 || e.Waiting < e.Within {
					return fmt.Errorf("the account has %+v", e)
				}
				y, err := m.Predict(context.Background(), te, 4)
				if err != nil {
					return err
				}
				for i := range y.Len() {
					if !(math.Abs(y.At(i)-predicted.At(i)) <= tol) && name != "one bit" {
						return fmt.Errorf("prediction %d: %v, in one process %v", i, y.At(i), predicted.At(i))
					}
				}
				for i, e := range h.Epochs {
					for _, l := range e.Logs {
						if k, _ := want.Epochs[i].Log(l.Name); !(math.Abs(l.Value-k) <= tol) && name != "one bit" { // whose rounding is coarse
							return fmt.Errorf("epoch %d: %v, in one process %v", i+1, e.Logs, want.Epochs[i].Logs)
						}
					}
				}
				if err := got.add(comm.Rank(), m); err != nil {
					return err
				}
				if _, err := m.PredictBatch(tensor.New(dtype.I32, 1, 6)); err == nil || !strings.Contains(err.Error(), "Assemble") {
					return fmt.Errorf("a part of the model predicts by itself: %v", err)
				}
				if err := m.Assemble(); err != nil || comm.Rank() > 0 {
					return err
				}
				for _, v := range one.State().Vars() { // moments too
					a, _ := one.State().Get(v.Name)
					b, err := m.State().Get(v.Name)
					if err != nil {
						return err
					}
					for i := range a.Len() {
						if d := math.Abs(a.At(i) - b.At(i)); !(d <= tol) {
							return fmt.Errorf("%s[%d]: %v, in one process %v", v.Name, i, b.At(i), a.At(i))
						}
					}
				}
				_, err = m.PredictBatch(tensor.New(dtype.I32, 1, 6)) // it is whole again
				return err
			})
			less := 0 // bytes that no rank of a row has
			for _, v := range one.State().Vars() {
				if c.p.Zero > 0 && !isParam(one, v.Name) && v.Name != "random/state" && v.Name != optim.IterationVar { // each rank has segments
					sum := 0
					for _, own := range got.vars {
						if own[v.Name] != nil {
							sum += own[v.Name].Len()
						}
					}
					if sum != v.Type.Shape.Size() {
						t.Errorf("ranks have %d of %d elements of %s", sum, v.Type.Shape.Size(), v.Name)
					}
					continue
				}
				for r, own := range got.vars {
					a, same := own[v.Name], got.vars[0][v.Name]
					if !a.Shape().Equal(v.Type.Shape) {
						same = got.vars[r%2][v.Name]
						if r < 2 {
							less += v.Type.Bytes()/2 - len(a.Bytes())
						}
					}
					if string(a.Bytes()) != string(same.Bytes()) {
						t.Errorf("%s has other bits on rank %d", v.Name, r)
					}
				}
			}
			if less != 0 {
				t.Errorf("the parts of a row have %d bytes less than the whole", less)
			}
			for _, split := range []string{"transformer_block/attention/query/kernel", "transformer_block/attention/value/bias", "transformer_block/attention/attention_output/kernel", "transformer_block/feed_forward/gate/kernel",
				"transformer_block/feed_forward/output/kernel", "multi_head_attention/key/kernel", "dense/kernel", "dense/bias", "dense_1/kernel"} {
				v, err := one.State().Get(split)
				if err != nil {
					t.Fatal(err)
				}
				if got.vars[0][split].Len() == v.Len() {
					t.Errorf("%s: a rank has %d of %d elements", split, got.vars[0][split].Len(), v.Len())
				}
			}
		})
	}
}

func isParam(m *train.Model, name string) bool {
	return slices.ContainsFunc(m.Params(), func(p nn.Param) bool { return p.Name == name })
}

// Settings that do not go together, and models of which nothing can be split.
func TestTensorRefuses(t *testing.T) {
	tr, _ := load(t, 64)
	for _, c := range []struct {
		p    train.Parallel
		net  *nn.Model
		want string
	}{
		{train.Parallel{Tensor: 3}, small(), "do not divide 2 ranks"},
		{train.Parallel{Tensor: 2}, nn.Sequential(nn.Flatten(), nn.Dense(10, nn.Softmax)), "no layer of this model can be split over 2 ranks"},
		{train.Parallel{Tensor: 2, Local: 2}, small(), "local steps"},
		{train.Parallel{Tensor: -2}, small(), "-2 ranks"},
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

// A training goes on from its checkpoint on another number of ranks, with layers split over more, fewer or none of them, as one process does that nobody has disturbed, up to rounding. Checkpoints are whole.
func TestTensorResumes(t *testing.T) {
	ds := tokens(t, 40)
	opt := func() *optim.Optimizer { return optim.AdamW(optim.Rate(0.002), optim.GlobalClipNorm(1)) }
	one, _, err := fitMixed(ds, train.Parallel{Shards: 2}, opt(), []train.Option{train.Accumulate(2)}, train.Epochs(8), train.MaxSteps(27))
	if err != nil {
		t.Fatal(err)
	}
	var saved *checkpoint.State
	cases := []struct{ ranks, tensor, zero int }{{2, 2, 0}, {1, 2, 0}, {2, 1, 0}, {4, 2, 0}, {4, 4, 0}, {4, 2, 1}, {4, 2, 2}, {2, 2, 1}, {2, 2, 0}} // 3 steps more each, which end between two updates
	for i, c := range cases {
		from := saved
		allRanks(t, c.ranks, func(comm *dist.Comm) error {
			p := train.Parallel{Comm: comm, Shards: 2, Tensor: c.tensor, Zero: c.zero, Check: 1}
			m, err := train.Compile(mixed(), ds.Spec(), opt(), train.SparseCategoricalCrossentropy, train.Across(p), train.Threads(1), train.Seed(3), train.Accuracy, train.Accumulate(2))
			if err != nil {
				return err
			}
			keep := &keepLast{}
			opts := []train.FitOption{train.Epochs(8), train.BatchSize(16), train.MaxSteps(int64(3 * (i + 1))), train.Callbacks(keep)}
			if from != nil {
				p, err := m.Restore(from)
				if comm.Rank() > 0 {
					p, err = m.RestoreProgress(from)
				}
				if err != nil {
					return err
				}
				opts = append(opts, train.From(p))
			}
			if _, err := m.Fit(context.Background(), ds, opts...); err != nil || comm.Rank() > 0 {
				return err
			}
			saved = keep.s // read by the next ranks, when these have ended
			return nil
		})
		for _, v := range one.State().Vars() {
			if w := saved.Tensor(v.Name); w == nil || !w.Shape().Equal(v.Type.Shape) {
				t.Fatalf("%+v: the checkpoint has no whole %s", c, v.Name)
			}
		}
	}
	for _, v := range one.State().Vars() {
		a, _ := one.State().Get(v.Name)
		b := saved.Tensor(v.Name)
		for i := range a.Len() {
			if d := math.Abs(a.At(i) - b.At(i)); !(d <= 5e-5) {
				t.Fatalf("%s[%d]: %v, in one process %v", v.Name, i, b.At(i), a.At(i))
			}
		}
	}
	wider := nn.Sequential(nn.Embedding(11, 8), nn.TransformerBlock(2, nn.Hidden(64)), nn.Flatten(), nn.Dense(3, nn.Softmax)) // of which a part has the shape of the whole here
	allRanks(t, 2, func(comm *dist.Comm) error {
		m, err := train.Compile(nn.Sequential(nn.Embedding(11, 8), nn.TransformerBlock(2, nn.Hidden(128)), nn.Flatten(), nn.Dense(3, nn.Softmax)), ds.Spec(), optim.SGD(0, false), train.SparseCategoricalCrossentropy,
			train.Across(train.Parallel{Comm: comm, Tensor: 2}))
		if err != nil {
			return err
		}
		small, err := train.Compile(wider, ds.Spec(), optim.SGD(0, false), train.SparseCategoricalCrossentropy)
		if err != nil {
			return err
		}
		keep := &keepLast{}
		if _, err := small.Fit(context.Background(), ds, train.Callbacks(keep)); err != nil {
			return err
		}
		if _, err := m.Restore(keep.s); err == nil || !strings.Contains(err.Error(), "feed_forward/hidden/kernel") {
			return fmt.Errorf("a model of another width was taken: %v", err)
		}
		return nil
	})
}

// A layer that is a half of a pair in one place and stands alone in another keeps whole weights; its partner's are in parts.
func TestTensorSharedLayer(t *testing.T) {
	fit := func(p train.Parallel) (*train.Model, error) {
		both := nn.Dense(4, nn.Tanh).Named("both")
		m, err := train.Compile(nn.Sequential(both, nn.Dense(4).Named("half"), both, nn.Activate(nn.Softmax)), points(4).Spec(), optim.SGD(0.9, false, optim.GlobalClipNorm(0.1)), train.SparseCategoricalCrossentropy,
			train.Across(p), train.Threads(1), train.Seed(3))
		if err == nil {
			_, err = m.Fit(context.Background(), points(64))
		}
		return m, err
	}
	one, err := fit(train.Parallel{})
	if err != nil {
		t.Fatal(err)
	}
	allRanks(t, 2, func(comm *dist.Comm) error {
		m, err := fit(train.Parallel{Comm: comm, Tensor: 2, Check: 1})
		if err != nil {
			return err
		}
		for name, want := range map[string]string{"both/kernel": "[4 4]", "both/bias": "[4]", "half/kernel": "[2 4]", "half/bias": "[4]"} {
			if v, err := m.State().Get(name); err != nil || fmt.Sprint(v.Shape()) != want {
				return fmt.Errorf("%s is %v, not %s: %v", name, v, want, err)
			}
		}
		if err := m.Assemble(); err != nil || comm.Rank() > 0 {
			return err
		}
		return alike(one, m, 1e-6)
	})
}

// A rank whose part is not that of the others that have it is found, and so is one whose whole weights are not.
func TestTensorFindsDivergedParts(t *testing.T) {
	ds := tokens(t, 64)
	for name, ranks := range map[string]string{"dense/kernel": "[5]", "embedding/embeddings": "[5]", "dense_1/bias": "[5]"} {
		for r, err := range everyRank(t, 6, func(comm *dist.Comm) error {
			spoil := train.Callbacks(&spoiler{name: name, on: comm.Rank() == 5})
			_, _, err := fitMixed(ds, train.Parallel{Comm: comm, Tensor: 2, Check: 2}, optim.SGD(0, false), nil, train.BatchSize(24), spoil)
			return err
		}) {
			var d *train.DivergedError
			if !errors.As(err, &d) || fmt.Sprint(d.Ranks) != ranks {
				t.Errorf("%s: rank %d: %v", name, r, err)
			}
		}
	}
}

// spoiler changes a number of a variable after the first step.
type spoiler struct {
	train.Hooks
	name string
	on   bool
}

func (s *spoiler) AfterStep(t *train.Training) error {
	if !s.on || t.Steps != 1 {
		return nil
	}
	v, err := t.Model.State().Get(s.name)
	if err != nil {
		return err
	}
	v.Set(0, v.At(0)+1)
	return t.Model.State().Set(s.name, v)
}

// Model files, weights that are taken over, layers that are frozen and computed once, and low-rank changes that are merged go with layers that are split.
func TestTensorAdapts(t *testing.T) {
	ctx, ds := context.Background(), tokens(t, 32)
	one, _, err := fitMixed(ds, train.Parallel{}, optim.Adam(), nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "m.safetensors")
	if err := one.Save(path); err != nil {
		t.Fatal(err)
	}
	want, err := one.Evaluate(ctx, ds, 8)
	if err != nil {
		t.Fatal(err)
	}
	near := func(m *train.Model, want []train.Log) error {
		got, err := m.Evaluate(ctx, ds, 8)
		if err != nil {
			return err
		}
		if math.Abs(got[0].Value-want[0].Value) > 1e-5 {
			return fmt.Errorf("%v, in one process %v", got, want)
		}
		return nil
	}
	heads := func(p train.Parallel) (*train.Model, error) {
		m, err := train.Compile(mixed(), ds.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Across(p), train.Threads(1), train.Seed(3), train.Freeze("embedding", "position_embedding"))
		if err != nil {
			return nil, err
		}
		if taken, _, err := m.LoadWeights(path); err != nil || len(taken) != len(m.Params()) {
			return nil, fmt.Errorf("%v: %w", taken, err)
		}
		d, err := m.Divide()
		if err != nil {
			return nil, err
		}
		features, err := d.Body.Predict(ctx, ds, 32)
		if err != nil {
			return nil, err
		}
		y := tensor.New(dtype.I32, 32)
		for i := range 32 {
			y.I32()[i] = int32(i % 3)
		}
		once, err := data.FromTensors(d.Head.Spec, []*tensor.Tensor{features}, []*tensor.Tensor{y})
		if err != nil {
			return nil, err
		}
		if _, err := d.Head.Fit(ctx, once); err != nil {
			return nil, err
		}
		return m, m.Join(d)
	}
	head, err := heads(train.Parallel{})
	if err != nil {
		t.Fatal(err)
	}
	wantHead, err := head.Evaluate(ctx, ds, 8)
	if err != nil {
		t.Fatal(err)
	}
	merged := func(p train.Parallel) (*train.Model, error) {
		m, h, err := fitMixed(ds, p, optim.Adam(optim.Rate(0.01)), []train.Option{train.Wrapped(&lora.Adapter{Rank: 2, On: []string{"*kernel"}})})
		if err != nil || len(h.Epochs) != 2 {
			return nil, err
		}
		if err := m.Merge(); err != nil {
			return nil, err
		}
		_, err = m.Fit(ctx, ds, train.BatchSize(16))
		return m, err
	}
	low, err := merged(train.Parallel{})
	if err != nil {
		t.Fatal(err)
	}
	wantLow, err := low.Evaluate(ctx, ds, 8)
	if err != nil {
		t.Fatal(err)
	}
	allRanks(t, 2, func(comm *dist.Comm) error {
		p := train.Parallel{Comm: comm, Tensor: 2}
		m, err := train.Load(path, train.Across(p), train.Threads(1))
		if err != nil {
			return err
		}
		if err := near(m, want); err != nil {
			return fmt.Errorf("a model file: %w", err)
		}
		if m, err = heads(p); err == nil {
			err = near(m, wantHead)
		}
		if err != nil {
			return fmt.Errorf("layers that are computed once: %w", err)
		}
		if m, err = merged(p); err == nil {
			err = near(m, wantLow)
		}
		if err != nil {
			return fmt.Errorf("merged: %w", err)
		}
		if v, err := m.State().Get("dense/kernel"); err != nil || v.Shape()[1] != 3 {
			return fmt.Errorf("merged weights are not in parts: %v %v", v, err)
		}
		return nil
	})
}
