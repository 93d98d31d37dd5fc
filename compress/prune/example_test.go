package prune_test

import (
	"context"
	"fmt"
	"log"

	"github.com/jouleml/joule/compress/prune"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/mnist"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// Nine of ten weights of the kernels go while the model trains.
func Example() {
	digits, err := mnist.Load()
	if err != nil {
		log.Fatal(err)
	}
	p := &prune.Magnitude{Sparsity: 0.9, Every: 5}
	m, err := train.Compile(nn.Sequential(nn.Flatten(), nn.Dense(16, nn.ReLU), nn.Dense(10, nn.Softmax)), digits.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Wrapped(p))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := m.Fit(context.Background(), data.Take(digits.Train, 3200), train.Epochs(1), train.Callbacks(p)); err != nil {
		log.Fatal(err)
	}
	if err := m.Merge(); err != nil { // the zeros are weights now
		log.Fatal(err)
	}
	all, _, err := prune.Sparsity(m)
	fmt.Printf("%.2f %v\n", all, err)
	// Output: 0.90 <nil>
}
