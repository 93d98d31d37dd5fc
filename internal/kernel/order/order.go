// Package order sorts lanes of arrays and finds their greatest elements.
//
// # Terminology
//
// A lane is a run of N elements along the middle axis of an array [Outer, N, Inner]. An item is an element's key, an unsigned integer that
// orders as the elements are to be ordered, and its position in the lane. Items differ, since their positions do, so there is one right order: of equal elements
// the first comes first. NaNs count as equal and as greater than every number, and -0 equals +0.
//
// A lane is sorted by its keys' bytes, least significant first (LSD radix sort; Knuth, The Art of Computer Programming 3, 5.2.5): n steps for each
// byte in which keys differ, and a stable order for nothing. Short lanes are sorted by insertion. Chunks are lanes, whatever the number of threads.
package order

import (
	"math"
	"unsafe"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/par"
)

// Element lists the types of elements.
type Element interface {
	float32 | float64 | dtype.BFloat16 | int8 | uint8 | int32 | int64
}

// key lists the types of keys: as wide as the elements need.
type key interface{ uint32 | uint64 }

type item[K key] struct {
	key K
	pos int32
}

// shortLane is the length below which insertion is faster than counting bytes; see BenchmarkSort.
const shortLane = 48

// perChunk is how many elements a thread takes at a time, if lanes are short.
const perChunk = 1 << 13

// shape of the work, common to Sort and TopK.
type shape struct {
	outer, n, inner int
	per             int // lanes of a chunk
}

func newShape(outer, n, inner int) shape {
	if outer < 0 || n < 0 || inner < 0 || n > math.MaxInt32 {
		panic("order: bad size")
	}
	return shape{outer, n, inner, max(1, perChunk/max(1, n))}
}

func (s *shape) lanes() int { return s.outer * s.inner }

func (s *shape) chunks() int { return (s.lanes() + s.per - 1) / s.per }

// Plan sorts lanes, or takes their greatest elements, for elements of type T.
type Plan[T Element] struct {
	shape
	k          int // elements that are kept of each lane
	descending bool
	narrow     []worker[uint32] // one of the two is used, by the width of T
	wide       []worker[uint64]
	dst, src   []T
	pos        []int32
}

type worker[K key] struct{ a, b []item[K] }

// NewSort plans to sort [outer, n, inner] along the middle axis, for up to the given number of threads. It panics on negative sizes and on lanes longer
// than an int32 can count.
func NewSort[T Element](outer, n, inner int, descending bool, threads int) *Plan[T] {
	return plan[T](newShape(outer, n, inner), n, descending, threads)
}

// NewTopK plans to take the k greatest of each of outer lanes of n elements, greatest first. It panics unless 0 ≤ k ≤ n.
func NewTopK[T Element](outer, n, k, threads int) *Plan[T] {
	if k < 0 || k > n {
		panic("order: bad size")
	}
	return plan[T](newShape(outer, n, 1), k, true, threads)
}

func plan[T Element](s shape, k int, descending bool, threads int) *Plan[T] {
	p := &Plan[T]{shape: s, k: k, descending: descending}
	if unsafe.Sizeof(*new(T)) == 8 {
		p.wide = workers[uint64](threads, s.n)
	} else {
		p.narrow = workers[uint32](threads, s.n)
	}
	return p
}

func workers[K key](threads, n int) []worker[K] {
	ws := make([]worker[K], max(1, threads))
	for i := range ws {
		both := make([]item[K], 2*n)
		ws[i] = worker[K]{both[:n:n], both[n:]}
	}
	return ws
}

// Bytes is the memory that the plan holds.
func (p *Plan[T]) Bytes() int64 {
	var i32 item[uint32]
	var i64 item[uint64]
	return 2 * int64(p.n) * (int64(len(p.narrow))*int64(unsafe.Sizeof(i32)) + int64(len(p.wide))*int64(unsafe.Sizeof(i64)))
}

// Run sets dst [Outer, K, Inner] to the first K elements (of a sort: all N) of each lane of src [Outer, N, Inner] in order, and pos, of dst's
// shape, to the places in the lane where they stood. It panics if a slice is too short, or the pool has more threads than were planned for. dst must not be src.
func (p *Plan[T]) Run(pool *par.Pool, dst []T, pos []int32, src []T) {
	m := p.lanes() * p.k
	if len(dst) < m || len(pos) < m || len(src) < p.lanes()*p.n {
		panic("order: slice shorter than the plan says")
	}
	if pool.Threads() > max(len(p.narrow), len(p.wide)) {
		panic("order: more threads than planned for")
	}
	if m == 0 {
		return
	}
	p.dst, p.pos, p.src = dst, pos, src
	pool.Run(p.chunks(), p)
	p.dst, p.pos, p.src = nil, nil, nil
}

