package text

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
)

func trainUnigram(t testing.TB, s string, size int, special ...string) *Tokenizer {
	t.Helper()
	tr, err := NewTrainer("unigram", size, special...)
	if err != nil {
		t.Fatal(err)
	}
	tr.Add(s)
	k, err := tr.Train()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The vocabulary is the one that SentencePiece learns from the same text, but for a few pieces in a hundred, and the text is as likely with it.
func TestUnigramTraining(t *testing.T) {
	var ref struct {
		Pieces [][2]any
		Tokens int
	}
	if err := json.Unmarshal(unpacked(t, "unigram_train.json"), &ref); err != nil {
		t.Fatal(err)
	}
	theirs := map[string]float64{}
	var vocab []scored
	for _, p := range ref.Pieces {
		theirs[p[0].(string)] = p[1].(float64)
		vocab = append(vocab, scored{p[0].(string), p[1].(float64)})
	}
	s := string(unpacked(t, "../../data/text/opticks.txt")) // what testdata/unigram.py lets SentencePiece learn from
	k := trainUnigram(t, s, len(vocab)+3, "<unk>", "<s>", "</s>")
	if k.Size() != len(vocab)+3 {
		t.Fatalf("%d tokens, want %d", k.Size(), len(vocab)+3)
	}
	var own []scored
	var apart []float64
	m := k.model.(*unigram)
	for i, p := range m.tokens[3:] {
		own = append(own, scored{p, m.score[i+3]})
		if x, ok := theirs[p]; ok {
			apart = append(apart, math.Abs(x-m.score[i+3]))
		}
	}
	slices.Sort(apart)
	if share := float64(len(apart)) / float64(len(vocab)); share < 0.985 {
		t.Errorf("%.2f%% of the pieces are the reference's", 100*share)
	}
	if x := apart[len(apart)*9/10]; x > 0.01 {
		t.Errorf("nine of ten scores are within %g of the reference's", x)
	}
	// The mean logarithm of a word's probability, over all ways to divide it.
	tr, _ := NewTrainer("unigram", 2000)
	tr.Add(s)
	likelihood := func(pieces []scored) float64 {
		u := &unigramTrainer{}
		u.cover(tr.counts)
		u.pieces = pieces
		u.index()
		_, l := u.expect()
		return l
	}
	a, b := likelihood(own), likelihood(vocab)
	if math.Abs(a-b) > 0.003*math.Abs(b) {
		t.Errorf("a word has the log-probability %.4f, with the reference's pieces %.4f", a, b)
	}
	n := 0
	for l := range strings.Lines(s) {
		ids, err := k.Encode(l)
		if err != nil {
			t.Fatal(err)
		}
		n += len(ids)
	}
	if math.Abs(float64(n-ref.Tokens)) > 0.005*float64(ref.Tokens) {
		t.Errorf("the text has %d tokens, with the reference's pieces %d", n, ref.Tokens)
	}
	t.Logf("%d of %d pieces alike, log-probability %.4f and %.4f, tokens %d and %d", len(apart), len(vocab), a, b, n, ref.Tokens)
	j, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(j)
	if err != nil {
		t.Fatal(err)
	}
	const words = "The Rays which differ in Colour differ also in Refrangibility."
	for _, k := range []*Tokenizer{k, again} {
		ids, err := k.Encode(words)
		if err != nil || k.Decode(ids) != words || len(ids) > 16 {
			t.Errorf("%q %v: %q", words, err, names(k, ids))
		}
	}
	ids, err := k.Encode("a\t\tb\u2603")
	if got := names(k, ids); err != nil || strings.Join(got, "|") != "▁a|▁b|<unk>" {
		t.Errorf("%q %v", got, err)
	}
	short := s[:40000]
	x, err := json.Marshal(trainUnigram(t, short, 400))
	if err != nil {
		t.Fatal(err)
	}
	if y, err := json.Marshal(trainUnigram(t, short, 400)); err != nil || !bytes.Equal(x, y) {
		t.Errorf("the same text gives another vocabulary: %v", err)
	}
}

// The counts over all ways to divide a text are those that adding up every way gives, and the best way is the best of them.
func TestLattice(t *testing.T) {
	u := &unigramTrainer{pieces: []scored{{"a", -1}, {"b", -1.5}, {"ab", -2}, {"aba", -4.2}, {"ba", -2.2}, {"é", -3}}}
	u.index()
	for _, s := range []string{"abab", "aéb", "abcab", "a", "xx"} { // c and x are unknown
		var all, best float64
		best = math.Inf(-1)
		want := make([]float64, len(u.pieces))
		var walk func(rest string, used []int, p float64)
		walk = func(rest string, used []int, p float64) {
			if rest == "" {
				all += math.Exp(p)
				best = max(best, p)
				for _, i := range used {
					want[i] += math.Exp(p)
				}
				return
			}
			single := false
			for i, e := range u.pieces {
				if strings.HasPrefix(rest, e.piece) {
					single = single || len([]rune(e.piece)) == 1
					walk(rest[len(e.piece):], append(slices.Clone(used), i), p+e.score)
				}
			}
			if !single {
				r := []rune(rest)
				walk(string(r[1:]), used, p+u.least-unknownPenalty)
			}
		}
		walk(s, nil, 0)
		got := make([]float64, len(u.pieces))
		l := u.divide(s)
		if x := l.marginal(len(s), 3, got); math.Abs(x-math.Log(all)) > 1e-12 {
			t.Errorf("%s: log-probability %g, want %g", s, x, math.Log(all))
		}
		for i := range got {
			if math.Abs(got[i]-3*want[i]/all) > 1e-12 {
				t.Errorf("%s: %q is expected %g times, want %g", s, u.pieces[i].piece, got[i], 3*want[i]/all)
			}
		}
		score := 0.0
		for _, id := range l.viterbi(len(s), -1, nil) {
			if id < 0 {
				score += u.least - unknownPenalty
			} else {
				score += u.pieces[id].score
			}
		}
		if math.Abs(score-best) > 1e-12 {
			t.Errorf("%s: the best way has %g, want %g", s, score, best)
		}
	}
}

// Pieces to begin with are substrings that occur several times and go on in different ways; they keep to one script and begin words at most.
func TestSeeds(t *testing.T) {
	u := &unigramTrainer{}
	got := map[string]float64{}
	// "▁low" goes on with e, with ▁ and with the end; "lowe" goes on with r and s; "▁new" always with e, "er" always with ▁.
	for _, p := range u.seeds(u.cover(map[string]int64{"▁lower": 2, "▁lowest": 1, "▁low": 1, "▁low" + lineEnd: 1, "▁newer": 3, "▁x1": 2, "▁x2": 2, "▁слова": 2, "▁слово" + lineEnd: 2})) {
		got[p.piece] = p.score
	}
	for s, want := range map[string]float64{"▁low": 20, "▁lowe": 15, "wer": 0, "er": 0, "we": 12, "▁new": 0, "▁x": 8, "x1": 0, "слов": 16, "▁слов": 20, "w": 8} {
		if got[s] != want {
			t.Errorf("%q covers %g characters, want %g", s, got[s], want)
		}
	}
	kinds := scripts{}
	for s, want := range map[string]bool{"▁ab": true, "a▁b": false, "a1": false, "aя": false, "かんカー漢字": true, "e\u0301": true, "12": true, "a" + string(rare): false, strings.Repeat("a", 17): false} {
		if kinds.piece(s) != want {
			t.Errorf("%q may be a piece: %v", s, !want)
		}
	}
}

func TestUnigramErrors(t *testing.T) {
	tr, err := NewTrainer("unigram", 20, "<pad>")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Train(); err == nil || !strings.Contains(err.Error(), "no text") {
		t.Error(err)
	}
	tr.Add("the quick brown fox jumps over the lazy dog")
	if _, err := tr.Train(); err == nil || !strings.Contains(err.Error(), "has no room for the text's 27 characters beside 2 special tokens") {
		t.Error(err)
	}
	if _, err := NewTrainer("unigram", 0); err == nil || !strings.Contains(err.Error(), "unigram:2000") {
		t.Error(err)
	}
	if k := trainUnigram(t, "\n\nab ab ab\n", 100, "<pad>"); k.Size() > 8 || k.Token(0) != "<pad>" || k.Token(1) != "<unk>" {
		t.Errorf("%d tokens of a text that has few", k.Size())
	}
}
