package wgemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// random weights [N, K] of a spec in both forms: values, and bytes as they are stored; half of them at the ends of their range.
func random(r *rand.Rand, s Spec) (values []int32, stored []uint8) {
	top := 1<<(s.Bits-1) - 1
	row := s.K
	if s.Bits == 4 {
		row = (s.K + 1) / 2
	}
	stored = make([]uint8, s.N*row)
	for n := range s.N {
		for k := range s.K {
			v := r.IntN(2*top+1) - top
			if r.IntN(2) == 0 {
				v = top
			}
			values = append(values, int32(v))
			if s.Bits == 8 {
				stored[n*row+k] = uint8(v)
			} else {
				stored[n*row+k/2] |= uint8(v+8) << (4 * (k % 2))
			}
		}
	}
	return values, stored
}

// want is the formula of the package's comment.
func want(s Spec, x []float32, w []int32, scale []float32) []float32 {
	y := make([]float32, s.M*s.N)
	for m := range s.M {
		for g := range s.Groups() {
			lo, hi := g*s.group(), min((g+1)*s.group(), s.K)
			top := float32(0)
			for _, v := range x[m*s.K+lo : m*s.K+hi] {
				top = max(top, float32(math.Abs(float64(v))))
			}
			if top == 0 {
				continue
			}
			for n := range s.N {
				acc := int64(0)
				for k := lo; k < hi; k++ {
					acc += int64(math.RoundToEven(float64(float32(x[m*s.K+k]*(127/top))))) * int64(w[n*s.K+k])
				}
				y[m*s.N+n] += float32(float32(acc) * float32(scale[n*s.Groups()+g]*(top/127)))
			}
		}
	}
	return y
}

// Results are those of the formula to the last bit, on every instruction set and for any number of threads; nothing saturates.
func TestProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range []Spec{
		{M: 1, N: 1, K: 1}, {M: 1, N: 64, K: 64}, {M: 33, N: 47, K: 200, Group: 128}, {M: 530, N: 70, K: 96}, {M: 2, N: 33, K: 100, Group: 32}, {M: 7, N: 65, K: 131, Group: 64}, {M: 13, N: 16, K: 1024}, {M: 100, N: 40, K: 72, Group: 24}, {M: 3, N: 300, K: 512, Group: 128},
	} {
		for _, bits := range []int{8, 4} {
			s.Bits = bits
			values, stored := random(r, s)
			x, scale := make([]float32, s.M*s.K), make([]float32, s.N*s.Groups())
			for i := range x {
				if x[i] = float32(r.NormFloat64()); i%3 == 0 {
					x[i] = 4 // many at the end of their range
				}
			}
			clear(x[:min(s.K, 24)])
			for i := range scale {
				scale[i] = float32(r.Float64() - 0.3)
			}
			y := want(s, x, values, scale)
			for _, l := range isa.ByteLevels() {
				restore := isa.Use(l)
				for variant := range 6 {
					threads, p := 1+variant/2, New(s)
					if variant%2 == 1 { // what the vectors do where the matrix unit would be taken
						if !p.unit {
							continue
						}
						p = build(s, false)
					}
					pool := par.New(threads)
					w, packed := make([]uint8, p.WeightBytes()), make([]float32, p.ScaleLen())
					p.PackWeights(w, stored)
					p.PackScales(packed, scale)
					got := make([]float32, len(y)+1)
					got[len(y)] = 77
					for range 2 {
						p.Run(pool, got, x, w, packed)
					}
					if allocs.PerRun(func() { p.Run(pool, got, x, w, packed) }) != 0 {
						t.Errorf("%v, %+v: allocates at each run", l, s)
					}
					other := build(s, p.unit)
					if !other.Share(p) {
						t.Fatalf("%v, %+v: two plans of one shape do not share rows", l, s)
					}
					for i := range y {
						got[i] = float32(math.NaN())
					}
					other.Run(pool, got, nil, w, packed)
					pool.Close()
					if got[len(y)] != 77 || !slices.Equal(got[:len(y)], y) {
						t.Fatalf("%v, %d threads, %+v: wrong results", l, threads, s)
					}
				}
				restore()
			}
		}
	}
}

