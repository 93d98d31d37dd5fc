package prune

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Pattern says where the zeros of a kernel [inputs, outputs] may stand: "2:4" (or n:m) keeps n of each m neighbouring weights of an output, as the sparse units of accelerators want it (arXiv:2104.08378); "block" keeps
// or removes 16 neighbouring outputs of an input together, as many inputs of each such panel. "" is anywhere.
type Pattern string

// Block is the pattern of blocks of 16 outputs.
const Block Pattern = "block"

// blockWidth is the number of outputs that a block has: those of a vector of AVX-512.
const blockWidth = 16

// Check says what is wrong with the pattern.
func (p Pattern) Check() error {
	if n, m := p.ratio(); p == Block || n > 0 && n < m && m <= 64 {
		return nil
	}
	return fmt.Errorf("prune: unknown pattern %q: block, or n:m with n below m, such as 2:4", string(p))
}

// ratio is n and m of n:m; 0 and 0 of others.
func (p Pattern) ratio() (n, m int) {
	a, b, ok := strings.Cut(string(p), ":")
	n, err := strconv.Atoi(a)
	m, err2 := strconv.Atoi(b)
	if !ok || err != nil || err2 != nil {
		return 0, 0
	}
	return n, m
}

// gone marks the weights of a kernel [k, n] that go, given how much each is worth, so that a share of them is gone.
func (p Pattern) gone(s []float32, k, n int, share float64) []bool {
	out := make([]bool, len(s))
	if _, m := p.ratio(); m > 0 {
		away := int(math.Round(share * float64(m)))
		for j := range n {
			for at := 0; at+m <= k; at += m {
				rows := make([]int, m)
				for i := range rows {
					rows[i] = at + i
				}
				slices.SortStableFunc(rows, func(a, b int) int { return cmp.Compare(s[a*n+j], s[b*n+j]) })
				for _, i := range rows[:away] {
					out[i*n+j] = true
				}
			}
		}
		return out
	}
	away := int(math.Round(share * float64(k)))
	for from := 0; from < n; from += blockWidth {
		to := min(n, from+blockWidth)
		worth := make([]float64, k)
		rows := make([]int, k)
		for i := range k {
			rows[i] = i
			for j := from; j < to; j++ {
				worth[i] += float64(s[i*n+j])
			}
		}
		slices.SortStableFunc(rows, func(a, b int) int { return cmp.Compare(worth[a], worth[b]) })
		for _, i := range rows[:away] {
			for j := from; j < to; j++ {
				out[i*n+j] = true
			}
		}
	}
	return out
}
