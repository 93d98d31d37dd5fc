package qgemm

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// Convolutions of one channel have the sums of plain Go, for all sizes, strides and paddings, up to the last pixel.
func TestGrey(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 32))
	defer isa.Use(isa.AVX2)()
	if current() != avx2 {
		t.Skip("the processor has no AVX2")
	}
	for i, size := range []struct{ images, h, w, n, pad, down, across int }{
		{1, 3, 3, 16, 0, 1, 1}, {1, 1, 1, 16, 1, 1, 1}, {2, 4, 5, 32, 0, 1, 1}, {3, 28, 28, 48, 0, 1, 1}, {2, 9, 7, 16, 1, 1, 1}, {2, 9, 8, 16, 1, 2, 2}, {3, 12, 11, 32, 0, 2, 2}, {2, 8, 16, 16, 0, 1, 3}, {2, 13, 16, 16, 2, 3, 1}, {40, 5, 4, 16, 1, 1, 1}, {2, 7, 6, 8, 0, 1, 1}, {3, 10, 9, 24, 1, 1, 1}, {1, 9, 9, 40, 0, 2, 2},
	} {
		c := Conv{H: size.h, W: size.w, C: 1, KH: 3, KW: 3, StrideH: size.down, StrideW: size.across, PadTop: size.pad, PadLeft: size.pad, Zero: uint8(r.IntN(256))}
		c.OH, c.OW = (size.h+2*size.pad-3)/size.down+1, (size.w+2*size.pad-3)/size.across+1
		x, b := bytesU(r, size.images*c.H*c.W), bytes8(r, 9*size.n)
		if i%2 == 0 {
			for i := range x {
				x[i] = 255
			}
			for i := range b {
				b[i] = []int8{-128, 127}[i%2]
			}
		}
		scale, offset := make([]float32, size.n), make([]float32, size.n)
		for j := range scale {
			scale[j], offset[j] = float32(1+j%5)/1500, float32(5*j)
		}
		for _, pool := range []bool{false, true} {
			s := Spec{M: size.images * c.OH * c.OW, N: size.n, K: 9, Conv: &c, Pool: pool, Low: 3, ReLU: i%3 == 0}
			if pool {
				s.M = size.images * (c.OH / 2) * (c.OW / 2)
			}
			if s.M == 0 || pool && size.down*size.across > 1 {
				continue
			}
			want, wantF := plainGo(s, b, scale, offset, x)
			for threads := 1; threads <= 3; threads++ {
				p := New(s)
				if p.how() != "grey" {
					t.Fatalf("%+v: taken another way: %s", size, p.how())
				}
				p.Set(b, scale, offset)
				y, yf := make([]uint8, s.M*s.N+1), make([]float32, s.M*s.N+1)
				y[s.M*s.N], yf[s.M*s.N] = 77, 77
				workers := par.New(threads)
				p.Run(workers, y, x)
				p.RunFloat(workers, yf, x)
				if n := allocs.PerRun(func() { p.Run(workers, y, x) }); n != 0 {
					t.Errorf("%+v: %v allocations a run", size, n)
				}
				workers.Close()
				if y[s.M*s.N] != 77 || yf[s.M*s.N] != 77 {
					t.Fatalf("%+v, pool %v: wrote behind the end", size, pool)
				}
				if !slices.Equal(y[:s.M*s.N], want) || !slices.Equal(yf[:s.M*s.N], wantF) {
					t.Fatalf("%+v, pool %v, %d threads: other results than plain Go", size, pool, threads)
				}
			}
		}
	}
}
