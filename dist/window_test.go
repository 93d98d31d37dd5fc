package dist

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
)

// Sums of what lies in common memory are the bits of messages, turn after turn, for ranks that are ahead of others.
func TestWindow(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processes share memory on Linux alone")
	}
	const turns = 4
	for _, ranks := range []int{2, 3, 4, 6} {
		for _, size := range []int{16, 5000} {
			for r, err := range each(ranks, 0, func(c *Comm) error {
				w, err := c.NewWindow(size)
				if err != nil || w == nil {
					return fmt.Errorf("no window: %v", err)
				}
				out := make([]float32, size)
				for turn := range turns {
					if err := w.Free(); err != nil {
						return err
					}
					copy(floatsIn(w.Own()), summand(turn*ranks+c.Rank(), size))
					if c.Rank() == turn%ranks {
						time.Sleep(time.Millisecond)
					}
					if _, err := w.Sum(NewPlan(ranks, ranks), out); err != nil {
						return err
					}
					var xs [][]float32
					for r := range ranks {
						xs = append(xs, summand(turn*ranks+r, size))
					}
					if !slices.Equal(out, treeSum(xs)) {
						return fmt.Errorf("turn %d of %d numbers: other bits", turn, size)
					}
				}
				if _, err := w.Sum(NewPlan(1, 1), out); err == nil {
					return errors.New("a plan of one rank was taken")
				}
				return nil
			}) {
				if err != nil {
					t.Fatalf("rank %d of %d: %v", r, ranks, err)
				}
			}
		}
	}
}

// Without common memory there is no window, which is no error.
func TestNoWindow(t *testing.T) {
	defer func(folder string) { shmFolder = folder }(shmFolder)
	shmFolder = t.TempDir() + "/none"
	for r, err := range each(3, 0, func(c *Comm) error {
		if w, err := c.NewWindow(100); w != nil || err != nil {
			return fmt.Errorf("%v, %v", w, err)
		}
		return c.Barrier()
	}) {
		if err != nil {
			t.Errorf("rank %d: %v", r, err)
		}
	}
}
