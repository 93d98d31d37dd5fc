package search_test

import (
	"context"
	"fmt"

	"github.com/jouleml/joule/compress/search"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/mnist"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// A small network on digits becomes a smaller one.
func Example() {
	digits, err := mnist.Load()
	if err != nil {
		fmt.Println(err)
		return
	}
	small := *digits
	small.Train = data.Take(digits.Train, 2000)
	m, err := train.Compile(nn.Sequential(nn.Flatten(), nn.Dense(64, nn.ReLU), nn.Dense(10, nn.Softmax)), digits.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Accuracy)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := m.Fit(context.Background(), small.Train, train.Epochs(2)); err != nil {
		fmt.Println(err)
		return
	}
	r, err := search.Run(context.Background(), m, &small, search.Options{Target: search.Bytes, MaxDrop: 0.05, Epochs: 1, Rounds: 1}, search.Memory{}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	best := r.Find(r.Best)
	fmt.Println(best.Packed(), best.Disk*10 < r.Original.Disk)
	// Output: true true
}
