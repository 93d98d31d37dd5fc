package conv

import (
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/kernel/tgemm"
	"github.com/jouleml/joule/internal/par"
)

// A convolution whose filter is one pixel and reads every pixel once is a product of matrices of [pixels, channels]; where package tgemm takes it, it is faster than any other way.

// tiles is a product by package tgemm, with the memory that its runs need.
type tiles struct {
	plan    *tgemm.Plan
	scratch *[]uint32 // the caller's, see Plan.Lend
	own     []uint32  // else
}

func (t *tiles) name() string { return "product on AMX" }

func (t *tiles) flops() int64 { return t.plan.Executed() }

func (t *tiles) words(threads int) int { return t.plan.Scratch(threads) }

func (t *tiles) lend(scratch *[]uint32) { t.scratch = scratch }

// memory is scratch memory for a run of plan.
func (t *tiles) memory(plan *tgemm.Plan, pool *par.Pool) []uint32 {
	n := plan.Scratch(pool.Threads())
	if t.scratch != nil && len(*t.scratch) >= n {
		return *t.scratch
	}
	if len(t.own) < n {
		t.own = make([]uint32, n)
	}
	return t.own
}

// tileProduct computes y from x and w, or dx from dy and w.
type tileProduct struct {
	tiles
	w []float32
	// Filters that stay for many runs are split once, if that leaves the order of the sums as it is.
	fixed  *tgemm.Plan
	packed []uint32 // nil unless such filters were set last
	space  []uint32
}

// planTiles plans the product g that s is; nil where it is none, or tgemm does not take it.
func (s Spec) planTiles(g gemm.Spec) *tgemm.Plan {
	if !s.pointwise() {
		return nil
	}
	return tgemm.New(g)
}

// newTileProduct is the product of s in direction d, Forward or BackwardInput; nil where tgemm does not take it.
func newTileProduct(s Spec, d Direction) *tileProduct {
	g := gemm.Spec{M: s.N * s.H * s.W, K: s.Cin, N: s.Cout, Bias: s.Epilogue.Bias, Act: s.Epilogue.Act}
	if d == BackwardInput {
		g = gemm.Spec{M: g.M, K: s.Cout, N: s.Cin, TransB: true}
	}
	p := s.planTiles(g)
	if p == nil {
		return nil
	}
	t := &tileProduct{tiles: tiles{plan: p}}
	if g.PackedB = true; d == Forward && p.Parts() == 1 {
		t.fixed = tgemm.New(g)
	}
	return t
}

func (t *tileProduct) setFilter(_ *par.Pool, w []float32) { t.w, t.packed = w, nil }

func (t *tileProduct) keepFilter(pool *par.Pool, w []float32) {
	t.setFilter(pool, w)
	if t.fixed == nil {
		return
	}
	if t.space == nil {
		t.space = make([]uint32, t.fixed.PackedLen())
	}
	t.fixed.PackB(t.space, w, t.memory(t.fixed, pool))
	t.w, t.packed = nil, t.space
}

func (t *tileProduct) words(threads int) int {
	n := t.plan.Scratch(threads)
	if t.fixed != nil {
		n = max(n, t.fixed.Scratch(threads))
	}
	return n
}

func (t *tileProduct) run(pool *par.Pool, in, bias, out []float32) {
	if t.packed != nil {
		t.fixed.RunPacked(pool, in, t.packed, out, bias, t.memory(t.fixed, pool))
		return
	}
	t.plan.Run(pool, in, t.w, out, bias, t.memory(t.plan, pool))
}

// tileFilter computes dw.
type tileFilter struct{ tiles }

// newTileFilter is the product xᵀ·dy of s; nil where tgemm does not take it.
func newTileFilter(s Spec) *tileFilter {
	g := gemm.Spec{M: s.Cin, K: s.N * s.H * s.W, N: s.Cout, TransA: true}
	p := s.planTiles(g)
	if p == nil {
		return nil
	}
	return &tileFilter{tiles{plan: p}}
}

func (t *tileFilter) run(pool *par.Pool, x, dy, dw []float32) {
	t.plan.Run(pool, x, dy, dw, nil, t.memory(t.plan, pool))
}
