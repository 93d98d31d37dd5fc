package labelled_test

import (
	"fmt"

	"github.com/jouleml/joule/data/labelled"
)

// Texts with a class each become tokens and numbers of classes.
func Example() {
	texts := []labelled.Example{{Text: "rain and wind", Class: "weather"}, {Text: "a goal in the last minute", Class: "sport"}}
	tokenizer, err := labelled.Train(texts, "wordpiece:60")
	if err != nil {
		fmt.Println(err)
		return
	}
	set, err := labelled.New("news", texts, texts, labelled.Config{Tokenizer: tokenizer, Length: 16})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(set.Spec().ClassNames, set.Spec().Inputs[0].Name, set.Spec().Inputs[0].Shape)
	// Output: [sport weather] tokens [16]
}
