package conv

import "unsafe"

// expandGo is the transform by matrix l in plain Go.
func expandGo(m [][]float64) expandFunc {
	l := round(m)
	r := len(l[0])
	return func(dst *float32, pointStride int, rows *[]float32, colStride, j0, j1, n int, _ *float32) {
		out := unsafe.Slice(dst, 35*pointStride+n)
		in := unsafe.Slice(rows, r)
		var half [6][6]float32 // [row of points][column of pixels]
		for c := range n {
			for j := range r {
				for i := range half {
					half[i][j] = 0
				}
				if j < j0 || j >= j1 {
					continue
				}
				for k := range r {
					d := in[k][(j-j0)*colStride+c]
					for i := range half {
						half[i][j] += l[i][k] * d
					}
				}
			}
			for i := range half {
				for j := range half {
					v := float32(0)
					for k, x := range half[i][:r] {
						v += l[j][k] * x
					}
					out[(6*i+j)*pointStride+c] = v
				}
			}
		}
	}
}

// contractGo is the transform by matrix m in plain Go.
func contractGo(m [][]float64) contractFunc {
	l := round(m)
	return func(dst *float32, rowStride, colStride int, src *float32, pointStride, rows, cols, n int, bias *float32, relu int, _ *float32) {
		in := unsafe.Slice(src, 35*pointStride+n)
		out := unsafe.Slice(dst, (rows-1)*rowStride+(cols-1)*colStride+n)
		var half [6][6]float32 // [row of points][column of the result]
		for c := range n {
			for i := range half {
				for j := range cols {
					v := float32(0)
					for k := range half {
						v += l[j][k] * in[(6*i+k)*pointStride+c]
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
					for k := range half {
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
