package generate

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/data/text"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// trained is a small model that has learned a text that repeats.
func trained(t *testing.T, threads int) *Generator {
	t.Helper()
	set, err := text.Chars("t", strings.Repeat("the quick brown fox jumps over the lazy dog. ", 60), text.Config{Length: 16, Stride: 7})
	if err != nil {
		t.Fatal(err)
	}
	n := set.Spec().Classes
	net := nn.Sequential(nn.Embedding(n, 24), nn.PositionEmbedding(16), nn.TransformerBlock(2, nn.CausalAttention(), nn.Hidden(48)), nn.LayerNormalization(), nn.Dense(n, nn.Softmax))
	m, err := train.Compile(net, set.Spec(), optim.Adam(optim.Rate(0.01)), train.SparseCategoricalCrossentropy, train.Threads(threads), train.Seed(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Fit(context.Background(), set.Train, train.Epochs(8)); err != nil {
		t.Fatal(err)
	}
	v, err := text.NewVocabulary(set.Spec().ClassNames)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(m, v, 16)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGenerate(t *testing.T) {
	g := trained(t, 2)
	ctx := context.Background()
	run := func(o Options) (Result, string) {
		t.Helper()
		var streamed strings.Builder
		r, err := g.Run(ctx, "the quick ", o, func(s string) error { streamed.WriteString(s); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if streamed.String() != r.Text {
			t.Errorf("streamed %q, the result is %q", streamed.String(), r.Text)
		}
		return r, r.Text
	}
	// Beyond the context of 16 tokens too.
	greedy, s := run(Options{Tokens: 50})
	if want := "brown fox jumps over the lazy dog. the quick brown"; s != want || greedy.Tokens != 50 || greedy.Prompt != 10 || greedy.Why != "tokens" {
		t.Errorf("%+v", greedy)
	}
	stopped, s := run(Options{Tokens: 50, Stop: []string{"zebra", "jumps"}})
	if s != "brown fox " || stopped.Why != "stop" {
		t.Errorf("%+v", stopped)
	}
	if _, s := run(Options{Tokens: 9, Temperature: 5, TopK: 1}); s != "brown fox" {
		t.Errorf("top-k 1: %q", s)
	}
	if _, s := run(Options{Tokens: 9, Temperature: 1, TopP: 1e-9}); s != "brown fox" {
		t.Errorf("top-p 0: %q", s)
	}
	if _, s := run(Options{Tokens: 9, Temperature: 1, MinP: 1}); s != "brown fox" {
		t.Errorf("min-p 1: %q", s)
	}
	_, a := run(Options{Tokens: 30, Temperature: 3, Seed: 1})
	_, again := run(Options{Tokens: 30, Temperature: 3, Seed: 1})
	_, b := run(Options{Tokens: 30, Temperature: 3, Seed: 2})
	if a != again || a == b {
		t.Errorf("seeds: %q %q %q", a, again, b)
	}
	searched, s := run(Options{Tokens: 9, Beams: 3})
	if s != "brown fox" || searched.LogProb < greedy.LogProb {
		t.Errorf("%+v", searched)
	}
	if _, s := run(Options{Tokens: 40, Beams: 2, Stop: []string{"fox"}, LengthPenalty: 1}); s != "brown " {
		t.Errorf("beams that end: %q", s)
	}
	if _, s := run(Options{Tokens: 40, Repetition: 50}); s == greedy.Text[:40] || strings.Count(s, "o") > strings.Count(greedy.Text[:40], "o") {
		t.Errorf("repetition penalty: %q", s)
	}
	// The same text with one thread.
	if r, err := trained(t, 1).Run(ctx, "the quick ", Options{Tokens: 30, Temperature: 3, Seed: 1}, nil); err != nil || r.Text != a {
		t.Errorf("one thread: %q, two: %q (%v)", r.Text, a, err)
	}
	// A prompt longer than the context is read from its end.
	if r, err := g.Run(ctx, strings.Repeat("the lazy dog. ", 4), Options{Tokens: 9}, nil); err != nil || r.Text != "the quick" {
		t.Errorf("%+v %v", r, err)
	}
}

// The best of all continuations is found where there are as many beams as could matter.
func TestBeamsFindTheBest(t *testing.T) {
	g := trained(t, 1)
	ctx := context.Background()
	d, err := g.m.Decoder(1, 16)
	if err != nil {
		t.Fatal(err)
	}
	prompt, _ := g.tok.Encode("q")
	best, want := math.Inf(-1), []int32(nil)
	n := len(g.m.Spec.ClassNames)
	for a := range int32(n) {
		d.Reset()
		s, err := d.Feed(prompt)
		if err != nil {
			t.Fatal(err)
		}
		p := logProb(s.F32(), a)
		if s, err = d.Feed([]int32{a}); err != nil {
			t.Fatal(err)
		}
		for b := range int32(n) {
			if v := p + logProb(s.F32(), b); v > best {
				best, want = v, []int32{a, b}
			}
		}
	}
	r, err := g.Run(ctx, "q", Options{Tokens: 2, Beams: n}, nil)
	if err != nil || r.Text != g.tok.Decode(want) || math.Abs(r.LogProb-best) > 1e-5 {
		t.Errorf("%+v %v, the best is %q with %g", r, err, g.tok.Decode(want), best)
	}
}

func TestMistakes(t *testing.T) {
	g := trained(t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	for want, f := range map[string]func() (Result, error){
		"prompt is empty":    func() (Result, error) { return g.Run(ctx, "", Options{Tokens: 1}, nil) },
		"'!' (U+0021)":       func() (Result, error) { return g.Run(ctx, "fox!", Options{Tokens: 1}, nil) },
		"at least 1 must":    func() (Result, error) { return g.Run(ctx, "a", Options{}, nil) },
		"temperature -1":     func() (Result, error) { return g.Run(ctx, "a", Options{Tokens: 1, Temperature: -1}, nil) },
		"top-k":              func() (Result, error) { return g.Run(ctx, "a", Options{Tokens: 1, TopK: -1}, nil) },
		"between 0 and 1":    func() (Result, error) { return g.Run(ctx, "a", Options{Tokens: 1, TopP: 2}, nil) },
		"repetition penalty": func() (Result, error) { return g.Run(ctx, "a", Options{Tokens: 1, Repetition: -1}, nil) },
		"stop text is empty": func() (Result, error) { return g.Run(ctx, "a", Options{Tokens: 1, Stop: []string{""}}, nil) },
		"and temperature 0":  func() (Result, error) { return g.Run(ctx, "a", Options{Tokens: 1, Beams: 2, Temperature: 1}, nil) },
		"the reader went away": func() (Result, error) {
			return g.Run(ctx, "a", Options{Tokens: 5}, func(string) error { return errors.New("the reader went away") })
		},
	} {
		if _, err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
	n := 0
	r, err := g.Run(ctx, "the ", Options{Tokens: 50}, func(string) error {
		if n++; n == 3 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || r.Tokens != 3 || len(r.Text) != 3 {
		t.Errorf("%+v %v", r, err)
	}
}

func TestFilter(t *testing.T) {
	var cs []candidate
	for i, p := range []float64{0.4, 0.3, 0.2, 0.1} {
		cs = append(cs, candidate{int32(i), math.Log(p)})
	}
	for _, c := range []struct {
		o    Options
		want []float64
	}{
		{Options{Temperature: 1}, []float64{0.4, 0.3, 0.2, 0.1}},
		{Options{Temperature: 0.5}, []float64{16. / 30, 9. / 30, 4. / 30, 1. / 30}},
		{Options{Temperature: 1, TopK: 2}, []float64{4. / 7, 3. / 7}},
		{Options{Temperature: 1, TopP: 0.75}, []float64{4. / 9, 3. / 9, 2. / 9}},
		{Options{Temperature: 1, MinP: 0.5}, []float64{4. / 9, 3. / 9, 2. / 9}},
		{Options{Temperature: 1, TopK: 3, TopP: 0.5, MinP: 0.1}, []float64{4. / 7, 3. / 7}},
	} {
		got := filter(cs, c.o)
		if len(got) != len(c.want) {
			t.Errorf("%+v: %v", c.o, got)
			continue
		}
		for i := range got {
			if math.Abs(got[i].p-c.want[i]) > 1e-12 {
				t.Errorf("%+v: %v, want %v", c.o, got, c.want)
			}
		}
	}
}

// Several prompts at once give what each gives alone, drawn or greedy, beyond the context and with stop texts too.
func TestRunAll(t *testing.T) {
	g := trained(t, 2)
	ctx := context.Background()
	prompts := []string{"the quick ", "o", "jumps over the lazy dog. the", "dog. the quick brown "}
	for _, o := range []Options{{Tokens: 40}, {Tokens: 40, Temperature: 1.5, Seed: 3, Repetition: 1.1}, {Tokens: 25, Stop: []string{"over"}}} {
		all, err := g.RunAll(ctx, prompts, o)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range prompts {
			alone, err := g.Run(ctx, p, o, nil)
			if err != nil {
				t.Fatal(err)
			}
			if all[i].Text != alone.Text || all[i].Why != alone.Why || all[i].Tokens != alone.Tokens || math.Abs(all[i].LogProb-alone.LogProb) > 1e-3 {
				t.Errorf("%q: %+v, alone %+v", p, all[i], alone)
			}
		}
	}
	for want, ps := range map[string][]string{"no prompt": nil, "prompt 2: generate: the prompt is empty": {"a", ""}, `'ß' (U+00DF) is not among`: {"ß"}} {
		if _, err := g.RunAll(ctx, ps, Options{Tokens: 1}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", ps, err, want)
		}
	}
	if _, err := g.RunAll(ctx, prompts, Options{Tokens: 1, Beams: 2}); err == nil {
		t.Error("a beam search of several prompts was taken")
	}
}

// A model with a window goes on beyond every context without computing anything again, and writes what it would with all of the text before it.
func TestGenerateWithoutEnd(t *testing.T) {
	set, err := text.Chars("t", strings.Repeat("abcdefgh", 80), text.Config{Length: 16})
	if err != nil {
		t.Fatal(err)
	}
	n := set.Spec().Classes
	net := nn.Sequential(nn.Embedding(n, 16), nn.TransformerBlock(2, nn.CausalAttention(), nn.Window(4), nn.Rotary(100)), nn.Dense(n, nn.Softmax))
	m, err := train.Compile(net, set.Spec(), optim.Adam(optim.Rate(0.02)), train.SparseCategoricalCrossentropy, train.Seed(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Fit(context.Background(), set.Train, train.Epochs(10)); err != nil {
		t.Fatal(err)
	}
	v, err := text.NewVocabulary(set.Spec().ClassNames)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(m, v, 16)
	if err != nil {
		t.Fatal(err)
	}
	r, err := g.Run(context.Background(), "abc", Options{Tokens: 500}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat("defghabc", 63)[:500]; r.Text != want {
		t.Errorf("wrote %q", r.Text)
	}
}
