package op

import (
	"fmt"
	"math"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/stablehlo"
)

// Elementwise ops. Operands of a node have one shape; result i depends on elements i alone.
var (
	NegOp, AbsOp, SignOp, ExpOp, Expm1Op, LogOp, Log1pOp, SqrtOp, RsqrtOp    *graph.Op
	TanhOp, SigmoidOp, ErfOp, SinOp, CosOp, FloorOp, CeilOp, RoundOp         *graph.Op
	ReluOp, NotOp                                                            *graph.Op
	AddOp, SubOp, MulOp, DivOp, MaxOp, MinOp, PowOp, ReluGradOp, AndOp, OrOp *graph.Op
	EqOp, NeOp, LtOp, LeOp, GtOp, GeOp                                       *graph.Op
	SelectOp, ConvertOp, StopGradientOp                                      *graph.Op
)

// ConvertAttrs are the attributes of ConvertOp.
type ConvertAttrs struct{ To dtype.Type }

const (
	cannotRound = "the derivative is zero wherever it exists"
	noCompose   = "a function of its own in hardware and in every maths library; compositions lose accuracy"
)

func init() {
	NegOp = unary("neg", "-x", noCompose, isNumber, func(x float64) float64 { return -x },
		func(x, y, d *node) *node { return Neg(d) }, "negate", "Neg")
	AbsOp = unary("abs", "|x|", noCompose, isNumber, math.Abs,
		func(x, y, d *node) *node { return Mul(d, Sign(x)) }, "abs", "Abs")
	SignOp = unary("sign", "-1, 0 or 1 as x is negative, zero or positive; NaN of NaN", noCompose, isNumber, func(x float64) float64 {
		switch {
		case x > 0:
			return 1
		case x < 0:
			return -1
		}
		return x
	}, nil, "sign", "Sign")
	ExpOp = unary("exp", "e to the power x", noCompose, dtype.Type.IsFloat, math.Exp,
		func(x, y, d *node) *node { return Mul(d, y) }, "exponential", "Exp")
	Expm1Op = unary("expm1", "e to the power x, minus 1, accurate near 0", noCompose, dtype.Type.IsFloat, math.Expm1,
		func(x, y, d *node) *node { return Mul(d, Add(y, Like(y, 1))) }, "exponential_minus_one", "")
	LogOp = unary("log", "natural logarithm", noCompose, dtype.Type.IsFloat, math.Log,
		func(x, y, d *node) *node { return Div(d, x) }, "log", "Log", positive)
	Log1pOp = unary("log1p", "natural logarithm of 1 + x, accurate near 0", noCompose, dtype.Type.IsFloat, math.Log1p,
		func(x, y, d *node) *node { return Div(d, Add(x, Like(x, 1))) }, "log_plus_one", "", positive)
	SqrtOp = unary("sqrt", "square root", noCompose, dtype.Type.IsFloat, math.Sqrt,
		func(x, y, d *node) *node { return Div(Mul(d, Like(d, 0.5)), y) }, "sqrt", "Sqrt", positive)
	RsqrtOp = unary("rsqrt", "1/√x", noCompose, dtype.Type.IsFloat, func(x float64) float64 { return 1 / math.Sqrt(x) },
		func(x, y, d *node) *node { return Mul(Mul(d, Like(d, -0.5)), Div(y, x)) }, "rsqrt", "", positive)
	TanhOp = unary("tanh", "hyperbolic tangent", noCompose, dtype.Type.IsFloat, math.Tanh,
		func(x, y, d *node) *node { return Mul(d, Sub(Like(y, 1), Mul(y, y))) }, "tanh", "Tanh")
	SigmoidOp = unary("sigmoid", "1/(1+e^-x)", noCompose, dtype.Type.IsFloat, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) },
		func(x, y, d *node) *node { return Mul(d, Mul(y, Sub(Like(y, 1), y))) }, "logistic", "Sigmoid")
	ErfOp = unary("erf", "error function", noCompose, dtype.Type.IsFloat, math.Erf,
		func(x, y, d *node) *node { return Mul(d, Mul(Like(d, 2/math.SqrtPi), Exp(Neg(Mul(x, x))))) }, "chlo.erf", "Erf")
	SinOp = unary("sin", "sine of radians", noCompose, dtype.Type.IsFloat, math.Sin,
		func(x, y, d *node) *node { return Mul(d, Cos(x)) }, "sine", "Sin")
	CosOp = unary("cos", "cosine of radians", noCompose, dtype.Type.IsFloat, math.Cos,
		func(x, y, d *node) *node { return Neg(Mul(d, Sin(x))) }, "cosine", "Cos")
	FloorOp = unary("floor", "greatest integer ≤ x", noCompose, dtype.Type.IsFloat, math.Floor, nil, "floor", "Floor")
	CeilOp = unary("ceil", "least integer ≥ x", noCompose, dtype.Type.IsFloat, math.Ceil, nil, "ceil", "Ceil")
	RoundOp = unary("round", "nearest integer, ties to even", noCompose, dtype.Type.IsFloat, math.RoundToEven, nil, "round_nearest_even", "Round")
	ReluOp = unary("relu", "max(x, 0)", "its derivative at 0 is 0 by definition, not that of max", isNumber, func(x float64) float64 {
		if x < 0 {
			return 0
		}
		return x
	}, func(x, y, d *node) *node { return ReluGrad(y, d) }, "", "Relu", func(s *graph.Sample) { s.Lo, s.Hi = 0.1, 1 })
	lowered(ReluOp, func(b text, in []hlo) hlo { return b.Scale("maximum", in[0], 0) })
	NotOp = add(def[none]{
		Name: "not", Doc: "logical negation", Why: "the base of Boolean algebra", Kind: graph.Elementwise, HLO: "not", ONNX: "Not",
		Infer: func(_ none, in []typ) ([]typ, error) {
			if err := sameType(in, 1, isBool, "it must be bool"); err != nil {
				return nil, err
			}
			return one(dtype.Bool, in[0].Shape)
		},
		Ref:     func(_ none, in, out []value) { each1(in, out, func(x float64) float64 { return 1 - x }) },
		NoGrad:  "Booleans have no derivative",
		Samples: []graph.Sample{{Name: "bool", In: types(graph.T(dtype.Bool, 3, 5))}},
	})

	AddOp = binary("add", "a + b", isNumber, func(a, b float64) float64 { return a + b },
		func(a, b, y, d *node) (*node, *node) { return d, d }, "add", "Add")
	SubOp = binary("sub", "a - b", isNumber, func(a, b float64) float64 { return a - b },
		func(a, b, y, d *node) (*node, *node) { return d, Neg(d) }, "subtract", "Sub")
	MulOp = binary("mul", "a · b", isNumber, func(a, b float64) float64 { return a * b },
		func(a, b, y, d *node) (*node, *node) { return Mul(d, b), Mul(d, a) }, "multiply", "Mul")
	DivOp = binary("div", "a / b; of integers, truncated toward zero, and all bits set where b is 0", isNumber, func(a, b float64) float64 { return a / b },
		func(a, b, y, d *node) (*node, *node) { q := Div(d, b); return q, Neg(Mul(q, y)) }, "divide", "Div", positive)
	MaxOp = binary("max", "the greater of a and b; NaN if either is", isNumber, math.Max,
		func(a, b, y, d *node) (*node, *node) { return pick(a, b, d), pick(b, a, d) }, "maximum", "Max")
	MinOp = binary("min", "the lesser of a and b; NaN if either is", isNumber, math.Min,
		func(a, b, y, d *node) (*node, *node) { return pick(b, a, d), pick(a, b, d) }, "minimum", "Min")
	PowOp = binary("pow", "a to the power b", dtype.Type.IsFloat, math.Pow, func(a, b, y, d *node) (*node, *node) {
		da := Mul(Mul(d, b), Pow(a, Sub(b, Like(b, 1))))
		pos := Gt(a, Like(a, 0))
		log := Log(Select(pos, a, Like(a, 1))) // log 1 = 0: where a ≤ 0 no gradient reaches b
		return da, Mul(Mul(d, y), log)
	}, "power", "Pow", positive)
	ReluGradOp = binary("relu_grad", "b where a > 0, else 0: the gradient b behind a rectifier with result a", isNumber, func(a, b float64) float64 {
		if a > 0 {
			return b
		}
		return 0
	}, func(a, b, y, d *node) (*node, *node) { return nil, ReluGrad(a, d) }, "", "", func(s *graph.Sample) { s.Lo, s.Hi = 0.1, 1 })
	lowered(ReluGradOp, func(b text, in []hlo) hlo {
		return b.Select(b.Compare("GT", in[0], b.Like(in[0], 0)), in[1], b.Like(in[1], 0))
	})
	AndOp = logic("and", "a and b", func(a, b float64) float64 { return a * b }, "and", "And")
	OrOp = logic("or", "a or b", math.Max, "or", "Or")

	EqOp = compare("eq", "EQ", "a = b", func(a, b float64) bool { return a == b }, "Equal")
	NeOp = compare("ne", "NE", "a ≠ b", func(a, b float64) bool { return a != b }, "")
	LtOp = compare("lt", "LT", "a < b", func(a, b float64) bool { return a < b }, "Less")
	LeOp = compare("le", "LE", "a ≤ b", func(a, b float64) bool { return a <= b }, "LessOrEqual")
	GtOp = compare("gt", "GT", "a > b", func(a, b float64) bool { return a > b }, "Greater")
	GeOp = compare("ge", "GE", "a ≥ b", func(a, b float64) bool { return a >= b }, "GreaterOrEqual")

	SelectOp = add(def[none]{
		Name: "select", Doc: "element of a where the mask is true, else of b", Why: "multiplying by a mask turns infinities into NaN",
		Kind: graph.Elementwise, HLO: "select", ONNX: "Where",
		Infer: func(_ none, in []typ) ([]typ, error) {
			if err := operands(in, 3); err != nil {
				return nil, err
			}
			if in[0].DType != dtype.Bool {
				return nil, fmt.Errorf("the mask must be bool, not %v", in[0].DType)
			}
			if !in[1].Equal(in[2]) || !in[0].Shape.Equal(in[1].Shape) {
				return nil, fmt.Errorf("mask %v and operands %v, %v must have one shape and the operands one element type", in[0].Shape, in[1], in[2])
			}
			return in[1:2], nil
		},
		Ref: func(_ none, in, out []value) {
			for i, m := range in[0].Data {
				if out[0].Data[i] = in[2].Data[i]; m != 0 {
					out[0].Data[i] = in[1].Data[i]
				}
			}
		},
		Grad: func(_ none, n *node, d []*node) []*node {
			z := zeros(d[0])
			return []*node{nil, Select(n.Input(0), d[0], z), Select(n.Input(0), z, d[0])}
		},
		Samples: []graph.Sample{{Name: "f32", In: types(graph.T(dtype.Bool, 3, 7), f32(3, 7), f32(3, 7))},
			{Name: "i32", In: types(graph.T(dtype.Bool, 4), graph.T(dtype.I32, 4), graph.T(dtype.I32, 4))},
			{Name: "mask of floats", In: types(f32(2), f32(2), f32(2)), Bad: "must be bool"}},
	})
	ConvertOp = add(def[ConvertAttrs]{
		Name: "convert", Doc: "the elements as another type: floats round to nearest even, to an integer toward zero, to bool as x ≠ 0",
		Why: "crosses element types", Kind: graph.Elementwise, HLO: "convert", ONNX: "Cast",
		Infer: func(a ConvertAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 1); err != nil {
				return nil, err
			}
			if !a.To.Valid() {
				return nil, fmt.Errorf("no element type to convert to")
			}
			return one(a.To, in[0].Shape)
		},
		Ref: func(a ConvertAttrs, in, out []value) {
			each1(in, out, func(x float64) float64 {
				switch {
				case a.To == dtype.Bool:
					if x != 0 {
						return 1
					}
					return 0
				case a.To == dtype.BF16:
					return float64(dtype.ToBFloat16(float32(x)).Float32())
				case a.To.IsInt():
					return wrap(a.To, math.Trunc(x))
				}
				return x
			})
		},
		Grad: func(a ConvertAttrs, n *node, d []*node) []*node {
			from := n.Input(0).DType()
			if !from.IsFloat() || !a.To.IsFloat() {
				return []*node{nil}
			}
			return []*node{Convert(d[0], from)}
		},
		Lower: func(a ConvertAttrs, b text, in []hlo, _ []typ) []hlo {
			x := in[0]
			if x.Elem.IsFloat() && (a.To == dtype.I8 || a.To == dtype.U8) { // bytes wrap; XLA's own conversion of floats beyond their range does not
				x = b.Convert(x, stablehlo.I32)
			}
			return []hlo{b.Convert(x, stablehlo.Of(a.To))}
		},
		Samples: []graph.Sample{{Name: "f32 to f64", Attrs: ConvertAttrs{dtype.F64}, In: types(f32(3, 5))},
			{Name: "f32 to i32", Attrs: ConvertAttrs{dtype.I32}, In: types(f32(3, 5)), Lo: -100, Hi: 100, NoGrad: true},
			{Name: "i32 to f32", Attrs: ConvertAttrs{dtype.F32}, In: types(graph.T(dtype.I32, 9)), NoGrad: true},
			{Name: "u8 to f32", Attrs: ConvertAttrs{dtype.F32}, In: types(graph.T(dtype.U8, 9)), NoGrad: true},
			{Name: "bool to f32", Attrs: ConvertAttrs{dtype.F32}, In: types(graph.T(dtype.Bool, 9)), NoGrad: true},
			{Name: "f32 to bf16", Attrs: ConvertAttrs{dtype.BF16}, In: types(f32(9)), NoGrad: true},
			{Name: "bf16 to f32", Attrs: ConvertAttrs{dtype.F32}, In: types(graph.T(dtype.BF16, 9)), NoGrad: true}},
	})
	StopGradientOp = add(def[none]{
		Name: "stop_gradient", Doc: "x itself; no gradient flows through it", Why: "it is a statement to autodiff", Kind: graph.Elementwise, ONNX: "Identity",
		Infer:   func(_ none, in []typ) ([]typ, error) { return in, operands(in, 1) },
		Ref:     func(_ none, in, out []value) { copy(out[0].Data, in[0].Data) },
		NoGrad:  "that is its purpose",
		Lower:   func(_ none, _ text, in []hlo, _ []typ) []hlo { return in },
		Samples: []graph.Sample{{Name: "f32", In: types(f32(5))}},
	})
}

