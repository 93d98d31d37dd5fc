// Package par runs the chunks of one piece of work on a fixed set of threads.
//
// Work is cut into numbered chunks by the caller. Each thread begins with a share of its own, equal runs of neighbouring chunks,
// and whoever is done with his takes from the end of another's, so a busy neighbour costs little. Shares keep memory where it
// is: the next piece of work over the same arrays, or the same one in the next step, finds a thread's part in the cache of its
// core. (A line that the other core has written costs over a hundred nanoseconds.) Chunk borders must depend on the problem
// alone, never on the number of threads, and a chunk must write only what no other chunk writes: then results are the same
// bits for any number of threads.
//
// Workers spin for a short bounded time after their last chunk (the next piece of work usually comes within microseconds),
// then sleep. Run allocates nothing. A pool raises GOMAXPROCS to one more than its threads.
package par

import (
	"math"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jouleml/joule/internal/debug"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/trace"
)

// Body is a piece of work in numbered chunks. Chunk is called once for each i in [0, n), possibly at the same time from
// several threads; worker in [0, Pool.Threads()) is unique among the calls in progress, so it may index scratch memory.
type Body interface {
	Chunk(i, worker int)
}

// Func makes a function a Body. A closure allocates; hot paths keep a Body of their own.
type Func func(i, worker int)

// Chunk calls f.
func (f Func) Chunk(i, worker int) { f(i, worker) }

// spins is how often a worker polls before it sleeps, about 50 µs; see BenchmarkRun.
const spins = 2000

// Pool is a set of worker threads. A nil Pool runs everything on the calling goroutine.
type Pool struct {
	threads int
	busy    sync.Mutex // held by the goroutine whose work runs
	workers []*worker

	// The work in progress: written by the owner of busy while state is even and active is 0.
	body Body
	mode uint32 // of the owner's arithmetic, which workers take over, so that a result does not depend on who computes it

	state  atomic.Uint64 // odd while work is open to workers; grows with each opening and closing
	shares []share       // of the chunks that nobody has taken, by threads
	active atomic.Int64  // workers that may be reading the fields above
	closed atomic.Bool
}

// share is the run of chunks that a thread has yet to take: the first in the low half of the word, the end in the high half.
type share struct {
	left atomic.Uint64
	_    [56]byte // a cache line for each
}

// front takes the first chunk of the share, back the last; ok is false where none is left.
func (s *share) front() (i int, ok bool) {
	for {
		w := s.left.Load()
		first, end := uint32(w), uint32(w>>32)
		if first >= end {
			return 0, false
		}
		if s.left.CompareAndSwap(w, uint64(end)<<32|uint64(first+1)) {
			return int(first), true
		}
	}
}

func (s *share) back() (i int, ok bool) {
	for {
		w := s.left.Load()
		first, end := uint32(w), uint32(w>>32)
		if first >= end {
			return 0, false
		}
		if s.left.CompareAndSwap(w, uint64(end-1)<<32|uint64(first)) {
			return int(end - 1), true
		}
	}
}

type worker struct {
	asleep atomic.Bool
	wake   chan struct{}
}

// DefaultThreads is JOULE_DEBUG=threads=N if given, else the number of CPUs that this process may use.
func DefaultThreads() int {
	if n, err := strconv.Atoi(debug.Get("threads")); err == nil && n > 0 {
		return n
	}
	return processors()
}

// processors is GOMAXPROCS as it was before a pool raised it.
var processors = sync.OnceValue(func() int { return runtime.GOMAXPROCS(0) })

var raising sync.Mutex

// others lets one goroutine more run than a pool has threads. Workers and the caller hold theirs while they spin, so that whatever else has to run for a moment (a loader, the garbage collector, the
// scheduler's change every 10 ms) would take the place of a worker, which then misses the rest of a step: a tenth of the steps took twice as long.
func others(threads int) {
	raising.Lock()
	defer raising.Unlock()
	if processors(); runtime.GOMAXPROCS(0) <= threads {
		runtime.GOMAXPROCS(threads + 1)
	}
}

