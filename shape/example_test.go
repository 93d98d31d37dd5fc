package shape_test

import (
	"fmt"

	"github.com/jouleml/joule/shape"
)

func ExampleBroadcast() {
	s, err := shape.Broadcast(shape.Of(32, 1, 10), shape.Of(7, 1))
	fmt.Println(s, s.Size(), err)
	_, err = shape.Broadcast(shape.Of(3), shape.Of(4))
	fmt.Println(err != nil)
	// Output:
	// [32 7 10] 2240 <nil>
	// true
}
