// Package generate lets language models write: greedily, at random, or with the most probable of several continuations (beam search).
//
// A model is one that train.Model.Decoder accepts. Everything random is a function of a seed and of the token's number, so that the same seed gives the same
// text whatever the number of threads.
package generate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	corpus "github.com/jouleml/joule/data/text"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/text"
	"github.com/jouleml/joule/train"
)

// Tokenizer turns text into the model's tokens and back.
type Tokenizer interface {
	Encode(text string) ([]int32, error)
	Decode(tokens []int32) string
}

// TokenizerOf is the tokenizer that a model was trained with: the one that its data has, or the characters that its classes are called after.
func TokenizerOf(m *train.Model) (Tokenizer, error) {
	if m.Spec.Tokenizer != nil {
		t, err := text.Parse(m.Spec.Tokenizer)
		if err != nil {
			return nil, fmt.Errorf("generate: the model's tokenizer: %w", err)
		}
		return t, nil
	}
	return corpus.NewVocabulary(m.Spec.ClassNames)
}

// Options say how the next token is chosen. Filters apply in the order of the fields.
type Options struct {
	Tokens      int     // the most tokens to write
	Repetition  float64 // > 1 makes tokens of the text so far less probable (arXiv:1909.05858); 0: 1
	Temperature float64 // scores are divided by it; 0: always the most probable token
	TopK        int     // only the k most probable tokens; 0: all
	TopP        float64 // only the most probable tokens that together have this probability (arXiv:1904.09751); 0: all
	MinP        float64 // only tokens with at least this share of the greatest probability (arXiv:2407.01082); 0: all
	Seed        uint64
	Stop        []string // the text ends before the first of these

	Beams         int     // > 1: so many continuations at a time, of which the most probable is given at the end
	LengthPenalty float64 // the logarithm of a continuation's probability is divided by its length to this power (arXiv:1609.08144 without its constants); 0: no division
}

// Check says what is wrong with the options.
func (o Options) Check() error {
	switch {
	case o.Tokens < 1:
		return fmt.Errorf("generate: %d tokens: at least 1 must be asked for", o.Tokens)
	case !(o.Temperature >= 0) || math.IsInf(o.Temperature, 0):
		return fmt.Errorf("generate: temperature %g must be a number from 0 on", o.Temperature)
	case o.TopK < 0:
		return fmt.Errorf("generate: top-k %d must not be negative", o.TopK)
	case !(o.TopP >= 0 && o.TopP <= 1) || !(o.MinP >= 0 && o.MinP <= 1):
		return fmt.Errorf("generate: top-p %g and min-p %g must be between 0 and 1", o.TopP, o.MinP)
	case o.Repetition != 0 && !(o.Repetition > 0) || math.IsInf(o.Repetition, 0):
		return fmt.Errorf("generate: repetition penalty %g must be a positive number", o.Repetition)
	case o.Beams < 0 || o.Beams > 1 && o.Temperature > 0:
		return fmt.Errorf("generate: beam search of %d beams takes at least 1 and temperature 0", o.Beams)
	case slices.Contains(o.Stop, ""):
		return errors.New("generate: a stop text is empty")
	}
	return nil
}

// Result is what was written.
type Result struct {
	Text    string  // without the prompt
	Prompt  int     // tokens of the prompt
	Tokens  int     // tokens written
	LogProb float64 // the logarithm of the probability that the model gives to what was written
	Why     string  // why it ended: "tokens" (as many as asked for) or "stop"
}

// Generator writes with one model.
type Generator struct {
	m    *train.Model
	tok  Tokenizer
	room int
}

// New makes a generator. room is how many tokens the model sees at most, its context; when a text grows beyond it the model sees the last half
// and what follows. A model that looks at a window of positions alone (nn.Model.Window) has no such limit: it goes on without computing anything again.
func New(m *train.Model, tok Tokenizer, room int) (*Generator, error) {
	if _, err := m.Decoder(1, room); err != nil {
		return nil, err
	}
	return &Generator{m, tok, room}, nil
}

// Run continues the prompt. emit, if not nil, is given the text piece by piece as soon as it is certain; an error of it ends the run. When ctx is cancelled
// what has been written so far is returned with the error.
func (g *Generator) Run(ctx context.Context, prompt string, o Options, emit func(text string) error) (Result, error) {
	if err := o.Check(); err != nil {
		return Result{}, err
	}
	tokens, err := g.encode(prompt)
	if err != nil {
		return Result{}, err
	}
	if o.Beams > 1 {
		return g.search(ctx, tokens, o, emit)
	}
	rs, err := g.sample(ctx, [][]int32{tokens}, o, emit)
	if rs == nil {
		return Result{}, err
	}
	return rs[0], err
}

// RunAll continues several prompts at once, of any lengths; each result is what Run gives for its prompt. It knows no beam search.
func (g *Generator) RunAll(ctx context.Context, prompts []string, o Options) ([]Result, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.Beams > 1 {
		return nil, errors.New("generate: beam search takes one prompt at a time")
	}
	if len(prompts) == 0 {
		return nil, errors.New("generate: there is no prompt")
	}
	all := make([][]int32, len(prompts))
	for i, p := range prompts {
		var err error
		if all[i], err = g.encode(p); err != nil {
			if len(prompts) > 1 {
				err = fmt.Errorf("prompt %d: %w", i+1, err)
			}
			return nil, err
		}
	}
	return g.sample(ctx, all, o, nil)
}

