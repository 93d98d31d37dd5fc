package gemm

import "github.com/jouleml/joule/internal/isa"

// choice is what a shape decides about the way its product is computed. It depends on the shape and the instruction set
// alone, not on threads, since it fixes the order of additions.
type choice struct {
	dot        bool // B is stored by columns and A has few rows: dot products
	stream     bool // A has few rows and B is large: add up rows of B
	tall       bool // all rows at once, by one vector of columns: B is read once, forwards
	swap       bool // compute Cᵀ = op(B)ᵀ·op(A)ᵀ: B is read in place a row at a time, the small A is transposed instead
	packB      bool // copy panels of B
	byRows     bool // the rows of one tile at a time, and the panels of a chunk's columns kept for the next chunk
	downFirst  bool // neighbouring chunks have the same columns, so that a thread's share reads a part of B; else the same rows
	turnA      bool // A is transposed beforehand, all of it
	rows, cols int  // of C in one chunk; with dot, stream or swap a chunk has all rows
	kc         int  // K indices between two visits to an element of C
	splits     int  // parts of K that are summed apart and then together
}

const (
	// depth is the most K indices between two visits to an element of C. A panel of B this deep (256 kB with AVX-512, 64 kB
	// with AVX2) streams from the L2 cache as fast as the tiles use it; with less, visits to C cost more: 5% at 1024 squares.
	depth = 1024
	// With A transposed a tile's K indices lie in different lines, and half as many of them are better: 8% at 256×2048×1024.
	depthTransA = 512
	// From turnColumns columns of the result and turnDepth K indices on, a transposed A is copied to rows: across, each of its
	// elements costs a line and often a page, once for every panel of B.
	turnColumns, turnDepth = 256, 64
	// Columns whose elements lie a multiple of collide floats apart share a few sets of the L1 cache: then half of turnDepth is enough.
	collide = 512
	// farColumns and farDepth are the columns of a chunk and the K indices between two visits where few rows meet a B whose rows lie far apart, farChunks the chunks, at least.
	farColumns, farDepth, farChunks = 512, 128, 8
	// maxChunkRows×kc elements of A and a panel of B are in use at a time.
	maxChunkRows = 1024
	// maxPackedB is the most floats of B that a thread copies at a time.
	maxPackedB = 128 << 10
	// turnedRows is the most rows for which a product with B stored by columns is turned over.
	turnedRows = 192
	// From residentRows rows and residentColumns columns on C is computed by rows (function byRows).
	residentRows, residentColumns, manyRows = 96, 256, 512
	// nearFloats are those of a panel that stays in the L1 cache from tile to tile, which then is better where results are not long either.
	nearFloats = 8 << 10
	// inPlaceDepth is the most rows of B that are then better read in place.
	inPlaceDepth = 8
	// pageFloats is the number of floats in a page of memory.
	pageFloats = 1024
	// With up to fewDotRows rows of A, and up to maxDotRows where K is at least dotDepth, dot products beat a tile with mostly empty lanes.
	fewDotRows, maxDotRows, dotDepth = 4, 12, 64
	// maxStreamRows is the most rows of A for which rows of B are added up, and streamBlock the bytes of B that a chunk then reads at least.
	maxStreamRows = 4
	streamBlock   = 128 << 10
	// dotBlock is about how many elements of B a chunk of dot products reads.
	dotBlock = 16 << 10
	// maxSplits bounds the memory for partial sums.
	maxSplits = 16
	// maxAcross and maxDown give more chunks than any machine needs to share the work evenly.
	maxAcross, maxDown = 32, 32
	// tallRows is the most rows that are computed at once, by tallLanes columns, and tallBlock about how many elements of B a chunk of them reads. Fewer rows than fewTallRows leave too much of
	// the kernel idle; matrices smaller than tallSize stay in the second-level cache, where other tiles are as fast.
	tallRows, tallLanes, tallBlock, fewTallRows, tallSize = 16, 16, 16 << 10, 12, 64 << 10
	// minRows is the fewest rows a chunk should have: each reads its columns of B once.
	minRows = 16
)

