package text

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jouleml/joule/internal/nearest"
)

// file is tokenizer.json.
type file struct {
	Version       string          `json:"version"`
	Truncation    json.RawMessage `json:"truncation"`
	Padding       json.RawMessage `json:"padding"`
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

// maxVocabulary is the number of tokens above which a file must be damaged.
const maxVocabulary = 1 << 24

// Parse reads tokenizer.json. Truncation and padding in it are left to the caller.
func Parse(b []byte) (*Tokenizer, error) {
	t := &Tokenizer{}
	if err := json.Unmarshal(b, &t.file); err != nil {
		return nil, fmt.Errorf("text: tokenizer.json: %w", err)
	}
	t.file.Truncation, t.file.Padding = nil, nil
	return t, t.build()
}

// frame makes all parts but the model.
func (t *Tokenizer) frame() (err error) {
	f := &t.file
	if t.norm, err = parseNormalizer(f.Normalizer); err != nil {
		return fmt.Errorf("text: normalizer: %w", err)
	}
	if t.pre, err = parseSplitter(f.PreTokenizer); err != nil {
		return fmt.Errorf("text: pre_tokenizer: %w", err)
	}
	if t.post, err = t.parseFramer(f.PostProcessor); err != nil {
		return fmt.Errorf("text: post_processor: %w", err)
	}
	if t.back, err = parseDecoder(f.Decoder); err != nil {
		return fmt.Errorf("text: decoder: %w", err)
	}
	if t.added, err = newAddedTokens(f.AddedTokens, t.norm); err != nil {
		return fmt.Errorf("text: added_tokens: %w", err)
	}
	return nil
}

// build makes the parts that the file describes.
func (t *Tokenizer) build() error {
	f := &t.file
	if absent(f.Model) {
		return errors.New("text: tokenizer.json: it has no model")
	}
	if err := t.frame(); err != nil {
		return err
	}
	var err error
	var kind struct{ Type string }
	if err := json.Unmarshal(f.Model, &kind); err != nil {
		return fmt.Errorf("text: model: %w", err)
	}
	switch kind.Type {
	case "BPE", "": // old files have no type: those of BPE have merges
		t.raw = rawBytes(t.pre)
		t.model, err = parseBPE(f.Model, t.raw)
	case "WordPiece":
		t.model, err = parseWordPiece(f.Model)
	case "WordLevel":
		t.model, err = parseWords(f.Model)
	case "Unigram":
		t.model, err = parseUnigram(f.Model)
	case spType:
		err = t.buildSentencePiece()
	default:
		err = unknown(kind.Type, "BPE", "WordPiece", "Unigram", "WordLevel", spType)
	}
	if err != nil {
		return fmt.Errorf("text: model: %w", err)
	}
	return nil
}

func absent(j json.RawMessage) bool { return len(j) == 0 || string(j) == "null" }

// unknown is an error about a type that this package does not know.
func unknown(kind string, known ...string) error {
	slices.Sort(known)
	return fmt.Errorf("type %q is not known%s (known: %s)", kind, nearest.Hint(kind, known), strings.Join(known, ", "))
}

// typeOf is the type of a part of the file.
func typeOf(j json.RawMessage) (string, error) {
	var kind struct{ Type string }
	err := json.Unmarshal(j, &kind)
	return kind.Type, err
}

// vocabulary is tokens by number.
type vocabulary struct {
	ids    map[string]int32
	tokens []string // "" where there is none
	has    []bool
}

func newVocabulary(ids map[string]int64) (*vocabulary, error) {
	if len(ids) == 0 {
		return nil, errors.New("vocab: it is empty")
	}
	v := &vocabulary{ids: make(map[string]int32, len(ids))}
	top := int64(-1)
	for s, id := range ids {
		if id < 0 || id >= maxVocabulary {
			return nil, fmt.Errorf("vocab: token %q has the number %d, outside [0, %d)", s, id, maxVocabulary)
		}
		top = max(top, id)
	}
	v.tokens, v.has = make([]string, top+1), make([]bool, top+1)
	for s, id := range ids {
		if v.has[id] {
			return nil, fmt.Errorf("vocab: tokens %q and %q have the same number %d", v.tokens[id], s, id)
		}
		v.ids[s], v.tokens[id], v.has[id] = int32(id), s, true
	}
	return v, nil
}

func (v *vocabulary) token(id int32) (string, bool) {
	if id < 0 || int(id) >= len(v.tokens) || !v.has[id] {
		return "", false
	}
	return v.tokens[id], true
}

func (v *vocabulary) id(token string) (int32, bool) {
	id, ok := v.ids[token]
	return id, ok
}

func (v *vocabulary) size() int { return len(v.tokens) }

// unknownID is the number of the token for what the vocabulary lacks, -1 if name is "".
func (v *vocabulary) unknownID(name string) (int32, error) {
	if name == "" {
		return -1, nil
	}
	id, ok := v.ids[name]
	if !ok {
		return -1, fmt.Errorf("unk_token: %q is not in the vocabulary", name)
	}
	return id, nil
}

// parseEach reads the steps of a sequence; those that do nothing, which parse gives as nil, are left out. what names a step in errors.
func parseEach[T any](steps []json.RawMessage, what string, parse func(json.RawMessage) (T, error)) ([]T, error) {
	var out []T
	for i, j := range steps {
		s, err := parse(j)
		if err != nil {
			return nil, fmt.Errorf("%s %d: %w", what, i, err)
		}
		if any(s) != nil { // T is an interface
			out = append(out, s)
		}
	}
	return out, nil
}
