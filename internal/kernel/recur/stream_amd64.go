package recur

// stream sets the sums of a block's units, gates Units apart, to in and the products of a part of a state and the block's weights for it.
func (p *Plan) stream(y, in, a, w []float32) {
	gates := p.Cell.Gates()
	last := (gates-1)*p.Units + blockUnits - 1
	_, _, _, _ = y[last], in[last], a[len(a)-1], w[len(a)*gates*blockUnits-1]
	switch gates {
	case 1:
		stream1AVX512(&y[0], &in[0], &a[0], &w[0], len(a), 4*p.Units)
	case 3:
		stream3AVX512(&y[0], &in[0], &a[0], &w[0], len(a), 4*p.Units)
	case 4:
		stream4AVX512(&y[0], &in[0], &a[0], &w[0], len(a), 4*p.Units)
	}
}
