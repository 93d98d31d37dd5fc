package dist

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"unsafe"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/kernel/vec"
)

// Compressor adds up vectors with fewer bytes, and less exactly. What it leaves out of one sum it adds to the next (error feedback; Karimireddy et al., arXiv:1901.09847), so each vector that
// is summed again and again has a Compressor of its own. All ranks get the same bits.
type Compressor interface {
	// Sum sets x, on every rank, to (nearly) the sum of all ranks' x.
	Sum(c *Comm, x []float32) error
}

// Scheme makes compressors: of a matrix [rows, cols], or of a vector (rows 1).
type Scheme struct {
	text  string
	name  string
	share float64
	rank  int
	warm  int64
}

// Schemes says what ParseScheme takes.
const Schemes = "bf16, topk:SHARE (such as topk:0.01), powersgd:RANK (such as powersgd:4) or onebit:STEPS (1-bit Adam after so many steps, such as onebit:200)"

// ParseScheme reads a scheme's name.
func ParseScheme(text string) (*Scheme, error) {
	s := &Scheme{text: text}
	name, arg, has := strings.Cut(text, ":")
	s.name = name
	var err error
	switch {
	case name == "bf16" && !has:
		return s, nil
	case name == "onebit" && has:
		if s.warm, err = strconv.ParseInt(arg, 10, 64); err == nil && s.warm > 0 {
			return s, nil
		}
	case name == "topk" && has:
		if s.share, err = strconv.ParseFloat(arg, 64); err == nil && s.share > 0 && s.share <= 1 {
			return s, nil
		}
	case name == "powersgd" && has:
		if s.rank, err = strconv.Atoi(arg); err == nil && s.rank > 0 && s.rank <= 1024 {
			return s, nil
		}
	}
	return nil, fmt.Errorf("dist: unknown compression %q: it must be %s", text, Schemes)
}

// String is what ParseScheme read.
func (s *Scheme) String() string { return s.text }

// OneBit reports whether the scheme is 1-bit Adam's (arXiv:2102.02888), and how many updates are made before it: until then sums are exact, and Adam learns how much gradients vary;
// afterwards the ranks' momenta are added up in place of gradients.
func (s *Scheme) OneBit() (warm int64, ok bool) { return s.warm, s.name == "onebit" }

// New makes the compressor of a matrix of rows times cols numbers; nil where the scheme leaves such a one as it is.
func (s *Scheme) New(rows, cols int) Compressor {
	size := rows * cols
	switch s.name {
	case "bf16":
		return &halves{rest: make([]float32, size)}
	case "topk":
		return &largest{k: max(1, int(math.Ceil(s.share*float64(size)))), rest: make([]float32, size)}
	}
	if s.name == "onebit" {
		if size < minSigns {
			return nil
		}
		return &signs{rest: make([]float32, size)}
	}
	if rows < 2 || cols < 2 || (rows+cols)*s.rank >= size { // nothing would be saved
		return nil
	}
	p := &lowRank{rows: rows, cols: cols, r: s.rank, rest: make([]float32, size), p: make([]float32, rows*s.rank), q: make([]float32, cols*s.rank)}
	rng := rand.New(rand.NewPCG(1, uint64(size))) // the same on all ranks
	for i := range p.q {
		p.q[i] = float32(rng.NormFloat64())
	}
	return p
}

// halves sends bfloat16.
type halves struct {
	rest []float32
	own  []dtype.BFloat16
	got  []dtype.BFloat16
	wide []float32
}

func bf16Bytes(x []dtype.BFloat16) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 2*len(x))
}

// Sum implements Compressor: segments go to the rank that adds them up in float32, in the order of the ranks' Tree, and sums come back, both rounded.
func (h *halves) Sum(c *Comm, x []float32) (err error) {
	defer c.begin(fmt.Sprintf("a bfloat16 sum of %d numbers", len(x)))(&err)
	n, me, size := c.Size(), c.Rank(), len(x)
	if len(h.own) != size {
		h.own, h.got = make([]dtype.BFloat16, size), make([]dtype.BFloat16, (size/n+32)*n)
		h.wide = make([]float32, (size/n+32)*n)
	}
	add(x, h.rest)
	vec.ToBFloat16()(h.own, x)
	vec.FromBFloat16()(h.rest, h.own)
	for i, v := range h.rest {
		h.rest[i] = x[i] - v
	}
	lo, hi := segment(size, me, n)
	w := hi - lo
	var rs []Request
	for i := range n {
		if i == me {
			copy(h.got[i*w:(i+1)*w], h.own[lo:hi])
			continue
		}
		r, err := c.recv(i, tagSum, bf16Bytes(h.got[i*w:(i+1)*w]))
		if err != nil {
			return err
		}
		a, b := segment(size, i, n)
		s, err := c.send(i, tagSum, bf16Bytes(h.own[a:b]))
		if err != nil {
			return err
		}
		rs = append(rs, r, s)
	}
	if err := c.wait(rs...); err != nil {
		return err
	}
	vec.FromBFloat16()(h.wide[:n*w], h.got[:n*w])
	nodes, parts := make([]Range, n), make([][]float32, n)
	for i := range n {
		nodes[i], parts[i] = Range{i, i + 1}, h.wide[i*w:(i+1)*w]
	}
	fold(Tree{n}, nodes, parts, x[lo:hi])
	vec.ToBFloat16()(h.own[lo:hi], x[lo:hi])
	rs = rs[:0]
	for i := 1; i < n; i++ {
		from, to := (me+n-i)%n, (me+i)%n
		a, b := segment(size, from, n)
		r, err := c.recv(from, tagGather, bf16Bytes(h.own[a:b]))
		if err != nil {
			return err
		}
		s, err := c.send(to, tagGather, bf16Bytes(h.own[lo:hi]))
		if err != nil {
			return err
		}
		rs = append(rs, r, s)
	}
	if err := c.wait(rs...); err != nil {
		return err
	}
	vec.FromBFloat16()(x, h.own)
	return nil
}