// Sees is how many of the tokens of a prompt that has so many the model looks at before it writes the first: all, or the last of them where they are more than it has room for.
func (g *Generator) Sees(prompt int) int {
	if _, endless := g.m.Net.Window(); endless || prompt <= g.room {
		return prompt
	}
	return last(g.room)
}

// last is how many tokens a sequence that has outgrown its room goes on with.
func last(room int) int { return max(1, room/2) }

// encode is a prompt's tokens. Of a tokenizer that has a token between texts, that alone is an empty prompt: a text begins.
func (g *Generator) encode(prompt string) ([]int32, error) {
	tokens, err := g.tok.Encode(prompt)
	if err != nil {
		return nil, fmt.Errorf("generate: prompt: %w", err)
	}
	if k, ok := g.tok.(interface{ ID(string) (int32, bool) }); ok && len(tokens) == 0 {
		if gap, ok := k.ID(corpus.Gap); ok {
			tokens = []int32{gap}
		}
	}
	if len(tokens) == 0 {
		return nil, errors.New("generate: the prompt is empty: the model needs something to go on with, be it a line break")
	}
	return tokens, nil
}

// feeder keeps a decoder within its room.
type feeder struct {
	d    *train.Decoder
	text [][]int32 // of each sequence, all of it
}

// feed appends the newest tokens of each sequence (none of one that has ended), and gives the scores of what follows. A sequence for which there is no more room begins again with its
// last half.
func (f *feeder) feed(next [][]int32) (*tensor.Tensor, error) {
	lens := f.d.Lens()
	for i, t := range next {
		f.text[i] = append(f.text[i], t...)
		if room := f.d.Room(); room > 0 && lens[i]+len(t) > room {
			f.d.Restart(i)
			next[i] = f.text[i][max(0, len(f.text[i])-last(room)):]
		}
	}
	return f.d.FeedEach(next)
}

// sample continues prompts with drawn tokens, or always the most probable.
func (g *Generator) sample(ctx context.Context, prompts [][]int32, o Options, emit func(string) error) ([]Result, error) {
	n := len(prompts)
	d, err := g.m.Decoder(n, g.room)
	if err != nil {
		return nil, err
	}
	f := &feeder{d: d, text: make([][]int32, n)}
	rs, out, next := make([]Result, n), make([]*writer, n), make([][]int32, n)
	for i, p := range prompts {
		rs[i], out[i], next[i] = Result{Prompt: len(p), Why: "tokens"}, &writer{tok: g.tok, stop: o.Stop, emit: emit}, p
	}
	finish := func(err error) ([]Result, error) {
		for i := range rs {
			rs[i].Text = out[i].text
		}
		return rs, err
	}
	for written, live := 0, n; written < o.Tokens && live > 0; written++ {
		if err := ctx.Err(); err != nil {
			return finish(err)
		}
		scores, err := f.feed(next)
		if err != nil {
			return finish(err)
		}
		vocabulary := scores.Shape()[1]
		for i := range rs {
			if rs[i].Why == "stop" {
				continue
			}
			t, logp := pick(scores.F32()[i*vocabulary:][:vocabulary], f.text[i], o, written)
			if t < 0 {
				return finish(errors.New("generate: the model's scores are not numbers: it has diverged in training"))
			}
			rs[i].Tokens++
			rs[i].LogProb += logp
			next[i] = []int32{t}
			stopped, err := out[i].add(t)
			if err != nil {
				return finish(err)
			}
			if stopped {
				rs[i].Why, next[i] = "stop", nil
				live--
			}
		}
	}
	for _, w := range out {
		if err := w.flush(); err != nil {
			return finish(err)
		}
	}
	return finish(nil)
}

// writer turns tokens into text, and holds back what may be the beginning of a stop text.
type writer struct {
	tok    Tokenizer
	stop   []string
	emit   func(string) error
	tokens []int32
	text   string // without a stop text
	sent   int    // bytes given to emit
}

func (w *writer) add(t int32) (stopped bool, err error) {
	w.tokens = append(w.tokens, t)
	w.text = w.tok.Decode(w.tokens)
	for _, s := range w.stop {
		if i := strings.Index(w.text, s); i >= 0 {
			w.text = w.text[:i]
			stopped = true
		}
	}
	if stopped {
		return true, nil
	}
	certain := len(strings.TrimRight(w.text, "\uFFFD")) // a character may be on its way
	for _, s := range w.stop {
		for n := min(len(s)-1, len(w.text)); n > 0; n-- {
			if strings.HasSuffix(w.text, s[:n]) {
				certain = min(certain, len(w.text)-n)
				break
			}
		}
	}
	return false, w.send(certain)
}

