package vec

import (
	"os"
	"syscall"
	"testing"
	"unsafe"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/isa"
)

// edge is n elements of T that end where memory ends: the next page may not be touched. A leaf that reads beyond its slices dies here.
func edge[T any](t *testing.T, n int) []T {
	var z T
	page := os.Getpagesize()
	m, err := syscall.Mmap(-1, 0, 2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Skip("no memory map: ", err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(m) })
	if err := syscall.Mprotect(m[page:], syscall.PROT_NONE); err != nil {
		t.Skip("cannot protect a page: ", err)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&m[page-n*int(unsafe.Sizeof(z))])), n)
}

func TestEndOfMemory(t *testing.T) {
	for _, l := range isa.Levels() {
		defer isa.Use(l)()
		for n := 1; n < 70; n++ {
			a, b, dst := edge[float32](t, n), edge[float32](t, n), edge[float32](t, n)
			mask, i8, i32, h := edge[uint8](t, n), edge[int8](t, n), edge[int32](t, n), edge[dtype.BFloat16](t, n)
			for op := range NumUnary {
				Unary(op)(dst, a)
			}
			for op := range NumBinary {
				Binary(op)(dst, a, b)
				BinaryVS(op)(dst, a, 2)
				BinarySV(op)(dst, a, 2)
			}
			MulAdd()(dst, a, b, a)
			for op := range NumCompare {
				Compare(op)(mask, a, b)
				CompareVS(op)(mask, a, 1)
			}
			Select()(dst, mask, a, b)
			SelectVS()(dst, mask, a, 1)
			SelectSV()(dst, mask, a, 1)
			ToBFloat16()(h, a)
			FromBFloat16()(dst, h)
			ToInt32()(i32, a)
			FromInt32()(dst, i32)
			FromUint8()(dst, mask, 1)
			FromInt8()(dst, i8, 1)
		}
	}
}
