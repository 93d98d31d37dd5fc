package train_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// everyRank runs f as each rank of a job of goroutines.
func everyRank(t *testing.T, n int, f func(c *dist.Comm) error) []error {
	t.Helper()
	return everyRankOf(dist.Local(n), f)
}

func everyRankOf(job []dist.Transport, f func(c *dist.Comm) error) []error {
	errs := make([]error, len(job))
	var wg sync.WaitGroup
	for i, tr := range job {
		wg.Go(func() {
			c := dist.New(tr, 30*time.Second)
			if errs[i] = f(c); errs[i] != nil {
				c.Abort(1)
			}
		})
	}
	wg.Wait()
	return errs
}

func allRanks(t *testing.T, n int, f func(c *dist.Comm) error) {
	t.Helper()
	for r, err := range everyRank(t, n, f) {
		if err != nil && !errors.Is(err, dist.ErrLost) {
			t.Fatalf("rank %d of %d: %v", r, n, err)
		}
	}
}

// everything has random layers, moving averages, several parameters of all kinds.
func everything() *nn.Model {
	return nn.Sequential(nn.Conv2D(4, 3), nn.BatchNormalization(), nn.Activate(nn.ReLU), nn.MaxPool2D(2), nn.Flatten(), nn.Dropout(0.3), nn.Dense(16, nn.ReLU), nn.Dense(10, nn.Softmax))
}

func compiled(c *dist.Comm, spec data.Spec, p train.Parallel, opts ...train.Option) (*train.Model, error) {
	p.Comm = c
	all := append([]train.Option{train.Across(p), train.Threads(1), train.Seed(3), train.Accuracy, train.ROCAUC, train.F1}, opts...)
	return train.Compile(everything(), spec, optim.Adam(optim.GlobalClipNorm(1)), train.SparseCategoricalCrossentropy, all...)
}

// With the same shards, weights, losses, validation and predictions are the same bits however many ranks there are, the number that does not divide the shards, odd last
// batches and accumulated gradients included.
func TestRanksGiveTheSameBits(t *testing.T) {
	tr, te := load(t, 141) // batches of 32: the last has 13
	for _, accumulate := range []int{1, 2} {
		type result struct {
			bits, history string
			predictions   string
		}
		run := func(c *dist.Comm, p train.Parallel) (r result, err error) {
			m, err := compiled(c, tr.Spec(), p, train.Accumulate(accumulate))
			if err != nil {
				return r, err
			}
			h, err := m.Fit(context.Background(), tr, train.Epochs(2), train.BatchSize(32), train.Validate(te))
			if err != nil {
				return r, err
			}
			y, err := m.Predict(context.Background(), te, 8)
			if err != nil {
				return r, err
			}
			for _, e := range h.Epochs {
				r.history += fmt.Sprint(e.Logs)
			}
			r.bits, r.predictions = bits(t, m), string(y.Bytes())
			return r, nil
		}
		want, err := run(nil, train.Parallel{Shards: 4})
		if err != nil {
			t.Fatal(err)
		}
		for ranks := 2; ranks <= 4; ranks++ {
			for _, bucket := range []int{0, 1} {
				allRanks(t, ranks, func(c *dist.Comm) error {
					got, err := run(c, train.Parallel{Shards: 4, Bucket: bucket, Check: 1})
					switch {
					case err != nil:
						return err
					case got.bits != want.bits:
						return fmt.Errorf("other weights than one process")
					case got.history != want.history:
						return fmt.Errorf("history %s, of one process %s", got.history, want.history)
					case got.predictions != want.predictions:
						return fmt.Errorf("other predictions than one process")
					}
					return nil
				})
			}
		}
		whole, err := run(nil, train.Parallel{})
		if err != nil {
			t.Fatal(err)
		}
		if whole.bits == want.bits {
			t.Error("one piece gives the bits of four: the test shows nothing")
		}
	}
}

// texts are examples of two lengths, the class of which is their first token's.
type texts struct{ n int }

func (x texts) Spec() data.Spec  { return x.Buckets()[1] }
func (x texts) Len() int         { return x.n }
func (x texts) Bucket(i int) int { return i % 2 }
func (x texts) Buckets() []data.Spec {
	var out []data.Spec
	for _, n := range []int{3, 6} {
		out = append(out, data.Spec{Inputs: []data.Field{{Name: "tokens", Shape: shape.Of(n), DType: dtype.I32}}, Targets: []data.Field{{Name: "label", DType: dtype.I32}}, Classes: 2})
	}
	return out
}

func (x texts) Fill(idx []int, in, y []*tensor.Tensor) error {
	for k, i := range idx {
		row := in[0].Slice(k, k+1).I32()
		for j := range row {
			row[j] = int32((i + j*j) % 5)
		}
		y[0].I32()[k] = int32(i % 5 / 3)
	}
	return nil
}

