package gemm

import (
	"fmt"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// Spec says what a Plan computes: for each matrix z of the batch
//
//	C[z] = act(op(A[z])·op(B[z]) + Bias + (C[z] or Residual[z] or 0))
//
// where op(A) is [M, K], op(B) is [K, N] and C is [M, N], all row-major.
type Spec struct {
	M, N, K int

	TransA bool // A is stored as [K, M]
	TransB bool // B is stored as [N, K]

	// Elements from one stored row to the next; 0 means that rows follow each other without a gap.
	LDA, LDB, LDC int

	// Batch is the number of products, 0 meaning 1. Matrix z starts at z·Stride. StrideA and StrideB may be 0: one matrix for
	// all. StrideC must keep the results apart.
	Batch                     int
	StrideA, StrideB, StrideC int

	Accumulate bool // add to what C holds; not together with Residual
	Bias       bool // add bias[j] to column j
	Residual   bool // add residual, laid out as C
	Act        Act

	// PackedB: b is what PackB made of B beforehand (a constant weight), one matrix for the whole batch.
	PackedB bool
}

// Plan is a Spec with all decisions taken and the tables and scratch memory that it needs. One Run at a time.
type Plan struct {
	Spec
	level isa.Level
	choice

	panels     Panels // of B; of op(A)ᵀ if swap
	aOff, cOff []int  // row tables: of A and C, or of op(B)ᵀ and the scratch tile if swap
	cOffSum    []int  // {0}
	work       []*worker

	shared []float32 // packed op(A)ᵀ (swap), partial sums (splits > 1)
	turned []float32 // op(A) as rows of ldTurned elements (turnA)

	ldTurned int

	alone bool // run on the caller's thread
	runs  int  // so far

	// Arguments of the Run in progress.
	a, b, c, bias, residual []float32
}

// worker is the scratch memory of one thread.
type worker struct {
	tile Tile
	seg  [1]Seg
	b    []float32 // packed columns of B, borrowed for a Run
	has  part      // which these are
	c    []float32 // a block of Cᵀ (swap), a part of a row of C (dot), Aᵀ filled up to 16 rows (tall)
}

// New checks s and makes a plan for the current instruction set. It panics if s contradicts itself: shapes have been inferred
// and verified before a kernel is chosen.
func New(s Spec) *Plan {
	s = s.complete()
	level := isa.Current()
	p := build(level, s, choose(level, s))
	p.alone = s.tiny()
	return p
}

// complete fills in the defaults and panics if s contradicts itself.
func (s Spec) complete() Spec {
	if s.Batch == 0 {
		s.Batch = 1
	}
	def := func(ld *int, row int) {
		if *ld == 0 {
			*ld = row
		}
	}
	rowA, rowB := s.K, s.N
	if s.TransA {
		rowA = s.M
	}
	if s.TransB {
		rowB = s.K
	}
	def(&s.LDA, rowA)
	def(&s.LDB, rowB)
	def(&s.LDC, s.N)
	switch {
	case s.M < 0 || s.N < 0 || s.K < 0 || s.Batch < 0 || s.StrideA < 0 || s.StrideB < 0 || s.StrideC < 0:
		panic("gemm: negative size or stride")
	case s.LDA < rowA || s.LDB < rowB || s.LDC < s.N:
		panic("gemm: rows overlap")
	case s.Accumulate && s.Residual:
		panic("gemm: both Accumulate and Residual")
	case s.Batch > 1 && s.StrideC < extent(s.M, s.N, s.LDC):
		panic("gemm: results of a batch overlap")
	case s.PackedB && s.StrideB != 0:
		panic("gemm: PackedB holds one matrix")
	}
	return s
}

// build makes the tables of a checked and completed Spec.
func build(level isa.Level, s Spec, ch choice) *Plan {
	p := &Plan{Spec: s, level: level, choice: ch}
	p.cOffSum = []int{0}
	if p.dot {
		return p
	}
	if p.tall {
		p.panels = Panels{K: s.K, N: s.N, width: tallLanes, last: tallLanes}
		return p
	}
	if p.swap {
		p.panels = NewPanels(s.K, s.M)
		p.aOff, p.cOff = make([]int, p.cols), make([]int, p.cols)
		for i := range p.aOff {
			p.aOff[i], p.cOff[i] = i*s.LDB, i*s.M
		}
		if !s.TransA {
			p.shared = make([]float32, p.panels.Len()*p.aMatrices())
		}
		return p
	}
	if p.splits > 1 {
		p.shared = make([]float32, p.splits*s.Batch*s.M*s.N)
	}
	p.panels = NewPanels(s.K, s.N)
	if p.stream {
		return p
	}
	if p.turnA {
		p.ldTurned = roundUp(s.K, 16) + 16 // rows a power of two apart would share a set of the cache
		p.turned = make([]float32, s.M*p.ldTurned*p.aMatrices())
	}
	p.aOff, p.cOff = make([]int, p.rows), make([]int, p.rows)
	for i := range p.aOff {
		p.aOff[i], p.cOff[i] = i*s.LDA, i*s.LDC
		switch {
		case p.turnA:
			p.aOff[i] = i * p.ldTurned
		case s.TransA:
			p.aOff[i] = i
		}
		if p.splits > 1 {
			p.cOff[i] = i * s.N
		}
	}
	return p
}

// extent is the number of elements from the first to the last of a matrix.
func extent(rows, cols, ld int) int {
	if rows == 0 || cols == 0 {
		return 0
	}
	return (rows-1)*ld + cols
}

// aMatrices is the number of different A matrices.
func (p *Plan) aMatrices() int {
	if p.StrideA == 0 {
		return 1
	}
	return p.Batch
}

// bMatrices is the number of different B matrices.
func (p *Plan) bMatrices() int {
	if p.StrideB == 0 {
		return 1
	}
	return p.Batch
}

// FLOPs is the number of multiplications and additions that the products ask for, 2·M·N·K a matrix.
func (p *Plan) FLOPs() int64 { return 2 * int64(p.M) * int64(p.N) * int64(p.K) * int64(p.Batch) }

// PackB copies B (one matrix) into the layout that a plan with PackedB reads. dst must have PackedLen elements.
func (p *Plan) PackB(dst, b []float32) {
	p.panels.Pack(dst, b, p.LDB, p.TransB)
}

// Layout names the layout of PackB: plans of one matrix with the same have the same packed B.
func (p *Plan) Layout() string {
	return fmt.Sprintf("panels %dx%d by %d %v %v", p.K, p.N, p.panels.width, p.TransB, p.level)
}

// PackedLen is the number of floats that PackB writes.
func (p *Plan) PackedLen() int { return p.panels.Len() }

// Run computes the products. bias and residual are ignored unless the Spec asks for them. c must not overlap the inputs
// (residual may be c itself). After the first Run with a pool of that size nothing is allocated.
func (p *Plan) Run(pool *par.Pool, a, b, c, bias, residual []float32) {
	if p.Batch == 0 || p.M == 0 || p.N == 0 {
		return
	}
	p.check(a, b, c, bias, residual)
	c = c[:p.lenC()]
	p.runs++
	if p.alone {
		pool = nil
	}
	p.a, p.b, p.c, p.bias, p.residual = a, b, c, nil, nil
	if p.Bias {
		p.bias = bias[:p.N]
	}
	switch {
	case p.Accumulate:
		p.residual = c
	case p.Residual:
		p.residual = residual[:len(c)]
	}
	for len(p.work) < pool.Threads() {
		p.work = append(p.work, p.newWorker())
	}
	if n := p.panelFloats(); n > 0 {
		borrow(p.work[:pool.Threads()], n)
		defer giveBack(p.work[:pool.Threads()])
	}
	switch {
	case p.K == 0:
		pool.Run(p.Batch*p.M, (*emptyBody)(p))
	case p.tall:
		pool.Run(p.grid(), (*tallBody)(p))
	case p.dot:
		pool.Run(p.Batch*p.grid(), (*dotBody)(p))
	case p.swap:
		if !p.TransA {
			pool.Run(p.packChunks(), (*packBody)(p))
		}
		pool.Run(p.Batch*p.grid(), (*swapBody)(p))
	default:
		if p.stream {
			pool.Run(p.Batch*p.grid(), (*streamBody)(p))
		} else {
			if p.turnA {
				pool.Run(p.aMatrices()*p.turnChunks(), (*turnBody)(p))
			}
			pool.Run(p.Batch*p.grid(), (*blockBody)(p))
		}
		if p.splits > 1 {
			pool.Run((p.Batch*p.M+sumRows-1)/sumRows, (*sumBody)(p))
		}
	}
	p.a, p.b, p.c, p.bias, p.residual = nil, nil, nil, nil, nil
}

// panelFloats is how much packed B each worker holds.
func (p *Plan) panelFloats() int {
	switch {
	case !p.packB || p.K == 0:
		return 0
	case p.byRows:
		return p.K * roundUp(p.cols, lanes(p.level))
	}
	return p.kc * roundUp(p.cols, lanes(p.level))
}

// tiny reports whether the work is done before another thread could be of help, which takes about a microsecond.
func (s Spec) tiny() bool {
	const work, floats = 80 << 10, 16 << 10
	return s.Batch*s.M*roundUp(s.N, 16)*s.K <= work && s.Batch*(s.M*s.N+s.M*s.K+s.K*s.N) <= floats
}

func (p *Plan) lenC() int { return (p.Batch-1)*p.StrideC + extent(p.M, p.N, p.LDC) }

func (p *Plan) newWorker() *worker {
	w := &worker{}
	w.tile.Segs = w.seg[:]
	if p.K > 0 && (p.dot || p.swap) {
		w.c = make([]float32, p.cols*p.M)
	}
	if p.tall {
		w.c = make([]float32, p.K*tallRows)
	}
	return w
}

func (p *Plan) check(a, b, c, bias, residual []float32) {
	ar, ac, br, bc := p.M, p.K, p.K, p.N
	if p.TransA {
		ar, ac = ac, ar
	}
	if p.TransB {
		br, bc = bc, br
	}
	z := p.Batch - 1
	lenB := z*p.StrideB + extent(br, bc, p.LDB)
	if p.PackedB {
		lenB = p.panels.Len()
	}
	switch {
	case isa.Current() != p.level:
		panic("gemm: Run: the plan was made for another instruction set")
	case len(a) < z*p.StrideA+extent(ar, ac, p.LDA):
		panic("gemm: Run: a too short")
	case len(b) < lenB:
		panic("gemm: Run: b too short")
	case len(c) < p.lenC():
		panic("gemm: Run: c too short")
	case p.Bias && len(bias) < p.N:
		panic("gemm: Run: bias too short")
	case p.Residual && len(residual) < p.lenC():
		panic("gemm: Run: residual too short")
	}
}

// grid is the number of chunks of one matrix.
func (p *Plan) grid() int {
	if p.dot || p.swap || p.tall {
		return (p.N + p.cols - 1) / p.cols
	}
	return (p.M + p.rows - 1) / p.rows * ((p.N + p.cols - 1) / p.cols) * p.splits
}

// String says what was decided.
func (p *Plan) String() string {
	s := fmt.Sprintf("gemm %v %dx%dx%d", p.level, p.M, p.K, p.N)
	if p.Batch != 1 {
		s += fmt.Sprintf(" batch %d", p.Batch)
	}
	if p.dot {
		return s + fmt.Sprintf(": dot products, %d chunks of %d columns", p.Batch*p.grid(), p.cols)
	}
	if p.swap {
		return s + fmt.Sprintf(": transposed, %d chunks of %d columns, %d of K at a time", p.Batch*p.grid(), p.cols, p.kc)
	}
	if p.tall {
		return s + fmt.Sprintf(": all rows by vectors of columns, %d chunks of %d columns, B packed beforehand", p.grid(), p.cols)
	}
	if p.stream {
		return s + fmt.Sprintf(": rows of B added up, %d chunks of %d columns, K in %d parts", p.Batch*p.grid(), p.cols, p.splits)
	}
	b := "in place"
	switch {
	case p.PackedB:
		b = "packed beforehand"
	case p.packB:
		b = "packed"
	}
	if p.byRows {
		b += ", by rows"
	}
	if p.turnA {
		b += ", A transposed"
	}
	return s + fmt.Sprintf(": %d chunks of %dx%d, %d of K at a time, K in %d parts, B %s",
		p.Batch*p.grid(), p.rows, p.cols, p.kc, p.splits, b)
}
