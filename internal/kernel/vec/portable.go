package vec

import (
	"math"

	"github.com/jouleml/joule/internal/isa"
)

func init() {
	t := &table{
		mulAddVVV: func(dst, a, b, c []float32) {
			n := min(len(dst), len(a), len(b), len(c))
			for i, x := range a[:n] {
				dst[i] = fma(x, b[i], c[i])
			}
		},
		mulAddVSV: func(dst, a, c []float32, s float32) {
			n := min(len(dst), len(a), len(c))
			for i, x := range a[:n] {
				dst[i] = fma(x, s, c[i])
			}
		},
		mulAddVSS: func(dst, a []float32, s, t float32) {
			for i, x := range a[:min(len(dst), len(a))] {
				dst[i] = fma(x, s, t)
			}
		},
		// No whole vectors: the loops that finish the work do all of it.
		selectVV:     func([]float32, []uint8, []float32, []float32) int { return 0 },
		selectVS:     func([]float32, []uint8, []float32, float32) int { return 0 },
		selectSV:     func([]float32, []uint8, []float32, float32) int { return 0 },
		toBFloat16:   func([]uint16, []float32) int { return 0 },
		fromBFloat16: func([]float32, []uint16) int { return 0 },
		toInt32:      func([]int32, []float32) int { return 0 },
		fromInt32:    func([]float32, []int32) int { return 0 },
		fromUint8:    func([]float32, []uint8, float32) int { return 0 },
		fromInt8:     func([]float32, []int8, float32) int { return 0 },
	}
	for op := range NumUnary {
		f := unaryScalar[op]
		t.unary[op] = func(dst, a []float32) {
			for i, x := range a[:min(len(dst), len(a))] {
				dst[i] = f(x)
			}
		}
	}
	for op := range NumBinary {
		f := binaryScalar[op]
		t.binaryVV[op] = func(dst, a, b []float32) {
			for i, x := range a[:min(len(dst), len(a), len(b))] {
				dst[i] = f(x, b[i])
			}
		}
		t.binaryVS[op] = func(dst, a []float32, s float32) {
			for i, x := range a[:min(len(dst), len(a))] {
				dst[i] = f(x, s)
			}
		}
		t.binarySV[op] = func(dst, a []float32, s float32) {
			for i, x := range a[:min(len(dst), len(a))] {
				dst[i] = f(s, x)
			}
		}
	}
	for op := range NumCompare {
		t.compareVV[op] = func([]uint8, []float32, []float32) int { return 0 }
		t.compareVS[op] = func([]uint8, []float32, float32) int { return 0 }
	}
	tables[isa.Portable] = t
}

// fma rounds to float64 before it rounds to float32, which differs from one rounding in about one case in 2^29.
func fma(a, b, c float32) float32 { return float32(float64(a)*float64(b) + float64(c)) }

// f64 makes a float32 function of a float64 one.
func f64(f func(float64) float64) func(float32) float32 {
	return func(x float32) float32 { return float32(f(float64(x))) }
}

// unaryScalar is the definition of each unary function.
var unaryScalar = [NumUnary]func(float32) float32{
	Neg:        func(x float32) float32 { return -x },
	Abs:        f64(math.Abs),
	Sign:       sign,
	Square:     func(x float32) float32 { return x * x },
	Sqrt:       f64(math.Sqrt),
	Rsqrt:      func(x float32) float32 { return float32(1 / math.Sqrt(float64(x))) },
	Reciprocal: func(x float32) float32 { return 1 / x },
	Exp:        f64(math.Exp),
	Expm1:      f64(math.Expm1),
	Log:        f64(math.Log),
	Log1p:      f64(math.Log1p),
	Tanh:       f64(math.Tanh),
	Sigmoid:    f64(func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }),
	Softplus:   f64(func(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }),
	Erf:        f64(math.Erf),
	Sin:        f64(math.Sin),
	Cos:        f64(math.Cos),
	Floor:      f64(math.Floor),
	Ceil:       f64(math.Ceil),
	Round:      f64(math.RoundToEven),
	Relu: func(x float32) float32 {
		if x < 0 {
			return 0
		}
		return x
	},
}

func sign(x float32) float32 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return x
}

// binaryScalar is the definition of each binary function.
var binaryScalar = [NumBinary]func(a, b float32) float32{
	Add: func(a, b float32) float32 { return a + b },
	Sub: func(a, b float32) float32 { return a - b },
	Mul: func(a, b float32) float32 { return a * b },
	Div: func(a, b float32) float32 { return a / b },
	Max: func(a, b float32) float32 { return max(a, b) },
	Min: func(a, b float32) float32 { return min(a, b) },
	Pow: func(a, b float32) float32 { return float32(math.Pow(float64(a), float64(b))) },
	ReluGrad: func(a, b float32) float32 {
		if b > 0 {
			return a
		}
		return 0
	},
}
