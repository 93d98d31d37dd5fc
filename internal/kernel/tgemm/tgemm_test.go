package tgemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

func needAMX(t *testing.T) {
	if !isa.AMX() {
		t.Skip("no AMX")
	}
}

func random(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// operands are element [i, k] of op(A) and [k, j] of op(B) of matrix z.
func operands(s gemm.Spec, a, b []float32, z int) (x, y func(i, k int) float32) {
	a, b = a[z*s.StrideA:], b[z*s.StrideB:]
	x = func(i, k int) float32 { return a[i*s.K+k] }
	if s.TransA {
		x = func(i, k int) float32 { return a[k*s.M+i] }
	}
	y = func(k, j int) float32 { return b[k*s.N+j] }
	if s.TransB {
		y = func(k, j int) float32 { return b[j*s.K+k] }
	}
	return x, y
}

// Results are as near to the sums of the products as float32 allows, for sizes around those of tiles, chunks and parts, with B split in all three ways; they are the same bits for 1 to 3 threads
// and on used memory, and stay within c.
func TestPlan(t *testing.T) {
	needAMX(t)
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range []gemm.Spec{
		{M: 32, N: 32, K: 32}, {M: 33, N: 17, K: 33}, {M: 64, N: 96, K: 64, Bias: true}, {M: 100, N: 130, K: 77, Bias: true, Act: gemm.ReLU}, {M: 47, N: 600, K: 40}, {M: 1100, N: 48, K: 300, Bias: true},
		{M: 96, N: 64, K: 1030, Act: gemm.ReLU}, {M: 40, N: 50, K: 70, Batch: 3, StrideA: 2800, StrideB: 3500, StrideC: 2000}, {M: 64, N: 32, K: 512, Bias: true, Act: gemm.ReLU},
	} {
		for mode := range 4 {
			s.TransA, s.TransB, s.Batch = mode&1 != 0, mode&2 != 0, max(s.Batch, 1)
			a, b, bias := random(r, s.Batch*s.M*s.K), random(r, s.Batch*s.K*s.N), random(r, s.N)
			for way := range 4 { // by chunks, once, beforehand, in parts of K
				c := choose(s)
				c.share, c.parts = way == 1, 1
				spec := s
				spec.PackedB = way == 2
				if way == 3 {
					if c.parts = min(maxParts, (s.K+StepK-1)/StepK); c.parts == 1 {
						continue
					}
					for ceilDiv(s.K, roundUp(ceilDiv(s.K, c.parts), StepK)) != c.parts {
						c.parts--
					}
				}
				if way > 0 && way < 3 && s.Batch > 1 {
					continue
				}
				if r.IntN(2) == 0 {
					c.rows, c.cols = 64, 32
				}
				if c.kc = min(c.kc, roundUp(ceilDiv(s.K, c.parts), StepK)); r.IntN(2) == 0 {
					c.kc = StepK
				}
				p := build(spec, c)
				what := fmt.Sprintf("%+v, %v", spec, p)
				var packed []uint32
				if spec.PackedB {
					packed = make([]uint32, p.PackedLen())
					p.PackB(packed, b, make([]uint32, p.Scratch(1)))
				}
				var first []float32
				for threads := 1; threads <= 3; threads++ {
					pool := par.New(threads)
					scratch := make([]uint32, p.Scratch(threads))
					for i := range scratch {
						scratch[i] = r.Uint32()
					}
					out := make([]float32, s.Batch*s.M*s.N+20)
					for i := range out {
						out[i] = float32(math.NaN())
					}
					run := func() { p.Run(pool, a, b, out[:s.Batch*s.M*s.N], bias, scratch) }
					if spec.PackedB {
						run = func() { p.RunPacked(pool, a, packed, out[:s.Batch*s.M*s.N], bias, scratch) }
					}
					run()
					for _, v := range out[s.Batch*s.M*s.N:] {
						if v == v {
							t.Fatalf("%s: written beyond c", what)
						}
					}
					if first == nil {
						first = append(first, out...)
						compare(t, what, spec, a, b, bias, first)
					}
					for i, v := range out[:s.Batch*s.M*s.N] {
						if v != first[i] {
							t.Fatalf("%s: %d threads give other bits", what, threads)
						}
					}
					if n := allocs.PerRun(run); n != 0 {
						t.Errorf("%s: %v allocations a run", what, n)
					}
					pool.Close()
				}
			}
		}
	}
}

// compare holds results to an error of 2⁻²² of the sum of the products' magnitudes: float32's own for sums as long as these.
func compare(t *testing.T, what string, s gemm.Spec, a, b, bias, c []float32) {
	t.Helper()
	for z := range s.Batch {
		x, y := operands(s, a, b, z)
		for i := range s.M {
			for j := range s.N {
				sum, size := 0.0, 0.0
				for k := range s.K {
					v := float64(x(i, k)) * float64(y(k, j))
					sum, size = sum+v, size+math.Abs(v)
				}
				if s.Bias {
					sum, size = sum+float64(bias[j]), size+math.Abs(float64(bias[j]))
				}
				if s.Act == gemm.ReLU {
					sum = max(sum, 0)
				}
				if got := float64(c[z*s.StrideC+i*s.N+j]); !(math.Abs(got-sum) <= size*0x1p-22) {
					t.Fatalf("%s: [%d %d %d] is %v, want %v (off by 2^%.1f of its terms)", what, z, i, j, got, sum, math.Log2(math.Abs(got-sum)/size))
				}
			}
		}
	}
}

// On the whole the error is no greater than that of package gemm: the three products of parts that are left out do not show.
func TestAsExactAsFloat32(t *testing.T) {
	needAMX(t)
	r := rand.New(rand.NewPCG(3, 4))
	pool := par.New(2)
	defer pool.Close()
	for _, k := range []int{32, 256, 2048} {
		s := gemm.Spec{M: 64, N: 64, K: k}
		p, g := plan(s), gemm.New(s)
		a, b, c, d := random(r, s.M*k), random(r, k*s.N), make([]float32, s.M*s.N), make([]float32, s.M*s.N)
		for i := range a { // of many magnitudes
			a[i] *= float32(math.Exp2(float64(r.IntN(20) - 10)))
		}
		p.Run(pool, a, b, c, nil, make([]uint32, p.Scratch(2)))
		g.Run(pool, a, b, d, nil, nil)
		x, y := operands(s, a, b, 0)
		var ours, theirs float64
		for i := range s.M {
			for j := range s.N {
				sum, size := 0.0, 0.0
				for n := range k {
					v := float64(x(i, n)) * float64(y(n, j))
					sum, size = sum+v, size+math.Abs(v)
				}
				ours += math.Pow((float64(c[i*s.N+j])-sum)/size, 2)
				theirs += math.Pow((float64(d[i*s.N+j])-sum)/size, 2)
			}
		}
		t.Logf("K %d: %.3g, package gemm %.3g", k, math.Sqrt(ours/4096), math.Sqrt(theirs/4096))
		if ours > 1.5*theirs {
			t.Errorf("K %d: the error is %.3g, that of package gemm %.3g", k, math.Sqrt(ours/4096), math.Sqrt(theirs/4096))
		}
	}
}

// Each part of a number counts: products with powers of two, whose parts are exact, give back every digit, also of great and small numbers. What is not finite does not get lost.
func TestDigits(t *testing.T) {
	needAMX(t)
	r := rand.New(rand.NewPCG(5, 6))
	s := gemm.Spec{M: 32, N: 32, K: 32}
	p := plan(s)
	a, b, c := make([]float32, 1024), make([]float32, 1024), make([]float32, 1024)
	for i := range a {
		a[i] = math.Float32frombits(r.Uint32()&0x807fffff | uint32(25+r.IntN(200))<<23)
	}
	for i := range 32 {
		b[i*32+i] = 4
	}
	scratch := make([]uint32, p.Scratch(1))
	p.Run(nil, a, b, c, nil, scratch)
	for i, x := range a {
		if c[i] != 4*x {
			t.Fatalf("4 times %g is %g", x, c[i])
		}
	}
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		a[5*32+7] = bad
		p.Run(nil, a, b, c, nil, scratch)
		for i, x := range c {
			if finite := x-x == 0; finite != (i/32 != 5) {
				t.Fatalf("with %v in row 5, element [%d %d] is %v", bad, i/32, i%32, x)
			}
		}
	}
}

