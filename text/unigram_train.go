package text

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The vocabulary of a unigram model is learnt as SentencePiece 0.2.3 does it with its default settings (Kudo 2018, arXiv:1804.10959): begin with all pieces that occur several times, and in turn
// estimate their probabilities by expectation maximisation and drop those whose loss costs the least likelihood, until there are as many as wanted.
//
// There is one difference: characters that no piece covers are counted for no piece here, and for the first piece there. Counted so too, 1991 of 1997 pieces were the same on the text of the test.

const (
	coverage      = 0.9995    // share of the text's characters that the vocabulary must have
	maxPiece      = 16        // characters of a piece
	maxSeeds      = 1_000_000 // pieces to begin with
	subIterations = 2         // of estimation between two prunings
	shrink        = 0.75      // share of pieces that a pruning leaves
	surplus       = 1.1       // share of the wanted pieces at which pruning ends; the rest goes by score
	leastExpected = 0.5       // pieces expected less often than this are dropped
)

// rare stands for characters that the vocabulary does not have.
const rare = '\u2585'

// lineEnd marks, in the counts of a Trainer, words at the end of a line: which pieces there are to begin with depends on what follows a word.
const lineEnd = "\x00"

// unknownPiece is the token for characters that the vocabulary does not have.
const unknownPiece = "<unk>"

// addLines counts the words of each line, those at its end apart.
func (t *Trainer) addLines(s string) {
	for l := range strings.Lines(s) {
		var words []string
		if l = t.blank.norm.normalize(l); l != "" {
			t.blank.pre.split(l, true, func(w string) { words = append(words, w) })
		}
		for i, w := range words {
			if i == len(words)-1 {
				w += lineEnd
			}
			t.count(w)
		}
	}
}

// makeUnigram writes the tokenizer of pieces: as the tokenizers library has what SentencePiece does with its rules nmt_nfkc. The special tokens have the first numbers.
func (t *Trainer) makeUnigram(pieces []scored) (*Tokenizer, error) {
	var added []addedToken
	var vocab [][2]any
	unk := 0
	for _, s := range t.special {
		if slices.ContainsFunc(added, func(a addedToken) bool { return a.Content == s }) {
			continue
		}
		if s == unknownPiece {
			unk = len(vocab)
		}
		added = append(added, addedToken{ID: int64(len(vocab)), Content: s, Special: true})
		vocab = append(vocab, [2]any{s, 0.0})
	}
	for _, p := range pieces {
		vocab = append(vocab, [2]any{p.piece, p.score})
	}
	space := tree{"type": "Metaspace", "replacement": spSpace, "prepend_scheme": "always", "split": true}
	return fromTree(added, tree{"type": "Sequence", "normalizers": []tree{{"type": "Nmt"}, {"type": "NFKC"}, {"type": "Strip", "strip_left": true, "strip_right": true},
		{"type": "Replace", "pattern": tree{"Regex": " {2,}"}, "content": " "}}}, space, nil, space, tree{"type": "Unigram", "unk_id": unk, "vocab": vocab, "byte_fallback": false})
}

// scored is a piece and its count or the logarithm of its probability.
type scored struct {
	piece string
	score float64
}

// best puts the greatest score first, of equals the first in the alphabet.
func best(a, b scored) int {
	return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.piece, b.piece))
}

// unigramTrainer estimates the probabilities of pieces.
type unigramTrainer struct {
	words    []scored // with ▁ in front, and how often each occurs
	required []scored // characters that must stay, and how often they occur
	wanted   int      // pieces
	pieces   []scored
	trie     *trie
	least    float64 // of the pieces' scores
	lattice  lattice
}

// learnUnigram gives so many pieces with their scores, the best first, for words (some with lineEnd behind them) and how often they occur.
func learnUnigram(counts map[string]int64, size, specials int) ([]scored, error) {
	t := &unigramTrainer{wanted: int(float64(size) * surplus)}
	ends := t.cover(counts)
	if room := size - specials; len(t.required) > room {
		return nil, fmt.Errorf("text: a vocabulary of %d tokens has no room for the text's %d characters beside %d special tokens: make it greater", size, len(t.required), specials)
	}
	t.pieces = t.seeds(ends)
	sum := 0.0
	for _, p := range t.pieces {
		sum += p.score
	}
	for i := range t.pieces {
		t.pieces[i].score = math.Log(t.pieces[i].score) - math.Log(sum)
	}
	t.index()
	for n := math.MaxInt; len(t.pieces) < n; {
		for range subIterations {
			expected, _ := t.expect()
			t.maximise(expected)
		}
		if n = len(t.pieces); n > t.wanted {
			t.prune()
		}
		if len(t.pieces) <= t.wanted { // those that are left keep their scores
			break
		}
	}
	return t.final(size - specials), nil
}

