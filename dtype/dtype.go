// Package dtype names the element types of tensors.
package dtype

import "fmt"

// Type is an element type. The zero value is Invalid.
type Type uint8

// The element types. F64 is the type of reference computations.
const (
	Invalid Type = iota
	F32
	F64
	BF16 // upper half of an IEEE 754 binary32: 8 exponent bits, 7 fraction bits
	I8
	U8
	I32
	I64
	Bool // one byte, 0 or 1
)

// All lists every valid type in a fixed order.
var All = []Type{F32, F64, BF16, I8, U8, I32, I64, Bool}

var info = [...]struct {
	name string
	size int
}{
	Invalid: {"invalid", 0},
	F32:     {"f32", 4},
	F64:     {"f64", 8},
	BF16:    {"bf16", 2},
	I8:      {"i8", 1},
	U8:      {"u8", 1},
	I32:     {"i32", 4},
	I64:     {"i64", 8},
	Bool:    {"bool", 1},
}

// Size is the number of bytes of one element.
func (t Type) Size() int { return info[t].size }

// String is the short name that graphs print and Parse reads, such as "f32".
func (t Type) String() string {
	if int(t) >= len(info) {
		return fmt.Sprintf("dtype(%d)", uint8(t))
	}
	return info[t].name
}

// IsFloat reports whether t is F32, F64 or BF16.
func (t Type) IsFloat() bool { return t == F32 || t == F64 || t == BF16 }

// IsInt reports whether t is I8, U8, I32 or I64.
func (t Type) IsInt() bool { return t >= I8 && t <= I64 }

// Valid reports whether t is one of All.
func (t Type) Valid() bool { return t > Invalid && int(t) < len(info) }

// Parse is the inverse of String.
func Parse(name string) (Type, error) {
	for _, t := range All {
		if t.String() == name {
			return t, nil
		}
	}
	return Invalid, fmt.Errorf("dtype: unknown element type %q (known: %v)", name, All)
}
