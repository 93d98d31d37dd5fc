package dist

import (
	"fmt"
	"sync"
)

// Local makes the transports of a job whose ranks are goroutines of this process: for tests, and to try out what a job of many ranks would do.
func Local(ranks int) []Transport { return LocalOn(make([]int, ranks)) }

// LocalOn is Local of as many ranks as there are numbers of machines: those with the same number add up in common memory, as ranks of one machine do.
func LocalOn(machines []int) []Transport {
	ranks := len(machines)
	w := &world{gone: make([]bool, ranks), queues: map[route][][]byte{}, posted: map[route][]*receiving{}}
	out := make([]Transport, ranks)
	for i := range out {
		out[i] = &local{w, i, machines[i]}
	}
	return out
}

type route struct{ from, to, tag int }

type world struct {
	mu     sync.Mutex
	gone   []bool
	queues map[route][][]byte     // messages on their way
	posted map[route][]*receiving // receives that wait for one, in order: the first message is the first receive's
}

type local struct {
	w             *world
	rank, machine int
}

func (l *local) Rank() int    { return l.rank }
func (l *local) Size() int    { return len(l.w.gone) }
func (l *local) Name() string { return "goroutines of one process" }

// Machine implements Placer.
func (l *local) Machine() int { return l.machine }

func (l *local) Isend(to, tag int, p []byte) (Request, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if l.w.gone[to] || l.w.gone[l.rank] {
		return nil, fmt.Errorf("rank %d: %w", to, ErrLost)
	}
	r := route{l.rank, to, tag}
	l.w.queues[r] = append(l.w.queues[r], append([]byte(nil), p...))
	return sent{}, nil
}

// Watch implements Watcher.
func (l *local) Watch(rank int) error {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if l.w.gone[rank] || l.w.gone[l.rank] {
		return fmt.Errorf("rank %d: %w", rank, ErrLost)
	}
	return nil
}

type sent struct{}

func (sent) Done() (bool, error) { return true, nil }

func (l *local) Irecv(from, tag int, p []byte) (Request, error) {
	r := &receiving{l.w, route{from, l.rank, tag}, p}
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	l.w.posted[r.r] = append(l.w.posted[r.r], r)
	return r, nil
}

type receiving struct {
	w *world
	r route
	p []byte
}

func (r *receiving) Done() (bool, error) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	q := r.w.queues[r.r]
	if len(q) == 0 || r.w.posted[r.r][0] != r {
		if r.w.gone[r.r.from] || r.w.gone[r.r.to] {
			return false, fmt.Errorf("rank %d: %w", r.r.from, ErrLost)
		}
		return false, nil
	}
	if len(q[0]) != len(r.p) {
		return false, fmt.Errorf("rank %d sent %d bytes where %d were expected: the ranks do not do the same thing", r.r.from, len(q[0]), len(r.p))
	}
	copy(r.p, q[0])
	r.w.queues[r.r], r.w.posted[r.r] = q[1:], r.w.posted[r.r][1:]
	return true, nil
}

// Abort makes every rank's operations fail.
func (l *local) Abort(int) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	for i := range l.w.gone {
		l.w.gone[i] = true
	}
}

// Close makes operations that need this rank fail.
func (l *local) Close() error {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	l.w.gone[l.rank] = true
	return nil
}
