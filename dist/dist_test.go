package dist

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// each runs f as every rank of a job and gives the ranks' errors.
func each(ranks int, deadline time.Duration, f func(c *Comm) error) []error {
	errs := make([]error, ranks)
	var wg sync.WaitGroup
	for i, t := range Local(ranks) {
		wg.Go(func() { errs[i] = f(New(t, deadline)) })
	}
	wg.Wait()
	return errs
}

// all runs f as every rank of a job, once with messages alone and once with memory that all see.
func all(t *testing.T, ranks int, f func(c *Comm) error) {
	t.Helper()
	for _, messages := range []bool{true, false} {
		for r, err := range each(ranks, 0, func(c *Comm) error {
			c.met = messages
			return f(c)
		}) {
			if err != nil {
				t.Fatalf("rank %d of %d (messages alone: %v): %v", r, ranks, messages, err)
			}
		}
	}
}

func summand(leaf, size int) []float32 {
	r := rand.New(rand.NewPCG(7, uint64(leaf)))
	x := make([]float32, size)
	for i := range x {
		x[i] = float32(r.NormFloat64()) * float32(int(1)<<r.IntN(20))
	}
	return x
}

// treeSum is the definition of the order: by recursion.
func treeSum(xs [][]float32) []float32 {
	if len(xs) == 1 {
		return slices.Clone(xs[0])
	}
	k := split(len(xs))
	a, b := treeSum(xs[:k]), treeSum(xs[k:])
	for i := range a {
		a[i] += b[i]
	}
	return a
}

// Whatever the number of ranks, sums are the bits of one process's.
func TestSumsAreTheSameBits(t *testing.T) {
	for _, leaves := range []int{1, 2, 3, 4, 5, 6, 8, 12, 16} {
		for _, size := range []int{0, 1, 17, 1000, 5000} {
			var xs [][]float32
			for l := range leaves {
				xs = append(xs, summand(l, size))
			}
			want := treeSum(xs)
			for ranks := 1; ranks <= min(leaves, 9); ranks++ {
				for _, scattered := range []bool{false, true} {
					all(t, ranks, func(c *Comm) error {
						p := NewPlan(leaves, ranks)
						var own [][]float32
						for _, r := range p.Own[c.Rank()] {
							own = append(own, treeSum(xs[r.Lo:r.Hi]))
						}
						if len(own) == 0 {
							return fmt.Errorf("no summands")
						}
						out := own[0]
						if scattered {
							if err := c.ReduceScatter(p, own, out); err != nil {
								return err
							}
							lo, hi := c.Segment(size)
							if !slices.Equal(out[lo:hi], want[lo:hi]) {
								return fmt.Errorf("%d leaves, %d numbers: scattered sums differ", leaves, size)
							}
							if err := c.AllGatherSegments(out); err != nil {
								return err
							}
						} else if err := c.SumTree(p, own, out); err != nil {
							return err
						}
						if !slices.Equal(out, want) {
							return fmt.Errorf("%d leaves, %d numbers: other bits", leaves, size)
						}
						return nil
					})
				}
			}
		}
	}
}

// A sum sends as few bytes as any algorithm can: 2·(n-1)/n of the data a rank, up to the rounding of segments.
func TestSumBytes(t *testing.T) {
	const size = 1 << 16
	for _, ranks := range []int{2, 3, 4, 7, 8} {
		all(t, ranks, func(c *Comm) error {
			if err := c.AllReduce(make([]float32, size)); err != nil {
				return err
			}
			least := int64(2 * (ranks - 1) * 4 * size / ranks)
			if s := c.Stats().Sent; s < least-4096 || s > least+4096 {
				return fmt.Errorf("%d ranks: %d bytes sent, %d are needed", ranks, s, least)
			}
			return nil
		})
	}
}

func TestTreeCover(t *testing.T) {
	for n := 1; n < 40; n++ {
		for ranks := 1; ranks <= n; ranks++ {
			next := 0
			for _, own := range NewPlan(n, ranks).Own {
				for _, r := range own {
					if r.Lo != next || r.Hi <= r.Lo {
						t.Fatalf("%d leaves, %d ranks: %v after %d", n, ranks, r, next)
					}
					next = r.Hi
				}
			}
			if next != n {
				t.Fatalf("%d leaves, %d ranks: covered up to %d", n, ranks, next)
			}
		}
	}
	if (Tree{6}).Joins(Range{1, 2}, Range{2, 3}) || !(Tree{6}).Joins(Range{0, 4}, Range{4, 6}) || (Tree{6}).Joins(Range{2, 4}, Range{4, 6}) {
		t.Error("Joins is wrong about a tree of 6")
	}
}

