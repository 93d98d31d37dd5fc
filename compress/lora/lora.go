// Package lora trains a model through low-rank changes of its weights (Hu et al., arXiv:2106.09685): a matrix W stays as it is, and layers use W + (Scale/Rank)·A·B with A [in, rank]
// and B [rank, out], which alone are trained. B begins at zero, so that training begins at the model as it was. Model.Merge turns the result into an ordinary model.
package lora

import (
	"fmt"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/train"
)

// Adapter is the option that does it: train.Wrapped(adapter).
type Adapter struct {
	Rank  int
	Scale float64  // 0: Rank
	On    []string // patterns of the names of kernels (train.Matches); none: all
}

// Check says what is wrong with the settings.
func (a *Adapter) Check() error {
	if a.Rank < 1 || !(a.Scale >= 0) || a.Scale-a.Scale != 0 {
		return fmt.Errorf("lora: rank %d must be at least 1 and scale %g a number from 0 on", a.Rank, a.Scale)
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
	rank := min(a.Rank, in, out)
	down := c.Extra("lora/"+p.Name+"/a", nn.HeUniform, true, in, rank)
	up := c.Extra("lora/"+p.Name+"/b", nn.Zeros, true, rank, out)
	scale := a.Scale
	if scale == 0 {
		scale = float64(a.Rank)
	}
	change := op.Mul(op.MatMul(down, up), op.Scalar(c.G, w.DType(), scale/float64(rank)))
	return op.Add(w, op.Reshape(change, s...))
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
