package spec_test

import (
	"fmt"

	"github.com/jouleml/joule/spec"
)

// A mistake is told with its line and the nearest name.
func ExampleParse() {
	_, err := spec.Parse([]byte(`data: mnist
model:
  - Flatten
  - Dense: {units: 10}
compile: {optimizer: adamm, loss: sparse_categorical_crossentropy}
`), "digits.yaml")
	fmt.Println(err)
	s, err := spec.Open("mnist")
	fmt.Println(s.Data, s.Fit.Epochs, s.Fit.BatchSize, err)
	// Output:
	// digits.yaml:5: unknown optimizer "adamm", did you mean "adam"? (known: adam, adamw, lion, rmsprop, sgd)
	// mnist 10 32 <nil>
}
