package text_test

import (
	"fmt"
	"strings"

	"github.com/jouleml/joule/text"
)

// A byte-pair vocabulary made from a text; whatever is encoded comes back.
func ExampleNewTrainer() {
	tr, err := text.NewTrainer("bpe", 270)
	if err != nil {
		fmt.Println(err)
		return
	}
	tr.Add(strings.Repeat("the light of the sun and the light of the moon ", 20))
	tok, err := tr.Train()
	if err != nil {
		fmt.Println(err)
		return
	}
	ids, err := tok.Encode("the light of the night")
	fmt.Println(len(ids) < len("the light of the night"), tok.Decode(ids), err)
	// Output: true the light of the night <nil>
}
