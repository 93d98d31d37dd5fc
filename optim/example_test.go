package optim_test

import (
	"fmt"

	"github.com/jouleml/joule/optim"
)

// A learning rate that warms up over 100 steps and then falls along a half cosine over 900.
func ExampleWarmup() {
	s := optim.Warmup(100, optim.Cosine(0.001, 0, 900))
	for _, step := range []int64{0, 49, 99, 550, 1000} {
		fmt.Printf("%d: %.6f\n", step, s.At(step))
	}
	// Output:
	// 0: 0.000010
	// 49: 0.000500
	// 99: 0.001000
	// 550: 0.000500
	// 1000: 0.000000
}

// An optimizer by its name in a specification.
func ExampleByName() {
	o, err := optim.ByName("adamw", optim.Decay(0.01), optim.GlobalClipNorm(1))
	fmt.Println(o.Name, err)
	_, err = optim.ByName("adamm")
	fmt.Println(err != nil)
	// Output:
	// adamw <nil>
	// true
}
