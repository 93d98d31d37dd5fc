package attention

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// naive is attention and its gradient in float64, with a score for each pair.
func naive(s Spec, q, k, v, dy []float32, lengths []int32, mask []byte) (y, lse, dq, dk, dv []float64) {
	p := &Plan{Spec: s, lengths: lengths, mask: mask}
	y, lse, dq = make([]float64, len(q)), make([]float64, s.Batch*s.Queries*s.Heads), make([]float64, len(q))
	dk, dv = make([]float64, len(k)), make([]float64, len(k))
	for b := range s.Batch {
		for h := range s.Heads {
			g := h / (s.Heads / s.Groups)
			for t := range s.Queries {
				lo, hi := p.span(b, t)
				at := p.at(b, s.Queries, t, s.Heads, h)
				w := map[int]float64{}
				top, sum := math.Inf(-1), 0.0
				for j := lo; j < hi; j++ {
					if mask != nil && mask[p.maskAt(b, h)+t*s.Keys+j] == 0 {
						continue
					}
					kt, score := p.at(b, s.Keys, j%s.Keys, s.Groups, g), 0.0
					for x := range s.Dim {
						score += float64(q[at+x]) * float64(k[kt+x])
					}
					w[j] = score * s.Scale
					if s.Slopes != nil {
						w[j] += float64(s.Slopes[h]) * float64(j-p.position(b, t))
					}
					top = max(top, w[j])
				}
				if len(w) == 0 {
					continue
				}
				for j := range w {
					sum += math.Exp(w[j] - top)
				}
				lse[(b*s.Queries+t)*s.Heads+h] = top + math.Log(sum)
				delta := 0.0
				for j := range w {
					w[j] = math.Exp(w[j]-top) / sum
					kt := p.at(b, s.Keys, j%s.Keys, s.Groups, g)
					for x := range s.Dim {
						y[at+x] += w[j] * float64(v[kt+x])
					}
				}
				for x := range s.Dim {
					delta += y[at+x] * float64(dy[at+x])
				}
				for j := range w {
					kt, d := p.at(b, s.Keys, j%s.Keys, s.Groups, g), 0.0
					for x := range s.Dim {
						d += float64(dy[at+x]) * float64(v[kt+x])
						dv[kt+x] += w[j] * float64(dy[at+x])
					}
					d = s.Scale * w[j] * (d - delta)
					for x := range s.Dim {
						dq[at+x] += d * float64(k[kt+x])
						dk[kt+x] += d * float64(q[at+x])
					}
				}
			}
		}
	}
	return y, lse, dq, dk, dv
}

func normal(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func nan(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(math.NaN())
	}
	return x
}

func near(t *testing.T, what string, got []float32, want []float64) {
	t.Helper()
	scale := 1.0
	for _, w := range want {
		scale = max(scale, math.Abs(w))
	}
	for i := range want {
		if d := math.Abs(float64(got[i]) - want[i]); !(d <= 3e-6*scale) {
			t.Fatalf("%s: [%d] = %g, want %g (greatest %g)", what, i, got[i], want[i], scale)
		}
	}
}

// A way is an instruction set, and whether products run on the matrix unit.
type way struct {
	level isa.Level
	tiles bool
}

func (w way) String() string {
	if w.tiles {
		return "amx"
	}
	return w.level.String()
}

func (w way) plan(s Spec) *Plan { return build(s, w.tiles, w.tiles) }

// ways lists all that this processor has.
func ways() (out []way) {
	for _, l := range isa.Levels() {
		out = append(out, way{l, false})
	}
	if isa.AMX() {
		out = append(out, way{isa.Current(), true})
	}
	return out
}

type example struct {
	name    string
	s       Spec
	lengths []int32
	masked  bool
}