// largest sends the k numbers of greatest magnitude with their places (Stich, Cordonnier & Jaggi, "Sparsified SGD with memory", arXiv:1809.07599).
type largest struct {
	k    int
	rest []float32
	mags []float32
}

// Sum implements Compressor.
func (l *largest) Sum(c *Comm, x []float32) error {
	add(x, l.rest)
	copy(l.rest, x)
	l.mags = append(l.mags[:0], x...)
	for i, v := range l.mags {
		l.mags[i] = max(v, -v)
	}
	limit := kth(l.mags, l.k)
	own := make([]byte, 8*l.k)
	at := 0
	take := func(i int) {
		binary.LittleEndian.PutUint32(own[8*at:], uint32(i))
		binary.LittleEndian.PutUint32(own[8*at+4:], math.Float32bits(x[i]))
		l.rest[i] = 0
		at++
	}
	for i, v := range x {
		if max(v, -v) > limit && at < l.k {
			take(i)
		}
	}
	for i, v := range x { // of those equal to the limit the first
		if at == l.k {
			break
		}
		if max(v, -v) == limit {
			take(i)
		}
	}
	all := make([]byte, len(own)*c.Size())
	if err := c.AllGather(own, all); err != nil {
		return err
	}
	clear(x)
	for ; len(all) > 0; all = all[8:] { // in the order of the ranks
		i := binary.LittleEndian.Uint32(all)
		if int(i) >= len(x) {
			return fmt.Errorf("dist: place %d of %d numbers: the ranks do not do the same thing", i, len(x))
		}
		x[i] += math.Float32frombits(binary.LittleEndian.Uint32(all[4:]))
	}
	return nil
}

// kth is the k-th greatest of a, which it reorders (quickselect; Hoare 1961). NaNs are taken for the smallest.
func kth(a []float32, k int) float32 {
	lo, hi := 0, len(a)-1
	for lo < hi {
		p := a[(lo+hi)/2]
		i, j := lo, hi
		for i <= j {
			for a[i] > p {
				i++
			}
			for a[j] < p {
				j--
			}
			if i <= j {
				a[i], a[j] = a[j], a[i]
				i++
				j--
			}
		}
		switch {
		case k-1 <= j:
			hi = j
		case k-1 >= i:
			lo = i
		default:
			return a[k-1]
		}
	}
	return a[k-1]
}

// lowRank sends two thin matrices whose product is near the matrix (PowerSGD; Vogels, Karimireddy & Jaggi, arXiv:1905.13727): P = M·Q, made orthonormal, and Q = Mᵀ·P, which also begins the next
// sum.
type lowRank struct {
	rows, cols, r int
	rest, p, q    []float32
}

// Sum implements Compressor. With M_i the ranks' matrices, x becomes P·Qᵀ for Q = Σ M_iᵀ·P, and rank i keeps M_i - P·Qᵀ/n.
func (l *lowRank) Sum(c *Comm, x []float32) error {
	add(x, l.rest)
	copy(l.rest, x)
	r := l.r
	clear(l.p)
	for i := range l.rows {
		row, out := x[i*l.cols:(i+1)*l.cols], l.p[i*r:(i+1)*r]
		for j, m := range row {
			for k, q := range l.q[j*r : (j+1)*r] {
				out[k] += float32(m * q)
			}
		}
	}
	if err := c.AllReduce(l.p); err != nil {
		return err
	}
	orthonormal(l.p, l.rows, r)
	clear(l.q)
	for i := range l.rows {
		row, p := x[i*l.cols:(i+1)*l.cols], l.p[i*r:(i+1)*r]
		for j, m := range row {
			out := l.q[j*r : (j+1)*r]
			for k, v := range p {
				out[k] += float32(m * v)
			}
		}
	}
	if err := c.AllReduce(l.q); err != nil {
		return err
	}
	share := 1 / float32(c.Size())
	for i := range l.rows {
		p := l.p[i*r : (i+1)*r]
		for j := range l.cols {
			v := float32(0)
			for k, q := range l.q[j*r : (j+1)*r] {
				v += float32(p[k] * q)
			}
			x[i*l.cols+j] = v
			l.rest[i*l.cols+j] -= float32(v * share)
		}
	}
	return nil
}

// orthonormal makes the columns of a [rows, r] orthonormal (modified Gram-Schmidt). A column that is nothing but the others becomes zero.
func orthonormal(a []float32, rows, r int) {
	for k := range r {
		for pass := 0; pass < 2; pass++ {
			for h := range k {
				dot := 0.0
				for i := range rows {
					dot += float64(a[i*r+k]) * float64(a[i*r+h])
				}
				for i := range rows {
					a[i*r+k] -= float32(dot * float64(a[i*r+h]))
				}
			}
		}
		norm := 0.0
		for i := range rows {
			norm += float64(a[i*r+k]) * float64(a[i*r+k])
		}
		scale := 0.0
		if norm > 1e-30 {
			scale = 1 / math.Sqrt(norm)
		}
		for i := range rows {
			a[i*r+k] = float32(float64(a[i*r+k]) * scale)
		}
	}
}
