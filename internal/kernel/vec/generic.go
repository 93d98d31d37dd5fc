package vec

// Number is an element type of the plain loops below. bfloat16 is not among them: its arithmetic is float32's, between
// FromBFloat16 and ToBFloat16.
type Number interface {
	~float32 | ~float64 | ~int8 | ~uint8 | ~int32 | ~int64
}

// BinaryOf is a plain loop dst[i] = op(a[i], b[i]), or nil for Pow. Integers wrap around; an integer divided by 0 gives all bits set (-1, or
// 255), as StableHLO's CPU and GPU backends have it.
func BinaryOf[T Number](op BinaryOp) func(dst, a, b []T) {
	f := scalarOf[T](op)
	if f == nil {
		return nil
	}
	return func(dst, a, b []T) {
		for i, x := range a[:min(len(dst), len(a), len(b))] {
			dst[i] = f(x, b[i])
		}
	}
}

// BinaryVSOf is a plain loop dst[i] = op(a[i], s), or nil for Pow.
func BinaryVSOf[T Number](op BinaryOp) func(dst, a []T, s T) {
	f := scalarOf[T](op)
	if f == nil {
		return nil
	}
	return func(dst, a []T, s T) {
		for i, x := range a[:min(len(dst), len(a))] {
			dst[i] = f(x, s)
		}
	}
}

// BinarySVOf is a plain loop dst[i] = op(s, a[i]), or nil for Pow.
func BinarySVOf[T Number](op BinaryOp) func(dst, a []T, s T) {
	f := scalarOf[T](op)
	if f == nil {
		return nil
	}
	return func(dst, a []T, s T) {
		for i, x := range a[:min(len(dst), len(a))] {
			dst[i] = f(s, x)
		}
	}
}

func scalarOf[T Number](op BinaryOp) func(a, b T) T {
	switch op {
	case Add:
		return func(a, b T) T { return a + b }
	case Sub:
		return func(a, b T) T { return a - b }
	case Mul:
		return func(a, b T) T { return a * b }
	case Div:
		var one, two T = 1, 2
		if one/two == 0 { // integers
			var zero T
			return func(a, b T) T {
				if b == 0 {
					return zero - 1
				}
				return a / b
			}
		}
		return func(a, b T) T { return a / b }
	case Max:
		return func(a, b T) T { return max(a, b) }
	case Min:
		return func(a, b T) T { return min(a, b) }
	case ReluGrad:
		return func(a, b T) T {
			if b > 0 {
				return a
			}
			return 0
		}
	}
	return nil
}

// UnaryOf is a plain loop dst[i] = op(a[i]) for Neg, Abs, Sign, Square and Relu, and nil for others.
func UnaryOf[T Number](op UnaryOp) func(dst, a []T) {
	var f func(T) T
	switch op {
	case Neg:
		f = func(x T) T { return -x }
	case Abs:
		f = func(x T) T {
			if x <= 0 {
				return 0 - x // also turns -0 into +0
			}
			return x
		}
	case Sign:
		f = func(x T) T {
			if x > 0 {
				return 1
			}
			if x < 0 {
				var one T = 1
				return -one
			}
			return x
		}
	case Square:
		f = func(x T) T { return x * x }
	case Relu:
		f = func(x T) T {
			if x < 0 {
				return 0
			}
			return x
		}
	default:
		return nil
	}
	return func(dst, a []T) {
		for i, x := range a[:min(len(dst), len(a))] {
			dst[i] = f(x)
		}
	}
}

// CompareOf is a plain loop dst[i] = 1 if a[i] op b[i], else 0.
func CompareOf[T Number](op CompareOp) func(dst []uint8, a, b []T) {
	return func(dst []uint8, a, b []T) {
		for i, x := range a[:min(len(dst), len(a), len(b))] {
			dst[i] = holds(op, x, b[i])
		}
	}
}

// SelectOf sets dst[i] = a[i] where mask[i] is not 0, else b[i].
func SelectOf[T any](dst []T, mask []uint8, a, b []T) {
	for i, m := range mask[:min(len(dst), len(mask), len(a), len(b))] {
		x := b[i]
		if m != 0 {
			x = a[i]
		}
		dst[i] = x
	}
}

// Convert sets dst[i] = D(a[i]) with Go's conversion; floats out of an integer's range, and NaN, give a value that depends on the CPU.
func Convert[D, S Number](dst []D, a []S) {
	for i, x := range a[:min(len(dst), len(a))] {
		dst[i] = D(x)
	}
}

// Fill sets every element to x.
func Fill[T any](dst []T, x T) {
	if len(dst) == 0 {
		return
	}
	dst[0] = x
	for i := 1; i < len(dst); i *= 2 { // copy is as fast as memory
		copy(dst[i:], dst[:i])
	}
}

// Iota sets dst[i] = start + i*step.
func Iota[T Number](dst []T, start, step T) {
	for i := range dst {
		dst[i] = start + T(i)*step
	}
}
