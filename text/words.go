package text

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// words takes whole pieces for tokens.
type words struct {
	*vocabulary
	unknown int32
}

func parseWords(j json.RawMessage) (*words, error) {
	p := struct {
		Vocab   map[string]int64
		Unknown string `json:"unk_token"`
	}{}
	if err := json.Unmarshal(j, &p); err != nil {
		return nil, err
	}
	v, err := newVocabulary(p.Vocab)
	if err != nil {
		return nil, err
	}
	w := &words{v, -1}
	if id, ok := v.ids[p.Unknown]; ok {
		w.unknown = id
	}
	return w, nil
}

func (m *words) encode(out []int32, piece string, _ *pieces) ([]int32, error) {
	id, ok := m.ids[piece]
	if !ok {
		if m.unknown < 0 {
			return nil, fmt.Errorf("text: the word %q is not in the vocabulary, which has no token for the unknown", piece)
		}
		id = m.unknown
	}
	return append(out, id), nil
}

// wordPiece takes from the left the longest token that fits, of those that begin a word at first and then of those that continue one (arXiv:1609.08144,
// in the form of BERT). A word that cannot be cut up so is unknown as a whole.
type wordPiece struct {
	*vocabulary
	unknown      int32
	longest      int // characters of a word that is not taken for unknown unseen
	begin, inner *trie
}

func parseWordPiece(j json.RawMessage) (*wordPiece, error) {
	p := struct {
		Vocab   map[string]int64
		Unknown string `json:"unk_token"`
		Prefix  string `json:"continuing_subword_prefix"`
		Longest int    `json:"max_input_chars_per_word"`
	}{Unknown: "[UNK]", Prefix: "##", Longest: 100}
	if err := json.Unmarshal(j, &p); err != nil {
		return nil, err
	}
	v, err := newVocabulary(p.Vocab)
	if err != nil {
		return nil, err
	}
	m := &wordPiece{vocabulary: v, longest: p.Longest}
	if m.unknown, err = v.unknownID(p.Unknown); err != nil {
		return nil, err
	}
	begin, inner := newTrieBuilder(), newTrieBuilder()
	for s, id := range v.ids {
		begin.add(s, id)
		if len(s) > len(p.Prefix) && s[:len(p.Prefix)] == p.Prefix {
			inner.add(s[len(p.Prefix):], id)
		}
	}
	m.begin, m.inner = begin.build(), inner.build()
	return m, nil
}

func (m *wordPiece) encode(out []int32, piece string, _ *pieces) ([]int32, error) {
	n := len(out)
	if len(piece) > m.longest && utf8.RuneCountInString(piece) > m.longest {
		return m.give(out, piece)
	}
	for at := 0; at < len(piece); {
		t := m.inner
		if at == 0 {
			t = m.begin
		}
		end, id := t.longest(piece[at:])
		if end == 0 {
			return m.give(out[:n], piece)
		}
		out = append(out, id)
		at += end
	}
	return out, nil
}

func (m *wordPiece) give(out []int32, piece string) ([]int32, error) {
	if m.unknown < 0 {
		return nil, fmt.Errorf("text: the word %q is not in the vocabulary, which has no token for the unknown", piece)
	}
	return append(out, m.unknown), nil
}
