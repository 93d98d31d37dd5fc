package generate

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
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

// search keeps, token by token, the most probable continuations, and gives the best of those that have ended.
func (g *Generator) search(ctx context.Context, prompt []int32, o Options, emit func(string) error) (Result, error) {
	d, err := g.m.Decoder(o.Beams, g.room)
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
	for n := 0; n < o.Tokens && len(live) > 0; n++ {
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		scores, err := f.feed(next)
		if err != nil {
			return Result{}, err
		}
		type step struct {
			from int
			candidate
		}
		var steps []step
		vocabulary := len(scores) / o.Beams
		for i, b := range live {
			s := scores[i*vocabulary:][:vocabulary]
			cs := penalised(s, f.text[i], o.Repetition)
			sortBest(cs)
			top, rest := logSum(s)
			for _, c := range cs[:min(len(cs), 2*o.Beams)] {
				steps = append(steps, step{i, candidate{c.token, b.logp + (float64(s[c.token]) - top - rest)}})
			}
		}
		if len(steps) == 0 {
			return Result{}, errors.New("generate: the model's scores are not numbers: it has diverged in training")
		}
		slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(b.p, a.p) })
		var from []int
		var grown []beam
		for _, s := range steps {
			b := beam{append(slices.Clone(live[s.from].tokens), s.token), s.p}
			text := g.tok.Decode(b.tokens)
			if slices.ContainsFunc(o.Stop, func(stop string) bool { return strings.Contains(text, stop) }) {
				done = append(done, ended{b, "stop"})
				continue
			}
			grown, from = append(grown, b), append(from, s.from)
			if len(grown) == o.Beams {
				break
			}
		}
		live = grown
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
