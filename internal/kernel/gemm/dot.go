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
