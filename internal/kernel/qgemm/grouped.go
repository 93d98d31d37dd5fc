package qgemm

// Convolutions whose channels are cut into groups: patches of all channels, and sums of each group apart. Depthwise ones (one channel and one filter a group) have a kernel of their
// own; others are plain loops.

// pairwise reports whether a depthwise kernel takes the plan: weights of 16 bits, pixels of a patch two at a time, or of 32 bits where patches are read in the image (direct).
func (p *Plan) pairwise() bool {
	return p.level != portable && p.depthwise()
}

// depthwisePixels is how many pixels side by side the kernel that reads the image does before they are brought to results.
const depthwisePixels = 16

func newGrouped(s Spec) *Plan {
	p := &Plan{Spec: s, level: current(), rows: 16}
	p.depth = s.K * s.Groups
	n := (s.N + 15) / 16 * 16
	p.width = n
	p.scale, p.offset = make([]float32, n), make([]float32, n)
	switch {
	case p.pairwise() && p.level == vnni:
		p.taps = make([]int32, s.Conv.KH*s.Conv.KW*n)
		p.rows = max(depthwisePixels, min(4*depthwisePixels, s.Conv.OW))
	case p.pairwise():
		p.groups = (s.Conv.KH*s.Conv.KW + 1) / 2
		p.b16 = make([]int16, 2*p.groups*s.N)
	default:
		p.b8 = make([]int8, s.K*s.N)
	}
	return p
}

// setGrouped keeps weights [KH, KW, C/Groups, N], or of a depthwise kernel [pairs, N, 2] or [taps, N filled up].
func (p *Plan) setGrouped(b []int8) {
	switch {
	case p.taps != nil:
		for i, v := range b[:p.K*p.N] {
			p.taps[i/p.N*p.width+i%p.N] = int32(uint16(v))
		}
	case p.b16 != nil:
		for i, v := range b[:p.K*p.N] {
			tap, c := i/p.N, i%p.N
			p.b16[(tap/2*p.N+c)*2+tap%2] = int16(v)
		}
	default:
		copy(p.b8, b[:p.K*p.N])
	}
}

// grouped computes n output pixels from the first on.
func (p *Plan) grouped(w *worker, first, n int) {
	c := p.Conv
	size := c.H * c.W * c.C
	for r := 0; r < n; {
		at := first + r
		x := p.a[at/(c.OH*c.OW)*size:][:size]
		oy, ox := at/c.OW%c.OH, at%c.OW
		top, left := oy*c.StrideH-c.PadTop, ox*c.StrideW-c.PadLeft
		here := 1
		if p.taps != nil {
			if k := c.whole(top, left, min(n-r, c.OW-ox, depthwisePixels)); k > 0 {
				here = k
				depthwise(w.sums, p.width, x[(top*c.W+left)*c.C:], c, c.W*c.C, c.StrideW*c.C, p.taps, here)
			} else {
				c.patch(w.patches, x, top, left)
				depthwise(w.sums, p.width, w.patches, c, c.KW*c.C, 0, p.taps, 1)
			}
		} else {
			c.patch(w.patches, x, top, left)
			done := 0
			if p.pairwise() {
				done = depthwiseBlocks(w.sums, w.patches, p.b16, p.N, p.groups)
			}
			p.sums(w.sums, w.patches, done)
		}
		p.settle(w.sums, p.width, at, here, 0, p.N)
		r += here
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
