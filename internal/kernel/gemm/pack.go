package gemm

import "github.com/jouleml/joule/internal/isa"

// Panels is the layout of a [K, N] matrix B that has been copied for the tile kernel at one instruction set: columns are cut
// into panels of NR() (the last may be narrower); a panel is stored as its K rows, one behind the other, each filled up with
// zeros to a whole number of vectors. A panel is then read strictly forwards.
type Panels struct {
	K, N  int
	width int // columns of all panels but the last
	last  int // columns of the last panel, rounded up to vectors
}

// NewPanels is the layout for a [k, n] matrix at the current instruction set.
func NewPanels(k, n int) Panels {
	if k < 0 || n < 0 {
		panic("gemm: NewPanels: negative size")
	}
	p := Panels{K: k, N: n, width: NR()}
	if n > 0 {
		w := Lanes()
		p.last = (n - (p.Count()-1)*p.width + w - 1) / w * w
	}
	return p
}

// Count is the number of panels.
func (p Panels) Count() int { return (p.N + p.width - 1) / p.width }

// Len is the number of floats that the packed matrix needs.
func (p Panels) Len() int {
	if p.N == 0 {
		return 0
	}
	return p.K * ((p.Count()-1)*p.width + p.last)
}

// Panel says where panel i starts in the packed matrix (row 0; row k is at off + k·ldb), what Tile.LDB is for it, and which
// columns of B it holds: j to j+cols.
func (p Panels) Panel(i int) (off, ldb, j, cols int) {
	off, ldb, j = i*p.width*p.K, p.width, i*p.width
	if i == p.Count()-1 {
		ldb = p.last
	}
	return off, ldb, j, min(p.width, p.N-j)
}

// Pack copies B into dst (p.Len() floats). Element B[k][n] is b[k·ldb+n], or b[n·ldb+k] if trans.
func (p Panels) Pack(dst, b []float32, ldb int, trans bool) {
	for i := range p.Count() {
		off, w, j, cols := p.Panel(i)
		packB(isa.Current(), dst[off:][:p.K*w], w, b, ldb, trans, 0, p.K, j, cols)
	}
}

// packB copies rows k to k+kn, columns j to j+cols of B to dst, whose rows are w ≥ cols long; the rest of each row becomes 0.
func packB(l isa.Level, dst []float32, w int, b []float32, ldb int, trans bool, k, kn, j, cols int) {
	if kn == 0 {
		return
	}
	if trans {
		transpose(l, dst, b[j*ldb+k:], w, ldb, cols, kn)
	} else {
		copyBlock(l, dst, b[k*ldb+j:], w, ldb, kn, cols)
	}
	if cols < w {
		for i := range kn {
			clear(dst[i*w+cols : (i+1)*w])
		}
	}
}

// groupRows is how many rows of A packA stores side by side: a broadcast of one K index then touches one cache line or two,
// whatever the tile's height.
const groupRows = 8

// packA copies rows i to i+rows, columns k to k+kn of A to dst, in groups of 8 rows that are depth ≥ kn long: A[r][c] goes to
// ((r−i)/8·depth + c−k)·8 + (r−i)%8. The places of missing rows of the last group are left as they are.
func packA(l isa.Level, dst, a []float32, lda int, trans bool, i, rows, k, kn, depth int) {
	for r := 0; r < rows; r += groupRows {
		n := min(groupRows, rows-r)
		d := dst[r*depth:]
		if trans {
			copyBlock(l, d, a[k*lda+i+r:], groupRows, lda, kn, n)
		} else {
			transpose(l, d, a[(i+r)*lda+k:], groupRows, lda, n, kn)
		}
	}
}
