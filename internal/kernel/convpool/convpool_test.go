package convpool

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// specs are the main network's shapes and awkward ones: rows and columns that the pooling drops, channels that fill no vector,
// one window, panels that overlap, strips of both widths.
var specs = []Spec{
	{N: 2, H: 28, W: 28, Cin: 1, Cout: 32},
	{N: 3, H: 13, W: 13, Cin: 32, Cout: 64},
	{N: 1, H: 13, W: 13, Cin: 32, Cout: 64},
	{N: 19, H: 7, W: 6, Cin: 16, Cout: 24},
	{N: 1, H: 4, W: 4, Cin: 1, Cout: 1},
	{N: 2, H: 5, W: 7, Cin: 3, Cout: 5},
	{N: 1, H: 7, W: 9, Cin: 3, Cout: 17},
	{N: 2, H: 9, W: 8, Cin: 2, Cout: 49},
	{N: 2, H: 8, W: 5, Cin: 24, Cout: 72},
	{N: 1, H: 6, W: 70, Cin: 16, Cout: 80},
	{N: 2, H: 6, W: 10, Cin: 48, Cout: 16},
	{N: 1, H: 9, W: 9, Cin: 64, Cout: 33},
	{N: 1, H: 8, W: 8, Cin: 20, Cout: 12},
	{N: 33, H: 4, W: 5, Cin: 5, Cout: 8},
	{N: 1, H: 10, W: 11, Cin: 128, Cout: 40},
}

func (s Spec) String() string {
	return fmt.Sprintf("%dx%dx%dx%d-%d", s.N, s.H, s.W, s.Cin, s.Cout)
}

// guarded is a slice of n elements between guards, at an address that no vector is aligned to.
type guarded[T float32 | uint8] struct {
	all []T
	s   []T
	g   T
}

const guardLen = 37

func newGuarded[T float32 | uint8](n int, fill, guard T) guarded[T] {
	all := make([]T, n+2*guardLen)
	for i := range all {
		all[i] = guard
	}
	s := all[guardLen : guardLen+n : guardLen+n]
	for i := range s {
		s[i] = fill
	}
	return guarded[T]{all, s, guard}
}

func (g guarded[T]) check(t *testing.T, what string) {
	t.Helper()
	for i := range guardLen {
		if g.all[i] != g.g || g.all[len(g.all)-1-i] != g.g {
			t.Fatalf("%s: written outside of its bounds", what)
		}
	}
}

func random(rng *rand.Rand, n int, scale float64) []float32 {
	g := newGuarded(n, float32(0), -77)
	for i := range g.s {
		g.s[i] = float32(rng.NormFloat64() * scale)
	}
	return g.s
}

// data is a problem with its answers in float64.
type data struct {
	Spec
	x, w, b, dy []float32
	conv        []float64 // [N, OH, OW, Cout] without bias
	mag         []float64 // sums of magnitudes for each
}

func newData(s Spec) *data {
	rng := rand.New(rand.NewPCG(3, uint64(s.SizeX())))
	s.KH, s.KW = 3, 3
	d := &data{Spec: s, x: random(rng, s.SizeX(), 1), w: random(rng, s.SizeW(), 0.5), b: random(rng, s.Cout, 1), dy: random(rng, s.SizeY(), 1)}
	oh, ow := s.H-2, s.W-2
	d.conv, d.mag = make([]float64, s.N*oh*ow*s.Cout), make([]float64, s.N*oh*ow*s.Cout)
	for n := range s.N {
		for y := range oh {
			for x := range ow {
				at := ((n*oh+y)*ow + x) * s.Cout
				for t := range 9 {
					for c := range s.Cin {
						v := float64(d.x[((n*s.H+y+t/3)*s.W+x+t%3)*s.Cin+c])
						for o, f := range d.w[(t*s.Cin+c)*s.Cout:][:s.Cout] {
							d.conv[at+o] += v * float64(f)
							d.mag[at+o] += math.Abs(v * float64(f))
						}
					}
				}
			}
		}
	}
	return d
}

