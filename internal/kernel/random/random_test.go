package random

import (
	"fmt"
	"math"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// TestKnownAnswers holds the generator to the vectors that its authors publish with Random123.
func TestKnownAnswers(t *testing.T) {
	for _, c := range []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, [2]uint32{0xffffffff, 0xffffffff}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0}, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		s := Source{uint64(c.key[1])<<32 | uint64(c.key[0]), uint64(c.counter[3])<<32 | uint64(c.counter[2])}
		if got := s.block(uint64(c.counter[1])<<32 | uint64(c.counter[0])); got != c.want {
			t.Errorf("%08x under %08x: %08x, want %08x", c.counter, c.key, got, c.want)
		}
	}
}

// TestAnyPiece: whatever piece of a sequence is asked for, on any instruction set, its values are those of their indices.
func TestAnyPiece(t *testing.T) {
	s := Source{0x0123456789abcdef, 0xfedcba9876543210}
	for _, l := range isa.Levels() {
		defer isa.Use(l)()
		for n := range 150 {
			for _, first := range []uint64{0, 1, 2, 3, 5, 1<<34 - 7, 1<<34 - 64, 1 << 40} { // block numbers pass 2^32
				w, u := make([]uint32, n+2), make([]float32, n+2)
				w[n], u[n] = 77, 77
				s.Words(w[:n], first)
				s.Uniform(u[:n], first)
				for i := range n {
					word := s.Word(first + uint64(i))
					if w[i] != word || u[i] != float32(float64(word>>8)/(1<<24)) {
						t.Fatalf("%v: n=%d first=%d [%d]: %08x, %g; want %08x", l, n, first, i, w[i], u[i], word)
					}
				}
				if w[n] != 77 || u[n] != 77 {
					t.Fatalf("%v: n=%d: wrote past the end", l, n)
				}
			}
		}
	}
}

func TestQuantile(t *testing.T) {
	for i := range 200001 {
		p := 0x1p-33 + (1-0x1p-32)*float64(i)/200000
		if want := math.Sqrt2 * math.Erfinv(2*p-1); math.Abs(quantile(p)-want) > 1e-9*(1+math.Abs(want)) {
			t.Fatalf("quantile(%g) = %.17g, want %.17g", p, quantile(p), want)
		}
		if quantile(p) != -quantile(1-p) && math.Abs(quantile(p)+quantile(1-p)) > 1e-6 {
			t.Fatalf("quantile is not odd at %g", p)
		}
	}
	for x := 0.5; x >= 0x1p-33; x *= 0.99 {
		if math.Abs(log(x)-math.Log(x)) > 4e-16*math.Abs(math.Log(x)) {
			t.Fatalf("log(%g) = %.17g, want %.17g", x, log(x), math.Log(x))
		}
	}
}

// TestMoments: mean, variance, skewness and kurtosis of each distribution, within 5 standard errors (a right generator fails on one seed in
// some 10^5; the seed is fixed).
func TestMoments(t *testing.T) {
	const n = 1 << 20
	x := make([]float32, n)
	// The variance of a normal variable cut off at ±2, and its fourth moment.
	phi2 := math.Exp(-2) / math.Sqrt(2*math.Pi)
	z := math.Erf(math.Sqrt2)
	v := 1 - 4*phi2/z
	m4 := 3*v - 16*phi2/z
	for _, c := range []struct {
		spec           Spec
		mean, variance float64
		fourth         float64 // central moment
	}{
		{Spec{UniformKind, 0, 1, n}, 0.5, 1. / 12, 1. / 80},
		{Spec{UniformKind, -3, 1, n}, -1, 16. / 12, 256. / 80},
		{Spec{NormalKind, 2, 3, n}, 2, 9, 3 * 81},
		{Spec{TruncatedNormalKind, 0, 1, n}, 0, v, m4},
		{Spec{DropoutKind, 0.8, 1.25, n}, 1, 0.25, 0.8*math.Pow(0.25, 4) + 0.2},
	} {
		New(c.spec).Run(nil, x, Source{Key: 42})
		var mean, m2, m3, m4 float64
		for _, v := range x {
			mean += float64(v) / n
		}
		for _, v := range x {
			d := float64(v) - c.mean
			m2 += d * d / n
			m3 += d * d * d / n
			m4 += d * d * d * d / n
		}
		se := math.Sqrt(c.variance / n)
		if math.Abs(mean-c.mean) > 5*se {
			t.Errorf("%+v: mean %g, want %g", c.spec, mean, c.mean)
		}
		if math.Abs(m2-c.variance) > 5*math.Sqrt((c.fourth-c.variance*c.variance)/n) {
			t.Errorf("%+v: variance %g, want %g", c.spec, m2, c.variance)
		}
		if c.spec.Kind != DropoutKind && math.Abs(m3) > 5*math.Sqrt(15*math.Pow(c.variance, 3)/n) {
			t.Errorf("%+v: skewness %g", c.spec, m3)
		}
		if math.Abs(m4-c.fourth) > 0.02*c.fourth {
			t.Errorf("%+v: fourth moment %g, want %g", c.spec, m4, c.fourth)
		}
	}
}

func TestBernoulli(t *testing.T) {
	s := Source{Key: 7}
	for _, p := range []float64{-1, 0, 0x1p-33, 0.3, 0.5, 1, 2} {
		m, d := make([]uint8, 10001), make([]float32, 10001)
		s.Bernoulli(m, 3, p)
		s.Dropout(d, 3, p, 2)
		ones := 0
		for i, b := range m {
			want := uint8(0)
			if float64(s.Word(3+uint64(i))) < p*(1<<32) {
				want = 1
			}
			if b != want || d[i] != 2*float32(want) {
				t.Fatalf("p=%g [%d] = %d, %g; want %d", p, i, b, d[i], want)
			}
			ones += int(b)
		}
		if q := min(max(p, 0), 1); math.Abs(float64(ones)-q*1e4) > 5*math.Sqrt(q*(1-q)*1e4)+2 {
			t.Errorf("p=%g: %d ones of 10001", p, ones)
		}
	}
}

func TestSameOnAnyThreads(t *testing.T) {
	const n = 3*chunkLen + 77
	for kind := range numKinds {
		var first []float32
		for _, l := range isa.Levels() {
			for threads := range 4 {
				restore := isa.Use(l)
				var pool *par.Pool
				if threads > 0 {
					pool = par.New(threads)
				}
				x := make([]float32, n)
				p := New(Spec{kind, 0.3, 1.7, n})
				p.Run(pool, x, Source{1, 2})
				if a := allocs.PerRun(func() { p.Run(pool, x, Source{1, 2}) }); a != 0 {
					t.Errorf("kind %d: %v allocations a run", kind, a)
				}
				pool.Close()
				restore()
				if first == nil {
					first = x
				}
				for i := range x {
					if math.Float32bits(x[i]) != math.Float32bits(first[i]) {
						t.Fatalf("kind %d, %v, %d threads: [%d] = %g, first %g", kind, l, threads, i, x[i], first[i])
					}
				}
			}
		}
	}
}

func BenchmarkRandom(b *testing.B) {
	for _, l := range isa.Levels() {
		for kind := range numKinds {
			b.Run(fmt.Sprint(l, "/", kind), func(b *testing.B) {
				defer isa.Use(l)()
				const n = 1 << 13
				x := make([]float32, n)
				p := New(Spec{kind, 0, 1, n})
				for b.Loop() {
					p.Run(nil, x, Source{1, 2})
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/value")
			})
		}
	}
}