func isBool(t dtype.Type) bool { return t == dtype.Bool }

// positive is a sample option: operands away from zero.
func positive(s *graph.Sample) { s.Lo, s.Hi = 0.5, 2 }

func each1(in, out []value, f func(float64) float64) {
	for i, x := range in[0].Data {
		out[0].Data[i] = f(x)
	}
}

func each2(in, out []value, f func(a, b float64) float64) {
	for i, x := range in[0].Data {
		out[0].Data[i] = f(x, in[1].Data[i])
	}
}

// wrap brings an integer result into the range of its type, as two's complement does.
func wrap(dt dtype.Type, x float64) float64 {
	if x != x {
		return 0
	}
	switch dt {
	case dtype.I8:
		return float64(int8(int64(x)))
	case dtype.U8:
		return float64(uint8(int64(x)))
	case dtype.I32:
		return float64(int32(int64(x)))
	}
	return x
}

func unary(name, doc, why string, ok func(dtype.Type) bool, f func(float64) float64, grad func(x, y, d *node) *node, hlo, onnx string, opts ...func(*graph.Sample)) *graph.Op {
	d := def[none]{
		Name: name, Doc: doc, Why: why, Kind: graph.Elementwise, HLO: hlo, ONNX: onnx,
		Infer: func(_ none, in []typ) ([]typ, error) {
			if err := sameType(in, 1, ok, "it must be a number of the kind that the function is defined on"); err != nil {
				return nil, err
			}
			return one(in[0].DType, in[0].Shape)
		},
		Ref: func(_ none, in, out []value) {
			dt := in[0].Type.DType
			each1(in, out, func(x float64) float64 { return wrapInt(dt, f(x)) })
		},
		NoGrad: cannotRound,
	}
	if grad != nil {
		d.NoGrad = ""
		d.Grad = func(_ none, n *node, dy []*node) []*node { return []*node{grad(n.Input(0), n, dy[0])} }
	}
	d.Samples = sized(1, dtype.F32, opts)
	if ok(dtype.I32) {
		d.Samples = append(d.Samples, graph.Sample{Name: "i32", In: types(graph.T(dtype.I32, 9)), NoGrad: true})
	}
	d.Samples = append(d.Samples, graph.Sample{Name: "f64", In: types(graph.T(dtype.F64, 9)), Lo: d.Samples[0].Lo, Hi: d.Samples[0].Hi},
		graph.Sample{Name: "bool", In: types(graph.T(dtype.Bool, 3)), Bad: "not supported"})
	return add(d)
}

