package text_test

import (
	"fmt"

	"github.com/jouleml/joule/data/text"
)

// A text becomes examples of characters, whose targets are the characters that follow.
func ExampleChars() {
	set, err := text.Chars("rhyme", "round and round and round it goes, and where it stops nobody knows", text.Config{Length: 8, Test: 0.2})
	if err != nil {
		fmt.Println(err)
		return
	}
	v, err := text.NewVocabulary(set.Spec().ClassNames)
	if err != nil {
		fmt.Println(err)
		return
	}
	x, y := set.Spec().Tensors(1)
	if err := set.Train.Fill([]int{0}, x, y); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%q %q\n", v.Decode(x[0].I32()), v.Decode(y[0].I32()))
	// Output: "round an" "ound and"
}
