package text

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Kinds are the tokenizers that Train makes.
var Kinds = []string{"byte", "char", "word", "wordpiece", "bpe", "unigram"}

// Trainer collects what a tokenizer is made from: how often each piece of text occurs. It holds the distinct pieces, not the text.
type Trainer struct {
	kind    string
	size    int
	special []string
	counts  map[string]int64
	blank   *Tokenizer // divides text into pieces
}

// NewTrainer begins a tokenizer of a kind:
//
//	byte       the 256 bytes
//	char       the characters that occur
//	word       the most frequent words and signs; others are [UNK]
//	wordpiece  words of lower case in pieces, as BERT has them
//	bpe        pieces of bytes, as GPT-2 has them: any text can be written
//	unigram    pieces with probabilities, as SentencePiece has them: the likeliest way to divide a text is taken; a few characters in ten thousand are <unk>, and white space counts as single spaces
//
// size is the size of the vocabulary, special tokens included; byte and char take none (0). The special tokens have the first numbers.
func NewTrainer(kind string, size int, special ...string) (*Trainer, error) {
	if !slices.Contains(Kinds, kind) {
		return nil, fmt.Errorf("text: there is no %w", unknown(kind, slices.Clone(Kinds)...))
	}
	sized := kind != "byte" && kind != "char"
	if sized && (size < 1 || size > maxVocabulary) || !sized && size != 0 {
		return nil, fmt.Errorf("text: a vocabulary of %d tokens: want %s", size, map[bool]string{true: "its size, such as " + kind + ":2000", false: "none: " + kind + " has a size of its own"}[sized])
	}
	t := &Trainer{kind: kind, size: size, special: special, counts: map[string]int64{}}
	unk := map[string]string{"word": "[UNK]", "wordpiece": "[UNK]", "unigram": unknownPiece}[kind]
	if unk != "" && !slices.Contains(special, unk) {
		t.special = append(slices.Clone(special), unk)
	}
	var err error
	if kind == "unigram" {
		t.blank, err = t.makeUnigram([]scored{{spSpace, 0}})
	} else {
		t.blank, err = t.make(map[string]int64{"[UNK]": 0}, nil)
	}
	return t, err
}

// Add counts the pieces of a text.
func (t *Trainer) Add(s string) {
	s = valid(s)
	switch t.kind {
	case "byte":
		return
	case "char":
		for i, r := range s {
			t.counts[s[i:i+utf8.RuneLen(r)]]++
		}
		return
	}
	if t.kind == "unigram" {
		t.addLines(s)
		return
	}
	if t.blank.norm != nil {
		s = t.blank.norm.normalize(s)
	}
	t.blank.pre.split(s, true, func(p string) {
		if t.kind == "bpe" {
			p = byteLetters(p)
		}
		t.count(p)
	})
}

// count counts a piece.
func (t *Trainer) count(p string) {
	if n, ok := t.counts[p]; ok {
		t.counts[p] = n + 1
		return
	}
	t.counts[strings.Clone(p)] = 1
	if len(t.counts) > maxPieces { // what was met once so far is the least loss
		maps.DeleteFunc(t.counts, func(_ string, n int64) bool { return n < 2 })
	}
}

// maxPieces is how many distinct pieces a Trainer remembers.
const maxPieces = 1 << 22

// ReadFrom counts the pieces of all that r gives, line by line.
func (t *Trainer) ReadFrom(r io.Reader) (int64, error) {
	n := int64(0)
	err := Blocks(r, func(s string) error {
		n += int64(len(s))
		t.Add(s)
		return nil
	})
	return n, err
}

// blockSize is how much of a text is in memory at a time.
const blockSize = 1 << 20