// The costs that choose weighs, in cycles of Zen 4, in which a core multiplies and adds 16 pairs.
const (
	lanesPerCycle = 16
	readCost      = 1.0 / 16 // an element from the L2 or L3 cache
	packCost      = 0.45     // an element of B copied to a panel
	turnCost      = 0.6      // an element transposed
	chunkCost     = 500      // starting a chunk
	stripCost     = 1500     // and, where B is read in place, reading short runs of its rows
	splitWork     = 16000    // the least work worth a part of K of its own
	turnedWork    = 4000     // about the work of a turned chunk
)

// choose is the selection rule.
func choose(l isa.Level, s Spec) choice {
	if s.M == 0 || s.N == 0 || s.K == 0 {
		return choice{rows: 1, cols: 1, kc: 1, splits: 1}
	}
	width := nr(l)
	panels := ceilDiv(s.N, width)
	work := float64(s.M) * float64(s.N) * float64(s.K) / lanesPerCycle

	if s.TransB && !s.PackedB && !s.TransA && (s.M <= fewDotRows || s.M <= maxDotRows && s.K >= dotDepth) {
		return choice{dot: true, rows: s.M, cols: min(s.N, roundUp(ceilDiv(dotBlock, s.K), 4)), kc: s.K, splits: 1}
	}

	if l == isa.AVX512 && isa.Wide() && s.PackedB && s.Batch == 1 && !s.TransA && s.M > fewTallRows && s.M <= tallRows && s.K*s.N >= tallSize {
		cols := max(1, tallBlock/(tallLanes*s.K)) * tallLanes
		return choice{tall: true, rows: s.M, cols: min(s.N, cols), kc: s.K, splits: 1}
	}

	long := 256 // where a row of B is worth a stream of its own
	if l == isa.AVX512 {
		long = pageFloats
	}
	if !s.TransB && !s.PackedB && s.M <= maxStreamRows && s.LDB >= long && s.N >= 256 {
		cols := s.N
		if across := s.N / pageFloats; across > 1 {
			cols = roundUp(ceilDiv(s.N, across), 8)
		}
		want := min(4*s.K*s.N/streamBlock, maxSplits) / s.Batch
		return choice{stream: true, rows: s.M, cols: cols, kc: 64, splits: max(1, min(want/ceilDiv(s.N, cols), s.K/64))}
	}

	// With B stored by columns, either B is transposed (K·N) or the product is turned over: A (M·K) and C (M·N) are.
	if s.TransB && !s.PackedB && s.M <= turnedRows && s.M*(s.K+s.N) < s.K*s.N {
		read := float64(s.K) * float64(s.N) * readCost
		chunks := min(roundUp(int((work+read)/turnedWork)+1, 4), maxDown)
		cols := min(128, roundUp(ceilDiv(s.N, chunks), 8))
		return choice{swap: true, rows: s.M, cols: min(cols, s.N), kc: block(s.K, depth), splits: 1}
	}

	deep := depth
	turnA := s.TransA && s.N >= turnColumns && s.M >= 2*minRows && (s.K >= turnDepth || s.K >= turnDepth/2 && s.LDA%collide == 0)
	if s.TransA && !turnA {
		deep = depthTransA
	}
	ch := choice{splits: 1, kc: block(s.K, deep), turnA: turnA}
	// B is read in place where its rows are near each other; rows far apart cost a page table entry each, and their lines
	// crowd into a few sets of the caches. Many rows of A make up for the copy. AVX2 tiles read B four times as often.
	far, rows := 512, 48
	if l == isa.AVX2 {
		far, rows = 64, 96
	}
	ch.packB = !s.PackedB && (s.TransB || s.M >= rows && s.N > width && s.LDB >= far)

	if byRows(l, s, &ch) {
		return ch
	}

	// Few rows do not pay for a copy of a far-flung B: then chunks have many columns, so that each row of B is read in long runs, and the K indices are visited in parts that
	// stay in the L1 cache with their lines of B. At 32 rows and 1024 squares of B, 128 indices at a time take 252 µs, 344 took 350 (Intel's Xeon); parts of K give the chunks.
	if !ch.packB && !s.PackedB && s.LDB >= pageFloats && s.N >= farColumns/2 {
		ch.rows, ch.cols = s.M, min(s.N, roundUp(ceilDiv(s.N, ceilDiv(s.N, farColumns)), width))
		ch.splits = max(1, min(ceilDiv(farChunks, ceilDiv(s.N, ch.cols)*s.Batch), s.K/256))
		ch.kc = block(ceilDiv(s.K, ch.splits), farDepth)
		return ch
	}

	// The grid of chunks that costs least.
	least := -1.0
	for across := 1; across <= min(panels, maxAcross); across++ {
		cols := ceilDiv(panels, across) * width
		if ceilDiv(s.N, cols) != across || ch.packB && cols > width && cols*ch.kc > maxPackedB {
			continue
		}
		for down := 1; down <= max(1, min(s.M/minRows, maxDown)); down++ {
			rows := ceilDiv(s.M, down)
			if rows > 2*minRows {
				rows = roundUp(rows, 8)
			}
			if ceilDiv(s.M, rows) != down || rows > maxChunkRows && down < maxDown {
				continue
			}
			cost := work
			cost += float64(s.M) * float64(s.K) * float64(across) * readCost
			b := readCost
			switch {
			case ch.packB && s.TransB:
				b += turnCost
			case ch.packB:
				b += packCost
			}
			cost += float64(s.K) * float64(s.N) * float64(down) * b
			chunks := across * down
			cost += float64(chunks) * chunkCost
			if !ch.packB {
				cost += float64(chunks) * stripCost
			}
			cost *= idle(chunks * s.Batch)
			if least < 0 || cost < least {
				least = cost
				ch.rows, ch.cols = min(rows, s.M), min(cols, s.N)
			}
		}
	}
	ch.downFirst = s.N > s.M // B is the larger of the two
	// A deep product with a small result has no chunks to share out but parts of K.
	chunks := ceilDiv(s.M, ch.rows) * ceilDiv(s.N, ch.cols)
	if want := min(work/splitWork, maxSplits); (!ch.packB || chunks*s.Batch < 8) && float64(2*chunks*s.Batch) <= want {
		ch.splits = max(1, min(int(want)/(chunks*s.Batch), s.K/256))
		ch.kc = min(ch.kc, block(ceilDiv(s.K, ch.splits), deep))
	}
	return ch
}

