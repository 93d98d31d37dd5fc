package train_test

import (
	"bytes"
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
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// staged is a model for the tests of pipelines.
type staged struct {
	name   string
	net    func(t *testing.T) *nn.Model
	ds     func(t *testing.T) (tr, te data.Dataset)
	opt    func() *optim.Optimizer
	cuts   []string
	opts   []train.Option
	nearly bool // norms are limited together: equal up to rounding
	folded bool // outside of training a normalisation is folded into weights, unless it lies behind a cut: equal up to rounding
}

func pictures(t *testing.T) (tr, te data.Dataset) { return load(t, 77) } // batches of 32: the last has 13

// sentences make batches of 16, the last of which has 3: fewer than there are shards.
func sentences(t *testing.T) (tr, te data.Dataset) { return tokens(t, 35), tokens(t, 9) }

// around has ways around layers that go over two cuts, and a layer without effect.
func around(t *testing.T) *nn.Model {
	x := nn.Input(28, 28, 1)
	a := nn.Dense(6, nn.Tanh).Named("a").On(nn.Flatten().On(x))
	b := nn.Dense(6, nn.ReLU).Named("b").On(a)
	c := nn.Dense(6, nn.Tanh).Named("c").On(nn.Add().Named("ab").On(a, b))
	d := nn.Dense(6, nn.Tanh).Named("d").On(nn.Concatenate().Named("all").On(a, b, c))
	m, err := nn.Functional([]*nn.Value{x}, []*nn.Value{nn.Dense(10, nn.Softmax).Named("y").On(nn.Add().Named("ad").On(a, d))})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// tied applies a layer in the first stage and in the last, and reads the input in the last again.
func tied(t *testing.T) *nn.Model {
	x := nn.InputOf("x", dtype.I32, 6)
	e := nn.Embedding(11, 8).Named("embed")
	both := nn.Dense(8, nn.Tanh).Named("both")
	h := both.On(e.On(x))
	h = nn.TransformerBlock(2, nn.BlockDropout(0.1)).Named("block").On(h)
	h = both.On(nn.Add().Named("sum").On(h, e.On(x)))
	m, err := nn.Functional([]*nn.Value{x}, []*nn.Value{nn.Dense(3, nn.Softmax).Named("y").On(nn.Flatten().On(h))})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func gpt(*testing.T) *nn.Model {
	return nn.Sequential(nn.Embedding(11, 8), nn.PositionEmbedding(6), nn.TransformerBlock(2, nn.BlockDropout(0.1), nn.CausalAttention()), nn.TransformerBlock(2, nn.KeyValueHeads(1), nn.Gated(), nn.SiLU),
		nn.TransformerBlock(2, nn.BlockDropout(0.1)), nn.LayerNormalization(), nn.Flatten(), nn.Dense(3, nn.Softmax))
}

func stagedModels() []staged {
	sgd := func() *optim.Optimizer { return optim.SGD(0.9, false, optim.Rate(0.05)) }
	return []staged{
		{name: "convolutions", net: func(*testing.T) *nn.Model { return everything() }, ds: pictures, opt: func() *optim.Optimizer { return optim.Adam(optim.ClipNorm(1)) }, folded: true},
		{name: "gpt", net: gpt, ds: sentences, opt: func() *optim.Optimizer { return optim.AdamW() }, opts: []train.Option{train.Accumulate(2)}},
		{name: "around", net: around, ds: pictures, opt: sgd, cuts: []string{"b", "ab", "all"}},
		{name: "tied", net: tied, ds: sentences, opt: sgd, cuts: []string{"block", "sum", "both_end"}},
		{name: "limited", net: gpt, ds: sentences, opt: func() *optim.Optimizer { return optim.SGD(0.9, false, optim.GlobalClipNorm(0.5)) }, nearly: true},
		{name: "recomputed", net: gpt, ds: sentences, opt: sgd, opts: []train.Option{train.Recompute()}},
		{name: "bf16", net: gpt, ds: sentences, opt: sgd, opts: []train.Option{train.DTypePolicy(nn.MixedBFloat16)}},
		{name: "frozen", net: gpt, ds: sentences, opt: sgd, opts: []train.Option{train.Freeze("embedding", "position_embedding", "transformer_block")}},
	}
}

func (s staged) fit(t *testing.T, p train.Parallel, more ...train.FitOption) (*train.Model, *train.History, []byte, error) {
	tr, te := s.ds(t)
	opts := append([]train.Option{train.Across(p), train.Threads(1), train.Seed(3), train.Accuracy}, s.opts...)
	m, err := train.Compile(s.net(t), tr.Spec(), s.opt(), train.SparseCategoricalCrossentropy, opts...)
	if err != nil {
		return nil, nil, nil, err
	}
	h, err := m.Fit(context.Background(), tr, append([]train.FitOption{train.Epochs(2), train.BatchSize(16), train.Validate(te)}, more...)...)
	if err != nil {
		return nil, nil, nil, err
	}
	y, err := m.Predict(context.Background(), te, 4)
	if err != nil {
		return nil, nil, nil, err
	}
	return m, h, y.Bytes(), nil
}

// alike compares all variables of two models.
func alike(a, b *train.Model, tol float64) error {
	for _, v := range a.State().Vars() {
		x, err := a.State().Get(v.Name)
		if err != nil {
			return err
		}
		y, err := b.State().Get(v.Name)
		if err != nil {
			return err
		}
		if bytes.Equal(x.Bytes(), y.Bytes()) {
			continue
		}
		if tol == 0 {
			return fmt.Errorf("%s has other bits", v.Name)
		}
		for i := range x.Len() {
			if d := math.Abs(x.At(i) - y.At(i)); !(d <= tol) {
				return fmt.Errorf("%s[%d]: %v and %v", v.Name, i, x.At(i), y.At(i))
			}
		}
	}
	return nil
}

// Layers shared out as stages leave the bits of one process with as many shards: weights, optimizer state, losses, metrics, validation and predictions, alone and together with shared examples, whatever goes over
// the cuts. A stage has the variables of its own layers alone, and all arithmetic is done once.
func TestPipelineGivesTheSameBits(t *testing.T) {
	for _, s := range stagedModels() {
		t.Run(s.name, func(t *testing.T) {
			one, want, predicted, err := s.fit(t, train.Parallel{Shards: 5})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct{ stages, copies int }{{2, 1}, {3, 1}, {2, 2}} {
				if c.copies > 1 && s.name != "convolutions" && s.name != "gpt" && s.name != "limited" {
					continue
				}
				var mu sync.Mutex
				variables := map[string]int{}
				allRanks(t, c.stages*c.copies, func(comm *dist.Comm) error {
					p := train.Parallel{Comm: comm, Shards: 5, Pipeline: c.stages, Check: 1, Bucket: 1}
					if s.cuts != nil {
						p.Cuts = slices.DeleteFunc(slices.Clone(s.cuts), func(n string) bool { return n == "both_end" })[:c.stages-1]
					}
					m, h, y, err := s.fit(t, p)
					if err != nil {
						return err
					}
					mu.Lock()
					for _, v := range m.State().Vars() {
						variables[v.Name]++
					}
					mu.Unlock()
					if !s.nearly && !s.folded && !bytes.Equal(y, predicted) {
						return fmt.Errorf("other predictions")
					}
					for i, e := range h.Epochs {
						if s.nearly {
							a, _ := e.Log("loss")
							b, _ := want.Epochs[i].Log("loss")
							if math.Abs(a-b) > 1e-5 {
								return fmt.Errorf("epoch %d: loss %v, in one process %v", i+1, a, b)
							}
							continue
						}
						got, want := e.Logs, want.Epochs[i].Logs
						if n := len(got) / 2; s.folded { // those of validation come last
							got, want = got[:n], want[:n]
						}
						if fmt.Sprint(got) != fmt.Sprint(want) {
							return fmt.Errorf("epoch %d: %v, in one process %v", i+1, got, want)
						}
					}
					if len(m.Stages()) != c.stages {
						return fmt.Errorf("stages %v", m.Stages())
					}
					if err := m.Assemble(); err != nil || comm.Rank() > 0 {
						return err
					}
					tol := 0.0
					if s.nearly {
						tol = 1e-5
					}
					return alike(one, m, tol)
				})
				for _, v := range one.State().Vars() {
					n := c.copies
					if v.Name == "random/state" || v.Name == optim.IterationVar {
						n *= c.stages
					}
					if variables[v.Name] != n {
						t.Errorf("%d stages, %d copies: %d ranks have %s", c.stages, c.copies, variables[v.Name], v.Name)
					}
				}
			}
		})
	}
}

// A training goes on with other numbers of stages, of copies, and in one process, with the bits of one left alone: a checkpoint is whole.
func TestPipelineResumesOnOtherStages(t *testing.T) {
	tr, _ := load(t, 77)
	fit := func(c *dist.Comm, stages int, from *checkpoint.State, steps int64) (*train.Model, *checkpoint.State, error) {
		m, err := train.Compile(everything(), tr.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Across(train.Parallel{Comm: c, Shards: 4, Pipeline: stages}), train.Threads(1), train.Seed(3), train.Accumulate(2))
		if err != nil {
			return nil, nil, err
		}
		keep := &keepLast{}
		opts := []train.FitOption{train.Epochs(3), train.BatchSize(32), train.MaxSteps(steps), train.Callbacks(keep)}
		if from != nil {
			p, err := m.RestoreProgress(from)
			if c == nil || c.Rank() == 0 { // the others are given theirs
				p, err = m.Restore(from)
			}
			if err != nil {
				return nil, nil, err
			}
			opts = append(opts, train.From(p))
		}
		if _, err := m.Fit(context.Background(), tr, opts...); err != nil {
			return nil, nil, err
		}
		return m, keep.s, m.Assemble()
	}
	want, _, err := fit(nil, 0, nil, 9)
	if err != nil {
		t.Fatal(err)
	}
	var saved *checkpoint.State
	for i, c := range []struct{ ranks, stages int }{{2, 2}, {4, 2}, {3, 3}, {1, 3}, {2, 1}} {
		var mu sync.Mutex
		from := saved
		allRanks(t, c.ranks, func(comm *dist.Comm) error {
			m, s, err := fit(comm, c.stages, from, int64(min(9, 2*(i+1))))
			if err != nil || comm.Rank() > 0 {
				return err
			}
			mu.Lock()
			saved = s
			mu.Unlock()
			if i == 4 {
				return alike(want, m, 0)
			}
			path := filepath.Join(t.TempDir(), "m.safetensors")
			if err := m.Save(path); err != nil {
				return err
			}
			again, err := train.Load(path)
			if err != nil {
				return err
			}
			return alike(again, m, 0)
		})
	}
}

// Without Assemble the model of a rank is a part, and says so; with it, rank 0 has what one process has.
func TestPipelineIsAPart(t *testing.T) {
	tr, te := load(t, 40)
	allRanks(t, 2, func(c *dist.Comm) error {
		m, err := train.Compile(everything(), tr.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Across(train.Parallel{Comm: c, Pipeline: 2}), train.Threads(1), train.Accuracy)
		if err != nil {
			return err
		}
		if m.Shards() != 8 {
			return fmt.Errorf("%d micro-batches", m.Shards())
		}
		a, err := m.StartAccount(nil)
		if err != nil {
			return err
		}
		if _, err := m.Fit(context.Background(), tr, train.BatchSize(16)); err != nil {
			return err
		}
		l, err := a.Ledger()
		if err != nil {
			return err
		}
		ledgers, err := dist.Gather(c, l)
		if err != nil {
			return err
		}
		if e := m.Exchange(); e.Steps != 3 || e.Sent == 0 || e.Received == 0 || e.Bubble <= 0 || e.Bubble > e.Waiting {
			return fmt.Errorf("exchange %+v", e)
		}
		x, y := tr.Spec().Tensors(2)
		if _, err := m.Step(x, y, 0.1); err == nil || !strings.Contains(err.Error(), "Assemble") {
			return fmt.Errorf("a step alone: %v", err)
		}
		if _, err := m.PredictBatch(x...); err == nil || !strings.Contains(err.Error(), "Assemble") {
			return fmt.Errorf("a prediction alone: %v", err)
		}
		if _, err := m.Evaluate(context.Background(), te, 8); err != nil { // of 10: one has fewer
			return err
		}
		if err := m.Assemble(); err != nil || c.Rank() > 0 {
			return err
		}
		one, err := train.Compile(everything(), tr.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Across(train.Parallel{Shards: 8}), train.Threads(1), train.Accuracy)
		if err != nil {
			return err
		}
		b, err := one.StartAccount(nil)
		if err != nil {
			return err
		}
		if _, err := one.Fit(context.Background(), tr, train.BatchSize(16)); err != nil {
			return err
		}
		k, err := b.Ledger()
		if err != nil {
			return err
		}
		if got := ledgers[0].Cost.FLOPs + ledgers[1].Cost.FLOPs; got < k.Cost.FLOPs || float64(got) > 1.001*float64(k.Cost.FLOPs) {
			return fmt.Errorf("stages ask for %d FLOPs, one process for %d", got, k.Cost.FLOPs)
		}
		return alike(one, m, 0)
	})
}

// What does not go together is refused by every rank, with the flag's name.
func TestPipelineRefuses(t *testing.T) {
	tr, _ := load(t, 64)
	scheme, err := dist.ParseScheme("bf16")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		p    train.Parallel
		want string
		opts []train.Option
	}{
		{p: train.Parallel{Pipeline: -1}, want: "-1 pipeline stages"},
		{p: train.Parallel{Pipeline: 3}, want: "start a multiple of 3"},
		{p: train.Parallel{Pipeline: 2, Zero: 1}, want: "--zero 1"},
		{p: train.Parallel{Pipeline: 2, Tensor: 2}, want: "--tensor 2"},
		{p: train.Parallel{Pipeline: 2, Local: 3}, want: "--local-steps 3"},
		{p: train.Parallel{Pipeline: 2, Compress: scheme}, want: "--compress bf16"},
		{p: train.Parallel{Pipeline: 2, AnyOrder: true}, want: "--sums any"},
		{p: train.Parallel{Pipeline: 2, SyncNorm: true}, want: "--sync-batch-norm"},
		{p: train.Parallel{Pipeline: 2, Cuts: []string{"dense", "dense_1"}}, want: "must be 3 stages"},
		{p: train.Parallel{Pipeline: 2, Cuts: []string{"dens"}}, want: `no layer "dens"`},
		{p: train.Parallel{Pipeline: 2, Cuts: []string{"conv2d"}}, want: "begins with layer"},
		{p: train.Parallel{Pipeline: 4, Cuts: []string{"dense", "flatten", "dense_1"}}, want: "does not come after"},
		{p: train.Parallel{Pipeline: 2, Shards: -1}, want: "-1 shards"},
		{p: train.Parallel{Pipeline: 2}, opts: []train.Option{train.Distil(train.Teacher{Model: compile(t), Temperature: 1, Weight: 0.5})}, want: "a teacher"},
	} {
		n := max(2, c.p.Pipeline/2*2)
		for _, err := range everyRank(t, n, func(comm *dist.Comm) error {
			p := c.p
			p.Comm = comm
			m, err := train.Compile(everything(), tr.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, append(c.opts, train.Across(p))...)
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
	for _, err := range everyRank(t, 9, func(comm *dist.Comm) error {
		_, err := train.Compile(everything(), tr.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Across(train.Parallel{Comm: comm, Pipeline: 9}))
		return err
	}) {
		if err == nil || !strings.Contains(err.Error(), "8 layers cannot be cut into 9") {
			t.Errorf("%v", err)
		}
	}
}

// A loss that is no number names the layer on the rank that has it; the others end too.
func TestPipelineNamesTheLayerOfANaN(t *testing.T) {
	tr, _ := load(t, 64)
	for _, layer := range []string{"conv2d", "dense_1"} {
		named := 0
		for r, err := range everyRank(t, 2, func(c *dist.Comm) error {
			m, err := train.Compile(everything(), tr.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Across(train.Parallel{Comm: c, Pipeline: 2, Cuts: []string{"flatten"}}), train.Threads(1))
			if err != nil {
				return err
			}
			if w, err := m.State().Get(layer + "/kernel"); err == nil {
				w.Set(3, math.Inf(1))
				if err := m.State().Set(layer+"/kernel", w); err != nil {
					return err
				}
			}
			_, err = m.Fit(context.Background(), tr)
			return err
		}) {
			if err == nil || !strings.Contains(err.Error(), "the loss is") {
				t.Fatalf("%s: rank %d: %v", layer, r, err)
			}
			if strings.Contains(err.Error(), "layer "+layer) {
				named++
			}
		}
		if named != 1 {
			t.Errorf("%s: %d ranks name the layer", layer, named)
		}
	}
}

// When a rank dies the others end with an error, whatever they are at.
func TestPipelineLosesARank(t *testing.T) {
	tr, _ := load(t, 200)
	for dead := range 3 {
		errs := everyRank(t, 3, func(c *dist.Comm) error {
			m, err := train.Compile(everything(), tr.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Across(train.Parallel{Comm: c, Pipeline: 3}), train.Threads(1))
			if err != nil {
				return err
			}
			cs := train.Callbacks()
			if c.Rank() == dead {
				cs = train.Callbacks(&dies{at: 3})
			}
			_, err = m.Fit(context.Background(), tr, cs)
			return err
		})
		for r, err := range errs {
			if r != dead && !errors.Is(err, dist.ErrLost) {
				t.Errorf("rank %d died, rank %d: %v", dead, r, err)
			}
		}
	}
}

type dies struct {
	train.Hooks
	at int64
}

func (d *dies) AfterStep(t *train.Training) error {
	if t.Steps == d.at {
		return errors.New("dies")
	}
	return nil
}