// sized makes samples of n operands in the sizes around a vector register: none, one, odd, many.
func sized(n int, dt dtype.Type, opts []func(*graph.Sample)) []graph.Sample {
	var out []graph.Sample
	for _, sh := range []shape.Shape{{3, 5}, {}, {0}, {1}, {17, 67}} {
		s := graph.Sample{Name: sh.String()}
		for range n {
			s.In = append(s.In, typ{DType: dt, Shape: sh})
		}
		for _, o := range opts {
			o(&s)
		}
		out = append(out, s)
	}
	return out
}

func wrapInt(dt dtype.Type, x float64) float64 {
	if dt.IsInt() {
		return wrap(dt, math.Trunc(x))
	}
	return x
}

func sameShape(in []typ) error {
	if !in[0].Shape.Equal(in[1].Shape) {
		return fmt.Errorf("operands have shapes %v and %v", in[0].Shape, in[1].Shape)
	}
	return nil
}

func binary(name, doc string, ok func(dtype.Type) bool, f func(a, b float64) float64, grad func(a, b, y, d *node) (*node, *node), hlo, onnx string, opts ...func(*graph.Sample)) *graph.Op {
	s := sized(2, dtype.F32, opts)
	s = append(s, graph.Sample{Name: "f64", In: types(graph.T(dtype.F64, 9), graph.T(dtype.F64, 9)), Lo: s[0].Lo, Hi: s[0].Hi},
		graph.Sample{Name: "types differ", In: types(f32(3), graph.T(dtype.F64, 3)), Bad: "different element types"},
		graph.Sample{Name: "shapes differ", In: types(f32(3), f32(4)), Bad: "shapes [3] and [4]"})
	if ok(dtype.I32) {
		s = append(s, graph.Sample{Name: "i32", In: types(graph.T(dtype.I32, 9), graph.T(dtype.I32, 9)), NoGrad: true})
	}
	return add(def[none]{
		Name: name, Doc: doc, Why: noCompose, Kind: graph.Elementwise, HLO: hlo, ONNX: onnx,
		Infer: func(_ none, in []typ) ([]typ, error) {
			if err := sameType(in, 2, ok, "it must be a number of the kind that the function is defined on"); err != nil {
				return nil, err
			}
			return in[:1], sameShape(in)
		},
		Ref: func(_ none, in, out []value) {
			dt := in[0].Type.DType
			each2(in, out, func(a, b float64) float64 {
				if dt.IsInt() && b == 0 && name == "div" {
					return wrap(dt, -1)
				}
				return wrapInt(dt, f(a, b))
			})
		},
		Grad: func(_ none, n *node, d []*node) []*node {
			a, b := grad(n.Input(0), n.Input(1), n, d[0])
			return []*node{a, b}
		},
		Samples: s,
	})
}

