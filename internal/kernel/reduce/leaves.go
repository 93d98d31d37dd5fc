package reduce

import (
	"math"

	"github.com/jouleml/joule/internal/isa"
)

// rowFunc folds a slice into one number; rowFunc2 folds two.
type (
	rowFunc  = func(a []float32) float32
	rowFunc2 = func(a, b []float32) float32
	// colFunc folds rows: dst[j] = the fold over i < rows of a[i*stride+j]. It trusts its arguments: callers check.
	colFunc = func(dst, a []float32, rows, stride int)
)

// leaves is every function that comes in several versions, for one instruction set.
type leaves struct {
	row            [numOps]rowFunc
	col            [numOps]colFunc
	devRow         func(a []float32, m float32) float32
	dotRow         rowFunc2
	sumExpRow      func(a []float32, m float32) float32
	expSumRow      func(dst, a []float32, m float32) float32
	mulAdd         func(dst, a []float32, s, t float32)
	softmaxGrad    func(dst, y, dy []float32, s float32)
	logSoftmaxGrad func(dst, y, dy []float32, s float32)

	// Normalisations; the stubs say what they compute. The second of a pair is for a ReLU behind the normalisation.
	centredDotRow func(a, g, x []float32, m float32) float32
	addTo         func(dst, a, b []float32)
	normRow       func(dst, a, g, b []float32, m, r float32)
	normRowGrad   func(dst, dy, x, g []float32, m, r, c1, c2 float32)
	normGammaAdd  func(dst, acc, dy, x []float32, m, r float32)
	norm          [2]func(dst, a, m, s, b []float32)
	shiftSums     func(s0, s1, x, m []float32, rows, stride int)
	batchSums     func(s0, s1, dy, x, m []float32, rows, stride int)
	batchSumsRelu func(s0, s1, dy, x, m, k, b []float32, rows, stride int)
	batchGrad     func(dst, dy, x, m, k1, k2, k3 []float32)
	batchGradRelu func(dst, dy, x, m, k1, k2, k3, b []float32)
	normAddRelu   func(dst, a, m, s, b, z []float32)
	where         func(dst, y, a []float32)
	sumWhere      func(dst, y, a, b []float32)
}

// table is filled by init functions: the portable entry always, others where the CPU type has them.
var table [isa.AVX512 + 1]*leaves

func current() *leaves { return table[isa.Current()] }

func init() {
	t := &leaves{
		devRow: func(a []float32, m float32) float32 {
			var s float64
			for _, x := range a {
				d := float64(x - m)
				s += d * d
			}
			return float32(s)
		},
		dotRow: func(a, b []float32) float32 {
			var s float64
			for i, x := range a {
				s += float64(x) * float64(b[i])
			}
			return float32(s)
		},
		sumExpRow: func(a []float32, m float32) float32 {
			var s float64
			for _, x := range a {
				s += math.Exp(float64(x - m))
			}
			return float32(s)
		},
		expSumRow: func(dst, a []float32, m float32) float32 {
			var s float64
			for i, x := range a {
				e := math.Exp(float64(x - m))
				dst[i] = float32(e)
				s += e
			}
			return float32(s)
		},
		mulAdd: func(dst, a []float32, s, t float32) {
			for i, x := range a {
				dst[i] = x*s + t
			}
		},
		softmaxGrad: func(dst, y, dy []float32, s float32) {
			for i, p := range y {
				dst[i] = p * (dy[i] - s)
			}
		},
		logSoftmaxGrad: func(dst, y, dy []float32, s float32) {
			for i, p := range y {
				dst[i] = dy[i] - float32(math.Exp(float64(p)))*s
			}
		},
	}
	portableNorms(t)
	for op := range numOps {
		f, start := scalar[op].fold, scalar[op].start
		t.row[op] = func(a []float32) float32 {
			s := start
			for _, x := range a {
				s = f(s, float64(x))
			}
			return float32(s)
		}
		t.col[op] = func(dst, a []float32, rows, stride int) {
			for j := range dst {
				s := start
				for i := range rows {
					s = f(s, float64(a[i*stride+j]))
				}
				dst[j] = float32(s)
			}
		}
	}
	table[isa.Portable] = t
}

// The folds of rows of any length: leaves on blocks, whose results are added in float64.

func (l *leaves) sum(a []float32) float32 {
	var s float64
	for len(a) > 0 {
		n := min(len(a), blockLen)
		s += float64(l.row[Sum](a[:n]))
		a = a[n:]
	}
	return float32(s)
}

func (l *leaves) dot(a, b []float32) float32 {
	var s float64
	for len(a) > 0 {
		n := min(len(a), blockLen)
		s += float64(l.dotRow(a[:n], b[:n]))
		a, b = a[n:], b[n:]
	}
	return float32(s)
}

func (l *leaves) sumExp(a []float32, m float32) float32 {
	var s float64
	for len(a) > 0 {
		n := min(len(a), blockLen)
		s += float64(l.sumExpRow(a[:n], m))
		a = a[n:]
	}
	return float32(s)
}

// expSum also sets dst[i] = e^(a[i]-m).
func (l *leaves) expSum(dst, a []float32, m float32) float32 {
	var s float64
	for len(a) > 0 {
		n := min(len(a), blockLen)
		s += float64(l.expSumRow(dst[:n], a[:n], m))
		dst, a = dst[n:], a[n:]
	}
	return float32(s)
}

// scalar defines each operation: fold takes an element, merge a partial result.
var scalar = [numOps]struct {
	start       float64
	fold, merge func(s, x float64) float64
}{
	Sum:        {0, add, add},
	Mean:       {0, add, add},
	SumSquares: {0, func(s, x float64) float64 { return s + x*x }, add},
	Prod:       {1, mul, mul},
	Max:        {math.Inf(-1), larger, larger},
	Min:        {math.Inf(1), smaller, smaller},
}

func add(s, x float64) float64     { return s + x }
func mul(s, x float64) float64     { return s * x }
func larger(s, x float64) float64  { return max(s, x) }
func smaller(s, x float64) float64 { return min(s, x) }
