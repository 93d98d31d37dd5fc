// Package text turns text into the numbers that language models work on, and back.
//
// A Tokenizer is what a tokenizer.json file of Hugging Face describes: normalisation of the text, a division into pieces, a model that turns pieces into tokens
// (BPE, WordPiece, unigram, words), tokens around the result, and the way back. Load reads such files, and those of tiktoken and SentencePiece; Train makes
// new ones. Whatever its source, a tokenizer is written as tokenizer.json, which other programs read too.
//
// # Terminology
//
// A token is an entry of the vocabulary, with a number from 0 on; special tokens stand for something else than text (an end, a gap). Added tokens are found in
// the text before anything else happens to it.
package text

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
)

// Tokenizer turns text into tokens and back. It may be used by several goroutines at a time.
type Tokenizer struct {
	file file // what it was made from, as tokenizer.json has it

	added *addedTokens
	norm  normalizer // nil: none
	pre   splitter   // nil: the whole text is one piece
	model model
	post  framer  // nil: none
	back  decoder // nil: tokens are joined by spaces
	// raw says that the model's pieces are the bytes of the text, where the file has a letter for each byte.
	raw     bool
	write   func() (json.RawMessage, error) // makes file.Model, which is empty then; nil: it is there
	scratch sync.Pool                       // *pieces
}

// model turns a piece of text into tokens.
type model interface {
	// encode appends the tokens of a piece. w is scratch memory that belongs to the caller alone.
	encode(out []int32, piece string, w *pieces) ([]int32, error)
	// token is the text of a token as the file has it.
	token(id int32) (string, bool)
	id(token string) (int32, bool)
	size() int // one more than the greatest number
}

// Encode gives the tokens of a text, without those that the tokenizer would put around it.
func (t *Tokenizer) Encode(s string) ([]int32, error) { return t.Append(nil, s) }

// Append appends the tokens of a text to out.
func (t *Tokenizer) Append(out []int32, s string) (_ []int32, err error) {
	w := t.workspace()
	defer func() {
		t.scratch.Put(w)
		if f, ok := recover().(failure); ok {
			err = f.err
		}
	}()
	s = valid(s)
	err = t.added.split(s, t.added.raw, true, func(part string, id int32, start bool) error {
		if id >= 0 {
			out = append(out, id)
			return nil
		}
		if t.norm != nil {
			part = t.norm.normalize(part)
		}
		return t.added.split(part, t.added.normal, start, func(part string, id int32, start bool) error {
			if id >= 0 {
				out = append(out, id)
				return nil
			}
			var err error
			out, err = t.encode(out, part, start, w)
			return err
		})
	})
	return out, err
}

func (t *Tokenizer) workspace() *pieces {
	if w, ok := t.scratch.Get().(*pieces); ok {
		return w
	}
	return &pieces{known: map[string][]int32{}}
}

// encode is for text without added tokens; first says that it begins the whole text.
func (t *Tokenizer) encode(out []int32, s string, first bool, w *pieces) ([]int32, error) {
	if s == "" {
		return out, nil
	}
	if t.pre == nil {
		return t.model.encode(out, s, w)
	}
	var err error
	t.pre.split(s, first, func(piece string) {
		if err == nil && piece != "" {
			out, err = t.model.encode(out, piece, w)
		}
	})
	return out, err
}

// Frame gives the tokens of a text with those that the tokenizer puts around it, such as [CLS] and [SEP].
func (t *Tokenizer) Frame(s string) ([]int32, error) {
	ids, err := t.Encode(s)
	if err != nil || t.post == nil {
		return ids, err
	}
	ids, _ = t.post.frame(ids, nil, false)
	return ids, nil
}

// FrameShort is Frame of a text of at most n tokens, those around it included: what is too long is cut off at its end. n must leave room for those around it.
func (t *Tokenizer) FrameShort(s string, n int) ([]int32, error) {
	ids, err := t.Encode(s)
	if err != nil {
		return nil, err
	}
	around := 0
	if t.post != nil {
		empty, _ := t.post.frame(nil, nil, false)
		around = len(empty)
	}
	if n < around {
		return nil, fmt.Errorf("text: %d tokens leave no room for the %d that the tokenizer puts around a text", n, around)
	}
	ids = ids[:min(len(ids), n-around)]
	if t.post != nil {
		ids, _ = t.post.frame(ids, nil, false)
	}
	return ids, nil
}

