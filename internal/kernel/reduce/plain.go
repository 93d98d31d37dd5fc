package reduce

import (
	"math"

	"github.com/jouleml/joule/internal/par"
)

// Number lists the element types, other than float32, that the plain loops of this file fold.
type Number interface {
	float64 | int8 | uint8 | int32 | int64
}

// Plain is a plan for folds along the middle axis of [Outer, N, Inner] of types other than float32: seldom used, so plain Go for every processor. Integers wrap
// around; float64 is added up in order.
type Plain[T Number] struct {
	outer, n, inner    int
	per, tiles         int
	op                 Op
	arg                bool // positions are wanted, not elements
	running            bool // there is a result for each element
	exclusive, reverse bool
	dst, src           []T
	at                 []int32
}

func newPlain[T Number](op Op, outer, n, inner int) *Plain[T] {
	if outer < 0 || n < 0 || inner < 0 || n > math.MaxInt32 {
		panic("reduce: bad size")
	}
	return &Plain[T]{op: op, outer: outer, n: n, inner: inner, tiles: ceil(inner, argTile), per: max(1, chunkLen/max(1, n*min(inner, argTile)))}
}

// NewPlain plans a fold: Sum, Prod, Max or Min. It panics on others, on negative sizes and where Max or Min would have no element to take.
func NewPlain[T Number](op Op, outer, n, inner int) *Plain[T] {
	if op != Sum && op != Prod && (op != Max && op != Min || n == 0) {
		panic("reduce: no plain fold of that kind")
	}
	return newPlain[T](op, outer, n, inner)
}

// NewPlainArg plans the search for the position of the greatest element, or the least: the first of equals, the first NaN if there is one.
func NewPlainArg[T Number](outer, n, inner int, least bool) *Plain[T] {
	if n < 1 {
		panic("reduce: bad size for arg-max")
	}
	p := newPlain[T](Max, outer, n, inner)
	if p.arg = true; least {
		p.op = Min
	}
	return p
}

// NewPlainCumSum plans running sums, with the meaning of NewCumSum.
func NewPlainCumSum[T Number](outer, n, inner int, exclusive, reverse bool) *Plain[T] {
	p := newPlain[T](Sum, outer, n, inner)
	p.running, p.exclusive, p.reverse = true, exclusive, reverse
	return p
}

// Run folds src [Outer, N, Inner]: into dst [Outer, Inner], running sums into dst [Outer, N, Inner], which may be src, positions into at [Outer, Inner], and dst is
// then not used. It panics if a slice is too short.
func (p *Plain[T]) Run(pool *par.Pool, dst []T, at []int32, src []T) {
	m := p.outer * p.inner
	if p.running {
		m *= p.n
	}
	if len(src) < p.outer*p.n*p.inner || max(len(dst), len(at)) < m {
		panic("reduce: slice shorter than the plan says")
	}
	p.dst, p.at, p.src = dst, at, src
	pool.Run(ceil(p.outer*p.tiles, p.per), p)
	p.dst, p.at, p.src = nil, nil, nil
}

// Chunk folds some tiles of columns; it is for package par.
func (p *Plain[T]) Chunk(i, _ int) {
	for u := i * p.per; u < min((i+1)*p.per, p.outer*p.tiles); u++ {
		o, left := u/p.tiles, u%p.tiles*argTile
		width := min(argTile, p.inner-left)
		src := p.src[min(len(p.src), o*p.n*p.inner+left):] // row k begins at k*inner
		to := o*p.inner + left
		switch {
		case p.running:
			p.sums(p.dst[o*p.n*p.inner+left:], src, width)
		case p.arg:
			p.positions(p.at[to:][:width], src)
		default:
			p.fold(p.dst[to:][:width], src)
		}
	}
}

func (p *Plain[T]) fold(acc, src []T) {
	switch {
	case p.op == Max || p.op == Min:
		copy(acc, src)
	case p.op == Prod:
		for j := range acc {
			acc[j] = 1
		}
	default:
		clear(acc)
	}
	for k := range p.n {
		x := src[k*p.inner:][:len(acc)]
		switch p.op {
		case Sum:
			for j, v := range x {
				acc[j] += v
			}
		case Prod:
			for j, v := range x {
				acc[j] *= v
			}
		case Max: // the built-in function gives NaN if one of the two is
			for j, v := range x {
				acc[j] = max(acc[j], v)
			}
		case Min:
			for j, v := range x {
				acc[j] = min(acc[j], v)
			}
		}
	}
}

func (p *Plain[T]) positions(at []int32, src []T) {
	var best [argTile]T
	clear(at)
	copy(best[:], src[:len(at)])
	for k := 1; k < p.n; k++ {
		for j, v := range src[k*p.inner:][:len(at)] {
			b := best[j]
			if (p.op == Max && v > b || p.op == Min && v < b || v != v) && b == b {
				best[j], at[j] = v, int32(k)
			}
		}
	}
}

func (p *Plain[T]) sums(dst, src []T, width int) {
	var acc [argTile]T
	for k := range p.n {
		if p.reverse {
			k = p.n - 1 - k
		}
		y := dst[k*p.inner:][:width]
		for j, v := range src[k*p.inner:][:width] {
			before := acc[j]
			acc[j] += v
			if y[j] = acc[j]; p.exclusive {
				y[j] = before
			}
		}
	}
}
