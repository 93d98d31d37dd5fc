package conv

import "unsafe"

// expandGo is the transform by matrix l in plain Go.
func expandGo(m [][]float64) expandFunc {
	l := round(m)
	n, r := len(l), len(l[0]) // points, pixels
	return func(dst *float32, pointStride int, rows *[]float32, colStride, j0, j1, channels int, _ *float32) {
		out := unsafe.Slice(dst, (n*n-1)*pointStride+channels)
		in := unsafe.Slice(rows, r)
		var half [6][6]float32 // [row of points][column of pixels]
		for c := range channels {
			for j := range r {
				for i := range n {
					half[i][j] = 0
				}
				if j < j0 || j >= j1 {
					continue
				}
				for k := range r {
					d := in[k][(j-j0)*colStride+c]
					for i := range n {
						half[i][j] += l[i][k] * d
					}
				}
			}
			for i := range n {
				for j := range n {
					v := float32(0)
					for k, x := range half[i][:r] {
						v += l[j][k] * x
					}
					out[(n*i+j)*pointStride+c] = v
				}
			}
		}
	}
}

// contractGo is the transform by matrix m in plain Go.
func contractGo(m [][]float64) contractFunc {
	l := round(m)
	p := len(l[0]) // points
	return func(dst *float32, rowStride, colStride int, src *float32, pointStride, rows, cols, n int, bias *float32, relu int, _ *float32) {
		in := unsafe.Slice(src, (p*p-1)*pointStride+n)
		out := unsafe.Slice(dst, (rows-1)*rowStride+(cols-1)*colStride+n)
		var half [6][6]float32 // [row of points][column of the result]
		for c := range n {
			for i := range p {
				for j := range cols {
					v := float32(0)
					for k := range p {
						v += l[j][k] * in[(p*i+k)*pointStride+c]
					}
					half[i][j] = v
				}
			}
			for i := range rows {
				for j := range cols {
					v := float32(0)
					if bias != nil {
						v = unsafe.Slice(bias, n)[c]
					}
					for k := range p {
						v += l[i][k] * half[k][j]
					}
					if relu != 0 && v < 0 {
						v = 0
					}
					out[i*rowStride+j*colStride+c] = v
				}
			}
		}
	}
}
