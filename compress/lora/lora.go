// Package lora trains a model through low-rank changes of its weights (Hu et al., arXiv:2106.09685): a matrix W stays as it is, and layers use W + (Scale/Rank)·A·B with A [in, rank]
// and B [rank, out], which alone are trained. B begins at zero, so that training begins at the model as it was. Model.Merge turns the result into an ordinary model.
//
// W may be kept in 8 or 4 bits while A and B are trained in f32 (QLoRA; Dettmers et al., arXiv:2305.14314): gradients pass W to what comes before it, W has none itself. Unlike there, numbers are
// spaced evenly in each group (op.WeightAttrs), scales are f32, and operands are rounded to 8 bits in the product with W, which the gradient leaves out; the product with A and B has them as they are.
package lora

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// Adapter is the option that does it: train.Wrapped(adapter).
type Adapter struct {
	Rank  int
	Scale float64  // 0: Rank
	On    []string // patterns of the names of kernels (train.Matches); none: all

	Bits  int // in which Prepare brings the kernels of products (Dense, attention, inputs of recurrent layers) that are changed: 8 or 4; 0: they stay f32
	Group int // weights that share a scale, as in quant.WeightOptions
}

// Check says what is wrong with the settings.
func (a *Adapter) Check() error {
	if a.Rank < 1 || !(a.Scale >= 0) || a.Scale-a.Scale != 0 {
		return fmt.Errorf("lora: rank %d must be at least 1 and scale %g a number from 0 on", a.Rank, a.Scale)
	}
	switch {
	case a.Bits != 0 && a.Bits != 8 && a.Bits != 4:
		return fmt.Errorf("lora: a base of %d bits; 8 and 4 are supported, and 0 for floats", a.Bits)
	case a.Bits == 0 && a.Group != 0:
		return fmt.Errorf("lora: a group of %d weights needs a base of 8 or 4 bits", a.Group)
	case a.Group < 0 || a.Group%8 != 0:
		return fmt.Errorf("lora: a group of %d weights must be a multiple of 8", a.Group)
	}
	return nil
}

// on reports whether a parameter is a kernel that the adapter changes.
func (a *Adapter) on(p nn.Param) bool {
	if !p.Decay || len(p.Type.Shape) < 2 {
		return false
	}
	for _, pattern := range a.On {
		if train.Matches(pattern, p.Name) {
			return true
		}
	}
	return len(a.On) == 0
}

// Freezes implements train.Wrapper: kernels with an adapter stay as they are.
func (a *Adapter) Freezes(p nn.Param) bool { return a.on(p) }

// Wrap implements train.Wrapper.
func (a *Adapter) Wrap(c *nn.Call, p nn.Param, w *graph.Node) *graph.Node {
	if !a.on(p) {
		return w
	}
	s := w.Shape()
	in, out := split(s)
	down, up := a.factors(c, p.Name, in, out)
	return op.Add(w, op.Reshape(op.MatMul(down, up), s...))
}

// Change implements train.Changer, for kernels of few bits. Dims of p are those of the kernel as floats.
func (a *Adapter) Change(c *nn.Call, p nn.Param) []*graph.Node {
	if !a.on(p) {
		return nil
	}
	in, out := split(p.Type.Shape)
	down, up := a.factors(c, p.Name, in, out)
	return []*graph.Node{down, up}
}

// factors are A [in, rank] and (Scale/Rank)·B [rank, out].
func (a *Adapter) factors(c *nn.Call, name string, in, out int) (down, up *graph.Node) {
	rank := min(a.Rank, in, out)
	down = c.Extra("lora/"+name+"/a", nn.HeUniform, true, in, rank)
	up = c.Extra("lora/"+name+"/b", nn.Zeros, true, rank, out)
	scale := a.Scale
	if scale == 0 {
		scale = float64(a.Rank)
	}
	return down, op.Mul(up, op.Scalar(c.G, up.DType(), scale/float64(rank)))
}

// Prepare makes a model, compiled with the adapter, ready for training once it has its weights: it checks that every pattern of On names a kernel and, with Bits, brings the kernels of products among them
// to few bits. The report, nil without Bits, says what each matrix has lost.
func (a *Adapter) Prepare(ctx context.Context, m *train.Model) (*quant.Report, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	depth, err := m.ProductDepths()
	if err != nil {
		return nil, err
	}
	var names, kernels, products, keep []string
	for _, p := range m.Params() {
		names = append(names, p.Name)
		product := depth[p.Name] > 0
		if product {
			products = append(products, p.Name)
		}
		if product || p.Decay && len(p.Type.Shape) > 1 {
			kernels = append(kernels, p.Name)
		}
		if !product || !a.on(p) {
			keep = append(keep, p.Name)
		}
	}
	matches := func(pattern string, names []string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return train.Matches(pattern, n) })
	}
	for _, pattern := range a.On {
		switch {
		case !matches(pattern, names):
			return nil, fmt.Errorf("lora: on: no parameter matches %q; kernels: %s", pattern, strings.Join(kernels, ", "))
		case !matches(pattern, kernels):
			return nil, fmt.Errorf("lora: on: %q matches no kernel; kernels: %s", pattern, strings.Join(kernels, ", "))
		case a.Bits != 0 && !matches(pattern, products):
			return nil, fmt.Errorf("lora: on: what %q matches cannot be kept in %d bits: only kernels of products (Dense, attention, inputs of recurrent layers) can, here %s; leave it out, or keep the base in floats", pattern, a.Bits, list(products))
		}
	}
	switch {
	case a.Bits == 0:
		return nil, nil
	case len(products) == 0:
		return nil, fmt.Errorf("lora: the model has no kernel of a product (Dense, attention, inputs of recurrent layers) that could be kept in %d bits: keep the base in floats", a.Bits)
	case m.Config().Precision != "" && m.Config().Precision != nn.Float32:
		return nil, fmt.Errorf("lora: a base of %d bits computes with operands in f32, not with precision %s", a.Bits, m.Config().Precision)
	}
	q, report, err := quant.Weights(ctx, m, nil, quant.WeightOptions{Bits: a.Bits, Group: a.Group, Keep: keep})
	if err != nil {
		return nil, fmt.Errorf("lora: %w", err)
	}
	values := map[string]*tensor.Tensor{}
	for _, p := range q.Params() {
		if values[p.Name], err = q.State().Get(p.Name); err != nil {
			return nil, fmt.Errorf("lora: %w", err)
		}
	}
	if err := m.Reformat(q.Net, values); err != nil {
		return nil, fmt.Errorf("lora: %w", err)
	}
	return report, nil
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// split sees a kernel as a matrix: the last axis is what comes out, or of attention's [width, heads, dim] the last two.
func split(s []int) (in, out int) {
	in, out = 1, s[len(s)-1]
	for _, d := range s[:len(s)-1] {
		in *= d
	}
	if len(s) == 3 && s[0] > in/s[0] { // width × heads × dim
		in, out = s[0], s[1]*s[2]
	}
	return in, out
}