func logic(name, doc string, f func(a, b float64) float64, hlo, onnx string) *graph.Op {
	return add(def[none]{
		Name: name, Doc: doc, Why: "the base of Boolean algebra", Kind: graph.Elementwise, HLO: hlo, ONNX: onnx,
		Infer: func(_ none, in []typ) ([]typ, error) {
			if err := sameType(in, 2, isBool, "it must be bool"); err != nil {
				return nil, err
			}
			return in[:1], sameShape(in)
		},
		Ref:    func(_ none, in, out []value) { each2(in, out, f) },
		NoGrad: "Booleans have no derivative",
		Samples: []graph.Sample{{Name: "bool", In: types(graph.T(dtype.Bool, 3, 5), graph.T(dtype.Bool, 3, 5))},
			{Name: "floats", In: types(f32(2), f32(2)), Bad: "must be bool"}},
	})
}

func compare(name, direction, doc string, f func(a, b float64) bool, onnx string) *graph.Op {
	return add(def[none]{
		Name: name, Doc: doc + ", as bool; false if either is NaN (true for ne)", Why: noCompose, Kind: graph.Elementwise, HLO: "compare", ONNX: onnx,
		Infer: func(_ none, in []typ) ([]typ, error) {
			if err := sameType(in, 2, anyType, ""); err != nil {
				return nil, err
			}
			if err := sameShape(in); err != nil {
				return nil, err
			}
			return one(dtype.Bool, in[0].Shape)
		},
		Ref: func(_ none, in, out []value) {
			each2(in, out, func(a, b float64) float64 {
				if f(a, b) {
					return 1
				}
				return 0
			})
		},
		NoGrad: "Booleans have no derivative",
		Lower:  func(_ none, b text, in []hlo, _ []typ) []hlo { return []hlo{b.Compare(direction, in[0], in[1])} },
		Samples: append(sized(2, dtype.F32, nil), sized(2, dtype.I32, nil)[0],
			graph.Sample{Name: "shapes differ", In: types(f32(3), f32(4)), Bad: "shapes [3] and [4]"}),
	})
}

