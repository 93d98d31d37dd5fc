// Package spgemm multiplies floats by weights of which only some are kept, at places that follow a pattern.
//
// Terminology: weights [K, N] lie in panels of 16 outputs. With blocks a panel keeps Kept inputs of the K, each with all of its 16 weights: values [panels, Kept, 16] and, for each, the number of the input, index i32
// [panels, Kept]. With pairs (2:4) each output keeps two of every four inputs: values [panels, K/2, 16], the two of a group one after the other, and a byte [panels, K/4, 16] that says which, the first in bits 0 and 1, the
// second in bits 2 and 3. A last panel that is not full has zeros.
//
//	blocks: y[m][n] = Σ_s x[m][index[s]]·w[s][n];  pairs: y[m][n] = Σ_g x[m][4g+a]·w[2g][n] + x[m][4g+b]·w[2g+1][n]
//
// Blocks do a share Kept/K of the arithmetic, at the speed of a dense product. Pairs gain nothing there, since picking inputs costs as much as multiplying them; they gain where a row alone is multiplied and the reading of
// weights is all the time it takes.
//
// Sums go in the order of the kept inputs; which are kept apart depends on the number of rows and on the instruction set, so that results are the same bits for any number of threads.
//
//go:generate go run -C ../vec/_asm ./spgemm -pkg spgemm -out ../../spgemm/spgemm_amd64.s -stubs ../../spgemm/stubs_amd64.go
package spgemm

import (
	"fmt"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// Width is the number of outputs of a panel.
const Width = 16

// Spec says what a Plan computes: x [M, K] times sparse weights [K, N].
type Spec struct {
	M, N, K int
	Kept    int  // inputs of a panel, a multiple of 4; with pairs K/2
	Pairs   bool // two of every four inputs of each output; K is a multiple of 8
}

// Check says what is wrong with a Spec.
func (s Spec) Check() error {
	switch {
	case s.M < 0 || s.N < 1 || s.K < 1:
		return fmt.Errorf("spgemm: %d rows times weights [%d %d]", s.M, s.K, s.N)
	case s.Pairs && (s.K%8 != 0 || s.Kept != s.K/2):
		return fmt.Errorf("spgemm: pairs of %d inputs, %d kept: the inputs must be a multiple of 8, and half of them kept", s.K, s.Kept)
	case s.Kept < 4 || s.Kept%4 != 0:
		return fmt.Errorf("spgemm: %d inputs kept: it must be a multiple of 4", s.Kept)
	}
	return nil
}

// Panels is the number of panels.
func (s Spec) Panels() int { return (s.N + Width - 1) / Width }

// tile is a way to compute some rows of a panel.
type tile struct {
	rows   int
	blocks func(y, x, w *float32, index *int32, stride, ystride, steps int)
	pairs  func(y, x, w *float32, index *uint8, stride, ystride, steps int)
}

// Plan is a Spec with its decisions. One Run at a time.
type Plan struct {
	Spec
	level  isa.Level
	tiles  []tile // from the one of most rows to that of one
	blocks int    // of rows
	group  int    // panels of a chunk
	out    [][]float32

	y, x, w []float32
	index   []int32
	places  []uint8
}

const (
	most     = 12       // rows of a tile, at most
	rowBlock = 8 * most // rows of a chunk
)

// New plans. It panics if s is wrong.
func New(s Spec) *Plan {
	if err := s.Check(); err != nil {
		panic(err.Error())
	}
	p := &Plan{Spec: s, level: isa.Current()}
	p.tiles = tilesOf(p.level, s.Pairs)
	p.blocks = (s.M + rowBlock - 1) / rowBlock
	// A chunk is worth some microseconds: 2¹⁶ products at least.
	p.group = max(1, min(s.Panels(), 1<<16/(min(max(s.M, 1), rowBlock)*s.Kept*Width)))
	return p
}

// Run sets y [M, N] to the product of x [M, K] and weights; index is for blocks, places for pairs. Indices must be from 0 to K-1.
func (p *Plan) Run(pool *par.Pool, y, x, w []float32, index []int32, places []uint8) {
	if p.level != isa.Current() {
		panic("spgemm: the plan was made for another instruction set")
	}
	n := p.Panels()
	if len(y) < p.M*p.N || len(x) < p.M*p.K || len(w) < n*p.Kept*Width || !p.Pairs && len(index) < n*p.Kept || p.Pairs && len(places) < n*p.K/4*Width {
		panic("spgemm: an operand is too short")
	}
	for len(p.out) < pool.Threads() {
		p.out = append(p.out, make([]float32, most*Width))
	}
	p.y, p.x, p.w, p.index, p.places = y, x, w, index, places
	pool.Run(p.blocks*((n+p.group-1)/p.group), (*body)(p))
	p.y, p.x, p.w, p.index, p.places = nil, nil, nil, nil, nil
}

type body Plan

// Chunk computes a block of rows of some panels.
func (f *body) Chunk(i, id int) {
	p := (*Plan)(f)
	lo, first := i%p.blocks*rowBlock, i/p.blocks*p.group
	hi := min(lo+rowBlock, p.M)
	for j := first; j < min(first+p.group, p.Panels()); j++ {
		cols := min(Width, p.N-j*Width)
		m := lo
		for _, t := range p.tiles {
			for ; m+t.rows <= hi; m += t.rows {
				y, stride := p.y[m*p.N+j*Width:], p.N
				if cols < Width {
					y, stride = p.out[id], Width
				}
				p.run(t, y, stride, m, j)
				if cols < Width {
					for r := range t.rows {
						copy(p.y[(m+r)*p.N+j*Width:][:cols], y[r*Width:])
					}
				}
			}
		}
	}
}

// run computes a tile.
func (p *Plan) run(t tile, y []float32, stride, m, j int) {
	x, w := p.x[m*p.K:], p.w[j*p.Kept*Width:][:p.Kept*Width]
	switch {
	case p.Pairs && t.pairs == nil:
		pairsGo(y[:Width], x[:p.K], w, p.places[j*p.K/4*Width:])
	case p.Pairs:
		t.pairs(&y[0], &x[0], &w[0], &p.places[j*p.K/4*Width], 4*p.K, 4*stride, p.K/4)
	case t.blocks == nil:
		blocksGo(y[:Width], x[:p.K], w, p.index[j*p.Kept:][:p.Kept])
	default:
		t.blocks(&y[0], &x[0], &w[0], &p.index[j*p.Kept], 4*p.K, 4*stride, p.Kept)
	}
}

// blocksGo is a row of a panel of blocks in plain Go.
func blocksGo(y, x, w []float32, index []int32) {
	clear(y)
	for s, k := range index {
		v := x[k]
		for j, c := range w[s*Width:][:Width] {
			y[j] += v * c
		}
	}
}

// pairsGo is a row of a panel of pairs in plain Go.
func pairsGo(y, x, w []float32, places []uint8) {
	clear(y)
	for g := range len(x) / 4 {
		four, at := x[4*g:][:4], places[g*Width:][:Width]
		a, b := w[2*g*Width:][:Width], w[(2*g+1)*Width:][:Width]
		for j, p := range at {
			y[j] += four[p&3]*a[j] + four[p>>2&3]*b[j]
		}
	}
}
