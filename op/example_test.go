package op_test

import (
	"fmt"

	"github.com/jouleml/joule/op"
)

// The table says of each op what it computes, its gradient, and what it is composed of.
func ExampleDescribe() {
	d := op.Describe(op.Lookup("softmax"))
	fmt.Println(d.Doc)
	// Output: e^x over its sum along the last axis
}
