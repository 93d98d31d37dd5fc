package conv

import "unsafe"

// depthwiseGo is a depthwiseFunc in plain Go.
func depthwiseGo(y, x, w *float32, taps *int, nTaps, yStride, xStride, pixels, c int, bias *float32, relu int) {
	out := unsafe.Slice(y, (pixels-1)*yStride+c)
	at := unsafe.Slice(taps, 2*nTaps)
	for p := range pixels {
		px := out[p*yStride:][:c]
		clear(px)
		if bias != nil {
			copy(px, unsafe.Slice(bias, c))
		}
		for t := 0; t < len(at); t += 2 {
			in := unsafe.Slice(x, at[t]+p*xStride+c)[at[t]+p*xStride:]
			for j, f := range unsafe.Slice(w, at[t+1]+c)[at[t+1]:] {
				px[j] += in[j] * f
			}
		}
		if relu != 0 {
			for j, v := range px {
				if v < 0 {
					px[j] = 0
				}
			}
		}
	}
}

// depthwiseFilterGo is a depthwiseFilterFunc in plain Go.
func depthwiseFilterGo(dw, x, dy *float32, taps *int, nTaps, yStride, xStride, pixels, c int) {
	at := unsafe.Slice(taps, 2*nTaps)
	for t := 0; t < len(at); t += 2 {
		acc := unsafe.Slice(dw, at[t+1]+c)[at[t+1]:]
		for p := range pixels {
			in := unsafe.Slice(x, at[t]+p*xStride+c)[at[t]+p*xStride:]
			for j, d := range unsafe.Slice(dy, p*yStride+c)[p*yStride:] {
				acc[j] += in[j] * d
			}
		}
	}
}
