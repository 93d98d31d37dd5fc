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

// Width is the number of columns of all panels but the last.
func (p Panels) Width() int { return p.width }

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
	if p.K > 0 && p.N > 0 {
		p.packRange(isa.Current(), dst, p.K, b, ldb, trans, 0, p.K, 0, p.N)
	}
}

// packRange copies rows k to k+kn and columns j to j+n of B to dst as panels of p with room for depth ≥ kn rows each; j is the
// first column of a panel, j+n the end of one.
func (p Panels) packRange(l isa.Level, dst []float32, depth int, b []float32, ldb int, trans bool, k, kn, j, n int) {
	full := n / p.width * p.width // columns of full panels
	if trans {
		for x := 0; x < full; x += p.width {
			transpose(l, dst[x*depth:], b[(j+x)*ldb+k:], p.width, ldb, p.width, kn)
		}
	} else {
		copyPanels(l, dst, b[k*ldb+j:], p.width, p.width*depth, ldb, kn, full)
	}
	rest := n - full
	if rest == 0 {
		return
	}
	dst, j = dst[full*depth:], j+full
	if trans {
		transpose(l, dst, b[j*ldb+k:], p.last, ldb, rest, kn)
	} else {
		copyPanels(l, dst, b[k*ldb+j:], p.last, 0, ldb, kn, rest)
	}
	if rest < p.last {
		for i := range kn {
			clear(dst[i*p.last+rest : (i+1)*p.last])
		}
	}
}
