package train

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Loss measures how far predictions are from targets.
type Loss struct {
	Name string
	// each builds the loss of every example, [batch], from predictions [batch …] and targets.
	each func(pred, target *graph.Node) *graph.Node
	// target says what the targets must be like for predictions of type t (batch first), as a sentence for errors; "" if they fit.
	target func(pred, target graph.Type) string
	parts  func(s *partScores, target *graph.Node) *graph.Node // each, of scores of which this rank has some classes'; nil: predictions must be whole
	xent   op.XentAttrs                                        // of a cross-entropy of class numbers
	mixed  func() Loss                                         // of probabilities that mixup has made of class numbers; nil: the loss itself
}

// logits are the scores behind predictions that a softmax made: the loss of scores is exact where that of probabilities loses
// digits, and its gradient is one subtraction. (Keras does the same.)
func logits(pred *graph.Node) (scores *graph.Node, ok bool) {
	sh, last := pred.Shape(), len(pred.Shape())-1
	for pred.Op() == op.ReshapeOp { // a layer on sequences works on [batch·time, features]
		in := pred.Input(0)
		if from := in.Shape(); last < 0 || len(from) == 0 || from[len(from)-1] != sh[last] {
			return nil, false
		}
		pred = in
	}
	if pred.Op() != op.SoftmaxOp {
		return nil, false
	}
	scores = pred.Input(0)
	if !scores.Shape().Equal(sh) {
		scores = op.Reshape(scores, sh...)
	}
	return scores, true
}

const tiny = 1e-7 // Keras's epsilon: probabilities are kept this far from 0 and 1

func clip(p *graph.Node) *graph.Node {
	return op.Min(op.Max(p, op.Like(p, tiny)), op.Like(p, 1-tiny))
}

// perExample averages all axes but the first.
func perExample(x *graph.Node) *graph.Node {
	axes := make([]int, len(x.Shape())-1)
	for i := range axes {
		axes[i] = i + 1
	}
	return op.Mean(x, axes...)
}

func sameAsPred(pred, target graph.Type) string {
	if !pred.Equal(target) {
		return fmt.Sprintf("needs targets of the predictions' type %v", pred)
	}
	return ""
}

func classNumbers(pred, target graph.Type) string {
	n := len(pred.Shape)
	if n < 2 || target.DType != dtype.I32 || !target.Shape.Equal(pred.Shape[:n-1]) {
		return fmt.Sprintf("needs predictions [batch … classes] and class numbers as targets, i32%v here", pred.Shape[:max(0, n-1)])
	}
	return ""
}

// XentOption refines a cross-entropy.
type XentOption func(o *op.XentAttrs)

// Smooth spreads a share of each label over all classes (arXiv:1512.00567).
func Smooth(share float64) XentOption { return func(o *op.XentAttrs) { o.Smoothing = share } }

// Ignore leaves out examples with this label.
func Ignore(label int32) XentOption {
	return func(o *op.XentAttrs) { o.Ignore, o.UseIgnore = label, true }
}

// SparseCategoricalCrossentropy is for class numbers as targets and probabilities (softmax) as predictions.
var SparseCategoricalCrossentropy = SparseCategorical()

// SparseCategorical is SparseCategoricalCrossentropy with label smoothing or an ignored label.
func SparseCategorical(opts ...XentOption) Loss {
	var a op.XentAttrs
	for _, o := range opts {
		o(&a)
	}
	return Loss{Name: "sparse_categorical_crossentropy", each: func(pred, target *graph.Node) *graph.Node {
		scores, ok := logits(pred)
		if !ok {
			scores = op.Log(clip(pred)) // the softmax of log p is p, if p adds up to 1
		}
		return counting(op.SparseXent(scores, target, a), target, a)
	}, parts: func(s *partScores, target *graph.Node) *graph.Node { return counting(s.sparse(target, a), target, a) }, xent: a, target: classNumbers, mixed: func() Loss {
		l := Categorical(a.Smoothing)
		l.Name = "sparse_categorical_crossentropy"
		if a.UseIgnore {
			l.target = func(graph.Type, graph.Type) string { return "with a label to ignore needs class numbers" }
		}
		return l
	}}
}

// counting is each example's mean of losses l of class numbers: over those that count.
func counting(l, target *graph.Node, a op.XentAttrs) *graph.Node {
	if a.UseIgnore {
		counts := op.Convert(op.Ne(target, op.Like(target, float64(a.Ignore))), l.DType())
		share := op.Div(op.SumAll(counts), op.Like(l, float64(l.Shape().Size())))
		l = op.Div(l, op.Max(share, op.Like(l, 1e-30)))
	}
	return perExample(l)
}

