package mpi

import (
	"sync"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/dl"
)

// A rank that waits calls the library over and over: that leaves nothing for the garbage collector, which would let memory grow to twice what a model needs.
func TestCallsAllocateNothing(t *testing.T) {
	lib, err := dl.Open("libc.so.6", "libSystem.B.dylib")
	if err != nil {
		t.Skip(err)
	}
	abs, err := lib.Sym("abs")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{mu: &sync.Mutex{}}
	other := new(int32)
	if n := allocs.PerRun(func() {
		if w.call(abs, uintptr(7), dl.Pointer(other)) != 7 {
			t.Error("abs(7) is not 7")
		}
	}); n > 0 {
		t.Errorf("a call allocates %v times", n)
	}
}
