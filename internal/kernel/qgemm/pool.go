package qgemm

import "github.com/jouleml/joule/internal/par"

// MaxPool is the greatest byte of each window of images [N, H, W, C]. Windows must have at least one pixel in the image.
type MaxPool struct {
	N, H, W, C, OH, OW int
	KH, KW             int
	StrideH, StrideW   int
	PadTop, PadLeft    int

	level level
	y, x  []uint8
	lines [][]uint8 // of each thread: the greatest of the lines of a row of windows
}

// Run sets y [N, OH, OW, C] from x.
func (p *MaxPool) Run(pool *par.Pool, y, x []uint8) {
	p.level = current()
	for len(p.lines) < pool.Threads() {
		p.lines = append(p.lines, make([]uint8, p.W*p.C))
	}
	p.y, p.x = y[:p.N*p.OH*p.OW*p.C], x[:p.N*p.H*p.W*p.C]
	pool.Run(p.N*p.OH, (*poolBody)(p))
	p.y, p.x = nil, nil
}

type poolBody MaxPool

// Chunk computes a row of windows.
func (f *poolBody) Chunk(i, id int) {
	p := (*MaxPool)(f)
	n, top := i/p.OH, i%p.OH*p.StrideH-p.PadTop
	row := p.W * p.C
	from, to := max(top, 0), min(top+p.KH, p.H)
	line := p.x[(n*p.H+from)*row:][:row]
	for y := from + 1; y < to; y++ {
		maxBytes(p.level, p.lines[id], line, p.x[(n*p.H+y)*row:][:row])
		line = p.lines[id]
	}
	if p.KW == 2 && p.StrideW == 2 && p.PadLeft == 0 && 2*p.OW <= p.W && maxPairs(p.level, p.y[i*p.OW*p.C:][:p.OW*p.C], line, p.C, p.OW) {
		return
	}
	for o := range p.OW {
		left := o*p.StrideW - p.PadLeft
		from, to := max(left, 0), min(left+p.KW, p.W)
		y := p.y[(i*p.OW+o)*p.C:][:p.C]
		copy(y, line[from*p.C:])
		for x := from + 1; x < to; x++ {
			maxBytes(p.level, y, y, line[x*p.C:][:p.C])
		}
	}
}

// maxBytes sets dst to the greater of a and b, all of one length.
func maxBytes(l level, dst, a, b []uint8) {
	n := len(dst)
	k := maxBlocks(l, dst, a, b)
	for i := k; i < n; i++ {
		dst[i] = max(a[i], b[i])
	}
}