func examples() []example {
	e := func(name string, s Spec, lengths ...int32) example { return example{name, s, lengths, false} }
	m := func(name string, s Spec) example { return example{name, s, nil, true} }
	return []example{
		e("one", Spec{Batch: 1, Queries: 1, Keys: 1, Heads: 1, Groups: 1, Dim: 1}),
		e("plain", Spec{Batch: 2, Queries: 70, Keys: 70, Heads: 3, Groups: 3, Dim: 17}),
		e("long keys", Spec{Batch: 1, Queries: 3, Keys: 600, Heads: 2, Groups: 1, Dim: 64}),
		e("causal", Spec{Batch: 1, Queries: 300, Keys: 300, Heads: 2, Groups: 2, Dim: 32, Causal: true}),
		e("causal, later queries", Spec{Batch: 2, Queries: 65, Keys: 330, Heads: 4, Groups: 2, Dim: 8, Causal: true}),
		e("window", Spec{Batch: 1, Queries: 400, Keys: 400, Heads: 1, Groups: 1, Dim: 16, Causal: true, Window: 37}),
		e("both sides", Spec{Batch: 1, Queries: 290, Keys: 290, Heads: 1, Groups: 1, Dim: 5, Window: 20}),
		e("alibi", Spec{Batch: 1, Queries: 280, Keys: 280, Heads: 2, Groups: 2, Dim: 16, Causal: true, Slopes: []float32{0.25, 0.0625}}),
		e("lengths", Spec{Batch: 4, Queries: 5, Keys: 300, Heads: 2, Groups: 2, Dim: 96}, 300, 1, 0, 257),
		e("memory", Spec{Batch: 3, Queries: 2, Keys: 300, Heads: 4, Groups: 2, Dim: 64, Causal: true, Cached: true}, 300, 2, 7),
		e("memory, one query, window", Spec{Batch: 2, Queries: 1, Keys: 300, Heads: 4, Groups: 1, Dim: 64, Causal: true, Cached: true, Window: 9}, 300, 3),
		e("ring", Spec{Batch: 5, Queries: 7, Keys: 300, Heads: 4, Groups: 2, Dim: 32, Causal: true, Cached: true, Ring: true, Window: 294, Slopes: []float32{0.5, 0.25, 0.125, 0.0625}}, 300, 7, 303, 1234, 599),
		e("ring of several blocks, one query", Spec{Batch: 3, Queries: 1, Keys: 1300, Heads: 2, Groups: 1, Dim: 16, Causal: true, Cached: true, Ring: true, Window: 1300}, 1300, 2000, 1_000_003),
		m("mask for all", Spec{Batch: 2, Queries: 66, Keys: 280, Heads: 2, Groups: 1, Dim: 12}),
		m("mask for each", Spec{Batch: 2, Queries: 9, Keys: 13, Heads: 2, Groups: 2, Dim: 12, MaskBatch: true, MaskHeads: true}),
		m("mask for each example, causal", Spec{Batch: 2, Queries: 20, Keys: 20, Heads: 2, Groups: 2, Dim: 12, MaskBatch: true, Causal: true}),
	}
}

func TestAttention(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, e := range examples() {
		s := e.s
		s.Scale = 1 / math.Sqrt(float64(s.Dim))
		nq, nk, nr := s.Batch*s.Queries*s.Heads*s.Dim, s.Batch*s.Keys*s.Groups*s.Dim, s.Batch*s.Queries*s.Heads
		q, k, v, dy := normal(r, nq), normal(r, nk), normal(r, nk), normal(r, nq)
		for i := range q {
			q[i] *= 3
		}
		var mask []byte
		if e.masked {
			mask = make([]byte, (&Plan{Spec: s}).maskAt(s.Batch-1, s.Heads-1)+s.Queries*s.Keys)
			for i := range mask {
				if r.IntN(3) > 0 && i >= 2*s.Keys { // the first two queries see nothing
					mask[i] = 1
				}
			}
		}
		y, lse, dq, dk, dv := naive(s, q, k, v, dy, e.lengths, mask)
		for _, way := range ways() {
			t.Run(fmt.Sprint(e.name, "/", way), func(t *testing.T) {
				defer isa.Use(way.level)()
				var first [][]float32
				for threads := 1; threads <= 3; threads++ {
					pool := par.New(threads)
					got := [][]float32{nan(nq), nan(nr), nan(nq), nan(nk), nan(nk)}
					p := way.plan(s)
					for range 2 { // the second time in used memory
						p.Run(pool, got[0], got[1], q, k, v, e.lengths, mask)
					}
					near(t, "y", got[0], y)
					near(t, "lse", got[1], lse)
					delta := make([]float32, nr)
					for i := range delta {
						for x := range s.Dim {
							delta[i] += got[0][i*s.Dim+x] * dy[i*s.Dim+x]
						}
					}
					back := way.plan(s)
					for range 2 {
						back.Backward(pool, got[2], got[3], got[4], q, k, v, e.lengths, mask, got[1], delta, dy)
					}
					near(t, "dq", got[2], dq)
					near(t, "dk", got[3], dk)
					near(t, "dv", got[4], dv)
					pool.Close()
					if first == nil {
						first = got
					}
					for i := range got {
						for j := range got[i] {
							if math.Float32bits(got[i][j]) != math.Float32bits(first[i][j]) {
								t.Fatalf("%d threads: result %d differs at %d", threads, i, j)
							}
						}
					}
				}
			})
		}
	}
}