// cover decides which characters are required, and makes the words: it returns them with what follows each, ▁ or the end of a line, and how often.
func (t *unigramTrainer) cover(counts map[string]int64) []scored {
	chars, all := map[rune]float64{}, 0.0
	for w, n := range counts {
		for _, r := range strings.TrimSuffix(w, lineEnd) {
			chars[r] += float64(n)
			all += float64(n)
		}
	}
	for r, n := range chars {
		t.required = append(t.required, scored{string(r), n})
	}
	slices.SortFunc(t.required, best)
	done := 0.0
	for i, c := range t.required {
		if done/all >= coverage {
			t.required = t.required[:i]
			break
		}
		done += c.score
	}
	keep := map[rune]bool{}
	for _, c := range t.required {
		r, _ := utf8.DecodeRuneInString(c.piece)
		keep[r] = true
	}
	words, ends := map[string]float64{}, map[string]float64{}
	for w, n := range counts {
		w, end := strings.CutSuffix(w, lineEnd)
		w = strings.Map(func(r rune) rune {
			if keep[r] {
				return r
			}
			return rare
		}, w)
		words[w] += float64(n)
		if end {
			ends[w+lineEnd] += float64(n)
		} else {
			ends[w+spSpace] += float64(n)
		}
	}
	t.words = ordered(words)
	return ordered(ends)
}

func ordered(counts map[string]float64) []scored {
	out := make([]scored, 0, len(counts))
	for s, n := range counts {
		out = append(out, scored{s, n})
	}
	slices.SortFunc(out, best)
	return out
}

// seeds are the required characters and the substrings that occur several times and can be followed by different characters: the inner nodes of the text's suffix tree. A piece is as good
// as the number of characters that it covers.
func (t *unigramTrainer) seeds(words []scored) []scored {
	// Suffixes are cut behind the character that decides whether the longest piece is an inner node.
	var suffixes []scored
	for _, w := range words {
		ends := []int{} // of the word's characters, what follows it included
		for i := range w.piece {
			ends = append(ends, i)
		}
		starts := ends[:len(ends)-1]
		ends = append(ends, len(w.piece))[1:]
		for i, at := range starts {
			suffixes = append(suffixes, scored{w.piece[at:ends[min(i+maxPiece, len(ends)-1)]], w.score})
		}
	}
	slices.SortFunc(suffixes, func(a, b scored) int { return cmp.Compare(a.piece, b.piece) })
	var seeds []scored
	kinds := scripts{}
	// open are the nodes on the way to the suffix at hand, the root first: the number of bytes and how often they were met.
	type node struct {
		bytes int
		count float64
	}
	open := []node{{0, 0}}
	last := ""
	add := func(n node) {
		if s := last[:n.bytes]; utf8.RuneCountInString(s) > 1 && kinds.piece(s) {
			seeds = append(seeds, scored{s, n.count * float64(utf8.RuneCountInString(s))})
		}
	}
	for i := 0; i <= len(suffixes); i++ {
		common := 0
		if i < len(suffixes) {
			common = commonPrefix(last, suffixes[i].piece)
		}
		// Nodes deeper than what the new suffix shares are whole. The deepest is the last suffix itself, a leaf.
		for leaf := true; open[len(open)-1].bytes > common; leaf = false {
			n := open[len(open)-1]
			open = open[:len(open)-1]
			if !leaf {
				add(n)
			}
			if below := &open[len(open)-1]; below.bytes < common {
				open = append(open, node{common, n.count})
			} else {
				below.count += n.count
			}
		}
		if i == len(suffixes) {
			break
		}
		s := suffixes[i]
		if top := &open[len(open)-1]; top.bytes == len(s.piece) && top.bytes > 0 { // the same suffix again
			top.count += s.score
		} else {
			open = append(open, node{len(s.piece), s.score})
		}
		last = s.piece
	}
	slices.SortFunc(seeds, best)
	return append(slices.Clone(t.required), seeds[:min(len(seeds), maxSeeds)]...)
}

// commonPrefix is how many bytes of whole characters a and b begin with alike.
func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	for n > 0 && n < len(a) && !utf8.RuneStart(a[n]) || n > 0 && n < len(b) && !utf8.RuneStart(b[n]) {
		n--
	}
	return n
}

