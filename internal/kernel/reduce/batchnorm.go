package reduce

import (
	"math"

	"github.com/jouleml/joule/internal/par"
)

// BatchNorm is a plan for the normalisation of each channel over all other axes: of [Rows, C] with Rows = N·H·W for NHWC. With
// x̂ = (x - mean x)·r and r = 1/√(var x + ε), both over the rows, the variance divided by Rows,
//
//	y = γ·x̂ + β
//	dβ = Σ dy,  dγ = Σ dy·x̂,  dx = γ·r·(dy - dβ/Rows - x̂·dγ/Rows)
//
// With Relu, y is max(0, ·) of that, or of that plus an array z of x's shape, and the gradient takes dy as 0 where y is not above 0. Without z
// the gradient does not read y for it: it finds the sign again from x, with the operations of the forward pass, and so its bits.
//
// Mean and variance are found in one pass, in blocks of at most maxPiece rows that are shifted by their first row, and joined by
// the formula of Chan, Golub and LeVeque (1979) in float64. So a mean far from 0 costs no accuracy; and since the shift is one of the rows,
// it lies within √maxPiece deviations of the block's mean, however odd the data.
type BatchNorm struct {
	rows, c int
	eps     float64
	relu    bool
	l       *leaves

	block, blocks int       // rows of a block, and how many blocks
	partial       []float32 // [blocks, 2, c]: sum and sum of squares of the shifted rows, or the two sums of the gradient
	period, per   int       // elements of a virtual row, and how many of them make a chunk

	// Per channel, each repeated until period elements are full: for small C a leaf is called for many rows at once.
	m, k1, k2, k3, k4 []float32

	mode          batchMode
	dst           []float32 // what the last pass writes: y or dx
	x, z, dy      []float32
	y, a, b, dz   []float32 // of BackwardAdd
	gamma, beta   []float32
	mean, vr      []float32
	dgamma, dbeta []float32
}

// batchMode says which pass over the channels is in progress.
type batchMode uint8

const (
	statistics batchMode = iota
	given
	gradient
	maskedGradient // with Relu and without z
)

// NewBatchNorm plans for [rows, c]. It panics on sizes below 1 row or 0 channels.
func NewBatchNorm(rows, c int, eps float64, relu bool) *BatchNorm {
	if rows < 1 || c < 0 {
		panic("reduce: bad batch-normalisation size")
	}
	p := &BatchNorm{rows: rows, c: c, eps: eps, relu: relu, l: current()}
	p.block = min(max(32, chunkLen/2/max(1, c)), maxPiece)
	p.blocks = ceil(rows, p.block)
	p.partial = make([]float32, p.blocks*2*c)
	p.period = c * max(1, 256/max(1, c))
	p.per = max(1, chunkLen/max(1, p.period))
	all := make([]float32, 5*p.period)
	for i, s := range []*[]float32{&p.m, &p.k1, &p.k2, &p.k3, &p.k4} {
		*s = all[i*p.period : (i+1)*p.period]
	}
	return p
}

// Bytes is the memory that the plan holds.
func (p *BatchNorm) Bytes() int64 { return 4 * int64(len(p.partial)+5*p.period) }

func (p *BatchNorm) check(arrays, channels [][]float32) {
	for _, a := range arrays {
		if len(a) < p.rows*p.c {
			panic("reduce: slice shorter than the plan says")
		}
	}
	for _, a := range channels {
		if len(a) < p.c {
			panic("reduce: slice shorter than the plan says")
		}
	}
}

// Run normalises with the statistics of x itself: it sets y [Rows, C], which may be x or z, and mean and variance [C] from x, gamma and beta [C]
// and, with Relu, z [Rows, C], which is nil if nothing is added.
func (p *BatchNorm) Run(pool *par.Pool, y, mean, variance, x, gamma, beta, z []float32) {
	p.check([][]float32{y, x}, [][]float32{mean, variance, gamma, beta})
	if z != nil {
		if !p.relu {
			panic("reduce: a normalisation without ReLU adds nothing")
		}
		p.check([][]float32{z}, nil)
	}
	p.dst, p.x, p.z, p.mean, p.vr, p.gamma, p.beta = y, x, z, mean, variance, gamma, beta
	pool.Run(p.blocks, (*batchStatistics)(p))
	p.mode = statistics
	p.apply(pool)
}

