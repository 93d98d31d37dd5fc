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
	grid := p.grid()
	z, j := i/grid, i%grid*p.cols
	n := min(p.cols, p.N-j)
	a, b := p.a[z*p.StrideA:], p.b[z*p.StrideB+j*p.LDB:]
	y := p.work[worker].c[:n]
	for m := range p.M {
		off := z*p.StrideC + m*p.LDC + j
		c := p.c[off:][:n]
		dots(p.level, y, a[m*p.LDA:][:p.K], b, p.LDB)
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