// pixels visits the windows with the places of their four pixels in conv.
func (d *data) pixels(f func(i int, px [4]int)) {
	oh, ow, i := d.H-2, d.W-2, 0
	for n := range d.N {
		for py := range d.PH() {
			for px := range d.PW() {
				for o := range d.Cout {
					var p [4]int
					for k := range p {
						p[k] = ((n*oh+2*py+k/2)*ow+2*px+k%2)*d.Cout + o
					}
					f(i, p)
					i++
				}
			}
		}
	}
}

// winogradMag is for each pixel of a window what Winograd's formulas give with all numbers and coefficients made positive: no
// rounding error can be more than a small multiple of it.
func (d *data) winogradMag() []float64 {
	mag := make([]float64, len(d.conv))
	line := func(a [4]float64) [4]float64 { return [4]float64{a[0] + a[2], a[1] + a[2], a[1] + a[2], a[1] + a[3]} }
	u := make([][16]float64, d.Cin*d.Cout)
	for i := range u {
		g := [3][4]float64{{1, .5, .5, 0}, {0, .5, .5, 0}, {0, .5, .5, 1}}
		for t := range 9 {
			v := math.Abs(float64(d.w[t*len(u)+i]))
			for p := range 16 {
				u[i][p] += v * g[t/3][p/4] * g[t%3][p%4]
			}
		}
	}
	oh, ow := d.H-2, d.W-2
	for n := range d.N {
		for y := 0; y+1 < oh; y += 2 {
			for x := 0; x+1 < ow; x += 2 {
				sums := make([][16]float64, d.Cout)
				for c := range d.Cin {
					var a, b [4][4]float64
					for j := range 4 { // columns of pixels
						var col [4]float64
						for i := range col {
							col[i] = math.Abs(float64(d.x[((n*d.H+y+i)*d.W+x+j)*d.Cin+c]))
						}
						for i, v := range line(col) {
							a[i][j] = v
						}
					}
					for i := range b {
						b[i] = line(a[i])
					}
					for o := range sums {
						for p := range 16 {
							sums[o][p] += b[p/4][p%4] * u[c*d.Cout+o][p]
						}
					}
				}
				for o, m := range sums {
					for k := range 4 {
						v := 0.0
						for i := k / 2; i < k/2+3; i++ {
							for j := k % 2; j < k%2+3; j++ {
								v += m[4*i+j]
							}
						}
						mag[((n*oh+y+k/2)*ow+x+k%2)*d.Cout+o] = v
					}
				}
			}
		}
	}
	return mag
}

// eps is float32's unit roundoff.
const eps = 1.0 / (1 << 24)

func TestForward(t *testing.T) {
	eachLevel(t, func(t *testing.T, s Spec) {
		d := newData(s)
		p := New(d.Spec)
		y := newGuarded(d.SizeY(), float32(math.NaN()), -5)
		idx := newGuarded(d.SizeY(), uint8(99), 0xEE)
		p.Forward(nil, d.x, d.w, d.b, y.s, idx.s)
		y.check(t, "y")
		idx.check(t, "idx")
		mag, n := d.mag, float64(9*d.Cin)
		if p.useWinograd() {
			mag, n = d.winogradMag(), float64(d.Cin+12)
		}
		d.pixels(func(i int, px [4]int) {
			bias := float64(d.b[i%d.Cout])
			best, bound := 0, 0.0
			for k, q := range px {
				if d.conv[q] > d.conv[px[best]] {
					best = k
				}
				bound = max(bound, mag[q])
			}
			bound = (n+1)*eps*bound + eps*math.Abs(bias) // and one addition of the bias
			want := max(0, d.conv[px[best]]+bias)
			if got := float64(y.s[i]); !(math.Abs(got-want) <= bound) {
				t.Fatalf("y[%d] = %v, want %v ± %.2g", i, got, want, bound)
			}
			switch k := idx.s[i]; {
			case k == Dead:
				if want > bound {
					t.Fatalf("idx[%d] is dead, value %v", i, want)
				}
			case k > Dead:
				t.Fatalf("idx[%d] = %d", i, k)
			default:
				if d.conv[px[k]] < d.conv[px[best]]-2*bound || d.conv[px[k]]+bias < -bound || y.s[i] == 0 {
					t.Fatalf("idx[%d] = %d: %v, greatest is %v at %d", i, k, d.conv[px[k]]+bias, want, best)
				}
			}
		})
		// The variants give the same bits: no positions, filters prepared, more threads.
		plain := append([]float32(nil), y.s...)
		positions := append([]uint8(nil), idx.s...)
		fill(y.s)
		p.Forward(nil, d.x, d.w, d.b, y.s, nil)
		same(t, "without positions", y.s, plain)
		for threads := 1; threads <= 3; threads++ {
			pool := par.New(threads)
			fill(y.s)
			p.SetFilter(pool, d.w)
			p.Forward(pool, d.x, nil, d.b, y.s, idx.s)
			same(t, "threads", y.s, plain)
			if string(positions) != string(idx.s) {
				t.Fatal("positions differ between numbers of threads")
			}
			pool.Close()
		}
	})
}

