package wgemm

type kernel = func(y *float32, x *int8, w *uint8, scale *float32, aux *int32, stride, groups, inner int)

var (
	tiles8VNNI = [tileRows + 1]kernel{nil, tile8VNNI1, tile8VNNI2, tile8VNNI3, tile8VNNI4, tile8VNNI5, tile8VNNI6}
	tiles4VNNI = [tileRows + 1]kernel{nil, tile4VNNI1, tile4VNNI2, tile4VNNI3, tile4VNNI4, tile4VNNI5, tile4VNNI6}
	tiles8AVX2 = [3]kernel{nil, tile8AVX21, tile8AVX22}
	tiles4AVX2 = [3]kernel{nil, tile4AVX21, tile4AVX22}
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
	case p.Bits == 8:
		k = tiles8AVX2[n]
	default:
		k = tiles4AVX2[n]
	}
	k(&y[0], &q[0], &w[0], &scale[0], &aux[0], p.padded, p.groups, p.inner)
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
