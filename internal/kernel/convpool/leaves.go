package convpool

import (
	"unsafe"

	"github.com/jouleml/joule/internal/isa"
)

// The kernels, each in plain Go here and in assembly. Strides count elements.
type (
	// directFunc computes a line of windows, y[i·stride+j] for window i and column j, and the positions ix likewise unless nil:
	// the four sums of x[r·rowStride+c·cin+k]·w[(k·9+tap)·cols+j], greatest of them, bias[j], rectifier.
	directFunc func(y *float32, ix *uint8, x, w, bias *float32, rowStride, cin, stride, windows int)
	// pointsFunc transforms the patches of a line of windows: dst[p·pointStride+i·cin+c].
	pointsFunc func(dst *float32, pointStride int, x *float32, rowStride, cin, windows int)
	// filtersFunc transforms filters: dst[p·pointStride+r·dstRow+j] from w[tap·tapStride+r·srcRow+j].
	filtersFunc func(dst *float32, pointStride, dstRow int, w *float32, tapStride, srcRow, rows, cols int)
	// pooledFunc transforms sums m[p·pointStride+i·ldm+j] back and pools them to y[i·stride+j].
	pooledFunc func(y *float32, ix *uint8, m *float32, pointStride, ldm int, bias *float32, stride, cols, windows int)
	// lanesFunc adds to acc[tap·width+j] the gradient dy[i·stride+j] times the pixel that ix[i·stride+j] picks from the window's
	// four under that tap, and to acc[9·width+j] the gradient. Window i of line l reads the pairs of rows 2l to 2l+2.
	lanesFunc func(acc *float32, pairs *float32, pairRow int, ix *uint8, dy *float32, stride, rows, windows int)
	// combineFunc does for each job j, with list j: dst[dstOff[j]+r·dstRow+k] += Σ gs[i]·src[off[i]+r·srcRow+k], for the rows r and
	// floats k of the kernel's strip, and sums[j] += Σ gs[i].
	combineFunc func(dst *float32, dstOff *int32, dstRow int, src *float32, srcRow int, off *int32, gs *float32, count *int32, listStride, jobs int, sums *float32)
)

// transforms are Winograd's.
type transforms struct {
	points  pointsFunc
	filters filtersFunc
	pooled  pooledFunc
}

// newTransforms picks the widest versions whose vectors divide the channels.
func newTransforms(l isa.Level, cin, cout int) transforms {
	if l == isa.Portable {
		return transforms{pointsGo, filtersGo, pooledGo}
	}
	return vecTransforms(l, cin, cout)
}

type directKernel struct {
	cols   int
	vector bool
	run    directFunc
}

var directGoKernels = []directKernel{
	{8, false, func(y *float32, ix *uint8, x, w, bias *float32, rowStride, cin, stride, windows int) {
		directGo(8, y, ix, x, w, bias, rowStride, cin, stride, windows)
	}},
	{1, false, func(y *float32, ix *uint8, x, w, bias *float32, rowStride, cin, stride, windows int) {
		directGo(1, y, ix, x, w, bias, rowStride, cin, stride, windows)
	}},
}

// directKernels are the widths there are, widest first.
func directKernels(l isa.Level) []directKernel {
	if l == isa.Portable {
		return directGoKernels
	}
	return append(vecDirect(l), directGoKernels...)
}

// lanesKernel is the widest version for that many output channels.
func lanesKernel(l isa.Level, cout int) (width int, f lanesFunc) {
	if l != isa.Portable && cout >= 8 {
		return vecLanes(l, cout)
	}
	width = 1
	if cout >= 8 {
		width = 8
	}
	return width, func(acc *float32, pairs *float32, pairRow int, ix *uint8, dy *float32, stride, rows, windows int) {
		lanesGo(width, acc, pairs, pairRow, ix, dy, stride, rows, windows)
	}
}

// strips cuts three rows of n floats into what the kernels for level l take; tall prefers all rows at a time.
func strips(l isa.Level, n int, tall bool) []strip {
	if l == isa.Portable || n%48 != 0 {
		return []strip{{0, 0, func(dst *float32, dstOff *int32, dstRow int, src *float32, srcRow int, off *int32, gs *float32, count *int32, listStride, jobs int, sums *float32) {
			combineGo(3, n, dst, dstOff, dstRow, src, srcRow, off, gs, count, listStride, jobs, sums)
		}}}
	}
	return vecStrips(l, n, tall)
}

func at[T any](p *T, i int) *T { return (*T)(unsafe.Add(unsafe.Pointer(p), i*int(unsafe.Sizeof(*p)))) }