// TestTies: of equal pixels the first is taken, and a greatest pixel of exactly zero is dead.
func TestTies(t *testing.T) {
	eachLevel(t, func(t *testing.T, s Spec) {
		d := newData(s)
		p := New(d.Spec)
		for i := range d.x {
			d.x[i] = 1
		}
		for i := range d.w {
			d.w[i] = float32(i%5) - 2 // sums are exact in either algorithm
		}
		y, idx := make([]float32, d.SizeY()), make([]uint8, d.SizeY())
		clear(d.b)
		p.Forward(nil, d.x, d.w, d.b, y, idx)
		for i, k := range idx {
			want := uint8(0)
			if y[i] <= 0 {
				want = Dead
			}
			if k != want {
				t.Fatalf("idx[%d] = %d, want %d (y = %v)", i, k, want, y[i])
			}
		}
		clear(d.x)
		p.Forward(nil, d.x, d.w, d.b, y, idx)
		for i, k := range idx {
			if k != Dead || y[i] != 0 {
				t.Fatalf("idx[%d] = %d, y = %v for all zeros", i, k, y[i])
			}
		}
	})
}

func TestNaN(t *testing.T) {
	eachLevel(t, func(t *testing.T, s Spec) {
		d := newData(s)
		for i := range d.x {
			d.x[i] = float32(math.NaN())
		}
		y, idx := make([]float32, d.SizeY()), make([]uint8, d.SizeY())
		New(d.Spec).Forward(nil, d.x, d.w, d.b, y, idx)
		for i, v := range y {
			if v == v || idx[i] != Dead {
				t.Fatalf("y[%d] = %v at %d from NaN", i, v, idx[i])
			}
		}
	})
}

