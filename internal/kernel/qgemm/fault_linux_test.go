package qgemm

import (
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/race"
)

// edge is n elements of T that end where memory ends or, if first, begin where it begins: the pages around may not be touched. A kernel that reads or writes beyond its slices dies here.
func edge[T any](t *testing.T, n int, first bool) []T {
	var z T
	page, bytes := os.Getpagesize(), n*int(unsafe.Sizeof(z))
	size := (bytes + page - 1) / page * page
	m, err := syscall.Mmap(-1, 0, size+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Skip("no memory map: ", err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(m) })
	for _, around := range [][]byte{m[:page], m[page+size:]} {
		if err := syscall.Mprotect(around, syscall.PROT_NONE); err != nil {
			t.Skip("cannot protect a page: ", err)
		}
	}
	at := page
	if !first {
		at += size - bytes
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&m[at])), n)
}

// Activations and results may lie at an end of memory, and are those of plain Go there, in every way to compute and with weights of all kinds.
func TestEndOfMemory(t *testing.T) {
	if race.Enabled {
		t.Skip("one thread")
	}
	r := rand.New(rand.NewPCG(41, 42))
	specs := []Spec{{M: 1, N: 1, K: 1}, {M: 5, N: 17, K: 31}, {M: 13, N: 48, K: 64}, {M: 40, N: 70, K: 100}}
	for range 40 {
		c := Conv{H: 3 + r.IntN(9), W: 3 + r.IntN(9), C: []int{1, 3, 8, 16, 17, 32}[r.IntN(6)], KH: 3, KW: 3, StrideH: 1 + r.IntN(5)/4, StrideW: 1 + r.IntN(5)/4, PadTop: r.IntN(3), PadLeft: r.IntN(3), Zero: uint8(255 * r.IntN(2))}
		c.OH, c.OW = (c.H+c.PadTop+r.IntN(3)-3)/c.StrideH+1, (c.W+c.PadLeft+r.IntN(3)-3)/c.StrideW+1
		s := Spec{M: 2 * c.OH * c.OW, N: []int{8, 16, 24, 33}[r.IntN(4)], K: 9 * c.C, Conv: &c, Low: 3, ReLU: r.IntN(2) == 0}
		if s.Pool = r.IntN(2) == 0; s.Pool {
			s.M = 2 * (c.OH / 2) * (c.OW / 2)
		}
		if s.M > 0 {
			specs = append(specs, s)
		}
	}
	for i, s := range specs {
		first := i%3 == 2
		n := s.M * s.K
		if c := s.Conv; c != nil {
			n = 2 * c.H * c.W * c.C
		}
		x := edge[uint8](t, n, first)
		copy(x, activations(r, 2, (n+1)/2))
		y, floats := edge[uint8](t, s.M*s.N, first), edge[float32](t, s.M*s.N, first)
		scale, offset := make([]float32, s.N), make([]float32, s.N)
		for j := range scale {
			scale[j], offset[j] = float32(1+j%5)/float32(100*s.K), float32(5*j)
		}
		kinds := weightKinds(r, s.K, s.N)
		for _, kind := range []string{"normal", "ends", "alternating"} {
			b := kinds[kind]
			want, wantF := plainGo(s, b, scale, offset, x)
			for _, l := range isa.ByteLevels()[1:] {
				restore := isa.Use(l)
				for _, p := range plans(s) {
					clear(y)
					clear(floats)
					p.Set(b, scale, offset)
					p.Run(nil, y, x)
					p.RunFloat(nil, floats, x)
					if !slices.Equal(y, want) || !slices.Equal(floats, wantF) {
						t.Errorf("%v, %s, %s weights: other results than plain Go: %+v, %+v", l, p.how(), kind, s, s.Conv)
					}
				}
				restore()
			}
		}
	}
}
