package dist

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/jouleml/joule/internal/kernel/vec"
)

// Ranks of one machine add up in memory that all of them see, in place of messages: what a rank brings is copied once, and the others read it where it lies. Sums keep their order, and so their bits. Between several machines
// sums of machines travel (across.go).
//
// The memory is a file that has no name any more once all have opened it. It has a counter for each rank of the machine, and room for two turns of what each brings. A rank that has put something there counts on; it
// has finished reading the turn before by then. So after the counters of a turn everybody is done with the turn before it, whose room is free for the next.

const (
	line  = 128     // bytes between counters: two cache lines, since processors fetch pairs
	turns = 2       // that have room
	chunk = 1 << 18 // numbers of a rank in a turn
)

// shmFolder is Linux's folder of files that are memory.
var shmFolder = "/dev/shm"

// A Watcher is a Transport that can tell that another rank is gone while no message of it is awaited.
type Watcher interface {
	// Watch gives an error that wraps ErrLost if the rank is known to be gone.
	Watch(rank int) error
}

// shared is memory that the ranks of this machine see.
type shared struct {
	count []*atomic.Uint64 // by rank of the machine: how often it has put something there
	room  [][turns][]float32
	turn  uint64 // of this rank
	done  uint64 // its count
}

// sharedSize is the bytes that n ranks share.
func sharedSize(n int) int { return n*line + n*turns*4*chunk }

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
	s := &shared{count: countersIn(mem, n)}
	floats := floatsIn(mem[n*line:])
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

// meet tries, once, to find memory for sums: c.shared is nil afterwards if there is none, for instance since each rank has a machine of its own.
func (c *Comm) meet() error {
	if c.met {
		return nil
	}
	c.met = true
	mem, release, err := c.memory(sharedSize)
	if err == nil && mem != nil {
		c.shared = newShared(mem, len(c.home.Load().own), release)
	}
	return err
}

// memory is so many bytes, zeros, that all ranks of this machine see, of a rank alone its own; nil on all ranks if a machine has no such memory. size is asked for the bytes that so many ranks need.
func (c *Comm) memory(size func(ranks int) int) (mem []byte, release func([]byte), err error) {
	m, err := c.find()
	if err != nil || m.messages {
		return nil, nil, err
	}
	const most = 64 // bytes of the file's name
	n, bytes, release := c.Size(), size(len(m.own)), func([]byte) {}
	name, names := make([]byte, most), make([]byte, n*most)
	switch {
	case len(m.own) == 1:
		mem = make([]byte, bytes)
	case m.me == 0:
		made, file, err := makeMemory(c.folder, bytes)
		if err == nil {
			defer removeMemory(c.folder, file)
			mem, release = made, closeMemory
			copy(name, file)
		}
	}
	if err := c.allGather(name, slices.Repeat([]int{most}, n), names); err != nil {
		release(mem)
		return nil, nil, err
	}
	if file := strings.TrimRight(string(names[m.own[0]*most:(m.own[0]+1)*most]), "\x00"); m.me > 0 && file != "" {
		if opened, err := openMemory(c.folder, file, bytes); err == nil {
			mem, release = opened, closeMemory
		}
	}
	failed, any := []byte{0}, make([]byte, n)
	if mem == nil {
		failed[0] = 1
	}
	err = c.allGather(failed, slices.Repeat([]int{1}, n), any)
	if err != nil || slices.Contains(any, 1) {
		if mem != nil {
			release(mem)
		}
		return nil, nil, err
	}
	if m.several() && c.across == nil {
		c.across = newAcross(c, m)
	}
	return mem, release, nil
}

// rooms are those of the turn, by rank.
func (s *shared) rooms() [][]float32 {
	out := make([][]float32, len(s.room))
	for r := range out {
		out[r] = s.room[r][s.turn%turns]
	}
	return out
}

// put says that this rank has put something into its room and waits until all of its machine have.
func (c *Comm) put() error {
	if c.broken != nil {
		return c.broken
	}
	s, m := c.shared, c.home.Load()
	s.done++
	s.count[m.me].Store(s.done)
	c.count(c.Rank(), 0, 0, 1)
	return c.wait(&reached{c: c, ranks: m.own, count: s.count, at: s.done})
}

// reached is done when the counts of all ranks of a machine are as high as at.
type reached struct {
	c     *Comm
	ranks []int
	count []*atomic.Uint64
	at    uint64
	next  int // those before it are
	looks int
}

