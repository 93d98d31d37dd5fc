package generate

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// beam is a continuation in the course of a search.
type beam struct {
	tokens []int32 // without the prompt
	logp   float64
}

func (b beam) score(penalty float64) float64 {
	return b.logp / math.Pow(float64(max(1, len(b.tokens))), penalty)
}

// ended is a continuation that has come to its end, and why.
type ended struct {
	beam
	why string
}

// best is the one of the greatest score, of equals the first.
func best(done []ended, penalty float64) ended {
	return slices.MaxFunc(done, func(a, b ended) int { return cmp.Compare(a.score(penalty), b.score(penalty)) })
}

// choices are the scores of the next token of each sequence, and where the decoder has found them the most probable tokens.
type choices struct {
	scores     []float32 // [sequences, vocabulary]
	vocabulary int
	best       []float32 // [sequences, n]: logarithms of probabilities, the greatest first
	tokens     []int32   // that have them
	n          int
}

func choicesOf(d *train.Decoder, scores *tensor.Tensor) choices {
	c := choices{scores: scores.F32(), vocabulary: scores.Shape()[1]}
	if best, tokens := d.Top(); best != nil {
		c.best, c.tokens, c.n = best.F32(), tokens.I32(), best.Shape()[1]
	}
	return c
}

// of are the n best tokens after a text whose scores are a row, with the logarithms of their probabilities, the best first, of equals the lower number first; those whose scores are not
// numbers are left out. They are appended to cs. A penalty of repetitions changes which are the best, not their probabilities.
func (c choices) of(cs []candidate, row int, text []int32, penalty float64, n int) []candidate {
	if c.n < min(n, c.vocabulary) {
		scores := c.scores[row*c.vocabulary:][:c.vocabulary]
		most, rest := logSum(scores)
		for _, t := range top(scores, text, penalty, n) {
			cs = append(cs, candidate{t.token, float64(scores[t.token]) - most - rest})
		}
		return cs
	}
	for i, v := range c.best[row*c.n:][:min(n, c.n)] {
		if v-v == 0 {
			cs = append(cs, candidate{c.tokens[row*c.n+i], float64(v)})
		}
	}
	return cs
}

// grown is a beam with one token more.
type grown struct {
	from      int
	candidate // p is the logarithm of the probability of all of it
}

// grow gives the best continuations of beams whose scores are the rows from row on, the best first; text is what a beam's repetitions are counted in. They are appended to all.
func (c choices) grow(all []grown, live []beam, row int, text func(i int) []int32, o Options) ([]grown, error) {
	var room [32]candidate
	for i, b := range live {
		for _, t := range c.of(room[:0], row+i, text(i), o.Repetition, 2*o.Beams) {
			all = append(all, grown{i, candidate{t.token, b.logp + t.p}})
		}
	}
	if len(all) == 0 {
		return nil, errors.New("generate: the model's scores are not numbers: it has diverged in training")
	}
	slices.SortStableFunc(all, func(a, b grown) int { return cmp.Compare(b.p, a.p) })
	return all, nil
}

// search keeps, token by token, the most probable continuations, and gives the best of those that have ended.
func (g *Generator) search(ctx context.Context, prompt []int32, o Options, emit func(string) error) (Result, error) {
	var opts []train.DecoderOption
	if o.plain() {
		opts = append(opts, train.TopTokens(2*o.Beams))
	}
	d, err := g.m.Decoder(o.Beams, g.room, opts...)
	if err != nil {
		return Result{}, err
	}
	f := &feeder{d: d, text: make([][]int32, o.Beams)}
	next := make([][]int32, o.Beams)
	for i := range next {
		next[i] = prompt
	}
	live := []beam{{}}
	var done []ended
	var all []grown
	for n := 0; n < o.Tokens && len(live) > 0; n++ {
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		scores, err := f.feed(next)
		if err != nil {
			return Result{}, err
		}
		if all, err = choicesOf(d, scores).grow(all[:0], live, 0, func(i int) []int32 { return f.text[i] }, o); err != nil {
			return Result{}, err
		}
		var from []int
		var kept []beam
		for _, s := range all {
			b := beam{append(slices.Clone(live[s.from].tokens), s.token), s.p}
			text := g.tok.Decode(b.tokens)
			if slices.ContainsFunc(o.Stop, func(stop string) bool { return strings.Contains(text, stop) }) {
				done = append(done, ended{b, "stop"})
				continue
			}
			kept, from = append(kept, b), append(from, s.from)
			if len(kept) == o.Beams {
				break
			}
		}
		live = kept
		if len(done) >= o.Beams || len(live) == 0 {
			break
		}
		for len(from) < o.Beams { // places without a beam follow the first and are not looked at
			from = append(from, from[0])
		}
		if err := d.Reorder(from); err != nil {
			return Result{}, err
		}
		texts := make([][]int32, o.Beams)
		for i, k := range from {
			texts[i] = slices.Clone(f.text[k])
			next[i] = []int32{live[min(i, len(live)-1)].tokens[n]}
		}
		f.text = texts
	}
	for _, b := range live {
		done = append(done, ended{b, "tokens"})
	}
	b := best(done, o.LengthPenalty)
	w := &writer{tok: g.tok, stop: o.Stop, emit: emit}
	for _, t := range b.tokens {
		if _, err := w.add(t); err != nil {
			return Result{}, err
		}
	}
	r := Result{Text: w.text, Prompt: len(prompt), Tokens: len(b.tokens), LogProb: b.logp, Why: b.why}
	return r, w.flush()
}