func (w *writer) send(to int) error {
	if w.emit == nil || to <= w.sent {
		return nil
	}
	piece := w.text[w.sent:to]
	w.sent = to
	return w.emit(piece)
}

func (w *writer) flush() error { return w.send(len(w.text)) }

// candidate is a token with its score or probability.
type candidate struct {
	token int32
	p     float64
}

// plain says that scores are taken as they are.
func (o Options) plain() bool { return o.Repetition == 0 || o.Repetition == 1 }

// pick chooses the next token after text, the n-th to be written, and gives the logarithm of the probability that the model gave it. It is negative if no score is a number.
func pick(scores []float32, text []int32, o Options, n int) (token int32, logp float64) {
	most := 1
	if o.Temperature > 0 {
		most = len(scores)
		if o.TopK > 0 {
			most = o.TopK
		}
	}
	cs := top(scores, text, o.Repetition, most)
	if len(cs) == 0 {
		return -1, 0
	}
	if o.Temperature > 0 {
		kept := filter(cs, o)
		// A stream for each token: what was drawn before does not matter.
		u := rand.New(rand.NewPCG(o.Seed, uint64(n))).Float64()
		token = kept[len(kept)-1].token
		for _, c := range kept {
			if u -= c.p; u < 0 {
				token = c.token
				break
			}
		}
	} else {
		token = cs[0].token
	}
	return token, logProb(scores, token)
}

// fewCandidates is how many of the best are kept in order one by one; for more all are sorted.
const fewCandidates = 64

// top are the n best tokens, the best first, of equals the lower number first; those whose scores are not numbers are left out.
func top(scores []float32, text []int32, penalty float64, n int) []candidate {
	if penalty != 0 && penalty != 1 || n > fewCandidates {
		cs := penalised(scores, text, penalty)
		sortBest(cs)
		return cs[:min(n, len(cs))]
	}
	cs := make([]candidate, 0, n+1)
	least := float32(math.Inf(-1)) // of those kept, once they are n
	for i, s := range scores {
		if s-s != 0 || s <= least && len(cs) == n {
			continue
		}
		at := len(cs)
		for at > 0 && cs[at-1].p < float64(s) {
			at--
		}
		if cs = slices.Insert(cs, at, candidate{int32(i), float64(s)}); len(cs) > n {
			cs = cs[:n]
		}
		least = float32(cs[len(cs)-1].p)
	}
	return cs
}

// penalised are the scores as candidates; those that are no numbers are left out. The score of a token that occurs in the text is divided by the penalty if it is
// positive and else multiplied.
func penalised(scores []float32, text []int32, penalty float64) []candidate {
	cs := make([]candidate, 0, len(scores))
	for i, s := range scores {
		if v := float64(s); v-v == 0 {
			cs = append(cs, candidate{int32(i), v})
		}
	}
	if penalty == 0 || penalty == 1 {
		return cs
	}
	seen := map[int32]bool{}
	for _, t := range text {
		seen[t] = true
	}
	for i := range cs {
		if !seen[cs[i].token] {
			continue
		}
		if cs[i].p > 0 {
			cs[i].p /= penalty
		} else {
			cs[i].p *= penalty
		}
	}
	return cs
}

// sortBest puts the greatest first, of equals the lower token.
func sortBest(cs []candidate) {
	slices.SortFunc(cs, func(a, b candidate) int {
		switch {
		case a.p > b.p:
			return -1
		case a.p < b.p:
			return 1
		}
		return int(a.token) - int(b.token)
	})
}

// filter turns sorted scores into the probabilities of those that the options leave, which add up to 1.
func filter(cs []candidate, o Options) []candidate {
	kept := slices.Clone(cs)
	if o.TopK > 0 && o.TopK < len(kept) {
		kept = kept[:o.TopK]
	}
	top := kept[0].p
	for i := range kept {
		kept[i].p = math.Exp((kept[i].p - top) / o.Temperature)
	}
	normalise(kept)
	if o.TopP > 0 {
		sum := 0.0
		for i, c := range kept {
			if sum += c.p; sum >= o.TopP {
				kept = kept[:i+1]
				break
			}
		}
		normalise(kept)
	}
	if o.MinP > 0 {
		least := o.MinP * kept[0].p
		n := 0
		for n < len(kept) && kept[n].p >= least {
			n++
		}
		kept = kept[:n]
		normalise(kept)
	}
	return kept
}

func normalise(cs []candidate) {
	sum := 0.0
	for _, c := range cs {
		sum += c.p
	}
	for i := range cs {
		cs[i].p /= sum
	}
}

// logProb is the logarithm of the probability that scores give a token.
func logProb(scores []float32, token int32) float64 {
	top, rest := logSum(scores)
	return float64(scores[token]) - top - rest
}

// logSum is the logarithm of the sum of the exponentials of scores, in two parts: the greatest score, and what the others add.
func logSum(scores []float32) (top, rest float64) {
	top, sum := math.Inf(-1), 0.0
	for _, s := range scores {
		top = max(top, float64(s))
	}
	for _, s := range scores {
		sum += math.Exp(float64(s) - top)
	}
	return top, math.Log(sum)
}