// Done implements Request.
func (q *reached) Done() (bool, error) {
	for ; q.next < len(q.count); q.next++ {
		if q.count[q.next].Load() >= q.at {
			continue
		}
		if q.looks++; q.looks%(4*patience) == 0 {
			if w, ok := q.c.t.(Watcher); ok {
				return false, w.Watch(q.ranks[q.next])
			}
		}
		return false, nil
	}
	return true, nil
}

// sharedSum is sumTree in shared memory; every rank brings one node.
func (c *Comm) sharedSum(p *Plan, own, out []float32, all bool) error {
	if !all {
		return c.sharedScatter(p, own, out)
	}
	mine := c.home.Load().me
	for at := 0; at < len(out); at += chunk {
		end, rooms := min(at+chunk, len(out)), c.shared.rooms()
		copy(rooms[mine], own[at:end])
		if err := c.put(); err != nil {
			return err
		}
		if err := c.sumRooms(p, rooms, out[at:end], c.put); err != nil {
			return err
		}
		c.shared.turn++
	}
	return nil
}

// portions are what a turn takes of a vector of which each rank has a segment: some of each, so that all have work. In rooms they lie apart.
type portions struct{ size, ranks, turn int }

// width is the numbers of a portion at most.
func (p portions) width() int { return chunk / p.ranks / 16 * 16 }

// any reports whether this turn has something to take.
func (p portions) any() bool {
	lines := (p.size + 15) / 16
	return p.turn*p.width() < (lines+p.ranks-1)/p.ranks*16
}

// of is the place of a rank's portion in the vector.
func (p portions) of(rank int) (lo, hi int) {
	lo, hi = segment(p.size, rank, p.ranks)
	lo = min(lo+p.turn*p.width(), hi)
	return lo, min(lo+p.width(), hi)
}

// room is its place in a room.
func (p portions) room(rank int) (lo, hi int) {
	a, b := p.of(rank)
	return rank * p.width(), rank*p.width() + b - a
}

// total is the numbers of all portions.
func (p portions) total() (n int) {
	for r := range p.ranks {
		lo, hi := p.of(r)
		n += hi - lo
	}
	return n
}

// sharedScatter leaves each rank its segment of the sum.
func (c *Comm) sharedScatter(p *Plan, own, out []float32) error {
	n, me, mine := c.Size(), c.Rank(), c.home.Load().me
	for q := (portions{size: len(out), ranks: n}); q.any(); q.turn++ {
		rooms := c.shared.rooms()
		for r := range n {
			a, _ := q.room(r)
			lo, hi := q.of(r)
			copy(rooms[mine][a:], own[lo:hi])
		}
		if err := c.put(); err != nil {
			return err
		}
		lo, hi := q.of(me)
		if c.across != nil {
			if err := c.across.scatter(p, rooms, out[lo:hi], q); err != nil {
				return err
			}
		} else if a, b := q.room(me); a < b {
			c.addAll(p, stretch(rooms, a, b), out[lo:hi])
		}
		if w := hi - lo; c.across == nil {
			c.moved(q.total()-w, (n-1)*w)
		}
		c.shared.turn++
	}
	return nil
}

// moved counts numbers that others have read from this rank and it from others.
func (c *Comm) moved(out, in int) { c.count(c.Rank(), 4*out, 4*in, 0) }

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
	if c.across != nil {
		return c.across.sum(p, rooms, out, put)
	}
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
	n, me, m := c.Size(), c.Rank(), c.home.Load()
	for q := (portions{size: len(x), ranks: n}); q.any(); q.turn++ {
		rooms := c.shared.rooms()
		a, b := q.room(me)
		lo, hi := q.of(me)
		copy(rooms[m.me][a:b], x[lo:hi])
		brought := b - a // to this rank's room
		if c.across != nil {
			more, err := c.across.gather(rooms[m.me], q)
			if err != nil {
				return err
			}
			brought += more
		}
		if err := c.put(); err != nil {
			return err
		}
		for r := range n {
			if a, b := q.room(r); r != me && a < b {
				lo, hi := q.of(r)
				copy(x[lo:hi], rooms[m.brings(r)][a:b])
			}
		}
		c.moved((len(m.own)-1)*brought, q.total()-brought)
		c.shared.turn++
	}
	return nil
}

// Shared reports whether ranks of one machine add up in memory that they see; known after the first great sum.
func (c *Comm) Shared() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shared != nil
}

var errNoMemory = errors.New("dist: processes share no memory here")
