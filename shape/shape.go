// Package shape holds the dimensions of tensors, row-major (the last axis is contiguous).
package shape

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Shape is the length of each axis, outermost first. A scalar has no axes.
// Shapes are values: no function here changes its receiver.
type Shape []int

// Of makes a shape of the given axis lengths.
func Of(dims ...int) Shape { return Shape(dims) }

// Rank is the number of axes.
func (s Shape) Rank() int { return len(s) }

// Size is the number of elements; 1 for a scalar.
func (s Shape) Size() int {
	n := 1
	for _, d := range s {
		n *= d
	}
	return n
}

// Equal reports whether both have the same axes.
func (s Shape) Equal(t Shape) bool { return slices.Equal(s, t) }

// Clone copies s.
func (s Shape) Clone() Shape { return append(Shape{}, s...) }

// String is "[32 28 28 1]", and "[]" for a scalar.
func (s Shape) String() string {
	var b strings.Builder
	b.WriteByte('[')
	for i, d := range s {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strconv.Itoa(d))
	}
	b.WriteByte(']')
	return b.String()
}

// Strides gives, for each axis, the distance in elements between neighbours.
func (s Shape) Strides() []int {
	st := make([]int, len(s))
	n := 1
	for i := len(s) - 1; i >= 0; i-- {
		st[i] = n
		n *= s[i]
	}
	return st
}

// Check returns an error for a negative axis or a number of elements that overflows 2^47
// (so that a size in bytes cannot overflow either). Use it on every shape read from outside.
func (s Shape) Check() error {
	n := 1
	for i, d := range s {
		if d < 0 {
			return fmt.Errorf("shape %v: axis %d is negative", s, i)
		}
		if d > 0 && n > (1<<47)/d {
			return fmt.Errorf("shape %v: too many elements", s)
		}
		n *= d
	}
	return nil
}

// Axis normalises a possibly negative axis (-1 is the last) of s.
func (s Shape) Axis(a int) (int, error) {
	n := a
	if n < 0 {
		n += len(s)
	}
	if n < 0 || n >= len(s) {
		return 0, fmt.Errorf("axis %d is outside a shape of rank %d, %v", a, len(s), s)
	}
	return n, nil
}

// Broadcast is the shape that a and b take together under NumPy's rule: aligned at the last axis,
// an axis of length 1 (or a missing one) repeats.
func Broadcast(a, b Shape) (Shape, error) {
	n := max(len(a), len(b))
	out := make(Shape, n)
	for i := range n {
		da, db := 1, 1
		if j := i - n + len(a); j >= 0 {
			da = a[j]
		}
		if j := i - n + len(b); j >= 0 {
			db = b[j]
		}
		switch {
		case da == db || db == 1:
			out[i] = da
		case da == 1:
			out[i] = db
		default:
			return nil, fmt.Errorf("shapes %v and %v do not broadcast: %d against %d at axis %d", a, b, da, db, i)
		}
	}
	return out, nil
}
