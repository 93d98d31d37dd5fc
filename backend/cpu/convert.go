package cpu

import (
	"unsafe"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/tensor"
)

// cast sees the first n elements of raw as T.
func cast[T any](raw []byte, n int) []T {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(raw))), n)
}

// bytesOf sees floats as the bytes that they lie in.
func bytesOf(x []float32) []uint8 {
	return unsafe.Slice((*uint8)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}

// words sees floats as other numbers of four bytes that lie in the same memory.
func words[T int32 | uint32](x []float32) []T { return cast[T](bytesOf(x), len(x)) }

func widenOf[T float32 | float64 | int8 | uint8 | int32 | int64](dst []float64, raw []byte) {
	for i, x := range cast[T](raw, len(dst)) {
		dst[i] = float64(x)
	}
}

// widen copies the first len(dst) elements of raw as float64.
func widen(dst []float64, dt dtype.Type, raw []byte) {
	switch dt {
	case dtype.F32:
		widenOf[float32](dst, raw)
	case dtype.F64:
		widenOf[float64](dst, raw)
	case dtype.BF16:
		for i, x := range cast[dtype.BFloat16](raw, len(dst)) {
			dst[i] = float64(x.Float32())
		}
	case dtype.I8:
		widenOf[int8](dst, raw)
	case dtype.I32:
		widenOf[int32](dst, raw)
	case dtype.I64:
		widenOf[int64](dst, raw)
	default: // U8 and Bool
		widenOf[uint8](dst, raw)
	}
}

// narrow stores src as elements of type dt: floats rounded, integers as they are (references give values in range), NaN as integer 0.
func narrow(dt dtype.Type, raw []byte, src []float64) {
	n := len(src)
	switch dt {
	case dtype.F32:
		for i, p := range src {
			cast[float32](raw, n)[i] = float32(p)
		}
	case dtype.F64:
		copy(cast[float64](raw, n), src)
	case dtype.BF16:
		for i, p := range src {
			cast[dtype.BFloat16](raw, n)[i] = dtype.ToBFloat16(float32(p))
		}
	case dtype.I8:
		for i, p := range src {
			cast[int8](raw, n)[i] = int8(tensor.Whole(p))
		}
	case dtype.I32:
		for i, p := range src {
			cast[int32](raw, n)[i] = int32(tensor.Whole(p))
		}
	case dtype.I64:
		for i, p := range src {
			cast[int64](raw, n)[i] = tensor.Whole(p)
		}
	default: // U8 and Bool
		for i, p := range src {
			raw[i] = uint8(tensor.Whole(p))
		}
	}
}
