package gemm

import "github.com/jouleml/joule/internal/isa"

// copyPanels cuts a matrix into panels of width columns (a multiple of 8) that lie panelStride apart in dst, each row of a panel
// behind the last: dst[p·panelStride+i·width+j] = src[i·lds+p·width+j] for i in [0, rows) and p·width+j in [0, cols).
// The places of missing columns of the last panel are left as they are.
func copyPanels(l isa.Level, dst, src []float32, width, panelStride, lds, rows, cols int) {
	if rows == 0 || cols == 0 {
		return
	}
	src = src[:(rows-1)*lds+cols]
	full := 0
	if l != isa.Portable {
		full = cols / width
		if full > 0 {
			dst := dst[:(full-1)*panelStride+rows*width]
			panelsVec(&dst[0], &src[0], 4*lds, rows, width, full, 4*panelStride)
		}
	}
	for p := full; p*width < cols; p++ {
		d, s := dst[p*panelStride:], src[p*width:]
		n := min(width, cols-p*width)
		for i := range rows {
			copy(d[i*width:][:n], s[i*lds:][:n])
		}
	}
}

// transpose copies dst[j·ldd+i] = src[i·lds+j] for i in [0, rows) and j in [0, cols).
func transpose(l isa.Level, dst, src []float32, ldd, lds, rows, cols int) {
	if rows == 0 || cols == 0 {
		return
	}
	dst, src = dst[:(cols-1)*ldd+rows], src[:(rows-1)*lds+cols]
	r8, c8 := 0, 0
	if l != isa.Portable && rows >= 8 && cols >= 8 {
		r8, c8 = rows&^7, cols&^7
		transposeVec(&dst[0], &src[0], 4*ldd, 4*lds, r8, c8)
	}
	for i := range r8 {
		for j := c8; j < cols; j++ {
			dst[j*ldd+i] = src[i*lds+j]
		}
	}
	for i := r8; i < rows; i++ {
		for j, x := range src[i*lds:][:cols] {
			dst[j*ldd+i] = x
		}
	}
}

// Transpose copies dst[j·ldd+i] = src[i·lds+j] for i in [0, rows) and j in [0, cols), by vectors where the CPU has them: what a
// kernel needs that wants the columns of a weight matrix as rows.
func Transpose(dst, src []float32, ldd, lds, rows, cols int) {
	transpose(isa.Current(), dst, src, ldd, lds, rows, cols)
}
