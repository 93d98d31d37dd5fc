// Package allocs counts what a function allocates, for tests of what must allocate nothing.
package allocs

import "testing"

// PerRun is how often f allocates in a run after its first: the least of several counts, since the runtime and goroutines that are just beginning or ending allocate too.
func PerRun(f func()) float64 {
	least := testing.AllocsPerRun(2, f)
	for try := 0; try < 20 && least > 0; try++ {
		least = min(least, testing.AllocsPerRun(2, f))
	}
	return least
}
