package qgemm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/internal/race"
)

// The matrices of winograd.go but for G, for four results and for two.
var (
	winoBytePoints = [2][][]int{
		{{4, 0, -5, 0, 1, 0}, {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0}, {0, 4, 0, -5, 0, 1}, {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}},
		{{4, 0, -4, 0}, {0, 3, 3, 0}, {0, -3, 3, 0}, {0, -4, 0, 4}},
	}
	winoResults = [2][][]int{
		{{1, -1, -1, 0, 1, 1}, {0, -1, 1, 0, 2, -2}, {0, -1, -1, 0, 4, 4}, {0, -1, 1, 4, 8, -8}},
		{{1, 1, 1, 0}, {0, 1, -1, 1}},
	}
)

// plainGo is what plain Go computes of rows or images a: as bytes and as floats.
func plainGo(s Spec, b []int8, scale, offset []float32, a []uint8) ([]uint8, []float32) {
	defer isa.Use(isa.Portable)()
	p := build(s, false, false)
	p.Set(b, scale, offset)
	y, yf := make([]uint8, s.M*s.N), make([]float32, s.M*s.N)
	p.Run(nil, y, a)
	p.RunFloat(nil, yf, a)
	return y, yf
}

// 24·y = Aᵀ[(G g) ⊙ (Bᵀ d)] for all g and d, and on both axes neither bytes nor weights leave 16 bits at a point.
func TestWinogradMatrices(t *testing.T) {
	for kind, b := range winoBytePoints {
		a := winoResults[kind]
		for m := range a {
			for tap := range winoFilter {
				for pixel := range b[0] {
					sum := 0
					for p := range b {
						sum += a[m][p] * int(pointFilter[p][tap]) * b[p][pixel]
					}
					want := 0
					if pixel == m+tap {
						want = 24
					}
					if sum != want {
						t.Errorf("%d results: result %d has %d times tap %d on pixel %d, want %d", len(a), m, sum, tap, pixel, want)
					}
				}
			}
		}
	}
	// The greatest and least of Σ l[i]·l'[j]·x[i][j], x from lo to hi.
	ends := func(l, r []int, lo, hi int) (least, greatest int) {
		for _, x := range l {
			for _, y := range r {
				least += min(x*y*lo, x*y*hi)
				greatest += max(x*y*lo, x*y*hi)
			}
		}
		return least, greatest
	}
	var g [][]int
	for _, row := range pointFilter {
		g = append(g, []int{int(row[0]), int(row[1]), int(row[2])})
	}
	rows := append(slices.Clone(winoBytePoints[0]), winoBytePoints[1]...)
	bytes, weights := 0, 0
	for _, l := range rows {
		for _, r := range rows {
			least, greatest := ends(l, r, 0, 255)
			bytes = max(bytes, -least, greatest)
		}
	}
	for _, l := range g {
		for _, r := range g {
			least, greatest := ends(l, r, -128, 127)
			weights = max(weights, -least, greatest)
		}
	}
	if bytes != 17340 || weights != 18432 {
		t.Errorf("bytes become %d at most and weights %d, want 17340 and 18432, as the comment says", bytes, weights)
	}
}