// scripts remembers of which script characters are.
type scripts map[rune]string

func (s scripts) of(r rune) string {
	if n, ok := s[r]; ok {
		return n
	}
	name := "Common"
	for n, table := range unicode.Scripts {
		if unicode.Is(table, r) {
			name = n
			break
		}
	}
	if name == "Hiragana" || name == "Katakana" || r == 'ー' { // one writing system
		name = "Han"
	}
	s[r] = name
	return name
}

// piece says whether s may be a piece: ▁ at its beginning alone, one script, no rare characters, not too long.
func (s scripts) piece(p string) bool {
	before, n := "", 0
	for i, r := range p {
		n++
		switch {
		case n > maxPiece || r == rare || r == 0 || r == utf8.RuneError:
			return false
		case string(r) == spSpace:
			if i > 0 {
				return false
			}
			continue
		}
		is := s.of(r)
		if is == "Inherited" {
			is = before
		}
		if before != "" && is != "" && is != before {
			return false
		}
		before = is
	}
	return true
}

// index makes the pieces findable.
func (t *unigramTrainer) index() {
	b := newTrieBuilder()
	t.least = math.Inf(1)
	for i, p := range t.pieces {
		b.add(p.piece, int32(i))
		t.least = min(t.least, p.score)
	}
	t.trie = b.build()
}

// edge is a piece in a text: from a byte to another. The number of what is unknown is -1.
type edge struct {
	from, to int32
	piece    int32
	score    float64
}

// lattice is all ways to divide a text, and memory to count over them.
type lattice struct {
	edges       []edge // by where they begin
	first       []int32
	alpha, beta []float64
	back        []int32
}

