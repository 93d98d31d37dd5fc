package vec

import (
	"encoding/binary"
	"math"
	"unsafe"

	"github.com/jouleml/joule/dtype"
)

// Compare is the leaf dst[i] = 1 if a[i] op b[i], else 0.
func Compare(op CompareOp) CompareVVFunc {
	part := current().compareVV[op]
	return func(dst []uint8, a, b []float32) {
		n := min(len(dst), len(a), len(b))
		done := part(dst, a, b)
		compareRest(op, dst[done:n], a[done:n], b[done:n])
	}
}

// CompareVS is the leaf dst[i] = 1 if a[i] op s, else 0.
func CompareVS(op CompareOp) CompareVSFunc {
	part := current().compareVS[op]
	return func(dst []uint8, a []float32, s float32) {
		n := min(len(dst), len(a))
		for i := part(dst, a, s); i < n; i++ {
			dst[i] = holds(op, a[i], s)
		}
	}
}

func compareRest(op CompareOp, dst []uint8, a, b []float32) {
	for i, x := range a {
		dst[i] = holds(op, x, b[i])
	}
}

func holds[T Number](op CompareOp, a, b T) uint8 {
	var r bool
	switch op {
	case Eq:
		r = a == b
	case Ne:
		r = a != b
	case Lt:
		r = a < b
	case Le:
		r = a <= b
	case Gt:
		r = a > b
	case Ge:
		r = a >= b
	}
	if r {
		return 1
	}
	return 0
}

// Select is the leaf dst[i] = a[i] where mask[i] is not 0, else b[i].
func Select() func(dst []float32, mask []uint8, a, b []float32) {
	part := current().selectVV
	return func(dst []float32, mask []uint8, a, b []float32) {
		n := min(len(dst), len(mask), len(a), len(b))
		done := part(dst, mask, a, b)
		SelectOf(dst[done:n], mask[done:n], a[done:n], b[done:n])
	}
}

// SelectVS is the leaf dst[i] = a[i] where mask[i] is not 0, else s.
func SelectVS() func(dst []float32, mask []uint8, a []float32, s float32) {
	part := current().selectVS
	return func(dst []float32, mask []uint8, a []float32, s float32) {
		n := min(len(dst), len(mask), len(a))
		for i := part(dst, mask, a, s); i < n; i++ {
			x := s
			if mask[i] != 0 {
				x = a[i]
			}
			dst[i] = x
		}
	}
}

// SelectSV is the leaf dst[i] = s where mask[i] is not 0, else a[i].
func SelectSV() func(dst []float32, mask []uint8, a []float32, s float32) {
	part := current().selectSV
	return func(dst []float32, mask []uint8, a []float32, s float32) {
		n := min(len(dst), len(mask), len(a))
		for i := part(dst, mask, a, s); i < n; i++ {
			x := a[i]
			if mask[i] != 0 {
				x = s
			}
			dst[i] = x
		}
	}
}

// ToBFloat16 is the leaf dst[i] = dtype.ToBFloat16(a[i]).
func ToBFloat16() func(dst []dtype.BFloat16, a []float32) {
	part := current().toBFloat16
	return func(dst []dtype.BFloat16, a []float32) {
		n := min(len(dst), len(a))
		for i := part(bits(dst), a); i < n; i++ {
			dst[i] = dtype.ToBFloat16(a[i])
		}
	}
}

// FromBFloat16 is the leaf dst[i] = a[i].Float32().
func FromBFloat16() func(dst []float32, a []dtype.BFloat16) {
	part := current().fromBFloat16
	return func(dst []float32, a []dtype.BFloat16) {
		n := min(len(dst), len(a))
		for i := part(dst, bits(a)); i < n; i++ {
			dst[i] = a[i].Float32()
		}
	}
}

// bits is the same memory under the type that the assembly knows.
func bits(b []dtype.BFloat16) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.SliceData(b)), len(b))
}

// ToInt32 is the leaf dst[i] = a[i] rounded towards 0; what is out of range becomes the nearest int32, NaN becomes 0.
func ToInt32() func(dst []int32, a []float32) {
	part := current().toInt32
	return func(dst []int32, a []float32) {
		n := min(len(dst), len(a))
		for i := part(dst, a); i < n; i++ {
			dst[i] = toInt32(a[i])
		}
	}
}

func toInt32(x float32) int32 {
	switch {
	case x != x:
		return 0
	case x >= 1<<31:
		return math.MaxInt32
	case x < -1<<31:
		return math.MinInt32
	}
	return int32(x)
}

// FromInt32 is the leaf dst[i] = a[i], rounded to nearest.
func FromInt32() func(dst []float32, a []int32) {
	part := current().fromInt32
	return func(dst []float32, a []int32) {
		n := min(len(dst), len(a))
		for i := part(dst, a); i < n; i++ {
			dst[i] = float32(a[i])
		}
	}
}

// FromUint8 is the leaf dst[i] = a[i]*s: pixels (s = 1/255), masks (s = 1), quantised values.
func FromUint8() func(dst []float32, a []uint8, s float32) {
	part := current().fromUint8
	return func(dst []float32, a []uint8, s float32) {
		n := min(len(dst), len(a))
		for i := part(dst, a, s); i < n; i++ {
			dst[i] = float32(a[i]) * s
		}
	}
}

// FromInt8 is the leaf dst[i] = a[i]*s.
func FromInt8() func(dst []float32, a []int8, s float32) {
	part := current().fromInt8
	return func(dst []float32, a []int8, s float32) {
		n := min(len(dst), len(a))
		for i := part(dst, a, s); i < n; i++ {
			dst[i] = float32(a[i]) * s
		}
	}
}

// eightBytes applies f to masks, eight bytes at a time.
func eightBytes(dst, a, b []uint8, f func(x, y uint64) uint64) {
	n := min(len(dst), len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(dst[i:], f(binary.LittleEndian.Uint64(a[i:]), binary.LittleEndian.Uint64(b[i:])))
	}
	for ; i < n; i++ {
		dst[i] = uint8(f(uint64(a[i]), uint64(b[i])))
	}
}

// And sets dst[i] = a[i] and b[i], of masks.
func And(dst, a, b []uint8) {
	eightBytes(dst, a, b, func(x, y uint64) uint64 { return x & y })
}

// Or sets dst[i] = a[i] or b[i], of masks.
func Or(dst, a, b []uint8) {
	eightBytes(dst, a, b, func(x, y uint64) uint64 { return x | y })
}

// Not sets dst[i] = not a[i], of masks.
func Not(dst, a []uint8) {
	eightBytes(dst, a, a, func(x, _ uint64) uint64 { return x ^ 0x0101010101010101 })
}
