package gemm

// The bodies that Plan.Run hands to the pool: the same Plan seen as different pieces of work.
type (
	emptyBody Plan // K = 0: a row of C
	blockBody Plan // a block of C, or of a partial sum of it
	sumBody   Plan // sumRows rows of C from partial sums
	packBody  Plan // a part of packed op(A)ᵀ
	swapBody  Plan // some columns of C, computed as rows of Cᵀ
	turnBody  Plan // a part of op(A) as rows
)

// at is the part of s from i on, nil if s is nil.
func at(s []float32, i int) []float32 {
	if s == nil {
		return nil
	}
	return s[i:]
}

func (q *emptyBody) Chunk(i, worker int) {
	p := (*Plan)(q)
	off := i/p.M*p.StrideC + i%p.M*p.LDC
	row := p.c[off:][:p.N]
	for j := range row {
		var x float32
		if p.bias != nil {
			x = p.bias[j]
		}
		if p.residual != nil {
			x += p.residual[off+j]
		}
		row[j] = p.Act.apply(x)
	}
}

// part names columns of B.
type part struct {
	run  int // of the plan, from 1
	z, j int // matrix and first column
}

// place is the part of the work that chunk i is: the matrix, the part of K, the first row and the first column of C.
func (p *Plan) place(i int) (z, split, r, j int) {
	across, down := ceilDiv(p.N, p.cols), ceilDiv(p.M, p.rows)
	if p.downFirst {
		i, r = i/down, i%down*p.rows
		i, split = i/p.splits, i%p.splits
		return i / across, split, r, i % across * p.cols
	}
	i, j = i/across, i%across*p.cols
	i, split = i/p.splits, i%p.splits
	return i / down, split, i % down * p.rows, j
}

func (q *blockBody) Chunk(i, worker int) {
	p := (*Plan)(q)
	w := p.work[worker]
	z, split, r0, j := p.place(i)
	rows, cols := min(p.rows, p.M-r0), min(p.cols, p.N-j)

	a, b := p.a[z*p.StrideA:], p.b[z*p.StrideB:]
	c, ldc := p.c[z*p.StrideC:], p.LDC
	bias, in, act := p.bias, at(p.residual, z*p.StrideC), p.Act
	if p.splits > 1 {
		c, ldc = p.shared[(split*p.Batch+z)*p.M*p.N:], p.N
		bias, in, act = nil, nil, None
	}
	t := &w.tile
	t.Columns = p.TransA && !p.turnA
	// In how many parts the rows are computed: all of them for one panel after the other, or tile by tile. Panels are packed for a block of K, or kept whole.
	parts, depth := 1, p.kc
	if p.byRows {
		parts, depth = ceilDiv(rows, tileRows(p.level, p.panels.width)), p.K
		if it := (part{p.runs, z % p.bMatrices(), j}); p.packB && w.has != it {
			p.panels.packRange(p.level, w.b, depth, b, p.LDB, p.TransB, 0, p.K, j, cols)
			w.has = it
		}
	}
	k0, k1 := split*p.K/p.splits, (split+1)*p.K/p.splits
	for k := k0; k < k1; k += p.kc {
		kn := min(p.kc, k1-k)
		w.seg[0] = Seg{0, kn}
		from := k // of k in the packed panels
		if p.packB && !p.byRows {
			p.panels.packRange(p.level, w.b, depth, b, p.LDB, p.TransB, k, kn, j, cols)
			from = 0
		}
		t.Act = None
		if k+kn == k1 {
			t.Act = act
		}
		for i := range parts {
			r := r0 + i*rows/parts
			n := r0 + (i+1)*rows/parts - r
			t.AOff, t.COff = p.aOff[:n], p.cOff[:n]
			switch {
			case p.turnA:
				t.A, t.AStride = p.turned[(z%p.aMatrices()*p.M+r)*p.ldTurned+k:], 1
			case p.TransA:
				t.A, t.AStride = a[k*p.LDA+r:], p.LDA
			default:
				t.A, t.AStride = a[r*p.LDA+k:], 1
			}
			full := cols / p.panels.width * p.panels.width
			for jj := j; jj < j+cols; jj += t.Cols {
				// All panels of full width at once, then what is left.
				panel, ldb, _, width := p.panels.Panel(jj / p.panels.width)
				t.Cols = max(width, j+full-jj)
				switch {
				case p.PackedB:
					t.B, t.LDB, t.Panel = b[panel+k*ldb:], ldb, p.panels.width*p.K
				case p.packB:
					t.B, t.LDB, t.Panel = w.b[(jj-j)*depth+from*ldb:], ldb, p.panels.width*depth
				default:
					t.B, t.LDB, t.Panel = b[k*p.LDB+jj:], p.LDB, p.panels.width
				}
				off := r*ldc + jj
				t.C = c[off:]
				if k == k0 {
					t.In, t.Bias = at(in, off), at(bias, jj)
				} else {
					t.In, t.Bias = t.C, nil
				}
				t.Run()
			}
		}
	}
}

