// Package tgemm multiplies matrices of float32 on the matrix unit of CPUs with AMX, which knows bf16 alone, and loses nothing by it.
//
// An element x of float32 is the sum of three bf16: p₀ is x rounded to bf16, p₁ what is left of it rounded, p₂ the rest, which is exact (24 bits of significand are three times 8).
// A product a·b is then the sum of nine products of parts, each exact in float32. Six are computed; the three left out, a₁b₂, a₂b₁ and a₂b₂, are at most 2⁻²⁵ of |a·b| together, while
// float32 rounds each sum to 2⁻²⁴ of itself. Sums are of float32 as ever. (Henry, Tang and Heinecke, arXiv:1904.06376, who find six products of three bf16 as exact as float32.)
//
// What differs from float32: an infinite operand gives NaN, as do the numbers above 3.39·10³⁸ that bf16 rounds to infinity; of operands below 10⁻³¹ the last digits are lost, since the unit
// takes numbers below 10⁻³⁸ for zero.
//
// Terminology: a step is 32 indices along K; index k of a step and k+16 make a pair, a uint32. A tile is 16 rows (or columns) of 16 pairs. A block is 16 rows of A, or columns of B, by some
// steps: three tiles a step, one for each part. Chunks of C make the blocks that they need in memory of their own, which stays in the second-level cache; a B that many rows meet is split once
// for all of them, or was beforehand (a constant weight). A deep product is cut along K into parts that are added up at the end, in their order. All this depends on the shape alone, so results are
// the same bits for any number of threads.
//
//go:generate go run -C ../vec/_asm ./tgemm -pkg tgemm -out ../../tgemm/tgemm_amd64.s -stubs ../../tgemm/stubs_amd64.go
package tgemm

import (
	"fmt"
	"unsafe"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/kernel/vec"
	"github.com/jouleml/joule/internal/par"
)

const (
	BlockRows = 16            // of A in a block; columns of B
	StepK     = 32            // indices along K in a step
	StepWords = 3 * 16 * 16   // of a block
	Pair      = 2 * BlockRows // the rows, and the columns, that Multiply has in tiles at a time
	blockGap  = 16            // words between blocks, lest they lie in the same sets of a cache
	rowGap    = 16            // floats between rows of turned operands and of sums

	// maxSide is the most rows, and columns, of a chunk; maxWords the most words of blocks and sums that it has in use: three quarters of a second-level cache of 2 MB.
	maxSide  = 512
	maxWords = 384 << 10
	// maxShared is the most elements of a B that is split for all chunks.
	maxShared = 640 << 10
	// maxParts is the most parts of K, and least the fewest indices along K in one.
	maxParts, least = 8, 256
	// sumBlock is how many elements of the result a chunk adds up from parts.
	sumBlock = 8 << 10
)

// Plan is a product with all decisions taken. One Run at a time.
type Plan struct {
	gemm.Spec
	level isa.Level
	choice
	work []*worker
	out  []float32 // sums of parts of K, [parts][Batch][M][N], rows and columns filled up to whole blocks

	add  vec.BinaryVVFunc
	relu vec.UnaryFunc

	a, b, c, bias []float32
	packed        []uint32
}

// choice is what a shape decides.
type choice struct {
	rows, cols int  // of a chunk, multiples of a pair of blocks
	kc         int  // indices along K that are split at a time, a multiple of a step
	parts      int  // of K
	share      bool // B is split once, for all chunks
	cost       float64
}

// worker is the memory of one thread, of what a Run is given.
type worker struct {
	a, b    []uint32  // blocks
	acc     []float32 // a chunk's sums, where C has no room for whole blocks: [rows][cols+rowGap]
	turn    []float32 // the edges of a transposed operand, the right way around
	tail    []float32 // the last indices along K, filled up with zeros
	scratch [BlockRows * BlockRows]float32
}

// The costs that choose weighs, in nanoseconds of a Xeon of the Sapphire Rapids kind.
const (
	pairCost  = 1.0 / 165 // a multiplication and an addition
	splitCost = 0.25      // an element split
	turnCost  = 0.1       // an element transposed
	readCost  = 0.15      // an element of a B that was split before, from the third-level cache
	sumCost   = 0.15      // an element of C visited
	chunkCost = 1000      // a chunk
	joinCost  = 1500      // the end of a piece of work that all threads share
	vecCost   = 1.0 / 72  // a multiplication and an addition by package gemm
)

