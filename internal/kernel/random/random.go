// Package random makes counter-based random numbers: the value at index i depends on (key, counter, i) alone, so it does not matter who
// computes it, when, or in which order.
//
// The generator is Philox4x32-10 of J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011: ten rounds map a 128-bit counter to 128 random bits, under a 64-bit key. The word at index i is word i mod 4 of the block
// whose counter has the 64-bit number i/4 in its low half and Source.Counter in its high half.
//
// All values are the same bits on every CPU. Words and masks are integer arithmetic; a uniform value is a product by a power of two, which
// is exact. Normal values are float64 arithmetic in Go with no step that a compiler may fuse, by inverting the distribution, so that each
// takes one word.
//
//go:generate go run -C ../vec/_asm ./random -pkg random -out ../../random/random_amd64.s -stubs ../../random/stubs_amd64.go
package random

import (
	"math"
	"math/bits"

	"github.com/jouleml/joule/internal/par"
)

// Source names a sequence of 2^66 words.
type Source struct{ Key, Counter uint64 }

// The constants of the paper: multipliers, and what each round adds to the keys (the golden ratio and √3-1).
const (
	mul0, mul1   = 0xd2511f53, 0xcd9e8d57
	weyl0, weyl1 = 0x9e3779b9, 0xbb67ae85
	rounds       = 10
)

// Constants of the generator for those who write it in another language.
const (
	Mul0, Mul1   = mul0, mul1
	Weyl0, Weyl1 = weyl0, weyl1
	Rounds       = rounds
)

// Quantile gives the coefficients of the rational functions of the normal distribution's inverse, constant first: numerator and denominator for the middle, and for the tails.
func Quantile() (a, b, c, d [8]float64) { return ppndA, ppndB, ppndC, ppndD }

// block is the four words of a block.
func (s Source) block(number uint64) [4]uint32 {
	c := [4]uint32{uint32(number), uint32(number >> 32), uint32(s.Counter), uint32(s.Counter >> 32)}
	k0, k1 := uint32(s.Key), uint32(s.Key>>32)
	for range rounds {
		hi0, lo0 := bits.Mul32(mul0, c[0])
		hi1, lo1 := bits.Mul32(mul1, c[2])
		c = [4]uint32{hi1 ^ c[1] ^ k0, lo1, hi0 ^ c[3] ^ k1, lo0}
		k0, k1 = k0+weyl0, k1+weyl1
	}
	return c
}

// Word is the word at index i.
func (s Source) Word(i uint64) uint32 { return s.block(i / 4)[i%4] }

// keys are the round keys, as the assembly wants them.
func (s Source) keys() (k [2 * rounds]uint64) {
	k0, k1 := uint32(s.Key), uint32(s.Key>>32)
	for i := range rounds {
		k[2*i], k[2*i+1] = uint64(k0), uint64(k1)
		k0, k1 = k0+weyl0, k1+weyl1
	}
	return k
}

// Words sets dst[j] to the word at index first+j.
func (s Source) Words(dst []uint32, first uint64) {
	for len(dst) > 0 && first%4 != 0 {
		dst[0] = s.Word(first)
		dst, first = dst[1:], first+1
	}
	keys := s.keys()
	done := words(dst, first/4, s.Counter, &keys)
	dst, first = dst[done:], first+uint64(done)
	for ; len(dst) > 0; first += 4 {
		b := s.block(first / 4)
		dst = dst[copy(dst, b[:]):]
	}
}

// Uniform sets dst[j] to a number in [0, 1): the upper 24 bits of the word at index first+j, times 2^-24.
func (s Source) Uniform(dst []float32, first uint64) {
	for len(dst) > 0 && first%4 != 0 {
		dst[0] = unit(s.Word(first))
		dst, first = dst[1:], first+1
	}
	keys := s.keys()
	done := uniform(dst, first/4, s.Counter, &keys)
	dst, first = dst[done:], first+uint64(done)
	for ; len(dst) > 0; first += 4 {
		b := s.block(first / 4)
		n := min(4, len(dst))
		for i := range n {
			dst[i] = unit(b[i])
		}
		dst = dst[n:]
	}
}

func unit(w uint32) float32 { return float32(w>>8) * (1.0 / (1 << 24)) }

// batch is how many words are made at a time where they are turned into something else.
const batch = 256

// next makes the words for the beginning of the n values from index first, as many as fit.
func (s Source) next(buf *[batch]uint32, n int, first uint64) []uint32 {
	w := buf[:min(batch, n)]
	s.Words(w, first)
	return w
}

// Normal sets dst[j] to mean + deviation·z where z, of the standard normal distribution, is the quantile at (w + 1/2)/2^32 for the
// word w at index first+j: |z| is below 6.4.
func (s Source) Normal(dst []float32, first uint64, mean, deviation float64) {
	var buf [batch]uint32
	for len(dst) > 0 {
		ws := s.next(&buf, len(dst), first)
		for i, w := range ws {
			dst[i] = float32(mean + float64(deviation*quantile((float64(w)+0.5)*(1.0/(1<<32)))))
		}
		dst, first = dst[len(ws):], first+uint64(len(ws))
	}
}

// TruncatedNormal is Normal with |z| below 2, as Keras's initialisers have it: values beyond are not there, not moved to the border.
func (s Source) TruncatedNormal(dst []float32, first uint64, mean, deviation float64) {
	const below = 0.022750131948179195 // the distribution function at -2
	var buf [batch]uint32
	for len(dst) > 0 {
		ws := s.next(&buf, len(dst), first)
		for i, w := range ws {
			p := below + float64((1-2*below)*((float64(w)+0.5)*(1.0/(1<<32))))
			dst[i] = float32(mean + float64(deviation*quantile(p)))
		}
		dst, first = dst[len(ws):], first+uint64(len(ws))
	}
}

