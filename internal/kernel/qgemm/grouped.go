package qgemm

// Convolutions whose channels are cut into groups: patches of all channels, and sums of each group apart. Depthwise ones (one channel and one filter a group) have a kernel of their
// own; others are plain loops.

// pairwise reports whether the depthwise kernel takes the plan: pixels of a patch two at a time, weights of 16 bits.
func (p *Plan) pairwise() bool {
	return p.level != portable && p.N == p.Groups && p.Conv.C == p.Groups
}

func newGrouped(s Spec) *Plan {
	p := &Plan{Spec: s, level: current(), rows: 16}
	p.depth = s.K * s.Groups
	n := (s.N + 15) / 16 * 16
	p.scale, p.offset = make([]float32, n), make([]float32, n)
	if p.pairwise() {
		p.groups = (s.Conv.KH*s.Conv.KW + 1) / 2
		p.b16 = make([]int16, 2*p.groups*s.N)
	} else {
		p.b8 = make([]int8, s.K*s.N)
	}
	return p
}

// setGrouped keeps weights [KH, KW, C/Groups, N], or of the depthwise kernel [pairs, N, 2].
func (p *Plan) setGrouped(b []int8) {
	if !p.pairwise() {
		copy(p.b8, b[:p.K*p.N])
		return
	}
	for i, v := range b[:p.K*p.N] {
		tap, c := i/p.N, i%p.N
		p.b16[(tap/2*p.N+c)*2+tap%2] = int16(v)
	}
}

// grouped computes n output pixels from the first on.
func (p *Plan) grouped(w *worker, first, n int) {
	c := p.Conv
	size := c.H * c.W * c.C
	for r := range n {
		at := first + r
		x := p.a[at/(c.OH*c.OW)*size:][:size]
		c.patch(w.patches, x, at/c.OW%c.OH*c.StrideH-c.PadTop, at%c.OW*c.StrideW-c.PadLeft)
		done := 0
		if p.pairwise() {
			done = depthwiseBlocks(w.sums, w.patches, p.b16, p.N, p.groups)
		}
		p.sums(w.sums, w.patches, done)
		whole := 0
		if p.y8 != nil {
			if whole = p.N / 16 * 16; whole > 0 {
				requantize(p.level, p.y8[at*p.N:], p.N, w.sums, len(w.sums), p.scale, p.offset, float32(p.Low), whole, 1)
			}
			requantizeGo(p.y8[at*p.N+whole:][:p.N-whole], w.sums[whole:], p.scale[whole:], p.offset[whole:], float32(p.Low))
			continue
		}
		p.finish(w.sums, at, 0, p.N)
	}
}

// sums computes the outputs from the given one on in plain Go.
func (p *Plan) sums(acc []int32, patch []uint8, from int) {
	if from == p.N {
		return
	}
	channels, in, out := p.Conv.C, p.Conv.C/p.Groups, p.N/p.Groups
	clear(acc[from:])
	weight := func(tap, k, o int) int32 {
		if p.b8 == nil {
			return int32(p.b16[(tap/2*p.N+o)*2+tap%2])
		}
		return int32(p.b8[(tap*in+k)*p.N+o])
	}
	for tap := range p.Conv.KH * p.Conv.KW {
		for g := from / out; g < p.Groups; g++ {
			for k, v := range patch[tap*channels+g*in:][:in] {
				if p.b8 != nil {
					to := acc[g*out:][:out]
					for o, b := range p.b8[(tap*in+k)*p.N+g*out:][:out] {
						to[o] += int32(v) * int32(b)
					}
					continue
				}
				for o := max(from, g*out); o < (g+1)*out; o++ {
					acc[o] += int32(v) * weight(tap, k, o)
				}
			}
		}
	}
}

// dilated copies the patch whose corner is at (top, left), its pixels DilH and DilW apart.
func (c *Conv) dilated(dst, x []uint8, top, left int) {
	for i := range c.KH {
		for j := range c.KW {
			d, y, at := dst[(i*c.KW+j)*c.C:][:c.C], top+i*max(1, c.DilH), left+j*max(1, c.DilW)
			if y < 0 || y >= c.H || at < 0 || at >= c.W {
				fill(d, c.Zero)
				continue
			}
			copy(d, x[(y*c.W+at)*c.C:])
		}
	}
}

// Add sets y = a·scaleA + b·scaleB + offset, each operation rounded, then to whole numbers (halves to even), from lo to 255.
func Add(y, a, b []uint8, scaleA, scaleB, offset, lo float32) {
	a, b = a[:len(y)], b[:len(y)]
	for i := addBlocks(current(), y, a, b, scaleA, scaleB, offset, lo); i < len(y); i++ {
		y[i] = toByte(AddFloat(a[i], b[i], scaleA, scaleB, offset), lo)
	}
}

// AddFloat is one such sum before it becomes a byte.
func AddFloat(a, b uint8, scaleA, scaleB, offset float32) float32 {
	v := float32(float32(a)*scaleA) + float32(float32(b)*scaleB)
	return v + offset
}