// pick is the gradient of max(a, b) for a: d where a is greater, half of it at a tie.
func pick(a, b, d *node) *node {
	half := Select(Eq(a, b), Mul(d, Like(d, 0.5)), zeros(d))
	return Select(Gt(a, b), d, half)
}

// lowered gives an op made by unary or binary its StableHLO, where that is not one instruction.
func lowered(o *graph.Op, f func(b text, in []hlo) hlo) {
	o.Lower = func(_ any, b text, in []hlo, _ []typ) []hlo { return []hlo{f(b, in)} }
}

func un(o *graph.Op, x *node) *node { return x.Graph().Apply(o, nil, x) }

func bin(o *graph.Op, a, b *node) *node {
	a, b = broadcastPair(o, a, b)
	return a.Graph().Apply(o, nil, a, b)
}

func broadcastPair(o *graph.Op, a, b *node) (*node, *node) {
	if a.Shape().Equal(b.Shape()) {
		return a, b
	}
	sh, err := shape.Broadcast(a.Shape(), b.Shape())
	if err != nil {
		a.Graph().Fail(o.Name, []*node{a, b}, "%v", err)
	}
	return BroadcastTo(a, sh...), BroadcastTo(b, sh...)
}

// Neg is -x.
func Neg(x *node) *node { return un(NegOp, x) }

