// Package dist lets the processes of one job work on one model: it carries numbers between them and adds them up.
//
// # Terminology
//
// A rank is one process of a job, numbered from 0; a job has Size ranks. A Transport carries messages between two ranks: package mpi has one for every usual MPI, Local
// one for goroutines of one process. A Comm makes of a Transport the collective operations, which all ranks call in the same order.
//
// # Sums are the same bits
//
// Sums of float32 are taken in an order that depends on the number of summands alone (see Tree), never on who is first or on how many ranks share the summands, so a job
// of 4 ranks gives the bits that one process gives that adds the same summands. The price over a library's own all-reduce is none in bytes: each rank sends
// 2·(n-1)/n of the data, which is the least that suffices (Patarasuk & Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009).
//
// # Ranks that do not answer
//
// Every wait has a deadline. A rank that waits for long says so to all others; when the deadline passes, those who have not said so are the ones that hang,
// and the error (*LateError) names them.
package dist

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Transport carries messages between the ranks of a job. Messages from one rank to another with the same tag arrive in the order in which they were sent. Its methods
// may be called from several goroutines.
type Transport interface {
	Rank() int
	Size() int
	// Name says what it is, such as "Open MPI 4.1.4".
	Name() string
	// Isend begins to send p, which must not change until the request is done. 0 <= tag < 4096.
	Isend(to, tag int, p []byte) (Request, error)
	// Irecv begins to receive exactly len(p) bytes into p.
	Irecv(from, tag int, p []byte) (Request, error)
	// Abort ends all processes of the job, this one included where it can.
	Abort(code int)
	// Close ends this rank's part in order.
	Close() error
}

// Request is a message on its way.
type Request interface {
	// Done reports whether the message has gone or come, and moves it on. After true it must not be called again.
	Done() (bool, error)
}

// A Shrinker is a Transport that can go on without ranks that have died.
type Shrinker interface {
	// Shrink joins the ranks that are left, in their order, to a new Transport; this one can then no longer be used. All of them must call it, after an error that wraps ErrLost.
	Shrink() (Transport, error)
}

// A Summer is a Transport with an all-reduce of its own, which may use hardware that this package knows nothing of, and adds in an order of its own.
type Summer interface {
	// Sum begins to replace x, on every rank, by the sum over all ranks.
	Sum(x []float32) (Request, error)
}

// DefaultDeadline is how long a rank waits for another.
const DefaultDeadline = 10 * time.Minute

// Stats counts what a rank has done since the job began.
type Stats struct {
	Sent, Received int64         // bytes, of messages between ranks
	Across         int64         // of Sent, to ranks of other machines, once it is known where the ranks are (Machines, or the first great sum)
	Messages       int64         // sent
	Busy           time.Duration // from the begin of each operation to its end, waiting included
	to             []int64       // bytes sent since the job began, by rank
}

// Comm is a rank's view of its job. Several goroutines may use it; one operation runs at a time.
type Comm struct {
	t        Transport
	of       *Comm // that it is a Sub of, which counts its messages too
	members  []int // of a Sub: its ranks' numbers in that
	inner    bool  // whether it is a part of an operation of that, which then sends, receives and waits for it
	deadline time.Duration
	beat     time.Duration // between two signs of life of a rank that waits

	mu     sync.Mutex
	seq    int64  // operations begun
	what   string // the operation in progress
	urgent atomic.Bool
	stats  struct{ sent, received, messages, busy atomic.Int64 }
	to     []atomic.Int64 // bytes sent, by rank; those that this rank's machine reads in common memory are its own
	tmp    []float32      // of sums
	folder string         // of files that are memory
	home   atomic.Pointer[machines]
	met    bool    // whether it is known if ranks share memory
	shared *shared // nil: they do not
	across *across // sums between machines, of which there are several
	late   *lateness
	broken error // after an error the order of messages is lost: every later operation fails with it
}

// New makes a Comm. deadline 0 means DefaultDeadline.
func New(t Transport, deadline time.Duration) *Comm {
	if deadline <= 0 {
		deadline = DefaultDeadline
	}
	return &Comm{t: t, deadline: deadline, beat: deadline / 8, to: make([]atomic.Int64, t.Size()), folder: shmFolder}
}