// Batches of several shapes are shared out too.
func TestSizesOnRanks(t *testing.T) {
	fit := func(p train.Parallel) (string, error) {
		p.Shards = 4
		net := nn.Sequential(nn.Embedding(5, 4), nn.GlobalAveragePool1D(), nn.Dense(2, nn.Softmax))
		m, err := train.Compile(net, texts{30}.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Accuracy, train.Across(p))
		if err != nil {
			return "", err
		}
		h, err := m.Fit(context.Background(), texts{30}, train.Epochs(2), train.BatchSize(8))
		if err != nil {
			return "", err
		}
		if err := m.Assemble(); err != nil || p.Pipeline > 1 && !m.Writes() { // the others keep their stages
			return "", err
		}
		return fmt.Sprint(h.Epochs[1].Logs) + bits(t, m), nil
	}
	want, err := fit(train.Parallel{})
	if err != nil {
		t.Fatal(err)
	}
	for _, stages := range []int{1, 2} {
		allRanks(t, 2, func(c *dist.Comm) error {
			got, err := fit(train.Parallel{Comm: c, Pipeline: stages})
			if err == nil && got != want && (stages == 1 || c.Rank() == 0) {
				err = fmt.Errorf("%d stages: other bits than one process", stages)
			}
			return err
		})
	}
}

// Without random layers and batch statistics, a step on shards is a step on the whole batch up to rounding.
func TestShardsAreTheBatch(t *testing.T) {
	tr, _ := load(t, 61)
	train1 := func(shards int) *train.Model {
		m := compile(t, train.Across(train.Parallel{Shards: shards}))
		if _, err := m.Fit(context.Background(), tr, train.BatchSize(32)); err != nil {
			t.Fatal(err)
		}
		return m
	}
	a, b := train1(1), train1(5)
	for _, p := range a.Params() {
		x, _ := a.State().Get(p.Name)
		y, _ := b.State().Get(p.Name)
		for i := range x.Len() {
			if d := math.Abs(x.At(i) - y.At(i)); d > 1e-4 {
				t.Fatalf("%s[%d]: %v in one piece, %v in five", p.Name, i, x.At(i), y.At(i))
			}
		}
	}
}

// A training goes on from its checkpoint on another number of ranks with the same bits, the middle of an epoch included.
func TestResumeOnOtherRanks(t *testing.T) {
	tr, te := load(t, 130)
	resumedOnRanks(t, tr, []int{2, 4, 3, 1}, []int64{4, 8, 12, 16}, train.Epochs(3), train.BatchSize(32), train.Validate(te))
}

