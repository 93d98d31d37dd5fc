package move

import "github.com/jouleml/joule/internal/par"

// strides are those of a row-major array.
func strides(dims []int) []int {
	s := make([]int, len(dims))
	n := 1
	for i := len(dims) - 1; i >= 0; i-- {
		s[i] = n
		n *= dims[i]
	}
	return s
}

// Permute plans the transposition of an array of shape dims: axis i of the result is axis perm[i] of the source. It panics if perm is not
// a permutation.
func Permute(elem int, dims, perm []int) *Copy {
	if len(perm) != len(dims) {
		panic("move: not a permutation of the axes")
	}
	to, ss, seen := make([]int, len(dims)), make([]int, len(dims)), make([]bool, len(dims))
	own := strides(dims)
	for i, p := range perm {
		if p < 0 || p >= len(dims) || seen[p] {
			panic("move: not a permutation of the axes")
		}
		seen[p] = true
		to[i], ss[i] = dims[p], own[p]
	}
	return NewCopy(Strided{Elem: elem, Dims: to, DstStride: strides(to), SrcStride: ss})
}

// Slice plans the selection of elements start, start+stride, … below limit on each axis of an array of shape dims.
// It panics if they lie outside.
func Slice(elem int, dims, start, limit, stride []int) *Copy {
	to, ss := make([]int, len(dims)), make([]int, len(dims))
	own, s0 := strides(dims), 0
	for i, n := range dims {
		if start[i] < 0 || limit[i] > n || start[i] > limit[i] || stride[i] < 1 {
			panic("move: slice outside the array")
		}
		to[i], ss[i] = ceil(limit[i]-start[i], stride[i]), own[i]*stride[i]
		s0 += start[i] * own[i]
	}
	return NewCopy(Strided{Elem: elem, Dims: to, DstStride: strides(to), SrcStride: ss, SrcStart: s0})
}

// Broadcast plans the repetition of an array of shape from to shape to: shapes are aligned at their last axes, and axes that are 1 or missing in
// from repeat. It panics if an axis does not fit.
func Broadcast(elem int, from, to []int) *Copy {
	ss, own := make([]int, len(to)), strides(from)
	lead := len(to) - len(from)
	if lead < 0 {
		panic("move: shape does not broadcast")
	}
	for i, n := range from {
		switch n {
		case to[lead+i]:
			ss[lead+i] = own[i]
		case 1:
		default:
			panic("move: shape does not broadcast")
		}
	}
	return NewCopy(Strided{Elem: elem, Dims: to, DstStride: strides(to), SrcStride: ss})
}

// Reverse plans the reversal of the order of elements along axes of an array of shape dims.
func Reverse(elem int, dims, axes []int) *Copy {
	ss, s0 := strides(dims), 0
	for _, a := range axes {
		if ss[a] > 0 { // an axis given twice counts once
			s0 += max(0, dims[a]-1) * ss[a]
			ss[a] = -ss[a]
		}
	}
	return NewCopy(Strided{Elem: elem, Dims: dims, DstStride: strides(dims), SrcStride: ss, SrcStart: s0})
}

// Concat is a plan that puts arrays one after another along an axis.
type Concat struct{ parts []*Copy }

// NewConcat plans for arrays of the given shapes, which differ along axis alone.
func NewConcat(elem, axis int, shapes [][]int) *Concat {
	if len(shapes) == 0 {
		panic("move: nothing to concatenate")
	}
	to := append([]int(nil), shapes[0]...)
	to[axis] = 0
	for _, s := range shapes {
		for i, n := range s {
			if i != axis && n != to[i] {
				panic("move: shapes differ off the axis")
			}
		}
		to[axis] += s[axis]
	}
	p, ds, at := &Concat{}, strides(to), 0
	for _, s := range shapes {
		p.parts = append(p.parts, NewCopy(Strided{Elem: elem, Dims: s, DstStride: ds, SrcStride: strides(s), DstStart: at * ds[axis]}))
		at += s[axis]
	}
	return p
}

// Run sets dst from the arrays in order. It panics on another number of them or a slice that is too short.
func (p *Concat) Run(pool *par.Pool, dst []byte, srcs [][]byte) {
	if len(srcs) != len(p.parts) {
		panic("move: not the planned number of arrays")
	}
	for i, c := range p.parts {
		c.Run(pool, dst, srcs[i])
	}
}

// Pad is a plan that puts a value before, after and between the elements of each axis.
type Pad struct {
	fill, copy *Copy
	value      [8]byte
}

// NewPad plans for an array of shape dims, with lo[i] elements before axis i, hi[i] after it and interior[i] between its elements; a negative
// lo or hi removes (what counts is the axis with its interior elements). value holds the element's bits in its low bytes. It panics if an axis would have less than nothing.
func NewPad(elem int, dims, lo, hi, interior []int, value uint64) *Pad {
	to := make([]int, len(dims))
	n := make([]int, len(dims))  // how many elements of the axis remain
	ds := make([]int, len(dims)) // strides of the result
	own := strides(dims)
	d0, s0 := 0, 0
	for i, m := range dims {
		to[i] = lo[i] + m + max(0, m-1)*interior[i] + hi[i]
		if interior[i] < 0 || to[i] < 0 {
			panic("move: bad padding")
		}
	}
	for i, st := range strides(to) {
		step := interior[i] + 1
		// Element x lands at lo + x·step, which must be in [0, to).
		first := 0
		if lo[i] < 0 {
			first = ceil(-lo[i], step)
		}
		last := min(dims[i]-1, floor(to[i]-1-lo[i], step))
		n[i] = max(0, last-first+1)
		ds[i] = st * step
		d0 += (lo[i] + first*step) * st
		s0 += first * own[i]
	}
	p := &Pad{fill: Broadcast(elem, nil, to)}
	for i := range p.value {
		p.value[i] = byte(value >> (8 * i))
	}
	p.copy = NewCopy(Strided{Elem: elem, Dims: n, DstStride: ds, SrcStride: own, DstStart: d0, SrcStart: s0})
	return p
}

func floor(a, b int) int {
	if a < 0 {
		return -ceil(-a, b)
	}
	return a / b
}

// Run sets dst from src.
func (p *Pad) Run(pool *par.Pool, dst, src []byte) {
	p.fill.Run(pool, dst, p.value[:])
	p.copy.Run(pool, dst, src)
}