// Fewer rows than planned are computed like those of a plan of their own; rows of another shape are not shared.
func TestRows(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, bits := range []int{8, 4} {
		s := Spec{M: 70, N: 40, K: 128, Bits: bits, Group: 64}
		values, stored := random(r, s)
		x, scale := make([]float32, s.M*s.K), make([]float32, s.N*s.Groups())
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		for i := range scale {
			scale[i] = float32(r.Float64())
		}
		for _, l := range isa.ByteLevels() {
			restore := isa.Use(l)
			p := New(s)
			w, packed := make([]uint8, p.WeightBytes()), make([]float32, p.ScaleLen())
			p.PackWeights(w, stored)
			p.PackScales(packed, scale)
			for _, m := range []int{70, 0, 1, 5, 16, 17, 32, 69} {
				p.Rows(m)
				got := make([]float32, m*s.N)
				p.Run(nil, got, x, w, packed)
				few := s
				if few.M = m; !slices.Equal(got, want(few, x, values, scale)) {
					t.Errorf("%v, %d bits: wrong results of %d rows", l, bits, m)
				}
			}
			for _, o := range []Spec{{M: 71, N: 40, K: 128, Bits: bits, Group: 64}, {M: 70, N: 40, K: 128, Bits: 12 - bits, Group: 64}, {M: 70, N: 40, K: 128, Bits: bits}} {
				if New(o).Share(p) {
					t.Errorf("%+v shares the rows of %+v", o, s)
				}
			}
			restore()
		}
	}
}

// A weight of -128 counts as -127; infinities and NaNs do not stay hidden in the other rows; denormal numbers count as zero.
func TestEdges(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, l := range isa.ByteLevels() {
		restore := isa.Use(l)
		s := Spec{M: 3, N: 2, K: 16, Bits: 8}
		p := New(s)
		w, packed := make([]uint8, p.WeightBytes()), make([]float32, p.ScaleLen())
		stored := make([]uint8, 32)
		stored[0] = 0x80
		p.PackWeights(w, stored)
		p.PackScales(packed, []float32{1, 1})
		x, y := make([]float32, 48), make([]float32, 6)
		x[0], x[16], x[32] = -1, inf, 1e-40
		p.Run(nil, y, x, w, packed)
		if math.Abs(float64(y[0]-127)) > 1e-4 || y[1] != 0 || y[2]-y[2] == 0 || y[4] != 0 {
			t.Errorf("%v: %v", l, y)
		}
		restore()
	}
	for _, s := range []Spec{{N: 1, K: 1, Bits: 5}, {N: 1, K: 64, Bits: 4, Group: 12}, {N: 1, K: MaxGroup + 8, Bits: 8}, {N: 0, K: 1, Bits: 8}} {
		if err := s.Check(); err == nil || !strings.HasPrefix(err.Error(), "wgemm: ") {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func BenchmarkProduct(b *testing.B) {
	pool := par.New(par.DefaultThreads())
	defer pool.Close()
	for _, s := range []Spec{{M: 1, N: 4096, K: 4096, Group: 64}, {M: 1, N: 512, K: 128, Group: 64}, {M: 64, N: 1024, K: 1024, Group: 64}, {M: 64, N: 1024, K: 1024}, {M: 1024, N: 384, K: 384}, {M: 1024, N: 1536, K: 384}, {M: 1024, N: 384, K: 1536}, {M: 32, N: 1536, K: 384}} {
		for _, bits := range []int{8, 4} {
			s.Bits = bits
			for _, l := range isa.ByteLevels()[1:] {
				restore := isa.Use(l)
				p := New(s)
				w, scale := make([]uint8, p.WeightBytes()), make([]float32, p.ScaleLen())
				x, y := make([]float32, s.M*s.K), make([]float32, s.M*s.N)
				for i := range x {
					x[i] = float32(i%251) - 125
				}
				b.Run(fmt.Sprintf("%dx%dx%d/%d/%d/%v", s.M, s.K, s.N, bits, s.Group, l), func(b *testing.B) {
					for b.Loop() {
						p.Run(pool, y, x, w, scale)
					}
					b.ReportMetric(float64(len(w)+4*len(scale))*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
					b.ReportMetric(2*float64(s.M*s.N*s.K)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GOP/s")
				})
				restore()
			}
		}
	}
}