// New starts a pool of the given number of threads, the caller's included; 0 means DefaultThreads.
func New(threads int) *Pool {
	if threads <= 0 {
		threads = DefaultThreads()
	}
	p := &Pool{threads: threads, shares: make([]share, threads)}
	if threads > 1 {
		others(threads)
	}
	for i := 1; i < threads; i++ {
		w := &worker{wake: make(chan struct{}, 1)}
		p.workers = append(p.workers, w)
		go p.serve(w, i)
	}
	return p
}

// Threads is the number of threads, the caller's included; 1 for a nil Pool.
func (p *Pool) Threads() int {
	if p == nil {
		return 1
	}
	return p.threads
}

// Close ends the workers. Run must not be called afterwards.
func (p *Pool) Close() {
	if p == nil || p.closed.Swap(true) {
		return
	}
	p.rouse()
}

// Run calls b.Chunk(i, w) for each i in [0, n) and returns when all have returned. Work that comes while the pool is busy
// (from another goroutine, or from inside a chunk) runs on the caller alone, as worker 0 of its own.
func (p *Pool) Run(n int, b Body) {
	if p == nil || n <= 1 || n > math.MaxInt32 || len(p.workers) == 0 || !p.busy.TryLock() {
		r, start := begin()
		for i := range n {
			b.Chunk(i, 0)
		}
		if r != nil {
			r.Work(0, n, start)
		}
		return
	}
	p.body, p.mode = b, isa.Mode()
	for i := range p.shares {
		p.shares[i].left.Store(uint64(n*(i+1)/p.threads)<<32 | uint64(n*i/p.threads))
	}
	p.state.Add(1) // open
	p.rouse()
	p.drain(b, 0)
	p.state.Add(1) // close: whoever raises active from now on sees it and leaves
	for i := 0; p.active.Load() != 0; i++ {
		if i < 10*spins {
			pause()
		} else {
			runtime.Gosched() // a worker's thread lost its CPU
		}
	}
	p.body = nil
	p.busy.Unlock()
}

func (p *Pool) drain(b Body, worker int) {
	r, start := begin()
	done := 0
	for i, ok := p.shares[worker].front(); ok; i, ok = p.shares[worker].front() {
		b.Chunk(i, worker)
		done++
	}
	for d := 1; d < p.threads; d++ {
		s := &p.shares[(worker+d)%p.threads]
		for i, ok := s.back(); ok; i, ok = s.back() {
			b.Chunk(i, worker)
			done++
		}
	}
	if r != nil {
		r.Work(worker, done, start)
	}
}

// begin is the recorder of a timeline and the time, if one is recorded.
func begin() (*trace.Recorder, time.Time) {
	if r := trace.Current(); r != nil {
		return r, time.Now()
	}
	return nil, time.Time{}
}

// rouse wakes the workers that sleep.
func (p *Pool) rouse() {
	for _, w := range p.workers {
		if w.asleep.Load() && w.asleep.CompareAndSwap(true, false) {
			w.wake <- struct{}{}
		}
	}
}

func (p *Pool) serve(w *worker, id int) {
	runtime.LockOSThread() // the mode of arithmetic is the thread's
	defer runtime.UnlockOSThread()
	first := isa.Mode()
	mode := first
	defer func() { isa.SetMode(first) }()
	var seen uint64 // the last state this worker has worked on
	for idle := 0; ; {
		s := p.state.Load()
		if s&1 == 1 && s != seen {
			p.active.Add(1)
			if p.state.Load() == s { // still open: the owner waits for active before it changes anything
				if p.mode != mode {
					mode = p.mode
					isa.SetMode(mode)
				}
				p.drain(p.body, id)
				seen = s
			}
			p.active.Add(-1)
			idle = 0
			continue
		}
		if p.closed.Load() {
			return
		}
		if idle++; idle < spins {
			pause()
			continue
		}
		w.asleep.Store(true)
		if t := p.state.Load(); (t&1 == 1 && t != seen) || p.closed.Load() {
			if w.asleep.CompareAndSwap(true, false) {
				idle = 0
				continue
			}
		}
		<-w.wake
		idle = 0
	}
}
