package text

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// tiktokenKinds are the encodings of tiktoken: how they divide text, and their special tokens.
var tiktokenKinds = map[string]struct {
	pattern string
	special map[string]int64
}{
	"gpt2":        {gpt2Pattern, map[string]int64{"<|endoftext|>": 50256}},
	"r50k_base":   {gpt2Pattern, map[string]int64{"<|endoftext|>": 50256}},
	"p50k_base":   {gpt2Pattern, map[string]int64{"<|endoftext|>": 50256}},
	"cl100k_base": {cl100kPattern, map[string]int64{"<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260, "<|endofprompt|>": 100276}},
	"o200k_base":  {o200kPattern, map[string]int64{"<|endoftext|>": 199999, "<|endofprompt|>": 200018}},
}

func parseTiktokenFile(path string, b []byte) (*Tokenizer, error) {
	name := strings.TrimSuffix(filepath.Base(path), ".tiktoken")
	k, ok := tiktokenKinds[name]
	if !ok {
		var known []string
		for n := range tiktokenKinds {
			known = append(known, n+".tiktoken")
		}
		slices.Sort(known)
		return nil, fmt.Errorf("text: the file's name must say which encoding it is (known: %s)", strings.Join(known, ", "))
	}
	return ParseTiktoken(b, k.pattern, k.special)
}

// ParseTiktoken reads the ranks of tiktoken: on each line a token in base64 and its number, which is also its rank. pattern divides text as tiktoken's
// pat_str does, which the file does not say.
func ParseTiktoken(b []byte, pattern string, special map[string]int64) (*Tokenizer, error) {
	vocab := map[string]int64{}
	line := 0
	for l := range bytes.Lines(b) {
		line++
		l = bytes.TrimSpace(l)
		if len(l) == 0 {
			continue
		}
		token, number, ok := bytes.Cut(l, []byte(" "))
		raw, err := base64.StdEncoding.DecodeString(string(token))
		id, err2 := strconv.ParseInt(string(number), 10, 32)
		if !ok || err != nil || err2 != nil || len(raw) == 0 || id < 0 || id >= maxVocabulary {
			return nil, fmt.Errorf("text: line %d is not a token in base64 and a number", line)
		}
		if _, twice := vocab[string(raw)]; twice {
			return nil, fmt.Errorf("text: line %d: the token %q stands a second time", line, raw)
		}
		vocab[string(raw)] = id
	}
	for i := range 256 {
		if _, ok := vocab[string([]byte{byte(i)})]; !ok {
			return nil, fmt.Errorf("text: the byte 0x%02X is missing: not every text could be written", i)
		}
	}
	return fromRanks(vocab, pattern, special)
}

// fromRanks makes the tokenizer of tokens whose number is their rank.
func fromRanks(vocab map[string]int64, pattern string, special map[string]int64) (*Tokenizer, error) {
	v, err := newVocabulary(vocab)
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	m := &bpe{vocabulary: v, ranked: true, raw: true, whole: true, unknown: -1}
	for i := range m.byByte {
		m.byByte[i] = v.ids[string([]byte{byte(i)})]
	}
	raw := v.tokens
	v.tokens = make([]string, len(raw))
	for i, s := range raw {
		v.tokens[i] = byteLetters(s)
	}
	pre := tree{"type": "Sequence", "pretokenizers": []tree{
		{"type": "Split", "pattern": tree{"Regex": pattern}, "behavior": "Isolated", "invert": false},
		{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
	}}
	var added []addedToken
	for s, id := range special {
		added = append(added, addedToken{ID: id, Content: s, Special: true})
	}
	slices.SortFunc(added, func(a, b addedToken) int { return int(a.ID - b.ID) })
	t, err := filed(added, nil, pre, nil, tree{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}, nil)
	if err != nil {
		return nil, err
	}
	t.model, t.raw = m, true
	t.write = func() (json.RawMessage, error) { return m.asMerges(raw) }
	if err := t.frame(); err != nil {
		return nil, err
	}
	rawBytes(t.pre)
	return t, nil
}

// asMerges is the model with a list of joins: of each token the two parts into which those of lower rank divide it, in the order of ranks.
func (b *bpe) asMerges(raw []string) (json.RawMessage, error) {
	w := &pieces{known: map[string][]int32{}}
	letters := make(map[string]int32, len(raw))
	var merges [][2]string
	for id, s := range raw {
		if !b.has[id] {
			continue
		}
		letters[b.tokens[id]] = int32(id)
		if len(s) == 1 {
			continue
		}
		left, right, err := b.lastJoin(s, int32(id), w)
		if err != nil {
			return nil, err
		}
		merges = append(merges, [2]string{byteLetters(left), byteLetters(right)})
	}
	return json.Marshal(tree{
		"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil, "fuse_unk": false, "byte_fallback": false,
		"ignore_merges": true, "vocab": letters, "merges": merges,
	})
}

// lastJoin is the two tokens into which those of lower rank divide a token.
func (b *bpe) lastJoin(s string, id int32, w *pieces) (left, right string, err error) {
	if err := b.begin(s, w); err != nil {
		return "", "", err
	}
	ps := w.parts
	for {
		best, rank := int32(-1), id
		count := 0
		for i := int32(0); i >= 0; i = ps[i].next {
			count++
			if n := ps[i].next; n >= 0 {
				if j, ok := b.join(s, &ps[i], &ps[n]); ok && j.rank < rank {
					best, rank = i, j.rank
				}
			}
		}
		if best >= 0 {
			b.merge(ps, best, rank)
			continue
		}
		if count != 2 {
			return "", "", fmt.Errorf("text: the token %q of rank %d is not made of two of lower rank", s, id)
		}
		return s[:ps[0].to], s[ps[0].to:], nil
	}
}

// tree is JSON.
type tree map[string]any

// fromTree makes a tokenizer of the parts of tokenizer.json; nil is none.
func fromTree(added []addedToken, normalizer, pre, post, decoder, model tree) (*Tokenizer, error) {
	t, err := filed(added, normalizer, pre, post, decoder, model)
	if err != nil {
		return nil, err
	}
	return t, t.build()
}

// filed is a tokenizer whose parts are not made yet.
func filed(added []addedToken, normalizer, pre, post, decoder, model tree) (*Tokenizer, error) {
	t := &Tokenizer{file: file{Version: "1.0", AddedTokens: added}}
	if added == nil {
		t.file.AddedTokens = []addedToken{}
	}
	for _, p := range []struct {
		to   *json.RawMessage
		from tree
	}{{&t.file.Normalizer, normalizer}, {&t.file.PreTokenizer, pre}, {&t.file.PostProcessor, post}, {&t.file.Decoder, decoder}, {&t.file.Model, model}} {
		if p.from == nil {
			continue
		}
		j, err := json.Marshal(p.from)
		if err != nil {
			return nil, fmt.Errorf("text: %w", err)
		}
		*p.to = j
	}
	return t, nil
}
