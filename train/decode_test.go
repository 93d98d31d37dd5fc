package train_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// speaker is a language model of 11 tokens, sequences of length.
func speaker(t *testing.T, length int, layers ...*nn.Layer) *train.Model {
	t.Helper()
	all := append([]*nn.Layer{nn.Embedding(11, 8, nn.KernelInit(nn.GlorotUniform))}, layers...)
	tokens := []data.Field{{Name: "tokens", Shape: shape.Of(length), DType: dtype.I32}}
	m, err := train.Compile(nn.Sequential(append(all, nn.Dense(11, nn.Softmax))...), data.Spec{Inputs: tokens, Targets: tokens, Classes: 11},
		optim.Adam(), train.SparseCategoricalCrossentropy, train.Threads(2), train.Seed(4))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func words(n int) []int32 {
	r := rand.New(rand.NewPCG(7, 7))
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(r.IntN(11))
	}
	return out
}

// Tokens fed one by one, or in any pieces, have the scores that the whole sequence has at once.
func TestDecoderAgainstWholeSequences(t *testing.T) {
	const length = 75
	for name, layers := range map[string][]*nn.Layer{
		"learned positions": {nn.PositionEmbedding(length), nn.TransformerBlock(2, nn.CausalAttention()), nn.LayerNormalization()},
		"rotary, groups":    {nn.TransformerBlock(4, nn.CausalAttention(), nn.KeyValueHeads(2), nn.Rotary(100), nn.RMSNorms(), nn.Gated(), nn.SiLU)},
		"recurrent":         {nn.LSTM(9, nn.ReturnSequences()), nn.GRU(7, nn.ReturnSequences()), nn.SimpleRNN(8, nn.ReturnSequences())},
		"alibi, window":     {nn.SinePositionEncoding(), nn.TransformerBlock(2, nn.CausalAttention(), nn.ALiBi(), nn.Window(9)), nn.TransformerBlock(2, nn.CausalAttention(), nn.PostNorm())},
	} {
		t.Run(name, func(t *testing.T) {
			m := speaker(t, length, layers...)
			tokens := words(length)
			whole, err := m.PredictBatch(tensor.Of(tokens, 1, length))
			if err != nil {
				t.Fatal(err)
			}
			d, err := m.Decoder(1, length)
			if err != nil {
				t.Fatal(err)
			}
			for _, pieces := range [][]int{{1, 1, 1, 9, 63}, {64, 8, 3}, {length}} {
				d.Reset()
				at := 0
				for _, n := range pieces {
					scores, err := d.Feed(tokens[at : at+n])
					if err != nil {
						t.Fatal(err)
					}
					at += n
					sum := 0.0
					for i := range 11 {
						sum += math.Exp(scores.At(i))
					}
					for i := range 11 {
						if got, want := math.Exp(scores.At(i))/sum, whole.At((at-1)*11+i); math.Abs(got-want) > 2e-6 {
							t.Fatalf("pieces %v: after %d tokens the probability of %d is %g, of the whole sequence %g", pieces, at, i, got, want)
						}
					}
				}
			}
			if _, err := d.Feed(tokens[:1]); err == nil || !strings.Contains(err.Error(), "room for 75") {
				t.Errorf("a token too many: %v", err)
			}
		})
	}
}

// Sequences of a batch do not know of each other, and go on as another one when told so.
func TestDecoderReorder(t *testing.T) {
	m := speaker(t, 12, nn.PositionEmbedding(12), nn.TransformerBlock(2, nn.CausalAttention()))
	two, err := m.Decoder(2, 12)
	if err != nil {
		t.Fatal(err)
	}
	one, err := m.Decoder(1, 12)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := two.Feed([]int32{1, 2, 3, 7, 8, 9}); err != nil {
		t.Fatal(err)
	}
	if err := two.Reorder([]int{1, 1}); err != nil {
		t.Fatal(err)
	}
	got, err := two.Feed([]int32{4, 5})
	if err != nil {
		t.Fatal(err)
	}
	for i, last := range []int32{4, 5} {
		one.Reset()
		want, err := one.Feed([]int32{7, 8, 9, last})
		if err != nil {
			t.Fatal(err)
		}
		for j := range 11 {
			if math.Abs(got.At(i*11+j)-want.At(j)) > 1e-5 {
				t.Fatalf("sequence %d: score %d is %g, alone %g", i, j, got.At(i*11+j), want.At(j))
			}
		}
	}
	for _, bad := range [][]int{{0}, {0, 2}} {
		if two.Reorder(bad) == nil {
			t.Errorf("order %v was taken", bad)
		}
	}
	if _, err := two.Feed([]int32{1}); err == nil {
		t.Error("one token for two sequences was taken")
	}
}

// Memories of decoders belong to no model file, and models that cannot go on with a sequence say so.
func TestDecoderAside(t *testing.T) {
	m := speaker(t, 6, nn.TransformerBlock(2, nn.CausalAttention()))
	d, err := m.Decoder(1, 6)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Feed(words(3)); err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/m.safetensors"
	if err := m.Save(path); err != nil {
		t.Fatal(err)
	}
	again, err := train.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range again.State().Vars() {
		if strings.HasPrefix(v.Name, "cache") {
			t.Errorf("the file has %s", v.Name)
		}
	}
	if _, err := speaker(t, 6, nn.TransformerBlock(2)).Decoder(1, 6); err == nil || !strings.Contains(err.Error(), "causal") {
		t.Errorf("attention to both sides: %v", err)
	}
	if _, err := m.Decoder(0, 6); err == nil {
		t.Error("no sequences")
	}
}
