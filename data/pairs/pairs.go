// Package pairs makes data sets of pairs of texts, of which a model reads one and writes the other: translations, summaries.
//
// An example has the inputs "source" i32 [Source], "source_length" i32 (how many of them count) and "target" i32 [Target], which begins with <start>, and the targets "next": the
// same text one token later, which ends with <end>. Source texts end with <end> too. Behind the end inputs are <pad> and targets -1, which losses and metrics leave out.
package pairs

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/tabs"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/text"
)

// The special tokens and their numbers.
const (
	Pad   = "<pad>"
	Start = "<start>"
	End   = "<end>"
)

// Specials are the special tokens in the order of their numbers.
var Specials = []string{Pad, Start, End}

// Pair is a text and what is to be written about it.
type Pair struct{ Source, Target string }

// ReadTable reads pairs from lines of two texts with a tab between them. Empty lines do not count.
func ReadTable(path string) ([]Pair, error) {
	var out []Pair
	if err := tabs.Read(path, "two texts", func(source, target string) { out = append(out, Pair{source, target}) }); err != nil {
		return nil, fmt.Errorf("pairs: %w", err)
	}
	return out, nil
}

// Config says how pairs become examples.
type Config struct {
	Vocabulary     int             // tokens of the tokenizer that is made; 0: 4000
	Kind           string          // of it: "bpe", the default, or "unigram"
	Source, Target int             // tokens of a text at most, with its end; 0: 64. Longer pairs are left out, or see Cut
	Cut            bool            // longer sources are cut off instead
	Tokenizer      *text.Tokenizer // nil: made from the training part
}

// New makes a data set of a training and a test part.
func New(name string, train, test []Pair, c Config) (*data.Set, error) {
	c.Vocabulary, c.Source, c.Target = cmp.Or(c.Vocabulary, 4000), cmp.Or(c.Source, 64), cmp.Or(c.Target, 64)
	if c.Source < 2 || c.Target < 2 {
		return nil, fmt.Errorf("pairs: texts of %d and %d tokens at most: there must be room for one and the end", c.Source, c.Target)
	}
	if c.Tokenizer == nil {
		var err error
		if c.Tokenizer, err = tokenizer(train, cmp.Or(c.Kind, "bpe"), c.Vocabulary); err != nil {
			return nil, err
		}
	}
	j, err := json.Marshal(c.Tokenizer)
	if err != nil {
		return nil, fmt.Errorf("pairs: %w", err)
	}
	for i, s := range Specials {
		if id, ok := c.Tokenizer.ID(s); !ok || int(id) != i {
			return nil, fmt.Errorf("pairs: the tokenizer must have %s as token %d", s, i)
		}
	}
	spec := specOf(c.Source, c.Target, c.Tokenizer.Size(), j)
	set := &data.Set{Name: name}
	for _, p := range []struct {
		to   *data.Dataset
		from []Pair
		what string
	}{{&set.Train, train, "training"}, {&set.Test, test, "test"}} {
		e, err := encode(p.from, c, spec)
		if err != nil {
			return nil, err
		}
		if e.Len() == 0 {
			return nil, fmt.Errorf("pairs: none of %d %s pairs has at most %d and %d tokens", len(p.from), p.what, c.Source-1, c.Target-1)
		}
		*p.to = e
	}
	return set, nil
}

func tokenizer(from []Pair, kind string, size int) (*text.Tokenizer, error) {
	if kind != "bpe" && kind != "unigram" {
		return nil, fmt.Errorf("pairs: tokenizer %q: want bpe or unigram", kind)
	}
	t, err := text.NewTrainer(kind, size, Specials...)
	if err != nil {
		return nil, err
	}
	for _, p := range from {
		t.Add(p.Source)
		t.Add(p.Target)
	}
	return t.Train()
}

func specOf(source, target, vocabulary int, tokenizer json.RawMessage) data.Spec {
	field := func(name string, dims ...int) data.Field {
		return data.Field{Name: name, Shape: shape.Of(dims...), DType: dtype.I32}
	}
	return data.Spec{
		Inputs:  []data.Field{field("source", source), field("source_length"), field("target", target)},
		Targets: []data.Field{field("next", target)},
		Classes: vocabulary, Tokenizer: tokenizer, Grows: "target",
	}
}

// Encoded are pairs as tokens. It is a data.Bucketed.
type Encoded struct {
	config         Config
	spec           data.Spec
	sizes          []data.Spec
	lengths        [][2]int // of the sizes: tokens of source and target
	size           []uint8
	source, target [][]int32 // with <end>, the target without <start>
	pairs          []Pair
}

// sizes of batches, source and target as shares of their greatest lengths in eighths: texts and what is written about them are about as long.
var sizes = [][2]int{{2, 2}, {3, 3}, {4, 4}, {6, 6}, {8, 8}}

