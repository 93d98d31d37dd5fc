package dl

import "testing"

// What C writes to stays where it is while a goroutine's stack grows.
func TestPointersStay(t *testing.T) {
	moved := make(chan bool)
	go func() { // a new goroutine's stack is small
		n := new(int32)
		at := Pointer(n)
		deep(1000)
		moved <- Pointer(n) != at
	}()
	if <-moved {
		t.Error("the variable has moved with the stack")
	}
}

//go:noinline
func deep(n int) byte {
	var room [128]byte
	if n > 0 {
		room[n%128] = deep(n - 1)
	}
	return room[0]
}
