package peak

import (
	"testing"

	"github.com/jouleml/joule/internal/isa"
)

// The bounds are those of physics, not of a machine: between a 1990s PC and far beyond any CPU.
func TestPlausible(t *testing.T) {
	for _, l := range isa.Levels() {
		restore := isa.Use(l)
		for _, threads := range []int{1, 2, 3} {
			if f := FLOPS(threads); f < 1e6 || f > float64(threads)*1e12 {
				t.Errorf("%v, %d threads: %g FLOP/s", l, threads, f)
			} else {
				t.Logf("%v, %d threads: %.1f GFLOP/s", l, threads, f/1e9)
			}
			if b := ReadBandwidth(threads); b < 1e7 || b > 1e13 {
				t.Errorf("%v, %d threads: %g B/s", l, threads, b)
			} else {
				t.Logf("%v, %d threads: %.1f GB/s", l, threads, b/1e9)
			}
		}
		restore()
	}
}

// TestVectorsPay checks that the assembly loops run full vectors: no CPU runs scalar code as fast.
func TestVectorsPay(t *testing.T) {
	if isa.Best() == isa.Portable {
		t.Skip("no vector loops for this CPU")
	}
	vector := FLOPS(1)
	defer isa.Use(isa.Portable)()
	if scalar := FLOPS(1); vector < 2*scalar {
		t.Errorf("vectors reach %.1f GFLOP/s, plain Go %.1f", vector/1e9, scalar/1e9)
	}
}
