package gemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// operands are the guarded inputs of one product and what the result may be.
type operands struct {
	s                       Spec
	a, b, c, bias, residual []float32
	before                  []float32 // c before the product
	intact                  []func() bool
}

// makeOperands fills the elements that belong to the matrices with random numbers and everything else with NaN.
func makeOperands(s Spec, rng *rand.Rand) *operands {
	o := &operands{s: s}
	batch := max(1, s.Batch)
	slice := func(n int) []float32 {
		x, ok := guarded(n, rng.IntN(16))
		o.intact = append(o.intact, ok)
		return x
	}
	matrix := func(rows, cols, ld, stride int) []float32 {
		x := slice((batch-1)*stride + extent(rows, cols, ld))
		for z := range batch {
			for i := range rows {
				if cols > 0 {
					fill(rng, x[z*stride+i*ld:][:cols])
				}
			}
		}
		return x
	}
	ar, ac, br, bc := s.M, s.K, s.K, s.N
	if s.TransA {
		ar, ac = ac, ar
	}
	if s.TransB {
		br, bc = bc, br
	}
	ld := func(given, row int) int {
		if given == 0 {
			return row
		}
		return given
	}
	o.s.LDA, o.s.LDB, o.s.LDC = ld(s.LDA, ac), ld(s.LDB, bc), ld(s.LDC, s.N)
	o.a = matrix(ar, ac, o.s.LDA, s.StrideA)
	o.b = matrix(br, bc, o.s.LDB, s.StrideB)
	if s.Accumulate {
		o.c = matrix(s.M, s.N, o.s.LDC, s.StrideC)
	} else {
		o.c = slice((batch-1)*s.StrideC + extent(s.M, s.N, o.s.LDC))
	}
	if s.Bias {
		o.bias = slice(s.N)
		fill(rng, o.bias)
	}
	if s.Residual {
		o.residual = matrix(s.M, s.N, o.s.LDC, s.StrideC)
	}
	o.before = append([]float32(nil), o.c...)
	return o
}

// check compares c with a float64 product.
func (o *operands) check() error {
	s := o.s
	for _, ok := range o.intact {
		if !ok() {
			return fmt.Errorf("wrote outside of c")
		}
	}
	touched := make([]bool, len(o.c))
	for z := range max(1, s.Batch) {
		a, b := o.a[z*s.StrideA:], o.b[z*s.StrideB:]
		for i := range s.M {
			for j := range s.N {
				at := z*s.StrideC + i*s.LDC + j
				touched[at] = true
				var want, abs float64
				add := func(x float64) { want, abs = want+x, abs+math.Abs(x) }
				for k := range s.K {
					ia, ib := i*s.LDA+k, k*s.LDB+j
					if s.TransA {
						ia = k*s.LDA + i
					}
					if s.TransB {
						ib = j*s.LDB + k
					}
					add(float64(a[ia]) * float64(b[ib]))
				}
				if s.Accumulate {
					add(float64(o.before[at]))
				}
				if s.Bias {
					add(float64(o.bias[j]))
				}
				if s.Residual {
					add(float64(o.residual[at]))
				}
				if s.Act == ReLU {
					want = max(want, 0)
				}
				if !near(o.c[at], want, abs, s.K) {
					return fmt.Errorf("matrix %d [%d][%d] = %v, want %v", z, i, j, o.c[at], want)
				}
			}
		}
	}
	for i, x := range o.c {
		if !touched[i] && math.Float32bits(x) != math.Float32bits(sentinel) {
			return fmt.Errorf("wrote between rows, at %d", i)
		}
	}
	return nil
}

// pools has one of each number of threads that a test compares.
func pools(t *testing.T) []*par.Pool {
	ps := []*par.Pool{nil, par.New(2), par.New(3)}
	t.Cleanup(func() {
		for _, p := range ps {
			p.Close()
		}
	})
	return ps
}

func (o *operands) run(t *testing.T, ps []*par.Pool) *Plan {
	t.Helper()
	p := New(o.s)
	o.compute(t, ps, p)
	return p
}

