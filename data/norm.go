package data

import (
	"fmt"
	"math"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/tensor"
)

// Norm shifts and scales the first input of examples: value → (value − Mean)/Std, with one mean and one standard deviation for each
// position of the last axis (the channel of a picture, the column of a table).
type Norm struct {
	Mean, Std []float32
}

// FitNorm measures the mean and the standard deviation (of the population) of the first input, which must be f32. Fit it to the training
// part alone, and apply it to all parts. Where nothing varies, Std is 1.
func FitNorm(train Dataset) (Norm, error) {
	channels, err := normChannels(train.Spec())
	if err != nil {
		return Norm{}, err
	}
	if train.Len() == 0 || channels == 0 {
		return Norm{}, fmt.Errorf("data: nothing to fit a normalisation to: %d examples of %d values", train.Len(), channels)
	}
	// Two passes in float64: the squares of the deviations lose nothing to a large mean.
	sum, squares := make([]float64, channels), make([]float64, channels)
	var count float64
	err = Each(train, 256, func(_ int, x, _ []*tensor.Tensor) error {
		count += float64(x[0].Len() / channels)
		for i, v := range x[0].F32() {
			sum[i%channels] += float64(v)
		}
		return nil
	})
	if err != nil {
		return Norm{}, err
	}
	for c := range sum {
		sum[c] /= count
	}
	err = Each(train, 256, func(_ int, x, _ []*tensor.Tensor) error {
		for i, v := range x[0].F32() {
			d := float64(v) - sum[i%channels]
			squares[i%channels] += d * d
		}
		return nil
	})
	n := Norm{make([]float32, channels), make([]float32, channels)}
	for c := range sum {
		n.Mean[c], n.Std[c] = float32(sum[c]), float32(math.Sqrt(squares[c]/count))
		if n.Std[c] == 0 {
			n.Std[c] = 1
		}
	}
	return n, err
}

// normChannels is the length of the last axis of the first input.
func normChannels(s Spec) (int, error) {
	if err := s.Check(); err != nil {
		return 0, err
	}
	f := s.Inputs[0]
	if f.DType != dtype.F32 {
		return 0, fmt.Errorf("data: normalisation needs an f32 input; %q is %v", f.Name, f.DType)
	}
	if len(f.Shape) == 0 {
		return 1, nil
	}
	return f.Shape[len(f.Shape)-1], nil
}

// ApplySet is both parts of a set normalised, as a model wants its data whose Spec has n; with nil it is the set itself.
func (n *Norm) ApplySet(set *Set) (*Set, error) {
	if n == nil {
		return set, nil
	}
	out := *set
	var err error
	if out.Train, err = n.Apply(set.Train); err == nil {
		out.Test, err = n.Apply(set.Test)
	}
	return &out, err
}

// Fits returns an error when n does not fit the first input of spec.
func (n Norm) Fits(spec Spec) error {
	channels, err := normChannels(spec)
	if err != nil {
		return err
	}
	if len(n.Mean) != channels || len(n.Std) != channels {
		return fmt.Errorf("data: a normalisation with %d means and %d standard deviations does not fit input %q of shape %v, whose last axis is %d long",
			len(n.Mean), len(n.Std), spec.Inputs[0].Name, spec.Inputs[0].Shape, channels)
	}
	return nil
}

// Scale normalises values in place; their last axis is that of Mean.
func (n Norm) Scale(values []float32) {
	for ; len(values) > 0; values = values[len(n.Mean):] {
		for c, m := range n.Mean {
			values[c] = (values[c] - m) / n.Std[c]
		}
	}
}

// Unscale is the inverse of Scale, up to rounding.
func (n Norm) Unscale(values []float32) {
	for ; len(values) > 0; values = values[len(n.Mean):] {
		for c, m := range n.Mean {
			values[c] = values[c]*n.Std[c] + m
		}
	}
}

// Apply is ds with its first input normalised. Its Spec says so. What is normalised already is refused.
func (n Norm) Apply(ds Dataset) (Dataset, error) {
	if ds.Spec().Norm != nil {
		return nil, fmt.Errorf("data: the examples are normalised already")
	}
	if err := n.Fits(ds.Spec()); err != nil {
		return nil, err
	}
	d := &normalised{ds, n}
	if l, ok := ds.(Labeler); ok {
		return &labeledNormalised{d, l}, nil
	}
	return d, nil
}

type normalised struct {
	Dataset
	norm Norm
}

type labeledNormalised struct {
	*normalised
	labels Labeler
}

func (n *labeledNormalised) Label(i int) int { return n.labels.Label(i) }

// Spec is that of the data with the normalisation, which a model keeps: what it is given later must be normalised too.
func (n *normalised) Spec() Spec {
	s := n.Dataset.Spec()
	s.Norm = &n.norm
	return s
}

func (n *normalised) Fill(idx []int, x, y []*tensor.Tensor) error {
	if err := n.Dataset.Fill(idx, x, y); err != nil {
		return err
	}
	n.norm.Scale(x[0].F32())
	return nil
}