// choose is the choice that costs least.
func choose(s gemm.Spec) (best choice) {
	a, b := splitCost, splitCost
	if s.TransA {
		a += turnCost
	}
	if s.TransB {
		b += turnCost
	}
	m, n, k := float64(s.M), float64(s.N), float64(s.K)
	for down := 1; down <= 64; down++ {
		r := roundUp(ceilDiv(s.M, down), Pair)
		if r > maxSide || ceilDiv(s.M, r) != down {
			continue
		}
		for across := 1; across <= 64; across++ {
			c := roundUp(ceilDiv(s.N, across), Pair)
			if c > maxSide || ceilDiv(s.N, c) != across {
				continue
			}
			for parts := 1; parts <= maxParts; parts++ {
				deep := roundUp(ceilDiv(s.K, parts), StepK)
				if parts > 1 && (deep < least || s.PackedB || ceilDiv(s.K, deep) != parts) {
					continue
				}
				for _, share := range []bool{false, true} {
					if share && (s.PackedB || s.Batch > 1 || down == 1 || parts > 1 || s.K*s.N > maxShared) {
						continue
					}
					kc, there := deep, r
					if !share && !s.PackedB {
						there += c
					}
					if most := max(maxWords-r*c, maxWords/2) / there * 2 / 3; kc > most {
						kc = roundUp(ceilDiv(deep, ceilDiv(deep, max(most, least))), StepK)
					}
					chunks := down * across * parts
					sum := float64(chunks)*(float64(r*c*deep)*pairCost+chunkCost) + m*k*float64(across)*a + m*n*sumCost*float64(parts*ceilDiv(deep, kc))
					switch {
					case s.PackedB:
						sum += k * n * float64(down) * readCost
					case !share:
						sum += k * n * float64(down) * b
					default:
						sum += k * n * float64(down) * readCost
					}
					sum *= idle(chunks * s.Batch)
					if share {
						sum += k*n*b + joinCost
					}
					if parts > 1 {
						sum += m*n*sumCost*float64(parts) + joinCost
					}
					if best.cost == 0 || sum < best.cost {
						best = choice{r, c, kc, parts, share, sum}
					}
				}
			}
		}
	}
	best.cost *= float64(s.Batch)
	return best
}

// idle is by what factor waiting for the last of n equal chunks lengthens the work: the mean for 2, 4 and 8 threads.
func idle(n int) float64 {
	sum := 0.0
	for _, threads := range []int{2, 4, 8} {
		sum += float64(roundUp(n, threads)) / float64(n)
	}
	return sum / 3
}

// New plans a product if that is expected to be faster than by package gemm: with AMX, and enough rows and columns to make up for splitting. Else it returns nil.
func New(s gemm.Spec) *Plan {
	if !isa.AMX() || s.M < Pair || s.N < BlockRows || s.K < StepK || s.LDA|s.LDB|s.LDC != 0 || s.Accumulate || s.Residual || s.PackedB && s.Batch > 1 {
		return nil
	}
	p := plan(s)
	if p.cost <= 0 || p.cost >= 0.9*vecCost*float64(p.Batch)*float64(s.M)*float64(s.N)*float64(s.K) {
		return nil
	}
	return p
}

func plan(s gemm.Spec) *Plan {
	s.Batch = max(s.Batch, 1)
	return build(s, choose(s))
}

func build(s gemm.Spec, c choice) *Plan {
	return &Plan{Spec: s, level: isa.Current(), choice: c, add: vec.Binary(vec.Add), relu: vec.Unary(vec.Relu)}
}

// Executed is the number of multiplications and additions of parts that run.
func (p *Plan) Executed() int64 {
	return 6 * 2 * int64(p.wideM()) * int64(p.wideN()) * int64(roundUp(p.K, StepK)) * int64(p.Batch)
}

// Parts is the number of parts of K, added up at the end. Plans of one shape with as many parts give the same bits, however B is split.
func (p *Plan) Parts() int { return p.parts }

