package generate

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/pairs"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// small is an encoder-decoder for pairs of texts.
func small(t *testing.T, s data.Spec, threads int) *train.Model {
	return encoderDecoder(t, s, threads, false)
}

// encoderDecoder is small, or with copies one that can copy what it reads.
func encoderDecoder(t *testing.T, s data.Spec, threads int, copies bool) *train.Model {
	t.Helper()
	n, width := s.Classes, 32
	source, length, target := nn.InputOf("source", dtype.I32, s.Inputs[0].Shape...), nn.InputOf("source_length", dtype.I32), nn.InputOf("target", dtype.I32, s.Inputs[2].Shape...)
	tokens := nn.Embedding(n, width, nn.KernelInit(nn.GlorotUniform))
	memory := nn.TransformerBlock(2).On(nn.PositionEmbedding(s.Inputs[0].Shape[0]).On(tokens.On(source)), length)
	y := nn.TransformerBlock(2, nn.CausalAttention()).On(nn.PositionEmbedding(s.Inputs[2].Shape[0]).On(tokens.On(target)), memory, length)
	y = nn.LayerNormalization().On(y)
	if copies {
		y = nn.SoftmaxLayer().On(nn.PointerGenerator(16).On(nn.Dense(n).On(y), y, memory, source, length))
	} else {
		y = nn.Dense(n, nn.Softmax).On(y)
	}
	net, err := nn.Functional([]*nn.Value{source, length, target}, []*nn.Value{y})
	if err != nil {
		t.Fatal(err)
	}
	m, err := train.Compile(net, s, optim.Adam(optim.Rate(0.003)), train.SparseCategorical(train.Ignore(-1), train.Smooth(0.05)), train.Accuracy, train.Threads(threads), train.Seed(3))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// numerals are numbers in figures and in words: a language of a few sentences.
func numerals(t *testing.T) *data.Set {
	t.Helper()
	names := strings.Fields("null eins zwei drei vier")
	var all []pairs.Pair
	for a := range 5 {
		for b := range 5 {
			all = append(all, pairs.Pair{Source: string(rune('0' + a)), Target: names[a]}, pairs.Pair{Source: string([]byte{byte('0' + a), ' ', byte('0' + b)}), Target: names[a] + " " + names[b]})
			for c := range 5 {
				all = append(all, pairs.Pair{Source: string([]byte{byte('0' + a), ' ', byte('0' + b), ' ', byte('0' + c)}), Target: names[a] + " " + names[b] + " " + names[c]})
			}
		}
	}
	s, err := pairs.New("numerals", all, all[:20], pairs.Config{Vocabulary: 300, Source: 12, Target: 16})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A model learns to read figures, and writes the same greedily, with beams, alone and in company, from memory and from a file, with one thread or two.
func TestAnswerer(t *testing.T) {
	set := numerals(t)
	ctx := context.Background()
	m := small(t, set.Spec(), 2)
	if _, err := m.Fit(ctx, set.Train, train.Epochs(16), train.BatchSize(16)); err != nil {
		t.Fatal(err)
	}
	a, err := NewAnswerer(m)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{"3 1 4", "2", "0 0 1", "4 2"}
	want := []string{"drei eins vier", "zwei", "null null eins", "vier zwei"}
	greedy, err := a.Run(ctx, texts, Options{})
	if err != nil {
		t.Fatal(err)
	}
	beams, err := a.Run(ctx, texts, Options{Beams: 3, LengthPenalty: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range texts {
		if greedy[i].Text != want[i] || greedy[i].Why != "end" || beams[i].Text != want[i] || beams[i].LogProb < greedy[i].LogProb-1e-4 {
			t.Errorf("%q: %+v, with beams %+v", texts[i], greedy[i], beams[i])
		}
		alone, err := a.Run(ctx, texts[i:i+1], Options{})
		if err != nil || alone[0].Text != want[i] || math.Abs(alone[0].LogProb-greedy[i].LogProb) > 1e-4 {
			t.Errorf("%q alone: %+v %v", texts[i], alone, err)
		}
	}
	look, err := a.Attend("3 1 4", "drei eins vier")
	if err != nil || len(look.P) != len(look.Target) || look.Target[len(look.Target)-1] != "<end>" {
		t.Fatalf("%+v %v", look, err)
	}
	for i, row := range look.P {
		sum := 0.0
		for _, p := range row {
			sum += p
		}
		if len(row) != len(look.Source) || math.Abs(sum-1) > 1e-5 {
			t.Errorf("%q looks at %v", look.Target[i], row)
		}
	}
	if maps, err := m.AttentionMaps(sample(t, set)...); err != nil || len(maps) != 3 || maps[1].Part != "transformer_block_1/attention" {
		t.Errorf("%v %v", maps, err)
	} else {
		for _, x := range maps[1].P.F32()[1:16] { // the first position of a causal attention sees itself alone
			if x != 0 {
				t.Errorf("the first position looks ahead: %v", maps[1].P.F32()[:16])
			}
		}
	}
	path := filepath.Join(t.TempDir(), "m.safetensors")
	if err := m.Save(path); err != nil {
		t.Fatal(err)
	}
	again, err := train.Load(path, train.Threads(1))
	if err != nil {
		t.Fatal(err)
	}
	x, err := m.Evaluate(ctx, set.Test, 8)
	if err != nil {
		t.Fatal(err)
	}
	y, err := again.Evaluate(ctx, set.Test, 8)
	if err != nil || x[0] != y[0] || x[1] != y[1] || x[1].Value < 0.99 { // the loss leaves out padding and smooths in the file too
		t.Errorf("%v, from the file %v %v", x, y, err)
	}
	b, err := NewAnswerer(again)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := b.Run(ctx, texts, Options{Beams: 3, LengthPenalty: 1}); err != nil || r[0] != beams[0] || r[2] != beams[2] {
		t.Errorf("from the file, one thread: %+v %v, want %+v", r, err, beams)
	}
	if r, err := a.Run(ctx, []string{strings.Repeat("3 1 4 ", 9), "2"}, Options{Tokens: 3}); err != nil || r[0].Cut == 0 || r[1].Cut != 0 || r[0].Tokens != 3 || r[0].Why != "tokens" {
		t.Errorf("a long text: %+v %v", r, err)
	}
	for want, f := range map[string]func() error{
		"text 2 is empty": func() error { _, err := a.Run(ctx, []string{"1", ""}, Options{}); return err },
		"temperature 0":   func() error { _, err := a.Run(ctx, texts, Options{Temperature: 1}); return err },
		"pairs of texts":  func() error { _, err := NewAnswerer(trained(t, 1).m); return err },
		"Begin says": func() error {
			d, err := m.Decoder(1, 16)
			if err != nil {
				return err
			}
			_, err = d.Feed([]int32{1})
			return err
		},
		"begun with 1": func() error {
			d, err := m.Decoder(1, 16)
			if err != nil {
				return err
			}
			return d.Begin(tensor.New(dtype.I32, 1, 12))
		},
		"input source is": func() error {
			d, err := m.Decoder(1, 16)
			if err != nil {
				return err
			}
			return d.Begin(tensor.New(dtype.I32, 2, 12), tensor.New(dtype.I32, 1))
		},
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
}

// sample is an example as a batch.
func sample(t *testing.T, set *data.Set) []*tensor.Tensor {
	t.Helper()
	x, y := set.Spec().Tensors(1)
	if err := set.Train.Fill([]int{7}, x, y); err != nil {
		t.Fatal(err)
	}
	return x
}

// A training on batches of several sizes that was stopped goes on with the same bits.
func TestBucketsResume(t *testing.T) {
	set := numerals(t)
	bits := func(m *train.Model) (out []byte) {
		for _, v := range m.State().Vars() {
			x, err := m.State().Get(v.Name)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, x.Bytes()...)
		}
		return out
	}
	opts := []train.FitOption{train.Epochs(2), train.BatchSize(16)}
	whole := small(t, set.Spec(), 2)
	if _, err := whole.Fit(context.Background(), set.Train, opts...); err != nil {
		t.Fatal(err)
	}
	for _, step := range []int64{3, 13} {
		dir := t.TempDir()
		a := small(t, set.Spec(), 1)
		keep := &train.Checkpoints{Dir: dir, Every: time.Nanosecond}
		if _, err := a.Fit(context.Background(), set.Train, append(opts, train.MaxSteps(step), train.Callbacks(keep))...); err != nil {
			t.Fatal(err)
		}
		found, err := checkpoint.Latest(dir)
		if err != nil {
			t.Fatal(err)
		}
		b := small(t, set.Spec(), 2)
		p, err := b.Restore(found.State)
		if err != nil {
			t.Fatal(err)
		}
		if p.Steps != step {
			t.Fatalf("the checkpoint is of step %d, want %d", p.Steps, step)
		}
		if _, err := b.Fit(context.Background(), set.Train, append(opts, train.From(p))...); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(bits(b), bits(whole)) {
			t.Errorf("stopped after step %d: other bits", step)
		}
	}
}

// Tokens fed one by one to a decoder whose encoder ran once have the scores of the whole model, also when sequences change places.
func TestDecoderOfTwo(t *testing.T) {
	for _, copies := range []bool{false, true} {
		t.Run(fmt.Sprint("copies ", copies), func(t *testing.T) { testDecoderOfTwo(t, copies) })
	}
}

func testDecoderOfTwo(t *testing.T, copies bool) {
	set := numerals(t)
	m := encoderDecoder(t, set.Spec(), 2, copies)
	x, y := set.Spec().Tensors(3)
	if err := set.Train.Fill([]int{40, 60, 90}, x, y); err != nil {
		t.Fatal(err)
	}
	whole, err := m.PredictBatch(x...)
	if err != nil {
		t.Fatal(err)
	}
	whole = whole.Clone()
	d, err := m.Decoder(3, 16)
	if err != nil {
		t.Fatal(err)
	}
	n, time := set.Spec().Classes, 16
	for round := range 2 { // a decoder may begin again
		if err := d.Begin(x[0], x[1]); err != nil {
			t.Fatal(err)
		}
		rows := []int{0, 1, 2}
		for p := range time {
			tokens := make([]int32, 3)
			for i, r := range rows {
				tokens[i] = x[2].I32()[r*time+p]
			}
			s, err := d.Feed(tokens)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range rows {
				most, rest := logSum(s.F32()[i*n : (i+1)*n])
				for k := range n {
					got, want := math.Exp(float64(s.F32()[i*n+k])-most-rest), float64(whole.F32()[(r*time+p)*n+k])
					if math.Abs(got-want) > 1e-5 {
						t.Fatalf("round %d, position %d of sequence %d: token %d has %g, want %g", round, p, r, k, got, want)
					}
				}
			}
			if p == 3 {
				if err := d.Reorder([]int{2, 0, 1}); err != nil {
					t.Fatal(err)
				}
				rows = []int{2, 0, 1}
			}
		}
	}
}
