package qgemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

func bytes8(r *rand.Rand, n int) []int8 {
	x := make([]int8, n)
	for i := range x {
		x[i] = int8(r.IntN(256) - 128)
	}
	return x
}

func bytesU(r *rand.Rand, n int) []uint8 {
	x := make([]uint8, n)
	for i := range x {
		x[i] = uint8(r.IntN(256))
	}
	return x
}

// layer is weights [k, n] as a trained layer's are, about: normal draws, the greatest of each column 127.
func layer(r *rand.Rand, k, n int) []int8 {
	x, draws := make([]int8, k*n), make([]float64, k)
	for j := range n {
		top := 0.0
		for i := range draws {
			draws[i] = r.NormFloat64()
			top = max(top, math.Abs(draws[i]))
		}
		for i, v := range draws {
			x[i*n+j] = int8(math.RoundToEven(v / top * 127))
		}
	}
	return x
}

// plans are the ways to compute s on the current instruction set: the one that is taken, with the matrix unit and without, and with patches copied and read in the image.
func plans(s Spec) []*Plan {
	out := []*Plan{New(s)}
	if s = out[0].Spec; s.Groups > 1 {
		if out[0].direct != nil {
			out = append(out, newGrouped(s))
		}
		return out
	}
	try := func(unit, inImage bool) {
		if p := build(s, unit, inImage); !slices.ContainsFunc(out, func(o *Plan) bool { return o.how() == p.how() }) {
			out = append(out, p)
		}
	}
	if try(false, false); out[0].suitsUnit() {
		try(true, false)
	}
	if out[0].canDirect() {
		try(false, true)
	}
	if out[0].canWinograd() && out[0].how() != "winograd" {
		out = append(out, newWinograd(s))
	}
	return out
}

// how names the way.
func (p *Plan) how() string {
	switch p.algorithm.(type) {
	case *winograd:
		return "winograd"
	case *grey:
		return "grey"
	}
	switch {
	case p.direct != nil:
		return "image"
	case p.unit:
		return "unit"
	}
	return "copied"
}

// Sums are exact, also where a 16-bit sum would saturate, and results are the same on every instruction set and for any number of threads.
func TestProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range []Spec{
		{M: 1, N: 1, K: 1}, {M: 6, N: 64, K: 4}, {M: 7, N: 65, K: 5}, {M: 50, N: 33, K: 131, Low: 7}, {M: 200, N: 16, K: 64}, {M: 3, N: 128, K: 1600}, {M: 13, N: 80, K: 18, ReLU: true},
		{M: 45, N: 16, K: 64}, {M: 64, N: 130, K: 128, Low: 1}, {M: 333, N: 70, K: 200, ReLU: true}, {M: 100, N: 40, K: 64},
	} {
		a, b := bytesU(r, s.M*s.K), bytes8(r, s.K*s.N)
		for i := range min(len(a), 2*s.K) {
			a[i] = 255
		}
		for i := range min(len(b), s.N) {
			b[i] = -128
		}
		scale, offset := make([]float32, s.N), make([]float32, s.N)
		for j := range scale {
			scale[j], offset[j] = float32(r.Float64())/float32(40*s.K), float32(100*r.Float64())
		}
		want8, wantF := make([]uint8, s.M*s.N), make([]float32, s.M*s.N)
		for i := range s.M {
			for j := range s.N {
				acc := int64(0)
				for k := range s.K {
					acc += int64(a[i*s.K+k]) * int64(b[k*s.N+j])
				}
				v := float32(float32(int32(acc))*scale[j]) + offset[j]
				want8[i*s.N+j] = uint8(math.RoundToEven(min(max(float64(v), float64(s.Low)), 255)))
				if wantF[i*s.N+j] = v; s.ReLU {
					wantF[i*s.N+j] = max(v, 0)
				}
			}
		}
		for _, l := range isa.ByteLevels() {
			restore := isa.Use(l)
			for i, p := range append(plans(s), append(plans(s), plans(s)...)...) {
				threads := 1 + i%3
				pool := par.New(threads)
				p.Set(b, scale, offset)
				y, yf := make([]uint8, s.M*s.N+1), make([]float32, s.M*s.N)
				y[s.M*s.N] = 77
				for range 2 {
					p.Run(pool, y, a)
					p.RunFloat(pool, yf, a)
				}
				pool.Close()
				if y[s.M*s.N] != 77 {
					t.Fatalf("%v %+v: wrote behind the end", l, s)
				}
				if !slices.Equal(y[:s.M*s.N], want8) || !slices.Equal(yf, wantF) {
					t.Fatalf("%v, %d threads, %+v: wrong results", l, threads, s)
				}
			}
			restore()
		}
	}
}

