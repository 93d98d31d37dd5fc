package par

import (
	"runtime"
	"testing"
	"time"

	"github.com/jouleml/joule/internal/isa"
)

// Workers compute as their caller does: tiny numbers are kept, or taken as zero, on every thread alike.
func TestWorkersTakeOverTheMode(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("only amd64 has a mode")
	}
	p := New(3)
	defer p.Close()
	tiny := float32(1e-30)
	products := func() (zero, kept int) {
		var out [64]float32
		p.Run(len(out), Func(func(i, _ int) {
			time.Sleep(20 * time.Microsecond) // let every worker have some
			out[i] = tiny * 1e-10
		}))
		for _, x := range out {
			if x == 0 {
				zero++
			} else {
				kept++
			}
		}
		return zero, kept
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range 5 {
		if z, _ := products(); z != 0 {
			t.Fatalf("%d of 64 tiny products were lost", z)
		}
		before := isa.Flush()
		_, k := products()
		isa.SetMode(before)
		if k != 0 {
			t.Fatalf("%d of 64 tiny products were kept", k)
		}
	}
}
