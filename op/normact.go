package op

import (
	"fmt"

	"github.com/jouleml/joule/graph"
)

// Batch normalisation and the rectifier behind it, and their gradients: what pass norms makes of the two. The third is of blocks with a way around (arXiv:1512.03385), where
// something is added between normalisation and rectifier.
var BatchNormReluOp, BatchNormReluGradOp, BatchNormAddReluGradOp *graph.Op

func init() {
	images := types(f32(3, 4, 5, 19), f32(19), f32(19))
	BatchNormReluOp = add(def[NormAttrs]{
		Name: "batch_norm_relu", Doc: "max(0, y) or, of a fourth operand z like x, max(0, y + z) for y of batch_norm; also the batch's mean and variance: what pass norms makes of a normalisation and a rectifier", Kind: graph.Reduction,
		Infer: func(a NormAttrs, in []typ) ([]typ, error) {
			if len(in) != 3 && len(in) != 4 {
				return nil, fmt.Errorf("takes x, γ, β and perhaps z, was given %d operands", len(in))
			}
			if len(in) == 4 && !in[3].Equal(in[0]) {
				return nil, fmt.Errorf("z is %v, x is %v", in[3], in[0])
			}
			if err := normInfer(in[:3], 3); err != nil {
				return nil, err
			}
			return []typ{in[0], in[1], in[1]}, nil
		},
		Decompose: func(a NormAttrs, in []*node) []*node {
			y, m, v := BatchNorm(in[0], in[1], in[2], a.Epsilon)
			if len(in) == 4 {
				y = Add(y, in[3])
			}
			return []*node{Relu(y), m, v}
		},
		FLOPs: func(_ NormAttrs, in, _ []typ) int64 { return int64(9+len(in)-3) * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{{Name: "images", Attrs: NormAttrs{1e-3}, In: images, NoGrad: true}, {Name: "rows", Attrs: NormAttrs{1e-3}, In: types(f32(16, 5), f32(5), f32(5)), NoGrad: true},
			{Name: "and a way around", Attrs: NormAttrs{1e-3}, In: append(images[:3:3], f32(3, 4, 5, 19)), NoGrad: true},
			{Name: "shapes", Attrs: NormAttrs{1e-3}, In: append(images[:3:3], f32(3, 4, 19)), Bad: "z is"}},
	})
	BatchNormReluGradOp = add(def[NormAttrs]{
		Name: "batch_norm_relu_grad", Doc: "from x, γ, β, mean, variance and d: gradients for x, γ and β of batch_norm_relu without z", Kind: graph.Reduction,
		Infer: func(a NormAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 6); err != nil {
				return nil, err
			}
			return gradOfNorm(in[0], in[1:5], in[5])
		},
		Decompose: func(a NormAttrs, in []*node) []*node {
			x, gamma, beta, m, v, d := in[0], in[1], in[2], in[3], in[4], in[5]
			y := Add(Mul(Sub(x, m), Mul(Rsqrt(Add(v, Like(v, a.Epsilon))), gamma)), beta)
			g := d.Graph().Apply(BatchNormGradOp, a, x, gamma, m, v, ReluGrad(y, d))
			return []*node{g.Part(0), g.Part(1), g.Part(2)}
		},
		FLOPs: func(_ NormAttrs, in, _ []typ) int64 { return 16 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{{Name: "images", Attrs: NormAttrs{1e-3}, In: append(images[:3:3], f32(19), f32(19), f32(3, 4, 5, 19)), Lo: 0.2, Hi: 1, NoGrad: true},
			{Name: "shapes", Attrs: NormAttrs{1e-3}, In: append(images[:3:3], f32(19), f32(19), f32(3, 4, 19)), Bad: "the gradient is"}},
	})
	BatchNormAddReluGradOp = add(def[NormAttrs]{
		Name: "batch_norm_add_relu_grad", Doc: "from x, γ, mean, variance, y and one or two arrays whose sum is d: gradients for x, γ, β and z of batch_norm_relu", Kind: graph.Reduction,
		Infer: func(a NormAttrs, in []typ) ([]typ, error) {
			if len(in) != 6 && len(in) != 7 {
				return nil, fmt.Errorf("takes x, γ, mean, variance, y and one or two parts of the gradient, was given %d operands", len(in))
			}
			for _, t := range in[4:6] {
				if !t.Equal(in[0]) {
					return nil, fmt.Errorf("y is %v and a part of the gradient %v, x is %v", in[4], t, in[0])
				}
			}
			out, err := gradOfNorm(in[0], in[1:4], in[len(in)-1])
			return append(out, in[0]), err
		},
		Decompose: func(a NormAttrs, in []*node) []*node {
			d := in[5]
			if len(in) == 7 {
				d = Add(d, in[6])
			}
			d = ReluGrad(in[4], d)
			g := d.Graph().Apply(BatchNormGradOp, a, in[0], in[1], in[2], in[3], d)
			return []*node{g.Part(0), g.Part(1), g.Part(2), d}
		},
		FLOPs: func(_ NormAttrs, in, _ []typ) int64 { return int64(13+len(in)-6) * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{
			{Name: "one part", Attrs: NormAttrs{1e-3}, In: append(images[:3:3], f32(19), f32(3, 4, 5, 19), f32(3, 4, 5, 19)), Lo: 0.2, Hi: 1},
			{Name: "two parts", Attrs: NormAttrs{1e-3}, In: append(images[:3:3], f32(19), f32(3, 4, 5, 19), f32(3, 4, 5, 19), f32(3, 4, 5, 19)), Lo: 0.2, Hi: 1},
			{Name: "shapes", Attrs: NormAttrs{1e-3}, In: append(images[:3:3], f32(19), f32(3, 4, 5, 19), f32(3, 4, 19)), Bad: "a part of the gradient"}},
	})
}

// gradOfNorm checks x, vectors of its last axis and d, and gives the types of the gradients for x, γ and β.
func gradOfNorm(x typ, vectors []typ, d typ) ([]typ, error) {
	if err := normInfer(append([]typ{x}, vectors...), 1+len(vectors)); err != nil {
		return nil, err
	}
	if !d.Equal(x) {
		return nil, fmt.Errorf("the gradient is %v, x is %v", d, x)
	}
	return []typ{x, vectors[0], vectors[0]}, nil
}