func TestConvolution(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, c := range []Conv{
		{H: 5, W: 6, C: 3, KH: 3, KW: 3, OH: 3, OW: 4, StrideH: 1, StrideW: 1},
		{H: 7, W: 5, C: 4, KH: 3, KW: 2, OH: 4, OW: 3, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1, Zero: 9},
		{H: 7, W: 6, C: 8, KH: 3, KW: 2, OH: 5, OW: 5, StrideH: 1, StrideW: 1},
		{H: 2, W: 2, C: 1, KH: 5, KW: 5, OH: 2, OW: 2, StrideH: 1, StrideW: 1, PadTop: 2, PadLeft: 2, Zero: 3},
		{H: 4, W: 5, C: 32, KH: 1, KW: 1, OH: 4, OW: 5, StrideH: 1, StrideW: 1}, {H: 4, W: 6, C: 3, KH: 1, KW: 1, OH: 2, OW: 3, StrideH: 2, StrideW: 2},
		{H: 9, W: 8, C: 16, KH: 3, KW: 3, OH: 7, OW: 6, StrideH: 1, StrideW: 1},
		{H: 9, W: 8, C: 5, KH: 3, KW: 3, OH: 9, OW: 8, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, Zero: 2},
	} {
		for _, n := range []int{16, 17, 32, 70} {
			testConvolution(t, r, c, n)
		}
	}
}

func testConvolution(t *testing.T, r *rand.Rand, c Conv, n int) {
	t.Helper()
	const images = 3
	k := c.KH * c.KW * c.C
	x, b := bytesU(r, images*c.H*c.W*c.C), bytes8(r, k*n)
	scale, offset := make([]float32, n), make([]float32, n)
	for j := range scale {
		scale[j], offset[j] = 1, 0
	}
	want := make([]float32, images*c.OH*c.OW*n)
	for i := range images {
		for oy := range c.OH {
			for ox := range c.OW {
				for j := range n {
					acc := int32(0)
					for ky := range c.KH {
						for kx := range c.KW {
							for ch := range c.C {
								y, xx, v := oy*c.StrideH-c.PadTop+ky, ox*c.StrideW-c.PadLeft+kx, c.Zero
								if y >= 0 && y < c.H && xx >= 0 && xx < c.W {
									v = x[((i*c.H+y)*c.W+xx)*c.C+ch]
								}
								acc += int32(v) * int32(b[((ky*c.KW+kx)*c.C+ch)*n+j])
							}
						}
					}
					want[((i*c.OH+oy)*c.OW+ox)*n+j] = float32(acc)
				}
			}
		}
	}
	for _, l := range isa.ByteLevels() {
		restore := isa.Use(l)
		for _, p := range plans(Spec{M: images * c.OH * c.OW, N: n, K: k, Conv: &c}) {
			p.Set(b, scale, offset)
			y := make([]float32, len(want))
			p.RunFloat(nil, y, x)
			if !slices.Equal(y, want) {
				t.Errorf("%v: %+v, %d filters, %s", l, c, n, p.how())
			}
		}
		ph, pw := c.OH/2, c.OW/2
		if ph*pw == 0 {
			restore()
			continue
		}
		for _, p := range plans(Spec{M: images * ph * pw, N: n, K: k, Conv: &c, Pool: true}) {
			p.Set(b, scale, offset)
			got := make([]float32, images*ph*pw*n)
			p.RunFloat(nil, got, x)
			for i, v := range got {
				o, w := i%n, i/n
				at := func(dy, dx int) float32 {
					return want[((w/pw/ph*c.OH+w/pw%ph*2+dy)*c.OW+w%pw*2+dx)*n+o]
				}
				if v != max(at(0, 0), at(0, 1), at(1, 0), at(1, 1)) {
					t.Fatalf("%v: %+v: window %d, filter %d, %s", l, c, w, o, p.how())
				}
			}
		}
		restore()
	}
}