// Sums are those of plain Go, whatever the sizes, also where products and sums at points are as large as can be.
func TestWinograd(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	defer isa.Use(isa.AVX2)()
	if current() != avx2 {
		t.Skip("the processor has no AVX2")
	}
	for i, size := range []struct{ images, h, w, c, n, pad int }{
		{1, 3, 3, 8, 8, 0}, {1, 4, 4, 8, 16, 0}, {2, 5, 6, 3, 24, 0}, {1, 6, 5, 17, 8, 0}, {3, 7, 9, 16, 40, 0}, {2, 8, 8, 32, 72, 1}, {5, 13, 13, 16, 64, 0},
		{4, 7, 7, 33, 136, 1}, {1, 1, 1, 8, 8, 1}, {2, 2, 3, 8, 8, 1}, {9, 12, 11, 16, 16, 2}, {1, 40, 37, 16, 8, 1}, {40, 4, 4, 114, 8, 0}, {2, 6, 50, 1, 8, 0}, {1, 11, 11, 16, 256, 0},
	} {
		if race.Enabled && i%4 != 0 {
			continue
		}
		c := Conv{H: size.h, W: size.w, C: size.c, KH: 3, KW: 3, OH: size.h + 2*size.pad - 2, OW: size.w + 2*size.pad - 2, StrideH: 1, StrideW: 1, PadTop: size.pad, PadLeft: size.pad, Zero: uint8(r.IntN(256))}
		if i%3 == 1 && size.pad > 0 { // more in front than behind
			c.OH, c.OW = c.OH-1, c.OW-1
		}
		for _, extreme := range []bool{false, true} {
			x, b := bytesU(r, size.images*c.H*c.W*c.C), bytes8(r, 9*c.C*size.n)
			if extreme {
				for i := range x {
					x[i] = 255 * uint8(r.IntN(2))
				}
				for i := range b {
					switch j := i % size.n; {
					case j%3 == 0:
						b[i] = -128
					case j%3 == 1:
						b[i] = int8(255*r.IntN(2) - 128)
					default:
						b[i] = 127
					}
				}
				if i%2 == 0 {
					for i := range x {
						x[i] = 255
					}
					c.Zero = 255
				}
			}
			scale, offset := make([]float32, size.n), make([]float32, size.n)
			for j := range scale {
				scale[j], offset[j] = float32(1+j%5)/float32(1500*c.C), float32(5*j)
			}
			for _, pool := range []bool{false, true} {
				s := Spec{M: size.images * c.OH * c.OW, N: size.n, K: 9 * c.C, Conv: &c, Pool: pool, Low: 3, ReLU: i%2 == 0}
				if pool {
					s.M = size.images * (c.OH / 2) * (c.OW / 2)
				}
				if s.M == 0 {
					continue
				}
				want, wantF := plainGo(s, b, scale, offset, x)
				for threads := 1; threads <= 3; threads++ {
					p := newWinograd(s)
					p.Set(b, scale, offset)
					if p.algorithm.(*winograd).instead != nil {
						t.Fatalf("%+v: sums count as too large", size)
					}
					y, yf := make([]uint8, s.M*s.N+1), make([]float32, s.M*s.N+1)
					y[s.M*s.N], yf[s.M*s.N] = 77, 77
					workers := par.New(threads)
					for range 2 {
						p.Run(workers, y, x)
						p.RunFloat(workers, yf, x)
					}
					workers.Close()
					if y[s.M*s.N] != 77 || yf[s.M*s.N] != 77 {
						t.Fatalf("%+v, pool %v: wrote behind the end", size, pool)
					}
					if !slices.Equal(y[:s.M*s.N], want) || !slices.Equal(yf[:s.M*s.N], wantF) {
						t.Fatalf("%+v, pool %v, extreme %v, %d threads: other results than plain Go", size, pool, extreme, threads)
					}
				}
			}
		}
	}
}

// With AVX2 it is taken from few channels on, with AVX-VNNI where there are many, and results enough; with neither on wider vectors nor in plain Go.
func TestWinogradIsChosen(t *testing.T) {
	for _, l := range isa.ByteLevels() {
		restore := isa.Use(l)
		for _, s := range []struct {
			images, size, c, n int
			avx2, avxvnni      bool
		}{{1, 4, 4, 16, false, false}, {32, 13, 8, 32, true, false}, {32, 13, 16, 16, true, false}, {1, 4, 64, 64, true, false}, {4, 13, 32, 64, true, true}, {1, 32, 64, 64, true, true}, {8, 7, 512, 512, true, false}} {
			c := Conv{H: s.size, W: s.size, C: s.c, KH: 3, KW: 3, OH: s.size, OW: s.size, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1}
			for _, pool := range []bool{false, true} {
				spec := Spec{M: s.images * s.size * s.size, N: s.n, K: 9 * s.c, Conv: &c, Pool: pool}
				if pool {
					spec.M = s.images * (s.size / 2) * (s.size / 2)
				}
				want := l == isa.AVX2 && s.avx2 || l == isa.AVXVNNI && s.avxvnni
				p := New(spec)
				if got := p.how() == "winograd"; got != want {
					t.Errorf("%v, %+v, pool %v: %v, want %v", l, s, pool, got, want)
				}
				if (p.Executed() > 0) != want {
					t.Errorf("%v, %+v, pool %v: %d executed", l, s, pool, p.Executed())
				}
			}
		}
		restore()
	}
}

// Where weights are so great that 64 times a sum may leave 32 bits, another way computes it, and after smaller weights this one again.
func TestWinogradOfGreatWeights(t *testing.T) {
	for _, l := range []isa.Level{isa.AVX2, isa.AVXVNNI} {
		if !isa.Has(l) {
			t.Skipf("the processor has no %v", l)
		}
		t.Run(l.String(), func(t *testing.T) {
			defer isa.Use(l)()
			testWinogradOfGreatWeights(t)
		})
	}
}

