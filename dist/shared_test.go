package dist

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Long sums go through shared memory in turns and have the bits of messages, mixed with short ones, scattered ones and several at a time.
func TestSharedMemory(t *testing.T) {
	const size = 2*chunk + 1000
	for _, ranks := range []int{2, 3, 4, 5} {
		var xs [][]float32
		for r := range ranks {
			xs = append(xs, summand(r, size))
		}
		want := treeSum(xs)
		for r, err := range onMachines(t, strings.Repeat("a", ranks), 0, func(c *Comm) error {
			p := NewPlan(ranks, ranks)
			for i := range 3 {
				x := slices.Clone(xs[c.Rank()])
				if err := c.AllReduce(x); err != nil {
					return err
				}
				if !c.Shared() {
					return errors.New("no memory is shared")
				}
				y := slices.Clone(xs[c.Rank()][:900])
				if err := c.AllReduce(y); err != nil {
					return err
				}
				z := slices.Clone(xs[c.Rank()])
				if err := c.ReduceScatter(p, [][]float32{z}, z); err != nil {
					return err
				}
				if err := c.AllGatherSegments(z); err != nil {
					return err
				}
				if !slices.Equal(x, want) || !slices.Equal(y, want[:900]) || !slices.Equal(z, want) {
					return fmt.Errorf("turn %d: other bits", i)
				}
				if c.Rank() == i%ranks {
					time.Sleep(time.Millisecond) // the others are ahead
				}
			}
			return nil
		}) {
			if err != nil {
				t.Fatalf("rank %d of %d: %v", r, ranks, err)
			}
		}
	}
}

// A rank that goes while others wait for its count is an error at once.
func TestLostInSharedMemory(t *testing.T) {
	errs := each(3, time.Minute, func(c *Comm) error {
		x := make([]float32, 5000)
		if err := c.AllReduce(x); err != nil {
			return err
		}
		if c.Rank() == 1 {
			return c.Close()
		}
		return c.AllReduce(x)
	})
	for _, r := range []int{0, 2} {
		if !errors.Is(errs[r], ErrLost) {
			t.Errorf("rank %d: %v", r, errs[r])
		}
	}
}

// Without a folder for it there are messages.
func TestNoSharedMemory(t *testing.T) {
	defer func(folder string) { shmFolder = folder }(shmFolder)
	shmFolder = t.TempDir() + "/none"
	all(t, 3, func(c *Comm) error {
		x := []float32{2000: 1}
		if err := c.AllReduce(x); err != nil || x[2000] != 3 || c.Shared() {
			return fmt.Errorf("%v, %v, %v", err, x[2000], c.Shared())
		}
		return nil
	})
}
