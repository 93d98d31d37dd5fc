package reduce

import (
	"math"

	"github.com/jouleml/joule/internal/par"
)

// LayerNorm is a plan for the normalisation of rows of [Rows, N] and its gradient. With x̂ = (x - mean x)·r and
// r = 1/√(var x + ε), the variance being that of the whole row (divided by N),
//
//	y = γ·x̂ + β
//	dx = r·(γ·dy - mean(γ·dy) - x̂·mean(γ·dy·x̂)),  dγ = Σrows dy·x̂,  dβ = Σrows dy
//
// RMSNorm is the same without the two means that shift: x̂ = x·r with r = 1/√(mean x² + ε), and dx = r·(γ·dy - x̂·mean(γ·dy·x̂)).
type LayerNorm struct {
	rows, n, per int
	eps          float64
	rms          bool
	l            *leaves
	ones, zeros  []float32 // stand in for γ and β that are nil
	partial      []float32 // [chunks, 2, n]: dγ and dβ of a chunk of rows
	merge        mergeColumns

	y, x, gamma, beta, dy, mean, rstd []float32
}

// maxParts is the most chunks of rows whose partial gradients are kept.
const maxParts = 64

// NewLayerNorm plans for [rows, n]. It panics on negative sizes.
func NewLayerNorm(rows, n int, eps float64) *LayerNorm { return newRowNorm(rows, n, eps, false) }

// NewRMSNorm plans for [rows, n]. It panics on negative sizes.
func NewRMSNorm(rows, n int, eps float64) *LayerNorm { return newRowNorm(rows, n, eps, true) }

func newRowNorm(rows, n int, eps float64, rms bool) *LayerNorm {
	if rows < 0 || n < 0 {
		panic("reduce: negative size")
	}
	p := &LayerNorm{rows: rows, n: n, eps: eps, rms: rms, l: current()}
	p.per = max(1, chunkLen/2/max(1, n), ceil(rows, maxParts))
	p.ones, p.zeros = make([]float32, n), make([]float32, n)
	for i := range p.ones {
		p.ones[i] = 1
	}
	p.partial = make([]float32, ceil(rows, p.per)*2*n)
	return p
}

// Run sets y [Rows, N], which may be x, from x, gamma and beta [N] (nil means 1 and 0), and keeps for the gradient
// mean and rstd [Rows], which is r. RMSNorm neither reads nor writes mean; it may be nil.
func (p *LayerNorm) Run(pool *par.Pool, y, mean, rstd, x, gamma, beta []float32) {
	p.check(y, x, mean, rstd)
	p.y, p.x, p.mean, p.rstd = y, x, mean, rstd
	p.gamma, p.beta = p.or(gamma, p.ones), p.or(beta, p.zeros)
	pool.Run(ceil(p.rows, p.per), (*layerNormForward)(p))
	p.y, p.x, p.mean, p.rstd, p.gamma, p.beta = nil, nil, nil, nil, nil, nil
}

// Backward sets dx [Rows, N], which may be dy, and dgamma and dbeta [N] unless both are nil, from dy, x, gamma and what Run kept.
func (p *LayerNorm) Backward(pool *par.Pool, dx, dgamma, dbeta, dy, x, gamma, mean, rstd []float32) {
	p.check(dx, dy, mean, rstd)
	p.check(dx, x, mean, rstd)
	p.y, p.dy, p.x, p.mean, p.rstd = dx, dy, x, mean, rstd
	p.gamma = p.or(gamma, p.ones)
	parts := ceil(p.rows, p.per)
	pool.Run(parts, (*layerNormBackward)(p))
	p.merge = mergeColumns{part: p.partial, parts: parts, stride: 2 * p.n, n: p.n}
	p.merge.into(pool, dgamma, 0)
	p.merge.into(pool, dbeta, p.n)
	p.y, p.dy, p.x, p.mean, p.rstd, p.gamma = nil, nil, nil, nil, nil, nil
}

func (p *LayerNorm) check(y, x, mean, rstd []float32) {
	if len(y) < p.rows*p.n || len(x) < p.rows*p.n || len(rstd) < p.rows || !p.rms && len(mean) < p.rows {
		panic("reduce: slice shorter than the plan says")
	}
}

func (p *LayerNorm) or(given, standIn []float32) []float32 {
	if given == nil {
		return standIn
	}
	if len(given) < p.n {
		panic("reduce: slice shorter than the plan says")
	}
	return given[:p.n]
}

type layerNormForward LayerNorm

func (p *layerNormForward) Chunk(i, _ int) {
	n := p.n
	for r := i * p.per; r < min((i+1)*p.per, p.rows); r++ {
		x, y := p.x[r*n:(r+1)*n], p.y[r*n:(r+1)*n]
		var m float32
		var sq float64
		if !p.rms {
			m = float32(float64(p.l.sum(x)) / float64(n))
			p.mean[r] = m
		}
		for a := x; len(a) > 0; {
			k := min(len(a), blockLen)
			sq += float64(p.l.devRow(a[:k], m))
			a = a[k:]
		}
		s := float32(1 / math.Sqrt(sq/float64(n)+p.eps))
		p.rstd[r] = s
		p.l.normRow(y, x, p.gamma, p.beta, m, s)
	}
}

type layerNormBackward LayerNorm

func (p *layerNormBackward) Chunk(i, _ int) {
	n := p.n
	part := p.partial[i*2*n : (i+1)*2*n]
	clear(part)
	dgamma, dbeta := part[:n], part[n:]
	for r := i * p.per; r < min((i+1)*p.per, p.rows); r++ {
		x, dy, dx := p.x[r*n:(r+1)*n], p.dy[r*n:(r+1)*n], p.y[r*n:(r+1)*n]
		var m, c1 float32
		s := p.rstd[r]
		if !p.rms {
			m = p.mean[r]
			c1 = p.l.dot(dy, p.gamma) / float32(n)
		}
		c2 := float32(p.l.centredDot(dy, p.gamma, x, m) * float64(s) / float64(n))
		p.l.normGammaAdd(dgamma, dgamma, dy, x, m, s)
		p.l.addTo(dbeta, dbeta, dy)
		p.l.normRowGrad(dx, dy, x, p.gamma, m, s, c1, c2)
	}
}

func (l *leaves) centredDot(a, g, x []float32, m float32) (s float64) {
	for len(a) > 0 {
		n := min(len(a), blockLen)
		s += float64(l.centredDotRow(a[:n], g[:n], x[:n], m))
		a, g, x = a[n:], g[n:], x[n:]
	}
	return s
}

// mergeColumns adds up partial results that lie stride apart, each column in float64 and in order.
type mergeColumns struct {
	part             []float32
	parts, stride, n int
	dst              []float32
	first            int
}

// into sets dst[j] to the sum of column first+j; nothing if dst is nil.
func (m *mergeColumns) into(pool *par.Pool, dst []float32, first int) {
	if dst == nil {
		return
	}
	if len(dst) < m.n {
		panic("reduce: slice shorter than the plan says")
	}
	m.dst, m.first = dst, first
	pool.Run(ceil(m.n, mergeCols), m)
	m.dst = nil
}

// Chunk merges some columns; it is for package par.
func (m *mergeColumns) Chunk(i, _ int) {
	left, right := i*mergeCols, min((i+1)*mergeCols, m.n)
	var acc [mergeCols]float64
	for k := range m.parts {
		for j, x := range m.part[k*m.stride+m.first+left:][:right-left] {
			acc[j] += float64(x)
		}
	}
	for j := range right - left {
		m.dst[left+j] = float32(acc[j])
	}
}
