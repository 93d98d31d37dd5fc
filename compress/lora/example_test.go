package lora_test

import (
	"fmt"
	"log"

	"github.com/jouleml/joule/compress/lora"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/train"
)

// Only changes of rank 2 are trained: 2·(64+32) numbers in the place of 64·32.
func Example() {
	ds, err := data.FromSlices(make([]float32, 640), shape.Of(64), make([]int32, 10), shape.Of(), 32)
	if err != nil {
		log.Fatal(err)
	}
	a := &lora.Adapter{Rank: 2}
	m, err := train.Compile(nn.Sequential(nn.Dense(32, nn.Softmax)), ds.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Wrapped(a))
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range m.Params() {
		fmt.Println(p.Name, p.Type, p.Trainable)
	}
	// Output:
	// dense/kernel f32[64 32] false
	// lora/dense/kernel/a f32[64 2] true
	// lora/dense/kernel/b f32[2 32] true
	// dense/bias f32[32] true
}