// compute runs p with every pool and compares the results with the product and with each other.
func (o *operands) compute(t *testing.T, ps []*par.Pool, p *Plan) {
	t.Helper()
	p.alone = false // small sizes stand for large ones here
	b := o.b
	if o.s.PackedB {
		b = make([]float32, p.PackedLen())
		p.PackB(b, o.b)
	}
	var first []float32
	for i, pool := range ps {
		copy(o.c, o.before)
		p.Run(pool, o.a, b, o.c, o.bias, o.residual)
		if i == 0 {
			if err := o.check(); err != nil {
				t.Fatalf("%+v\n%v\n%v", o.s, p, err)
			}
			first = append(first, o.c...)
			continue
		}
		for x := range first {
			if math.Float32bits(first[x]) != math.Float32bits(o.c[x]) {
				t.Fatalf("%+v\n%v\n%d threads: element %d is %v, with 1 thread %v", o.s, p, pool.Threads(), x, o.c[x], first[x])
			}
		}
	}
}

func TestPlan(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(9, 10))
		ps := pools(t)
		used := map[string]int{}
		size := func() int {
			switch rng.IntN(8) {
			case 0:
				return rng.IntN(3)
			case 1:
				return 60 + rng.IntN(80)
			}
			return 1 + rng.IntN(40)
		}
		for range 400 {
			s := Spec{M: size(), N: size(), K: size(), TransA: rng.IntN(2) == 0, TransB: rng.IntN(2) == 0,
				Accumulate: rng.IntN(4) == 0, Bias: rng.IntN(3) == 0, Act: Act(rng.IntN(2)), PackedB: rng.IntN(4) == 0}
			s.Residual = !s.Accumulate && rng.IntN(3) == 0
			if rng.IntN(2) == 0 {
				s.LDA, s.LDB, s.LDC = max(s.M, s.K)+rng.IntN(9), max(s.N, s.K)+rng.IntN(9), s.N+rng.IntN(9)
			}
			if rng.IntN(4) == 0 {
				s.Batch = 1 + rng.IntN(4)
				s.StrideC = max(s.M*s.N, extent(s.M, s.N, s.LDC)) + rng.IntN(5)
				if rng.IntN(3) > 0 {
					s.StrideA = (max(s.M, s.K)+9)*max(s.M, s.K) + rng.IntN(5)
				}
				if rng.IntN(3) > 0 && !s.PackedB {
					s.StrideB = (max(s.N, s.K)+9)*max(s.N, s.K) + rng.IntN(5)
				}
			}
			makeOperands(s, rng).run(t, ps)
		}
		// One or more shapes for each branch of choose.
		for _, s := range []Spec{
			{M: 130, N: 200, K: 600},
			{M: 130, N: 200, K: 600, TransA: true},
			{M: 530, N: 200, K: 600, TransB: true, Bias: true, Act: ReLU},
			{M: 20, N: 300, K: 1100, TransB: true, Bias: true, Residual: true, Act: ReLU},
			{M: 20, N: 300, K: 300, TransB: true, TransA: true, Accumulate: true},
			{M: 9, N: 32, K: 9000, TransA: true, Bias: true, Act: ReLU},
			{M: 9, N: 77, K: 9000, TransA: true, Accumulate: true, LDC: 80},
			{M: 5, N: 33, K: 4000, Batch: 2, StrideA: 20000, StrideB: 132000, LDC: 35, StrideC: 180, Residual: true},
			{M: 5, N: 33, K: 20000, LDC: 35, Act: ReLU},
			{M: 5, N: 33, K: 9000, Batch: 2, StrideA: 45000, StrideB: 300000, LDC: 35, StrideC: 180, Bias: true},
			{M: 150, N: 201, K: 1100, TransB: true, LDC: 210, Act: ReLU},
			{M: 64, N: 530, K: 70, Bias: true},
			{M: 1, N: 130, K: 1600},
			{M: 20, N: 80, K: 1500, Bias: true, Act: ReLU},
			{M: 100, N: 520, K: 1100, Bias: true, Residual: true, Act: ReLU},
			{M: 6, N: 1100, K: 70, Bias: true, Act: ReLU},
			{M: 3, N: 1100, K: 70, Bias: true, Act: ReLU},
			{M: 1, N: 515, K: 700, LDB: 1030, Bias: true, Accumulate: true},
			{M: 2, N: 2100, K: 130, TransA: true, Residual: true, LDC: 2110, Act: ReLU},
			{M: 2, N: 600, K: 130, Batch: 2, StrideA: 260, StrideB: 78000, StrideC: 1300, Accumulate: true},
			{M: 20, N: 70, K: 1100, PackedB: true, Bias: true, Act: ReLU},
			{M: 1, N: 503, K: 301, TransB: true},
			{M: 3, N: 503, K: 301, TransB: true, Bias: true, Accumulate: true, Act: ReLU},
			{M: 9, N: 503, K: 301, TransB: true, Residual: true, Act: ReLU, Batch: 2, StrideA: 2709, StrideB: 151403, StrideC: 4527},
			{M: 500, N: 1, K: 300},
			{M: 300, N: 70, K: 1, TransA: true},
			{M: 500, N: 130, K: 300, PackedB: true, Bias: true},
			{M: 515, N: 530, K: 5, TransA: true},
			{M: 515, N: 530, K: 33, TransA: true, Accumulate: true, LDA: 1024},
		} {
			p := makeOperands(s, rng).run(t, ps)
			for name, on := range map[string]bool{"dot": p.dot, "stream": p.stream, "swap": p.swap, "packB": p.packB, "by rows": p.byRows, "split": p.splits > 1,
				"blocks of K": p.kc < p.K, "several chunks": p.grid() > 1} {
				if on {
					used[name]++
				}
			}
		}
		for _, name := range []string{"dot", "stream", "swap", "packB", "by rows", "split", "blocks of K", "several chunks"} {
			if used[name] == 0 {
				t.Errorf("no shape of this test takes the branch %q", name)
			}
		}
	})
}

