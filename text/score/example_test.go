package score_test

import (
	"fmt"
	"log"

	"github.com/jouleml/joule/text/score"
)

func Example() {
	written := []string{"Das Paket enthält die gemeinsame Bibliothek.", "Ein kleiner Editor für X11"}
	references := []string{"Dieses Paket enthält die gemeinsame Bibliothek.", "Kleiner Editor für X11"}
	b, err := score.CorpusBLEU(written, references)
	if err != nil {
		log.Fatal(err)
	}
	r, err := score.MeanROUGE(written, references)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("BLEU %.1f, ROUGE-L %.3f\n", b.Score, r.L)
	// Output: BLEU 63.6, ROUGE-L 0.883
}
