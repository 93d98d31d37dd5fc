package bgemm

import (
	"unsafe"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/kernel/gemm"
)

var tilesOfRows = [tileRows + 1]func(c *float32, a, b *uint32, cStride, aRow, aGroup, groups, add int){nil, tile1BF16, tile2BF16, tile3BF16, tile4BF16, tile5BF16, tile6BF16}

// vectors adds up n pairs from group g on, for rows rows of matrix z from r on and the 64 columns of a panel, into c, whose rows are ldc elements apart; from group 0 on
// it begins anew.
func (p *Plan) vectors(c []float32, ldc int, b []uint32, z, r, rows, g, n int) {
	_, _ = c[(rows-1)*ldc+width-1], b[n*width-1]
	if p.packA {
		a := p.pa[(z*p.groups+g)*p.M:]
		_ = a[(n-1)*p.M+r+rows-1]
		tilesOfRows[rows](&c[0], &a[r], &b[0], 4*ldc, 4, 4*p.M, n, g)
		return
	}
	a := p.a[(z*p.M+r)*p.K+2*g:]
	_ = a[(rows-1)*p.K+2*n-1]
	tilesOfRows[rows](&c[0], &pairs(a[:2*n])[0], &b[0], 4*ldc, 2*p.K, 4, n, g)
}

// rowsOfA are n rows of pairs of matrix z from r on.
func (p *Plan) rowsOfA(z, r, n int) []uint32 {
	if p.packA {
		return p.pa[(z*p.M+r)*p.aRow:][:n*p.aRow]
	}
	return pairs(p.a[(z*p.M+r)*p.K:][:n*p.K])
}

// blocksOfTiles computes blocks times 32 rows and 64 columns of c, whose rows are ldc elements apart, from rows of pairs, aRow apart, and a panel.
func (p *Plan) blocksOfTiles(c []float32, ldc int, a []uint32, aRow int, b []uint32, blocks int) {
	rows := blocks * blockRows
	_, _, _ = c[(rows-1)*ldc+width-1], a[(rows-1)*aRow+p.groups-1], b[p.groups*width-1]
	tilesAMX(&c[0], &a[0], &b[0], 4*ldc, 4*aRow, p.groups/blockGroups, blocks, &isa.TileConfig)
}

// interleave makes pairs of as many elements of x and y as it can, and returns how many.
func interleave(dst []uint32, x, y []dtype.BFloat16) int {
	n := len(dst) / 16
	if n > 0 {
		_, _ = x[16*n-1], y[16*n-1]
		interleaveAVX512(&dst[0], bits(x), bits(y), n)
	}
	return 16 * n
}

// transpose sets dst[g*ds+r] to pair g of row r of n rows, each of ss pairs.
func transpose(dst []uint32, ds int, x []dtype.BFloat16, ss, n, groups int) {
	if n > 0 && groups > 0 {
		transposePairs(dst, ds, pairs(x), ss, n, groups)
	}
}

// transposePairs sets dst[j*ds+i] = src[i*ss+j] for i in [0, rows) and j in [0, cols).
func transposePairs(dst []uint32, ds int, src []uint32, ss, rows, cols int) {
	gemm.Transpose(floats(dst), floats(src), ds, ss, rows, cols)
}

// pairs is the same memory as pairs; x86 reads them from any address.
func pairs(x []dtype.BFloat16) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(x))), len(x)/2)
}

// bits is the same memory under the type that the assembly knows.
func bits(x []dtype.BFloat16) *uint16 { return (*uint16)(unsafe.Pointer(unsafe.SliceData(x))) }
