package dist

import "math/bits"

// ManyRanks is the number above which a sum over a number of ranks that is no power of two goes in blocks: up to it messages between all pairs are few, and each rank sends the least bytes.
const ManyRanks = 16

// narrow is the stretch that rank i of a block is left with after halving for distances 1, 2, … below size, of n numbers.
func narrow(n, i, size int) reach {
	at := reach{0, n}
	for d := 1; d < size; d *= 2 {
		at, _ = at.half(i, d)
	}
	return at
}

// inBlocks reports whether the tree over ranks' shares is that over the ranks: nodes are alike, and of a power of two.
func inBlocks(own [][]Range) bool {
	size := alike(own)
	return size > 0 && size&(size-1) == 0
}

// blocks sums over any number of ranks that bring a node each (inBlocks) in about 2·log2(n) rounds (the binary blocks of Rabenseifner & Träff, "More efficient reduction algorithms for non-power-of-two number of
// processors in message-passing parallel systems", EuroPVM/MPI 2004): ranks stand in blocks of falling powers of two, as the tree has them; each block sums by halving, sums go from smaller
// blocks to greater ones, and the same way back.
func (c *Comm) blocks(own, out []float32) error {
	n, me, size := c.Size(), c.Rank(), len(out)
	// The blocks before and after this rank's own.
	base, block, before, after := 0, 0, 0, 0
	for left := n; ; {
		block = 1 << (bits.Len(uint(left)) - 1)
		left -= block
		if me < base+block {
			if left > 0 {
				after = 1 << (bits.Len(uint(left)) - 1)
			}
			break
		}
		before, base = block, base+block
	}
	i := me - base
	// To the greater block before this one, and back.
	others := func(send bool) error {
		var rs []Request
		for k := i; k < before; k += block {
			s, rank := narrow(size, k, before), base-before+k
			p := bytesOf(out[s.lo:s.hi])
			var q Request
			var err error
			if send {
				q, err = c.send(rank, tagSum, p)
			} else {
				q, err = c.recv(rank, tagSum, p)
			}
			if err != nil {
				return err
			}
			rs = append(rs, q)
		}
		return c.wait(rs...)
	}
	return c.halvingWithin(base, block, own, out, func(at reach) error {
		if after > 0 {
			tmp := c.room(size)[at.lo:at.hi]
			r, err := c.recv(base+block+i%after, tagSum, bytesOf(tmp))
			if err != nil {
				return err
			}
			if err := c.wait(r); err != nil {
				return err
			}
			add(out[at.lo:at.hi], tmp)
		}
		if before > 0 {
			if err := others(true); err != nil {
				return err
			}
			if err := others(false); err != nil {
				return err
			}
		}
		if after > 0 {
			s, err := c.send(base+block+i%after, tagSum, bytesOf(out[at.lo:at.hi]))
			if err != nil {
				return err
			}
			return c.wait(s)
		}
		return nil
	})
}
