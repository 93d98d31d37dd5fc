package pairs

import (
	"hash/fnv"
	"slices"
	"strings"
	"unicode"
)

// Split takes a share of the pairs for testing, and leaves out of the training part those that nearly say the same as one of the test part: whose source or
// target shares at least half of its runs of four words with a source or target there, or the other way round. Case, digits and signs do not count. What is tested is decided by a hash of the source,
// so the same pairs are divided in the same way whatever their order. left is how many pairs were left out.
func Split(all []Pair, share float64) (train, test []Pair, left int) {
	var rest []Pair
	seen := map[string]bool{}
	for _, p := range all {
		k := plain(p.Source)
		h := fnv.New64a()
		h.Write([]byte(k))
		if float64(h.Sum64()>>11)/(1<<53) >= share {
			rest = append(rest, p)
			continue
		}
		if !seen[k] { // one test example for each source
			seen[k] = true
			test = append(test, p)
		}
	}
	source, target := newIndex(), newIndex()
	for _, p := range test {
		source.add(p.Source)
		target.add(p.Target)
	}
	for _, p := range rest {
		if source.near(p.Source) || target.near(p.Target) {
			left++
			continue
		}
		train = append(train, p)
	}
	return train, test, left
}

// plain is a text without case, digits and signs.
func plain(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) }), " ")
}

// run is so many words.
const run = 4

// grams are the distinct runs of words of a text, all of it if it is shorter.
func grams(s string) []uint64 {
	w := strings.Fields(plain(s))
	var out []uint64
	for i := 0; i == 0 || i+run <= len(w); i++ {
		h := fnv.New64a()
		for _, x := range w[i:min(len(w), i+run)] {
			h.Write([]byte(x))
			h.Write([]byte{0})
		}
		out = append(out, h.Sum64())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// index finds texts that nearly say the same.
type index struct {
	by    map[uint64][]int32 // texts that have a run of words
	sizes []int              // distinct runs of each text
}

func newIndex() *index { return &index{by: map[uint64][]int32{}} }

func (x *index) add(s string) {
	g := grams(s)
	for _, h := range g {
		x.by[h] = append(x.by[h], int32(len(x.sizes)))
	}
	x.sizes = append(x.sizes, len(g))
}

// near says whether a text shares half of its runs, or of theirs, with one of the index.
func (x *index) near(s string) bool {
	g := grams(s)
	shared := map[int32]int{}
	for _, h := range g {
		for _, i := range x.by[h] {
			shared[i]++
			if n := 2 * shared[i]; n >= len(g) || n >= x.sizes[i] {
				return true
			}
		}
	}
	return false
}
