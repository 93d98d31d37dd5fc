package dist

import (
	"fmt"
	"slices"
	"unsafe"

	"github.com/jouleml/joule/internal/kernel/vec"
)

// bytesOf sees floats as the bytes that they are in memory. All ranks of a job have processors of one byte order (Joule runs on little-endian ones alone).
func bytesOf(x []float32) []byte {
	if len(x) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 4*len(x))
}

// float is the first four bytes of p as a number.
func float(p []byte) *float32 { return (*float32)(unsafe.Pointer(&p[0])) }

// add sets a to a + b.
func add(a, b []float32) { vec.Binary(vec.Add)(a, a, b) }

// Plan is who has which summands of a sum over a Tree.
type Plan struct {
	Tree Tree
	Own  [][]Range // of each rank, the nodes that it brings
}

// NewPlan shares the leaves of a tree out to ranks in a row, as evenly as possible.
func NewPlan(leaves, ranks int) *Plan {
	p := &Plan{Tree: Tree{leaves}, Own: make([][]Range, ranks)}
	for r := range ranks {
		p.Own[r] = p.Tree.Cover(Part(leaves, r, ranks))
	}
	return p
}

// OneEach reports whether every rank brings one node.
func (p *Plan) OneEach() bool {
	return !slices.ContainsFunc(p.Own, func(own []Range) bool { return len(own) != 1 })
}

// AllReduce sets x, on every rank, to the sum of all ranks' x in the order of the Tree of Size leaves. x has the same length everywhere.
func (c *Comm) AllReduce(x []float32) error {
	return c.SumTree(NewPlan(c.Size(), c.Size()), [][]float32{x}, x)
}

// SumTree sets out, on every rank, to the sum over the plan's tree. own is this rank's nodes, in the plan's order; all slices have one length. out may be own[0]; what own holds
// afterwards is not defined.
func (c *Comm) SumTree(p *Plan, own [][]float32, out []float32) (err error) {
	defer c.begin(fmt.Sprintf("a sum of %d numbers", len(out)))(&err)
	return c.sumTree(p, own, out, true)
}

// ReduceScatter is SumTree of which each rank gets only its Segment of out.
func (c *Comm) ReduceScatter(p *Plan, own [][]float32, out []float32) (err error) {
	defer c.begin(fmt.Sprintf("a scattered sum of %d numbers", len(out)))(&err)
	return c.sumTree(p, own, out, false)
}

// SegmentOf is the Segment of any rank of a job of so many.
func SegmentOf(size, rank, ranks int) (lo, hi int) { return segment(size, rank, ranks) }

// Segment is the part of a sum of size numbers that ReduceScatter leaves on this rank and AllGatherSegments takes from it.
func (c *Comm) Segment(size int) (lo, hi int) { return segment(size, c.Rank(), c.Size()) }

// AllGatherSegments gives every rank the whole of x, of which each has its Segment.
func (c *Comm) AllGatherSegments(x []float32) (err error) {
	defer c.begin(fmt.Sprintf("a gathering of %d numbers", len(x)))(&err)
	return c.gatherSegments(x)
}

func (c *Comm) sumTree(p *Plan, own [][]float32, out []float32, all bool) error {
	n, me := c.Size(), c.Rank()
	if len(p.Own) != n || len(own) != len(p.Own[me]) {
		return fmt.Errorf("dist: a plan for %d ranks and %d summands, but there are %d ranks and %d summands", len(p.Own), len(p.Own[me]), n, len(own))
	}
	for _, x := range own {
		if len(x) != len(out) {
			return fmt.Errorf("dist: summands of %d numbers for a sum of %d", len(x), len(out))
		}
	}
	switch {
	case c.broken != nil:
		return c.broken
	case n == 1:
		fold(p.Tree, p.Own[0], own, out)
		return nil
	case p.OneEach() && (c.shared != nil || len(out) >= small):
		if err := c.meet(); err != nil {
			return err
		}
		if c.shared != nil {
			return c.sharedSum(p, own[0], out, all)
		}
	}
	switch {
	case all && perfect(p.Own) && (len(out) < small || n == 2): // two send the same bytes whole, at once
		return c.doubling(own[0], out)
	case all && perfect(p.Own):
		return c.halving(own[0], out)
	case all && n > ManyRanks && inBlocks(p.Own):
		return c.blocks(own[0], out)
	}
	if err := c.exchange(p, own, out); err != nil || !all {
		return err
	}
	return c.gatherSegments(out)
}