// Rank is this process's number, from 0.
func (c *Comm) Rank() int { return c.t.Rank() }

// name is a rank's number in the job.
func (c *Comm) name(rank int) int {
	if c.of == nil {
		return rank
	}
	return c.of.name(c.members[rank])
}

// Size is the number of ranks.
func (c *Comm) Size() int { return c.t.Size() }

// Name says what carries the messages.
func (c *Comm) Name() string { return c.t.Name() }

// Transport is what carries the messages.
func (c *Comm) Transport() Transport { return c.t }

// Stats is what this rank has sent and received, by Comms that Sub has made of c too, and how long operations of c itself have taken.
func (c *Comm) Stats() Stats { return c.Since(Stats{}) }

// Since is what Stats counts beyond what it gave before.
func (c *Comm) Since(before Stats) Stats {
	s := Stats{Sent: c.stats.sent.Load() - before.Sent, Received: c.stats.received.Load() - before.Received, Messages: c.stats.messages.Load() - before.Messages, Busy: time.Duration(c.stats.busy.Load()) - before.Busy}
	m := c.home.Load()
	for r := range c.to {
		n := c.to[r].Load()
		s.to = append(s.to, n)
		if r < len(before.to) {
			n -= before.to[r]
		}
		if m != nil && m.of[r] != m.of[c.Rank()] {
			s.Across += n
		}
	}
	return s
}

// Urgent says that somebody has nothing to do but wait for the operation in progress: it then looks for messages without pause, and otherwise leaves the processor to
// others in between.
func (c *Comm) Urgent(yes bool) { c.urgent.Store(yes) }

// Abort ends all processes of the job.
func (c *Comm) Abort(code int) { c.t.Abort(code) }

// Close ends this rank's part. All ranks must call it.
func (c *Comm) Close() error { return c.t.Close() }

// LateError says which ranks did not answer in time.
type LateError struct {
	Rank  int // who waited
	What  string
	Ranks []int // who did not answer
	After time.Duration
}

func (e *LateError) Error() string {
	return fmt.Sprintf("dist: rank %d has waited %v in %s; no sign of %s: it hangs, has died or is much slower than the others (a longer deadline waits longer)", e.Rank, e.After, e.What, ranks(e.Ranks))
}

func ranks(r []int) string {
	s := fmt.Sprint(r)
	s = s[1 : len(s)-1]
	if len(r) == 1 {
		return "rank " + s
	}
	return "ranks " + s
}

// Tags of messages.
const (
	tagSum = iota
	tagGather
	tagBroadcast
	tagBarrier
	tagLate
	tagUser // and up: Send and Recv
)

// begin opens an operation and gives what ends it.
func (c *Comm) begin(what string) (end func(err *error)) {
	c.mu.Lock()
	c.seq++
	c.what = what
	start := time.Now()
	return func(err *error) {
		c.stats.busy.Add(int64(time.Since(start)))
		if c.broken == nil && *err != nil {
			c.broken = *err
		}
		c.mu.Unlock()
	}
}

// count books messages, and those of a Sub with what it is a part of; what is sent goes to the rank to.
func (c *Comm) count(to, sent, received, messages int) {
	for ; ; to, c = c.members[to], c.of {
		c.stats.sent.Add(int64(sent))
		c.to[to].Add(int64(sent))
		c.stats.received.Add(int64(received))
		c.stats.messages.Add(int64(messages))
		if c.of == nil {
			return
		}
	}
}

func (c *Comm) send(to, tag int, p []byte) (Request, error) {
	if c.inner {
		return c.of.send(c.members[to], tag, p)
	}
	if c.broken != nil {
		return nil, c.broken
	}
	c.count(to, len(p), 0, 1)
	return c.t.Isend(to, tag, p)
}

func (c *Comm) recv(from, tag int, p []byte) (Request, error) {
	if c.inner {
		return c.of.recv(c.members[from], tag, p)
	}
	if c.broken != nil {
		return nil, c.broken
	}
	c.count(from, 0, len(p), 0)
	return c.t.Irecv(from, tag, p)
}

// patience is how often wait looks before it lets others have the processor.
const patience = 256

