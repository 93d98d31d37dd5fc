package structure_test

import (
	"fmt"

	"github.com/jouleml/joule/compress/structure"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/train"
)

// Half of a layer's units go; what reads them follows.
func ExampleNarrow() {
	spec := data.Spec{
		Inputs:  []data.Field{{Name: "x", DType: dtype.F32, Shape: shape.Of(4)}},
		Targets: []data.Field{{Name: "y", DType: dtype.F32, Shape: shape.Of(1)}},
	}
	m, err := train.Compile(nn.Sequential(nn.Dense(8, nn.ReLU).Named("hidden"), nn.Dense(1)), spec, optim.Adam(), train.MeanSquaredError)
	if err != nil {
		fmt.Println(err)
		return
	}
	small, err := structure.Narrow(m, map[string]int{"hidden": 4}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.ParamCount(), "to", small.ParamCount(), "parameters")
	// Output: 49 to 25 parameters
}
