package dist

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// Ranks of two groups and of all sum at the same time, in other orders on each rank.
func TestSub(t *testing.T) {
	var wg sync.WaitGroup
	for i, tr := range Local(4) {
		wg.Go(func() {
			c := New(tr, 10*time.Second)
			half, err := c.Sub([]int{i % 2, i%2 + 2}, 1)
			if err != nil {
				t.Error(err)
				return
			}
			all, err := c.Sub([]int{0, 1, 2, 3}, 7)
			if err != nil || half.Size() != 2 || half.Rank() != i/2 {
				t.Error(half, err)
				return
			}
			x, y, z := []float32{float32(i)}, []float32{float32(i)}, []float32{1}
			var errs [3]error
			var own sync.WaitGroup
			for k := range 3 {
				own.Go(func() {
					time.Sleep(time.Duration((k+i)%3) * time.Millisecond)
					errs[k] = []func() error{func() error { return half.AllReduce(x) }, func() error { return all.AllReduce(y) }, func() error { return c.AllReduce(z) }}[k]()
				})
			}
			own.Wait()
			if err := errors.Join(errs[:]...); err != nil || !slices.Equal([]float32{x[0], y[0], z[0]}, []float32{float32(2 + 2*(i%2)), 6, 4}) {
				t.Error(i, x, y, z, err)
			}
			if a, b, s := half.Stats(), all.Stats(), c.Stats(); a.Sent != 4 || a.Messages != 1 || b.Sent != 8 || s.Sent != 20 || s.Received != 20 || s.Messages != 5 {
				t.Errorf("rank %d counts %+v and %+v of its groups, %+v in all", i, a, b, s)
			}
			for _, bad := range [][]int{{(i + 1) % 4}, {i, i}, {i, 4}} {
				if _, err := c.Sub(bad, 1); err == nil {
					t.Errorf("%v was taken", bad)
				}
			}
			if _, err := c.Sub([]int{i}, Channels); err == nil {
				t.Error("a channel too many was taken")
			}
		})
	}
	wg.Wait()
}