// wait waits for all of rs; nil ones are none.
func (c *Comm) wait(rs ...Request) error {
	if c.inner { // whose ranks would not hear of those outside that wait too
		return c.of.wait(rs...)
	}
	left := 0
	for _, r := range rs {
		if r != nil {
			left++
		}
	}
	var last time.Time       // that this rank looked at the clock
	var waited time.Duration // while it ran: a rank that was itself stopped or suspended for a while must not blame the others
	for i := 0; ; i++ {
		for k, r := range rs {
			if r == nil {
				continue
			}
			done, err := r.Done()
			if err != nil {
				return fmt.Errorf("dist: rank %d, %s: %w", c.name(c.Rank()), c.what, err)
			}
			if done {
				rs[k] = nil
				left--
			}
		}
		if left == 0 {
			return nil
		}
		switch {
		case i < patience:
			runtime.Gosched()
			continue
		case c.urgent.Load() && i < 100*patience:
			yield()
			continue
		case i < 200*patience:
			time.Sleep(20 * time.Microsecond)
		default:
			time.Sleep(time.Millisecond)
		}
		now := time.Now()
		if !last.IsZero() {
			waited += min(now.Sub(last), c.beat)
		}
		last = now
		if err := c.impatient(waited); err != nil {
			return err
		}
	}
}

// lateness is a rank's search for those that do not answer. Receives stay posted from one alarm to the next.
type lateness struct {
	seq   int64     // of the operation that the alarm is about
	since time.Time // of the alarm
	told  time.Time // when this rank last said that it waits
	sent  []Request
	recv  []Request
	texts [][]byte
	heard []bool
}

// impatient is called while a wait goes on. From an eighth of the deadline on this rank tells all others, again and again, that it waits; at the deadline it names those that have not said
// so for as long as it has listened. What was said before it began to listen may be left from an earlier, needless alarm and does not count.
func (c *Comm) impatient(waited time.Duration) error {
	beat := c.beat
	if waited < beat {
		return nil
	}
	n, me, now := c.Size(), c.Rank(), time.Now()
	if c.late == nil {
		c.late = &lateness{recv: make([]Request, n), texts: make([][]byte, n), heard: make([]bool, n)}
	}
	l := c.late
	if l.seq != c.seq {
		l.seq, l.since, l.told = c.seq, now, time.Time{}
		clear(l.heard)
	}
	if now.Sub(l.told) >= beat {
		l.told = now
		for r := range n {
			if r == me {
				continue
			}
			q, err := c.t.Isend(r, tagLate, []byte{1})
			if err != nil {
				return err
			}
			l.sent = append(l.sent, q)
		}
	}
	l.sent = slices.DeleteFunc(l.sent, func(q Request) bool {
		done, err := q.Done()
		return done || err != nil
	})
	for r := range n {
		if r == me {
			continue
		}
		if l.recv[r] == nil {
			l.texts[r] = make([]byte, 1)
			q, err := c.t.Irecv(r, tagLate, l.texts[r])
			if err != nil {
				return err
			}
			l.recv[r] = q
		}
		if done, err := l.recv[r].Done(); done || err != nil {
			l.recv[r] = nil
			l.heard[r] = l.heard[r] || err == nil && now.Sub(l.since) > beat
		}
	}
	if waited < c.deadline {
		return nil
	}
	e := &LateError{Rank: c.name(me), What: c.what, After: c.deadline}
	for r := range n {
		if r != me && !l.heard[r] {
			e.Ranks = append(e.Ranks, c.name(r))
		}
	}
	if len(e.Ranks) == 0 { // all wait: for each other, in different operations
		return fmt.Errorf("dist: rank %d has waited %v in %s, and so has every other rank: the ranks do not do the same thing; were all started with the same command?", c.name(me), c.deadline, c.what)
	}
	return e
}

func put64(p []byte, v uint64) {
	for i := range 8 {
		p[i] = byte(v >> (8 * i))
	}
}

func get64(p []byte) (v uint64) {
	for i := range 8 {
		v |= uint64(p[i]) << (8 * i)
	}
	return v
}

// ErrLost is wrapped by errors of transports that know that another rank has gone.
var ErrLost = errors.New("another rank is gone")
