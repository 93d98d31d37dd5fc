package par

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type counter struct {
	hits []atomic.Int32
	busy []atomic.Int32 // per worker: calls in progress
	t    *testing.T
}

func (c *counter) Chunk(i, w int) {
	if c.busy[w].Add(1) != 1 {
		c.t.Error("two chunks at once under one worker number")
	}
	c.hits[i].Add(1)
	c.busy[w].Add(-1)
}

func TestEachChunkOnce(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 7} {
		p := New(threads)
		for n := range 70 {
			for range 20 {
				c := &counter{make([]atomic.Int32, n), make([]atomic.Int32, threads), t}
				p.Run(n, c)
				for i := range c.hits {
					if h := c.hits[i].Load(); h != 1 {
						t.Fatalf("threads %d: chunk %d of %d ran %d times", threads, i, n, h)
					}
				}
			}
			if n%23 == 0 {
				time.Sleep(2 * time.Millisecond) // let the workers fall asleep
			}
		}
		p.Close()
	}
}

func TestNestedAndConcurrent(t *testing.T) {
	p := New(3)
	defer p.Close()
	var total atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				p.Run(5, Func(func(_, _ int) {
					p.Run(3, Func(func(_, _ int) { total.Add(1) }))
				}))
			}
		})
	}
	wg.Wait()
	if total.Load() != 4*100*5*3 {
		t.Fatalf("ran %d chunks, want %d", total.Load(), 4*100*5*3)
	}
}

func TestNilPool(t *testing.T) {
	var p *Pool
	n := 0
	p.Run(4, Func(func(i, w int) { n += i + w }))
	if n != 6 || p.Threads() != 1 {
		t.Fatal("a nil pool must run each chunk on the caller")
	}
	p.Close()
}

func TestRunAllocatesNothing(t *testing.T) {
	p := New(2)
	defer p.Close()
	c := &counter{make([]atomic.Int32, 8), make([]atomic.Int32, 2), t}
	if a := testing.AllocsPerRun(100, func() { p.Run(8, c) }); a != 0 {
		t.Fatalf("%v allocations a run", a)
	}
}

type nothing struct{}

func (nothing) Chunk(int, int) {}

// BenchmarkRun is the cost of one fork and join with awake workers.
func BenchmarkRun(b *testing.B) {
	p := New(2)
	defer p.Close()
	for b.Loop() {
		p.Run(2, nothing{})
	}
}

// The owner of a share takes its chunks from the front, others take from the end, and none is taken twice.
func TestShare(t *testing.T) {
	var s share
	s.left.Store(7<<32 | 3)
	var got []int
	for _, take := range []func() (int, bool){s.front, s.back, s.back, s.front} {
		i, ok := take()
		if !ok {
			t.Fatal("a share of four chunks ended early")
		}
		got = append(got, i)
	}
	if want := []int{3, 6, 5, 4}; !slices.Equal(got, want) {
		t.Errorf("took %v, want %v", got, want)
	}
	for _, take := range []func() (int, bool){s.front, s.back} {
		if i, ok := take(); ok {
			t.Errorf("took chunk %d from an empty share", i)
		}
	}
}

// A pool leaves room for one goroutine more than it has threads, and does not count that room as a thread later.
func TestRoomForOthers(t *testing.T) {
	threads := DefaultThreads()
	p := New(threads + 1)
	defer p.Close()
	if got := runtime.GOMAXPROCS(0); got < threads+2 {
		t.Errorf("%d goroutines run beside a pool of %d threads", got, threads+1)
	}
	if got := DefaultThreads(); got != threads {
		t.Errorf("%d threads by default, then %d", threads, got)
	}
}
