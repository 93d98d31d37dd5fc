package move

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

func size(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// numbered is n elements with their own index as value, repeating as their size makes them.
func numbered(elem, n int) []byte {
	b := aligned(elem * n)
	for i := range n {
		var x [8]byte
		binary.LittleEndian.PutUint64(x[:], uint64(i)*0x0101_0101_0101_0107>>3+uint64(i))
		copy(b[i*elem:(i+1)*elem], x[:])
	}
	return b
}

// aligned is n bytes aligned to 8.
func aligned(n int) []byte {
	w := make([]uint64, n/8+1)
	return unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), n)
}

func floatBytes(f []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(f))), 4*len(f))
}

// each runs f on every instruction set and 0 to 3 threads.
func each(t *testing.T, f func(what string, pool *par.Pool)) {
	t.Helper()
	for _, l := range isa.Levels() {
		restore := isa.Use(l)
		for n := range 4 {
			var pool *par.Pool
			if n > 0 {
				pool = par.New(n)
			}
			f(fmt.Sprintf("%v threads=%d", l, n), pool)
			pool.Close()
		}
		restore()
	}
}

// check runs a copy into guarded memory and compares with what at gives: for each element of the result, the element of src, or -1 for value.
func check(t *testing.T, what string, elem int, to []int, srcLen int, plan func() func(pool *par.Pool, dst, src []byte), at func(ix []int) int, value uint64) {
	t.Helper()
	src := numbered(elem, srcLen)
	n := size(to)
	want := make([]byte, n*elem)
	ix := make([]int, len(to))
	for i := range n {
		rest := i
		for k := len(to) - 1; k >= 0; k-- {
			ix[k] = rest % to[k]
			rest /= to[k]
		}
		if p := at(ix); p >= 0 {
			copy(want[i*elem:(i+1)*elem], src[p*elem:])
		} else {
			var x [8]byte
			binary.LittleEndian.PutUint64(x[:], value)
			copy(want[i*elem:(i+1)*elem], x[:])
		}
	}
	each(t, func(level string, pool *par.Pool) {
		all := aligned(n*elem + 64)
		for i := range all {
			all[i] = 0xa5
		}
		plan()(pool, all[:n*elem], src)
		if i := mismatch(all[:n*elem], want); i >= 0 {
			t.Fatalf("%s elem=%d %s: element %d is %x, want %x", what, elem, level, i/elem, all[i/elem*elem:][:elem], want[i/elem*elem:][:elem])
		}
		for i, x := range all[n*elem:] {
			if x != 0xa5 {
				t.Fatalf("%s elem=%d %s: wrote %d bytes past the end", what, elem, level, i)
			}
		}
	})
}

