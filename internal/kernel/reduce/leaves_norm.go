package reduce

// portableNorms fills in the leaves of the normalisations.
func portableNorms(t *leaves) {
	t.centredDotRow = func(a, g, x []float32, m float32) float32 {
		var s float64
		for i := range a {
			s += float64(a[i]*g[i]) * float64(x[i]-m)
		}
		return float32(s)
	}
	t.addTo = func(dst, a, b []float32) {
		for i, x := range a {
			dst[i] = x + b[i]
		}
	}
	t.normRow = func(dst, a, g, b []float32, m, r float32) {
		for i, x := range a {
			dst[i] = (x-m)*r*g[i] + b[i]
		}
	}
	t.normRowGrad = func(dst, dy, x, g []float32, m, r, c1, c2 float32) {
		for i, d := range dy {
			dst[i] = (d*g[i] - c1 - (x[i]-m)*r*c2) * r
		}
	}
	t.normGammaAdd = func(dst, acc, dy, x []float32, m, r float32) {
		for i, a := range acc {
			dst[i] = a + dy[i]*((x[i]-m)*r)
		}
	}
	t.norm[0] = func(dst, a, m, s, b []float32) {
		for i, x := range a {
			dst[i] = affine(x, m[i], s[i], b[i])
		}
	}
	t.norm[1] = func(dst, a, m, s, b []float32) {
		for i, x := range a {
			y := affine(x, m[i], s[i], b[i])
			if y < 0 {
				y = 0
			}
			dst[i] = y
		}
	}
	t.normAddRelu = func(dst, a, m, s, b, z []float32) {
		for i, x := range a {
			y := affine(x, m[i], s[i], b[i]) + z[i]
			if y < 0 {
				y = 0
			}
			dst[i] = y
		}
	}
	t.where = func(dst, y, a []float32) {
		for i, v := range y {
			d := a[i]
			if !(v > 0) {
				d = 0
			}
			dst[i] = d
		}
	}
	t.sumWhere = func(dst, y, a, b []float32) {
		for i, v := range y {
			d := a[i] + b[i]
			if !(v > 0) {
				d = 0
			}
			dst[i] = d
		}
	}
	t.shiftSums = func(s0, s1, x, m []float32, rows, stride int) {
		for j := range s0 {
			var a, b float64
			for i := range rows {
				d := float64(x[i*stride+j] - m[j])
				a += d
				b += d * d
			}
			s0[j], s1[j] = float32(a), float32(b)
		}
	}
	t.batchSums = func(s0, s1, dy, x, m []float32, rows, stride int) {
		for j := range s0 {
			var a, b float64
			for i := range rows {
				k := i*stride + j
				a += float64(dy[k])
				b += float64(dy[k]) * float64(x[k]-m[j])
			}
			s0[j], s1[j] = float32(a), float32(b)
		}
	}
	t.batchSumsRelu = func(s0, s1, dy, x, m, k, b []float32, rows, stride int) {
		for j := range s0 {
			var u, v float64
			for i := range rows {
				at := i*stride + j
				if affine(x[at], m[j], k[j], b[j]) > 0 {
					u += float64(dy[at])
					v += float64(dy[at]) * float64(x[at]-m[j])
				}
			}
			s0[j], s1[j] = float32(u), float32(v)
		}
	}
	t.batchGrad = func(dst, dy, x, m, k1, k2, k3 []float32) {
		for i, d := range dy[:len(dst)] {
			dst[i] = d*k1[i] + ((x[i]-m[i])*k2[i] + k3[i])
		}
	}
	t.batchGradRelu = func(dst, dy, x, m, k1, k2, k3, b []float32) {
		for i, d := range dy[:len(dst)] {
			if !(affine(x[i], m[i], k1[i], b[i]) > 0) {
				d = 0
			}
			dst[i] = d*k1[i] + ((x[i]-m[i])*k2[i] + k3[i])
		}
	}
}

// affine is (x-m)·s + b, rounded after each operation wherever it is written: the gradient asks for the sign that the forward pass saw.
func affine(x, m, s, b float32) float32 { return float32((x-m)*s) + b }
