package train_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
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
			if _, err := d.Feed(tokens[:1]); d.Room() > 0 && err == nil || err != nil && !strings.Contains(err.Error(), "room for 75") {
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

func floats(x *tensor.Tensor) []float64 {
	out := make([]float64, x.Len())
	for i := range out {
		out[i] = x.At(i)
	}
	return out
}

// sameScores compares the probabilities that scores mean with those of a whole sequence at a position.
func sameScores(t *testing.T, what string, scores []float64, want func(i int) float64) {
	t.Helper()
	sum := 0.0
	for _, s := range scores {
		sum += math.Exp(s)
	}
	for i, s := range scores {
		if got := math.Exp(s) / sum; !(math.Abs(got-want(i)) <= 3e-6) {
			t.Fatalf("%s: the probability of %d is %g, want %g", what, i, got, want(i))
		}
	}
}

// Sequences of different lengths, fed together, have the scores that each has alone.
func TestDecoderOfDifferentLengths(t *testing.T) {
	const length = 90
	for name, layers := range map[string][]*nn.Layer{
		"learned positions": {nn.PositionEmbedding(length), nn.TransformerBlock(2, nn.CausalAttention())},
		"rotary, window":    {nn.TransformerBlock(4, nn.CausalAttention(), nn.KeyValueHeads(2), nn.Rotary(100), nn.Window(5))},
		"recurrent":         {nn.LSTM(9, nn.ReturnSequences()), nn.GRU(7, nn.ReturnSequences()), nn.SimpleRNN(8, nn.ReturnSequences()), nn.GRU(5, nn.ReturnSequences(), nn.ResetBefore())},
	} {
		t.Run(name, func(t *testing.T) {
			m := speaker(t, length, layers...)
			all := [][]int32{words(80), words(85)[3:], words(30)[7:]}
			many, err := m.Decoder(3, length)
			if err != nil {
				t.Fatal(err)
			}
			alone, err := m.Decoder(1, length)
			if err != nil {
				t.Fatal(err)
			}
			// Pieces of each sequence, in rounds.
			at := make([]int, 3)
			for round, pieces := range [][]int{{70, 3, 1}, {1, 1, 1}, {0, 9, 5}, {4, 0, 0}, {1, 60, 2}, {1, 1, 1}, {2, 3, 7}} {
				next := make([][]int32, 3)
				for s, n := range pieces {
					next[s] = all[s][at[s] : at[s]+n]
					at[s] += n
				}
				got, err := many.FeedEach(next)
				if err != nil {
					t.Fatal(err)
				}
				if fmt.Sprint(many.Lens()) != fmt.Sprint(at) {
					t.Fatalf("lengths %v, want %v", many.Lens(), at)
				}
				for s := range all {
					alone.Reset()
					want, err := alone.Feed(all[s][:at[s]])
					if err != nil {
						t.Fatal(err)
					}
					for i := range 11 {
						if a, b := got.At(s*11+i), want.At(i); !(math.Abs(a-b) <= 2e-5) {
							t.Fatalf("round %d, sequence %d: score %d is %g, alone %g", round, s, i, a, b)
						}
					}
				}
			}
			if err := many.Reorder([]int{2, 0, 0}); err != nil {
				t.Fatal(err)
			}
			if want := []int{at[2], at[0], at[0]}; fmt.Sprint(many.Lens()) != fmt.Sprint(want) {
				t.Errorf("reordered lengths %v, want %v", many.Lens(), want)
			}
			if _, err := many.FeedEach([][]int32{nil, nil, nil}); err == nil {
				t.Error("nothing was fed")
			}
			if _, err := many.FeedEach([][]int32{{1}}); err == nil {
				t.Error("tokens for one of three sequences were taken")
			}
		})
	}
}

// Where attention has a window, sequences go on without end: the scores are those of the whole sequence at once, long after the memory was full for the first time.
func TestDecoderSlides(t *testing.T) {
	const length = 260
	for name, layers := range map[string][]*nn.Layer{
		"rotary":      {nn.TransformerBlock(2, nn.CausalAttention(), nn.Rotary(100), nn.Window(6)), nn.TransformerBlock(2, nn.CausalAttention(), nn.Rotary(100), nn.Window(9))},
		"alibi":       {nn.TransformerBlock(2, nn.CausalAttention(), nn.ALiBi(), nn.Window(7))},
		"sines":       {nn.SinePositionEncoding(), nn.TransformerBlock(2, nn.CausalAttention(), nn.Window(4)), nn.GRU(6, nn.ReturnSequences())},
		"window of 1": {nn.TransformerBlock(2, nn.CausalAttention(), nn.Window(1))},
		"recurrent":   {nn.LSTM(6, nn.ReturnSequences())},
	} {
		t.Run(name, func(t *testing.T) {
			m := speaker(t, length, layers...)
			tokens := words(length)
			whole, err := m.PredictBatch(tensor.Of(tokens, 1, length))
			if err != nil {
				t.Fatal(err)
			}
			d, err := m.Decoder(1, 10)
			if err != nil {
				t.Fatal(err)
			}
			if d.Room() != 0 {
				t.Errorf("room for %d tokens, there is no limit", d.Room())
			}
			at := 0
			for i := 0; at < length; i++ {
				n := min([]int{1, 3, 64, 1, 20, 90, 1, 1}[i%8], length-at)
				scores, err := d.Feed(tokens[at : at+n])
				if err != nil {
					t.Fatal(err)
				}
				at += n
				sameScores(t, fmt.Sprint("after ", at), floats(scores), func(i int) float64 { return whole.At((at-1)*11 + i) })
			}
			if d.Len() != length {
				t.Errorf("%d tokens", d.Len())
			}
		})
	}
}

// Sequences of different lengths go around their rings each at its own pace, and the rings are no longer than the window and the tokens that are fed at once.
func TestDecoderRing(t *testing.T) {
	const length, window = 330, 9
	m := speaker(t, length, nn.TransformerBlock(4, nn.CausalAttention(), nn.KeyValueHeads(2), nn.Rotary(100), nn.Window(window)), nn.TransformerBlock(2, nn.CausalAttention(), nn.ALiBi(), nn.Window(5)))
	texts := [][]int32{words(length), words(length)[7:], words(length)[60:]}
	var whole []*tensor.Tensor
	for _, w := range texts {
		x, err := m.PredictBatch(tensor.Of(append(slices.Clone(w), make([]int32, length-len(w))...), 1, length))
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, x.Clone())
	}
	d, err := m.Decoder(3, 10)
	if err != nil {
		t.Fatal(err)
	}
	order := []int{0, 1, 2} // which text a sequence follows
	at := make([]int, 3)
	for i := 0; at[0] < len(texts[0]) || at[1] < len(texts[1]) || at[2] < len(texts[2]); i++ {
		next := make([][]int32, 3)
		for s, k := range order {
			n := min([]int{1, 5, 70, 0, 1, 1, 13, 2, 1, 64}[(i+3*s)%10], len(texts[k])-at[k])
			next[s] = texts[k][at[k] : at[k]+n]
			at[k] += n
		}
		if len(next[0])+len(next[1])+len(next[2]) == 0 {
			continue
		}
		scores, err := d.FeedEach(next)
		if err != nil {
			t.Fatal(err)
		}
		for s, k := range order {
			if at[k] > 0 {
				sameScores(t, fmt.Sprint("text ", k, " after ", at[k]), floats(scores.Slice(s, s+1)), func(j int) float64 { return whole[k].At((at[k]-1)*11 + j) })
			}
		}
		if i%4 == 3 {
			if err := d.Reorder([]int{2, 0, 1}); err != nil {
				t.Fatal(err)
			}
			order = []int{order[2], order[0], order[1]}
		}
	}
	rings := 0
	for _, v := range m.State().Vars() {
		if s := v.Type.Shape; nn.Cached(v.Name) && len(s) == 4 {
			rings++
			if s[1] != window-1+64 {
				t.Errorf("%s has %d places", v.Name, s[1])
			}
		}
	}
	if rings != 4 {
		t.Errorf("%d rings", rings)
	}
}

