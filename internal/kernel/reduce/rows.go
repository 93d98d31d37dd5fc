package reduce

// Rows are leaves for kernels that fold single rows in the midst of other work, at the instruction set of the moment. A row has at most MaxRow
// elements.
type Rows struct {
	Max         func(a []float32) float32                 // the greatest element
	ExpSum      func(dst, a []float32, m float32) float32 // dst = e^(a-m); gives its sum
	MulAdd      func(dst, a []float32, s, t float32)      // dst = a·s + t
	SoftmaxGrad func(dst, y, dy []float32, s float32)     // dst = y·(dy - s)
	Dot         func(a, b []float32) float32              // Σ a·b
}

// MaxRow is the most elements of a row for which the leaves of Rows sum in float32 without loss.
const MaxRow = blockLen

// CurrentRows gives the leaves.
func CurrentRows() Rows {
	l := current()
	return Rows{Max: l.row[Max], ExpSum: l.expSumRow, MulAdd: l.mulAdd, SoftmaxGrad: l.softmaxGrad, Dot: l.dotRow}
}