// Convolutions give the same bytes and floats on every instruction set, with patches copied and read in the image, up to the last pixel and for any number of threads.
func TestConvolutionsToBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for _, c := range []Conv{
		{H: 6, W: 6, C: 1, KH: 3, KW: 3, OH: 4, OW: 4, StrideH: 1, StrideW: 1},
		{H: 28, W: 28, C: 1, KH: 3, KW: 3, OH: 26, OW: 26, StrideH: 1, StrideW: 1},
		{H: 28, W: 28, C: 1, KH: 3, KW: 3, OH: 13, OW: 13, StrideH: 2, StrideW: 2},
		{H: 7, W: 9, C: 1, KH: 3, KW: 3, OH: 5, OW: 7, StrideH: 1, StrideW: 1},
		{H: 13, W: 13, C: 8, KH: 3, KW: 3, OH: 6, OW: 6, StrideH: 2, StrideW: 2},
		{H: 11, W: 12, C: 3, KH: 3, KW: 3, OH: 11, OW: 12, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, Zero: 5},
		{H: 9, W: 10, C: 3, KH: 5, KW: 2, OH: 4, OW: 5, StrideH: 3, StrideW: 2, PadTop: 3, PadLeft: 0, Zero: 200},
		{H: 12, W: 9, C: 5, KH: 2, KW: 3, OH: 6, OW: 8, StrideH: 2, StrideW: 1, PadLeft: 1, Zero: 9},
	} {
		const images = 3
		k := c.KH * c.KW * c.C
		for _, pool := range []bool{false, true} {
			m := images * c.OH * c.OW
			if pool {
				m = images * (c.OH / 2) * (c.OW / 2)
			}
			for _, n := range []int{32, 16, 80, 8, 24, 39, 1} {
				x, b := bytesU(r, images*c.H*c.W*c.C), bytes8(r, k*n)
				scale, offset := make([]float32, n), make([]float32, n)
				for j := range scale {
					scale[j], offset[j] = float32(1+j)/float32(100*k), float32(3*j)
				}
				var first []uint8
				var firstFloats []float32
				for _, l := range isa.ByteLevels() {
					restore := isa.Use(l)
					for i, p := range plans(Spec{M: m, N: n, K: k, Conv: &c, Pool: pool, Low: 3, ReLU: true}) {
						p.Set(b, scale, offset)
						y, floats := make([]uint8, m*n+1), make([]float32, m*n+1)
						y[m*n], floats[m*n] = 77, 77
						threads := par.New(1 + i%2)
						p.Run(threads, y, x)
						p.RunFloat(threads, floats, x)
						threads.Close()
						if first == nil {
							first, firstFloats = y, floats
						}
						if !slices.Equal(first, y) || !slices.Equal(firstFloats, floats) {
							t.Errorf("%v, %s: %+v, pool %v, %d filters: other results than plain Go", l, p.how(), c, pool, n)
						}
					}
					restore()
				}
			}
		}
	}
}