// Blocks reads a text in blocks of about a megabyte that end with a line where lines are shorter, and else with a character: what follows
// a block begins a line or a character.
func Blocks(r io.Reader, f func(s string) error) error {
	buf := make([]byte, 0, blockSize)
	for {
		n, err := io.ReadFull(r, buf[len(buf):blockSize])
		buf = buf[:len(buf)+n]
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return fmt.Errorf("text: %w", err)
		}
		end := len(buf)
		if !last {
			if i := strings.LastIndexByte(string(buf), '\n'); i > 0 {
				end = i + 1
			} else {
				for k := 1; k < utf8.UTFMax && end-k > 0; k++ { // not within a character
					if utf8.RuneStart(buf[end-k]) {
						if !utf8.FullRune(buf[end-k:]) {
							end -= k
						}
						break
					}
				}
			}
		}
		if end > 0 {
			if err := f(string(buf[:end])); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
		buf = buf[:copy(buf, buf[end:])]
	}
}

// Train makes the tokenizer. The same text gives the same one.
func (t *Trainer) Train() (*Tokenizer, error) {
	if len(t.counts) == 0 && t.kind != "byte" {
		return nil, errors.New("text: a vocabulary cannot be made from no text")
	}
	vocab := map[string]int64{}
	for _, s := range t.special {
		if _, twice := vocab[s]; !twice {
			vocab[s] = int64(len(vocab))
		}
	}
	switch t.kind {
	case "byte":
		for _, r := range slices.Sorted(maps.Keys(byteOf)) {
			vocab[string(r)] = int64(len(t.special)) + int64(byteOf[r])
		}
		return t.make(vocab, nil)
	case "char":
		for _, s := range slices.Sorted(maps.Keys(t.counts)) {
			add(vocab, s)
		}
		return t.make(vocab, nil)
	case "unigram":
		pieces, err := learnUnigram(t.counts, t.size, len(t.special))
		if err != nil {
			return nil, err
		}
		return t.makeUnigram(pieces)
	case "word":
		for _, s := range byCount(t.counts) {
			if len(vocab) == t.size {
				break
			}
			add(vocab, s)
		}
		return t.make(vocab, nil)
	}
	prefix := ""
	var alphabet map[rune]bool
	if t.kind == "wordpiece" {
		prefix = "##"
	} else {
		alphabet = map[rune]bool{}
		for r := range byteOf {
			alphabet[r] = true
		}
	}
	merges := join2(vocab, t.counts, t.size, prefix, alphabet)
	return t.make(vocab, merges)
}

func add(vocab map[string]int64, s string) {
	if _, ok := vocab[s]; !ok {
		vocab[s] = int64(len(vocab))
	}
}

// byCount are the pieces, the most frequent first, of equals the first in the alphabet.
func byCount(counts map[string]int64) []string {
	return slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
}

// make writes the tokenizer of a vocabulary.
func (t *Trainer) make(vocab map[string]int64, merges [][2]string) (*Tokenizer, error) {
	var added []addedToken
	for _, s := range t.special {
		if id, ok := vocab[s]; ok && !slices.ContainsFunc(added, func(a addedToken) bool { return a.Content == s }) {
			added = append(added, addedToken{ID: id, Content: s, Special: true})
		}
	}
	if merges == nil {
		merges = [][2]string{}
	}
	bytes := tree{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": t.kind != "byte"}
	pairs := tree{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil, "fuse_unk": false, "byte_fallback": false,
		"ignore_merges": false, "vocab": vocab, "merges": merges}
	switch t.kind {
	case "byte", "bpe":
		return fromTree(added, nil, bytes, nil, bytes, pairs)
	case "char":
		return fromTree(added, nil, nil, nil, tree{"type": "Fuse"}, pairs)
	case "word":
		return fromTree(added, nil, tree{"type": "Whitespace"}, nil, nil, tree{"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"})
	}
	return fromTree(added, tree{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": nil, "lowercase": true},
		tree{"type": "BertPreTokenizer"}, nil, tree{"type": "WordPiece", "prefix": "##", "cleanup": true},
		tree{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab})
}

// candidate is a pair of tokens that stand side by side count times.
type candidate struct {
	a, b  int32
	count int64
}

// queue has the most frequent pair first, of equals the one of lower numbers.
type queue []candidate

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].count > q[j].count || q[i].count == q[j].count && (q[i].a < q[j].a || q[i].a == q[j].a && q[i].b < q[j].b)
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(candidate)) }
func (q *queue) Pop() any {
	l := *q
	x := l[len(l)-1]
	*q = l[:len(l)-1]
	return x
}

