package dtype_test

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
)

func ExampleParse() {
	t, err := dtype.Parse("bf16")
	fmt.Println(t, t.Size(), t.IsFloat(), err)
	fmt.Println(dtype.ToBFloat16(3.14159).Float32()) // 8 bits of precision
	// Output:
	// bf16 2 true <nil>
	// 3.140625
}
