package dist

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/jouleml/joule/internal/debug"
	"github.com/jouleml/joule/internal/kernel/vec"
)

// Ranks of one machine add up in memory that all of them see, in place of messages: what a rank brings is copied once, and the others read it where it lies. Sums keep their order, and so their bits.
//
// The memory is a file that has no name any more once all have opened it. It has a mark, by which those who open it know it, a counter for each rank, and room for two turns of what each rank brings. A rank that has put something there counts on; it
// has finished reading the turn before by then. So after the counters of a turn everybody is done with the turn before it, whose room is free for the next.

const (
	line  = 128     // bytes between counters: two cache lines, since processors fetch pairs
	turns = 2       // that have room
	chunk = 1 << 18 // numbers of a rank in a turn
)

// A Watcher is a Transport that can tell that another rank is gone while no message of it is awaited.
type Watcher interface {
	// Watch gives an error that wraps ErrLost if the rank is known to be gone.
	Watch(rank int) error
}

// shared is memory that all ranks of a Comm see.
type shared struct {
	count []*atomic.Uint64 // by rank: how often it has put something there
	room  [][turns][]float32
	turn  uint64 // of this rank
	done  uint64 // its count
}

// shmFolder is Linux's folder of files that are memory.
var shmFolder = "/dev/shm"

// sharedSize is the bytes that n ranks share.
func sharedSize(n int) int { return (1+n)*line + n*turns*4*chunk }

// countersIn are n counters, a line each.
func countersIn(mem []byte, n int) []*atomic.Uint64 {
	out := make([]*atomic.Uint64, n)
	for i := range out {
		out[i] = (*atomic.Uint64)(unsafe.Pointer(&mem[i*line]))
	}
	return out
}

// floatsIn sees memory as numbers.
func floatsIn(mem []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(&mem[0])), len(mem)/4)
}

// newShared sees memory of sharedSize as what it is; release is called when nobody uses it any more.
func newShared(mem []byte, n int, release func([]byte)) *shared {
	s := &shared{count: countersIn(mem[line:], n)}
	floats := floatsIn(mem[(1+n)*line:])
	for range n {
		var room [turns][]float32
		for t := range room {
			room[t], floats = floats[:chunk:chunk], floats[chunk:]
		}
		s.room = append(s.room, room)
	}
	runtime.AddCleanup(s, release, mem)
	return s
}

// meet tries, once, to find memory for sums: c.shared is nil afterwards if there is none, for instance since the ranks are on several machines.
func (c *Comm) meet() error {
	if c.met {
		return nil
	}
	c.met = true
	mem, err := c.memory(sharedSize(c.Size()))
	if err == nil && mem != nil {
		c.shared = newShared(mem, c.Size(), closeMemory)
	}
	return err
}

// memory is so many bytes that all ranks see, zeros behind a mark of eight bytes; nil if there is no such memory.
func (c *Comm) memory(size int) ([]byte, error) {
	n, me := c.Size(), c.Rank()
	var mem []byte
	var name [64]byte // of the file; empty: there is none
	remove := func() {}
	mark := rand.Uint64() // a file of this name on another machine has another
	if me == 0 && debug.Get("ranks") != "messages" {
		m, path, err := makeMemory(size)
		if err == nil && len(path) < len(name)-8 {
			mem, remove = m, func() { removeMemory(path) }
			binary.LittleEndian.PutUint64(mem, mark)
			binary.LittleEndian.PutUint64(name[:], mark)
			copy(name[8:], path)
		}
	}
	defer func() { remove() }()
	if err := c.broadcast(0, name[:]); err != nil {
		return nil, err
	}
	if name[8] == 0 {
		return nil, nil
	}
	if me != 0 {
		if m, err := openMemory(strings.TrimRight(string(name[8:]), "\x00"), size); err == nil {
			if mem = m; binary.LittleEndian.Uint64(mem) != binary.LittleEndian.Uint64(name[:]) {
				closeMemory(mem)
				mem = nil
			}
		}
	}
	failed, any := []byte{0}, make([]byte, n)
	if mem == nil {
		failed[0] = 1
	}
	if err := c.allGather(failed, slices.Repeat([]int{1}, n), any); err != nil {
		return nil, err
	}
	if slices.Contains(any, 1) {
		if mem != nil {
			closeMemory(mem)
		}
		return nil, nil
	}
	return mem, nil
}

// rooms are those of the turn, by rank.
func (s *shared) rooms() [][]float32 {
	out := make([][]float32, len(s.room))
	for r := range out {
		out[r] = s.room[r][s.turn%turns]
	}
	return out
}

// put says that this rank has put something into its room and waits until all have.
func (c *Comm) put() error {
	s := c.shared
	s.done++
	s.count[c.Rank()].Store(s.done)
	c.count(0, 0, 1)
	return c.wait(&reached{c: c, count: s.count, at: s.done})
}