// CategoricalCrossentropy is for targets that are probabilities, such as one-hot vectors.
var CategoricalCrossentropy = Categorical(0)

// Categorical is CategoricalCrossentropy with a share of each target spread over all classes (arXiv:1512.00567). Predictions that no softmax made are
// divided by their sum along the last axis first, as Keras does.
func Categorical(smoothing float64) Loss {
	return Loss{Name: "categorical_crossentropy", each: func(pred, target *graph.Node) *graph.Node {
		last := len(pred.Shape()) - 1
		var logp *graph.Node
		if scores, ok := logits(pred); ok {
			logp = op.LogSoftmax(scores)
		} else {
			keep := pred.Shape().Clone()
			keep[last] = 1
			logp = op.Log(clip(op.Div(pred, op.Reshape(op.Sum(pred, last), keep...))))
		}
		target = smooth(target, smoothing, pred.Shape()[last])
		return perExample(op.Neg(op.Sum(op.Mul(target, logp), last)))
	}, parts: func(s *partScores, target *graph.Node) *graph.Node {
		return perExample(s.dense(smooth(target, smoothing, s.Of)))
	}, target: sameAsPred}
}

// smooth takes a share of targets and spreads it over the classes.
func smooth(target *graph.Node, share float64, classes int) *graph.Node {
	if share == 0 {
		return target
	}
	return op.Add(op.Mul(target, op.Like(target, 1-share)), op.Like(target, share/float64(classes)))
}

// BinaryCrossentropy is for targets 0 or 1 and probabilities (sigmoid) as predictions, of one shape.
var BinaryCrossentropy = Binary(0)

// Binary is BinaryCrossentropy with label smoothing: a target t counts as t·(1-smoothing) + smoothing/2.
func Binary(smoothing float64) Loss {
	return Loss{Name: "binary_crossentropy", each: func(pred, target *graph.Node) *graph.Node {
		target = smooth(target, smoothing, 2)
		if pred.Op() == op.SigmoidOp { // of scores z: max(z,0) - z·t + log(1+e^-|z|)
			z := pred.Input(0)
			return perExample(op.Add(op.Sub(op.Relu(z), op.Mul(z, target)), op.Log1p(op.Exp(op.Neg(op.Abs(z))))))
		}
		p := clip(pred)
		one := op.Like(p, 1)
		return perExample(op.Neg(op.Add(op.Mul(target, op.Log(p)), op.Mul(op.Sub(one, target), op.Log(op.Sub(one, p))))))
	}, target: sameAsPred}
}

// MeanSquaredError is the mean of (prediction - target)².
var MeanSquaredError = Loss{Name: "mean_squared_error", each: func(pred, target *graph.Node) *graph.Node {
	d := op.Sub(pred, target)
	return perExample(op.Mul(d, d))
}, target: sameAsPred}

// MeanAbsoluteError is the mean of |prediction - target|.
var MeanAbsoluteError = Loss{Name: "mean_absolute_error", each: func(pred, target *graph.Node) *graph.Node {
	return perExample(op.Abs(op.Sub(pred, target)))
}, target: sameAsPred}

// Huber is ½d² where |d| ≤ delta, else delta·(|d| - ½delta) (Huber 1964).
func Huber(delta float64) Loss {
	return Loss{Name: "huber", each: func(pred, target *graph.Node) *graph.Node {
		d := op.Abs(op.Sub(pred, target))
		near := op.Min(d, op.Like(d, delta)) // ½near² + delta·(d - near) is both branches in one
		return perExample(op.Add(op.Mul(op.Like(d, 0.5), op.Mul(near, near)), op.Mul(op.Like(d, delta), op.Sub(d, near))))
	}, target: sameAsPred}
}

// KLDivergence is Σ target·log(target/prediction) over the last axis, both probabilities.
var KLDivergence = Loss{Name: "kl_divergence", each: func(pred, target *graph.Node) *graph.Node {
	p, t := clip(pred), clip(target)
	return perExample(op.Sum(op.Mul(t, op.Log(op.Div(t, p))), len(p.Shape())-1))
}, target: sameAsPred}

// Losses are the losses that a spec can name.
var Losses = map[string]Loss{}

func init() {
	for _, l := range []Loss{SparseCategoricalCrossentropy, CategoricalCrossentropy, BinaryCrossentropy, MeanSquaredError, MeanAbsoluteError, Huber(1), KLDivergence} {
		Losses[l.Name] = l
	}
	Losses["mse"], Losses["mae"] = MeanSquaredError, MeanAbsoluteError
}