func TestCollectives(t *testing.T) {
	for ranks := 1; ranks <= 9; ranks++ {
		all(t, ranks, func(c *Comm) error {
			for root := range ranks {
				p := []byte("........")
				if c.Rank() == root {
					p = []byte("the root")
				}
				if err := c.Broadcast(root, p); err != nil || string(p) != "the root" {
					return fmt.Errorf("broadcast from %d: %q, %v", root, p, err)
				}
				text, err := c.BroadcastText(root, bytes.Repeat([]byte{byte(c.Rank())}, 10*c.Rank()))
				if err != nil || !bytes.Equal(text, bytes.Repeat([]byte{byte(root)}, 10*root)) {
					return fmt.Errorf("text from %d: %v, %v", root, text, err)
				}
			}
			out := make([]byte, ranks)
			if err := c.AllGather([]byte{byte(c.Rank() + 1)}, out); err != nil {
				return err
			}
			for i, v := range out {
				if int(v) != i+1 {
					return fmt.Errorf("gathered %v", out)
				}
			}
			vs, err := Gather(c, map[string]int{"rank": c.Rank()})
			if err != nil {
				return err
			}
			for i, v := range vs {
				if v["rank"] != i {
					return fmt.Errorf("gathered %v", vs)
				}
			}
			if v, err := Share(c, ranks-1, c.Rank()); err != nil || v != ranks-1 {
				return fmt.Errorf("shared %v, %v", v, err)
			}
			if ranks > 1 && c.Rank() == 0 {
				if err := c.Send(ranks-1, 3, []byte{1, 2}); err != nil {
					return err
				}
			} else if ranks > 1 && c.Rank() == ranks-1 {
				p := make([]byte, 2)
				if err := c.Recv(0, 3, p); err != nil || p[1] != 2 {
					return fmt.Errorf("received %v, %v", p, err)
				}
			}
			if err := c.SumAnyOrder(make([]float32, 5)); err != nil {
				return err
			}
			return c.Barrier()
		})
	}
}

// A rank that hangs is named by every rank that waits, those that wait for others in the same sum included.
func TestHungRankIsNamed(t *testing.T) {
	t.Parallel() // with other tests that wait for a deadline, which is long for the sake of loaded machines
	release := make(chan struct{})
	var once sync.Once
	var waiting sync.WaitGroup
	waiting.Add(3)
	go func() { waiting.Wait(); once.Do(func() { close(release) }) }()
	errs := each(4, 5*time.Second, func(c *Comm) error {
		c.beat = 100 * time.Millisecond
		x := make([]float32, 5000)
		if err := c.AllReduce(x); err != nil {
			return fmt.Errorf("before anybody hung: %w", err)
		}
		if c.Rank() == 2 {
			<-release
			return nil
		}
		err := c.AllReduce(x)
		waiting.Done()
		return err
	})
	for r, err := range errs {
		if r == 2 {
			continue
		}
		var late *LateError
		if !errors.As(err, &late) || !slices.Equal(late.Ranks, []int{2}) {
			t.Errorf("rank %d: %v", r, err)
		} else if !strings.Contains(err.Error(), "no sign of rank 2") {
			t.Errorf("rank %d says: %v", r, err)
		}
	}
}

// A slow rank that comes before the deadline costs nothing but time, and a second delay is judged by itself.
func TestSlowRank(t *testing.T) {
	for r, err := range each(3, time.Minute, func(c *Comm) error {
		c.beat = 50 * time.Millisecond
		for i := range 3 {
			if c.Rank() == i {
				time.Sleep(300 * time.Millisecond)
			}
			if err := c.AllReduce(make([]float32, 100)); err != nil {
				return err
			}
		}
		return c.Barrier()
	}) {
		if err != nil {
			t.Errorf("rank %d: %v", r, err)
		}
	}
}

// held is a request of a rank that is itself stopped for a while, between the first two times that it sees the clock: done at the next look.
type held struct {
	looks int
	stop  time.Duration
}

func (h *held) Done() (bool, error) {
	if h.looks++; h.looks == patience+2 {
		time.Sleep(h.stop)
	}
	return h.looks > patience+2, nil
}

// A rank that was itself stopped for longer than the deadline does not blame the others.
func TestStoppedRankBlamesNobody(t *testing.T) {
	c := New(Local(2)[0], 500*time.Millisecond)
	if err := c.wait(&held{stop: time.Second}); err != nil {
		t.Error(err)
	}
}

// A lost rank is an error at once, and every later operation gives it again instead of mixing up messages.
func TestLostRank(t *testing.T) {
	errs := each(3, time.Minute, func(c *Comm) error {
		if c.Rank() == 1 {
			return c.Close()
		}
		if err := c.AllReduce(make([]float32, 10)); err == nil {
			return errors.New("a sum without rank 1 succeeded")
		}
		c.Abort(1)
		return c.Barrier()
	})
	for _, r := range []int{0, 2} {
		if !errors.Is(errs[r], ErrLost) {
			t.Errorf("rank %d: %v", r, errs[r])
		}
	}
}

func TestBadArguments(t *testing.T) {
	c := New(Local(1)[0], 0)
	if err := c.SumTree(NewPlan(3, 3), [][]float32{{1}}, []float32{0}); err == nil {
		t.Error("a plan for other ranks was taken")
	}
	c = New(Local(1)[0], 0)
	if err := c.SumTree(NewPlan(1, 1), [][]float32{{1, 2}}, []float32{0}); err == nil {
		t.Error("a summand of another length was taken")
	}
}
