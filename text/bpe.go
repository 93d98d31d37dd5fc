package text

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// bpe joins, in a piece, the two neighbours that training joined earliest, until none are left that it joined (arXiv:1508.07909).
type bpe struct {
	*vocabulary
	joins   map[uint64]joined
	ranked  bool    // two neighbours join if their text is a token (tiktoken, SentencePiece), that of the least rank first
	ranks   []int32 // of tokens; nil: the number of a token is its rank
	prefix  string
	suffix  string
	unknown int32 // -1: none
	fuse    bool
	bytes   []int32 // the tokens <0x00> to <0xFF>; nil: not used
	whole   bool    // a piece that is a token is not divided (ignore_merges)
	raw     bool
	byByte  [256]int32 // the tokens of single bytes, where pieces are raw; -1: none
}

// joined is what two neighbours become, and when.
type joined struct{ rank, id int32 }

func key(a, b int32) uint64 { return uint64(uint32(a))<<32 | uint64(uint32(b)) }

func parseBPE(j json.RawMessage, raw bool) (*bpe, error) {
	var p struct {
		Vocab   map[string]int64
		Merges  []json.RawMessage
		Unknown *string  `json:"unk_token"`
		Dropout *float64 `json:"dropout"`
		Prefix  *string  `json:"continuing_subword_prefix"`
		Suffix  *string  `json:"end_of_word_suffix"`
		Fuse    bool     `json:"fuse_unk"`
		Bytes   bool     `json:"byte_fallback"`
		Whole   bool     `json:"ignore_merges"`
	}
	if err := json.Unmarshal(j, &p); err != nil {
		return nil, err
	}
	if p.Dropout != nil && *p.Dropout > 0 {
		return nil, errors.New("dropout: a random division is not supported; set it to null")
	}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	b := &bpe{joins: make(map[uint64]joined, len(p.Merges)), prefix: text(p.Prefix), suffix: text(p.Suffix), fuse: p.Fuse, whole: p.Whole, raw: raw}
	v, err := newVocabulary(p.Vocab)
	if err != nil {
		return nil, err
	}
	b.vocabulary = v
	if b.unknown, err = v.unknownID(text(p.Unknown)); err != nil {
		return nil, err
	}
	if p.Bytes {
		for i := range 256 {
			id, ok := v.ids[byteToken(byte(i))]
			if !ok {
				b.bytes = nil
				break
			}
			b.bytes = append(b.bytes, id)
		}
	}
	for rank, m := range p.Merges {
		left, right, err := parseMerge(m)
		if err != nil {
			return nil, fmt.Errorf("merges: %d: %w", rank, err)
		}
		x, ok := v.ids[left]
		y, ok2 := v.ids[right]
		all := left + strings.TrimPrefix(right, b.prefix)
		z, ok3 := v.ids[all]
		if !ok || !ok2 || !ok3 {
			return nil, fmt.Errorf("merges: %d: %q, %q or their join %q is not in the vocabulary", rank, left, right, all)
		}
		if _, twice := b.joins[key(x, y)]; !twice {
			b.joins[key(x, y)] = joined{int32(rank), z}
		}
	}
	if raw {
		b.toRaw()
	}
	return b, nil
}

func byteToken(b byte) string { return fmt.Sprintf("<0x%02X>", b) }

// parseMerge reads "a b" or ["a", "b"].
func parseMerge(m json.RawMessage) (left, right string, err error) {
	var two []string
	if len(m) > 0 && m[0] == '[' {
		if err := json.Unmarshal(m, &two); err != nil {
			return "", "", err
		}
	} else {
		var s string
		if err := json.Unmarshal(m, &s); err != nil {
			return "", "", err
		}
		two = strings.Split(s, " ")
	}
	if len(two) != 2 || two[0] == "" || two[1] == "" {
		return "", "", fmt.Errorf("%s are not two tokens", m)
	}
	return two[0], two[1], nil
}

// toRaw makes the vocabulary one of bytes.
func (b *bpe) toRaw() {
	ids := make(map[string]int32, len(b.ids))
	for s, id := range b.ids {
		if r, ok := bytesOf(s); ok {
			ids[r] = id
		}
	}
	b.vocabulary = &vocabulary{ids, b.tokens, b.has}
	for i := range b.byByte {
		b.byByte[i] = -1
		if id, ok := ids[string([]byte{byte(i)})]; ok {
			b.byByte[i] = id
		}
	}
}

func (b *bpe) id(token string) (int32, bool) {
	if b.raw {
		r, ok := bytesOf(token)
		if !ok {
			return 0, false
		}
		token = r
	}
	return b.vocabulary.id(token)
}

// part is a stretch of a piece that is one token so far; parts are a list in both directions.
type part struct {
	id         int32
	from, to   int32 // bytes of the piece
	prev, next int32 // -1: none
	gone       bool
}

// pair is two neighbours that may be joined.
type pair struct {
	rank, at, id int32
	left, right  int32 // what the parts must still be
}

func (b *bpe) encode(out []int32, piece string, w *pieces) ([]int32, error) {
	if len(piece) <= maxKnownLen {
		if ids, ok := w.known[piece]; ok {
			return append(out, ids...), nil
		}
	}
	if b.whole {
		if id, ok := b.ids[piece]; ok {
			return append(out, id), nil
		}
	}
	if b.raw && !b.ranked && len(b.joins) == 0 { // bytes are tokens
		for i := range len(piece) {
			id := b.byByte[piece[i]]
			if id < 0 {
				return nil, fmt.Errorf("text: the vocabulary lacks the byte 0x%02X", piece[i])
			}
			out = append(out, id)
		}
		return out, nil
	}
	if err := b.begin(piece, w); err != nil {
		return nil, err
	}
	if len(w.parts) <= 24 {
		b.joinShort(piece, w)
	} else {
		b.joinLong(piece, w)
	}
	n := len(out)
	for i := range w.parts {
		if !w.parts[i].gone {
			out = append(out, w.parts[i].id)
		}
	}
	w.remember(piece, out[n:])
	return out, nil
}