// join2 learns a vocabulary by joining, time and again, the two neighbours that stand side by side most often (arXiv:1508.07909), and gives the joins in
// order. It counts as the trainer of the tokenizers library does, so that the same text gives the same vocabulary.
func join2(vocab map[string]int64, counts map[string]int64, size int, prefix string, alphabet map[rune]bool) [][2]string {
	chars := map[rune]bool{}
	maps.Copy(chars, alphabet)
	for s := range counts {
		for _, r := range s {
			chars[r] = true
		}
	}
	for _, r := range slices.Sorted(maps.Keys(chars)) {
		add(vocab, string(r))
	}
	names := make([]string, len(vocab))
	for s, id := range vocab {
		names[id] = s
	}
	token := func(s string) int32 {
		id, ok := vocab[s]
		if !ok {
			id = int64(len(vocab))
			vocab[s] = id
			names = append(names, s)
		}
		return int32(id)
	}
	type word struct {
		parts []int32
		count int64
	}
	var words []word
	for _, s := range slices.Sorted(maps.Keys(counts)) {
		w := word{count: counts[s]}
		for i, r := range s {
			c := string(r)
			if i > 0 {
				c = prefix + c
			}
			w.parts = append(w.parts, token(c))
		}
		words = append(words, w)
	}
	pairs := map[uint64]int64{}
	where := map[uint64]map[int32]bool{}
	note := func(a, b int32, by int64, w int) {
		k := key(a, b)
		pairs[k] += by
		if by > 0 {
			if where[k] == nil {
				where[k] = map[int32]bool{}
			}
			where[k][int32(w)] = true
		}
	}
	for i, w := range words {
		for k := range len(w.parts) - 1 {
			note(w.parts[k], w.parts[k+1], w.count, i)
		}
	}
	q := &queue{}
	for k, n := range pairs {
		*q = append(*q, candidate{int32(k >> 32), int32(uint32(k)), n})
	}
	heap.Init(q)
	var merges [][2]string
	for len(vocab) < size && q.Len() > 0 {
		c := heap.Pop(q).(candidate)
		k := key(c.a, c.b)
		if now := pairs[k]; now != c.count {
			if now > 0 {
				heap.Push(q, candidate{c.a, c.b, now})
			}
			continue
		}
		if c.count < 1 {
			break
		}
		merges = append(merges, [2]string{names[c.a], names[c.b]})
		id := token(names[c.a] + strings.TrimPrefix(names[c.b], prefix))
		changed := map[uint64]bool{}
		for _, i := range slices.Sorted(maps.Keys(where[k])) {
			w := &words[i]
			for p := 0; p+1 < len(w.parts); p++ {
				if w.parts[p] != c.a || w.parts[p+1] != c.b {
					continue
				}
				if p > 0 {
					note(w.parts[p-1], c.a, -w.count, int(i))
					note(w.parts[p-1], id, w.count, int(i))
					changed[key(w.parts[p-1], id)] = true
				}
				if p+2 < len(w.parts) {
					note(c.b, w.parts[p+2], -w.count, int(i))
					note(id, w.parts[p+2], w.count, int(i))
					changed[key(id, w.parts[p+2])] = true
				}
				w.parts[p] = id
				w.parts = slices.Delete(w.parts, p+1, p+2)
			}
		}
		delete(where, k)
		delete(pairs, k)
		for k := range changed {
			if n := pairs[k]; n > 0 {
				heap.Push(q, candidate{int32(k >> 32), int32(uint32(k)), n})
			}
		}
	}
	return merges
}
