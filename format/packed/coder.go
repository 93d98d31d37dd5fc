package packed

import "errors"

// A binary range coder with adaptive probabilities (G. N. N. Martin, "Range encoding", 1979; in the byte-wise form with carry of LZMA), whose models begin as running averages and go over to exponential ones, so that
// small tensors are not charged for learning.

// bit is the model of one binary decision.
type bit struct {
	p uint16 // probability of a 0, in 65536ths
	n uint8  // how many it has seen, up to slow
}

const (
	half = 1 << 15
	// least is the least probability of either value: so much certainty that a decision costs at least 0.0056 bits, and a short input cannot stand for endless output.
	least = 1 << 8
	slow  = 126
)

func (b *bit) see(v int) {
	rate := int32(b.n) + 2
	if b.n < slow {
		b.n++
	}
	p := int32(b.p)
	if v == 0 {
		p += (65536 - p) / rate
	} else {
		p -= p / rate
	}
	b.p = uint16(min(max(p, least), 65536-least))
}

func fresh(n int) []bit {
	out := make([]bit, n)
	for i := range out {
		out[i].p = half
	}
	return out
}

// encoder writes decisions.
type encoder struct {
	low     uint64
	width   uint32
	cache   byte
	pending int // bytes that wait for a carry, the cache included
	out     []byte
}

func newEncoder() *encoder { return &encoder{width: 0xffffffff, pending: 1} }

func (e *encoder) bit(b *bit, v int) {
	bound := e.width >> 16 * uint32(b.p)
	if v == 0 {
		e.width = bound
	} else {
		e.low += uint64(bound)
		e.width -= bound
	}
	b.see(v)
	e.normal()
}

// plain writes a decision that nothing is known of.
func (e *encoder) plain(v int) {
	e.width >>= 1
	if v != 0 {
		e.low += uint64(e.width)
	}
	e.normal()
}

func (e *encoder) normal() {
	for e.width < 1<<24 {
		e.width <<= 8
		e.shift()
	}
}

func (e *encoder) shift() {
	if e.low < 0xff000000 || e.low > 0xffffffff {
		carry := byte(e.low >> 32)
		for ; e.pending > 0; e.pending-- {
			e.out = append(e.out, e.cache+carry)
			e.cache = 0xff
		}
		e.cache = byte(e.low >> 24)
	}
	e.pending++
	e.low = e.low & 0x00ffffff << 8
}

// finish gives all bytes.
func (e *encoder) finish() []byte {
	for range 5 {
		e.shift()
	}
	return e.out[1:] // the first byte is always 0
}

var errShort = errors.New("the coded values end too early")

// decoder reads decisions.
type decoder struct {
	code, width uint32
	in          []byte
	past        int // bytes read behind the end
}

func newDecoder(in []byte) *decoder {
	d := &decoder{width: 0xffffffff, in: in}
	for range 4 {
		d.code = d.code<<8 | uint32(d.next())
	}
	return d
}

func (d *decoder) next() byte {
	if len(d.in) == 0 {
		d.past++
		return 0
	}
	b := d.in[0]
	d.in = d.in[1:]
	return b
}

// err reports an input that was too short for what was read from it.
func (d *decoder) err() error {
	if d.past > 0 {
		return errShort
	}
	return nil
}

func (d *decoder) bit(b *bit) int {
	bound := d.width >> 16 * uint32(b.p)
	v := 0
	if d.code < bound {
		d.width = bound
	} else {
		d.code -= bound
		d.width -= bound
		v = 1
	}
	b.see(v)
	d.normal()
	return v
}

func (d *decoder) plain() int {
	d.width >>= 1
	v := 0
	if d.code >= d.width {
		d.code -= d.width
		v = 1
	}
	d.normal()
	return v
}

func (d *decoder) normal() {
	for d.width < 1<<24 {
		d.width <<= 8
		d.code = d.code<<8 | uint32(d.next())
	}
}

// tree codes numbers of so many bits, the highest first, each decision with a model of its own for what was decided before.
type tree struct {
	m     []bit
	depth int
}

func newTree(depth int) *tree { return &tree{fresh(1 << depth), depth} }

func (t *tree) put(e *encoder, v int) {
	at := 1
	for i := t.depth - 1; i >= 0; i-- {
		b := v >> i & 1
		e.bit(&t.m[at], b)
		at = at<<1 | b
	}
}

func (t *tree) get(d *decoder) int {
	at := 1
	for range t.depth {
		at = at<<1 | d.bit(&t.m[at])
	}
	return at - 1<<t.depth
}