// cutSizes are those where sources are cut off: most of them are then as long as they may be, whatever the target's length. As in sizes each has room for all before it, since a batch
// may hold some of them.
var cutSizes = [][2]int{{2, 2}, {3, 3}, {4, 4}, {8, 4}, {8, 5}, {8, 6}, {8, 8}}

func encode(from []Pair, c Config, spec data.Spec) (*Encoded, error) {
	e := &Encoded{config: c, spec: spec}
	shares := sizes
	if c.Cut {
		shares = cutSizes
	}
	for _, s := range shares {
		l := [2]int{(c.Source*s[0] + 7) / 8, (c.Target*s[1] + 7) / 8}
		e.lengths = append(e.lengths, l)
		e.sizes = append(e.sizes, specOf(l[0], l[1], spec.Classes, spec.Tokenizer))
	}
	for _, p := range from {
		s, err := c.Tokenizer.Encode(p.Source)
		if err != nil {
			return nil, fmt.Errorf("pairs: %w", err)
		}
		t, err := c.Tokenizer.Encode(p.Target)
		if err != nil {
			return nil, fmt.Errorf("pairs: %w", err)
		}
		if c.Cut && len(s) >= c.Source {
			s = s[:c.Source-1]
		}
		if len(s) >= c.Source || len(t) >= c.Target || len(s) == 0 || len(t) == 0 {
			continue
		}
		e.add(p, append(s, endID), append(t, endID))
	}
	return e, nil
}

// endID is the number of End.
const endID = 2

// add appends a pair that there is room for, as tokens with their ends.
func (e *Encoded) add(p Pair, source, target []int32) {
	k := 0
	for len(source) > e.lengths[k][0] || len(target) > e.lengths[k][1] {
		k++
	}
	e.source, e.target = append(e.source, source), append(e.target, target)
	e.size = append(e.size, uint8(k))
	e.pairs = append(e.pairs, p)
}

// Rewritten are the pairs with others' targets, one for each, such as the texts that a teacher has written about the sources (Kim & Rush, arXiv:1606.07947); with both, those behind the pairs as
// they were. A pair whose new target is empty or longer than there is room for keeps its own; kept says how many those are.
func (e *Encoded) Rewritten(targets []string, both bool) (out *Encoded, kept int, err error) {
	if len(targets) != e.Len() {
		return nil, 0, fmt.Errorf("pairs: %d new targets for %d pairs", len(targets), e.Len())
	}
	out = &Encoded{config: e.config, spec: e.spec, sizes: e.sizes, lengths: e.lengths}
	if both {
		for i, p := range e.pairs {
			out.add(p, e.source[i], e.target[i])
		}
	}
	for i, t := range targets {
		ids, err := e.config.Tokenizer.Encode(t)
		if err != nil {
			return nil, 0, fmt.Errorf("pairs: %w", err)
		}
		if len(ids) == 0 || len(ids) >= e.config.Target {
			kept++
			out.add(e.pairs[i], e.source[i], e.target[i])
			continue
		}
		out.add(Pair{e.pairs[i].Source, t}, e.source[i], append(ids, endID))
	}
	return out, kept, nil
}

// Spec implements data.Dataset.
func (e *Encoded) Spec() data.Spec { return e.spec }

// Len implements data.Dataset.
func (e *Encoded) Len() int { return len(e.pairs) }

// Pair is the text of an example.
func (e *Encoded) Pair(i int) Pair { return e.pairs[i] }

// Buckets implements data.Bucketed.
func (e *Encoded) Buckets() []data.Spec { return e.sizes }

// Bucket implements data.Bucketed.
func (e *Encoded) Bucket(i int) int { return int(e.size[i]) }

// Fill implements data.Dataset.
func (e *Encoded) Fill(idx []int, x, y []*tensor.Tensor) error {
	source, length, target, next := x[0].I32(), x[1].I32(), x[2].I32(), y[0].I32()
	s, t := x[0].Shape()[1], x[2].Shape()[1]
	for k, i := range idx {
		if len(e.source[i]) > s || len(e.target[i]) > t {
			return errors.New("pairs: an example is longer than the batch has room for")
		}
		copy(padded(source[k*s:(k+1)*s], 0), e.source[i])
		length[k] = int32(len(e.source[i]))
		in := padded(target[k*t:(k+1)*t], 0)
		in[0] = 1
		copy(in[1:], e.target[i][:len(e.target[i])-1])
		copy(padded(next[k*t:(k+1)*t], -1), e.target[i])
	}
	return nil
}

func padded(a []int32, with int32) []int32 {
	for i := range a {
		a[i] = with
	}
	return a
}