func mismatch(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

func TestPermute(t *testing.T) {
	for _, c := range []struct{ dims, perm []int }{
		{[]int{}, []int{}}, {[]int{7}, []int{0}}, {[]int{5, 19}, []int{1, 0}}, {[]int{8, 8}, []int{1, 0}}, {[]int{33, 65}, []int{1, 0}}, {[]int{70, 300}, []int{1, 0}},
		{[]int{3, 2}, []int{1, 0}}, {[]int{2, 3, 4}, []int{2, 0, 1}}, {[]int{2, 3, 4, 5}, []int{0, 2, 1, 3}}, {[]int{2, 9, 4, 11}, []int{0, 3, 1, 2}},
		{[]int{2, 17, 40}, []int{0, 2, 1}}, {[]int{40, 5, 24}, []int{2, 1, 0}}, {[]int{1, 6, 1, 5}, []int{3, 2, 1, 0}}, {[]int{0, 3}, []int{1, 0}}, {[]int{3, 64, 50}, []int{1, 0, 2}},
		{[]int{200, 300}, []int{0, 1}}, {[]int{2, 3, 2, 3, 2, 3}, []int{5, 3, 1, 4, 2, 0}},
	} {
		to, own := make([]int, len(c.dims)), strides(c.dims)
		for i, p := range c.perm {
			to[i] = c.dims[p]
		}
		for _, elem := range []int{1, 2, 4, 8} {
			check(t, fmt.Sprint("permute ", c), elem, to, size(c.dims), func() func(*par.Pool, []byte, []byte) { return Permute(elem, c.dims, c.perm).Run },
				func(ix []int) int {
					p := 0
					for i, x := range ix {
						p += x * own[c.perm[i]]
					}
					return p
				}, 0)
		}
	}
}

func TestSliceReverseBroadcast(t *testing.T) {
	for _, elem := range []int{1, 2, 4, 8} {
		for _, c := range []struct{ dims, start, limit, stride []int }{
			{[]int{4, 5}, []int{1, 0}, []int{3, 5}, []int{1, 1}}, {[]int{7, 9}, []int{1, 2}, []int{6, 9}, []int{2, 3}}, {[]int{5}, []int{2}, []int{2}, []int{1}},
			{[]int{30, 40, 50}, []int{0, 3, 10}, []int{30, 40, 50}, []int{3, 2, 1}},
		} {
			to, own := make([]int, len(c.dims)), strides(c.dims)
			for i := range to {
				to[i] = (c.limit[i] - c.start[i] + c.stride[i] - 1) / c.stride[i]
			}
			check(t, fmt.Sprint("slice ", c), elem, to, size(c.dims), func() func(*par.Pool, []byte, []byte) { return Slice(elem, c.dims, c.start, c.limit, c.stride).Run },
				func(ix []int) int {
					p := 0
					for i, x := range ix {
						p += (c.start[i] + x*c.stride[i]) * own[i]
					}
					return p
				}, 0)
		}
		for _, c := range []struct{ dims, axes []int }{{[]int{3, 5}, []int{1}}, {[]int{3, 5}, []int{0, 1}}, {[]int{30, 700}, []int{0}}, {[]int{4, 0}, []int{1}}, {[]int{6}, []int{0, 0}}} {
			own := strides(c.dims)
			check(t, fmt.Sprint("reverse ", c), elem, c.dims, size(c.dims), func() func(*par.Pool, []byte, []byte) { return Reverse(elem, c.dims, c.axes).Run },
				func(ix []int) int {
					p := 0
					for i, x := range ix {
						for _, a := range c.axes {
							if a == i {
								x = c.dims[i] - 1 - ix[i]
							}
						}
						p += x * own[i]
					}
					return p
				}, 0)
		}
		for _, c := range []struct{ from, to []int }{{[]int{5}, []int{4, 5}}, {[]int{4, 1}, []int{4, 5}}, {[]int{3, 1, 5}, []int{2, 3, 4, 5}}, {nil, []int{7}}, {[]int{1}, []int{300, 300}}, {[]int{40, 1}, []int{8, 40, 9}}} {
			own := strides(c.from)
			check(t, fmt.Sprint("broadcast ", c), elem, c.to, size(c.from), func() func(*par.Pool, []byte, []byte) { return Broadcast(elem, c.from, c.to).Run },
				func(ix []int) int {
					p := 0
					for i, n := range c.from {
						if n != 1 {
							p += ix[len(ix)-len(c.from)+i] * own[i]
						}
					}
					return p
				}, 0)
		}
	}
}

func TestPad(t *testing.T) {
	for _, elem := range []int{1, 2, 4, 8} {
		for _, c := range []struct{ dims, lo, hi, in []int }{
			{[]int{3, 4}, []int{1, 2}, []int{0, 3}, []int{0, 0}}, {[]int{3, 4}, []int{0, 1}, []int{0, 0}, []int{1, 2}}, {[]int{5, 4}, []int{-1, 1}, []int{-1, -2}, []int{0, 0}},
			{[]int{4}, []int{-1}, []int{-1}, []int{1}}, {[]int{4}, []int{-2}, []int{-3}, []int{2}}, {[]int{0}, []int{2}, []int{1}, []int{0}}, {[]int{3}, []int{-5}, []int{4}, []int{0}},
			{[]int{3}, []int{4}, []int{-5}, []int{0}}, {[]int{2, 28, 28, 3}, []int{0, 1, 1, 0}, []int{0, 1, 1, 0}, []int{0, 0, 0, 0}},
		} {
			to, own := make([]int, len(c.dims)), strides(c.dims)
			for i, n := range c.dims {
				to[i] = c.lo[i] + n + max(0, n-1)*c.in[i] + c.hi[i]
			}
			const value = 0x1122334455667788
			check(t, fmt.Sprint("pad ", c), elem, to, size(c.dims), func() func(*par.Pool, []byte, []byte) { return NewPad(elem, c.dims, c.lo, c.hi, c.in, value).Run },
				func(ix []int) int {
					p := 0
					for i, y := range ix {
						x := y - c.lo[i]
						if x < 0 || x%(c.in[i]+1) != 0 || x/(c.in[i]+1) >= c.dims[i] {
							return -1
						}
						p += x / (c.in[i] + 1) * own[i]
					}
					return p
				}, value)
		}
	}
}

func TestConcat(t *testing.T) {
	for _, c := range []struct {
		axis   int
		shapes [][]int
	}{{1, [][]int{{3, 2}, {3, 5}, {3, 1}}}, {0, [][]int{{3, 2}, {1, 2}}}, {2, [][]int{{4, 5, 60}, {4, 5, 0}, {4, 5, 7}}}} {
		var srcs [][]byte
		for _, s := range c.shapes {
			srcs = append(srcs, numbered(4, size(s)))
		}
		to := append([]int{}, c.shapes[0]...)
		to[c.axis] = 0
		for _, s := range c.shapes {
			to[c.axis] += s[c.axis]
		}
		var want []byte
		for o := range size(to[:c.axis]) {
			for i, s := range c.shapes {
				row := 4 * size(s[c.axis:])
				want = append(want, srcs[i][o*row:(o+1)*row]...)
			}
		}
		each(t, func(what string, pool *par.Pool) {
			dst := aligned(len(want))
			NewConcat(4, c.axis, c.shapes).Run(pool, dst, srcs)
			if i := mismatch(dst, want); i >= 0 {
				t.Fatalf("concat %v %s: differs at byte %d", c, what, i)
			}
		})
	}
}

func TestGatherScatter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range [][4]int{{1, 5, 8, 3}, {2, 5, 3, 1}, {1, 1000, 300, 64}, {3, 7, 0, 4}, {1, 50, 4000, 17}, {2, 0, 0, 3}} {
		outer, n, k, inner := c[0], c[1], c[2], c[3]
		index := make([]int32, k)
		for i := range index {
			index[i] = int32(r.IntN(n+4)) - 2
		}
		src, up := make([]float32, outer*n*inner), make([]float32, outer*k*inner)
		for i := range src {
			src[i] = float32(r.NormFloat64())
		}
		for i := range up {
			up[i] = float32(r.NormFloat64())
		}
		gathered, added := make([]float32, outer*k*inner), append([]float32{}, src...)
		whole := make([]int32, len(src))
		for o := range outer {
			for j, x := range index {
				row := min(max(int(x), 0), n-1)
				for e := range inner {
					from, at := (o*n+row)*inner+e, (o*k+j)*inner+e
					gathered[at] = src[from]
					added[from] += up[at]
					whole[from] += int32(at)
				}
			}
		}
		each(t, func(what string, pool *par.Pool) {
			what = fmt.Sprint(what, " ", c)
			dst := make([]float32, len(gathered))
			NewGather(4, outer, n, k, inner).Run(pool, floatBytes(dst), floatBytes(src), index)
			for i := range dst {
				if dst[i] != gathered[i] {
					t.Fatalf("gather %s: [%d] = %g, want %g", what, i, dst[i], gathered[i])
				}
			}
			sum := append([]float32{}, src...)
			NewScatterAdd[float32](outer, n, k, inner).Run(pool, sum, index, up)
			for i := range sum {
				if sum[i] != added[i] { // the same order, so the same bits
					t.Fatalf("scatter-add %s: [%d] = %g, want %g", what, i, sum[i], added[i])
				}
			}
			ints, ups := make([]int32, len(src)), make([]int32, len(up))
			for i := range ups {
				ups[i] = int32(i)
			}
			NewScatterAdd[int32](outer, n, k, inner).Run(pool, ints, index, ups)
			for i := range ints {
				if ints[i] != whole[i] {
					t.Fatalf("scatter-add of integers %s: [%d] = %d, want %d", what, i, ints[i], whole[i])
				}
			}
		})
	}
}