// FramePair gives the tokens of two texts as the tokenizer joins them, and for each token the type that the model is told: of which text it is.
func (t *Tokenizer) FramePair(a, b string) (ids, types []int32, err error) {
	x, err := t.Encode(a)
	if err != nil {
		return nil, nil, err
	}
	y, err := t.Encode(b)
	if err != nil {
		return nil, nil, err
	}
	if t.post == nil {
		ids, types = join(x, y)
		return ids, types, nil
	}
	ids, types = t.post.frame(x, y, true)
	return ids, types, nil
}

// Decode is the text of tokens; special tokens and numbers outside of the vocabulary are left out. Bytes that are not UTF-8 become U+FFFD.
func (t *Tokenizer) Decode(ids []int32) string { return t.decode(ids, true) }

// DecodeAll is Decode with the special tokens.
func (t *Tokenizer) DecodeAll(ids []int32) string { return t.decode(ids, false) }

func (t *Tokenizer) decode(ids []int32, skip bool) string {
	tokens := make([]string, 0, len(ids))
	for _, id := range ids {
		if s, special, ok := t.added.token(id); ok {
			if !special || !skip {
				tokens = append(tokens, s)
			}
			continue
		}
		if s, ok := t.model.token(id); ok {
			tokens = append(tokens, s)
		}
	}
	if t.back == nil {
		return strings.Join(tokens, " ")
	}
	return strings.Join(t.back.decode(tokens), "")
}

// Size is the size of the vocabulary: one more than the greatest number of a token.
func (t *Tokenizer) Size() int { return max(t.model.size(), t.added.size) }

// ID is the number of a token, written as the vocabulary has it.
func (t *Tokenizer) ID(token string) (id int32, ok bool) {
	if id, ok := t.added.id(token); ok {
		return id, true
	}
	return t.model.id(token)
}

// Token is a token as the vocabulary has it: "Ġthe", "##ing", "▁the". Of a number without a token it is "".
func (t *Tokenizer) Token(id int32) string {
	if s, _, ok := t.added.token(id); ok {
		return s
	}
	s, _ := t.model.token(id)
	return s
}

// MarshalJSON is the tokenizer as tokenizer.json.
func (t *Tokenizer) MarshalJSON() ([]byte, error) {
	f := t.file
	if t.write != nil {
		var err error
		if f.Model, err = t.write(); err != nil {
			return nil, err
		}
	}
	return json.Marshal(&f)
}

// Load reads a tokenizer from a file: tokenizer.json of Hugging Face, SentencePiece's .model, or tiktoken's .tiktoken, whose name must begin with that of its
// encoding (r50k_base, p50k_base, cl100k_base, o200k_base), for the file does not say how text is divided.
func Load(path string) (*Tokenizer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	var t *Tokenizer
	switch trimmed := bytes.TrimSpace(b); {
	case strings.HasSuffix(path, ".tiktoken"):
		t, err = parseTiktokenFile(path, b)
	case len(trimmed) > 0 && trimmed[0] == '{':
		t, err = Parse(b)
	case strings.HasSuffix(path, ".model"):
		t, err = ParseSentencePiece(b)
	default:
		err = fmt.Errorf("text: it is neither JSON (tokenizer.json) nor named .model (SentencePiece) or .tiktoken")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// pieces is the scratch memory of an encoding, and the tokens of pieces met before.
type pieces struct {
	known map[string][]int32
	parts []part
	heap  []pair
	score []float64
	from  []int32
	token []int32
}

// The cache of pieces holds at most so many, none of them longer.
const (
	maxKnown    = 1 << 14
	maxKnownLen = 64
)

func (w *pieces) remember(piece string, ids []int32) {
	if len(piece) > maxKnownLen {
		return
	}
	if len(w.known) >= maxKnown {
		clear(w.known)
	}
	w.known[strings.Clone(piece)] = append([]int32(nil), ids...)
}
