package move

import (
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// Gather is a plan for dst[o, j, :] = src[o, index[j], :]: source [Outer, N, Inner], K indices, result [Outer, K, Inner]. An index outside
// [0, N) counts as the nearest inside.
type Gather struct {
	outer, n, k, inner int // inner in bytes
	per                int
	dst, src           []byte
	index              []int32
}

// NewGather plans for elements of elem bytes. It panics on negative sizes, or if there are indices but n is 0.
func NewGather(elem, outer, n, k, inner int) *Gather {
	if elem < 1 || outer < 0 || n < 0 || k < 0 || inner < 0 || n == 0 && k > 0 {
		panic("move: bad gather size")
	}
	return &Gather{outer: outer, n: n, k: k, inner: inner * elem, per: max(1, chunkBytes/max(1, inner*elem, 16))}
}

// Run gathers. It panics if a slice is too short.
func (p *Gather) Run(pool *par.Pool, dst, src []byte, index []int32) {
	if len(dst) < p.outer*p.k*p.inner || len(src) < p.outer*p.n*p.inner || len(index) < p.k {
		panic("move: slice shorter than the plan says")
	}
	p.dst, p.src, p.index = dst, src, index
	pool.Run(ceil(p.outer*p.k, p.per), p)
	p.dst, p.src, p.index = nil, nil, nil
}

// Chunk gathers some rows; it is for package par.
func (p *Gather) Chunk(i, _ int) {
	for r := i * p.per; r < min((i+1)*p.per, p.outer*p.k); r++ {
		o, j := r/p.k, r%p.k
		from := o*p.n + clamp(p.index[j], p.n)
		copy(p.dst[r*p.inner:(r+1)*p.inner], p.src[from*p.inner:(from+1)*p.inner])
	}
}

func clamp(i int32, n int) int { return min(max(int(i), 0), n-1) }

// Number is an element type that ScatterAdd can add.
type Number interface {
	~float32 | ~float64 | ~int8 | ~uint8 | ~int32 | ~int64
}

// ScatterAdd is a plan for dst[o, index[j], :] += updates[o, j, :], j in order: destination [Outer, N, Inner], K indices, updates [Outer, K, Inner].
// An index outside [0, N) counts as the nearest inside. Each chunk of work owns a range of destination rows and looks through
// all indices for them, so the order of additions to an element is that of the indices whatever the number of threads.
type ScatterAdd[T Number] struct {
	outer, n, k, inner int
	ranges, rows       int // ranges of destination rows, and rows of each
	add                func(dst, a, b []T)
	dst, updates       []T
	index              []int32
}

// maxRanges is the most ranges of rows: each reads all indices.
const maxRanges = 16

// NewScatterAdd plans. It panics on negative sizes, or if there are indices but n is 0.
func NewScatterAdd[T Number](outer, n, k, inner int) *ScatterAdd[T] {
	if outer < 0 || n < 0 || k < 0 || inner < 0 || n == 0 && k > 0 {
		panic("move: bad scatter size")
	}
	p := &ScatterAdd[T]{outer: outer, n: n, k: k, inner: inner, add: addElements[T]}
	var z T
	if _, ok := any(z).(float32); ok && inner >= 8 {
		p.add = any(table[isa.Current()].addTo).(func(dst, a, b []T))
	}
	// As many ranges as give each some tens of thousands of additions.
	p.ranges = min(max(1, k*inner/(8<<10)), maxRanges, max(1, n))
	p.rows = max(1, ceil(n, p.ranges))
	return p
}

func addElements[T Number](dst, a, b []T) {
	for i, x := range a {
		dst[i] = x + b[i]
	}
}

// Run adds. It panics if a slice is too short.
func (p *ScatterAdd[T]) Run(pool *par.Pool, dst []T, index []int32, updates []T) {
	if len(dst) < p.outer*p.n*p.inner || len(index) < p.k || len(updates) < p.outer*p.k*p.inner {
		panic("move: slice shorter than the plan says")
	}
	p.dst, p.index, p.updates = dst, index, updates
	pool.Run(p.outer*p.ranges, p)
	p.dst, p.index, p.updates = nil, nil, nil
}

// Chunk adds to one range of rows; it is for package par.
func (p *ScatterAdd[T]) Chunk(i, _ int) {
	o, lo := i/p.ranges, i%p.ranges*p.rows
	hi := min(lo+p.rows, p.n)
	for j, x := range p.index[:p.k] {
		r := clamp(x, p.n)
		if r < lo || r >= hi {
			continue
		}
		d := p.dst[(o*p.n+r)*p.inner:][:p.inner]
		u := p.updates[(o*p.k+j)*p.inner:][:p.inner]
		if p.inner == 1 {
			d[0] += u[0]
			continue
		}
		p.add(d, d, u)
	}
}
