// Package data feeds examples to training and evaluation.
//
// Terminology: a Dataset is a fixed, numbered set of examples; a Batch is some of them, as tensors whose first axis counts the examples.
package data

import (
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Field describes one input or target of an example.
type Field struct {
	Name  string
	Shape shape.Shape // of one example
	DType dtype.Type
}

// Spec describes the examples of a data set.
type Spec struct {
	Inputs, Targets []Field
	Classes         int      // 0: not classification
	ClassNames      []string // nil: numbers
}

// Dataset is a numbered set of examples.
type Dataset interface {
	Spec() Spec
	Len() int
	// Fill writes the examples idx into batch tensors, x one for each input and y one for each target, whose first axis is len(idx).
	Fill(idx []int, x, y []*tensor.Tensor) error
}