// Infer normalises with the given mean and variance [C]: it sets y, which may be x.
func (p *BatchNorm) Infer(pool *par.Pool, y, x, gamma, beta, mean, variance []float32) {
	p.check([][]float32{y, x}, [][]float32{mean, variance, gamma, beta})
	p.dst, p.x, p.mean, p.vr, p.gamma, p.beta = y, x, mean, variance, gamma, beta
	p.mode = given
	p.apply(pool)
}

// Backward sets dx [Rows, C], which may be dy or x, and dgamma and dbeta [C] from dy, x, gamma, mean and variance as Run set them and, with Relu, beta.
func (p *BatchNorm) Backward(pool *par.Pool, dx, dgamma, dbeta, dy, x, gamma, beta, mean, variance []float32) {
	p.check([][]float32{dx, dy, x}, [][]float32{dgamma, dbeta, gamma, mean, variance})
	p.dst, p.x, p.dy, p.mean, p.vr, p.gamma, p.beta, p.dgamma, p.dbeta = dx, x, dy, mean, variance, gamma, beta, dgamma, dbeta
	mode := gradient
	if p.relu {
		p.check(nil, [][]float32{beta})
		p.mode, mode = given, maskedGradient
		pool.Run(ceil(p.c, mergeCols), (*batchChannels)(p))
	}
	pool.Run(p.blocks, (*batchSums)(p))
	p.mode = mode
	p.apply(pool)
}

// BackwardAdd is the gradient of Run with z: from y as Run set it and the gradient of y, which is a or, if b is given, a + b, it sets dz, which may be a or b and is
// the gradient for z and behind the normalisation, and then dx, dgamma and dbeta as Backward; dx may be x.
func (p *BatchNorm) BackwardAdd(pool *par.Pool, dx, dgamma, dbeta, dz, y, a, b, x, gamma, mean, variance []float32) {
	p.check([][]float32{dx, dz, y, a, x}, [][]float32{dgamma, dbeta, gamma, mean, variance})
	if b != nil {
		p.check([][]float32{b}, nil)
	}
	p.dst, p.x, p.dy, p.mean, p.vr, p.gamma, p.dgamma, p.dbeta = dx, x, dz, mean, variance, gamma, dgamma, dbeta
	p.y, p.a, p.b, p.dz = y, a, b, dz
	pool.Run(p.blocks, (*batchSums)(p))
	p.mode = gradient
	p.apply(pool)
}

// apply finds the coefficients of every channel, then passes over the array.
func (p *BatchNorm) apply(pool *par.Pool) {
	pool.Run(ceil(p.c, mergeCols), (*batchChannels)(p))
	for _, s := range [][]float32{p.m, p.k1, p.k2, p.k3, p.k4} {
		for n := p.c; n > 0 && n < p.period; n *= 2 {
			copy(s[n:], s[:n])
		}
	}
	if p.period > 0 {
		pool.Run(ceil(p.rows*p.c, p.period*p.per), (*batchApply)(p))
	}
	p.dst, p.x, p.z, p.dy, p.mean, p.vr, p.gamma, p.beta, p.dgamma, p.dbeta = nil, nil, nil, nil, nil, nil, nil, nil, nil, nil
	p.y, p.a, p.b, p.dz = nil, nil, nil, nil
}

type batchStatistics BatchNorm

func (p *batchStatistics) Chunk(i, _ int) {
	c := p.c
	from, to := i*p.block, min((i+1)*p.block, p.rows)
	part := p.partial[i*2*c : (i+1)*2*c]
	x := p.x[from*c:]
	p.l.shiftSums(part[:c], part[c:], x, x[:c], to-from, c)
}

type batchSums BatchNorm