// begin makes a part of each character, or byte, of the piece.
func (b *bpe) begin(piece string, w *pieces) error {
	if len(piece) > math.MaxInt32/2 {
		return fmt.Errorf("text: a piece of %d bytes is too long", len(piece))
	}
	w.parts = w.parts[:0]
	add := func(id int32, from, to int) {
		n := int32(len(w.parts))
		w.parts = append(w.parts, part{id: id, from: int32(from), to: int32(to), prev: n - 1, next: n + 1})
	}
	if b.raw {
		for i := range len(piece) {
			id := b.byByte[piece[i]]
			if id < 0 {
				if b.unknown < 0 {
					return fmt.Errorf("text: the vocabulary lacks the byte 0x%02X and has no token for the unknown", piece[i])
				}
				id = b.unknown
			}
			add(id, i, i+1)
		}
	} else if err := b.beginChars(piece, w, add); err != nil {
		return err
	}
	if n := len(w.parts); n > 0 {
		w.parts[n-1].next = -1
	}
	return nil
}

func (b *bpe) beginChars(piece string, w *pieces, add func(id int32, from, to int)) error {
	wasUnknown := false
	for i, r := range piece {
		end := i + utf8.RuneLen(r)
		c := piece[i:end]
		if b.prefix != "" && i > 0 {
			c = b.prefix + c
		}
		if b.suffix != "" && end == len(piece) {
			c += b.suffix
		}
		if id, ok := b.ids[c]; ok {
			add(id, i, end)
			wasUnknown = false
			continue
		}
		if b.bytes != nil {
			for k := i; k < end; k++ {
				add(b.bytes[piece[k]], k, k+1)
			}
			wasUnknown = false
			continue
		}
		if b.unknown < 0 {
			return fmt.Errorf("text: %q (U+%04X) is not in the vocabulary, which has no token for the unknown", r, r)
		}
		if wasUnknown && b.fuse {
			w.parts[len(w.parts)-1].to = int32(end)
			continue
		}
		add(b.unknown, i, end)
		wasUnknown = true
	}
	return nil
}

// join says what the parts i and its successor become.
func (b *bpe) join(piece string, p, q *part) (joined, bool) {
	if b.ranked {
		id, ok := b.ids[piece[p.from:q.to]]
		if ok && b.ranks != nil {
			return joined{b.ranks[id], id}, true
		}
		return joined{id, id}, ok
	}
	j, ok := b.joins[key(p.id, q.id)]
	return j, ok
}

// joinShort looks for the best join each time: quickest where there are few parts.
func (b *bpe) joinShort(piece string, w *pieces) {
	ps := w.parts
	if cap(w.heap) < len(ps) {
		w.heap = make([]pair, len(ps))
	}
	js := w.heap[:len(ps)] // the join of each part with the next
	look := func(i int32) {
		js[i].rank = -1
		if n := ps[i].next; n >= 0 {
			if j, ok := b.join(piece, &ps[i], &ps[n]); ok {
				js[i].rank, js[i].id = j.rank, j.id
			}
		}
	}
	for i := range ps {
		look(int32(i))
	}
	for {
		best := int32(-1)
		for i := int32(0); i >= 0 && len(ps) > 0; i = ps[i].next {
			if r := js[i].rank; r >= 0 && (best < 0 || r < js[best].rank) {
				best = i
			}
		}
		if best < 0 {
			return
		}
		b.merge(ps, best, js[best].id)
		look(best)
		if p := ps[best].prev; p >= 0 {
			look(p)
		}
	}
}

// merge joins part i with the next.
func (b *bpe) merge(ps []part, i, id int32) {
	n := ps[i].next
	ps[i].id, ps[i].to, ps[i].next = id, ps[n].to, ps[n].next
	ps[n].gone = true
	if m := ps[n].next; m >= 0 {
		ps[m].prev = i
	}
}

// joinLong keeps the joins in a heap: its time grows with n·log n.
func (b *bpe) joinLong(piece string, w *pieces) {
	ps := w.parts
	w.heap = w.heap[:0]
	look := func(i int32) {
		n := ps[i].next
		if n < 0 {
			return
		}
		if j, ok := b.join(piece, &ps[i], &ps[n]); ok {
			w.push(pair{j.rank, i, j.id, ps[i].id, ps[n].id})
		}
	}
	for i := range ps {
		look(int32(i))
	}
	for len(w.heap) > 0 {
		x := w.pop()
		p := &ps[x.at]
		if p.gone || p.next < 0 || p.id != x.left || ps[p.next].id != x.right {
			continue
		}
		if j, ok := b.join(piece, p, &ps[p.next]); !ok || j.rank != x.rank {
			continue
		}
		b.merge(ps, x.at, x.id)
		look(x.at)
		if p.prev >= 0 {
			look(p.prev)
		}
	}
}

func less(a, b pair) bool { return a.rank < b.rank || a.rank == b.rank && a.at < b.at }

func (w *pieces) push(x pair) {
	h := append(w.heap, x)
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !less(h[i], h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
	w.heap = h
}

func (w *pieces) pop() pair {
	h := w.heap
	x := h[0]
	h[0] = h[len(h)-1]
	h = h[:len(h)-1]
	for i := 0; ; {
		c := 2*i + 1
		if c >= len(h) {
			break
		}
		if c+1 < len(h) && less(h[c+1], h[c]) {
			c++
		}
		if !less(h[c], h[i]) {
			break
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
	w.heap = h
	return x
}
