package gemm

import "github.com/jouleml/joule/internal/isa"

// dots computes y[r] = Σ x[i]·b[r·ldb+i] for every r in [0, len(y)); neither y nor x is empty.
func dots(l isa.Level, y, x, b []float32, ldb int) {
	b = b[:(len(y)-1)*ldb+len(x)]
	if l != isa.Portable {
		dotsVec(&y[0], &x[0], &b[0], 4*ldb, len(y), len(x))
		return
	}
	for r := range y {
		var sum float32
		for i, v := range b[r*ldb:][:len(x)] {
			sum += x[i] * v
		}
		y[r] = sum
	}
}

// gridBlock is about how many floats of b grid goes through for one group of rows of x after the other, so that the next group finds them in the L1 cache.
const gridBlock = 4 << 10

// grid computes y[i·ldy+r] = Σ x[i·ldx+j]·b[r·ldb+j] over j in [0, k) for every i in [0, m) and r in [0, n); m, n and k > 0. The order of the additions depends on neither m nor n.
func grid(l isa.Level, y, x, b []float32, ldy, ldx, ldb, m, n, k int) {
	y, x, b = y[:(m-1)*ldy+n], x[:(m-1)*ldx+k], b[:(n-1)*ldb+k]
	if l == isa.Portable {
		for i := range m {
			dots(l, y[i*ldy:][:n], x[i*ldx:][:k], b, ldb)
		}
		return
	}
	groups, block := ceilDiv(m, gridRows(l)), max(4, gridBlock/k&^3)
	for r := 0; r < n; r += block {
		for g := range groups {
			i := g * m / groups
			gridVec(l, (g+1)*m/groups-i, &y[i*ldy+r], &x[i*ldx], &b[r*ldb], 4*ldy, 4*ldx, 4*ldb, min(block, n-r), k)
		}
	}
}

// axpys computes y[j] += Σ x[i·xStride]·b[i·ldb+j] over i in [0, k) for every j in [0, len(y)); neither k nor y is empty.
func axpys(l isa.Level, y, x, b []float32, xStride, ldb, k int) {
	x, b = x[:(k-1)*xStride+1], b[:(k-1)*ldb+len(y)]
	if l != isa.Portable {
		axpysVec(&y[0], &x[0], &b[0], 4*xStride, 4*ldb, k, len(y))
		return
	}
	for i := range k {
		a := x[i*xStride]
		for j, v := range b[i*ldb:][:len(y)] {
			y[j] += a * v
		}
	}
}

// streamBody is a block of C, or of a partial sum of it, where A has few rows: rows of B are added up as they come.
type streamBody Plan

func (q *streamBody) Chunk(i, worker int) {
	p := (*Plan)(q)
	across := (p.N + p.cols - 1) / p.cols
	i, j := i/across, i%across*p.cols
	z, split := i/p.splits, i%p.splits
	cols := min(p.cols, p.N-j)

	a, b := p.a[z*p.StrideA:], p.b[z*p.StrideB+j:]
	c, ldc := p.c[z*p.StrideC+j:], p.LDC
	bias, in, act := at(p.bias, j), at(p.residual, z*p.StrideC+j), p.Act
	if p.splits > 1 {
		c, ldc = p.shared[(split*p.Batch+z)*p.M*p.N+j:], p.N
		bias, in, act = nil, nil, None
	}
	for m := range p.M {
		row := c[m*ldc:][:cols]
		if in == nil {
			clear(row)
		} else {
			copy(row, in[m*ldc:]) // may be the same place
		}
		if bias != nil {
			for x, v := range bias[:cols] {
				row[x] += v
			}
		}
	}
	// A few K indices at a time, so that a second row of A finds these rows of B in the cache.
	k1 := (split + 1) * p.K / p.splits
	for k := split * p.K / p.splits; k < k1; k += p.kc {
		for m := range p.M {
			x, step := a[m*p.LDA+k:], 1
			if p.TransA {
				x, step = a[k*p.LDA+m:], p.LDA
			}
			axpys(p.level, c[m*ldc:][:cols], x, b[k*p.LDB:], step, p.LDB, min(p.kc, k1-k))
		}
	}
	if act == None {
		return
	}
	for m := range p.M {
		row := c[m*ldc:][:cols]
		for x, v := range row {
			row[x] = act.apply(v)
		}
	}
}

// dotBody is some columns of C where op(A) has few rows and B is stored by columns: a product is a dot product of two rows.
type dotBody Plan

func (q *dotBody) Chunk(i, worker int) {
	p := (*Plan)(q)
	z, j := i/p.grid(), i%p.grid()*p.cols
	n := min(p.cols, p.N-j)
	a, b := p.a[z*p.StrideA:], p.b[z*p.StrideB+j*p.LDB:]
	all := p.work[worker].c[:n*p.M]
	if p.M == 1 {
		dots(p.level, all, a[:p.K], b, p.LDB)
	} else {
		grid(p.level, all, a, b, n, p.LDA, p.LDB, p.M, n, p.K)
	}
	for m := range p.M {
		off := z*p.StrideC + m*p.LDC + j
		y, c := all[m*n:][:n], p.c[off:][:n]
		if p.bias != nil {
			for x, v := range p.bias[j:][:n] {
				y[x] += v
			}
		}
		if p.residual != nil {
			for x, v := range p.residual[off:][:n] {
				y[x] += v
			}
		}
		for x, v := range y {
			c[x] = p.Act.apply(v)
		}
	}
}

// tallBody is some columns of C where A has few rows and B is packed for it: a vector of columns at a time, all rows of each.
type tallBody Plan

func (q *tallBody) Chunk(i, worker int) {
	p := (*Plan)(q)
	w := p.work[worker]
	if it := (part{run: p.runs}); w.has != it {
		Transpose(w.c, p.a, tallRows, p.LDA, p.M, p.K)
		w.has = it
	}
	j := i * p.cols
	for end := min(j+p.cols, p.N); j < end; j += tallLanes {
		cols := min(tallLanes, p.N-j)
		var in, bias *float32
		if p.residual != nil {
			in = &p.residual[j]
		}
		if p.bias != nil {
			bias = &p.bias[j]
		}
		tallVec(&p.c[j], in, bias, &w.c[0], &p.b[j*p.K : (j+tallLanes)*p.K][0], p.LDC, p.M, p.K, cols, p.Act)
	}
}
