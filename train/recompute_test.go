package train_test

import (
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// deep is a language model of several blocks, with dropout, whose training computes blocks again or not.
func deep(t *testing.T, length, width int, opts ...train.Option) (*train.Model, error) {
	t.Helper()
	layers := []*nn.Layer{nn.Embedding(11, width, nn.KernelInit(nn.GlorotUniform)), nn.PositionEmbedding(length)}
	for range 4 {
		layers = append(layers, nn.TransformerBlock(2, nn.CausalAttention(), nn.BlockDropout(0.2)))
	}
	layers = append(layers, nn.LSTM(width, nn.ReturnSequences(), nn.RecurrentDropout(0.1)), nn.LayerNormalization(), nn.Dense(11, nn.Softmax))
	tokens := []data.Field{{Name: "tokens", Shape: shape.Of(length), DType: dtype.I32}}
	return train.Compile(nn.Sequential(layers...), data.Spec{Inputs: tokens, Targets: tokens, Classes: 11}, optim.Adam(), train.SparseCategoricalCrossentropy,
		append([]train.Option{train.Threads(2), train.Seed(4)}, opts...)...)
}

// What is computed again is what was computed: losses and weights are the same, dropout included, and it takes less memory and more arithmetic.
func TestRecompute(t *testing.T) {
	for _, b := range []backend.Backend{ref.Backend{}, cpu.Backend{}} {
		const length, batch, width = 16, 4, 16
		x, y := []*tensor.Tensor{tensor.Of(words(batch*length), batch, length)}, []*tensor.Tensor{tensor.Of(words(2 * batch * length)[batch*length:], batch, length)}
		var models []*train.Model
		for _, opts := range [][]train.Option{nil, {train.Recompute()}, {train.Recompute("transformer_block*", "lstm")}} {
			m, err := deep(t, length, width, append(opts, train.On(b))...)
			if err != nil {
				t.Fatal(err)
			}
			models = append(models, m)
			if m.Recomputes() != (opts != nil) {
				t.Error("whether it computes again")
			}
		}
		steps := 5
		if b.Name() == "ref" {
			steps = 2
		}
		for range steps {
			var losses []float64
			for _, m := range models {
				l, err := m.Step(x, y, 0.01)
				if err != nil {
					t.Fatal(err)
				}
				losses = append(losses, l)
			}
			for _, l := range losses[1:] {
				if math.Abs(l-losses[0]) > 1e-5*losses[0] {
					t.Fatalf("%s: losses %v", b.Name(), losses)
				}
			}
		}
		for _, p := range models[0].Params() {
			a, _ := models[0].State().Get(p.Name)
			for _, m := range models[1:] {
				c, _ := m.State().Get(p.Name)
				for i := range a.Len() {
					if math.Abs(a.At(i)-c.At(i)) > 2e-4 { // Adam divides small gradients by their own size
						t.Fatalf("%s: %s[%d] is %g, without recomputation %g", b.Name(), p.Name, i, c.At(i), a.At(i))
					}
				}
			}
		}
	}
	var memory [2]int64
	var executed, asked [2]int64
	for i, opts := range [][]train.Option{nil, {train.Recompute()}} {
		m, err := deep(t, 64, 32, opts...)
		if err != nil {
			t.Fatal(err)
		}
		x := []*tensor.Tensor{tensor.Of(words(8*64), 8, 64)}
		if memory[i], err = m.StepMemory(8); err != nil {
			t.Fatal(err)
		}
		if _, err := m.StartAccount(nil); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Step(x, x, 0.01); err != nil {
			t.Fatal(err)
		}
		var c energy.Cost
		for _, r := range m.NodeCosts(8, false) {
			c = c.Add(r.Cost)
		}
		executed[i], asked[i] = c.Executed, m.StepCost(8).FLOPs
	}
	t.Logf("memory of a step %d bytes, with recomputation %d; arithmetic %d, with recomputation %d", memory[0], memory[1], executed[0], executed[1])
	if float64(memory[1]) > 0.75*float64(memory[0]) {
		t.Errorf("recomputation takes %d bytes, without it are %d", memory[1], memory[0])
	}
	if r := float64(executed[1]) / float64(executed[0]); r < 1.1 || r > 1.4 {
		t.Errorf("recomputation runs %g times the arithmetic", r)
	}
	if asked[0] != asked[1] {
		t.Errorf("the model asks for %d FLOPs, with recomputation %d", asked[0], asked[1])
	}
	for want, opt := range map[string]train.Option{`no layer matches "block9"`: train.Recompute("block9")} {
		if _, err := deep(t, 8, 8, opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if _, err := train.Compile(small(), compile(t).Spec, optim.Adam(), train.SparseCategoricalCrossentropy, train.Recompute()); err == nil || !strings.Contains(err.Error(), "no Transformer blocks") {
		t.Errorf("a model without blocks: %v", err)
	}
}
