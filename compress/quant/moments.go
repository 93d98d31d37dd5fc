package quant

import (
	"math"
)

// factors are what the operand of a product is multiplied with, its weights being divided by it; nil: none.
func (x *matrix) factors(o WeightOptions) []float64 {
	if x.moments == nil || o.Method != AWQ && o.Smooth == 0 {
		return nil
	}
	size := func(k int, power float64) float64 { return math.Pow(max(1e-5, x.moments.top[k]), power) }
	if o.Method == AWQ {
		return x.searchFactors(o)
	}
	// x divided by s = max|x|^α / max|w|^(1-α)  (arXiv:2211.10438, equation 4)
	f := make([]float64, x.k)
	for k := range f {
		top := 0.0
		for n := range x.n {
			top = max(top, math.Abs(x.w[n*x.k+k]))
		}
		f[k] = 1
		if top > 0 && x.moments.top[k] > 0 {
			f[k] = float64(float32(math.Pow(max(1e-5, top), 1-o.Smooth) / size(k, o.Smooth)))
		}
	}
	return f
}

// searchFactors is AWQ's: s = (root mean square of x)^α for the α of least error of the product, on some of the outputs; x is divided by s. The paper takes the mean magnitude.
func (x *matrix) searchFactors(o WeightOptions) []float64 {
	const most = 64 // outputs looked at
	step := max(1, x.n/most)
	g := grid{bits: o.Bits, group: o.Group, k: x.k}
	if g.group == 0 || g.group > x.k {
		g.group = x.k
	}
	var best []float64
	least := math.Inf(1)
	codes, scales := make([]int8, x.k), make([]float32, g.groups())
	d := make([]float64, x.k)
	for i := range 21 {
		f := make([]float64, x.k)
		lo, hi := math.Inf(1), 0.0
		for k := range f {
			f[k] = math.Pow(max(1e-4, math.Sqrt(x.moments.h[k*x.k+k]/x.moments.rows)), float64(i)/20)
			lo, hi = min(lo, f[k]), max(hi, f[k])
		}
		middle := math.Sqrt(lo * hi)
		for k := range f {
			f[k] = float64(float32(middle / f[k]))
		}
		sum := 0.0
		for n := 0; n < x.n; n += step {
			w := x.w[n*x.k:][:x.k]
			row := scaled(w, f, 1, x.k)
			g.row(append([]float64{}, row...), codes, scales, nil, nil)
			for k := range d {
				d[k] = w[k] - float64(codes[k])*float64(scales[k/g.group])*f[k]
			}
			sum += form(x.moments.h, d)
		}
		if sum < least {
			best, least = f, sum
		}
	}
	return best
}

// form is dᵀ·h·d.
func form(h, d []float64) float64 {
	sum := 0.0
	for i, a := range d {
		if a == 0 {
			continue
		}
		row, s := h[i*len(d):][:len(d)], 0.0
		for j, b := range d {
			s += row[j] * b
		}
		sum += a * s
	}
	return sum
}

// scaled is weights [n, k] divided by factors of the inputs.
func scaled(w, factor []float64, n, k int) []float64 {
	out := make([]float64, n*k)
	for i, v := range w {
		out[i] = v / factor[i%k]
	}
	return out
}

// scaledMoments are those of inputs that are multiplied with factors.
func scaledMoments(h, factor []float64, k int) []float64 {
	if h == nil {
		return nil
	}
	out := make([]float64, k*k)
	for i, v := range h {
		out[i] = v * factor[i/k] * factor[i%k]
	}
	return out
}

// inverseRoot is the upper triangular u with uᵀ·u = (h + damping)⁻¹, k by k: what GPTQ needs. With h = r·rᵀ, r upper triangular, it is r⁻¹. Inputs that are always zero get a 1 on the
// diagonal, and all of it a hundredth of its mean.
func inverseRoot(h []float64, k int) []float64 {
	mean := 0.0
	for i := range k {
		mean += h[i*k+i] / float64(k)
	}
	if mean == 0 {
		mean = 1
	}
	r := make([]float64, k*k)
	copy(r, h)
	for i := range k {
		if r[i*k+i] == 0 {
			r[i*k+i] = mean
		}
		r[i*k+i] += 0.01 * mean
	}
	// From the last row and column to the first (Cholesky's way, backwards).
	for j := k - 1; j >= 0; j-- {
		s := r[j*k+j]
		for p := j + 1; p < k; p++ {
			s -= r[j*k+p] * r[j*k+p]
		}
		d := math.Sqrt(max(s, 1e-12*mean))
		r[j*k+j] = d
		for i := range j {
			s := r[i*k+j]
			a, b := r[i*k+j+1:i*k+k], r[j*k+j+1:j*k+k]
			for p, v := range a {
				s -= v * b[p]
			}
			r[i*k+j] = s / d
		}
		for i := j + 1; i < k; i++ {
			r[i*k+j] = 0
		}
	}
	// Rows of the inverse, the last first: u[i] = (e_i - Σ_{p>i} r[i][p]·u[p]) / r[i][i].
	u := make([]float64, k*k)
	for i := k - 1; i >= 0; i-- {
		row := u[i*k:][:k]
		row[i] = 1
		for p := i + 1; p < k; p++ {
			f := r[i*k+p]
			if f == 0 {
				continue
			}
			for j := p; j < k; j++ {
				row[j] -= f * u[p*k+j]
			}
		}
		for j := i; j < k; j++ {
			row[j] /= r[i*k+i]
		}
	}
	return u
}
