package train_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/compress/lora"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// digitsSpec is that of the data.
var digitsSpec data.Spec

// plainRule is everything() with an optimizer that limits no norms: then shared state has the bits of whole state.
func plainRule(c *dist.Comm, p train.Parallel, opt *optim.Optimizer, opts ...train.Option) (*train.Model, error) {
	p.Comm = c
	return train.Compile(everything(), digitsSpec, opt, train.SparseCategoricalCrossentropy, append([]train.Option{train.Across(p), train.Threads(1), train.Seed(3), train.Accuracy}, opts...)...)
}

// With the optimizer's state and the gradients shared out, weights, losses and checkpoints are the bits of one process, for any number of ranks, buckets and accumulated batches.
func TestZeroGivesTheSameBits(t *testing.T) {
	tr, te := load(t, 141)
	digitsSpec = tr.Spec()
	for _, c := range []struct {
		name       string
		opt        func() *optim.Optimizer
		accumulate int
	}{
		{"adamw", func() *optim.Optimizer { return optim.AdamW(optim.ClipValue(0.01)) }, 1},
		{"momentum", func() *optim.Optimizer { return optim.SGD(0.9, true) }, 2},
	} {
		fit := func(comm *dist.Comm, p train.Parallel) (*train.Model, *checkpoint.State, string, error) {
			m, err := plainRule(comm, p, c.opt(), train.Accumulate(c.accumulate))
			if err != nil {
				return nil, nil, "", err
			}
			keep := &keepLast{}
			h, err := m.Fit(context.Background(), tr, train.BatchSize(32), train.Validate(te), train.Callbacks(keep))
			if err != nil {
				return nil, nil, "", err
			}
			text := ""
			for _, e := range h.Epochs {
				text += fmt.Sprint(e.Logs)
			}
			return m, keep.s, text, nil
		}
		for ranks := 2; ranks <= 4; ranks++ {
			one, wantState, wantText, err := fit(nil, train.Parallel{Shards: ranks})
			if err != nil {
				t.Fatal(err)
			}
			want := weights(t, one)
			if ranks == 4 && c.accumulate > 1 {
				continue
			}
			for _, p := range []train.Parallel{{Zero: 1, Bucket: ranks % 2}, {Zero: 2, Bucket: 1 - ranks%2}} {
				own := make([]int, ranks)
				allRanks(t, ranks, func(comm *dist.Comm) error {
					p := p
					p.Check = 1
					m, s, text, err := fit(comm, p)
					switch {
					case err != nil:
						return err
					case weights(t, m) != want:
						return fmt.Errorf("%s, stage %d, bucket %d: other weights than one process", c.name, p.Zero, p.Bucket)
					case text != wantText:
						return fmt.Errorf("%s: history %s, of one process %s", c.name, text, wantText)
					case comm.Rank() == 0 && tensorBits(s) != tensorBits(wantState):
						return fmt.Errorf("%s, stage %d: other checkpoint than one process", c.name, p.Zero)
					}
					own[comm.Rank()] = m.OptimizerBytes()
					return nil
				})
				all := 0
				for _, n := range own {
					all += n - 8 // each counts the steps
					if 2*n > 3*one.OptimizerBytes()/ranks+4096 {
						t.Errorf("%s: a rank of %d has %d bytes of %d", c.name, ranks, n, one.OptimizerBytes())
					}
				}
				if all+8 != one.OptimizerBytes() {
					t.Errorf("%s: together the ranks have %d bytes of state, one process %d", c.name, all+8, one.OptimizerBytes())
				}
			}
		}
	}
}

