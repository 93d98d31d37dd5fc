package backendtest

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/tensor"
)

// Array is an array of a golden file: its shape, and its elements as little-endian float32, which JSON has in base64.
type Array struct {
	Shape []int
	Data  []byte
}

// Tensor is the array with elements of this type. It panics if the file has too few.
func (a Array) Tensor(dt dtype.Type) *tensor.Tensor {
	t := tensor.New(dt, a.Shape...)
	if len(a.Data) != 4*t.Len() {
		panic(fmt.Sprintf("backendtest: an array of shape %v has %d bytes", a.Shape, len(a.Data)))
	}
	for i := range t.Len() {
		t.Set(i, float64(math.Float32frombits(binary.LittleEndian.Uint32(a.Data[4*i:]))))
	}
	return t
}
