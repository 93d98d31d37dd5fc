package generate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/text"
	"github.com/jouleml/joule/train"
)

// Answerer lets an encoder-decoder write about texts: translate or sum up. The encoder reads each text once; the decoder writes with a memory of keys and values.
type Answerer struct {
	m          *train.Model
	tok        *text.Tokenizer
	source     int // tokens that the model reads at most, the end included
	room       int // tokens that it writes at most
	start, end int32
}

// NewAnswerer makes one of a model whose data has the inputs that package data/pairs describes.
func NewAnswerer(m *train.Model) (*Answerer, error) {
	in := m.Spec.Inputs
	if m.Spec.Grows == "" || m.Spec.Tokenizer == nil || len(in) != 3 || in[0].DType != dtype.I32 || len(in[0].Shape) != 1 || len(in[1].Shape) != 0 || in[2].Name != m.Spec.Grows {
		return nil, errors.New("generate: the model does not read a text to write another: it was not trained on pairs of texts")
	}
	tok, err := text.Parse(m.Spec.Tokenizer)
	if err != nil {
		return nil, fmt.Errorf("generate: the model's tokenizer: %w", err)
	}
	a := &Answerer{m: m, tok: tok, source: in[0].Shape[0], room: in[2].Shape[0]}
	var ok, ok2 bool
	a.start, ok = tok.ID("<start>")
	a.end, ok2 = tok.ID("<end>")
	if !ok || !ok2 {
		return nil, errors.New("generate: the model's tokenizer lacks <start> or <end>")
	}
	return a, nil
}

// Answer is what was written about a text.
type Answer struct {
	Result
	Cut int // tokens of the text that the model did not read: they were too many
}

// Attention is what the last decoder block of a model looked at while it wrote, the mean of its heads.
type Attention struct {
	Source, Target []string    // tokens, their ends included
	P              [][]float64 // of each token of Target over those of Source; each row adds up to 1
}

// Attend gives, for a text and what was written about it, how much each token written looked at each token read.
func (a *Answerer) Attend(source, target string) (Attention, error) {
	in := a.m.Spec.Inputs
	x := []*tensor.Tensor{tensor.New(dtype.I32, 1, a.source), tensor.New(dtype.I32, 1), tensor.New(dtype.I32, 1, in[2].Shape[0])}
	var out Attention
	read := func(s string, room int) ([]int32, []string, error) {
		ids, err := a.tok.Encode(s)
		if err != nil {
			return nil, nil, fmt.Errorf("generate: %w", err)
		}
		ids = append(ids[:min(len(ids), room-1)], a.end)
		var names []string
		for _, id := range ids {
			name := a.tok.Decode([]int32{id})
			if name == "" {
				name = a.tok.Token(id)
			}
			names = append(names, name)
		}
		return ids, names, nil
	}
	ids, names, err := read(source, a.source)
	if err != nil {
		return out, err
	}
	copy(x[0].I32(), ids)
	x[1].I32()[0] = int32(len(ids))
	out.Source = names
	if ids, out.Target, err = read(target, in[2].Shape[0]); err != nil {
		return out, err
	}
	x[2].I32()[0] = a.start
	copy(x[2].I32()[1:], ids[:len(ids)-1])
	maps, err := a.m.AttentionMaps(x...)
	if err != nil {
		return out, err
	}
	for _, m := range slices.Backward(maps) {
		sh := m.P.Shape()
		if sh[2] != in[2].Shape[0] || sh[3] != a.source || !strings.HasSuffix(m.Part, "cross_attention") {
			continue
		}
		for t := range out.Target {
			row := make([]float64, len(out.Source))
			for h := range sh[1] {
				for s := range row {
					row[s] += float64(m.P.F32()[(h*sh[2]+t)*sh[3]+s]) / float64(sh[1])
				}
			}
			out.P = append(out.P, row)
		}
		return out, nil
	}
	return out, errors.New("generate: the model has no cross-attention to show")
}

// atOnce is how many sequences are written at the same time, beams included.
const atOnce = 64

// question is a text as the encoder reads it.
type question struct {
	at  int // which of the texts
	ids []int32
	cut int
}