// String says what was decided.
func (p *Plan) String() string {
	b := "by chunks"
	switch {
	case p.PackedB:
		b = "beforehand"
	case p.share:
		b = "once"
	}
	return fmt.Sprintf("f32 as three bf16 on AMX, %dx%dx%d batch %d: %d chunks of %dx%d, %d of K at a time, K in %d parts, B split %s", p.M, p.K, p.N, p.Batch, p.chunks(), p.rows, p.cols, p.kc, p.parts, b)
}

func (p *Plan) chunks() int { return p.Batch * ceilDiv(p.M, p.rows) * ceilDiv(p.N, p.cols) * p.parts }

// deep is the indices along K of a part.
func (p *Plan) deep() int { return roundUp(ceilDiv(p.K, p.parts), StepK) }

// wideM and wideN are M and N filled up to whole chunks' blocks.
func (p *Plan) wideM() int { return roundUp(p.M, Pair) }
func (p *Plan) wideN() int { return roundUp(p.N, Pair) }

// whole reports whether C has room for whole blocks.
func (p *Plan) whole() bool { return p.M%Pair == 0 && p.N%Pair == 0 }

// BlockWords is the words from one block to the next of an operand that is split for k indices along K.
func BlockWords(k int) int { return ceilDiv(k, StepK)*StepWords + blockGap }

// PackedLen is the number of words that PackB writes.
func (p *Plan) PackedLen() int { return p.wideN() / BlockRows * BlockWords(p.K) }

// PackB splits B (one matrix) for a plan with PackedB. dst must have PackedLen words, scratch at least Scratch(1).
func (p *Plan) PackB(dst []uint32, b []float32, scratch []uint32) {
	p.b, p.packed = b[:p.K*p.N], dst[:p.PackedLen()]
	w := new(worker)
	p.lay(w, scratch)
	for i := range p.pieces() {
		p.piece(w, i)
	}
	p.b, p.packed = nil, nil
}

// pieceSteps is how many steps of K a piece of B has that is split for all chunks, by p.cols columns.
const pieceSteps = 4

func (p *Plan) pieces() int { return ceilDiv(p.N, p.cols) * ceilDiv(p.K, pieceSteps*StepK) }

func (p *Plan) piece(w *worker, i int) {
	across := ceilDiv(p.N, p.cols)
	j, k := i%across*p.cols, i/across*pieceSteps*StepK
	p.splitB(w, p.packed[j/BlockRows*BlockWords(p.K)+k/StepK*StepWords:], BlockWords(p.K), p.b, j, min(p.cols, p.N-j), k, min(pieceSteps*StepK, p.K-k))
}

// lay gives w its memory, the beginning of m, and says how much that is. With neither it measures.
func (p *Plan) lay(w *worker, m []uint32) (n int) {
	if w == nil {
		w = new(worker)
	}
	take := func(words int) []uint32 {
		n += words
		if m == nil {
			return nil
		}
		return m[n-words : n]
	}
	w.a = take(p.rows / BlockRows * BlockWords(p.kc))
	if !p.PackedB && !p.share {
		w.b = take(p.cols / BlockRows * BlockWords(p.kc))
	}
	if p.parts == 1 && !p.whole() {
		w.acc = floats(take(p.rows * (p.cols + rowGap)))
	}
	if p.TransA || p.TransB {
		w.turn = floats(take(max(p.kc, pieceSteps*StepK) * BlockRows))
	}
	if p.K%StepK != 0 {
		w.tail = floats(take(StepK * max(BlockRows, p.cols)))
	}
	return n
}

// floats is the same memory as float32.
func floats(x []uint32) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

// Scratch is the length of the memory that a run with so many threads needs. Plans that run one after another can share it.
func (p *Plan) Scratch(threads int) int {
	n := p.sums() + p.lay(nil, nil)*threads
	if p.share {
		n += p.PackedLen()
	}
	return n
}

// sums is how many sums of parts of K there are.
func (p *Plan) sums() int {
	if p.parts == 1 {
		return 0
	}
	return p.parts * p.Batch * p.wideM() * p.wideN()
}

// Run computes the products, with scratch of at least Scratch words whose contents do not matter. bias is ignored unless the Spec asks for it. c must not overlap the inputs. After the first Run
// with a pool of that size nothing is allocated.
func (p *Plan) Run(pool *par.Pool, a, b, c, bias []float32, scratch []uint32) {
	p.run(pool, a, b[:(p.Batch-1)*p.StrideB+p.K*p.N], nil, c, bias, scratch)
}

