package op

import (
	"fmt"
	"math"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/tensor"
)

// A cross-entropy over classes that several processes share out, each with the logits of some: they tell each other three numbers an example in place of logits (Shoeybi et al., Megatron-LM,
// arXiv:1909.08053, section 3, exchange losses likewise).
var XentPartOp, XentPartGradOp *graph.Op

func init() {
	labels := tensor.Of([]int32{3, 0, 9, -1, 12})
	minus := float32(math.Inf(-1))
	masked := []*tensor.Tensor{tensor.Of([]float32{minus, minus, minus, 1, minus, 2}).Reshape(2, 3), tensor.Of([]int32{4, 0})}
	infer := func(in []typ) error {
		if err := lastAxis(in); err != nil {
			return err
		}
		if s := in[0].Shape; in[1].DType != dtype.I32 || !in[1].Shape.Equal(s[:len(s)-1]) {
			return fmt.Errorf("logits %v need labels i32%v, not %v", in[0], s[:len(s)-1], in[1])
		}
		return nil
	}
	stats := func(in []typ) typ { return graph.T(in[0].DType, append([]int{3}, in[1].Shape...)...) }
	XentPartOp = add(def[none]{
		Name: "xent_part", Doc: "what some of the classes bring to a cross-entropy, [3 …] of their logits [… C] and labels i32 […] that count from the first of them: log Σ e^logit, the label's logit (0 of a label that is none of them), Σ logit",
		Kind: graph.Reduction,
		Infer: func(_ none, in []typ) ([]typ, error) {
			if err := operands(in, 2); err != nil {
				return nil, err
			}
			if err := infer(in); err != nil {
				return nil, err
			}
			return []typ{stats(in)}, nil
		},
		Decompose: func(_ none, in []*node) []*node {
			x := in[0]
			last := len(x.Shape()) - 1
			m := StopGradient(ReduceMax(x, last))
			m = Select(Eq(m, Like(m, math.Inf(-1))), Like(m, 0), m) // of logits that are all -∞ the exponentials are 0
			row := func(y *node) *node { return Reshape(y, append([]int{1}, y.Shape()...)...) }
			lse := Add(m, Log(Sum(Exp(Sub(x, keepLast(m, x))), last)))
			at := OneHot(in[1], x.Shape()[last], x.DType())
			own := Sum(Select(Ne(at, Like(at, 0)), x, Like(x, 0)), last)
			return []*node{Concat(0, row(lse), row(own), row(Sum(x, last)))}
		},
		Grad: func(_ none, n *node, d []*node) []*node {
			return []*node{n.Graph().Apply(XentPartGradOp, nil, n.Input(0), n.Input(1), n, d[0]), nil}
		},
		FLOPs: func(_ none, in, _ []typ) int64 { return 6 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{
			{Name: "rows", In: types(f32(5, 10), graph.T(dtype.I32, 5)), Data: []*tensor.Tensor{nil, labels}, Lo: -4, Hi: 4},
			{Name: "sequences", In: types(f32(1, 5, 37), graph.T(dtype.I32, 1, 5)), Data: []*tensor.Tensor{nil, tensor.Of([]int32{36, 2, 9, -1, 12}).Reshape(1, 5)}, Lo: -4, Hi: 4},
			{Name: "ruled out", In: types(f32(2, 3), graph.T(dtype.I32, 2)), Data: masked, NoGrad: true},
			{Name: "shapes", In: types(f32(5, 10), graph.T(dtype.I32, 4)), Bad: "need labels"},
			{Name: "none", In: types(f32(5, 0), graph.T(dtype.I32, 5)), Bad: "not empty"},
		},
	})
	XentPartGradOp = add(def[none]{
		Name: "xent_part_grad", Doc: "gradient of xent_part for the logits, from them, the labels, its result and d [3 …]: e^(logit - log Σ)·d₀, d₁ at the label, and d₂", Kind: graph.Reduction,
		Infer: func(_ none, in []typ) ([]typ, error) {
			if err := operands(in, 4); err != nil {
				return nil, err
			}
			if err := infer(in[:2]); err != nil {
				return nil, err
			}
			for _, t := range in[2:] {
				if !t.Equal(stats(in)) {
					return nil, fmt.Errorf("results and gradients must be %v, not %v", stats(in), t)
				}
			}
			return in[:1], nil
		},
		Decompose: func(_ none, in []*node) []*node {
			x, labels := in[0], in[1]
			row := func(t *node, i int) *node { // [C …] of row i of [3 …]
				return keepLast(Reshape(SliceAxis(t, 0, i, i+1), labels.Shape()...), x)
			}
			lse := row(in[2], 0)
			lse = Select(Eq(lse, Like(lse, math.Inf(-1))), Like(lse, 0), lse)
			p := Exp(Sub(x, lse))
			at := OneHot(labels, x.Shape()[len(x.Shape())-1], x.DType())
			return []*node{Add(Add(Mul(p, row(in[3], 0)), Mul(at, row(in[3], 1))), row(in[3], 2))}
		},
		FLOPs: func(_ none, in, _ []typ) int64 { return 5 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{
			{Name: "rows", In: types(f32(5, 10), graph.T(dtype.I32, 5), f32(3, 5), f32(3, 5)), Data: []*tensor.Tensor{nil, labels, nil, nil}, Lo: -2, Hi: 2},
			{Name: "ruled out", In: types(f32(2, 3), graph.T(dtype.I32, 2), f32(3, 2), f32(3, 2)), Data: append(masked[:2:2], tensor.Of([]float32{minus, 2.3132617, 0, 1, minus, minus}).Reshape(3, 2), nil), Lo: -2, Hi: 2, NoGrad: true},
			{Name: "shapes", In: types(f32(5, 10), graph.T(dtype.I32, 5), f32(3, 5), f32(3, 4)), Bad: "must be"},
		},
	})
}

// XentPart is what some of the classes bring to a cross-entropy: log Σ e^logit, the label's logit (0 where the label is none of them) and Σ logit, [3 …] of logits [… C] and labels i32 […]
// that count from the first of these classes.
func XentPart(logits, labels *node) *node {
	return logits.Graph().Apply(XentPartOp, nil, logits, labels)
}
