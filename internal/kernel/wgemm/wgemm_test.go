package wgemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

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
		{M: 1, N: 1, K: 1}, {M: 1, N: 64, K: 64}, {M: 2, N: 33, K: 100, Group: 32}, {M: 7, N: 65, K: 131, Group: 64}, {M: 13, N: 16, K: 1024}, {M: 100, N: 40, K: 72, Group: 24}, {M: 3, N: 300, K: 512, Group: 128},
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
			for _, l := range isa.Levels() {
				restore := isa.Use(l)
				for threads := 1; threads <= 3; threads++ {
					pool, p := par.New(threads), New(s)
					w, packed := make([]uint8, p.WeightBytes()), make([]float32, p.ScaleLen())
					p.PackWeights(w, stored)
					p.PackScales(packed, scale)
					got := make([]float32, len(y)+1)
					got[len(y)] = 77
					for range 2 {
						p.Run(pool, got, x, w, packed)
					}
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

// A weight of -128 counts as -127; infinities and NaNs do not stay hidden in the other rows; denormal numbers count as zero.
func TestEdges(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, l := range isa.Levels() {
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
	for _, s := range []Spec{{M: 1, N: 4096, K: 4096, Group: 64}, {M: 1, N: 512, K: 128, Group: 64}, {M: 64, N: 1024, K: 1024, Group: 64}, {M: 64, N: 1024, K: 1024}} {
		for _, bits := range []int{8, 4} {
			s.Bits = bits
			for _, l := range isa.Levels()[1:] {
				restore := isa.Use(l)
				p := New(s)
				w, scale := make([]uint8, p.WeightBytes()), make([]float32, p.ScaleLen())
				x, y := make([]float32, s.M*s.K), make([]float32, s.M*s.N)
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
