package backend_test

import (
	"fmt"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/tensor"
)

// A state keeps variables by name and refuses values of another type.
func ExampleHost() {
	h, err := backend.NewHost([]backend.Var{{Name: "w", Type: graph.T(dtype.F32, 2)}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(h.Set("w", tensor.Of([]float32{1, 2})))
	w, err := h.Get("w")
	fmt.Println(w.F32(), err)
	fmt.Println(h.Set("w", tensor.Of([]float32{1, 2, 3})))
	// Output:
	// <nil>
	// [1 2] <nil>
	// state: variable "w" is f32[2] and cannot take f32[3]
}
