package pairs

import (
	"maps"
	"math"
	"slices"
	"strings"
)

// Memory finds, for a text, the pair whose source is most like it: what a translation memory would offer. Likeness is the cosine of the counts of words, each weighted by the logarithm
// of how few sources have it (Salton & Buckley 1988).
type Memory struct {
	pairs  []Pair
	weight map[string]float64
	by     map[string][]entry
}

// entry is a source that has a word, and the word's share of its length.
type entry struct {
	pair  int32
	share float32
}

// NewMemory remembers pairs.
func NewMemory(all []Pair) *Memory {
	m := &Memory{pairs: all, weight: map[string]float64{}, by: map[string][]entry{}}
	for _, p := range all {
		for w := range counts(p.Source) {
			m.weight[w]++
		}
	}
	for w, n := range m.weight {
		m.weight[w] = math.Log(float64(len(all)+1) / n)
	}
	for i, p := range all {
		for w, share := range m.vector(p.Source) {
			m.by[w] = append(m.by[w], entry{int32(i), float32(share)})
		}
	}
	return m
}

func counts(s string) map[string]float64 {
	out := map[string]float64{}
	for _, w := range strings.Fields(strings.ToLower(s)) {
		out[strings.Trim(w, ".,;:!?()\"'")]++
	}
	return out
}

// vector is the weighted counts of a text, of length 1.
func (m *Memory) vector(s string) map[string]float64 {
	v := counts(s)
	sum := 0.0
	for _, w := range slices.Sorted(maps.Keys(v)) { // in one order, for the same bits
		v[w] *= m.weight[w]
		sum += v[w] * v[w]
	}
	for w := range v {
		v[w] /= math.Sqrt(max(sum, 1e-30))
	}
	return v
}

// Nearest is the pair whose source is most like s, of equals the first; without a word in common it is the zero pair.
func (m *Memory) Nearest(s string) Pair {
	score := make([]float64, len(m.pairs)) // common words are in most of them: a list is faster than a map
	v := m.vector(s)
	for _, w := range slices.Sorted(maps.Keys(v)) {
		for _, e := range m.by[w] {
			score[e.pair] += v[w] * float64(e.share)
		}
	}
	best, most := -1, 0.0
	for i, x := range score {
		if x > most {
			best, most = i, x
		}
	}
	if best < 0 {
		return Pair{}
	}
	return m.pairs[best]
}

// Pairs are the texts of a data set that New has made, nil of another.
func Pairs(ds interface{ Len() int }) []Pair {
	e, ok := ds.(interface{ Pair(i int) Pair })
	if !ok {
		return nil
	}
	out := make([]Pair, ds.Len())
	for i := range out {
		out[i] = e.Pair(i)
	}
	return out
}

// Way is a way of writing about texts, and what it has written.
type Way struct {
	How   string
	Texts []string // of each test pair
}

// Baselines are what needs no model: the target of the training pair whose source is most alike, the source itself, and its first sentence.
func Baselines(train, test []Pair) []Way {
	memory := NewMemory(train)
	ways := []Way{{How: "nearest example"}, {How: "the source"}, {How: "its first sentence"}}
	for _, p := range test {
		for i, t := range []string{memory.Nearest(p.Source).Target, p.Source, Lead(p.Source)} {
			ways[i].Texts = append(ways[i].Texts, t)
		}
	}
	return ways
}

// Lead is the first sentence of a text.
func Lead(s string) string { return sentences(s)[0] }
