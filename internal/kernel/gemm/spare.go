package gemm

import "sync"

// spare keeps the memory for packed columns of B that no Run uses now, by the number of the worker. A graph has hundreds of plans, of which one runs at a time:
// they share what the largest needs, and find it in the cache of their thread's core.
var spare struct {
	sync.Mutex
	of [][][]float32
}

// borrow gives each worker memory for n floats of packed B.
func borrow(ws []*worker, n int) {
	spare.Lock()
	defer spare.Unlock()
	for len(spare.of) < len(ws) {
		spare.of = append(spare.of, nil)
	}
	for i, w := range ws {
		if free := spare.of[i]; len(free) > 0 {
			w.b, spare.of[i] = free[len(free)-1], free[:len(free)-1]
		}
		if cap(w.b) < n {
			w.b = make([]float32, n)
		}
		w.b = w.b[:n]
	}
}

// giveBack takes it from them.
func giveBack(ws []*worker) {
	spare.Lock()
	defer spare.Unlock()
	for i, w := range ws {
		spare.of[i] = append(spare.of[i], w.b)
		w.b = nil
	}
}