// Groups (depthwise among them) and dilation give the same sums on every instruction set.
func TestGroups(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, s := range []struct {
		c         Conv
		groups, n int
	}{
		{Conv{H: 6, W: 5, C: 19, KH: 3, KW: 3, OH: 6, OW: 5, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, Zero: 7}, 19, 19},
		{Conv{H: 9, W: 11, C: 48, KH: 3, KW: 3, OH: 9, OW: 11, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, Zero: 250}, 48, 48},
		{Conv{H: 8, W: 9, C: 16, KH: 2, KW: 2, OH: 4, OW: 4, StrideH: 2, StrideW: 2}, 16, 16},
		{Conv{H: 6, W: 5, C: 32, KH: 2, KW: 2, OH: 3, OW: 2, StrideH: 2, StrideW: 2}, 32, 32},
		{Conv{H: 4, W: 4, C: 6, KH: 3, KW: 2, OH: 2, OW: 3, StrideH: 1, StrideW: 1}, 3, 51},
		{Conv{H: 4, W: 4, C: 5, KH: 1, KW: 1, OH: 4, OW: 4, StrideH: 1, StrideW: 1}, 5, 10},
		{Conv{H: 7, W: 8, C: 4, KH: 3, KW: 3, OH: 7, OW: 4, StrideH: 1, StrideW: 1, DilH: 2, DilW: 2, PadTop: 2, Zero: 3}, 1, 20},
		{Conv{H: 7, W: 8, C: 16, KH: 3, KW: 3, OH: 3, OW: 4, StrideH: 1, StrideW: 1, DilH: 2, DilW: 2}, 16, 16},
	} {
		const images = 2
		c, in, out := s.c, s.c.C/s.groups, s.n/s.groups
		k := c.KH * c.KW * in
		x, b := bytesU(r, images*c.H*c.W*c.C), bytes8(r, k*s.n)
		scale, offset := make([]float32, s.n), make([]float32, s.n)
		for j := range scale {
			scale[j], offset[j] = 0.01*float32(1+j%3), float32(j)
		}
		want, want8 := make([]float32, images*c.OH*c.OW*s.n), make([]uint8, images*c.OH*c.OW*s.n)
		for i := range want {
			o, ox, oy, n := i%s.n, i/s.n%c.OW, i/s.n/c.OW%c.OH, i/s.n/c.OW/c.OH
			acc := int32(0)
			for ky := range c.KH {
				for kx := range c.KW {
					for ch := range in {
						y, at, v := oy*c.StrideH-c.PadTop+ky*max(1, c.DilH), ox*c.StrideW-c.PadLeft+kx*max(1, c.DilW), c.Zero
						if y >= 0 && y < c.H && at >= 0 && at < c.W {
							v = x[((n*c.H+y)*c.W+at)*c.C+o/out*in+ch]
						}
						acc += int32(v) * int32(b[((ky*c.KW+kx)*in+ch)*s.n+o])
					}
				}
			}
			want[i] = float32(float32(acc)*scale[o]) + offset[o]
			want8[i] = uint8(math.RoundToEven(min(max(float64(want[i]), 2), 255)))
		}
		for _, l := range isa.ByteLevels() {
			restore := isa.Use(l)
			for _, p := range plans(Spec{M: images * c.OH * c.OW, N: s.n, K: k, Conv: &c, Groups: s.groups, Low: 2}) {
				p.Set(b, scale, offset)
				y, y8 := make([]float32, len(want)), make([]uint8, len(want))
				pool := par.New(2)
				p.RunFloat(pool, y, x)
				p.Run(pool, y8, x)
				pool.Close()
				if !slices.Equal(y, want) || !slices.Equal(y8, want8) {
					t.Errorf("%v, %s: %d groups, %+v", l, p.how(), s.groups, c)
				}
			}
			restore()
		}
	}
}

func TestAdd(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	a, b := bytesU(r, 77), bytesU(r, 77)
	want := make([]uint8, 77)
	for i := range want {
		v := float32(float32(a[i])*0.3) + float32(float32(b[i])*0.7)
		want[i] = uint8(math.RoundToEven(min(max(float64(v-5), 10), 255)))
	}
	for _, l := range isa.ByteLevels() {
		restore := isa.Use(l)
		y := make([]uint8, 77)
		if Add(y, a, b, 0.3, 0.7, -5, 10); !slices.Equal(y, want) {
			t.Errorf("%v: %v, want %v", l, y, want)
		}
		restore()
	}
}

func TestQuantize(t *testing.T) {
	y := make([]uint8, 7)
	Quantize(y, []float32{-100, -1, 0, 0.25, 0.75, 1.25, 1000}, 0.5, 10)
	if want := []uint8{0, 8, 10, 10, 12, 12, 255}; !slices.Equal(y, want) {
		t.Errorf("%v, want %v", y, want)
	}
	if s := Sums([]int8{1, 2, 3, -4}, 2, 2); !slices.Equal(s, []int32{4, -2}) {
		t.Error(s)
	}
}

