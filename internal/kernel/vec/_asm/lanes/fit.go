package lanes

import "math"

// Fit is the polynomial c[0] + c[1]·x + … of the given degree that equals f at the Chebyshev nodes of [lo, hi]: within a small
// factor of the best there is.
func Fit(f func(float64) float64, lo, hi float64, degree int) []float64 {
	n := degree + 1
	mid, half := (lo+hi)/2, (hi-lo)/2
	// Chebyshev coefficients by discrete orthogonality.
	cheb := make([]float64, n)
	for k := range n {
		t := math.Cos(math.Pi * (float64(k) + 0.5) / float64(n))
		y := f(mid + half*t)
		for j := range n {
			cheb[j] += 2 / float64(n) * y * math.Cos(math.Pi*float64(j)*(float64(k)+0.5)/float64(n))
		}
	}
	cheb[0] /= 2
	// To powers of t: T0 = 1, T1 = t, T(j+1) = 2t·Tj - T(j-1).
	a, b := make([]float64, n+1), make([]float64, n+1)
	a[0], b[1] = 1, 1
	pow := make([]float64, n)
	for j := range n {
		for i := range n {
			pow[i] += cheb[j] * a[i]
		}
		c := make([]float64, n+1)
		for i := range n {
			c[i+1] += 2 * b[i]
		}
		for i := range n + 1 {
			c[i] -= a[i]
		}
		a, b = b, c
	}
	// To powers of x: t = (x - mid)/half, by Horner on polynomials.
	out := make([]float64, n)
	for j := n - 1; j >= 0; j-- {
		next := make([]float64, n)
		for i := range n {
			next[i] += out[i] * (-mid / half)
			if i+1 < n {
				next[i+1] += out[i] / half
			}
		}
		next[0] += pow[j]
		out = next
	}
	return out
}
