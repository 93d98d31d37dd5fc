package gemm

import "github.com/jouleml/joule/internal/isa"

// copyBlock copies dst[i·ldd+j] = src[i·lds+j] for i in [0, rows) and j in [0, cols).
func copyBlock(l isa.Level, dst, src []float32, ldd, lds, rows, cols int) {
	if rows == 0 || cols == 0 {
		return
	}
	dst, src = dst[:(rows-1)*ldd+cols], src[:(rows-1)*lds+cols]
	done := 0
	if l != isa.Portable && cols >= 8 {
		done = cols &^ 7
		copyVec(&dst[0], &src[0], 4*ldd, 4*lds, rows, done)
	}
	if done == cols {
		return
	}
	for i := range rows {
		copy(dst[i*ldd+done:i*ldd+cols], src[i*lds+done:])
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