// A NaN reaches the queries that see it and no other; infinite keys that nobody sees do no harm.
func TestNaN(t *testing.T) {
	s := Spec{Batch: 1, Queries: 300, Keys: 300, Heads: 1, Groups: 1, Dim: 8, Scale: 1, Causal: true}
	r := rand.New(rand.NewPCG(5, 6))
	q, k, v := normal(r, 2400), normal(r, 2400), normal(r, 2400)
	k[270*8] = float32(math.NaN())
	for _, way := range ways() {
		restore := isa.Use(way.level)
		y, lse := nan(2400), nan(300)
		way.plan(s).Run(nil, y, lse, q, k, v, nil, nil)
		for i := range lse {
			if isNaN := lse[i] != lse[i]; isNaN != (i >= 270) || isNaN != (y[i*8] != y[i*8]) {
				t.Fatalf("%v: query %d has %g and logarithm %g", way, i, y[i*8], lse[i])
			}
		}
		restore()
	}
}

// On the matrix unit the error is that of vectors, of operands and gradients of many magnitudes too, whether numbers below the least normal one count as zero or not.
func TestAsExactAsVectors(t *testing.T) {
	if !isa.AMX() {
		t.Skip("no AMX")
	}
	s := Spec{Batch: 1, Queries: 450, Keys: 450, Heads: 2, Groups: 1, Dim: 64, Scale: 0.125, Causal: true}
	r := rand.New(rand.NewPCG(7, 8))
	nq, nk := 450*2*64, 450*64
	q, k, v, dy := normal(r, nq), normal(r, nk), normal(r, nk), normal(r, nq)
	for i := range q {
		q[i] *= 4
		dy[i] *= float32(math.Exp2(float64(r.IntN(20) - 10)))
	}
	for i := range v {
		v[i] *= float32(math.Exp2(float64(r.IntN(20) - 10)))
	}
	y, lse, dq, dk, dv := naive(s, q, k, v, dy, nil, nil)
	delta := make([]float32, 900)
	for i := range delta {
		for x := range 64 {
			delta[i] += float32(y[i*64+x]) * dy[i*64+x]
		}
	}
	errs := map[bool][5]float64{}
	for _, tiles := range []bool{false, true} {
		got := [][]float32{nan(nq), nan(900), nan(nq), nan(nk), nan(nk)}
		p := build(s, tiles, tiles)
		p.Run(nil, got[0], got[1], q, k, v, nil, nil)
		p = build(s, tiles, tiles)
		p.Backward(nil, got[2], got[3], got[4], q, k, v, nil, nil, got[1], delta, dy)
		var e [5]float64
		for i, want := range [][]float64{y, lse, dq, dk, dv} {
			for j := range want {
				e[i] += math.Pow(float64(got[i][j])-want[j], 2)
			}
			e[i] = math.Sqrt(e[i])
		}
		errs[tiles] = e
	}
	for i, what := range []string{"y", "lse", "dq", "dk", "dv"} {
		t.Logf("%s: %.3g, vectors %.3g", what, errs[true][i], errs[false][i])
		if !(errs[true][i] <= 1.5*errs[false][i]) {
			t.Errorf("%s: the error is %.3g, that of vectors %.3g", what, errs[true][i], errs[false][i])
		}
	}
}

