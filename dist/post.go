package dist

import (
	"fmt"
	"runtime"
	"sync"
	"time"
)

// Poster sends messages beside whatever operation is in progress, so that a rank can go on computing as soon as it has something for another. The other rank takes them with Recv. MPI libraries
// move messages while somebody asks about them: the Poster does, on a goroutine of its own that lives while messages are on their way.
type Poster struct {
	c    *Comm
	mu   sync.Mutex
	open []*Posted
	runs bool
}

// Posted is a message that a Poster sends.
type Posted struct {
	q     Request
	to    int
	begun time.Time
	done  chan struct{}
	err   error
}

// NewPoster makes a Poster for the ranks of c.
func (c *Comm) NewPoster() *Poster { return &Poster{c: c} }

// Post begins to send b to another rank, which must call Recv with the same tag (0 <= tag < 256) and length. b must not change until Wait has returned. Messages to one rank with one tag
// arrive in their order.
func (p *Poster) Post(to, tag int, b []byte) (*Posted, error) {
	p.c.count(to, len(b), 0, 1)
	q, err := p.c.t.Isend(to, tagUser+tag, b)
	if err != nil {
		return nil, fmt.Errorf("dist: rank %d, a message to rank %d: %w", p.c.name(p.c.Rank()), p.c.name(to), err)
	}
	x := &Posted{q: q, to: to, begun: time.Now(), done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, x)
	if !p.runs {
		p.runs = true
		go p.run()
	}
	return x, nil
}

// Wait returns when the message has gone, or cannot.
func (x *Posted) Wait() error {
	<-x.done
	return x.err
}

// run moves messages on until none is left.
func (p *Poster) run() {
	for i := 0; ; i++ {
		p.mu.Lock()
		left := p.open[:0]
		for _, x := range p.open {
			done, err := x.q.Done()
			// Who receives is given its own deadline first, since its error says more.
			if late := !done && err == nil && time.Since(x.begun) > 2*p.c.deadline; late {
				err = &LateError{Rank: p.c.name(p.c.Rank()), What: "a message that is not taken", Ranks: []int{p.c.name(x.to)}, After: 2 * p.c.deadline}
			}
			if !done && err == nil {
				left = append(left, x)
				continue
			}
			x.err = err
			close(x.done)
			i = 0
		}
		clear(p.open[len(left):])
		p.open = left
		if p.runs = len(left) > 0; !p.runs {
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		if i < patience {
			runtime.Gosched()
			continue
		}
		time.Sleep(20 * time.Microsecond)
	}
}