// Abs is |x|.
func Abs(x *node) *node { return un(AbsOp, x) }

// Sign is -1, 0 or 1.
func Sign(x *node) *node { return un(SignOp, x) }

// Exp is e to the power x.
func Exp(x *node) *node { return un(ExpOp, x) }

// Expm1 is e to the power x, minus 1.
func Expm1(x *node) *node { return un(Expm1Op, x) }

// Log is the natural logarithm.
func Log(x *node) *node { return un(LogOp, x) }

// Log1p is the natural logarithm of 1 + x.
func Log1p(x *node) *node { return un(Log1pOp, x) }

// Sqrt is the square root.
func Sqrt(x *node) *node { return un(SqrtOp, x) }

// Rsqrt is 1/√x.
func Rsqrt(x *node) *node { return un(RsqrtOp, x) }

// Tanh is the hyperbolic tangent.
func Tanh(x *node) *node { return un(TanhOp, x) }

// Sigmoid is 1/(1+e^-x).
func Sigmoid(x *node) *node { return un(SigmoidOp, x) }

// Erf is the error function.
func Erf(x *node) *node { return un(ErfOp, x) }

// Sin is the sine.
func Sin(x *node) *node { return un(SinOp, x) }

// Cos is the cosine.
func Cos(x *node) *node { return un(CosOp, x) }

