package conv

import (
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

// patchFilter computes dw as the product of the patches of x, turned over so that each row is one element of the patches and its
// columns the pixels of dy, with dy. It serves few pixels of many channels: dw is then the largest operand, which the spans of
// directFilter visit again and again, while each row of the patches is short.
type patchFilter struct {
	spec    Spec
	pixels  int // of dy
	plan    *gemm.Plan
	ld      int
	patches []float32   // [KH·KW·Cin][pixels]
	workers [][]float32 // some pixels of a tap
	x       []float32
}

const (
	// patchPixels is how many pixels of a tap are copied at a time.
	patchPixels = 64
	// patchColumns are the channels of y from which on a patch is worth its copy, and patchFloats how many floats the patches may have.
	patchColumns = 256
	patchFloats  = 2 << 20
)

// patchesFit reports whether the gradient for the filters is of the kind that patchFilter serves.
func (s Spec) patchesFit() bool {
	return s.Groups == 1 && s.Cin >= 16 && s.Cout >= patchColumns && s.N*s.OH()*s.OW()*s.KH*s.KW*s.Cin <= patchFloats && s.N > 0
}

func newPatchFilter(s Spec) *patchFilter {
	f := &patchFilter{spec: s, pixels: s.N * s.OH() * s.OW()}
	f.ld = vectors(f.pixels)
	if f.ld%256 == 0 { // rows that meet in few sets of the caches
		f.ld += 16
	}
	f.patches = make([]float32, s.KH*s.KW*s.Cin*f.ld)
	f.plan = gemm.New(gemm.Spec{M: s.KH * s.KW * s.Cin, K: f.pixels, N: s.Cout, LDA: f.ld})
	return f
}

func (f *patchFilter) name() string { return "patches" }

func (f *patchFilter) flops() int64 { return f.plan.FLOPs() }

func (f *patchFilter) run(pool *par.Pool, x, dy, dw []float32) {
	for len(f.workers) < pool.Threads() {
		f.workers = append(f.workers, make([]float32, patchPixels*f.spec.Cin))
	}
	f.x = x
	pool.Run(f.spec.KH*f.spec.KW*ceilDiv(f.pixels, patchPixels), f)
	f.x = nil
	f.plan.Run(pool, f.patches, dy, dw, nil, nil)
}

// Chunk copies some pixels of a tap.
func (f *patchFilter) Chunk(i, worker int) {
	s, buf := &f.spec, f.workers[worker]
	per := ceilDiv(f.pixels, patchPixels)
	tap, first := i/per, i%per*patchPixels
	n := min(patchPixels, f.pixels-first)
	ky, kx, c, ow, oh := tap/s.KW, tap%s.KW, s.Cin, s.OW(), s.OH()
	for j := range n {
		p := first + j
		y, x := p/ow%oh*s.StrideH-s.PadTop+ky*s.DilH, p%ow*s.StrideW-s.PadLeft+kx*s.DilW
		row := buf[j*c:][:c]
		if y < 0 || y >= s.H || x < 0 || x >= s.W {
			clear(row)
			continue
		}
		copy(row, f.x[((p/(ow*oh)*s.H+y)*s.W+x)*c:])
	}
	gemm.Transpose(f.patches[tap*c*f.ld+first:], buf, f.ld, c, n, c)
}