// Long sequences of usual heads run on the matrix unit, and what they run there is counted; short ones and narrow heads do not, nor does anything without AMX.
func TestChoice(t *testing.T) {
	s := Spec{Batch: 1, Queries: 4096, Keys: 4096, Heads: 8, Groups: 8, Dim: 64, Scale: 0.125}
	for _, backward := range []bool{false, true} {
		all, bf16 := New(s).Executed(backward)
		products := int64(2)
		if backward {
			products = 5
		}
		if want := products * 6 * 2 * 8 * 64 * 4096 * 4096; isa.AMX() && (bf16 != want || all != want+5*8*4096*4096) || !isa.AMX() && all+bf16 != 0 {
			t.Errorf("backward %v: %d of %d executed on AMX, want %d", backward, bf16, all, want)
		}
		for _, change := range []func(*Spec){func(s *Spec) { s.Queries = 1 }, func(s *Spec) { s.Queries, s.Keys = 16, 16 }, func(s *Spec) { s.Dim = 8 }, func(s *Spec) { s.Scale = -1 }, func(s *Spec) { s.Queries, s.Keys = 0, 0 }} {
			u := s
			change(&u)
			if all, bf16 := New(u).Executed(backward); all+bf16 != 0 {
				t.Errorf("backward %v: %+v is taken", backward, u)
			}
		}
		restore := isa.Use(isa.AVX2)
		if all, _ := New(s).Executed(backward); all != 0 {
			t.Errorf("backward %v: taken with AVX2", backward)
		}
		restore()
	}
}

// Nothing is allocated after the first run.
func TestAllocations(t *testing.T) {
	for _, way := range ways() {
		testAllocations(t, way)
	}
}

func testAllocations(t *testing.T, way way) {
	defer isa.Use(way.level)()
	s := Spec{Batch: 1, Queries: 100, Keys: 100, Heads: 2, Groups: 1, Dim: 16, Scale: 0.25, Causal: true}
	q, k, lse := make([]float32, 3200), make([]float32, 1600), make([]float32, 200)
	dq, dk, dv, y := make([]float32, 3200), make([]float32, 1600), make([]float32, 1600), make([]float32, 3200)
	f, b := way.plan(s), way.plan(s)
	if n := allocs.PerRun(func() {
		f.Run(nil, y, lse, q, k, k, nil, nil)
		b.Backward(nil, dq, dk, dv, q, k, k, nil, nil, lse, lse, y)
	}); n > 0 {
		t.Fatalf("%v: %v allocations a run", way, n)
	}
}

// BenchmarkAttention is attention on vectors and, where there is AMX, on tiles: the table of docs/decisions/f32-on-amx.md.
func BenchmarkAttention(b *testing.B) {
	pool := par.New(2)
	defer pool.Close()
	for _, c := range []struct {
		t, batch, heads, dim int
		causal               bool
	}{{32, 64, 8, 64, true}, {64, 32, 8, 64, true}, {64, 32, 8, 64, false}, {128, 16, 4, 64, true}, {128, 8, 12, 32, false}, {256, 8, 8, 64, true}, {512, 4, 8, 64, true}, {512, 1, 12, 32, false}, {512, 2, 8, 128, true}, {4096, 1, 8, 64, true}, {4096, 1, 8, 64, false}, {4096, 1, 8, 16, true}} {
		s := Spec{Batch: c.batch, Queries: c.t, Keys: c.t, Heads: c.heads, Groups: c.heads, Dim: c.dim, Scale: 0.125, Causal: c.causal}
		n := c.batch * c.t * c.heads * c.dim
		r := rand.New(rand.NewPCG(1, 1))
		q, k, v, dy := normal(r, n), normal(r, n), normal(r, n), normal(r, n)
		y, lse, dq, dk, dv := nan(n), nan(n/c.dim), nan(n), nan(n), nan(n)
		pairs := float64(c.t) * float64(c.t)
		if c.causal {
			pairs = float64(c.t) * float64(c.t+1) / 2
		}
		flops := float64(c.batch*c.heads) * pairs * 2 * float64(c.dim) // of a product
		for _, tiles := range []bool{false, true} {
			way := map[bool]string{false: "vectors", true: "tiles"}[tiles]
			if tiles && !isa.AMX() {
				continue
			}
			p, back := build(s, tiles, tiles), build(s, tiles, tiles)
			run := func(pass string, products float64, f func()) {
				b.Run(fmt.Sprintf("%s/T%dx%dx%d causal %v/%s", pass, c.t, c.heads, c.dim, c.causal, way), func(b *testing.B) {
					for b.Loop() {
						f()
					}
					b.ReportMetric(products*flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
			run("forward", 2, func() { p.Run(pool, y, lse, q, k, v, nil, nil) })
			run("backward", 5, func() { back.Backward(pool, dq, dk, dv, q, k, v, nil, nil, lse, lse, dy) })
		}
	}
}
