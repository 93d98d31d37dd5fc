package train_test

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// Outlines say of stages what a training on ranks has: the same cuts, values that add up to the whole, the bytes at the cuts; and of split layers how many sums there are.
func TestOutline(t *testing.T) {
	ds := tokens(t, 40)
	compile := func(opts ...train.Option) (*train.Model, error) {
		return train.Compile(gpt(t), ds.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, append(opts, train.Threads(1))...)
	}
	m, err := compile()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := m.Outline(1)
	if err != nil {
		t.Fatal(err)
	}
	w := whole[0]
	params := 0
	for _, p := range m.Params() {
		params += p.Type.Bytes()
	}
	if w.First != "embedding" || len(w.Shares) != 1 || math.Abs(w.Shares[0].Of-1) > 1e-9 || w.Gradients != float64(params) || int(w.State) != m.OptimizerBytes() || w.Forward.Of(1) != 0 || w.Memory.Of(8) <= 0 || w.Evaluate.Of(8) <= 0 || w.Memory.Each <= w.Evaluate.Each {
		t.Errorf("%+v; parameters of %d bytes, state of %d", w, params, m.OptimizerBytes())
	}
	// After a step times are measured ones; the model can go on as before.
	b, err := data.NewLoader(ds, data.LoaderConfig{Batch: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	batch, err := b.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Step(batch.X, batch.Y, 0.1); err != nil {
		t.Fatal(err)
	}
	stages, err := m.Outline(3, 8)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Step(batch.X, batch.Y, 0.1); err != nil {
		t.Fatal(err)
	}
	sum, time := stages[0], stages[0].Shares[0].Of
	for _, s := range stages[1:] {
		time += s.Shares[0].Of
		sum.Parameters += s.Parameters
		sum.Gradients += s.Gradients
		sum.State += s.State
	}
	// Counters lie in the first stage.
	if math.Abs(time-1) > 1e-9 || stages[0].Shares[0].Batch != 8 || sum.Parameters != w.Parameters || sum.Gradients != w.Gradients || sum.State != w.State {
		t.Errorf("stages add up to %+v, the whole is %+v", sum, w)
	}
	// Between blocks travel 6 positions of 8 numbers, and their gradients.
	if f := stages[0].Forward; f.Each != 4*6*8 || f.Fixed != 0 || stages[0].Backward != f || stages[2].Forward.Of(4) != 0 {
		t.Errorf("%+v", stages)
	}
	allRanks(t, 3, func(c *dist.Comm) error {
		m, err := compile(train.Across(train.Parallel{Comm: c, Pipeline: 3}))
		if err != nil {
			return err
		}
		for i, name := range m.Stages() {
			if stages[i].First != name {
				t.Errorf("stage %d begins with %s, outlined was %s", i, name, stages[i].First)
			}
		}
		if c.Rank() == 2 && m.OptimizerBytes() != int(stages[2].State)+8 { // each rank counts updates
			t.Errorf("the last stage has %d bytes of state, outlined were %g", m.OptimizerBytes(), stages[2].State)
		}
		if _, err := m.Outline(1); err == nil {
			t.Error("a model that is shared out was outlined")
		}
		return nil
	})
	// Three blocks of attention and a feed-forward network; the second has one head of keys that two ranks cannot share out, so its attention is whole. Forward and backward, but for the first block's
	// operand, whose gradient is needed for the embedding.
	split, err := m.OutlineSplit(2, 8)
	if err != nil {
		t.Fatal(err)
	}
	if split.Sums != 10 || split.Summed.Each != 10*4*6*8 || split.Shares[0].Of <= 0.3 || split.Shares[0].Of >= 1 || split.Parted == 0 || split.Parameters != w.Parameters-split.Parted || split.PartedState != 2*split.Parted || split.State != w.State-2*split.Parted || split.Evaluate.Each >= w.Evaluate.Each || split.Memory.Each >= w.Memory.Each {
		t.Errorf("%+v, whole %+v", split, w)
	}
	if v, err := m.Evaluate(context.Background(), ds, 8); err != nil || len(v) == 0 { // it is whole again
		t.Errorf("%v %v", v, err)
	}
	if _, err := m.OutlineSplit(7, 8); err == nil || !strings.Contains(err.Error(), "no layer of this model can be split over 7 ranks") {
		t.Errorf("%v", err)
	}
	if _, err := m.Outline(100, 8); err == nil || !strings.Contains(err.Error(), "cannot be cut into 100") {
		t.Errorf("%v", err)
	}
	if m, err = train.Compile(nn.Sequential(nn.Embedding(11, 8), nn.GRU(4, nn.Stateful()), nn.Dense(3, nn.Softmax)), ds.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Outline(2, 8); err == nil || !strings.Contains(err.Error(), "stateful") {
		t.Errorf("%v", err)
	}
}