// resumedOnRanks trains on one process, and again on one number of ranks after another, each from the checkpoint of the one before up to so many steps: the last must end with the same bits and history.
func resumedOnRanks(t *testing.T, tr data.Dataset, ranks []int, steps []int64, opts ...train.FitOption) {
	t.Helper()
	fit := func(c *dist.Comm, from *checkpoint.State, steps int64) (b string, s *checkpoint.State, err error) {
		m, err := compiled(c, tr.Spec(), train.Parallel{Shards: 4})
		if err != nil {
			return "", nil, err
		}
		keep := &keepLast{}
		all := append(slices.Clone(opts), train.MaxSteps(steps), train.Callbacks(keep))
		if from != nil {
			p, err := m.Restore(from)
			if err != nil {
				return "", nil, err
			}
			all = append(all, train.From(p))
		}
		h, err := m.Fit(context.Background(), tr, all...)
		if err != nil {
			return "", nil, err
		}
		for _, e := range h.Epochs {
			b += fmt.Sprint(e.Logs)
		}
		return b + bits(t, m), keep.s, nil
	}
	want, _, err := fit(nil, nil, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var saved *checkpoint.State
	for i, n := range ranks {
		var mu sync.Mutex
		from := saved
		allRanks(t, n, func(c *dist.Comm) error {
			b, s, err := fit(c, from, steps[i])
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if c.Rank() == 0 {
				saved = s
			}
			if i == len(ranks)-1 && b != want {
				return fmt.Errorf("other bits than one process undisturbed")
			}
			return nil
		})
	}
}

// keepLast makes a checkpoint at the end.
type keepLast struct {
	train.Hooks
	s *checkpoint.State
}

func (k *keepLast) End(t *train.Training) (err error) {
	k.s, err = t.Model.Checkpoint(t)
	return err
}

// Ranks that were started differently are told so, before anything is trained.
func TestDifferentRanks(t *testing.T) {
	tr, _ := load(t, 64)
	errs := everyRank(t, 3, func(c *dist.Comm) error {
		m, err := compiled(c, tr.Spec(), train.Parallel{})
		if err != nil {
			return err
		}
		batch := 32
		if c.Rank() == 1 {
			batch = 16
		}
		_, err = m.Fit(context.Background(), tr, train.BatchSize(batch))
		return err
	})
	for r, err := range errs {
		if err == nil || !strings.Contains(err.Error(), "rank 1 was started with another") {
			t.Errorf("rank %d: %v", r, err)
		}
	}
}

// spoil changes a weight on one rank after a step, as a fault of memory would.
type spoil struct {
	train.Hooks
	rank int
}

func (s spoil) AfterStep(t *train.Training) error {
	if c := t.Model.Comm(); c.Rank() != s.rank || t.Steps != 3 {
		return nil
	}
	name := t.Model.Params()[0].Name
	w, err := t.Model.State().Get(name)
	if err != nil {
		return err
	}
	w.F32()[0] += 1e-6
	return t.Model.State().Set(name, w)
}

func TestDivergentReplica(t *testing.T) {
	tr, _ := load(t, 320)
	errs := everyRank(t, 4, func(c *dist.Comm) error {
		m, err := compiled(c, tr.Spec(), train.Parallel{Check: 5})
		if err != nil {
			return err
		}
		_, err = m.Fit(context.Background(), tr, train.Callbacks(spoil{rank: 2}))
		return err
	})
	for r, err := range errs {
		var d *train.DivergedError
		if !errors.As(err, &d) || d.Step != 5 || !slices.Equal(d.Ranks, []int{2}) {
			t.Errorf("rank %d: %v", r, err)
		}
	}
}

// A loss that is no number ends all ranks at the same step; the rank whose examples made it names the layer.
func TestSharedLossNotANumber(t *testing.T) {
	x, y := tensor.New(dtype.F32, 64, 4), tensor.New(dtype.I32, 64)
	for i := range x.F32() {
		x.F32()[i] = float32(i%7) / 7
	}
	x.F32()[4*40] = float32(math.Inf(1)) // in the second batch of 32, the first rank's part
	ds, err := data.FromTensors(data.Spec{Inputs: []data.Field{{Name: "x", Shape: []int{4}, DType: dtype.F32}}, Targets: []data.Field{{Name: "y", Shape: []int{}, DType: dtype.I32}}, Classes: 2},
		[]*tensor.Tensor{x}, []*tensor.Tensor{y})
	if err != nil {
		t.Fatal(err)
	}
	errs := everyRank(t, 2, func(c *dist.Comm) error {
		m, err := train.Compile(nn.Sequential(nn.Dense(3, nn.ReLU), nn.Dense(2, nn.Softmax)), ds.Spec(), optim.SGD(0, false), train.SparseCategoricalCrossentropy,
			train.Across(train.Parallel{Comm: c}), train.Threads(1))
		if err != nil {
			return err
		}
		_, err = m.Fit(context.Background(), ds, train.BatchSize(32), train.InOrder())
		if e := c.Barrier(); e != nil { // every rank has found its answer by itself
			return e
		}
		return err
	})
	for r, want := range []string{"layer dense", "in another rank's part"} {
		if errs[r] == nil || !strings.Contains(errs[r].Error(), "epoch 1, step 2") || !strings.Contains(errs[r].Error(), want) {
			t.Errorf("rank %d: %v", r, errs[r])
		}
	}
}

// interruptRank cancels one rank's context at a step.
type interruptRank struct {
	train.Hooks
	cancel context.CancelFunc
}

func (i interruptRank) AfterStep(t *train.Training) error {
	if t.Model.Comm().Rank() == 1 && t.Steps == 4 {
		i.cancel()
	}
	return nil
}

// Whichever rank is asked to end, all end after the same step.
func TestInterruptedTogether(t *testing.T) {
	tr, _ := load(t, 640)
	allRanks(t, 3, func(c *dist.Comm) error {
		m, err := compiled(c, tr.Spec(), train.Parallel{})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		_, err = m.Fit(ctx, tr, train.Callbacks(interruptRank{cancel: cancel}))
		if !errors.Is(err, train.ErrInterrupted) || !strings.Contains(err.Error(), "step 5:") {
			return fmt.Errorf("not interrupted after step 5: %w", err)
		}
		return nil
	})
}

func TestBadSharing(t *testing.T) {
	tr, _ := load(t, 64)
	for _, c := range []struct {
		p     train.Parallel
		batch int
		want  string
	}{
		{train.Parallel{Shards: 8}, 4, "cannot be cut into 8 pieces"},
		{train.Parallel{Shards: -1}, 4, ""},
	} {
		m := compile(t, train.Across(c.p))
		_, err := m.Fit(context.Background(), tr, train.BatchSize(c.batch))
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c.p, err)
		}
	}
	errs := everyRank(t, 2, func(c *dist.Comm) error {
		m, err := compiled(c, tr.Spec(), train.Parallel{Shards: 1})
		if err != nil {
			return err
		}
		_, err = m.Fit(context.Background(), tr)
		return err
	})
	if errs[0] == nil || !strings.Contains(errs[0].Error(), "1 shards cannot be shared out to 2 ranks") {
		t.Error(errs[0])
	}
}

