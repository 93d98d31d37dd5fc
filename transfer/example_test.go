package transfer_test

import (
	"fmt"

	"github.com/jouleml/joule/data/catalog"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/text"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/transfer"
)

// A vector for a text, by a BERT that `joule data get all-minilm-l6-v2` has got.
func ExampleOpen() {
	dir, err := catalog.ModelDir("all-minilm-l6-v2")
	if err != nil {
		fmt.Println("joule data get all-minilm-l6-v2")
		return
	}
	m, err := transfer.Open(dir, train.Fixed())
	if err != nil {
		fmt.Println(err)
		return
	}
	words, err := text.Parse(m.Spec.Tokenizer)
	if err != nil {
		fmt.Println(err)
		return
	}
	ids, err := words.FrameShort("a game of ancient warfare", 256)
	if err != nil {
		fmt.Println(err)
		return
	}
	v, err := m.PredictBatch(tensor.Of(ids, 1, len(ids)), tensor.Of([]int32{int32(len(ids))}, 1))
	fmt.Println(v.Shape(), err)
}
