package dist

import (
	"encoding/json"
	"fmt"
)

// MaxText is the greatest number of bytes of one rank in GatherTexts and BroadcastText; more is taken for damage.
const MaxText = 1 << 34

// Send sends p to another rank, which must call Recv with the same tag (0 <= tag < 256) and length.
func (c *Comm) Send(to, tag int, p []byte) (err error) {
	defer c.begin(fmt.Sprintf("a message to rank %d", c.name(to)))(&err)
	s, err := c.send(to, tagUser+tag, p)
	if err != nil {
		return err
	}
	return c.wait(s)
}

// Recv receives len(p) bytes from another rank.
func (c *Comm) Recv(from, tag int, p []byte) (err error) {
	defer c.begin(fmt.Sprintf("a message from rank %d", c.name(from)))(&err)
	r, err := c.recv(from, tagUser+tag, p)
	if err != nil {
		return err
	}
	return c.wait(r)
}

// Barrier returns when all ranks have called it (dissemination; Hensgen, Finkel & Manber 1988).
func (c *Comm) Barrier() (err error) {
	defer c.begin("a barrier")(&err)
	n, me := c.Size(), c.Rank()
	var a, b [1]byte
	for d := 1; d < n; d *= 2 {
		r, err := c.recv((me+n-d)%n, tagBarrier, b[:])
		if err != nil {
			return err
		}
		s, err := c.send((me+d)%n, tagBarrier, a[:])
		if err != nil {
			return err
		}
		if err := c.wait(r, s); err != nil {
			return err
		}
	}
	return nil
}

// Broadcast gives every rank root's p. All p have one length.
func (c *Comm) Broadcast(root int, p []byte) (err error) {
	defer c.begin(fmt.Sprintf("a broadcast of %d bytes", len(p)))(&err)
	return c.broadcast(root, p)
}

// broadcast goes down a binomial tree.
func (c *Comm) broadcast(root int, p []byte) error {
	n := c.Size()
	me := (c.Rank() - root + n) % n
	d := 1
	for ; d < n; d *= 2 {
		if me&d != 0 {
			r, err := c.recv((me-d+root)%n, tagBroadcast, p)
			if err != nil {
				return err
			}
			if err := c.wait(r); err != nil {
				return err
			}
			break
		}
	}
	for d /= 2; d >= 1; d /= 2 {
		if me+d < n {
			s, err := c.send((me+d+root)%n, tagBroadcast, p)
			if err != nil {
				return err
			}
			if err := c.wait(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// BroadcastText gives every rank root's text, of any length.
func (c *Comm) BroadcastText(root int, text []byte) (out []byte, err error) {
	defer c.begin("a broadcast")(&err)
	var size [8]byte
	put64(size[:], uint64(len(text)))
	if err := c.broadcast(root, size[:]); err != nil {
		return nil, err
	}
	n := get64(size[:])
	if n > MaxText {
		return nil, fmt.Errorf("dist: rank %d announces %d bytes: the ranks do not do the same thing", root, n)
	}
	if c.Rank() != root {
		text = make([]byte, n)
	}
	return text, c.broadcast(root, text)
}

// AllGather sets out to all ranks' p, one after another; all have one length.
func (c *Comm) AllGather(p, out []byte) (err error) {
	defer c.begin(fmt.Sprintf("a gathering of %d bytes a rank", len(p)))(&err)
	sizes := make([]int, c.Size())
	for i := range sizes {
		sizes[i] = len(p)
	}
	if len(out) != len(p)*c.Size() {
		return fmt.Errorf("dist: room for %d bytes, there will be %d", len(out), len(p)*c.Size())
	}
	return c.allGather(p, sizes, out)
}

func (c *Comm) allGather(p []byte, sizes []int, out []byte) error {
	n, me := c.Size(), c.Rank()
	at := make([]int, n+1)
	for i, s := range sizes {
		at[i+1] = at[i] + s
	}
	copy(out[at[me]:at[me+1]], p)
	var rs []Request
	for i := 1; i < n; i++ {
		from, to := (me+n-i)%n, (me+i)%n
		r, err := c.recv(from, tagGather, out[at[from]:at[from+1]])
		if err != nil {
			return err
		}
		s, err := c.send(to, tagGather, p)
		if err != nil {
			return err
		}
		rs = append(rs, r, s)
	}
	return c.wait(rs...)
}

// GatherTexts gives every rank the texts of all ranks, in their order.
func (c *Comm) GatherTexts(text []byte) (out [][]byte, err error) {
	defer c.begin("a gathering of texts")(&err)
	n := c.Size()
	own := make([]byte, 8)
	put64(own, uint64(len(text)))
	lens := make([]byte, 8*n)
	eight := make([]int, n)
	for i := range eight {
		eight[i] = 8
	}
	if err := c.allGather(own, eight, lens); err != nil {
		return nil, err
	}
	sizes, total := make([]int, n), uint64(0)
	for i := range sizes {
		v := get64(lens[8*i:])
		if v > MaxText || total+v > MaxText {
			return nil, fmt.Errorf("dist: rank %d announces %d bytes: the ranks do not do the same thing", i, v)
		}
		total += v
		sizes[i] = int(v)
	}
	all := make([]byte, total)
	if err := c.allGather(text, sizes, all); err != nil {
		return nil, err
	}
	for _, s := range sizes {
		out = append(out, all[:s:s])
		all = all[s:]
	}
	return out, nil
}

// Gather gives every rank the values of all ranks, in their order, carried as JSON.
func Gather[T any](c *Comm, v T) ([]T, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("dist: %w", err)
	}
	texts, err := c.GatherTexts(text)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(texts))
	for i, t := range texts {
		if err := json.Unmarshal(t, &out[i]); err != nil {
			return nil, fmt.Errorf("dist: from rank %d: %w", i, err)
		}
	}
	return out, nil
}

// Share gives every rank root's value, carried as JSON.
func Share[T any](c *Comm, root int, v T) (out T, err error) {
	var text []byte
	if c.Rank() == root {
		if text, err = json.Marshal(v); err != nil {
			return out, fmt.Errorf("dist: %w", err)
		}
	}
	if text, err = c.BroadcastText(root, text); err != nil {
		return out, err
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return out, fmt.Errorf("dist: from rank %d: %w", root, err)
	}
	return out, nil
}