// reached is done when all ranks' counts are as high as at.
type reached struct {
	c     *Comm
	count []*atomic.Uint64
	at    uint64
	rank  int // those before it are
	looks int
}

// Done implements Request.
func (q *reached) Done() (bool, error) {
	for ; q.rank < len(q.count); q.rank++ {
		if q.count[q.rank].Load() >= q.at {
			continue
		}
		if q.looks++; q.looks%(4*patience) == 0 {
			if w, ok := q.c.t.(Watcher); ok {
				return false, w.Watch(q.rank)
			}
		}
		return false, nil
	}
	return true, nil
}

// sharedSum is sumTree in shared memory; every rank brings one node.
func (c *Comm) sharedSum(p *Plan, own, out []float32, all bool) error {
	s, n, me := c.shared, c.Size(), c.Rank()
	lo, hi := segment(len(out), me, n)
	for at := 0; at < len(out); at += chunk {
		part := reach{at, min(at+chunk, len(out))}
		w := part.hi - part.lo
		rooms := s.rooms()
		copy(rooms[me], own[part.lo:part.hi])
		if err := c.put(); err != nil {
			return err
		}
		if all {
			if err := c.sumRooms(p, rooms, out[part.lo:part.hi], c.put); err != nil {
				return err
			}
		} else {
			a, b := max(lo, part.lo), min(hi, part.hi)
			if a < b {
				c.addAll(p, stretch(rooms, a-at, b-at), out[a:b])
			}
			mineToo := max(0, b-a)
			c.moved(w-mineToo, (n-1)*mineToo)
		}
		s.turn++
	}
	return nil
}

// moved counts numbers that others have read from this rank and it from others.
func (c *Comm) moved(out, in int) { c.count(4*out, 4*in, 0) }

// addAll adds what all ranks have, in the order of the tree of which each has one node.
func (c *Comm) addAll(p *Plan, of [][]float32, out []float32) {
	n, w := c.Size(), len(out)
	if n == 2 {
		vec.Binary(vec.Add)(out, of[0], of[1])
		return
	}
	tmp := c.room(n * w)
	var nodes []Range
	var parts [][]float32
	for r, x := range of {
		t := tmp[r*w : (r+1)*w]
		copy(t, x)
		nodes, parts = append(nodes, p.Own[r][0]), append(parts, t)
	}
	fold(p.Tree, nodes, parts, out)
}

// stretch is lo <= i < hi of each room.
func stretch(rooms [][]float32, lo, hi int) [][]float32 {
	out := make([][]float32, len(rooms))
	for r, x := range rooms {
		out[r] = x[lo:hi]
	}
	return out
}

// sumRooms sets out to the sum of what all ranks have put into the beginnings of their rooms: short sums, and those of two ranks, everybody adds whole; of others each adds its segment and puts it into its room for the others, which put tells.
func (c *Comm) sumRooms(p *Plan, rooms [][]float32, out []float32, put func() error) error {
	n, me, w := c.Size(), c.Rank(), len(out)
	if n == 2 || w <= small {
		c.addAll(p, stretch(rooms, 0, w), out)
		c.moved((n-1)*w, (n-1)*w)
		return nil
	}
	lo, hi := segment(w, me, n)
	c.addAll(p, stretch(rooms, lo, hi), out[lo:hi])
	copy(rooms[me][lo:hi], out[lo:hi]) // nobody else reads this rank's summand there
	if err := put(); err != nil {
		return err
	}
	for r := range n {
		if a, b := segment(w, r, n); r != me {
			copy(out[a:b], rooms[r][a:b])
		}
	}
	own := hi - lo
	c.moved(w-own+(n-1)*own, (n-1)*own+w-own)
	return nil
}

// sharedGather is gatherSegments in shared memory.
func (c *Comm) sharedGather(x []float32) error {
	s, n, me := c.shared, c.Size(), c.Rank()
	for at := 0; at < len(x); at += chunk {
		end, rooms := min(at+chunk, len(x)), s.rooms()
		within := func(r int) (a, b int) {
			lo, hi := segment(len(x), r, n)
			return min(max(lo, at), end), max(min(hi, end), at)
		}
		a, b := within(me)
		if a < b {
			copy(rooms[me][a-at:b-at], x[a:b])
		}
		if err := c.put(); err != nil {
			return err
		}
		read := 0
		for r := range n {
			if lo, hi := within(r); r != me && lo < hi {
				copy(x[lo:hi], rooms[r][lo-at:hi-at])
				read += hi - lo
			}
		}
		c.moved((n-1)*max(0, b-a), read)
		s.turn++
	}
	return nil
}

// Shared reports whether the ranks add up in memory that all see; known after the first great sum.
func (c *Comm) Shared() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shared != nil
}

var errNoMemory = errors.New("dist: processes share no memory here")