// All rows at once, for sizes that choose would not give to it too; the results are the bits that tiles of other shapes give.
func TestTall(t *testing.T) {
	if isa.Best() < isa.AVX512 {
		t.Skip("no AVX-512")
	}
	defer isa.Use(isa.AVX512)()
	rng := rand.New(rand.NewPCG(17, 18))
	ps := pools(t)
	for i := range 60 {
		s := Spec{M: 1 + i%tallRows, N: 1 + rng.IntN(70), K: 1 + rng.IntN(50), TransB: i%2 == 0, PackedB: true, Bias: i%3 == 0, Residual: i%5 == 0, Accumulate: i%5 == 1, Act: Act(i / 2 % 2)}
		if i%7 == 0 {
			s.LDA, s.LDB, s.LDC = s.K+3, max(s.N, s.K)+5, s.N+7
		}
		o := makeOperands(s, rng)
		o.compute(t, ps, build(isa.AVX512, o.s.complete(), choice{tall: true, rows: s.M, cols: tallLanes * (1 + i%3), kc: s.K, splits: 1}))
		first := append([]float32(nil), o.c...)
		o.compute(t, ps[:1], build(isa.AVX512, o.s.complete(), choice{rows: s.M, cols: s.N, kc: s.K, splits: 1}))
		for x := range first {
			if math.Float32bits(first[x]) != math.Float32bits(o.c[x]) {
				t.Fatalf("%+v: element %d is %v, by tiles %v", s, x, first[x], o.c[x])
			}
		}
	}
	p, q := New(Spec{M: 16, N: 384, K: 384, PackedB: true}), New(Spec{M: 17, N: 384, K: 384, PackedB: true})
	if p.tall != isa.Wide() || q.tall {
		t.Errorf("16 rows all at once: %v, 17: %v", p.tall, q.tall)
	}
	if p.tall && p.Layout() == q.Layout() {
		t.Error("two layouts of packed B have one name")
	}
}

