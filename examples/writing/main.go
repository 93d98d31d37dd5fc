// Writing trains a tiny language model on a text and lets it go on with a sentence.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"

	"github.com/jouleml/joule/data/text"
	"github.com/jouleml/joule/generate"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

func main() {
	epochs := flag.Int("epochs", 2, "passes over the text")
	characters := flag.Int("characters", 1<<30, "how much of the text to use")
	flag.Parse()
	if err := run(*epochs, *characters); err != nil {
		log.Fatal(err)
	}
}

func run(epochs, characters int) error {
	book, err := text.Opticks()
	if err != nil {
		return err
	}
	const context128 = 128
	set, err := text.Chars("opticks", book[:min(characters, len(book))], text.Config{Length: context128})
	if err != nil {
		return err
	}
	n := set.Spec().Classes
	m, err := train.Compile(nn.Sequential(
		nn.Embedding(n, 64), nn.PositionEmbedding(context128),
		nn.TransformerBlock(4, nn.CausalAttention()), nn.TransformerBlock(4, nn.CausalAttention()),
		nn.LayerNormalization(), nn.Dense(n, nn.Softmax),
	), set.Spec(), optim.Adam(optim.Rate(0.003)), train.SparseCategoricalCrossentropy, train.BitsPerToken)
	if err != nil {
		return err
	}
	if _, err := m.Fit(context.Background(), set.Train, train.Epochs(epochs)); err != nil {
		return err
	}
	scores, err := m.Evaluate(context.Background(), set.Test, 32)
	if err != nil {
		return err
	}
	for _, s := range scores {
		fmt.Printf("test %s %.2f\n", s.Name, s.Value)
	}
	vocabulary, err := text.NewVocabulary(set.Spec().ClassNames)
	if err != nil {
		return err
	}
	g, err := generate.New(m, vocabulary, context128)
	if err != nil {
		return err
	}
	r, err := g.Run(context.Background(), "The Rays of ", generate.Options{Tokens: 100, Temperature: 0.6}, nil)
	fmt.Printf("The Rays of %s\n", r.Text)
	return err
}