// Floor is the greatest integer ≤ x.
func Floor(x *node) *node { return un(FloorOp, x) }

// Ceil is the least integer ≥ x.
func Ceil(x *node) *node { return un(CeilOp, x) }

// Round is the nearest integer, ties to even.
func Round(x *node) *node { return un(RoundOp, x) }

// Relu is max(x, 0).
func Relu(x *node) *node { return un(ReluOp, x) }

// Not is logical negation.
func Not(x *node) *node { return un(NotOp, x) }

// StopGradient is x, through which no gradient flows.
func StopGradient(x *node) *node { return un(StopGradientOp, x) }

// Add is a + b, broadcasting.
func Add(a, b *node) *node { return bin(AddOp, a, b) }

// Sub is a - b, broadcasting.
func Sub(a, b *node) *node { return bin(SubOp, a, b) }

// Mul is a · b element by element, broadcasting.
func Mul(a, b *node) *node { return bin(MulOp, a, b) }

// Div is a / b, broadcasting.
func Div(a, b *node) *node { return bin(DivOp, a, b) }

// Max is the greater of a and b, broadcasting.
func Max(a, b *node) *node { return bin(MaxOp, a, b) }

// Min is the lesser of a and b, broadcasting.
func Min(a, b *node) *node { return bin(MinOp, a, b) }

// Pow is a to the power b, broadcasting.
func Pow(a, b *node) *node { return bin(PowOp, a, b) }

// ReluGrad is d where y > 0, else 0.
func ReluGrad(y, d *node) *node { return bin(ReluGradOp, y, d) }

// And is a and b, broadcasting.
func And(a, b *node) *node { return bin(AndOp, a, b) }

// Or is a or b, broadcasting.
func Or(a, b *node) *node { return bin(OrOp, a, b) }

// Eq is a = b as bool, broadcasting.
func Eq(a, b *node) *node { return bin(EqOp, a, b) }

// Ne is a ≠ b as bool, broadcasting.
func Ne(a, b *node) *node { return bin(NeOp, a, b) }

// Lt is a < b as bool, broadcasting.
func Lt(a, b *node) *node { return bin(LtOp, a, b) }

// Le is a ≤ b as bool, broadcasting.
func Le(a, b *node) *node { return bin(LeOp, a, b) }

// Gt is a > b as bool, broadcasting.
func Gt(a, b *node) *node { return bin(GtOp, a, b) }

// Ge is a ≥ b as bool, broadcasting.
func Ge(a, b *node) *node { return bin(GeOp, a, b) }

// Select takes a where mask is true and b elsewhere, broadcasting all three.
func Select(mask, a, b *node) *node {
	a, b = broadcastPair(SelectOp, a, b)
	if !mask.Shape().Equal(a.Shape()) {
		sh, err := shape.Broadcast(mask.Shape(), a.Shape())
		if err != nil {
			a.Graph().Fail("select", []*node{mask, a, b}, "%v", err)
		}
		mask, a, b = BroadcastTo(mask, sh...), BroadcastTo(a, sh...), BroadcastTo(b, sh...)
	}
	return a.Graph().Apply(SelectOp, nil, mask, a, b)
}

// Convert gives the elements as type dt; x itself if it has that type.
func Convert(x *node, dt dtype.Type) *node {
	if x.DType() == dt {
		return x
	}
	return x.Graph().Apply(ConvertOp, ConvertAttrs{dt}, x)
}