// threshold is what words must be below, for probability p.
func threshold(p float64) uint64 { return uint64(math.Ceil(min(max(p, 0), 1) * (1 << 32))) }

// Bernoulli sets dst[j] to 1 with probability p, else 0: 1 where the word at index first+j is below p·2^32.
func (s Source) Bernoulli(dst []uint8, first uint64, p float64) {
	below := threshold(p)
	var buf [batch]uint32
	for len(dst) > 0 {
		ws := s.next(&buf, len(dst), first)
		for i, w := range ws {
			// The difference of two numbers below 2^33 is negative, and its sign bit set, where w < below.
			dst[i] = uint8((uint64(w) - below) >> 63)
		}
		dst, first = dst[len(ws):], first+uint64(len(ws))
	}
}

// Dropout sets dst[j] to scale where Bernoulli has 1, else 0.
func (s Source) Dropout(dst []float32, first uint64, p float64, scale float32) {
	below := threshold(p)
	choice := [2]float32{0, scale}
	var buf [batch]uint32
	for len(dst) > 0 {
		ws := s.next(&buf, len(dst), first)
		for i, w := range ws {
			dst[i] = choice[(uint64(w)-below)>>63]
		}
		dst, first = dst[len(ws):], first+uint64(len(ws))
	}
}

// quantile inverts the normal distribution function for p in [2^-33, 1-2^-33], to about 1e-16: PPND16 of M. J. Wichura, "Algorithm AS 241",
// Applied Statistics 37 (1988). Conversions around products keep compilers from fusing them with sums.
func quantile(p float64) float64 {
	q := p - 0.5
	if math.Abs(q) <= 0.425 {
		r := 0.180625 - float64(q*q)
		return q * horner(r, &ppndA) / horner(r, &ppndB)
	}
	r := math.Sqrt(-log(min(p, 1-p))) - 1.6
	z := horner(r, &ppndC) / horner(r, &ppndD)
	if q < 0 {
		return -z
	}
	return z
}

var (
	ppndA = [8]float64{3.3871328727963666080e0, 1.3314166789178437745e+2, 1.9715909503065514427e+3, 1.3731693765509461125e+4,
		4.5921953931549871457e+4, 6.7265770927008700853e+4, 3.3430575583588128105e+4, 2.5090809287301226727e+3}
	ppndB = [8]float64{1, 4.2313330701600911252e+1, 6.8718700749205790830e+2, 5.3941960214247511077e+3,
		2.1213794301586595867e+4, 3.9307895800092710610e+4, 2.8729085735721942674e+4, 5.2264952788528545610e+3}
	ppndC = [8]float64{1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
		1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4}
	ppndD = [8]float64{1, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
		1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9}
)

func horner(x float64, c *[8]float64) float64 {
	s := c[7]
	for i := 6; i >= 0; i-- {
		s = float64(s*x) + c[i]
	}
	return s
}

// log is the natural logarithm for x in [2^-33, 1/2], with no fused steps (package math's may be fused): with x = m·2^e and s = (m-1)/(m+1),
// log m = 2s·(1 + s²/3 + s⁴/5 + …).
func log(x float64) float64 {
	m, e := math.Frexp(x)
	if m < math.Sqrt2/2 {
		m, e = 2*m, e-1
	}
	s := (m - 1) / (m + 1)
	z := float64(s * s)
	sum := 0.0
	for k := 25; k >= 1; k -= 2 {
		sum = float64(sum*z) + 1/float64(k)
	}
	return float64(2*s*sum) + float64(float64(e)*math.Ln2)
}

// Kind names what a plan fills with.
type Kind uint8

// The kinds. A and B of a Spec are the two parameters that each says.
const (
	UniformKind         Kind = iota // A + u·(B - A), u in [0, 1)
	NormalKind                      // mean A, deviation B
	TruncatedNormalKind             // mean A, deviation B
	DropoutKind                     // B with probability A, else 0
	numKinds
)

// Spec describes an array of N random float32.
type Spec struct {
	Kind Kind
	A, B float64
	N    int
}

// chunkLen is how many values make a chunk of work; a multiple of every group.
const chunkLen = 8192

// Plan fills an array on several threads. It must not run twice at the same time.
type Plan struct {
	spec   Spec
	source Source
	dst    []float32
}

// New plans. It panics on an unknown kind or a negative size.
func New(s Spec) *Plan {
	if s.Kind >= numKinds || s.N < 0 {
		panic("random: bad spec")
	}
	return &Plan{spec: s}
}

// Run sets dst[i] from the word at index i of the source, for i < N. It panics if dst is too short.
func (p *Plan) Run(pool *par.Pool, dst []float32, s Source) {
	if len(dst) < p.spec.N {
		panic("random: slice shorter than the spec says")
	}
	p.dst, p.source = dst[:p.spec.N], s
	pool.Run((p.spec.N+chunkLen-1)/chunkLen, p)
	p.dst = nil
}

// Chunk fills some values; it is for package par.
func (p *Plan) Chunk(i, _ int) {
	dst, first := p.dst[i*chunkLen:min((i+1)*chunkLen, len(p.dst))], uint64(i*chunkLen)
	s := p.spec
	switch s.Kind {
	case UniformKind:
		p.source.Uniform(dst, first)
		if s.A != 0 || s.B != 1 {
			low, width := float32(s.A), float32(s.B-s.A)
			for j, u := range dst {
				dst[j] = low + float32(u*width)
			}
		}
	case NormalKind:
		p.source.Normal(dst, first, s.A, s.B)
	case TruncatedNormalKind:
		p.source.TruncatedNormal(dst, first, s.A, s.B)
	case DropoutKind:
		p.source.Dropout(dst, first, s.A, float32(s.B))
	}
}
