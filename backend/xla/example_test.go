package xla_test

import (
	"fmt"

	"github.com/jouleml/joule/backend/xla"
)

// Where there is no plugin, the error says where it was looked for.
func ExampleOpen() {
	b, err := xla.Open(xla.Options{Plugin: "no/such/plugin.so"})
	fmt.Println(b == nil, err != nil)
	// Output: true true
}