// poolGo is the end of a window: greatest, bias, rectifier, position.
func poolGo(a [4]float32, bias float32) (y float32, position uint8) {
	k := 0
	m0, m1, k1 := a[0], a[2], 2
	if a[1] > m0 {
		m0, k = a[1], 1
	}
	if a[3] > m1 {
		m1, k1 = a[3], 3
	}
	if m1 > m0 {
		m0, k = m1, k1
	}
	m0 += bias
	switch {
	case m0 > 0:
		return m0, uint8(k)
	case m0 != m0:
		return m0, Dead
	}
	return 0, Dead
}

func directGo(cols int, y *float32, ix *uint8, x, w, bias *float32, rowStride, cin, stride, windows int) {
	for i := range windows {
		for j := range cols {
			var a [4]float32
			for c := range cin {
				for t := range 9 {
					f := *at(w, (c*9+t)*cols+j)
					for k := range a {
						a[k] += f * *at(x, (k/2+t/3)*rowStride+(2*i+k%2+t%3)*cin+c)
					}
				}
			}
			v, k := poolGo(a, *at(bias, j))
			*at(y, i*stride+j) = v
			if ix != nil {
				*at(ix, i*stride+j) = k
			}
		}
	}
}

func pointsGo(dst *float32, pointStride int, x *float32, rowStride, cin, windows int) {
	line := func(d [4]float32) [4]float32 { return [4]float32{d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]} }
	for i := range windows {
		for c := range cin {
			var t [4][4]float32 // [column][row of points]
			for j := range t {
				p := at(x, (2*i+j)*cin+c)
				t[j] = line([4]float32{*p, *at(p, rowStride), *at(p, 2*rowStride), *at(p, 3*rowStride)})
			}
			for r := range 4 {
				for j, v := range line([4]float32{t[0][r], t[1][r], t[2][r], t[3][r]}) {
					*at(dst, (4*r+j)*pointStride+i*cin+c) = v
				}
			}
		}
	}
}

func filtersGo(dst *float32, pointStride, dstRow int, w *float32, tapStride, srcRow, rows, cols int) {
	line := func(g [3]float32) [4]float32 {
		s := g[0] + g[2]
		return [4]float32{g[0], 0.5 * (s + g[1]), 0.5 * (s - g[1]), g[2]}
	}
	for r := range rows {
		for c := range cols {
			var t [3][4]float32
			for kx := range t {
				p := at(w, kx*tapStride+r*srcRow+c)
				t[kx] = line([3]float32{*p, *at(p, 3*tapStride), *at(p, 6*tapStride)})
			}
			for i := range 4 {
				for j, v := range line([3]float32{t[0][i], t[1][i], t[2][i]}) {
					*at(dst, (4*i+j)*pointStride+r*dstRow+c) = v
				}
			}
		}
	}
}

func pooledGo(y *float32, ix *uint8, m *float32, pointStride, ldm int, bias *float32, stride, cols, windows int) {
	for i := range windows {
		for j := range cols {
			var s [2][4]float32
			for k := range 4 {
				p := at(m, k*pointStride+i*ldm+j)
				a, b, c, d := *p, *at(p, 4*pointStride), *at(p, 8*pointStride), *at(p, 12*pointStride)
				s[0][k], s[1][k] = b+c+a, b-c-d
			}
			var a [4]float32
			for r, t := range s {
				a[2*r], a[2*r+1] = t[1]+t[2]+t[0], t[1]-t[2]-t[3]
			}
			v, k := poolGo(a, *at(bias, j))
			*at(y, i*stride+j) = v
			if ix != nil {
				*at(ix, i*stride+j) = k
			}
		}
	}
}

func lanesGo(width int, acc *float32, pairs *float32, pairRow int, ix *uint8, dy *float32, stride, rows, windows int) {
	for l := range rows {
		for i := range windows {
			for j := range width {
				k := int(*at(ix, (l*windows+i)*stride+j))
				if k >= Dead {
					continue
				}
				g := *at(dy, (l*windows+i)*stride+j)
				for t := range 9 {
					*at(acc, t*width+j) += g * *at(pairs, (2*l+t/3)*pairRow+2*(2*i+t%3)+k/2+k%2*2)
				}
				*at(acc, 9*width+j) += g
			}
		}
	}
}

func combineGo(rows, strip int, dst *float32, dstOff *int32, dstRow int, src *float32, srcRow int, off *int32, gs *float32, count *int32, listStride, jobs int, sums *float32) {
	for j := range jobs {
		n := int(*at(count, j))
		o, g := unsafe.Slice(at(off, j*listStride), n), unsafe.Slice(at(gs, j*listStride), n)
		s := float32(0)
		for i, e := range o {
			for r := range rows {
				d := unsafe.Slice(at(dst, int(*at(dstOff, j))+r*dstRow), strip)
				for k, v := range unsafe.Slice(at(src, int(e)+r*srcRow), strip) {
					d[k] += g[i] * v
				}
			}
			s += g[i]
		}
		*at(sums, j) += s
	}
}
