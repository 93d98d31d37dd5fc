// Package tensor holds values: an element type, a shape and row-major memory.
//
// A Tensor is storage and nothing else. Arithmetic is done by graphs (package graph) that a backend compiles.
package tensor

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
)

// Align is the alignment in bytes of every tensor's memory: a cache line, and the widest vector register.
const Align = 64

// Elem lists the Go types that hold the elements of each dtype (bool is held as byte-sized Go bool).
type Elem interface {
	float32 | float64 | dtype.BFloat16 | int8 | uint8 | int32 | int64 | bool
}

// Tensor is a row-major block of elements. Its shape and type never change; its elements may.
type Tensor struct {
	dt  dtype.Type
	sh  shape.Shape
	raw []byte // len = Size*dt.Size(), Align-aligned
}

// New returns a zeroed tensor.
func New(dt dtype.Type, dims ...int) *Tensor {
	sh := shape.Of(dims...).Clone()
	if err := sh.Check(); err != nil {
		panic("tensor.New: " + err.Error())
	}
	return &Tensor{dt, sh, AlignedBytes(sh.Size() * dt.Size())}
}

// AlignedBytes returns n zeroed bytes whose address is a multiple of Align.
func AlignedBytes(n int) []byte {
	if n == 0 {
		return nil
	}
	b := make([]byte, n+Align-1)
	off := 0
	if r := int(uintptr(unsafe.Pointer(&b[0])) % Align); r != 0 {
		off = Align - r
	}
	return b[off : off+n : off+n]
}

// Wrap makes a tensor over existing memory, which must be exactly Size*dt.Size() bytes long and aligned to the element.
// The caller keeps both alive and in step; executables use it for planned arenas.
func Wrap(dt dtype.Type, sh shape.Shape, raw []byte) *Tensor {
	if len(raw) != sh.Size()*dt.Size() {
		panic("tensor.Wrap: length of memory does not match shape")
	}
	return &Tensor{dt, sh.Clone(), raw}
}

// Of copies data into a new tensor of the given dimensions (none given: one axis of len(data)).
// It panics when the number of elements differs, a bug of the caller.
func Of[T Elem](data []T, dims ...int) *Tensor {
	if len(dims) == 0 {
		dims = []int{len(data)}
	}
	t := New(TypeOf[T](), dims...)
	if t.Len() != len(data) {
		panic(fmt.Sprintf("tensor.Of: %d elements do not fill shape %v", len(data), t.sh))
	}
	copy(Data[T](t), data)
	return t
}

// Scalar makes a rank-0 tensor.
func Scalar[T Elem](v T) *Tensor {
	t := New(TypeOf[T]())
	Data[T](t)[0] = v
	return t
}

// TypeOf is the dtype whose elements Go holds as T.
func TypeOf[T Elem]() dtype.Type {
	var z T
	switch any(z).(type) {
	case float32:
		return dtype.F32
	case float64:
		return dtype.F64
	case dtype.BFloat16:
		return dtype.BF16
	case int8:
		return dtype.I8
	case uint8:
		return dtype.U8
	case int32:
		return dtype.I32
	case int64:
		return dtype.I64
	}
	return dtype.Bool
}

// Data is the tensor's memory as a slice. It panics when T is not the tensor's element type.
func Data[T Elem](t *Tensor) []T {
	if TypeOf[T]() != t.dt {
		panic("tensor.Data: " + TypeOf[T]().String() + " asked of a tensor of " + t.dt.String())
	}
	if len(t.raw) == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&t.raw[0])), t.sh.Size())
}

// F32 is Data[float32].
func (t *Tensor) F32() []float32 { return Data[float32](t) }

// I32 is Data[int32].
func (t *Tensor) I32() []int32 { return Data[int32](t) }

// U8 is Data[uint8].
func (t *Tensor) U8() []uint8 { return Data[uint8](t) }

// DType is the element type.
func (t *Tensor) DType() dtype.Type { return t.dt }

// Shape is the tensor's shape; do not change it.
func (t *Tensor) Shape() shape.Shape { return t.sh }

// Len is the number of elements.
func (t *Tensor) Len() int { return t.sh.Size() }

// Bytes is the memory itself, in the machine's byte order.
func (t *Tensor) Bytes() []byte { return t.raw }

// Clone copies the tensor.
func (t *Tensor) Clone() *Tensor {
	c := New(t.dt, t.sh...)
	copy(c.raw, t.raw)
	return c
}

// Reshape is a second header over the same memory. It panics when the number of elements differs.
func (t *Tensor) Reshape(dims ...int) *Tensor { return Wrap(t.dt, shape.Of(dims...), t.raw) }

// Slice is rows [lo, hi) of the first axis, over the same memory.
func (t *Tensor) Slice(lo, hi int) *Tensor {
	row := t.sh[1:].Size() * t.dt.Size()
	sh := t.sh.Clone()
	sh[0] = hi - lo
	return &Tensor{t.dt, sh, t.raw[lo*row : hi*row : hi*row]}
}

// At is element i (in row-major order) as float64. Exact for every type but I64 beyond 2^53.
func (t *Tensor) At(i int) float64 {
	switch t.dt {
	case dtype.F32:
		return float64(Data[float32](t)[i])
	case dtype.F64:
		return Data[float64](t)[i]
	case dtype.BF16:
		return float64(Data[dtype.BFloat16](t)[i].Float32())
	case dtype.I8:
		return float64(Data[int8](t)[i])
	case dtype.U8:
		return float64(Data[uint8](t)[i])
	case dtype.I32:
		return float64(Data[int32](t)[i])
	case dtype.I64:
		return float64(Data[int64](t)[i])
	}
	return float64(t.raw[i])
}

// Set stores v, rounded to nearest even for floats, truncated toward zero and wrapped for integers.
func (t *Tensor) Set(i int, v float64) {
	switch t.dt {
	case dtype.F32:
		Data[float32](t)[i] = float32(v)
	case dtype.F64:
		Data[float64](t)[i] = v
	case dtype.BF16:
		Data[dtype.BFloat16](t)[i] = dtype.ToBFloat16(float32(v))
	case dtype.I8:
		Data[int8](t)[i] = int8(Whole(v))
	case dtype.U8:
		t.raw[i] = uint8(Whole(v))
	case dtype.I32:
		Data[int32](t)[i] = int32(Whole(v))
	case dtype.I64:
		Data[int64](t)[i] = Whole(v)
	default:
		t.raw[i] = 0
		if v != 0 {
			t.raw[i] = 1
		}
	}
}

// Whole is int64(v) with NaN as 0 and the ends of the range for what lies beyond, the same on every processor.
func Whole(v float64) int64 {
	switch {
	case v != v:
		return 0
	case v >= math.MaxInt64:
		return math.MaxInt64
	case v <= math.MinInt64:
		return math.MinInt64
	}
	return int64(v)
}

// Floats copies all elements out as float64, in row-major order.
func (t *Tensor) Floats() []float64 {
	out := make([]float64, t.Len())
	for i := range out {
		out[i] = t.At(i)
	}
	return out
}

// String is the type and shape, and the elements of a small tensor.
func (t *Tensor) String() string {
	if t.Len() <= 16 {
		return fmt.Sprintf("%v%v%v", t.dt, t.sh, t.Floats())
	}
	return fmt.Sprintf("%v%v", t.dt, t.sh)
}
