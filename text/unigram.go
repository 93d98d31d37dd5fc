package text

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// unigram divides a piece such that the sum of its tokens' scores, logarithms of probabilities, is greatest (arXiv:1804.10959).
type unigram struct {
	*vocabulary
	score   []float64
	unknown int32 // -1: none
	least   float64
	bytes   []int32 // the tokens <0x00> to <0xFF>; nil: not used
	trie    *trie
	apart   bool // characters that are unknown one after another stay tokens of their own
}

// unknownPenalty is how much less than the least score that of an unknown character is, as in SentencePiece.
const unknownPenalty = 10

func parseUnigram(j json.RawMessage) (*unigram, error) {
	var p struct {
		Vocab   [][2]any
		Unknown *int64 `json:"unk_id"`
		Bytes   bool   `json:"byte_fallback"`
	}
	if err := json.Unmarshal(j, &p); err != nil {
		return nil, err
	}
	tokens, scores := make([]string, len(p.Vocab)), make([]float64, len(p.Vocab))
	for i, e := range p.Vocab {
		s, ok := e[0].(string)
		x, ok2 := e[1].(float64)
		if !ok || !ok2 {
			return nil, fmt.Errorf("vocab: entry %d is not a token and its score", i)
		}
		tokens[i], scores[i] = s, x
	}
	unknown := int32(-1)
	if p.Unknown != nil {
		if *p.Unknown < 0 || *p.Unknown >= int64(len(tokens)) {
			return nil, fmt.Errorf("unk_id: %d is outside [0, %d)", *p.Unknown, len(tokens))
		}
		unknown = int32(*p.Unknown)
	}
	return newUnigram(tokens, scores, unknown, p.Bytes, nil)
}

// newUnigram makes a model; skip, if not nil, says of which tokens text is never divided into.
func newUnigram(tokens []string, scores []float64, unknown int32, bytes bool, skip func(id int) bool) (*unigram, error) {
	if len(tokens) == 0 {
		return nil, errors.New("vocab: it is empty")
	}
	m := &unigram{vocabulary: &vocabulary{map[string]int32{}, tokens, make([]bool, len(tokens))}, score: scores, unknown: unknown, least: math.Inf(1)}
	t := newTrieBuilder()
	for i, s := range tokens {
		if x := scores[i]; x-x != 0 {
			return nil, fmt.Errorf("vocab: the score of token %q is %g", s, x)
		}
		m.has[i] = true
		if _, twice := m.ids[s]; !twice {
			m.ids[s] = int32(i)
		}
		if skip == nil || !skip(i) {
			m.least = min(m.least, scores[i])
			t.add(s, int32(i))
		}
	}
	m.trie = t.build()
	if bytes {
		for i := range 256 {
			id, ok := m.ids[byteToken(byte(i))]
			if !ok {
				return nil, fmt.Errorf("byte_fallback: the vocabulary lacks %s", byteToken(byte(i)))
			}
			m.bytes = append(m.bytes, id)
		}
	}
	return m, nil
}

func (m *unigram) encode(out []int32, piece string, w *pieces) ([]int32, error) {
	if len(piece) <= maxKnownLen {
		if ids, ok := w.known[piece]; ok {
			return append(out, ids...), nil
		}
	}
	// score[i] is that of the best division of the first i bytes; its last token is token[i] and begins at from[i].
	n := len(piece)
	w.score, w.from, w.token = grow(w.score, n+1), grow(w.from, n+1), grow(w.token, n+1)
	score, from, token := w.score, w.from, w.token
	for i := range from {
		from[i] = -1
	}
	score[0], from[0] = 0, 0
	unknown := m.least - unknownPenalty
	for i := 0; i < n; {
		_, size := utf8.DecodeRuneInString(piece[i:])
		single := false
		at := int32(0)
		for k := i; k < n; k++ {
			if at = m.trie.step(at, piece[k]); at == 0 {
				break
			}
			id := m.trie.nodes[at].value
			if id < 0 {
				continue
			}
			if x := score[i] + m.score[id]; from[k+1] < 0 || x > score[k+1] {
				score[k+1], from[k+1], token[k+1] = x, int32(i), id
			}
			single = single || k+1 == i+size
		}
		if !single {
			if m.unknown < 0 && m.bytes == nil {
				r, _ := utf8.DecodeRuneInString(piece[i:])
				return nil, fmt.Errorf("text: %q (U+%04X) is not in the vocabulary, which has no token for the unknown", r, r)
			}
			if x := score[i] + unknown; from[i+size] < 0 || x > score[i+size] {
				score[i+size], from[i+size], token[i+size] = x, int32(i), -1
			}
		}
		i += size
	}
	begin := len(out)
	for i := n; i > 0; i = int(from[i]) {
		if token[i] >= 0 {
			out = append(out, token[i])
			continue
		}
		if m.bytes == nil {
			if !m.apart && len(out) > begin && out[len(out)-1] == -1 {
				continue
			}
			out = append(out, -1) // unknown, joined with what is unknown behind it
			continue
		}
		for k := i - 1; k >= int(from[i]); k-- {
			out = append(out, m.bytes[piece[k]])
		}
	}
	for a, b := begin, len(out)-1; a < b; a, b = a+1, b-1 {
		out[a], out[b] = out[b], out[a]
	}
	for i := begin; i < len(out); i++ {
		if out[i] < 0 {
			out[i] = m.unknown
		}
	}
	w.remember(piece, out[begin:])
	return out, nil
}

func grow[T any](a []T, n int) []T {
	if cap(a) < n {
		return make([]T, n)
	}
	return a[:n]
}