func testWinogradOfGreatWeights(t *testing.T) {
	const n = 8
	c := Conv{H: 6, W: 6, C: 130, KH: 3, KW: 3, OH: 4, OW: 4, StrideH: 1, StrideW: 1}
	p := newWinograd(Spec{M: 16, N: n, K: 9 * c.C, Conv: &c})
	own := p.Bytes()
	x, ones := make([]uint8, c.H*c.W*c.C), make([]float32, n)
	for i := range x {
		x[i] = 255
	}
	for j := range ones {
		ones[j] = 1
	}
	// 131586 is the most that is taken, above zero or below: 255·131586 = 2^25 - 2.
	for _, weights := range []struct {
		sum     int
		another bool
	}{{131586, false}, {131587, true}, {-131586, false}, {-131587, true}, {148590, true}, {100, false}} {
		b := make([]int8, 9*c.C*n)
		for rest, i := weights.sum, 3; rest != 0; i += n { // all in column 3
			v := max(-128, min(127, rest))
			b[i], rest = int8(v), rest-v
		}
		p.Set(b, ones, ones)
		if got := p.algorithm.(*winograd).instead != nil; got != weights.another || (p.Bytes() > own) != got {
			t.Errorf("weights of %d: another way: %v, want %v; %d bytes, without %d", weights.sum, got, weights.another, p.Bytes(), own)
		}
		y := make([]float32, 16*n)
		p.RunFloat(nil, y, x)
		for i, v := range y {
			want := float32(1)
			if i%n == 3 {
				want += float32(255 * weights.sum)
			}
			if v != want {
				t.Fatalf("weights of %d: column %d has %v, want %v", weights.sum, i%n, v, want)
			}
		}
	}
}

func TestWinogradAllocates(t *testing.T) {
	defer isa.Use(isa.AVX2)()
	if current() != avx2 {
		t.Skip("the processor has no AVX2")
	}
	c := Conv{H: 11, W: 11, C: 16, KH: 3, KW: 3, OH: 11, OW: 11, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1}
	s := Spec{M: 2 * 121, N: 16, K: 9 * c.C, Conv: &c}
	p := newWinograd(s)
	x, y := make([]uint8, 2*121*16), make([]uint8, s.M*s.N)
	pool := par.New(2)
	defer pool.Close()
	if n := allocs.PerRun(func() { p.Run(pool, y, x) }); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}

// BenchmarkWinograd is convolutions by channels and filters, one image and many, beside the direct sum. It shows from how many on this is faster.
func BenchmarkWinograd(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, s := range [][5]int{{1, 13, 32, 64, 0}, {32, 13, 32, 64, 0}, {32, 13, 8, 8, 0}, {32, 13, 8, 16, 0}, {32, 13, 4, 16, 0}, {32, 32, 8, 8, 1}, {32, 7, 512, 512, 1}, {1, 7, 512, 512, 1}, {1, 56, 64, 64, 1}, {1, 32, 64, 64, 1}, {1, 4, 64, 64, 1}, {32, 2, 64, 64, 1}, {32, 1, 64, 64, 1}} {
		c := Conv{H: s[1], W: s[1], C: s[2], KH: 3, KW: 3, OH: s[1] - 2 + 2*s[4], OW: s[1] - 2 + 2*s[4], StrideH: 1, StrideW: 1, PadTop: s[4], PadLeft: s[4]}
		for _, pool := range []bool{false, true} {
			spec := Spec{M: s[0] * c.OH * c.OW, N: s[3], K: 9 * c.C, Conv: &c, Pool: pool}
			if pool {
				spec.M = s[0] * (c.OH / 2) * (c.OW / 2)
			}
			if spec.M == 0 {
				continue
			}
			x, w, ones := bytesU(r, s[0]*c.H*c.W*c.C), bytes8(r, spec.K*spec.N), make([]float32, spec.N)
			for i := range w {
				w[i] /= 4
			}
			y := make([]uint8, spec.M*spec.N)
			for _, p := range plans(spec) {
				p.Set(w, ones, ones)
				b.Run(fmt.Sprintf("%dx%dx%d/%d-%d/pad%d/pool=%v/%s", s[0], s[1], s[1], s[2], s[3], s[4], pool, p.how()), func(b *testing.B) {
					for b.Loop() {
						p.Run(nil, y, x)
					}
				})
			}
		}
	}
}
