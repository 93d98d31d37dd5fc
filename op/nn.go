package op

import (
	"fmt"
	"math"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/tensor"
)

// Ops composed of others, which a backend may run with a kernel of their own.
var (
	GeluOp, SiluOp, SoftplusOp, EluOp, LeakyReluOp *graph.Op
	SoftmaxOp, LogSoftmaxOp                        *graph.Op
	SparseXentOp, SparseXentGradOp                 *graph.Op
	LinearOp, ConvActOp                            *graph.Op
)

// Attributes of composed ops.
type (
	// GeluAttrs choose between the exact function and Hendrycks & Gimpel's tanh approximation (arXiv:1606.08415).
	GeluAttrs struct{ Tanh bool }
	// SlopeAttrs hold the slope (LeakyRelu) or scale (Elu) for negative x.
	SlopeAttrs struct{ Alpha float64 }
	// XentAttrs are the attributes of the cross-entropy ops: a share Smoothing of each label is spread over all classes;
	// examples whose label is Ignore (if UseIgnore) cost nothing.
	XentAttrs struct {
		Smoothing float64
		Ignore    int32
		UseIgnore bool
	}
	// ActAttrs name the activation of LinearOp: "" or "relu".
	ActAttrs struct{ Act string }
	// ConvActAttrs are the attributes of ConvActOp.
	ConvActAttrs struct {
		Conv ConvAttrs
		Act  string
	}
)

// floats makes the Infer of an op with n float operands whose result is like the first.
func floats(n int) func(in []typ) error {
	return func(in []typ) error { return sameType(in, n, dtype.Type.IsFloat, "it must be a float") }
}

// lastAxis checks a float operand with at least one axis.
func lastAxis(in []typ) error {
	if !in[0].DType.IsFloat() || len(in[0].Shape) == 0 || in[0].Shape[len(in[0].Shape)-1] == 0 {
		return fmt.Errorf("takes floats with a last axis that is not empty, not %v", in[0])
	}
	return nil
}

func keepLast(reduced, x *node) *node {
	keep := x.Shape().Clone()
	keep[len(keep)-1] = 1
	return BroadcastTo(Reshape(reduced, keep...), x.Shape()...)
}

func act[A any](name, doc, onnx string, attr any, f func(a A, x *node) *node, flops int64) *graph.Op {
	return add(def[A]{
		Name: name, Doc: doc, Kind: graph.Elementwise, ONNX: onnx,
		Infer:     func(_ A, in []typ) ([]typ, error) { return in, floats(1)(in) },
		Decompose: func(a A, in []*node) []*node { return []*node{f(a, in[0])} },
		FLOPs:     func(_ A, in, _ []typ) int64 { return flops * int64(in[0].Shape.Size()) },
		Samples:   []graph.Sample{{Name: "f32", Attrs: attr, In: types(f32(5, 37)), Lo: -3, Hi: 3}, {Name: "ints", Attrs: attr, In: types(graph.T(dtype.I32, 3)), Bad: "must be a float"}},
	})
}