// Ranks that have several shards each report the losses of one process.
func TestZeroOfManyShards(t *testing.T) {
	tr, _ := load(t, 96)
	digitsSpec = tr.Spec()
	fit := func(c *dist.Comm, zero int) (*train.Model, *train.History, error) {
		m, err := plainRule(c, train.Parallel{Shards: 5, Zero: zero}, optim.Adam())
		if err != nil {
			return nil, nil, err
		}
		h, err := m.Fit(context.Background(), tr, train.Epochs(2), train.BatchSize(32))
		return m, h, err
	}
	one, want, err := fit(nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	bits := weights(t, one)
	for zero := 1; zero <= 2; zero++ {
		allRanks(t, 2, func(c *dist.Comm) error {
			m, h, err := fit(c, zero)
			if err != nil {
				return err
			}
			if weights(t, m) != bits || fmt.Sprint(h.Epochs[1].Logs) != fmt.Sprint(want.Epochs[1].Logs) {
				return fmt.Errorf("stage %d: %v, of one process %v", zero, h.Epochs[1].Logs, want.Epochs[1].Logs)
			}
			return nil
		})
	}
}

// weights are the bits of a model's parameters.
func weights(t *testing.T, m *train.Model) string {
	var b strings.Builder
	for _, p := range m.Params() {
		v, err := m.State().Get(p.Name)
		if err != nil {
			t.Error(err)
			return ""
		}
		b.Write(v.Bytes())
	}
	return b.String()
}

func tensorBits(s *checkpoint.State) string {
	var b strings.Builder
	for _, v := range s.Tensors {
		b.WriteString(v.Name)
		b.Write(v.Value.Bytes())
	}
	return b.String()
}

// A training goes on from its checkpoint on another number of ranks, with state shared out in another way or not at all, with the same bits.
func TestZeroResumes(t *testing.T) {
	tr, _ := load(t, 130)
	digitsSpec = tr.Spec()
	fit := func(c *dist.Comm, zero int, from *checkpoint.State, steps int64) (string, *checkpoint.State, error) {
		m, err := plainRule(c, train.Parallel{Shards: 4, Zero: zero}, optim.Adam(), train.Accumulate(2))
		if err != nil {
			return "", nil, err
		}
		keep := &keepLast{}
		opts := []train.FitOption{train.Epochs(4), train.BatchSize(32), train.MaxSteps(steps), train.Callbacks(keep)}
		if from != nil {
			p, err := m.Restore(from)
			if c != nil && c.Rank() > 0 {
				p, err = m.RestoreProgress(from)
			}
			if err != nil {
				return "", nil, err
			}
			opts = append(opts, train.From(p))
		}
		if _, err := m.Fit(context.Background(), tr, opts...); err != nil {
			return "", nil, err
		}
		return weights(t, m), keep.s, nil
	}
	want, _, err := fit(nil, 0, nil, 15)
	if err != nil {
		t.Fatal(err)
	}
	var saved *checkpoint.State
	for i, c := range []struct{ ranks, zero int }{{2, 1}, {4, 2}, {3, 2}, {2, 0}, {1, 1}} { // 3 steps more each
		var mu sync.Mutex
		from := saved
		allRanks(t, c.ranks, func(comm *dist.Comm) error {
			w, s, err := fit(comm, c.zero, from, int64(3*(i+1)))
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if comm.Rank() == 0 {
				saved = s
			}
			if i == 4 && w != want {
				return errors.New("other bits than one process undisturbed")
			}
			return nil
		})
	}
}

// Where norms are limited they are summed up over ranks: equal up to rounding.
func TestZeroLimitsNorms(t *testing.T) {
	tr, _ := load(t, 96)
	digitsSpec = tr.Spec()
	rule := func() *optim.Optimizer {
		return optim.SGD(0.9, false, optim.ClipNorm(0.05), optim.GlobalClipNorm(0.08))
	}
	fit := func(c *dist.Comm, p train.Parallel) (*train.Model, error) {
		m, err := plainRule(c, p, rule(), train.Accumulate(2))
		if err == nil {
			_, err = m.Fit(context.Background(), tr, train.Epochs(2))
		}
		return m, err
	}
	one, err := fit(nil, train.Parallel{Shards: 3})
	if err != nil {
		t.Fatal(err)
	}
	for _, stage := range []int{1, 2} {
		allRanks(t, 3, func(c *dist.Comm) error {
			m, err := fit(c, train.Parallel{Zero: stage})
			if err != nil {
				return err
			}
			for _, p := range m.Params() {
				a, _ := one.State().Get(p.Name)
				b, _ := m.State().Get(p.Name)
				for i := range a.Len() {
					if math.Abs(a.At(i)-b.At(i)) > 1e-5 {
						return fmt.Errorf("%s[%d]: %v, of one process %v", p.Name, i, b.At(i), a.At(i))
					}
				}
			}
			return nil
		})
	}
}

// A loss that is no number, and settings that do not go together.
func TestZeroRefuses(t *testing.T) {
	tr, _ := load(t, 64)
	digitsSpec = tr.Spec()
	half, err := dist.ParseScheme("bf16")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		p    train.Parallel
		want string
	}{
		{train.Parallel{Zero: 3}, "stage 3"}, {train.Parallel{Zero: 1, Compress: half}, "bf16"}, {train.Parallel{Zero: 1, Local: 4}, "local steps"}, {train.Parallel{Zero: 2, AnyOrder: true}, "any order"},
	} {
		for _, err := range everyRank(t, 2, func(comm *dist.Comm) error {
			_, err := plainRule(comm, c.p, optim.Adam())
			return err
		}) {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v: %v", c.p, err)
			}
		}
	}
	allRanks(t, 2, func(comm *dist.Comm) error {
		m, err := plainRule(comm, train.Parallel{Zero: 1}, optim.Adam())
		if err != nil {
			return err
		}
		if err := m.Save(t.TempDir() + "/m.safetensors"); (err == nil) != (comm.Rank() > 0) {
			return fmt.Errorf("rank %d saves a part: %v", comm.Rank(), err)
		}
		if err := m.Unshare(); err != nil {
			return err
		}
		return m.Save(t.TempDir() + "/m.safetensors")
	})
}