// byRows decides whether to compute C a few rows at a time, in their whole length, with B in the L2 cache, where each thread keeps the panels
// that it has packed from chunk to chunk. That suits many rows. C is then written in long runs: in strips of a panel's width each row is a page
// of its own, and with few K indices writing is most of the work.
func byRows(l isa.Level, s Spec, ch *choice) bool {
	width := nr(l)
	cols := resident(l) / s.K / width * width
	if s.M < residentRows || s.N < residentColumns || s.PackedB || cols == 0 || !ch.packB && s.K > inPlaceDepth {
		return false
	}
	if s.M < manyRows && s.K*width <= nearFloats {
		return false
	}
	ch.byRows, ch.downFirst, ch.packB = true, true, s.TransB || s.K > inPlaceDepth
	if s.M < manyRows {
		cols = min(cols, roundUp(ceilDiv(s.N, 8), width)) // fewer rows do not pay for panels that several threads pack
	}
	panels := ceilDiv(s.N, width)
	across := ceilDiv(panels*width, cols)
	ch.cols = min(s.N, ceilDiv(panels, across)*width)
	ch.rows = 6 * tileRows(l, width)
	if ceilDiv(s.M, ch.rows)*across*s.Batch < maxDown {
		ch.rows /= 2
	}
	return true
}

// resident is the number of floats of B that stay in the L2 cache: half of 2 MB on Intel's servers, of 1 MB on other processors with AVX-512, of 512 kB with AVX2.
func resident(l isa.Level) int {
	switch {
	case l == isa.AVX512 && isa.Wide():
		return 256 << 10
	case l == isa.AVX512:
		return 128 << 10
	}
	return 64 << 10
}

// idle is by what factor waiting for the last of n equal chunks lengthens the work: the mean for 2 and for 4 threads, and a
// little for chunks that take longer than others.
func idle(n int) float64 {
	sum := 0.0
	for _, threads := range []int{2, 4} {
		sum += float64(roundUp(n, threads)) / float64(n)
	}
	return sum/2 + 0.5/float64(n)
}

// block is the size of equal blocks of about most at most into which k can be cut.
func block(k, most int) int { return roundUp(ceilDiv(k, ceilDiv(k, most)), 8) }

func ceilDiv(a, b int) int { return (a + b - 1) / b }

func roundUp(a, b int) int { return ceilDiv(a, b) * b }
