package dist

import "fmt"

// signs sends one bit a number, its sign, and one number for all, the mean magnitude (1-bit SGD; Seide et al., "1-bit stochastic gradient descent and its application to data-parallel
// distributed training of speech DNNs", Interspeech 2014). Both ways are compressed, and each feeds its error back, as in 1-bit Adam (Tang et al., arXiv:2102.02888).
type signs struct {
	rest []float32 // of this rank's vector
	back []float32 // of the sums of this rank's segment
}

// minSigns is the size below which a vector travels as it is: its messages cost more than its bytes.
const minSigns = 256

// pack writes the signs of x as bits and takes sign times scale away from x, which becomes what is left out.
func pack(bits []byte, x []float32) (scale float32) {
	sum := 0.0
	for _, v := range x {
		sum += float64(max(v, -v))
	}
	if len(x) > 0 {
		scale = float32(sum / float64(len(x)))
	}
	clear(bits)
	for i, v := range x {
		if v >= 0 {
			bits[i/8] |= 1 << (i % 8)
			x[i] = v - scale
		} else {
			x[i] = v + scale
		}
	}
	return scale
}

func sign(bits []byte, i int, scale float32) float32 {
	if bits[i/8]>>(i%8)&1 == 1 {
		return scale
	}
	return -scale
}

// Sum implements Compressor. Segments go to the rank that adds them up, in the order of the ranks, and come back.
func (s *signs) Sum(c *Comm, x []float32) (err error) {
	defer c.begin(fmt.Sprintf("a sum of %d numbers of one bit", len(x)))(&err)
	n, me, size := c.Size(), c.Rank(), len(x)
	lo, hi := segment(size, me, n)
	if len(s.back) != hi-lo {
		s.back = make([]float32, hi-lo)
	}
	add(s.rest, x)
	const head = 4 // bytes of the scale
	room := func(r int) int { a, b := segment(size, r, n); return head + (b-a+7)/8 }
	out, in := make([][]byte, n), make([][]byte, n)
	var rs []Request
	for i := range n {
		a, b := segment(size, i, n)
		out[i] = make([]byte, room(i))
		*float(out[i]) = pack(out[i][head:], s.rest[a:b])
		if in[i] = out[i]; i == me {
			continue
		}
		in[i] = make([]byte, room(me))
		r, err := c.recv(i, tagSum, in[i])
		if err != nil {
			return err
		}
		q, err := c.send(i, tagSum, out[i])
		if err != nil {
			return err
		}
		rs = append(rs, r, q)
	}
	if err := c.wait(rs...); err != nil {
		return err
	}
	for _, p := range in {
		for k := range s.back {
			s.back[k] += sign(p[head:], k, *float(p))
		}
	}
	own := make([]byte, room(me))
	*float(own) = pack(own[head:], s.back)
	rs = rs[:0]
	for i := range n {
		if in[i] = own; i == me {
			continue
		}
		in[i] = make([]byte, room(i))
		r, err := c.recv(i, tagGather, in[i])
		if err != nil {
			return err
		}
		q, err := c.send(i, tagGather, own)
		if err != nil {
			return err
		}
		rs = append(rs, r, q)
	}
	if err := c.wait(rs...); err != nil {
		return err
	}
	for i, p := range in {
		a, b := segment(size, i, n)
		for k := range b - a {
			x[a+k] = sign(p[head:], k, *float(p))
		}
	}
	return nil
}
