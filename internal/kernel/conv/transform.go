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

// expandFunc takes r×r pixels of n channels to m×m points: dst[(m·i+j)·pointStride+c] = (L d Lᵀ)[i][j] for each channel c, where
// L is an m×r matrix. Row i of the pixels starts at rows[i] with column j0; column j0+k is k·colStride further; columns outside
// of [j0, j1) are zeros. tmp is scratch of 36 vectors.
type expandFunc func(dst *float32, pointStride int, rows *[]float32, colStride, j0, j1, n int, tmp *float32)

// contractFunc takes points of n channels to pixels: the first rows×cols of Aᵀ s A, plus bias[c] if bias is not nil,
// greater than zero if relu is 1, go to dst[i·rowStride+j·colStride+c].
type contractFunc func(dst *float32, rowStride, colStride int, src *float32, pointStride, rows, cols, n int, bias *float32, relu int, tmp *float32)

// transforms are the kernels of one instruction set. n must be at least one vector; dst must not overlap the source.
type transforms struct {
	points expandFunc      // of images
	filter [6]expandFunc   // of r×r filters, for r from 2 to 5; pixels of dy act as filters in the gradient for these
	result [6]contractFunc // to m×m pixels, for m from 2 to 5
	// Those for stride 2, see strided.go.
	stridedPoints, stridedBack, stridedFilter, stridedGrad expandFunc
	strided                                                [5]contractFunc // to m×m pixels, for m from 2 to 4
}

func newTransforms() transforms {
	if l := isa.Current(); l != isa.Portable {
		return vecTransforms(l)
	}
	t := transforms{
		points: expandGo(points6()), stridedPoints: expandGo(stridedPoints), stridedBack: expandGo(stridedBack),
		stridedFilter: expandGo(stridedFilter), stridedGrad: expandGo(stridedGrad),
	}
	for r := 2; r <= 5; r++ {
		t.filter[r] = expandGo(filterPoints(r))
		t.result[r] = contractGo(resultPoints(r))
	}
	for m, l := range stridedResults {
		if l != nil {
			t.strided[m] = contractGo(l)
		}
	}
	return t
}

// algorithm is a bilinear algorithm for the tiles of one direction of a convolution. Along an axis, size pixels of an input
// become in points and the r pixels of the other (filters, or tiles of dy) weights points; each of terms multiplies a point of
// either and adds it to one of sums points, which become out results. Over two axes all of this happens along both.
type algorithm struct {
	size, step       int // pixels of a tile of the input, and from one tile to the next
	r                int
	in, weights, out int
	sums             int
	terms            []term // along both axes
	expand, filter   expandFunc
	result           contractFunc
	// Adds and multiplies that the kernels make for one line.
	inOps, filterOps, outOps int64
}

// term adds the product of two points to a sum; first says that it is the first that does.
type term struct {
	sum, in, weight int
	first           bool
}

// over makes the terms over two axes from those along one, (sum, in, weight).
func (a *algorithm) over(line [][3]int) {
	seen := map[int]bool{}
	for _, y := range line {
		for _, x := range line {
			t := term{sum: y[0]*a.sums + x[0], in: y[1]*a.in + x[1], weight: y[2]*a.weights + x[2]}
			t.first = !seen[t.sum]
			seen[t.sum] = true
			a.terms = append(a.terms, t)
		}
	}
}

// diagonal is the terms where each sum has a point of its own of both.
func diagonal(n int) (l [][3]int) {
	for i := range n {
		l = append(l, [3]int{i, i, i})
	}
	return l
}

// toomProduct is F(m×m, r×r) on six points, and toomGrad F(r×r, m×m), with m = 7−r.
func toomProduct(r int) algorithm { return toom(r, 7-r) }
func toomGrad(r int) algorithm    { return toom(7-r, 7-r) }

// toom is an algorithm on six points for so many taps, whose tiles begin step pixels apart.
func toom(taps, step int) algorithm {
	tr, out := newTransforms(), 7-taps
	a := algorithm{size: 6, step: step, r: taps, in: 6, weights: 6, sums: 6, out: out, expand: tr.points, filter: tr.filter[taps], result: tr.result[out],
		inOps: pointsOps, filterOps: filterOps(taps), outOps: resultOps(out)}
	a.over(diagonal(6))
	return a
}
