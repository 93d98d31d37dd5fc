package op

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/shape"
)

// Normalisations. They give what their gradients need too, so that a backend's kernels need not find it twice.
var (
	LayerNormOp, LayerNormGradOp *graph.Op
	RMSNormOp, RMSNormGradOp     *graph.Op
	BatchNormOp, BatchNormGradOp *graph.Op
)

// NormAttrs hold what is added to the variance.
type NormAttrs struct{ Epsilon float64 }

// normInfer checks x and n-1 vectors as long as x's last axis.
func normInfer(in []typ, n int) error {
	if err := floats(n)(in); err != nil {
		return err
	}
	if err := lastAxis(in); err != nil {
		return err
	}
	c := in[0].Shape[len(in[0].Shape)-1]
	for _, t := range in[1:n] {
		if len(t.Shape) != 1 || t.Shape[0] != c {
			return fmt.Errorf("scale and offset must be [%d] for %v, not %v", c, in[0].Shape, t.Shape)
		}
	}
	return nil
}

// statistic is the type of a number for each row of x.
func statistic(x typ) typ { return typ{DType: x.DType, Shape: x.Shape[:len(x.Shape)-1]} }

// rowNormGradInfer checks x, γ, the statistics of x's rows and d; it is all that the gradients of layer_norm (2 statistics) and rms_norm (1) ask.
func rowNormGradInfer(in []typ, statistics int) error {
	if err := floats(3 + statistics)(in); err != nil {
		return err
	}
	if err := normInfer(in[:2], 2); err != nil {
		return err
	}
	for _, t := range in[2 : 2+statistics] {
		if want := statistic(in[0]); !t.Equal(want) {
			return fmt.Errorf("a statistic of the rows of %v must be %v, not %v", in[0], want, t)
		}
	}
	if d := in[2+statistics]; !d.Equal(in[0]) {
		return fmt.Errorf("the gradient is %v, x is %v", d, in[0])
	}
	return nil
}

// outer are all axes of a shape but the last.
func outer(sh shape.Shape) []int {
	axes := make([]int, len(sh)-1)
	for i := range axes {
		axes[i] = i
	}
	return axes
}

