// Package vec holds the single-thread leaf functions that elementwise work is made of.
//
// Terminology: a leaf function handles one block of elements, best about 1024 so that all its slices stay in the L1 cache, of any
// length and alignment. Every leaf handles the first n elements of each slice, n being the least of their lengths, as copy does. dst may
// be one of the sources (the same first element); any other overlap is a bug of the caller. Nothing here allocates.
//
// A form says which operands are slices (V) and which are scalars (S): Binary's forms are VV, VS (a[i] op s) and SV (s op a[i]).
//
// Functions such as Unary and Select return the leaf for isa.Current(); a caller resolves them once, when it compiles its work.
// The AVX2 and AVX-512 leaves are generated (see _asm); the portable ones compute in float64 and round, and are what the tests
// compare with. Arithmetic, rounding, comparisons, selects and conversions give the same bits on every instruction set
// (MulAdd but for its rare double rounding in portable code); the transcendental functions agree within their error bounds.
//
// Largest error, in units in the last place of the exact result, over all float32 arguments, denormals, infinities and NaN
// included (TestUnaryULP and TestPow hold these):
//
//	exp 1  expm1 1.75  log 1  log1p 1  tanh 1.5  sigmoid 2.5  softplus 2  erf 1.25  sin 1.5  cos 1.5  rsqrt 1.5  pow 0.51
//
//go:generate go run -C _asm ./vec -pkg vec -out ../vec_amd64.s -stubs ../stubs_amd64.go
package vec

import "github.com/jouleml/joule/internal/isa"

// UnaryOp names a function of one float32.
type UnaryOp uint8

// The unary functions. Values at infinities, NaN and outside the domain are those of Go's package math.
const (
	Neg UnaryOp = iota
	Abs
	Sign // -1, 0 or 1; a zero keeps its sign, NaN stays NaN
	Square
	Sqrt
	Rsqrt // 1/√x
	Reciprocal
	Exp
	Expm1 // e^x - 1
	Log
	Log1p // log(1+x)
	Tanh
	Sigmoid  // 1/(1 + e^-x)
	Softplus // log(1 + e^x)
	Erf
	Sin
	Cos
	Floor
	Ceil
	Round // to the nearest whole number, ties to even
	Relu  // x < 0 ? 0 : x, so that NaN stays
	NumUnary
)

var unaryNames = [NumUnary]string{"neg", "abs", "sign", "square", "sqrt", "rsqrt", "reciprocal", "exp", "expm1", "log", "log1p",
	"tanh", "sigmoid", "softplus", "erf", "sin", "cos", "floor", "ceil", "round", "relu"}

func (op UnaryOp) String() string { return unaryNames[op] }

// BinaryOp names a function of two float32.
type BinaryOp uint8

// The binary functions.
const (
	Add BinaryOp = iota
	Sub
	Mul
	Div
	Max // NaN if either is NaN; +0 above -0: Go's built-in max
	Min // likewise
	Pow // as math.Pow
	// ReluGrad is b > 0 ? a : 0: the gradient a of a ReLU passed on where its output (or input) b was positive.
	ReluGrad
	NumBinary
)

var binaryNames = [NumBinary]string{"add", "sub", "mul", "div", "max", "min", "pow", "relu_grad"}

func (op BinaryOp) String() string { return binaryNames[op] }

// CompareOp names a comparison. With a NaN on either side Ne is true and the others are false.
type CompareOp uint8

// The comparisons.
const (
	Eq CompareOp = iota
	Ne
	Lt
	Le
	Gt
	Ge
	NumCompare
)

var compareNames = [NumCompare]string{"eq", "ne", "lt", "le", "gt", "ge"}

func (op CompareOp) String() string { return compareNames[op] }

// Types of leaf functions. A mask is a []uint8 of 0 and 1.
type (
	UnaryFunc     = func(dst, a []float32)
	BinaryVVFunc  = func(dst, a, b []float32)
	BinaryVSFunc  = func(dst, a []float32, s float32)
	MulAddVVVFunc = func(dst, a, b, c []float32)
	MulAddVSVFunc = func(dst, a, c []float32, s float32)
	MulAddVSSFunc = func(dst, a []float32, s, t float32)
	CompareVVFunc = func(dst []uint8, a, b []float32)
	CompareVSFunc = func(dst []uint8, a []float32, s float32)
)

// table is every leaf that comes in several versions, for one instruction set.
type table struct {
	unary              [NumUnary]UnaryFunc
	binaryVV           [NumBinary]BinaryVVFunc
	binaryVS, binarySV [NumBinary]BinaryVSFunc
	mulAddVVV          MulAddVVVFunc
	mulAddVSV          MulAddVSVFunc
	mulAddVSS          MulAddVSSFunc
	compareVV          [NumCompare]compareVVPart
	compareVS          [NumCompare]compareVSPart
	selectVV           selectVVPart
	selectVS, selectSV selectVSPart
	toBFloat16         func(dst []uint16, a []float32) int
	fromBFloat16       func(dst []float32, a []uint16) int
	toInt32            func(dst []int32, a []float32) int
	fromInt32          func(dst []float32, a []int32) int
	fromUint8          func(dst []float32, a []uint8, s float32) int
	fromInt8           func(dst []float32, a []int8, s float32) int
}

// A part handles the elements that fill whole vectors and returns how many those were; portable loops do the others.
type (
	compareVVPart = func(dst []uint8, a, b []float32) int
	compareVSPart = func(dst []uint8, a []float32, s float32) int
	selectVVPart  = func(dst []float32, mask []uint8, a, b []float32) int
	selectVSPart  = func(dst []float32, mask []uint8, a []float32, s float32) int
)

// tables is filled by init functions: the portable one always, others where the CPU type has them.
var tables [isa.AVX512 + 1]*table

func current() *table { return tables[isa.Current()] }

// Unary is the leaf dst[i] = op(a[i]).
func Unary(op UnaryOp) UnaryFunc { return current().unary[op] }

// Binary is the leaf dst[i] = op(a[i], b[i]).
func Binary(op BinaryOp) BinaryVVFunc { return current().binaryVV[op] }

// BinaryVS is the leaf dst[i] = op(a[i], s).
func BinaryVS(op BinaryOp) BinaryVSFunc { return current().binaryVS[op] }

// BinarySV is the leaf dst[i] = op(s, a[i]).
func BinarySV(op BinaryOp) BinaryVSFunc { return current().binarySV[op] }

// MulAdd is the leaf dst[i] = a[i]*b[i] + c[i], rounded once.
func MulAdd() MulAddVVVFunc { return current().mulAddVVV }

// MulAddVSV is the leaf dst[i] = a[i]*s + c[i], rounded once.
func MulAddVSV() MulAddVSVFunc { return current().mulAddVSV }

// MulAddVSS is the leaf dst[i] = a[i]*s + t, rounded once.
func MulAddVSS() MulAddVSSFunc { return current().mulAddVSS }