// sumRows is the number of rows of C in a chunk of sumBody.
const sumRows = 16

// ones is the row of A that makes the tile kernel a sum of rows of B; choose keeps splits at most its length.
var ones = [maxSplits]float32{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}

func (q *sumBody) Chunk(i, worker int) {
	p := (*Plan)(q)
	w := p.work[worker]
	t := &w.tile
	t.A, t.AOff, t.AStride, t.Columns = ones[:], p.cOffSum, 1, false
	t.COff = p.cOffSum
	t.LDB = p.Batch * p.M * p.N
	t.Act = p.Act
	w.seg[0] = Seg{0, p.splits}
	for row := i * sumRows; row < min((i+1)*sumRows, p.Batch*p.M); row++ {
		off := row/p.M*p.StrideC + row%p.M*p.LDC
		for j := 0; j < p.N; j += p.panels.width {
			t.Cols = min(p.panels.width, p.N-j)
			t.B = p.shared[row*p.N+j:]
			t.C = p.c[off+j:]
			t.In, t.Bias = at(p.residual, off+j), at(p.bias, j)
			t.Run()
		}
	}
}

// packBlock is about how many elements a chunk of packBody copies.
const packBlock = 4 << 10

// packDepth is the number of K indices in a chunk of packBody.
func (p *Plan) packDepth() int { return max(8, packBlock/p.M&^7) }

func (p *Plan) packChunks() int {
	d := p.packDepth()
	return p.aMatrices() * ((p.K + d - 1) / d)
}

func (q *packBody) Chunk(i, worker int) {
	p := (*Plan)(q)
	d := p.packDepth()
	per := (p.K + d - 1) / d
	z, k := i/per, i%per*d
	kn := min(d, p.K-k)
	dst := p.shared[z*p.panels.Len():]
	for n := range p.panels.Count() {
		off, ldb, j, cols := p.panels.Panel(n)
		p.panels.packRange(p.level, dst[off+k*ldb:], kn, p.a[z*p.StrideA:], p.LDA, true, k, kn, j, cols)
	}
}

// A chunk of turnBody is a block of A of up to turnK rows of turnM columns.
const turnK, turnM = 64, 128

func (p *Plan) turnChunks() int { return ceilDiv(p.K, turnK) * ceilDiv(p.M, turnM) }

func (q *turnBody) Chunk(i, worker int) {
	p := (*Plan)(q)
	z, i := i/p.turnChunks(), i%p.turnChunks()
	across := ceilDiv(p.M, turnM)
	k, m := i/across*turnK, i%across*turnM
	transpose(p.level, p.turned[(z*p.M+m)*p.ldTurned+k:], p.a[z*p.StrideA+k*p.LDA+m:], p.ldTurned, p.LDA, min(turnK, p.K-k), min(turnM, p.M-m))
}

// Chunk computes p.cols columns of C as rows of Cᵀ = op(B)ᵀ·op(A)ᵀ in the worker's memory, then turns them over.
func (q *swapBody) Chunk(i, worker int) {
	p := (*Plan)(q)
	w := p.work[worker]
	z, j := i/p.grid(), i%p.grid()*p.cols
	n := min(p.cols, p.N-j)
	b := p.b[z*p.StrideB+j*p.LDB:]
	c := p.c[z*p.StrideC:]
	scratch := w.c[:n*p.M]
	start := false // scratch holds what the product is added to
	if p.residual != nil {
		transpose(p.level, scratch, p.residual[z*p.StrideC+j:], p.M, p.LDC, p.M, n)
		start = true
	}
	if p.bias != nil {
		for x, v := range p.bias[j:][:n] {
			row := scratch[x*p.M:][:p.M]
			for m := range row {
				if start {
					row[m] += v
				} else {
					row[m] = v
				}
			}
		}
		start = true
	}
	t := &w.tile
	t.AOff, t.COff, t.AStride = p.aOff[:n], p.cOff[:n], 1
	t.Bias = nil
	for k := 0; k < p.K; k += p.kc {
		kn := min(p.kc, p.K-k)
		w.seg[0] = Seg{0, kn}
		t.A = b[k:]
		t.Act = None
		if k+kn == p.K {
			t.Act = p.Act
		}
		for x := range p.panels.Count() {
			off, ldb, m, cols := p.panels.Panel(x)
			t.Cols = cols
			if p.TransA {
				t.B, t.LDB = p.a[z*p.StrideA+k*p.LDA+m:], p.LDA
			} else {
				t.B, t.LDB = p.shared[z%p.aMatrices()*p.panels.Len()+off+k*ldb:], ldb
			}
			t.C, t.In = scratch[m:], nil
			if start || k > 0 {
				t.In = t.C
			}
			t.Run()
		}
	}
	transpose(p.level, c[j:], scratch, p.LDC, p.M, n, p.M)
}
