// Digits trains a small convolutional network on MNIST, saves it, loads it again and reads a digit: the life of a model in one program.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/mnist"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

func main() {
	images := flag.Int("images", 60000, "how many of the 60,000 training images to use")
	flag.Parse()
	if err := run(*images); err != nil {
		log.Fatal(err)
	}
}

func run(images int) error {
	digits, err := mnist.Load()
	if err != nil {
		return err
	}
	model := nn.Sequential(
		nn.Conv2D(16, 3, nn.ReLU), nn.MaxPool2D(2),
		nn.Flatten(), nn.Dense(64, nn.ReLU), nn.Dense(10, nn.Softmax),
	)
	m, err := train.Compile(model, digits.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Accuracy)
	if err != nil {
		return err
	}
	account, err := m.StartAccount(nil) // no meter: energy is estimated
	if err != nil {
		return err
	}
	if _, err := m.Fit(context.Background(), data.Take(digits.Train, images)); err != nil {
		return err
	}
	ledger, err := account.Ledger()
	if err != nil {
		return err
	}
	scores, err := m.Evaluate(context.Background(), digits.Test, 128)
	if err != nil {
		return err
	}
	for _, s := range scores {
		fmt.Printf("test %s %.3f\n", s.Name, s.Value)
	}
	fmt.Println("training cost", ledger.Joules)

	dir, err := os.MkdirTemp("", "digits")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "digits.safetensors")
	if err := m.Save(file); err != nil {
		return err
	}
	again, err := train.Load(file)
	if err != nil {
		return err
	}
	x, y := digits.Spec().Tensors(1)
	if err := digits.Test.Fill([]int{0}, x, y); err != nil {
		return err
	}
	p, err := again.PredictBatch(x...)
	if err != nil {
		return err
	}
	best := 0
	for i, v := range p.F32() {
		if v > p.F32()[best] {
			best = i
		}
	}
	fmt.Printf("the first test image is a %d, read as %d with probability %.3f\n", y[0].I32()[0], best, p.At(best))
	return nil
}