// RunPacked is Run with what PackB made of B.
func (p *Plan) RunPacked(pool *par.Pool, a []float32, b []uint32, c, bias []float32, scratch []uint32) {
	p.run(pool, a, nil, b[:p.PackedLen()], c, bias, scratch)
}

func (p *Plan) run(pool *par.Pool, a, b []float32, packed []uint32, c, bias []float32, scratch []uint32) {
	if isa.Current() != p.level {
		panic("tgemm: Run: the plan was made for another instruction set")
	}
	if p.PackedB != (packed != nil) {
		panic("tgemm: a B that was split beforehand goes with PackedB alone")
	}
	p.a, p.b, p.packed, p.c, p.bias = a[:(p.Batch-1)*p.StrideA+p.M*p.K], b, packed, c[:(p.Batch-1)*p.StrideC+p.M*p.N], nil
	if p.Bias {
		p.bias = bias[:p.N]
	}
	p.out, scratch = floats(scratch[:p.sums()]), scratch[p.sums():]
	if p.share {
		p.packed, scratch = scratch[:p.PackedLen()], scratch[p.PackedLen():]
	}
	for i := range pool.Threads() {
		if i == len(p.work) {
			p.work = append(p.work, new(worker))
		}
		scratch = scratch[p.lay(p.work[i], scratch):]
	}
	if p.share {
		pool.Run(p.pieces(), (*sharing)(p))
	}
	pool.Run(p.chunks(), (*chunk)(p))
	if p.parts > 1 {
		pool.Run(ceilDiv(p.Batch*p.M, p.sumRows()), (*summing)(p))
	}
	p.a, p.b, p.packed, p.c, p.bias, p.out = nil, nil, nil, nil, nil, nil
}

type (
	sharing Plan // a piece of B that is split for all chunks
	chunk   Plan // p.rows rows and p.cols columns of C, or of a part of its sums
	summing Plan // some rows of C from the parts
)

func (q *sharing) Chunk(i, id int) { (*Plan)(q).piece(q.work[id], i) }

func (q *chunk) Chunk(i, id int) {
	p, w := (*Plan)(q), q.work[id]
	across := ceilDiv(p.N, p.cols)
	i, j := i/across, i%across*p.cols
	i, part := i/p.parts, i%p.parts
	down := ceilDiv(p.M, p.rows)
	z, r := i/down, i%down*p.rows
	rows, cols := min(p.rows, p.M-r), min(p.cols, p.N-j)

	to, ld := p.c[z*p.StrideC:], p.N
	var bias []float32
	switch {
	case p.parts > 1:
		to, ld = p.out[((part*p.Batch+z)*p.wideM()+r)*p.wideN()+j:], p.wideN()
	case p.whole():
		to, bias = to[r*p.N+j:], p.bias
	default:
		to, ld = w.acc, p.cols+rowGap
	}
	k0, k1 := part*p.deep(), min((part+1)*p.deep(), p.K)
	for k := k0; k < k1; k += p.kc {
		n := min(p.kc, k1-k)
		p.splitA(w, p.a[z*p.StrideA:], r, rows, k, n)
		b, bBlock := w.b, BlockWords(p.kc)
		if p.packed != nil {
			b, bBlock = p.packed[j/BlockRows*BlockWords(p.K)+k/StepK*StepWords:], BlockWords(p.K)
		} else {
			p.splitB(w, w.b, bBlock, p.b[z*p.StrideB:], j, cols, k, n)
		}
		for x := 0; x < cols; x += Pair {
			in, ldi := to[x:], ld
			if k == k0 {
				if in, ldi = nil, 0; bias != nil {
					in = bias[j+x:]
				}
			}
			Multiply(to[x:], ld, in, ldi, w.a, BlockWords(p.kc), b[x/BlockRows*bBlock:], bBlock, ceilDiv(n, StepK), ceilDiv(rows, Pair))
		}
	}
	if p.parts > 1 {
		return
	}
	for x := range rows {
		row := p.c[z*p.StrideC+(r+x)*p.N+j:][:cols]
		if !p.whole() {
			p.finish(row, to[x*ld:][:cols], j)
		} else if p.Act == gemm.ReLU {
			p.relu(row, row)
		}
	}
}