func init() {
	LayerNormOp = add(def[NormAttrs]{
		Name: "layer_norm", Doc: "(x - mean)·r·γ + β with r = 1/√(variance + ε), mean and variance along the last axis; also mean and r (arXiv:1607.06450)", Kind: graph.Reduction, ONNX: "LayerNormalization",
		Infer: func(_ NormAttrs, in []typ) ([]typ, error) {
			if err := normInfer(in, 3); err != nil {
				return nil, err
			}
			return []typ{in[0], statistic(in[0]), statistic(in[0])}, nil
		},
		Decompose: func(a NormAttrs, in []*node) []*node {
			x := in[0]
			last := len(x.Shape()) - 1
			m := Mean(x, last)
			c := Sub(x, keepLast(m, x))
			v := Mean(Mul(c, c), last)
			r := Rsqrt(Add(v, Like(v, a.Epsilon)))
			return []*node{Add(Mul(Mul(c, keepLast(r, x)), in[1]), in[2]), m, r}
		},
		Grad: func(a NormAttrs, n *node, d []*node) []*node {
			if d[0] == nil || d[1] != nil || d[2] != nil { // a loss on the statistics themselves: differentiate the definition
				return nil
			}
			g := n.Graph().Apply(LayerNormGradOp, none{}, n.Input(0), n.Input(1), n.Part(1), n.Part(2), d[0])
			return []*node{g.Part(0), g.Part(1), g.Part(2)}
		},
		FLOPs: func(_ NormAttrs, in, _ []typ) int64 { return 8 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{
			{Name: "rows", Attrs: NormAttrs{1e-3}, In: types(f32(6, 37), f32(37), f32(37))},
			{Name: "sequences", Attrs: NormAttrs{1e-5}, In: types(f32(3, 5, 64), f32(64), f32(64))},
			{Name: "one row", Attrs: NormAttrs{1e-3}, In: types(f32(5), f32(5), f32(5))},
			{Name: "no rows", Attrs: NormAttrs{1e-3}, In: types(f32(0, 5), f32(5), f32(5))},
			{Name: "f64", Attrs: NormAttrs{1e-3}, In: types(graph.T(dtype.F64, 2, 7), graph.T(dtype.F64, 7), graph.T(dtype.F64, 7))},
			{Name: "shapes", Attrs: NormAttrs{1e-3}, In: types(f32(6, 37), f32(36), f32(37)), Bad: "must be [37]"},
		},
	})
	LayerNormGradOp = add(def[none]{
		Name: "layer_norm_grad", Doc: "from x, γ, mean, r and d: gradients for x, γ and β of layer_norm", Kind: graph.Reduction,
		Infer: func(_ none, in []typ) ([]typ, error) {
			if err := rowNormGradInfer(in, 2); err != nil {
				return nil, err
			}
			return []typ{in[0], in[1], in[1]}, nil
		},
		Decompose: func(_ none, in []*node) []*node {
			x, gamma, m, r, d := in[0], in[1], in[2], in[3], in[4]
			last := len(x.Shape()) - 1
			xhat := Mul(Sub(x, keepLast(m, x)), keepLast(r, x))
			dg := Mul(d, gamma)
			inner := Sub(Sub(dg, keepLast(Mean(dg, last), x)), Mul(xhat, keepLast(Mean(Mul(dg, xhat), last), x)))
			return []*node{Mul(inner, keepLast(r, x)), Sum(Mul(d, xhat), outer(x.Shape())...), Sum(d, outer(x.Shape())...)}
		},
		FLOPs: func(_ none, in, _ []typ) int64 { return 14 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{
			{Name: "rows", In: types(f32(6, 37), f32(37), f32(6), f32(6), f32(6, 37)), Lo: 0.2, Hi: 1},
			{Name: "sequences", In: types(f32(3, 5, 64), f32(64), f32(3, 5), f32(3, 5), f32(3, 5, 64)), Lo: 0.2, Hi: 1},
			{Name: "one row", In: types(f32(5), f32(5), f32(), f32(), f32(5)), Lo: 0.2, Hi: 1},
			{Name: "no rows", In: types(f32(0, 5), f32(5), f32(0), f32(0), f32(0, 5))},
			{Name: "statistics", In: types(f32(6, 37), f32(37), f32(6), f32(37), f32(6, 37)), Bad: "a statistic of the rows"},
		},
	})
	RMSNormOp = add(def[NormAttrs]{
		Name: "rms_norm", Doc: "x·r·γ with r = 1/√(mean of x² + ε) along the last axis; also r (arXiv:1910.07467)", Kind: graph.Reduction, ONNX: "RMSNormalization",
		Infer: func(_ NormAttrs, in []typ) ([]typ, error) {
			if err := normInfer(in, 2); err != nil {
				return nil, err
			}
			return []typ{in[0], statistic(in[0])}, nil
		},
		Decompose: func(a NormAttrs, in []*node) []*node {
			x := in[0]
			v := Mean(Mul(x, x), len(x.Shape())-1)
			r := Rsqrt(Add(v, Like(v, a.Epsilon)))
			return []*node{Mul(Mul(x, keepLast(r, x)), in[1]), r}
		},
		Grad: func(a NormAttrs, n *node, d []*node) []*node {
			if d[0] == nil || d[1] != nil {
				return nil
			}
			g := n.Graph().Apply(RMSNormGradOp, none{}, n.Input(0), n.Input(1), n.Part(1), d[0])
			return []*node{g.Part(0), g.Part(1)}
		},
		FLOPs: func(_ NormAttrs, in, _ []typ) int64 { return 5 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{
			{Name: "rows", Attrs: NormAttrs{1e-6}, In: types(f32(6, 37), f32(37))},
			{Name: "sequences", Attrs: NormAttrs{1e-5}, In: types(f32(3, 5, 64), f32(64))},
			{Name: "no rows", Attrs: NormAttrs{1e-6}, In: types(f32(0, 5), f32(5))},
			{Name: "shapes", Attrs: NormAttrs{1e-6}, In: types(f32(6, 37), f32(6)), Bad: "must be [37]"},
		},
	})
	RMSNormGradOp = add(def[none]{
		Name: "rms_norm_grad", Doc: "from x, γ, r and d: gradients for x and γ of rms_norm", Kind: graph.Reduction,
		Infer: func(_ none, in []typ) ([]typ, error) {
			if err := rowNormGradInfer(in, 1); err != nil {
				return nil, err
			}
			return in[:2], nil
		},
		Decompose: func(_ none, in []*node) []*node {
			x, gamma, r, d := in[0], in[1], in[2], in[3]
			xhat, dg := Mul(x, keepLast(r, x)), Mul(d, gamma)
			inner := Sub(dg, Mul(xhat, keepLast(Mean(Mul(dg, xhat), len(x.Shape())-1), x)))
			return []*node{Mul(inner, keepLast(r, x)), Sum(Mul(d, xhat), outer(x.Shape())...)}
		},
		FLOPs: func(_ none, in, _ []typ) int64 { return 10 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{
			{Name: "rows", In: types(f32(6, 37), f32(37), f32(6), f32(6, 37)), Lo: 0.2, Hi: 1},
			{Name: "sequences", In: types(f32(3, 5, 64), f32(64), f32(3, 5), f32(3, 5, 64)), Lo: 0.2, Hi: 1},
			{Name: "gradient", In: types(f32(6, 37), f32(37), f32(6), f32(6, 36)), Bad: "the gradient is"},
		},
	})
	BatchNormOp = add(def[NormAttrs]{
		Name: "batch_norm", Doc: "x normalised over all axes but the last, times γ plus β; also the batch's mean and (biased) variance (arXiv:1502.03167)", Kind: graph.Reduction, ONNX: "BatchNormalization",
		Infer: func(a NormAttrs, in []typ) ([]typ, error) {
			if err := normInfer(in, 3); err != nil {
				return nil, err
			}
			return []typ{in[0], in[1], in[1]}, nil
		},
		Decompose: func(a NormAttrs, in []*node) []*node {
			x := in[0]
			axes := outer(x.Shape())
			m := Mean(x, axes...)
			c := Sub(x, m)
			v := Mean(Mul(c, c), axes...)
			y := Mul(c, Mul(Rsqrt(Add(v, Like(v, a.Epsilon))), in[1]))
			return []*node{Add(y, in[2]), m, v}
		},
		Grad: func(a NormAttrs, n *node, d []*node) []*node {
			if d[1] != nil || d[2] != nil || d[0] == nil { // a loss on the statistics themselves: differentiate the definition
				return nil
			}
			g := n.Graph().Apply(BatchNormGradOp, a, n.Input(0), n.Input(1), n.Part(1), n.Part(2), d[0])
			return []*node{g.Part(0), g.Part(1), g.Part(2)}
		},
		FLOPs:   func(_ NormAttrs, in, _ []typ) int64 { return 8 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{{Name: "images", Attrs: NormAttrs{1e-3}, In: types(f32(3, 4, 5, 19), f32(19), f32(19))}, {Name: "rows", Attrs: NormAttrs{1e-3}, In: types(f32(16, 5), f32(5), f32(5))}},
	})
	BatchNormGradOp = add(def[NormAttrs]{
		Name: "batch_norm_grad", Doc: "from x, γ, mean, variance and d: gradients for x, γ and β of batch_norm", Kind: graph.Reduction,
		Infer: func(a NormAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 5); err != nil {
				return nil, err
			}
			if err := normInfer(in[:4], 4); err != nil {
				return nil, err
			}
			if !in[4].Equal(in[0]) {
				return nil, fmt.Errorf("the gradient is %v, x is %v", in[4], in[0])
			}
			return []typ{in[0], in[1], in[1]}, nil
		},
		Decompose: func(a NormAttrs, in []*node) []*node {
			x, gamma, m, v, d := in[0], in[1], in[2], in[3], in[4]
			axes := outer(x.Shape())
			inv := Rsqrt(Add(v, Like(v, a.Epsilon)))
			xhat := Mul(Sub(x, m), inv)
			db := Sum(d, axes...)
			dg := Sum(Mul(d, xhat), axes...)
			n := float64(x.Shape().Size()) / float64(x.Shape()[len(axes)])
			dx := Mul(Sub(Sub(d, Mul(db, Like(db, 1/n))), Mul(xhat, Mul(dg, Like(dg, 1/n)))), Mul(gamma, inv))
			return []*node{dx, dg, db}
		},
		FLOPs:   func(_ NormAttrs, in, _ []typ) int64 { return 12 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{{Name: "images", Attrs: NormAttrs{1e-3}, In: types(f32(3, 4, 5, 19), f32(19), f32(19), f32(19), f32(3, 4, 5, 19)), Lo: 0.2, Hi: 1}},
	})
}

// LayerNorm normalises along the last axis, with scale gamma and offset beta.
func LayerNorm(x, gamma, beta *node, epsilon float64) *node {
	return x.Graph().Apply(LayerNormOp, NormAttrs{epsilon}, x, gamma, beta).Part(0)
}

// RMSNorm divides by the root of the mean square along the last axis, with scale gamma.
func RMSNorm(x, gamma *node, epsilon float64) *node {
	return x.Graph().Apply(RMSNormOp, NormAttrs{epsilon}, x, gamma).Part(0)
}

// BatchNorm normalises over all axes but the last and gives the batch's statistics too.
func BatchNorm(x, gamma, beta *node, epsilon float64) (y, mean, variance *node) {
	n := x.Graph().Apply(BatchNormOp, NormAttrs{epsilon}, x, gamma, beta)
	return n.Part(0), n.Part(1), n.Part(2)
}