// Chunk orders some lanes; it is for package par.
func (p *Plan[T]) Chunk(i, w int) {
	if len(p.wide) > 0 {
		chunk(p, &p.wide[w], i)
	} else {
		chunk(p, &p.narrow[w], i)
	}
}

func chunk[T Element, K key](p *Plan[T], w *worker[K], i int) {
	for lane := i * p.per; lane < min((i+1)*p.per, p.lanes()); lane++ {
		at := lane/p.inner*p.n*p.inner + lane%p.inner
		fill(w.a, p.src[at:], p.inner, p.descending)
		var found []item[K]
		if p.k <= p.n/8 {
			found = least(w.a, p.k)
		} else {
			found = sorted(w.a, w.b)
		}
		to := lane/p.inner*p.k*p.inner + lane%p.inner
		for r, it := range found[:p.k] {
			p.dst[to+r*p.inner] = p.src[at+int(it.pos)*p.inner]
			p.pos[to+r*p.inner] = it.pos
		}
	}
}

// fill makes the items of a lane whose elements are step apart. Descending keys are the complements of ascending ones.
func fill[T Element, K key](items []item[K], lane []T, step int, descending bool) {
	var flip K
	if descending {
		flip = ^flip
	}
	switch lane := any(lane).(type) {
	case []float32:
		for i := range items {
			items[i] = item[K]{K(float32Key(lane[i*step])) ^ flip, int32(i)}
		}
	case []float64:
		for i := range items {
			items[i] = item[K]{K(float64Key(lane[i*step])) ^ flip, int32(i)}
		}
	case []dtype.BFloat16:
		for i := range items {
			items[i] = item[K]{K(float32Key(lane[i*step].Float32())) ^ flip, int32(i)}
		}
	case []uint8:
		for i := range items {
			items[i] = item[K]{K(lane[i*step]) ^ flip, int32(i)}
		}
	case []int8:
		for i := range items {
			items[i] = item[K]{K(uint8(lane[i*step])^1<<7) ^ flip, int32(i)}
		}
	case []int32:
		for i := range items {
			items[i] = item[K]{K(uint32(lane[i*step])^1<<31) ^ flip, int32(i)}
		}
	case []int64:
		for i := range items {
			items[i] = item[K]{K(uint64(lane[i*step])^1<<63) ^ flip, int32(i)}
		}
	}
}

// float32Key orders as numbers do: the bits of a positive number with the sign set, those of a negative one complemented.
func float32Key(x float32) uint32 {
	if x != x {
		return math.MaxUint32
	}
	u := math.Float32bits(x + 0) // -0 + 0 is +0
	return u ^ (uint32(int32(u)>>31) | 1<<31)
}

func float64Key(x float64) uint64 {
	if x != x {
		return math.MaxUint64
	}
	u := math.Float64bits(x + 0)
	return u ^ (uint64(int64(u)>>63) | 1<<63)
}

// sorted orders items of ascending positions by key; the result lies in a or b, which are overwritten.
func sorted[K key](a, b []item[K]) []item[K] {
	if len(a) < shortLane {
		insertion(a)
		return a
	}
	var counts [8][256]int32
	digits := int(unsafe.Sizeof(*new(K)))
	for i := range a {
		k := a[i].key
		for d := range digits {
			counts[d][uint8(k>>(8*d))]++
		}
	}
	for d := range digits {
		c := &counts[d]
		if int(c[uint8(a[0].key>>(8*d))]) == len(a) {
			continue // this byte is the same in all
		}
		sum := int32(0)
		for i, n := range c {
			c[i] = sum
			sum += n
		}
		for _, it := range a {
			to := &c[uint8(it.key>>(8*d))]
			b[*to] = it
			*to++
		}
		a, b = b, a
	}
	return a
}

func (x item[K]) before(y item[K]) bool { return x.key < y.key || x.key == y.key && x.pos < y.pos }

// insertion sorts a few items.
func insertion[K key](a []item[K]) {
	for i := 1; i < len(a); i++ {
		it, j := a[i], i
		for ; j > 0 && it.before(a[j-1]); j-- {
			a[j] = a[j-1]
		}
		a[j] = it
	}
}

// least moves the k least items to the front, in order, and gives them. The front is a heap with its greatest item first until all have been seen.
func least[K key](a []item[K], k int) []item[K] {
	h := a[:k]
	if k == 0 {
		return h
	}
	for i := k/2 - 1; i >= 0; i-- {
		sink(h, i)
	}
	for _, it := range a[k:] { // of equal keys those in the heap stand before
		if it.key < h[0].key {
			h[0] = it
			sink(h, 0)
		}
	}
	for i := k - 1; i > 0; i-- {
		h[0], h[i] = h[i], h[0]
		sink(h[:i], 0)
	}
	return h
}

func sink[K key](h []item[K], i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c].before(h[c+1]) {
			c++
		}
		if !h[i].before(h[c]) {
			return
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}