// What a model cannot know is refused: tokens outside of its vocabulary, more places than it has positions, layers that look at a whole sequence.
func TestDecoderRefuses(t *testing.T) {
	m := speaker(t, 6, nn.PositionEmbedding(6), nn.TransformerBlock(2, nn.CausalAttention()))
	d, err := m.Decoder(1, 6)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []int32{-1, 11} {
		if _, err := d.Feed([]int32{1, bad}); err == nil || !strings.Contains(err.Error(), "0 to 10") {
			t.Errorf("token %d: %v", bad, err)
		}
		if _, err := m.PredictBatch(tensor.Of([]int32{1, 2, bad, 3, 4, 5}, 1, 6)); err == nil || !strings.Contains(err.Error(), "input x0 has token") {
			t.Errorf("token %d in a batch: %v", bad, err)
		}
		if _, err := m.Step([]*tensor.Tensor{tensor.Of([]int32{1, 2, bad, 3, 4, 5}, 1, 6)}, []*tensor.Tensor{tensor.Of(words(6), 1, 6)}, 0.1); err == nil {
			t.Errorf("token %d was trained on", bad)
		}
	}
	if _, err := m.Decoder(1, 7); err == nil || !strings.Contains(err.Error(), "sequence_length 6") {
		t.Errorf("room beyond the learned positions: %v", err)
	}
	if _, err := speaker(t, 6, nn.Conv1D(8, 3, nn.Causal)).Decoder(1, 6); err == nil || !strings.Contains(err.Error(), "remembers none") {
		t.Errorf("a convolution: %v", err)
	}
	if _, err := d.Feed(nil); err == nil {
		t.Error("no tokens were taken")
	}
	// A sequence of one token is a sequence.
	one := speaker(t, 1, nn.PositionEmbedding(1), nn.TransformerBlock(2, nn.CausalAttention()), nn.LSTM(4, nn.ReturnSequences()))
	p, err := one.PredictBatch(tensor.Of([]int32{3}, 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	d, err = one.Decoder(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	scores, err := d.Feed([]int32{3})
	if err != nil {
		t.Fatal(err)
	}
	sameScores(t, "one token", floats(scores), p.At)
	if _, err := one.Step([]*tensor.Tensor{tensor.Of([]int32{3}, 1, 1)}, []*tensor.Tensor{tensor.Of([]int32{4}, 1, 1)}, 0.1); err != nil {
		t.Errorf("training on one token: %v", err)
	}
}

// However sequences change places, twice followed or dropped, each goes on as a decoder of its own that is fed its tokens; and the most probable tokens are those of the scores.
func TestDecoderReordersAndFindsTheTop(t *testing.T) {
	for name, layers := range map[string][]*nn.Layer{
		"attention": {nn.PositionEmbedding(12), nn.TransformerBlock(2, nn.CausalAttention())},
		"window":    {nn.TransformerBlock(2, nn.CausalAttention(), nn.Window(5), nn.Rotary(50))},
		"recurrent": {nn.LSTM(9, nn.ReturnSequences()), nn.GRU(7, nn.ReturnSequences())},
	} {
		t.Run(name, func(t *testing.T) {
			const n, top = 6, 4
			m := speaker(t, 12, layers...)
			d, err := m.Decoder(n, 12, train.TopTokens(top))
			if err != nil {
				t.Fatal(err)
			}
			one, err := m.Decoder(1, 12)
			if err != nil {
				t.Fatal(err)
			}
			if logp, tokens := one.Top(); logp != nil || tokens != nil {
				t.Error("a decoder that was not asked for the most probable tokens has some")
			}
			r := rand.New(rand.NewPCG(3, 4))
			fed := make([][]int32, n)
			for step := range 10 {
				next := make([]int32, n)
				for i := range next {
					next[i] = int32(r.IntN(11))
					fed[i] = append(slices.Clone(fed[i]), next[i])
				}
				scores, err := d.Feed(next)
				if err != nil {
					t.Fatal(err)
				}
				logp, tokens := d.Top()
				for i := range n {
					one.Reset()
					want, err := one.Feed(fed[i])
					if err != nil {
						t.Fatal(err)
					}
					order := make([]int, 11)
					sum := 0.0
					for j := range order {
						order[j] = j
						sum += math.Exp(scores.At(i*11 + j))
						if math.Abs(scores.At(i*11+j)-want.At(j)) > 1e-5 {
							t.Fatalf("step %d, sequence %d: score %d is %g, alone %g", step, i, j, scores.At(i*11+j), want.At(j))
						}
					}
					slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(scores.At(i*11+b), scores.At(i*11+a)) })
					for k := range top {
						if got, p := int(tokens.I32()[i*top+k]), scores.At(i*11+order[k])-math.Log(sum); got != order[k] || math.Abs(logp.At(i*top+k)-p) > 1e-5 {
							t.Fatalf("step %d, sequence %d: the best but %d is token %d with %g, want %d with %g", step, i, k, got, logp.At(i*top+k), order[k], p)
						}
					}
				}
				from := make([]int, n)
				for i := range from {
					from[i] = r.IntN(n)
				}
				if step == 4 { // a cycle: every row is written over before another has read it
					from = []int{5, 0, 1, 2, 3, 4}
				}
				if err := d.Reorder(from); err != nil {
					t.Fatal(err)
				}
				was := slices.Clone(fed)
				for i, f := range from {
					fed[i] = was[f]
				}
			}
			if all, err := m.Decoder(1, 12, train.TopTokens(99)); err != nil {
				t.Error(err)
			} else if _, err := all.Feed([]int32{1}); err != nil {
				t.Error(err)
			} else if logp, _ := all.Top(); logp.Len() != 11 {
				t.Errorf("%d of 11 tokens", logp.Len())
			}
			if _, err := m.Decoder(1, 12, train.TopTokens(-1)); err == nil {
				t.Error("-1 tokens were taken")
			}
		})
	}
}
