package conv

import "github.com/jouleml/joule/internal/isa"

// The transforms of Winograd's minimal filtering on six points (A. Lavin and S. Gray, "Fast algorithms for convolutional neural
// networks", 2015; the construction is Toom and Cook's). A line of m results of a filter of r = 7−m taps on 6 elements d is
//
//	y = Aᵀ[(G g) ⊙ (Bᵀ d)]
//
// The points are 0, ±a, ±b and infinity. Any distinct points give the exact result in exact arithmetic; those usual in the
// literature, 0, ±1, ±2, lose about one bit more of a float32 than a = 5/8, b = 3/2, which leave an error of about twice that
// of the direct sum and are exact in binary, as are the entries of A and B.
const (
	pointA = 5.0 / 8
	pointB = 3.0 / 2
)

var points = [5]float64{0, pointA, -pointA, pointB, -pointB}

// points6 is Bᵀ: row i holds the coefficients of the polynomial that vanishes at all finite points but the i-th.
func points6() [][]float64 {
	l := make([][]float64, 6)
	for i := range l {
		poly := []float64{1}
		for k, p := range points {
			if k == i {
				continue
			}
			next := make([]float64, len(poly)+1)
			for j, v := range poly {
				next[j+1] += v
				next[j] -= p * v
			}
			poly = next
		}
		l[i] = append(poly, make([]float64, 6-len(poly))...)
	}
	return l
}

// filterPoints is G for filters of r taps: their values at the points, divided by what Bᵀ leaves too much.
func filterPoints(r int) [][]float64 {
	l := make([][]float64, 6)
	for i, p := range points {
		scale := 1.0
		for k, q := range points {
			if k != i {
				scale *= p - q
			}
		}
		l[i] = powers(p, r)
		for j := range l[i] {
			l[i][j] /= scale
		}
	}
	l[5] = make([]float64, r)
	l[5][r-1] = 1
	return l
}

// resultPoints is Aᵀ for m results: column i holds the powers of point i.
func resultPoints(m int) [][]float64 {
	l := make([][]float64, m)
	for j := range l {
		l[j] = make([]float64, 6)
	}
	for i, p := range points {
		for j, v := range powers(p, m) {
			l[j][i] = v
		}
	}
	l[m-1][5] = 1
	return l
}

func powers(x float64, n int) []float64 {
	p := make([]float64, n)
	v := 1.0
	for i := range p {
		p[i] = v
		v *= x
	}
	return p
}

func round(m [][]float64) [][]float32 {
	l := make([][]float32, len(m))
	for i, row := range m {
		for _, v := range row {
			l[i] = append(l[i], float32(v))
		}
	}
	return l
}

// Adds and multiplies that the kernels make for one line of 6 elements to points, of r taps to points, of points to m results.
const pointsOps = 24

func filterOps(r int) int64 { return int64(4*r + 1) }

func resultOps(m int) int64 { return int64(4*m + 3) }

// expandFunc takes r×r pixels of n channels to 6×6 points: dst[(6i+j)·pointStride+c] = (L d Lᵀ)[i][j] for each channel c.
// Row i of the pixels starts at rows[i] with column j0; column j0+k is k·colStride further; columns outside of [j0, j1) are
// zeros. tmp is scratch of 36 vectors.
type expandFunc func(dst *float32, pointStride int, rows *[]float32, colStride, j0, j1, n int, tmp *float32)

// contractFunc takes 6×6 points of n channels to m×m pixels: the first rows×cols of Aᵀ s A, plus bias[c] if bias is not nil,
// greater than zero if relu is 1, go to dst[i·rowStride+j·colStride+c].
type contractFunc func(dst *float32, rowStride, colStride int, src *float32, pointStride, rows, cols, n int, bias *float32, relu int, tmp *float32)

// transforms are the kernels of one instruction set. n must be a multiple of lanes.
type transforms struct {
	points expandFunc      // of images
	filter [6]expandFunc   // of r×r filters, for r from 2 to 5; pixels of dy act as filters in the gradient for these
	result [6]contractFunc // to m×m pixels, for m from 2 to 5
}

func newTransforms() transforms {
	if l := isa.Current(); l != isa.Portable {
		return vecTransforms(l)
	}
	t := transforms{points: expandGo(points6())}
	for r := 2; r <= 5; r++ {
		t.filter[r] = expandGo(filterPoints(r))
		t.result[r] = contractGo(resultPoints(r))
	}
	return t
}