func init() {
	GeluOp = act("gelu", "x·Φ(x), Φ the normal distribution function", "Gelu", GeluAttrs{}, func(a GeluAttrs, x *node) *node {
		half := Mul(x, Like(x, 0.5))
		if a.Tanh {
			inner := Mul(Like(x, math.Sqrt(2/math.Pi)), Add(x, Mul(Like(x, 0.044715), Mul(x, Mul(x, x)))))
			return Mul(half, Add(Tanh(inner), Like(x, 1)))
		}
		return Mul(half, Add(Erf(Mul(x, Like(x, math.Sqrt2/2))), Like(x, 1)))
	}, 5)
	SiluOp = act("silu", "x·sigmoid(x)", "", nil, func(_ none, x *node) *node { return Mul(x, Sigmoid(x)) }, 2)
	SoftplusOp = act("softplus", "log(1+e^x)", "Softplus", nil, func(_ none, x *node) *node {
		return Add(Relu(x), Log1p(Exp(Neg(Abs(x)))))
	}, 4)
	EluOp = act("elu", "x where x > 0, else α·(e^x - 1)", "Elu", SlopeAttrs{1}, func(a SlopeAttrs, x *node) *node {
		return Select(Gt(x, Like(x, 0)), x, Mul(Like(x, a.Alpha), Expm1(Min(x, Like(x, 0)))))
	}, 4)
	LeakyReluOp = act("leaky_relu", "x where x > 0, else α·x", "LeakyRelu", SlopeAttrs{0.2}, func(a SlopeAttrs, x *node) *node {
		return Select(Gt(x, Like(x, 0)), x, Mul(Like(x, a.Alpha), x))
	}, 2)
	SoftmaxOp = add(def[none]{
		Name: "softmax", Doc: "e^x over its sum along the last axis", Kind: graph.Reduction, ONNX: "Softmax",
		Infer: softmaxInfer,
		Decompose: func(_ none, in []*node) []*node {
			x := in[0]
			last := len(x.Shape()) - 1
			e := Exp(Sub(x, keepLast(StopGradient(ReduceMax(x, last)), x)))
			return []*node{Div(e, keepLast(Sum(e, last), x))}
		},
		Grad: func(_ none, n *node, d []*node) []*node { // Jacobian: diag(y) - y·yᵀ
			last := len(n.Shape()) - 1
			dy := Mul(d[0], n)
			return []*node{Sub(dy, Mul(n, keepLast(Sum(dy, last), n)))}
		},
		FLOPs:   func(_ none, in, _ []typ) int64 { return 5 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{{Name: "rows", In: types(f32(7, 10)), Lo: -5, Hi: 5}, {Name: "heads", In: types(f32(2, 3, 33))}, {Name: "scalar", In: types(f32()), Bad: "last axis"}},
	})
	LogSoftmaxOp = add(def[none]{
		Name: "log_softmax", Doc: "logarithm of softmax along the last axis, accurate where that is near 0", Kind: graph.Reduction, ONNX: "LogSoftmax",
		Infer: softmaxInfer,
		Decompose: func(_ none, in []*node) []*node {
			x := in[0]
			last := len(x.Shape()) - 1
			z := Sub(x, keepLast(StopGradient(ReduceMax(x, last)), x))
			return []*node{Sub(z, keepLast(Log(Sum(Exp(z), last)), x))}
		},
		FLOPs:   func(_ none, in, _ []typ) int64 { return 5 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{{Name: "rows", In: types(f32(7, 10)), Lo: -5, Hi: 5}},
	})
	classes, labels := tensor.Of([]int32{3, 0, 9, 2, 4}), tensor.Of([]int32{3, 0, 9, -1, 4})
	xentInfer := func(in []typ) error {
		if err := operands(in, 2); err != nil {
			return err
		}
		if err := lastAxis(in); err != nil {
			return err
		}
		if s := in[0].Shape; in[1].DType != dtype.I32 || !in[1].Shape.Equal(s[:len(s)-1]) {
			return fmt.Errorf("logits %v need labels i32%v, not %v", in[0], s[:len(s)-1], in[1])
		}
		return nil
	}
	SparseXentOp = add(def[XentAttrs]{
		Name: "sparse_xent", Doc: "cross-entropy of softmax(logits [… C]) with labels i32 […], for each example; NaN for a label that is no class",
		Kind: graph.Reduction, ONNX: "SoftmaxCrossEntropyLoss",
		Infer: func(_ XentAttrs, in []typ) ([]typ, error) {
			if err := xentInfer(in); err != nil {
				return nil, err
			}
			return one(in[0].DType, in[1].Shape)
		},
		Decompose: func(a XentAttrs, in []*node) []*node {
			lp := LogSoftmax(in[0])
			last := len(lp.Shape()) - 1
			return []*node{Neg(Sum(Mul(targets(a, in[0], in[1]), lp), last))}
		},
		Grad: func(a XentAttrs, n *node, d []*node) []*node {
			g := n.Graph().Apply(SparseXentGradOp, a, n.Input(0), n.Input(1), d[0])
			return []*node{g, nil}
		},
		FLOPs: func(_ XentAttrs, in, _ []typ) int64 { return 5 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{
			{Name: "plain", Attrs: XentAttrs{}, In: types(f32(5, 10), graph.T(dtype.I32, 5)), Data: []*tensor.Tensor{nil, classes}, Lo: -4, Hi: 4},
			{Name: "no class", Attrs: XentAttrs{}, In: types(f32(5, 10), graph.T(dtype.I32, 5)), Data: []*tensor.Tensor{nil, labels}, NoGrad: true},
			{Name: "smoothed, ignoring", Attrs: XentAttrs{0.1, -1, true}, In: types(f32(5, 10), graph.T(dtype.I32, 5)), Data: []*tensor.Tensor{nil, labels}},
			{Name: "shapes", Attrs: XentAttrs{}, In: types(f32(5, 10), graph.T(dtype.I32, 4)), Bad: "need labels"},
		},
	})
	SparseXentGradOp = add(def[XentAttrs]{
		Name: "sparse_xent_grad", Doc: "gradient of sparse_xent for the logits: (softmax - target)·d", Kind: graph.Reduction,
		Infer: func(_ XentAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 3); err != nil {
				return nil, err
			}
			if err := xentInfer(in[:2]); err != nil {
				return nil, err
			}
			if !in[2].Shape.Equal(in[1].Shape) || in[2].DType != in[0].DType {
				return nil, fmt.Errorf("one gradient for each label is needed, %v%v, not %v", in[0].DType, in[1].Shape, in[2])
			}
			return in[:1], nil
		},
		Decompose: func(a XentAttrs, in []*node) []*node {
			x := in[0]
			t := targets(a, x, in[1])
			last := len(x.Shape()) - 1
			// Where the target is nothing (ignored, or no class) its sum is 0 and so is the gradient.
			p := Mul(Softmax(x), keepLast(Sum(t, last), x))
			return []*node{Mul(Sub(p, t), keepLast(in[2], x))}
		},
		FLOPs: func(_ XentAttrs, in, _ []typ) int64 { return 6 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{
			{Name: "plain", Attrs: XentAttrs{}, In: types(f32(5, 10), graph.T(dtype.I32, 5), f32(5)), Data: []*tensor.Tensor{nil, classes}, Lo: -4, Hi: 4},
			{Name: "smoothed, ignoring", Attrs: XentAttrs{0.1, -1, true}, In: types(f32(5, 10), graph.T(dtype.I32, 5), f32(5)), Data: []*tensor.Tensor{nil, labels}},
		},
	})
	LinearOp = add(def[ActAttrs]{
		Name: "linear", Doc: "x [M K]·w [K N] + bias [N], rectified if asked for: what pass fuse makes of a dense layer", Kind: graph.Contraction, ONNX: "Gemm",
		Infer: func(_ ActAttrs, in []typ) ([]typ, error) {
			if err := floats(3)(in); err != nil {
				return nil, err
			}
			x, w, b := in[0].Shape, in[1].Shape, in[2].Shape
			if len(x) != 2 || len(w) != 2 || len(b) != 1 || x[1] != w[0] || w[1] != b[0] {
				return nil, fmt.Errorf("takes [M K], [K N] and [N], not %v, %v and %v", x, w, b)
			}
			return []typ{graph.T(in[0].DType, x[0], w[1])}, nil
		},
		Decompose: func(a ActAttrs, in []*node) []*node {
			return []*node{activate(a.Act, Add(MatMul(in[0], in[1]), in[2]))}
		},
		FLOPs: func(_ ActAttrs, in, out []typ) int64 {
			return 2*int64(in[0].Shape.Size()*in[1].Shape[1]) + 2*int64(out[0].Shape.Size())
		},
		Samples: []graph.Sample{{Name: "relu", Attrs: ActAttrs{"relu"}, In: types(f32(5, 33), f32(33, 17), f32(17)), NoGrad: true}, {Name: "plain", Attrs: ActAttrs{}, In: types(f32(1, 33), f32(33, 17), f32(17))}},
	})
	ConvActOp = add(def[ConvActAttrs]{
		Name: "conv_act", Doc: "convolution plus bias [O], rectified if asked for: what pass fuse makes of a convolution layer", Kind: graph.Contraction,
		Infer: func(a ConvActAttrs, in []typ) ([]typ, error) {
			if err := floats(3)(in); err != nil {
				return nil, err
			}
			y, err := a.Conv.infer(in[0], in[1])
			if err == nil && (len(in[2].Shape) != 1 || in[2].Shape[0] != y.Shape[3]) {
				err = fmt.Errorf("the bias must be [%d], not %v", y.Shape[3], in[2].Shape)
			}
			return []typ{y}, err
		},
		Decompose: func(a ConvActAttrs, in []*node) []*node {
			return []*node{activate(a.Act, Add(Conv(in[0], in[1], a.Conv), in[2]))}
		},
		FLOPs: func(_ ConvActAttrs, in, out []typ) int64 {
			return convFLOPs(out[0], in[1]) + 2*int64(out[0].Shape.Size())
		},
		Samples: []graph.Sample{{Name: "relu", Attrs: ConvActAttrs{samePads, "relu"}, In: types(f32(2, 5, 6, 3), f32(3, 3, 3, 17), f32(17)), NoGrad: true},
			{Name: "plain", Attrs: ConvActAttrs{plain, ""}, In: types(f32(2, 5, 6, 3), f32(3, 3, 3, 17), f32(17))}},
	})
}

// softmaxInfer is the inference rule of the softmaxes.
func softmaxInfer(_ none, in []typ) ([]typ, error) {
	if err := operands(in, 1); err != nil {
		return nil, err
	}
	return in, lastAxis(in)
}

func activate(act string, x *node) *node {
	if act == "relu" {
		return Relu(x)
	}
	return x
}

// targets are the probabilities [… C] that labels stand for: one-hot, smoothed; nothing where the label is ignored, NaN where it is no
// class, so that a wrong label cannot pass unseen.
func targets(a XentAttrs, logits, labels *node) *node {
	c := logits.Shape()[len(logits.Shape())-1]
	t := OneHot(labels, c, logits.DType())
	if a.Smoothing != 0 {
		t = Add(Mul(t, Like(t, 1-a.Smoothing)), Like(t, a.Smoothing/float64(c)))
	}
	l := Reshape(labels, append(labels.Shape().Clone(), 1)...)
	t = Select(And(Ge(l, Like(l, 0)), Lt(l, Like(l, float64(c)))), t, Like(t, math.NaN()))
	if a.UseIgnore {
		t = Select(Eq(l, Like(l, float64(a.Ignore))), Like(t, 0), t)
	}
	return t
}

// Gelu is x·Φ(x), or its tanh approximation.
func Gelu(x *node, tanh bool) *node { return x.Graph().Apply(GeluOp, GeluAttrs{tanh}, x) }

// Silu is x·sigmoid(x).
func Silu(x *node) *node { return un(SiluOp, x) }

// Softplus is log(1+e^x).
func Softplus(x *node) *node { return un(SoftplusOp, x) }

// Elu is x where x > 0, else alpha·(e^x - 1).
func Elu(x *node, alpha float64) *node { return x.Graph().Apply(EluOp, SlopeAttrs{alpha}, x) }

// LeakyRelu is x where x > 0, else alpha·x.
func LeakyRelu(x *node, alpha float64) *node {
	return x.Graph().Apply(LeakyReluOp, SlopeAttrs{alpha}, x)
}

// Softmax is e^x over its sum along the last axis.
func Softmax(x *node) *node { return un(SoftmaxOp, x) }

// LogSoftmax is the logarithm of Softmax.
func LogSoftmax(x *node) *node { return un(LogSoftmaxOp, x) }

// SparseXent is the cross-entropy of softmax(logits [… C]) with labels i32 […], for each example.
func SparseXent(logits, labels *node, a XentAttrs) *node {
	return logits.Graph().Apply(SparseXentOp, a, logits, labels)
}