func (p *batchSums) Chunk(i, _ int) {
	c := p.c
	from, to := i*p.block, min((i+1)*p.block, p.rows)
	part := p.partial[i*2*c : (i+1)*2*c]
	switch {
	case p.dz != nil: // the block of dz is still in the cache when it is read for the sums
		lo, hi := from*c, to*c
		if p.b != nil {
			p.l.sumWhere(p.dz[lo:hi], p.y[lo:hi], p.a[lo:hi], p.b[lo:hi])
		} else {
			p.l.where(p.dz[lo:hi], p.y[lo:hi], p.a[lo:hi])
		}
		p.l.batchSums(part[:c], part[c:], p.dz[lo:], p.x[lo:], p.mean, to-from, c)
	case p.relu:
		p.l.batchSumsRelu(part[:c], part[c:], p.dy[from*c:], p.x[from*c:], p.m, p.k1, p.k2, to-from, c)
	default:
		p.l.batchSums(part[:c], part[c:], p.dy[from*c:], p.x[from*c:], p.mean, to-from, c)
	}
}

// batchChannels joins the partial results of some channels and sets their coefficients.
type batchChannels BatchNorm

func (p *batchChannels) Chunk(i, _ int) {
	c := p.c
	left, right := i*mergeCols, min((i+1)*mergeCols, c)
	n := right - left
	var a, b [mergeCols]float64 // mean and sum of squares, or the two sums
	switch p.mode {
	case statistics:
		for k := range p.blocks {
			shift, s0 := p.x[k*p.block*c+left:][:n], p.partial[k*2*c+left:][:n]
			rows := float64(min(p.block, p.rows-k*p.block))
			for j, s := range s0 {
				a[j] += rows*float64(shift[j]) + float64(s)
			}
		}
		for j := range n {
			a[j] /= float64(p.rows)
		}
		for k := range p.blocks {
			shift, s0, s1 := p.x[k*p.block*c+left:][:n], p.partial[k*2*c+left:][:n], p.partial[k*2*c+c+left:][:n]
			rows := float64(min(p.block, p.rows-k*p.block))
			for j := range n {
				off := float64(s0[j]) / rows // from the shift to the block's mean
				d := float64(shift[j]) + off - a[j]
				b[j] += max(0, float64(s1[j])-float64(s0[j])*off) + rows*d*d
			}
		}
		for j := range n {
			p.mean[left+j], p.vr[left+j] = float32(a[j]), float32(b[j]/float64(p.rows))
		}
	case gradient, maskedGradient:
		for k := range p.blocks {
			s0, s1 := p.partial[k*2*c+left:][:n], p.partial[k*2*c+c+left:][:n]
			for j := range n {
				a[j] += float64(s0[j])
				b[j] += float64(s1[j])
			}
		}
	}
	for j := range n {
		ch := left + j
		p.m[ch] = p.mean[ch]
		r := 1 / math.Sqrt(float64(p.vr[ch])+p.eps)
		g := float64(p.gamma[ch]) * r
		switch p.mode {
		case gradient, maskedGradient:
			p.dbeta[ch], p.dgamma[ch] = float32(a[j]), float32(b[j]*r)
			p.k1[ch] = float32(g)
			p.k2[ch] = float32(-g * r * r * b[j] / float64(p.rows))
			p.k3[ch] = float32(-g * a[j] / float64(p.rows))
			if p.mode == maskedGradient {
				p.k4[ch] = p.beta[ch]
			}
		default:
			p.k1[ch], p.k2[ch] = float32(g), p.beta[ch]
		}
	}
}

type batchApply BatchNorm

func (p *batchApply) Chunk(i, _ int) {
	total := p.rows * p.c
	for v := i * p.per; v < (i+1)*p.per && v*p.period < total; v++ {
		from, to := v*p.period, min((v+1)*p.period, total)
		dst, x := p.dst[from:to], p.x[from:to]
		switch {
		case p.mode == maskedGradient:
			p.l.batchGradRelu(dst, p.dy[from:to], x, p.m, p.k1, p.k2, p.k3, p.k4)
		case p.mode == gradient:
			p.l.batchGrad(dst, p.dy[from:to], x, p.m, p.k1, p.k2, p.k3)
		case p.z != nil:
			p.l.normAddRelu(dst, x, p.m, p.k1, p.k2, p.z[from:to])
		case p.relu:
			p.l.norm[1](dst, x, p.m, p.k1, p.k2)
		default:
			p.l.norm[0](dst, x, p.m, p.k1, p.k2)
		}
	}
}