// Gradients that travel compressed still teach, with the same weights on all ranks and fewer bytes; steps alone likewise.
func TestSlowLinks(t *testing.T) {
	tr, te := load(t, 1200)
	type result struct {
		accuracy float64
		sent     int64
	}
	run := func(t *testing.T, p train.Parallel) (out result) {
		weights := make([]string, 2)
		allRanks(t, 2, func(c *dist.Comm) error {
			p := p
			p.Comm, p.Check = c, 1
			m, err := train.Compile(small(), tr.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Across(p), train.Threads(1), train.Accuracy)
			if err != nil {
				return err
			}
			h, err := m.Fit(context.Background(), tr, train.Epochs(3), train.BatchSize(24), train.Validate(te))
			if err != nil {
				return err
			}
			weights[c.Rank()] = bits(t, m) + fmt.Sprint(h.Epochs[2].Logs)
			if c.Rank() == 0 {
				out.accuracy, _ = h.Epochs[2].Log("val_accuracy")
				out.sent = m.Exchange().Sent
			}
			return nil
		})
		if weights[0] != weights[1] {
			t.Errorf("%+v: the ranks differ in weights or history", p)
		}
		return out
	}
	plain := run(t, train.Parallel{})
	scheme := func(text string) *dist.Scheme {
		s, err := dist.ParseScheme(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		name string
		p    train.Parallel
		most float64 // bytes, over plain
	}{
		{"bf16", train.Parallel{Compress: scheme("bf16")}, 0.7},
		{"topk", train.Parallel{Compress: scheme("topk:0.05")}, 0.4},
		{"powersgd", train.Parallel{Compress: scheme("powersgd:2")}, 0.6},
		{"onebit", train.Parallel{Compress: scheme("onebit:30")}, 0.4},
		{"local", train.Parallel{Local: 5}, 0.9},
		{"outer", train.Parallel{Local: 5, OuterMomentum: 0.3, OuterRate: 0.9}, 0.9},
	} {
		got := run(t, c.p)
		t.Logf("%s: accuracy %.3f (plain %.3f), %d bytes (plain %d)", c.name, got.accuracy, plain.accuracy, got.sent, plain.sent)
		if got.accuracy < plain.accuracy-0.08 || float64(got.sent) > c.most*float64(plain.sent) {
			t.Errorf("%s: accuracy %.3f (plain %.3f), %d bytes (plain %d)", c.name, got.accuracy, plain.accuracy, got.sent, plain.sent)
		}
	}
	for _, p := range []train.Parallel{{Local: 4, Shards: 4}, {Local: 3, Compress: scheme("bf16")}, {Compress: scheme("onebit:5")}, {OuterMomentum: 0.9}, {Local: 2, OuterMomentum: 1}} {
		errs := everyRank(t, 2, func(c *dist.Comm) error {
			p := p
			p.Comm = c
			m, err := compiled(c, tr.Spec(), p)
			if err != nil {
				return err
			}
			_, err = m.Fit(context.Background(), tr)
			return err
		})
		if errs[0] == nil || errors.Is(errs[0], dist.ErrLost) && errs[1] == nil {
			t.Errorf("%+v was taken", p)
		}
	}
}

// Steps alone resume with the same bits: ranks are alike whenever a checkpoint is made.
func TestLocalStepsResume(t *testing.T) {
	tr, _ := load(t, 200)
	run := func(t *testing.T, from *checkpoint.State, steps int64) (b string, s *checkpoint.State) {
		allRanks(t, 2, func(c *dist.Comm) error {
			m, err := compiled(c, tr.Spec(), train.Parallel{Local: 3, OuterMomentum: 0.5})
			if err != nil {
				return err
			}
			keep := &keepLast{}
			opts := []train.FitOption{train.Epochs(3), train.BatchSize(32), train.MaxSteps(steps), train.Callbacks(keep)}
			if from != nil {
				p, err := m.Restore(from)
				if err != nil {
					return err
				}
				opts = append(opts, train.From(p))
			}
			if _, err := m.Fit(context.Background(), tr, opts...); err != nil {
				return err
			}
			if c.Rank() == 0 {
				b, s = bits(t, m), keep.s
			}
			return nil
		})
		return b, s
	}
	want, _ := run(t, nil, 15)
	_, half := run(t, nil, 9) // a meeting that the undisturbed training has too
	if got, _ := run(t, half, 15); got != want {
		t.Error("other bits than undisturbed")
	}
}