// Rows first, for sizes and chunks that choose would not give to it.
func TestByRows(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(15, 16))
		ps := pools(t)
		for i := range 24 {
			s := Spec{M: 20 + rng.IntN(30), N: 2*NR() + 1 + rng.IntN(NR()), K: 1 + rng.IntN(40), TransA: i%2 == 0, TransB: i%3 == 0,
				Accumulate: i%4 == 0, Bias: i%5 == 0, Act: Act(i % 2)}
			if i%3 == 1 {
				s.Batch, s.StrideA, s.StrideC = 3, s.M*s.K, s.M*s.N
				if i%2 == 0 {
					s.StrideB = s.K * s.N
				}
			}
			o := makeOperands(s, rng)
			ch := choice{byRows: true, downFirst: i%5 > 0, packB: s.TransB || i%4 > 0, turnA: s.TransA && i%8 > 3, rows: 7, cols: NR() << (i % 2), kc: max(8, s.K/2), splits: 1}
			p := build(isa.Current(), o.s.complete(), ch)
			o.compute(t, ps, p)
			for x := range o.b {
				o.b[x] *= 2
			}
			o.compute(t, ps, p) // nothing that was packed before may be used again
		}
	})
}

// A tiny product runs on its caller's thread, and gives what it gives on several.
func TestTiny(t *testing.T) {
	if New(Spec{M: 32, N: 512, K: 128}).alone || New(Spec{M: 1, N: 512, K: 128}).alone || New(Spec{M: 9, N: 9, K: 9, Batch: 200, StrideC: 81}).alone {
		t.Error("a product that two threads share is taken for a tiny one")
	}
	rng := rand.New(rand.NewPCG(23, 24))
	ps := pools(t)
	o := makeOperands(Spec{M: 64, N: 10, K: 32, TransA: true}, rng)
	p := New(o.s)
	if !p.alone {
		t.Error("64x32x10 is not taken for tiny")
	}
	p.Run(ps[1], o.a, o.b, o.c, nil, nil)
	alone := append([]float32(nil), o.c...)
	o.compute(t, ps, p)
	for i, x := range alone {
		if x != o.c[i] {
			t.Fatalf("element %d is %v alone, %v with several threads", i, x, o.c[i])
		}
	}
}

func TestAllocations(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(11, 12))
		pool := par.New(2)
		defer pool.Close()
		for _, s := range []Spec{{M: 70, N: 100, K: 70}, {M: 512, N: 600, K: 9}, {M: 7, N: 200, K: 70, TransB: true}, {M: 3, N: 5, K: 10000}, {M: 3, N: 5, K: 0}} {
			o := makeOperands(s, rng)
			p := New(s)
			p.Run(pool, o.a, o.b, o.c, nil, nil)
			if n := allocs.PerRun(func() { p.Run(pool, o.a, o.b, o.c, nil, nil) }); n != 0 {
				t.Errorf("%v: %v allocations", p, n)
			}
		}
	})
}

func TestPlanMisuse(t *testing.T) {
	panics := func(name string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
		}()
		f()
	}
	for name, s := range map[string]Spec{
		"negative":          {M: -1, N: 1, K: 1},
		"lda":               {M: 2, N: 2, K: 3, LDA: 2},
		"lda, transposed":   {M: 4, N: 2, K: 3, LDA: 3, TransA: true},
		"ldb":               {M: 2, N: 2, K: 3, LDB: 1},
		"ldc":               {M: 2, N: 2, K: 3, LDC: 1},
		"two addends":       {M: 2, N: 2, K: 3, Accumulate: true, Residual: true},
		"batch overlaps":    {M: 2, N: 2, K: 3, Batch: 2, StrideC: 3},
		"batch of packed B": {M: 2, N: 2, K: 3, Batch: 2, StrideC: 4, StrideB: 6, PackedB: true},
	} {
		panics(name, func() { New(s) })
	}
	p := New(Spec{M: 2, N: 3, K: 4, Bias: true, Residual: true})
	f := func(n int) []float32 { return make([]float32, n) }
	p.Run(nil, f(8), f(12), f(6), f(3), f(6))
	panics("a", func() { p.Run(nil, f(7), f(12), f(6), f(3), f(6)) })
	panics("b", func() { p.Run(nil, f(8), f(11), f(6), f(3), f(6)) })
	panics("c", func() { p.Run(nil, f(8), f(12), f(5), f(3), f(6)) })
	panics("bias", func() { p.Run(nil, f(8), f(12), f(6), f(2), f(6)) })
	panics("residual", func() { p.Run(nil, f(8), f(12), f(6), f(3), f(5)) })
}