func TestMaxPool(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, p := range []MaxPool{
		{N: 2, H: 6, W: 5, C: 32, OH: 3, OW: 2, KH: 2, KW: 2, StrideH: 2, StrideW: 2},
		{N: 1, H: 5, W: 4, C: 19, OH: 3, OW: 2, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1},
	} {
		x := bytesU(r, p.N*p.H*p.W*p.C)
		want := make([]uint8, p.N*p.OH*p.OW*p.C)
		for i := range want {
			c, o := i%p.C, i/p.C
			for dy := range p.KH {
				for dx := range p.KW {
					y, xx := o/p.OW%p.OH*p.StrideH-p.PadTop+dy, o%p.OW*p.StrideW-p.PadLeft+dx
					if y >= 0 && y < p.H && xx >= 0 && xx < p.W {
						want[i] = max(want[i], x[((o/p.OW/p.OH*p.H+y)*p.W+xx)*p.C+c])
					}
				}
			}
		}
		for _, l := range isa.ByteLevels() {
			restore := isa.Use(l)
			y := make([]uint8, len(want))
			p.Run(nil, y, x)
			if !slices.Equal(y, want) {
				t.Errorf("%v: %+v", l, p.OH)
			}
			restore()
		}
	}
}

func BenchmarkProduct(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, s := range []Spec{{M: 256, N: 256, K: 256}, {M: 1024, N: 1024, K: 1024}, {M: 3872, N: 64, K: 288}, {M: 32, N: 128, K: 1600}} {
		for _, l := range isa.ByteLevels()[1:] {
			restore := isa.Use(l)
			benchmarkProduct(b, s, l, "normal", bytesU(r, s.M*s.K), layer(r, s.K, s.N))
			if l == isa.AVX2 { // where the weights count
				benchmarkProduct(b, s, l, "uniform", bytesU(r, s.M*s.K), bytes8(r, s.K*s.N))
			}
			restore()
		}
	}
}

// BenchmarkConvolution is a convolution of 3×3 on 32 pictures, pooled, strided and neither, narrow and wide.
func BenchmarkConvolution(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, s := range [][3]int{{28, 1, 8}, {28, 1, 16}, {28, 1, 32}, {13, 16, 16}, {13, 32, 64}, {32, 3, 16}, {32, 3, 64}, {32, 16, 16}, {32, 32, 32}, {32, 64, 64}, {8, 256, 256}} {
		for _, kind := range []string{"plain", "padded", "strided", "pooled"} {
			c := Conv{H: s[0], W: s[0], C: s[1], KH: 3, KW: 3, OH: s[0] - 2, OW: s[0] - 2, StrideH: 1, StrideW: 1}
			switch kind {
			case "padded":
				c.OH, c.OW, c.PadTop, c.PadLeft = s[0], s[0], 1, 1
			case "strided":
				c.StrideH, c.StrideW, c.OH, c.OW = 2, 2, (s[0]-3)/2+1, (s[0]-3)/2+1
			}
			spec := Spec{M: 32 * c.OH * c.OW, N: s[2], K: 9 * c.C, Conv: &c}
			if kind == "pooled" {
				spec.Pool, spec.M = true, 32*(c.OH/2)*(c.OW/2)
			}
			x, w, ones := bytesU(r, 32*c.H*c.W*c.C), layer(r, spec.K, spec.N), make([]float32, spec.N)
			y := make([]uint8, spec.M*spec.N)
			for _, p := range plans(spec) {
				p.Set(w, ones, ones)
				b.Run(fmt.Sprintf("%dx%d/%d-%d/%s/%s", s[0], s[0], s[1], s[2], kind, p.how()), func(b *testing.B) {
					for b.Loop() {
						p.Run(nil, y, x)
					}
				})
			}
		}
	}
}

func benchmarkProduct(b *testing.B, s Spec, l isa.Level, weights string, a []uint8, w []int8) {
	ones, y := make([]float32, s.N), make([]uint8, s.M*s.N)
	for _, p := range plans(s) {
		p.Set(w, ones, ones)
		b.Run(fmt.Sprintf("%dx%dx%d/%v/%s/%s", s.M, s.K, s.N, l, weights, p.how()), func(b *testing.B) {
			for b.Loop() {
				p.Run(nil, y, a)
			}
			b.ReportMetric(2*float64(s.M*s.N*s.K)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GOP/s")
		})
	}
}