func TestBadPlans(t *testing.T) {
	for name, f := range map[string]func(){
		"element of 3 bytes": func() { Permute(3, []int{2}, []int{0}) },
		"axis twice":         func() { Permute(4, []int{2, 2}, []int{0, 0}) },
		"slice beyond":       func() { Slice(4, []int{5}, []int{1}, []int{6}, []int{1}) },
		"broadcast":          func() { Broadcast(4, []int{3}, []int{4}) },
		"below the start":    func() { NewCopy(Strided{Elem: 4, Dims: []int{3}, DstStride: []int{1}, SrcStride: []int{-1}}) },
		"padding":            func() { NewPad(4, []int{4}, []int{-3}, []int{-3}, []int{0}, 0) },
		"short destination":  func() { Permute(4, []int{2, 3}, []int{1, 0}).Run(nil, make([]byte, 20), make([]byte, 24)) },
		"short source":       func() { Permute(4, []int{2, 3}, []int{1, 0}).Run(nil, make([]byte, 24), make([]byte, 20)) },
		"short index":        func() { NewGather(4, 1, 2, 3, 1).Run(nil, make([]byte, 12), make([]byte, 8), make([]int32, 2)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestAllocs(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	src, dst := aligned(1<<20), aligned(1<<20)
	for elem := 1; elem <= 8; elem *= 2 {
		p := Permute(elem, []int{300, 400}, []int{1, 0})
		pad := NewPad(elem, []int{30, 40}, []int{1, 1}, []int{1, 1}, []int{0, 0}, 0)
		g := NewGather(elem, 1, 100, 3, 10)
		s := NewScatterAdd[float32](1, 10, 3, 10)
		index, f := make([]int32, 3), make([]float32, 100)
		if n := allocs.PerRun(func() {
			p.Run(pool, dst, src)
			pad.Run(pool, dst, src)
			g.Run(pool, dst, src, index)
			s.Run(pool, f, index, f[:30])
		}); n != 0 {
			t.Errorf("elem %d: %v allocations a run", elem, n)
		}
	}
}

func BenchmarkPermute(b *testing.B) {
	pool := par.New(2)
	defer pool.Close()
	for _, c := range []struct{ dims, perm []int }{{[]int{1024, 1024}, []int{1, 0}}, {[]int{128, 300}, []int{1, 0}}, {[]int{16, 128, 4, 64}, []int{0, 2, 1, 3}}, {[]int{32, 28, 28, 3}, []int{0, 3, 1, 2}}, {[]int{32, 64, 14, 14}, []int{0, 2, 3, 1}}} {
		for _, elem := range []int{1, 4} {
			for _, l := range isa.Levels()[:2] {
				b.Run(fmt.Sprintf("%v%v/%d/%v", c.dims, c.perm, elem, l), func(b *testing.B) {
					defer isa.Use(l)()
					n := size(c.dims) * elem
					dst, src := aligned(n), aligned(n)
					p := Permute(elem, c.dims, c.perm)
					b.SetBytes(int64(2 * n))
					for b.Loop() {
						p.Run(pool, dst, src)
					}
				})
			}
		}
	}
}