// Numbers whose parts are below the least normal one lose digits and nothing else, whether the processor takes such numbers as zero or not: they do not spill into their neighbours.
func TestTiny(t *testing.T) {
	needAMX(t)
	r := rand.New(rand.NewPCG(7, 8))
	s := gemm.Spec{M: 32, N: 32, K: 32}
	p := plan(s)
	a, b, c := make([]float32, 1024), make([]float32, 1024), make([]float32, 1024)
	for i := range a {
		a[i] = math.Float32frombits(r.Uint32()&0x807fffff | uint32(r.IntN(30))<<23)
		b[i] = float32(r.NormFloat64())
	}
	scratch := make([]uint32, p.Scratch(1))
	for range 2 {
		p.Run(nil, a, b, c, nil, scratch)
		for i := range 32 {
			for j := range 32 {
				sum, size := 0.0, 0.0
				for k := range 32 {
					v := float64(a[i*32+k]) * float64(b[k*32+j])
					sum, size = sum+v, size+math.Abs(v)
				}
				if got := float64(c[i*32+j]); !(math.Abs(got-sum) <= size*0x1p-22+1e-36) {
					t.Fatalf("[%d %d] is %g, want %g", i, j, got, sum)
				}
			}
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer isa.SetMode(isa.Flush())
	}
}

// What is not a matter for tiles is left to package gemm.
func TestTaken(t *testing.T) {
	for _, s := range []gemm.Spec{{}, {M: 1, N: 512, K: 512}, {M: 512, N: 1, K: 512}, {M: 512, N: 512, K: 1}, {M: 512, N: 512, K: 512, LDB: 600}, {M: 512, N: 512, K: 512, Accumulate: true}} {
		if New(s) != nil {
			t.Errorf("%+v is taken", s)
		}
	}
	if s := (gemm.Spec{M: 512, N: 512, K: 512}); (New(s) != nil) != isa.AMX() {
		t.Errorf("%+v: taken %v", s, New(s) != nil)
	}
	defer isa.Use(isa.AVX2)()
	if New(gemm.Spec{M: 512, N: 512, K: 512}) != nil {
		t.Error("taken with AVX2")
	}
}

// BenchmarkPlan is a product on vectors, by package gemm, and on AMX, with B split in the run and beforehand: the table of docs/decisions/f32-on-amx.md.
func BenchmarkPlan(b *testing.B) {
	if !isa.AMX() {
		b.Skip("no AMX")
	}
	r := rand.New(rand.NewPCG(3, 4))
	pool := par.New(2)
	defer pool.Close()
	for _, s := range []gemm.Spec{
		{M: 1024, N: 384, K: 384}, {M: 1024, N: 1536, K: 384}, {M: 1024, N: 384, K: 1536}, {M: 2048, N: 256, K: 256}, {M: 2048, N: 256, K: 1024, TransB: true},
		{M: 256, N: 256, K: 2048, TransA: true}, {M: 256, N: 1024, K: 2048, TransA: true},
	} {
		x, y, c := random(r, s.M*s.K), random(r, s.K*s.N), make([]float32, s.M*s.N)
		bench := func(way string, run func()) {
			b.Run(fmt.Sprintf("%s/%dx%dx%d", way, s.M, s.K, s.N), func(b *testing.B) {
				for b.Loop() {
					run()
				}
				b.ReportMetric(2*float64(s.M)*float64(s.N)*float64(s.K)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
		v := gemm.New(s)
		bench("vectors", func() { v.Run(pool, x, y, c, nil, nil) })
		p := plan(s)
		scratch := make([]uint32, p.Scratch(2))
		bench("amx", func() { p.Run(pool, x, y, c, nil, scratch) })
		if s.TransA {
			continue
		}
		s.PackedB = true
		q := plan(s)
		packed := make([]uint32, q.PackedLen())
		q.PackB(packed, y, make([]uint32, q.Scratch(1)))
		scratch = make([]uint32, q.Scratch(2))
		bench("amx, split beforehand", func() { q.RunPacked(pool, x, packed, c, nil, scratch) })
	}
}