// small is the number of elements up to which whole vectors go around: fewer messages, more bytes.
const small = 1 << 10

// room is scratch memory of n numbers.
func (c *Comm) room(n int) []float32 {
	if cap(c.tmp) < n {
		c.tmp = make([]float32, n)
	}
	return c.tmp[:n]
}

// doubling adds whole vectors with ranks 1, 2, 4, … away: log2(n) messages (Thakur, Rabenseifner & Gropp, "Optimization of collective communication operations in
// MPICH", 2005). The partner's sum is that of the neighbouring node of the tree.
func (c *Comm) doubling(own, out []float32) error {
	n, me := c.Size(), c.Rank()
	copy(out, own) // nothing where they are the same
	tmp := c.room(len(out))
	for d := 1; d < n; d *= 2 {
		if err := c.swap(me^d, bytesOf(out), bytesOf(tmp)); err != nil {
			return err
		}
		if me&d == 0 {
			add(out, tmp)
		} else { // the same order on both sides
			vec.Binary(vec.Add)(out, tmp, out)
		}
	}
	return nil
}

// swap sends a to a partner and receives b from it.
func (c *Comm) swap(with int, a, b []byte) error {
	r, err := c.recv(with, tagSum, b)
	if err != nil {
		return err
	}
	s, err := c.send(with, tagSum, a)
	if err != nil {
		return err
	}
	return c.wait(r, s)
}

// halving is Rabenseifner's algorithm (ibid.) with the distances 1, 2, 4, …: with each partner a rank gives one half of what it still adds and takes the other, then the finished
// parts go back the same way: 2·log2(n) messages, 2·(n-1)/n of the bytes. The distances make the order of additions that of the tree.
func (c *Comm) halving(own, out []float32) error {
	return c.halvingWithin(0, c.Size(), own, out, func(reach) error { return nil })
}

// reach is a stretch of a vector.
type reach struct{ lo, hi int }

// half is what is left of a stretch after halving with the partner d away, for rank i of those that halve, and what that one takes.
func (at reach) half(i, d int) (keep, give reach) {
	m := at.lo + (at.hi-at.lo)/2/16*16
	keep, give = reach{at.lo, m}, reach{m, at.hi}
	if i&d != 0 {
		keep, give = give, keep
	}
	return keep, give
}

// halvingWithin is halving of the n ranks from base on, a power of two; between is called when this rank has their sum of the stretch at.
func (c *Comm) halvingWithin(base, n int, own, out []float32, between func(at reach) error) error {
	i := c.Rank() - base
	copy(out, own) // nothing where they are the same
	tmp := c.room(len(out))
	at := reach{0, len(out)}
	var way []reach
	for d := 1; d < n; d *= 2 {
		keep, give := at.half(i, d)
		if err := c.swap(base+(i^d), bytesOf(out[give.lo:give.hi]), bytesOf(tmp[keep.lo:keep.hi])); err != nil {
			return err
		}
		add(out[keep.lo:keep.hi], tmp[keep.lo:keep.hi])
		way, at = append(way, at), keep
	}
	if err := between(at); err != nil {
		return err
	}
	for d := n / 2; d >= 1; d /= 2 {
		whole := way[len(way)-1]
		way = way[:len(way)-1]
		keep, give := whole.half(i, d)
		if err := c.swap(base+(i^d), bytesOf(out[keep.lo:keep.hi]), bytesOf(out[give.lo:give.hi])); err != nil {
			return err
		}
	}
	return nil
}