// divide fills the lattice with the pieces of s. Where no piece is a single character there is an edge for the unknown.
func (t *unigramTrainer) divide(s string) *lattice {
	l := &t.lattice
	l.edges, l.first = l.edges[:0], l.first[:0]
	unknown := t.least - unknownPenalty
	for i := range len(s) {
		l.first = append(l.first, int32(len(l.edges)))
		if !utf8.RuneStart(s[i]) {
			continue
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		single := false
		at := int32(0)
		for k := i; k < len(s); k++ {
			if at = t.trie.step(at, s[k]); at == 0 {
				break
			}
			if id := t.trie.nodes[at].value; id >= 0 {
				l.edges = append(l.edges, edge{int32(i), int32(k + 1), id, t.pieces[id].score})
				single = single || k+1 == i+size
			}
		}
		if !single {
			l.edges = append(l.edges, edge{int32(i), int32(i + size), -1, unknown})
		}
	}
	l.first = append(l.first, int32(len(l.edges)))
	l.alpha, l.beta, l.back = grow(l.alpha, len(s)+1), grow(l.beta, len(s)+1), grow(l.back, len(s)+1)
	return l
}

// addLog is log(eᵃ + eᵇ).
func addLog(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if b-a < -50 || math.IsInf(a, -1) {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}

// marginal adds to expected how often each piece is in a text of n bytes, times weight, over all ways to divide it, and gives the logarithm of their probability (forward-backward).
func (l *lattice) marginal(n int, weight float64, expected []float64) float64 {
	for i := range n + 1 {
		l.alpha[i], l.beta[i] = math.Inf(-1), math.Inf(-1)
	}
	l.alpha[0], l.beta[n] = 0, 0
	for _, e := range l.edges {
		l.alpha[e.to] = addLog(l.alpha[e.to], l.alpha[e.from]+e.score)
	}
	for _, e := range slices.Backward(l.edges) {
		l.beta[e.from] = addLog(l.beta[e.from], l.beta[e.to]+e.score)
	}
	all := l.alpha[n]
	for _, e := range l.edges {
		if e.piece >= 0 {
			expected[e.piece] += weight * math.Exp(l.alpha[e.from]+e.score+l.beta[e.to]-all)
		}
	}
	return all
}

// viterbi gives the pieces of the best way to divide a text of n bytes, the last first. With but the piece of that number is not used.
func (l *lattice) viterbi(n int, but int32, out []int32) []int32 {
	for i := range n + 1 {
		l.alpha[i], l.back[i] = math.Inf(-1), -1
	}
	l.alpha[0] = 0
	for i, e := range l.edges {
		if e.piece == but && but >= 0 {
			continue
		}
		if x := l.alpha[e.from] + e.score; x > l.alpha[e.to] {
			l.alpha[e.to], l.back[e.to] = x, int32(i)
		}
	}
	for at := int32(n); at > 0; {
		i := l.back[at]
		if i < 0 {
			return nil
		}
		out = append(out, l.edges[i].piece)
		at = l.edges[i].from
	}
	return out
}

// expect gives how often each piece is expected in the text, and the mean logarithm of a word's probability.
func (t *unigramTrainer) expect() (expected []float64, likelihood float64) {
	expected = make([]float64, len(t.pieces))
	all := 0.0
	for _, w := range t.words {
		likelihood += w.score * t.divide(w.piece).marginal(len(w.piece), w.score, expected)
		all += w.score
	}
	return expected, likelihood / all
}

// maximise makes the scores those that the expected counts give, in the manner of variational Bayes, which makes rare pieces rarer, and drops what is hardly expected.
func (t *unigramTrainer) maximise(expected []float64) {
	var kept []scored
	sum := 0.0
	for i, n := range expected {
		if n >= leastExpected {
			kept = append(kept, scored{t.pieces[i].piece, n})
			sum += n
		}
	}
	all := digamma(sum)
	for i := range kept {
		kept[i].score = digamma(kept[i].score) - all
	}
	t.pieces = kept
	t.index()
}

// digamma is the derivative of the logarithm of the gamma function, by its asymptotic series around x-1/2 (Bernardo 1976, AS 103).
func digamma(x float64) float64 {
	y := 0.0
	for ; x < 7; x++ {
		y -= 1 / x
	}
	x -= 0.5
	q := 1 / (x * x)
	return y + math.Log(x) + q*(1.0/24-q*(7.0/960-q*(31.0/8064-q*127.0/30720)))
}

// prune drops the pieces without which the text is about as likely: a piece's loss is what the likelihood loses if the best other way to write the piece takes its place everywhere.
func (t *unigramTrainer) prune() {
	n := len(t.pieces)
	useless := make([]bool, n)
	others := make([][]int32, n)
	var path []int32
	for i, p := range t.pieces {
		l := t.divide(p.piece)
		if path = l.viterbi(len(p.piece), -1, path[:0]); len(path) > 1 { // it is never used
			useless[i] = true
			continue
		}
		others[i] = slices.Clone(l.viterbi(len(p.piece), int32(i), path[:0]))
	}
	freq := make([]float64, n) // how often each is used
	all, sum := 0.0, 0.0
	for _, w := range t.words {
		all += w.score
		path = t.divide(w.piece).viterbi(len(w.piece), -1, path[:0])
		for _, id := range path {
			if id >= 0 {
				freq[id] += w.score
				sum += w.score
			}
		}
	}
	type costly struct {
		scored
		loss float64
	}
	var kept []scored
	var rest []costly
	for i, p := range t.pieces {
		switch {
		case freq[i] == 0 || useless[i]:
		case len(others[i]) == 0: // it cannot be written otherwise
			kept = append(kept, p)
		default:
			with := math.Log(freq[i]) - math.Log(sum)
			total := math.Log(sum + freq[i]*float64(len(others[i])-1)) // its count goes to each of the others
			without := 0.0
			for _, o := range others[i] {
				f := freq[i]
				if o >= 0 {
					f += freq[o]
				}
				without += math.Log(f) - total
			}
			rest = append(rest, costly{p, freq[i] / all * (with - without)})
		}
	}
	slices.SortFunc(rest, func(a, b costly) int { return best(scored{a.piece, a.loss}, scored{b.piece, b.loss}) })
	leave := max(t.wanted, int(shrink*float64(n)))
	for _, p := range rest[:min(len(rest), max(0, leave-len(kept)))] {
		kept = append(kept, p.scored)
	}
	t.pieces = kept
	t.index()
}

// final are so many pieces, those of single characters first of all, ordered by score.
func (t *unigramTrainer) final(size int) []scored {
	have := map[string]float64{}
	for _, p := range t.pieces {
		have[p.piece] = p.score
	}
	out := map[string]float64{}
	step := 0.0
	for _, c := range t.required {
		x, ok := have[c.piece]
		if !ok {
			x = t.least + step
			step += 1e-4
		}
		out[c.piece] = x
	}
	slices.SortFunc(t.pieces, best)
	for _, p := range t.pieces {
		if len(out) == size {
			break
		}
		out[p.piece] = p.score
	}
	return ordered(out)
}
