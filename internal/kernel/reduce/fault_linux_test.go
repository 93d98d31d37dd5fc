package reduce

import (
	"os"
	"syscall"
	"testing"
	"unsafe"

	"github.com/jouleml/joule/internal/isa"
)

// edge is n elements that end where memory ends: the next page may not be touched. A leaf that reads beyond its slices dies here.
func edge(t *testing.T, n int) []float32 {
	page := os.Getpagesize()
	size := (4*n + page - 1) / page * page
	m, err := syscall.Mmap(-1, 0, size+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Skip("no memory map: ", err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(m) })
	if err := syscall.Mprotect(m[size:], syscall.PROT_NONE); err != nil {
		t.Skip("cannot protect a page: ", err)
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&m[size-4*n])), n)
}

func TestEndOfMemory(t *testing.T) {
	const rows = 5
	for _, l := range isa.Levels() {
		defer isa.Use(l)()
		for n := 1; n < 70; n++ {
			x, y, z := edge(t, rows*n), edge(t, rows*n), edge(t, rows*n)
			g, b, g2, b2 := edge(t, n), edge(t, n), edge(t, n), edge(t, n)
			r, m := edge(t, rows), edge(t, rows)
			for op := range numOps {
				New(Spec{op, rows, n, 1}).Run(nil, r, x)
				New(Spec{op, 1, rows, n}).Run(nil, g, x)
			}
			for _, log := range []bool{false, true} {
				p := NewSoftmax(rows, n, log)
				p.Run(nil, y, x)
				p.Backward(nil, z, y, x)
			}
			NewCrossEntropy(CrossEntropySpec{Rows: rows, Classes: n}).Run(nil, r, y, x, make([]int32, rows), 1)
			ln := NewLayerNorm(rows, n, 1e-3)
			ln.Run(nil, y, m, r, x, g, b)
			ln.Backward(nil, z, g2, b2, y, x, g, m, r)
			for _, relu := range []bool{false, true} {
				bn := NewBatchNorm(rows, n, 1e-3, relu)
				bn.Run(nil, y, g2, b2, x, g, b, nil)
				bn.Backward(nil, z, g, b, x, x, g2, b, g2, b2)
				if relu {
					bn.Run(nil, y, g2, b2, x, g, b, z)
					bn.BackwardAdd(nil, z, g, b, y, y, x, x, x, g2, g2, b2)
					bn.BackwardAdd(nil, z, g, b, y, y, x, nil, x, g2, g2, b2)
				}
			}
		}
	}
}
