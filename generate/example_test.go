package generate_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/jouleml/joule/data/text"
	"github.com/jouleml/joule/generate"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// A model learns a rhyme by heart and says it.
func Example() {
	set, err := text.Chars("rhyme", strings.Repeat("one two three four ", 60), text.Config{Length: 16, Stride: 5})
	if err != nil {
		log.Fatal(err)
	}
	n := set.Spec().Classes
	net := nn.Sequential(nn.Embedding(n, 16), nn.GRU(32, nn.ReturnSequences()), nn.Dense(n, nn.Softmax))
	m, err := train.Compile(net, set.Spec(), optim.Adam(optim.Rate(0.02)), train.SparseCategoricalCrossentropy)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := m.Fit(context.Background(), set.Train, train.Epochs(6)); err != nil {
		log.Fatal(err)
	}
	v, err := text.NewVocabulary(set.Spec().ClassNames)
	if err != nil {
		log.Fatal(err)
	}
	g, err := generate.New(m, v, 64)
	if err != nil {
		log.Fatal(err)
	}
	r, err := g.Run(context.Background(), "one two ", generate.Options{Tokens: 20, Stop: []string{" four"}}, nil)
	fmt.Printf("%q %s %v\n", r.Text, r.Why, err)
	// Output: "three" stop <nil>
}
