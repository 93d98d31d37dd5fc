package pairs_test

import (
	"fmt"
	"log"

	"github.com/jouleml/joule/data/pairs"
)

func Example() {
	train := []pairs.Pair{{Source: "one lamp", Target: "eine Lampe"}, {Source: "two lamps", Target: "zwei Lampen"}}
	test := []pairs.Pair{{Source: "two", Target: "zwei"}}
	s, err := pairs.New("lamps", train, test, pairs.Config{Vocabulary: 270, Source: 12, Target: 12})
	if err != nil {
		log.Fatal(err)
	}
	x, y := s.Spec().Tensors(1)
	if err := s.Test.Fill([]int{0}, x, y); err != nil {
		log.Fatal(err)
	}
	n := x[1].I32()[0]
	fmt.Println("read", n, "tokens, the last is <end>:", x[0].I32()[n-1] == 2)
	fmt.Println("write the first from <start>:", x[2].I32()[0] == 1, "behind the end nothing counts:", y[0].I32()[11] == -1)
	// Output:
	// read 3 tokens, the last is <end>: true
	// write the first from <start>: true behind the end nothing counts: true
}
