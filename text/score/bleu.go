// Package score compares texts that models wrote with texts that people wrote: BLEU for translations, ROUGE for summaries.
package score

import (
	"fmt"
	"math"
	"regexp"
	"strings"
)

// BLEU is the score of a corpus and what it is made of.
type BLEU struct {
	Score      float64    // 0 to 100
	Precisions [4]float64 // of runs of 1 to 4 words, in percent
	Brevity    float64    // the penalty for texts shorter than the references, at most 1
	Length     int        // words written
	Reference  int        // words of the references
}

func (b BLEU) String() string {
	return fmt.Sprintf("%.2f (%.1f/%.1f/%.1f/%.1f, brevity %.3f)", b.Score, b.Precisions[0], b.Precisions[1], b.Precisions[2], b.Precisions[3], b.Brevity)
}

// orders is the length of the longest runs of words that BLEU counts.
const orders = 4

// CorpusBLEU is BLEU (Papineni et al. 2002) as sacrebleu computes it by default: one reference each, case counts, words by the rules of mteval-v13a, and where no run of some
// length is right the exponential smoothing of that program (Post 2018, arXiv:1804.08771).
func CorpusBLEU(written, references []string) (BLEU, error) {
	if err := check(written, references); err != nil {
		return BLEU{}, err
	}
	var b BLEU
	var right, all [orders]int
	for i := range written {
		w, r := words13a(written[i]), words13a(references[i])
		b.Length += len(w)
		b.Reference += len(r)
		for n := 1; n <= orders; n++ {
			right[n-1] += shared(w, r, n)
			all[n-1] += max(0, len(w)-n+1)
		}
	}
	b.Brevity = 1
	if b.Length < b.Reference {
		b.Brevity = 0
		if b.Length > 0 {
			b.Brevity = math.Exp(1 - float64(b.Reference)/float64(b.Length))
		}
	}
	if right == [orders]int{} {
		return b, nil
	}
	smooth, sum := 1.0, 0.0
	for n := range orders {
		if all[n] == 0 {
			return b, nil
		}
		if right[n] == 0 {
			smooth *= 2
			b.Precisions[n] = 100 / (smooth * float64(all[n]))
		} else {
			b.Precisions[n] = 100 * float64(right[n]) / float64(all[n])
		}
		sum += math.Log(b.Precisions[n])
	}
	b.Score = b.Brevity * math.Exp(sum/orders)
	return b, nil
}

// check asks for one reference to each text.
func check(written, references []string) error {
	if len(written) != len(references) || len(written) == 0 {
		return fmt.Errorf("score: %d texts and %d references: want the same number, from 1 on", len(written), len(references))
	}
	return nil
}

// shared counts the runs of n words of w that r has too, each as often as r has it at most.
func shared(w, r []string, n int) int {
	have, count := runs(r, n), 0
	for g, k := range runs(w, n) {
		count += min(k, have[g])
	}
	return count
}

// runs counts the runs of n words.
func runs(words []string, n int) map[string]int {
	out := map[string]int{}
	for i := 0; i+n <= len(words); i++ {
		out[strings.Join(words[i:i+n], "\x00")]++
	}
	return out
}

var rules13a = []struct {
	find *regexp.Regexp
	to   string
}{
	{regexp.MustCompile("([{-~\\[-` -&(-+:-@/])"), " $1 "},
	{regexp.MustCompile(`([^0-9])([.,])`), "$1 $2 "},
	{regexp.MustCompile(`([.,])([^0-9])`), " $1 $2"},
	{regexp.MustCompile(`([0-9])(-)`), "$1 $2 "},
}

// entities are replaced one after the other: &amp;lt; becomes <.
var entities = [][2]string{{"&quot;", `"`}, {"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}}

// words13a divides a text into words and signs by the rules of mteval-v13a.
func words13a(s string) []string {
	s = strings.TrimSpace(s)
	s = strings.ReplaceAll(s, "<skipped>", "")
	s = strings.ReplaceAll(s, "-\n", "")
	s = strings.ReplaceAll(s, "\n", " ")
	for _, e := range entities {
		s = strings.ReplaceAll(s, e[0], e[1])
	}
	s = " " + s + " "
	for _, r := range rules13a {
		s = r.find.ReplaceAllString(s, r.to)
	}
	return strings.Fields(s)
}
