package wgemm

import (
	"unsafe"

	"github.com/jouleml/joule/internal/isa"
)

type kernel = func(y *float32, x *int8, w *uint8, scale *float32, aux *int32, stride, groups, inner int)

var (
	tiles8VNNI    = [tileRows + 1]kernel{nil, tile8VNNI1, tile8VNNI2, tile8VNNI3, tile8VNNI4, tile8VNNI5, tile8VNNI6}
	tiles4VNNI    = [tileRows + 1]kernel{nil, tile4VNNI1, tile4VNNI2, tile4VNNI3, tile4VNNI4, tile4VNNI5, tile4VNNI6}
	tiles8AVXVNNI = [3]kernel{nil, tile8AVXVNNI1, tile8AVXVNNI2}
	tiles4AVXVNNI = [3]kernel{nil, tile4AVXVNNI1, tile4AVXVNNI2}
	tiles8AVX2    = [3]kernel{nil, tile8AVX21, tile8AVX22}
	tiles4AVX2    = [3]kernel{nil, tile4AVX21, tile4AVX22}
)

// run computes a tile of n rows.
func (p *Plan) run(y []float32, q []int8, w []uint8, scale []float32, aux []int32, n int) {
	var k kernel
	switch {
	case p.level == portable:
		p.runGo(y, q, w, scale, aux)
		return
	case p.level == vnni && p.Bits == 8:
		k = tiles8VNNI[n]
	case p.level == vnni:
		k = tiles4VNNI[n]
	case p.level == avxvnni && p.Bits == 8:
		k = tiles8AVXVNNI[n]
	case p.level == avxvnni:
		k = tiles4AVXVNNI[n]
	case p.Bits == 8:
		k = tiles8AVX2[n]
	default:
		k = tiles4AVX2[n]
	}
	k(&y[0], &q[0], &w[0], &scale[0], &aux[0], p.stride, p.groups, p.inner)
}

type rowKernel = func(y, in *float32, x *int8, w *uint8, scale *float32, aux, sums *int32, yStride, inStride, wStride, scaleStride, groups, inner int)

// rowKernels are by level, bits (8, 4) and panels.
var rowKernels = [4][2][rowPanels + 1]rowKernel{
	avx2:    {{nil, row8AVX21, row8AVX22, row8AVX23, row8AVX24}, {nil, row4AVX21, row4AVX22, row4AVX23, row4AVX24}},
	avxvnni: {{nil, row8AVXVNNI1, row8AVXVNNI2, row8AVXVNNI3, row8AVXVNNI4}, {nil, row4AVXVNNI1, row4AVXVNNI2, row4AVXVNNI3, row4AVXVNNI4}},
	vnni:    {{nil, row8VNNI1, row8VNNI2, row8VNNI3, row8VNNI4}, {nil, row4VNNI1, row4VNNI2, row4VNNI3, row4VNNI4}},
}

// row is Row with a kernel.
func (p *Plan) row(y, add []float32, q []int8, w []uint8, scale []float32, aux []int32, sums []uint8, at Panels) {
	kind := 0
	if p.Bits == 4 {
		kind = 1
	}
	rowKernels[p.level][kind][at.Count](&y[0], &add[0], &q[0], &w[0], &scale[0], &aux[0], (*int32)(unsafe.Pointer(unsafe.SliceData(sums))), 4*at.Step, 4*at.AddStep, at.Every*p.panelBytes(), 4*at.Every*p.groups*p.cols, p.groups, p.inner)
}

// greatest is the greatest magnitude in x, NaNs aside.
func greatest(l level, x []float32) float32 {
	n := len(x) / 8 * 8
	if l == portable || n == 0 {
		return greatestGo(x)
	}
	return max(greatestAVX2(&x[0], n/8), greatestGo(x[n:]))
}

// round sets q to x times inverse and gives the sum.
func round(l level, q []int8, x []float32, inverse float32) int32 {
	n := len(x) / 8 * 8
	if l == portable || n == 0 {
		return roundGo(q, x, inverse)
	}
	_ = q[len(x)-1]
	return quantizeAVX2(&q[0], &x[0], inverse, n/8) + roundGo(q[n:], x[n:], inverse)
}

// quantizeRow is toBytes on vectors of 512 bits; q may be longer than x.
func quantizeRow(q []int8, x []float32) (scale float32, sum int32) {
	_, _ = q[len(x)-1], x[len(x)-1]
	return quantizeAVX512(&q[0], &x[0], len(x)/16, 1<<(len(x)%16)-1, 127, tiny)
}

// hasUnit reports whether there is a matrix unit for bytes.
func hasUnit() bool { return isa.AMXInt8() }

// onUnit computes rows rows from the first on and the columns of panel j.
func (p *Plan) onUnit(k *worker, j, first, rows int) {
	w := p.w[j*p.panelBytes():]
	if p.Bits == 4 {
		_, _ = w[p.panelBytes()-1], k.wide[2*p.panelBytes()-1]
		unpackAVX512(&k.wide[0], &w[0], p.groups*p.inner)
		w = unsafe.Slice((*uint8)(unsafe.Pointer(unsafe.SliceData(k.wide))), len(k.wide))
	}
	cols := min(p.cols, p.N-j*p.cols)
	y, q, sx, s := p.y[first*p.N+j*p.cols:], p.q[first*p.stride:], p.sx[first*p.groups:], p.s[j*p.groups*p.cols:]
	_, _, _, _, _ = y[(rows-1)*p.N+cols-1], q[(rows+15)/16*16*p.stride-1], sx[rows*p.groups-1], s[p.groups*p.cols-1], w[p.groups*p.steps*unitStep-1]
	productsAMX(&y[0], &q[0], (*int8)(unsafe.Pointer(&w[0])), &s[0], &sx[0], 4*p.N, p.stride, 4*p.groups, p.groups, p.steps, rows, 1<<cols-1, &k.scratch, &isa.TileConfig)
}