func TestBackward(t *testing.T) {
	eachLevel(t, func(t *testing.T, s Spec) {
		for _, deadShare := range []float64{0, 0.3, 1} {
			d := newData(s)
			rng := rand.New(rand.NewPCG(5, 5))
			idx := make([]uint8, d.SizeY())
			for i := range idx {
				idx[i] = uint8(rng.IntN(4))
				if rng.Float64() < deadShare {
					idx[i] = Dead
				}
			}
			// The dense gradient of the convolution's result, then the plain sums over it, with sums of magnitudes.
			g := make([]float64, len(d.conv))
			d.pixels(func(i int, px [4]int) {
				if idx[i] < Dead {
					g[px[idx[i]]] = float64(d.dy[i])
				}
			})
			type pair struct{ v, mag []float64 }
			zero := func(n int) pair { return pair{make([]float64, n), make([]float64, n)} }
			dw, db, dx := zero(d.SizeW()), zero(d.Cout), zero(d.SizeX())
			add := func(p pair, i int, v float64) { p.v[i] += v; p.mag[i] += math.Abs(v) }
			oh, ow := d.H-2, d.W-2
			for i, v := range g {
				if v == 0 {
					continue
				}
				o, x, y, n := i%d.Cout, i/d.Cout%ow, i/d.Cout/ow%oh, i/d.Cout/ow/oh
				add(db, o, v)
				for t := range 9 {
					for c := range d.Cin {
						xi, wi := ((n*d.H+y+t/3)*d.W+x+t%3)*d.Cin+c, (t*d.Cin+c)*d.Cout+o
						add(dw, wi, v*float64(d.x[xi]))
						add(dx, xi, v*float64(d.w[wi]))
					}
				}
			}
			p := New(d.Spec)
			gw, gb, gx := newGuarded(d.SizeW(), float32(math.NaN()), -5), newGuarded(d.Cout, float32(math.NaN()), -5), newGuarded(d.SizeX(), float32(math.NaN()), -5)
			p.BackwardFilter(nil, d.x, idx, d.dy, gw.s, gb.s)
			p.BackwardInput(nil, d.w, idx, d.dy, gx.s)
			for _, c := range []struct {
				name string
				got  guarded[float32]
				want pair
				n    int // most additions
			}{{"dw", gw, dw, d.N * d.PH() * d.PW()}, {"db", gb, db, d.N * d.PH() * d.PW()}, {"dx", gx, dx, 9 * d.Cout}} {
				c.got.check(t, c.name)
				for i, v := range c.got.s {
					if bound := eps * float64(c.n+filterChunks) * c.want.mag[i]; !(math.Abs(float64(v)-c.want.v[i]) <= bound) {
						t.Fatalf("%s[%d] = %v, want %v ± %.2g (dead share %v)", c.name, i, v, c.want.v[i], bound, deadShare)
					}
				}
			}
			w1, b1, x1 := append([]float32(nil), gw.s...), append([]float32(nil), gb.s...), append([]float32(nil), gx.s...)
			for threads := 1; threads <= 3; threads++ {
				pool := par.New(threads)
				fill(gw.s)
				fill(gb.s)
				fill(gx.s)
				p.BackwardFilter(pool, d.x, idx, d.dy, gw.s, gb.s)
				p.BackwardInput(pool, d.w, idx, d.dy, gx.s)
				same(t, "dw", gw.s, w1)
				same(t, "db", gb.s, b1)
				same(t, "dx", gx.s, x1)
				pool.Close()
			}
		}
	})
}

func TestAllocatesNothing(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	eachLevel(t, func(t *testing.T, s Spec) {
		d := newData(s)
		p := New(d.Spec)
		y, idx := make([]float32, d.SizeY()), make([]uint8, d.SizeY())
		dw, db, dx := make([]float32, d.SizeW()), make([]float32, d.Cout), make([]float32, d.SizeX())
		if a := allocs.PerRun(func() {
			p.Forward(pool, d.x, d.w, d.b, y, idx)
			p.BackwardFilter(pool, d.x, idx, d.dy, dw, db)
			p.BackwardInput(pool, d.w, idx, d.dy, dx)
		}); a != 0 {
			t.Fatalf("%v allocations a step", a)
		}
	})
}

func TestSupported(t *testing.T) {
	for _, c := range []struct {
		s    Spec
		want bool
	}{
		{Spec{32, 28, 28, 1, 32, 3, 3}, true},
		{Spec{32, 13, 13, 32, 64, 3, 3}, true},
		{Spec{32, 13, 13, 32, 64, 5, 5}, false},
		{Spec{32, 3, 13, 32, 64, 3, 3}, false},
		{Spec{0, 13, 13, 32, 64, 3, 3}, false},
		{Spec{1, 13, 13, 20, 64, 3, 3}, false},
		{Spec{1, 1 << 20, 1 << 20, 1, 64, 3, 3}, false},
	} {
		if got := Supported(c.s); got != c.want {
			t.Errorf("Supported(%+v) = %v", c.s, got)
		}
	}
}

func fill(s []float32) {
	for i := range s {
		s[i] = float32(math.NaN())
	}
}

func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: element %d is %v, was %v", what, i, got[i], want[i])
		}
	}
}

func eachLevel(t *testing.T, f func(t *testing.T, s Spec)) {
	for _, l := range isa.Levels() {
		for _, s := range specs {
			t.Run(fmt.Sprintf("%v/%v", l, s), func(t *testing.T) {
				defer isa.Use(l)()
				s.KH, s.KW = 3, 3
				f(t, s)
			})
		}
	}
}