// Run writes about each of the texts: the most probable token each time, or with Beams > 1 the best of a search. It takes Tokens (0: as many as there is room for), Beams,
// LengthPenalty and Repetition of the options. Texts of about the same length are written about together, since the answers to them come to their ends at about the same time.
func (a *Answerer) Run(ctx context.Context, texts []string, o Options) ([]Answer, error) {
	if o.Tokens == 0 || o.Tokens > a.room {
		o.Tokens = a.room
	}
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.Temperature > 0 || o.TopK > 0 || o.TopP > 0 || o.MinP > 0 || len(o.Stop) > 0 {
		return nil, errors.New("generate: a model that reads a text and writes another takes beams, a length penalty and a repetition penalty, and temperature 0")
	}
	o.Beams = max(1, o.Beams)
	qs := make([]question, len(texts))
	for i, t := range texts {
		ids, err := a.tok.Encode(t)
		if err != nil {
			return nil, fmt.Errorf("generate: text %d: %w", i+1, err)
		}
		if len(ids) == 0 {
			return nil, fmt.Errorf("generate: text %d is empty", i+1)
		}
		n := min(len(ids), a.source-1)
		qs[i] = question{i, ids[:n:n], len(ids) - n}
	}
	slices.SortStableFunc(qs, func(p, q question) int { return len(p.ids) - len(q.ids) })
	out := make([]Answer, len(texts))
	group := max(1, min(len(texts), atOnce/o.Beams))
	for len(qs) > 0 {
		n := min(group, len(qs))
		as, err := a.group(ctx, qs[:n], group, o)
		if err != nil {
			return nil, err
		}
		for i, q := range qs[:n] {
			out[q.at] = as[i]
		}
		qs = qs[n:]
	}
	return out, nil
}

// group writes about at most so many texts together; places without a text repeat the first.
func (a *Answerer) group(ctx context.Context, texts []question, places int, o Options) ([]Answer, error) {
	sequences := places * o.Beams
	var opts []train.DecoderOption
	if o.plain() {
		opts = append(opts, train.TopTokens(2*o.Beams))
	}
	d, err := a.m.Decoder(sequences, a.room, opts...)
	if err != nil {
		return nil, err
	}
	out := make([]Answer, len(texts))
	source, length := tensor.New(dtype.I32, sequences, a.source), tensor.New(dtype.I32, sequences)
	for p := range places {
		q := texts[0]
		if p < len(texts) {
			q = texts[p]
			out[p].Cut, out[p].Prompt = q.cut, len(q.ids)
		}
		for b := range o.Beams {
			row := source.I32()[(p*o.Beams+b)*a.source:]
			row[copy(row, q.ids)] = a.end
			length.I32()[p*o.Beams+b] = int32(len(q.ids) + 1)
		}
	}
	if err := d.Begin(source, length); err != nil {
		return nil, err
	}
	searches := make([]search, places)
	for i := range searches {
		searches[i].live = []beam{{}}
	}
	next := make([]int32, sequences)
	for i := range next {
		next[i] = a.start
	}
	from := make([]int, sequences)
	for n := range o.Tokens {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		scores, err := d.Feed(next)
		if err != nil {
			return nil, err
		}
		c := choicesOf(d, scores)
		open := false
		for p := range searches {
			s := &searches[p]
			if err := s.step(c, p*o.Beams, a.end, o, n+1 == o.Tokens); err != nil {
				return nil, err
			}
			open = open || p < len(texts) && !s.ended
			for b := range o.Beams {
				row := p*o.Beams + b
				from[row], next[row] = row, a.end // places without a beam go on with anything
				if b < len(s.live) {
					from[row], next[row] = p*o.Beams+s.from[b], s.live[b].tokens[n]
				}
			}
		}
		if !open {
			break
		}
		if err := d.Reorder(from); err != nil {
			return nil, err
		}
	}
	for i := range texts {
		best := best(searches[i].done, o.LengthPenalty)
		out[i].Text, out[i].Tokens, out[i].LogProb, out[i].Why = a.tok.Decode(best.tokens), len(best.tokens), best.logp, best.why
	}
	return out, nil
}

// search is the course of one text: the beams, in which rows of the scores they are, and what has ended.
type search struct {
	live  []beam
	from  []int // the beam, before the last step, that each goes on
	done  []ended
	ended bool
	all   []grown // of a step
}

// step takes the scores of the next token, one row for each beam from row on. last says that no more tokens may follow.
func (s *search) step(c choices, row int, end int32, o Options, last bool) error {
	if s.ended {
		return nil
	}
	var err error
	if s.all, err = c.grow(s.all[:0], s.live, row, func(i int) []int32 { return s.live[i].tokens }, o); err != nil {
		return err
	}
	var live []beam
	s.from = s.from[:0]
	for rank, g := range s.all {
		old := s.live[g.from].tokens
		if g.token == end {
			if rank < o.Beams { // an end counts where it is among the best
				s.done = append(s.done, ended{beam{old, g.p}, "end"})
			}
			continue
		}
		if len(live) < o.Beams {
			live, s.from = append(live, beam{append(slices.Clone(old), g.token), g.p}), append(s.from, g.from)
		}
	}
	s.live = live
	if last && len(s.done) < o.Beams {
		for _, b := range live {
			s.done = append(s.done, ended{b, "tokens"})
		}
	}
	if len(s.done) >= o.Beams || len(live) == 0 || last {
		s.ended, s.live = true, nil
	}
	return nil
}
