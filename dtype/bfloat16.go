package dtype

import "math"

// BFloat16 is the bit pattern of one BF16 element.
type BFloat16 uint16

// ToBFloat16 rounds to nearest, ties to even; NaN stays NaN.
func ToBFloat16(x float32) BFloat16 {
	u := math.Float32bits(x)
	if x != x {
		return BFloat16(u>>16 | 0x40) // keep the payload's top bits, force quiet
	}
	return BFloat16((u + 0x7fff + u>>16&1) >> 16)
}

// Float32 is the exact value.
func (b BFloat16) Float32() float32 { return math.Float32frombits(uint32(b) << 16) }
