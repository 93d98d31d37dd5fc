package gemm

import "github.com/jouleml/joule/internal/isa"

// choice is what a shape decides about the way its product is computed. It depends on the shape and the instruction set
// alone, not on threads, since it fixes the order of additions.
type choice struct {
	swap       bool // compute Cᵀ = op(B)ᵀ·op(A)ᵀ: B is read in place a row at a time, the small A is transposed instead
	packA      bool // copy blocks of A into groups of rows
	packB      bool // copy panels of B
	rows, cols int  // of C in one chunk; with swap a chunk has all rows
	kc         int  // K indices between two visits to an element of C
	splits     int  // parts of K that are summed apart and then together
}

const (
	// maxSplits bounds the memory for partial sums.
	maxSplits = 16
	// chunkMACs and chunkBytes are about the least work worth a chunk of its own, 10 µs or so of one core.
	chunkMACs  = 1 << 20
	chunkBytes = 256 << 10
	// maxChunks is more than enough for the threads of a machine to share evenly.
	maxChunks = 64
)

// choose is the selection rule.
func choose(l isa.Level, s Spec) choice {
	if s.M == 0 || s.N == 0 || s.K == 0 {
		return choice{rows: 1, cols: 1, kc: 1, splits: 1}
	}
	width := nr(l)

	// How many chunks a matrix of the batch should give.
	macs, bytes := s.M*s.N*s.K, 4*s.K*s.N
	want := min(max(macs/chunkMACs, bytes/chunkBytes, 1), maxChunks)
	want = max(1, min(want, maxChunks/s.Batch))

	// Depth: a panel of B should stay in the L1 cache (AVX2, 16 columns) or take up a small part of L2 (AVX-512, 64 columns).
	depth := 256
	if l == isa.AVX512 {
		depth = 512
	}

	// With B stored by columns, transposing it costs K·N moves; turning the product over costs M·K (A) and M·N (C) instead.
	if s.TransB && !s.PackedB && s.M*(s.K+s.N) < s.K*s.N && s.M <= 512 {
		cols := max(groupRows, min(128, roundUp(ceilDiv(s.N, want), 24)))
		return choice{swap: true, rows: s.M, cols: cols, kc: blocks(s.K, depth), splits: 1}
	}

	ch := choice{splits: 1}
	// Packing B is worth its cost (about 1/4 of a vector FMA a float) where many rows read the copy, and needed where B is
	// stored by columns. A row stride that is a multiple of 1 kB puts a panel into a few sets of the cache.
	ch.packB = !s.PackedB && (s.TransB || s.N > width && (s.M >= 64 || s.M >= 24 && s.LDB%256 == 0))
	// A is read in place: AVX-512 tiles are wide enough to hide it. AVX2 tiles touch A four times as often and lose a tenth
	// to bank conflicts between rows.
	ch.packA = l == isa.AVX2 && s.N >= 64 && s.M >= 48 && s.K >= 48

	// The grid with the least copying that has enough chunks.
	panels := ceilDiv(s.N, width)
	best := -1.0
	for across := 1; across <= min(panels, maxChunks); across++ {
		nb := ceilDiv(panels, across)
		if ceilDiv(panels, nb) != across {
			continue
		}
		down := min(ceilDiv(want, across), ceilDiv(s.M, 24))
		mb := min(roundUp(ceilDiv(s.M, down), 24), roundUp(s.M, 24))
		mb = min(mb, 480)
		down = ceilDiv(s.M, mb)
		// Costs in vector FMAs of one row of A by one vector of B.
		chunks := float64(across * down)
		cost := float64(macs) / 16
		if ch.packA {
			cost += float64(s.M*s.K*across) / 2
		}
		cost += float64(s.M*s.K*across) / 16 // reading A
		if ch.packB {
			cost += float64(s.K*s.N*down) / 4
		}
		cost += float64(s.K*s.N*down) / 16 // reading B
		if chunks < float64(want) {
			cost *= float64(want) / chunks
		}
		if best < 0 || cost < best {
			best = cost
			ch.rows, ch.cols = min(mb, s.M), min(nb*width, s.N)
		}
	}
	if chunks := ceilDiv(s.M, ch.rows) * ceilDiv(s.N, ch.cols); 2*chunks <= want {
		ch.splits = max(1, min(ceilDiv(want, chunks), s.K/256, maxSplits))
	}
	ch.kc = blocks(ceilDiv(s.K, ch.splits), depth)
	return ch
}

// blocks is the size of equal blocks of at most about most into which n can be cut.
func blocks(n, most int) int { return roundUp(ceilDiv(n, ceilDiv(n, most)), 8) }

func ceilDiv(a, b int) int { return (a + b - 1) / b }

func roundUp(a, b int) int { return ceilDiv(a, b) * b }