// exchange brings each rank all summands of its segment and adds them up there: for any number of ranks and any shares.
func (c *Comm) exchange(p *Plan, own [][]float32, out []float32) error {
	n, me, size := c.Size(), c.Rank(), len(out)
	lo, hi := segment(size, me, n)
	w := hi - lo
	count := 0
	for r := range n {
		count += len(p.Own[r])
	}
	tmp := c.room(count * w)
	var nodes []Range
	var parts [][]float32
	var rs []Request
	for r := range n {
		for k, node := range p.Own[r] {
			nodes = append(nodes, node)
			if r == me {
				parts = append(parts, own[k][lo:hi])
				continue
			}
			t := tmp[:w]
			tmp = tmp[w:]
			parts = append(parts, t)
			q, err := c.recv(r, tagSum, bytesOf(t))
			if err != nil {
				return err
			}
			rs = append(rs, q)
		}
	}
	for i := 1; i < n; i++ {
		r := (me + i) % n
		a, b := segment(size, r, n)
		for _, x := range own {
			q, err := c.send(r, tagSum, bytesOf(x[a:b]))
			if err != nil {
				return err
			}
			rs = append(rs, q)
		}
	}
	if err := c.wait(rs...); err != nil {
		return err
	}
	fold(p.Tree, nodes, parts, out[lo:hi])
	return nil
}

// merge adds up those of some nodes that the tree puts together, in the memory of the left one of each two, and gives what is left of nodes and parts, in ascending order.
func merge(t Tree, nodes []Range, parts [][]float32) ([]Range, [][]float32) {
	order := make([]int, len(nodes))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return nodes[i].Lo - nodes[j].Lo })
	var at []Range
	var sums [][]float32
	for _, i := range order {
		at, sums = append(at, nodes[i]), append(sums, parts[i])
		for n := len(at); n > 1 && t.Joins(at[n-2], at[n-1]); n = len(at) {
			add(sums[n-2], sums[n-1])
			at[n-2].Hi = at[n-1].Hi
			at, sums = at[:n-1], sums[:n-1]
		}
	}
	return at, sums
}

// fold adds nodes that together are the whole tree, in its order. It uses the parts' memory.
func fold(t Tree, nodes []Range, parts [][]float32, out []float32) {
	_, sums := merge(t, nodes, parts)
	copy(out, sums[0])
}

func (c *Comm) gatherSegments(x []float32) error {
	if c.shared != nil {
		return c.sharedGather(x)
	}
	n, me := c.Size(), c.Rank()
	lo, hi := segment(len(x), me, n)
	var rs []Request
	for i := 1; i < n; i++ {
		from, to := (me+n-i)%n, (me+i)%n
		a, b := segment(len(x), from, n)
		r, err := c.recv(from, tagGather, bytesOf(x[a:b]))
		if err != nil {
			return err
		}
		s, err := c.send(to, tagGather, bytesOf(x[lo:hi]))
		if err != nil {
			return err
		}
		rs = append(rs, r, s)
	}
	return c.wait(rs...)
}

// SumAnyOrder is AllReduce by the transport's own operation, in whatever order it likes, where it has one.
func (c *Comm) SumAnyOrder(x []float32) (err error) {
	s, ok := c.t.(Summer)
	if !ok || c.Size() == 1 {
		return c.AllReduce(x)
	}
	defer c.begin(fmt.Sprintf("the library's sum of %d numbers", len(x)))(&err)
	if c.broken != nil {
		return c.broken
	}
	// What a ring sends; the library does not say what it does.
	n := c.Size()
	c.count((c.Rank()+1)%n, 2*(n-1)*4*len(x)/n, 2*(n-1)*4*len(x)/n, 1)
	r, err := s.Sum(x)
	if err != nil {
		return err
	}
	return c.wait(r)
}
