package qgemm

// isGrey reports whether the plan is a convolution of pictures of one channel with filters of 3×3 and a max pooling, as at the beginning of networks for digits: it has a kernel of its own, since patches of nine bytes cost more to
// copy than to multiply.
func (p *Plan) isGrey() bool {
	c := p.Conv
	return p.level == vnni && p.Pool && c != nil && c.plain() && c.C == 1 && c.KH == 3 && c.KW == 3 && c.OH == c.H-2 && c.OW == c.W-2
}

// greyCols are the filters that the kernel takes at once from the given one on, filled up.
func (p *Plan) greyCols(j int) int {
	if p.N-j <= slim {
		return slim
	}
	return narrow
}

// setGrey keeps weights b [3, 3, 1, N] as panels [3, 32 or 16, 4], the fourth of a line zero.
func (p *Plan) setGrey(b []int8) {
	for k := range 9 {
		for j := range p.N {
			first := j / narrow * narrow
			p.direct[first*12+(k/3*p.greyCols(first)+j-first)*4+k%3] = b[k*p.N+j]
		}
	}
}

// grey computes n windows, whole lines of them, from the first on.
func (p *Plan) grey(w *worker, first, n int) {
	c := p.Conv
	width, height := c.OW/2, c.OH/2
	for at := first; at < first+n; at += width {
		image, row := at/(width*height), at/width%height
		from := image*c.H*c.W + 2*row*c.W
		x := p.a[from:]
		if need := 4*c.W + 1; len(x) < need { // a word is read at the last pixels: one byte more than there is
			if len(w.patches) < need {
				w.patches = make([]uint8, need)
			}
			copy(w.patches, x)
			x = w.patches
		}
		for j := 0; j < p.N; j += narrow {
			greyWindows(p.y8[at*p.N+j:], p.N, min(narrow, p.N-j), x, c.W, p.direct[12*j:], p.scale[j:], p.offset[j:], float32(p.Low), width)
		}
	}
}

// inPlace reports whether the patches of a window can be read from the image itself: whole words of channels, all patches inside.
func (p *Plan) inPlace() bool {
	c := p.Conv
	return p.level == vnni && c.plain() && c.C%4 == 0 && c.OH <= c.H-c.KH+1 && c.OW <= c.W-c.KW+1
}

// plain reports whether the patch of pixel [y, x] begins at that pixel of the image, and its pixels are neighbours there.
func (c *Conv) plain() bool {
	return c.StrideH == 1 && c.StrideW == 1 && c.DilH <= 1 && c.DilW <= 1 && c.PadTop == 0 && c.PadLeft == 0
}