// A model that has been merged learns on where steps, or steps and state, are shared out: with the bits of one process, and the same checkpoint.
func TestMergedLearnsOn(t *testing.T) {
	ctx := context.Background()
	fit := func(p train.Parallel) (*train.Model, *checkpoint.State, error) {
		m, err := train.Compile(nn.Sequential(nn.Dense(16, nn.ReLU).Named("body"), nn.Dense(3, nn.Softmax).Named("head")), points(8).Spec(), optim.Adam(optim.Rate(0.01)),
			train.SparseCategoricalCrossentropy, train.Seed(3), train.Threads(1), train.Wrapped(&lora.Adapter{Rank: 2, On: []string{"body"}}), train.Across(p))
		if err != nil {
			return nil, nil, err
		}
		if _, err = m.Fit(ctx, points(64)); err != nil {
			return nil, nil, err
		}
		if err = m.Merge(); err != nil {
			return nil, nil, err
		}
		before := weights(t, m)
		keep := &keepLast{}
		if _, err = m.Fit(ctx, points(64), train.Callbacks(keep)); err == nil && weights(t, m) == before {
			err = errors.New("the merged model learns nothing")
		}
		if n := m.Exchange().Steps; err == nil && n != 4 {
			err = fmt.Errorf("the account has %d steps of 2 before merging and 2 after it", n)
		}
		return m, keep.s, err
	}
	one, state, err := fit(train.Parallel{Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	want, wantState := weights(t, one), tensorBits(state)
	for zero := range 3 {
		allRanks(t, 2, func(c *dist.Comm) error {
			m, s, err := fit(train.Parallel{Comm: c, Zero: zero})
			switch {
			case err != nil:
				return err
			case weights(t, m) != want:
				return fmt.Errorf("stage %d: other weights than one process", zero)
			case c.Rank() == 0 && tensorBits(s) != wantState:
				return fmt.Errorf("stage %d: other checkpoint than one process", zero)
			}
			return nil
		})
	}
}
