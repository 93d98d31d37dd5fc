package train_test

import (
	"context"
	"fmt"
	"log"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/mnist"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// The program of the README, on a part of the data.
func Example() {
	model := nn.Sequential(
		nn.Conv2D(32, 3, nn.ReLU), nn.MaxPool2D(2),
		nn.Conv2D(64, 3, nn.ReLU), nn.MaxPool2D(2),
		nn.Flatten(), nn.Dense(128, nn.ReLU), nn.Dense(10, nn.Softmax),
	)
	digits, err := mnist.Load()
	if err != nil {
		log.Fatal(err)
	}
	m, err := train.Compile(model, digits.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Accuracy)
	if err != nil {
		log.Fatal(err)
	}
	few, test := data.Take(digits.Train, 3200), data.Take(digits.Test, 1000)
	history, err := m.Fit(context.Background(), few, train.Epochs(2), train.BatchSize(32), train.Validate(test))
	if err != nil {
		log.Fatal(err)
	}
	accuracy, _ := history.Epochs[1].Log("val_accuracy")
	fmt.Println(history.Steps, "steps, better than 0.85:", accuracy > 0.85)
	// Output: 200 steps, better than 0.85: true
}
