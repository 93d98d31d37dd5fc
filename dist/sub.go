package dist

import (
	"fmt"
	"slices"
)

// stride is the number of tags of one channel.
const stride = 512

// Channels is how many channels a transport has tags for.
const Channels = 8

// Sub makes a Comm of some of the ranks, on a channel of its own (0 <= channel < Channels; 0 is that of a Comm of New): operations of different channels may run at the same time, whatever
// their order on each rank. members are in ascending order; this rank must be one of them. It is closed and aborted with c, whose Stats count its messages too.
func (c *Comm) Sub(members []int, channel int) (*Comm, error) {
	me := slices.Index(members, c.Rank())
	switch {
	case me < 0:
		return nil, fmt.Errorf("dist: rank %d is not among %v", c.Rank(), members)
	case !slices.IsSorted(members) || members[0] < 0 || members[len(members)-1] >= c.Size() || len(slices.Compact(slices.Clone(members))) != len(members):
		return nil, fmt.Errorf("dist: %v are not ranks of a job of %d in ascending order", members, c.Size())
	case channel < 0 || channel >= Channels:
		return nil, fmt.Errorf("dist: channel %d: there are 0 to %d", channel, Channels-1)
	}
	sub := New(&sub{c.t, members, me, channel * stride}, c.deadline)
	sub.of, sub.members, sub.folder = c, slices.Clone(members), c.folder
	return sub, nil
}

// sub is a Transport between some of the ranks of another.
type sub struct {
	Transport
	members []int
	me, tag int
}

func (s *sub) Rank() int    { return s.me }
func (s *sub) Size() int    { return len(s.members) }
func (s *sub) Close() error { return nil }

func (s *sub) Isend(to, tag int, p []byte) (Request, error) {
	return s.Transport.Isend(s.members[to], s.tag+tag, p)
}

func (s *sub) Irecv(from, tag int, p []byte) (Request, error) {
	return s.Transport.Irecv(s.members[from], s.tag+tag, p)
}

// Watch implements Watcher.
func (s *sub) Watch(rank int) error {
	if w, ok := s.Transport.(Watcher); ok {
		return w.Watch(s.members[rank])
	}
	return nil
}
