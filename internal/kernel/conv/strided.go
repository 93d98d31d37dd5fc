package conv

// Winograd's algorithm for 3×3 filters at stride 2. Along an axis two results need five pixels d and three taps g,
//
//	y0 = d0·g0 + d1·g1 + d2·g2
//	y1 = d2·g0 + d3·g1 + d4·g2
//
// The even pixels meet the outer taps as in a convolution at stride 1 of two taps, F(2, 2), which takes three multiplies instead of four:
// (d0−d2)·g0, d2·(g0+g2), (d4−d2)·g2; the odd pixels meet the middle tap, two multiplies. So five instead of six, and over two axes 25 instead
// of 36. Backward, dx's pixels at even places (counted with the padding) are F(2, 2) of dy, the odd ones a multiply each. The
// transforms only add, so next to nothing of a float32 is lost.
//
// Points that need one and the same value share it: four values of the filters forward and backward, four of dy backward, three of dy in the gradient for
// the filters, whose terms share four sums.
//
// In the order of the matrices below, points 0 to 2 are those of F(2, 2) and the rest the odd pixels.
var (
	stridedPoints  = [][]float64{{1, 0, -1, 0, 0}, {0, 0, 1, 0, 0}, {0, 0, -1, 0, 1}, {0, 1, 0, 0, 0}, {0, 0, 0, 1, 0}}
	stridedBack    = [][]float64{{1, -1, 0}, {0, 1, 0}, {0, -1, 1}, {1, 0, 0}}
	stridedFilter  = [][]float64{{1, 0, 0}, {1, 0, 1}, {0, 0, 1}, {0, 1, 0}}
	stridedGrad    = [][]float64{{1, 0}, {1, 1}, {0, 1}}
	stridedResults = [5][][]float64{
		2: {{1, 1, 0, 1, 0}, {0, 1, 1, 0, 1}},
		3: {{1, 1, 0, 0}, {0, 0, 0, 1}, {0, 1, 1, 0}},
		4: {{0, 0, 0, 1, 0}, {1, 1, 0, 0, 0}, {0, 0, 0, 0, 1}, {0, 1, 1, 0, 0}},
	}
)

// stridedForward makes 2×2 pixels of y from 5×5 of x.
func stridedForward() algorithm {
	tr := newTransforms()
	a := algorithm{size: 5, step: 4, r: 3, in: 5, weights: 4, sums: 5, out: 2, expand: tr.stridedPoints, filter: tr.stridedFilter, result: tr.strided[2],
		inOps: 2, filterOps: 1, outOps: 4}
	a.over([][3]int{{0, 0, 0}, {1, 1, 1}, {2, 2, 2}, {3, 3, 3}, {4, 4, 3}})
	return a
}

// stridedBackward makes 4×4 pixels of dx, the first at an odd place, from 3×3 of dy and filters that are turned by half a turn.
func stridedBackward() algorithm {
	tr := newTransforms()
	a := algorithm{size: 3, step: 2, r: 3, in: 4, weights: 4, sums: 5, out: 4, expand: tr.stridedBack, filter: tr.stridedFilter, result: tr.strided[4],
		inOps: 2, filterOps: 1, outOps: 2}
	a.over([][3]int{{0, 0, 0}, {1, 1, 1}, {2, 2, 2}, {3, 3, 3}, {4, 1, 3}})
	return a
}

// stridedGradient makes 3×3 taps of dw from 5×5 pixels of x and 2×2 of dy.
func stridedGradient() algorithm {
	tr := newTransforms()
	a := algorithm{size: 5, step: 4, r: 2, in: 5, weights: 3, sums: 4, out: 3, expand: tr.stridedPoints, filter: tr.stridedGrad, result: tr.strided[3],
		inOps: 2, filterOps: 1, outOps: 2}
	a.over([][3]int{{0, 0, 0}, {1, 1, 1}, {2, 2, 2}, {3, 3, 0}, {3, 4, 2}})
	return a
}
