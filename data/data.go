// Package data feeds examples to training and evaluation.
//
// Terminology: a Dataset is a fixed, numbered set of examples; a Batch is some of them, as tensors whose first axis counts the
// examples; an epoch is one pass over a Dataset; a step is one batch of an epoch. Epochs and steps count from 0.
//
// Data sets come from memory (FromTensors, FromSlices, FromPixels), from package mnist, and from files (packages idx, cifar, table and
// folder; package catalog opens them all by name). Split, Take, Sample, Subset, Map and Norm.Apply make new data sets out of others. A Loader
// turns a Dataset into batches: shuffled, augmented and prepared ahead of the consumer on another goroutine.
//
// Everything random is a function of a seed and of a position, never of what was drawn before, so that a run which resumes in the
// middle of an epoch sees the same batches, bit for bit.
package data

import (
	"encoding/json"
	"fmt"

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
	Norm            *Norm    `json:",omitempty"` // what the first input has been normalised with, nil if it is as it was read
	// Tokenizer is tokenizer.json of the text in the examples; nil: there is none, or tokens are the characters in ClassNames.
	Tokenizer json.RawMessage `json:",omitempty"`
	// Grows names the input that is a beginning of the text in the targets, where there are other inputs: a model writes such text token by token.
	Grows string `json:",omitempty"`
}

// Check returns an error when the spec describes no input, or a field that no tensor can hold.
func (s Spec) Check() error {
	if len(s.Inputs) == 0 {
		return fmt.Errorf("data: a spec without inputs")
	}
	for _, f := range append(append([]Field{}, s.Inputs...), s.Targets...) {
		if !f.DType.Valid() {
			return fmt.Errorf("data: field %q has no valid element type", f.Name)
		}
		if err := f.Shape.Check(); err != nil {
			return fmt.Errorf("data: field %q: %w", f.Name, err)
		}
	}
	if s.Classes < 0 || s.ClassNames != nil && len(s.ClassNames) != s.Classes {
		return fmt.Errorf("data: %d classes with %d class names", s.Classes, len(s.ClassNames))
	}
	return nil
}

// Tensors makes zeroed tensors for a batch of n examples: one for each input and one for each target, with n as the first axis.
func (s Spec) Tensors(n int) (x, y []*tensor.Tensor) {
	return tensors(s.Inputs, n), tensors(s.Targets, n)
}

func tensors(fields []Field, n int) []*tensor.Tensor {
	ts := make([]*tensor.Tensor, len(fields))
	for i, f := range fields {
		ts[i] = tensor.New(f.DType, append([]int{n}, f.Shape...)...)
	}
	return ts
}

// Dataset is a numbered set of examples. Its methods may be called from several goroutines at the same time.
type Dataset interface {
	Spec() Spec
	Len() int
	// Fill writes the examples idx into batch tensors, x one for each input and y one for each target, whose first axis is len(idx).
	// Every number of idx must be in [0, Len).
	Fill(idx []int, x, y []*tensor.Tensor) error
}

// Labeler is a Dataset that knows the class of an example without the cost of reading the example.
type Labeler interface {
	Dataset
	// Label is the class of example i, in [0, Spec().Classes).
	Label(i int) int
}

// Bucketed is a Dataset whose examples come in several sizes, such as sentences of several lengths. A Loader puts examples of one size into a batch, and where
// those of a size do not fill their last batch some of the next, so that little of a batch is padding.
type Bucketed interface {
	Dataset
	// Buckets are the specs of the sizes, the smallest first: the fields of Spec with shapes of their own. Fill takes tensors of the shapes of Spec or of any bucket that all of its examples fit.
	Buckets() []Spec
	// Bucket is the size of example i.
	Bucket(i int) int
}

// Set is a data set in its usual two parts.
type Set struct {
	Name        string
	Train, Test Dataset
}

// Spec describes the examples of both parts.
func (s *Set) Spec() Spec { return s.Train.Spec() }
