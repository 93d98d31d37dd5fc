package score

import (
	"fmt"
	"regexp"
	"strings"
)

// ROUGE is recall-oriented scores (Lin 2004), each F₁ from 0 to 1, the mean over texts: shared words, shared pairs of words, and the longest common subsequence of words.
type ROUGE struct{ One, Two, L float64 }

func (r ROUGE) String() string { return fmt.Sprintf("%.4f / %.4f / %.4f", r.One, r.Two, r.L) }

// MeanROUGE compares each text with its reference as the Python package rouge-score does without a stemmer: words are runs of ASCII letters and digits, case does not count.
func MeanROUGE(written, references []string) (ROUGE, error) {
	if err := check(written, references); err != nil {
		return ROUGE{}, err
	}
	var sum ROUGE
	for i := range written {
		w, r := rougeWords(written[i]), rougeWords(references[i])
		sum.One += overlap(w, r, 1)
		sum.Two += overlap(w, r, 2)
		if len(w) > 0 && len(r) > 0 {
			n := float64(common(w, r))
			sum.L += f1(n/float64(len(w)), n/float64(len(r)))
		}
	}
	n := float64(len(written))
	return ROUGE{sum.One / n, sum.Two / n, sum.L / n}, nil
}

var notWord = regexp.MustCompile(`[^a-z0-9]+`)

func rougeWords(s string) []string {
	return strings.Fields(notWord.ReplaceAllString(strings.ToLower(s), " "))
}

func f1(precision, recall float64) float64 {
	if precision+recall == 0 {
		return 0
	}
	return 2 * precision * recall / (precision + recall)
}

func overlap(w, r []string, n int) float64 {
	right := float64(shared(w, r, n))
	return f1(right/float64(max(1, len(w)-n+1)), right/float64(max(1, len(r)-n+1)))
}

// common is the length of the longest common subsequence.
func common(a, b []string) int {
	row := make([]int, len(b)+1)
	for _, x := range a {
		diagonal := 0
		for j, y := range b {
			old := row[j+1]
			if x == y {
				row[j+1] = diagonal + 1
			} else {
				row[j+1] = max(row[j+1], row[j])
			}
			diagonal = old
		}
	}
	return row[len(b)]
}
