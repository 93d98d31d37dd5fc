package quant_test

import (
	"context"
	"fmt"
	"log"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/mnist"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// A trained model becomes one of bytes; ranges are measured on some training examples.
func ExampleStatic() {
	digits, err := mnist.Load()
	if err != nil {
		log.Fatal(err)
	}
	m, err := train.Compile(nn.Sequential(nn.Flatten(), nn.Dense(128, nn.ReLU), nn.Dense(10, nn.Softmax)), digits.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := m.Fit(context.Background(), data.Take(digits.Train, 1600), train.Epochs(1)); err != nil {
		log.Fatal(err)
	}
	_, report, err := quant.Static(context.Background(), m, digits.Train, quant.Options{Examples: 64})
	if err != nil {
		log.Fatal(err)
	}
	before, after := report.Bytes()
	fmt.Printf("%.1f times smaller\n", float64(before)/float64(after))
	// Output: 4.0 times smaller
}