// finish sets columns of a row of C from j on to a sum, plus bias, rectified or not.
func (p *Plan) finish(row, sum []float32, j int) {
	if p.bias != nil {
		p.add(row, sum, p.bias[j:][:len(row)])
	} else {
		copy(row, sum)
	}
	if p.Act == gemm.ReLU {
		p.relu(row, row)
	}
}

func (p *Plan) sumRows() int { return max(1, sumBlock/p.N) }

func (q *summing) Chunk(i, _ int) {
	p := (*Plan)(q)
	each := p.Batch * p.wideM() * p.wideN()
	for x := i * p.sumRows(); x < min((i+1)*p.sumRows(), p.Batch*p.M); x++ {
		z, r := x/p.M, x%p.M
		row, from := p.c[z*p.StrideC+r*p.N:][:p.N], (z*p.wideM()+r)*p.wideN()
		for part := 1; part < p.parts; part++ {
			sum := p.out[from:][:p.N]
			if part > 1 {
				sum = row
			}
			p.add(row, sum, p.out[part*each+from:][:p.N])
		}
		if p.bias != nil || p.Act != gemm.None {
			p.finish(row, row, 0)
		}
	}
}

// splitA splits rows [r, r+rows) of A and n indices along K from k on.
func (p *Plan) splitA(w *worker, a []float32, r, rows, k, n int) {
	whole := n / StepK
	for x := 0; x < rows; x += BlockRows {
		here, dst := min(BlockRows, rows-x), w.a[x/BlockRows*BlockWords(p.kc):]
		src, ld, done := []float32(nil), p.K, 0
		switch {
		case !p.TransA:
			src = a[(r+x)*p.K+k:]
		case here == BlockRows && whole > 0:
			SplitAcross(&w.scratch, dst, a[k*p.M+r+x:], p.M, 16*p.M, StepK*p.M, whole)
			done = whole
		}
		if rest := n - done*StepK; p.TransA && rest > 0 {
			src, ld = w.turn, rest
			gemm.Transpose(src, a[(k+done*StepK)*p.M+r+x:], ld, p.M, rest, here)
		}
		if done < whole {
			SplitRows(dst, src, ld, here, whole)
		}
		if rest := n % StepK; rest > 0 {
			if done == 0 {
				src = src[whole*StepK:]
			}
			for y := range here {
				to := w.tail[y*StepK:][:StepK]
				copy(to, src[y*ld:][:rest])
				clear(to[rest:])
			}
			SplitRows(dst[whole*StepWords:], w.tail, StepK, here, 1)
		}
	}
}

// splitB splits columns [j, j+cols) of B and n indices along K from k on into dst.
func (p *Plan) splitB(w *worker, dst []uint32, block int, b []float32, j, cols, k, n int) {
	if !p.TransB {
		p.columns(w, dst, block, b[k*p.N+j:], p.N, cols, n)
		return
	}
	for x := 0; x < cols; x += BlockRows {
		here, done, src, to := min(BlockRows, cols-x), 0, b[(j+x)*p.K+k:], dst[x/BlockRows*block:]
		if here == BlockRows && n >= StepK {
			done = n / StepK
			SplitAcross(&w.scratch, to, src, p.K, BlockRows, StepK, done)
		}
		if rest := n - done*StepK; rest > 0 {
			gemm.Transpose(w.turn, src[done*StepK:], here, p.K, here, rest)
			p.columns(w, to[done*StepWords:], block, w.turn, here, here, rest)
		}
	}
}

// columns splits cols columns of n rows, ld apart.
func (p *Plan) columns(w *worker, dst []uint32, block int, src []float32, ld, cols, n int) {
	whole := n / StepK
	if whole > 0 {
		SplitColumns(dst, src, ld, block, whole, cols)
	}
	if rest := n % StepK; rest > 0 {
		for y := range rest {
			copy(w.tail[y*cols:][:cols], src[(whole*StepK+y)*ld:])
		}
		clear(w.tail[rest*cols:][:(StepK-rest)*cols])
		SplitColumns(dst[whole*StepWords:], w.tail, cols, block, 1, cols)
	}
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

func roundUp(a, b int) int { return ceilDiv(a, b) * b }
