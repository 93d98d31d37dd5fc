package reduce

import (
	"math"

	"github.com/jouleml/joule/internal/par"
)

// Softmax is a plan for the softmax, or its logarithm, of the rows of [Rows, N] and the gradient of either:
//
//	y = e^(x - max x) / Σ e^(x - max x)     dx = y·(dy - Σ dy·y)
//	y = x - max x - log Σ e^(x - max x)     dx = dy - e^y·Σ dy      (logarithm)
type Softmax struct {
	rows, n, per int
	log          bool
	l            *leaves
	dst, a, b    []float32
}

// NewSoftmax plans for [rows, n]. It panics on negative sizes.
func NewSoftmax(rows, n int, log bool) *Softmax {
	if rows < 0 || n < 0 {
		panic("reduce: negative size")
	}
	return &Softmax{rows: rows, n: n, per: max(1, chunkLen/4/max(1, n)), log: log, l: current()}
}

// Run sets dst from x, both [rows, n]; dst may be x.
func (p *Softmax) Run(pool *par.Pool, dst, x []float32) {
	if len(dst) < p.rows*p.n || len(x) < p.rows*p.n {
		panic("reduce: slice shorter than the plan says")
	}
	p.dst, p.a = dst, x
	pool.Run(ceil(p.rows, p.per), (*softmaxForward)(p))
	p.dst, p.a = nil, nil
}

// Backward sets dx from y, which Run gave, and dy, all [rows, n]; dx may be dy or y.
func (p *Softmax) Backward(pool *par.Pool, dx, y, dy []float32) {
	if len(dx) < p.rows*p.n || len(y) < p.rows*p.n || len(dy) < p.rows*p.n {
		panic("reduce: slice shorter than the plan says")
	}
	p.dst, p.a, p.b = dx, y, dy
	pool.Run(ceil(p.rows, p.per), (*softmaxBackward)(p))
	p.dst, p.a, p.b = nil, nil, nil
}

type softmaxForward Softmax

func (p *softmaxForward) Chunk(i, _ int) {
	n := p.n
	for r := i * p.per; r < min((i+1)*p.per, p.rows); r++ {
		x, y := p.a[r*n:(r+1)*n], p.dst[r*n:(r+1)*n]
		m := p.l.row[Max](x)
		if p.log {
			lse := float32(math.Log(float64(p.l.sumExp(x, m))))
			p.l.mulAdd(y, x, 1, -m) // apart, for x and m may be large and lse is not
			p.l.mulAdd(y, y, 1, -lse)
			continue
		}
		s := p.l.expSum(y, x, m)
		p.l.mulAdd(y, y, 1/s, 0)
	}
}

type softmaxBackward Softmax

func (p *softmaxBackward) Chunk(i, _ int) {
	n := p.n
	for r := i * p.per; r < min((i+1)*p.per, p.rows); r++ {
		y, dy, dx := p.a[r*n:(r+1)*n], p.b[r*n:(r+1)*n], p.dst[r*n:(r+1)*n]
		if p.log {
			p.l.logSoftmaxGrad(dx, y, dy, p.l.sum(dy))
		} else {
			p.l.softmaxGrad(dx, y, dy, p.l.dot(y, dy))
		}
	}
}

// CrossEntropySpec describes a softmax followed by the cross-entropy with one class a row.
type CrossEntropySpec struct {
	Rows, Classes int
	// Smoothing ε replaces the one-hot target t by (1-ε)·t + ε/Classes.
	Smoothing float32
	// Ignore, if HasIgnore, is a label whose rows have loss 0 and gradient 0. It need not be a class.
	HasIgnore bool
	Ignore    int32
}

// CrossEntropy is a plan for
//
//	loss[r]     = Σc t[r,c]·(log Σk e^x[r,k] - x[r,c])
//	dlogits[r,c] = d[r]·(softmax(x[r])[c] - t[r,c])
//
// where t is the smoothed one-hot target of labels[r]. A label that is no class makes the row's loss and gradient NaN, so that it
// cannot pass unseen.
type CrossEntropy struct {
	spec   CrossEntropySpec
	per    int
	l      *leaves
	labels []int32
	x      []float32
	loss   []float32
	grad   []float32
	d      []float32 // gradient of each loss, or
	scale  float32   // of all of them
}

// NewCrossEntropy plans. It panics on negative sizes or a smoothing outside [0, 1].
func NewCrossEntropy(s CrossEntropySpec) *CrossEntropy {
	if s.Rows < 0 || s.Classes < 0 || !(s.Smoothing >= 0 && s.Smoothing <= 1) {
		panic("reduce: bad cross-entropy spec")
	}
	return &CrossEntropy{spec: s, per: max(1, chunkLen/4/max(1, s.Classes)), l: current()}
}

// Run sets loss [Rows] and dlogits [Rows, Classes], either of which may be nil, from logits [Rows, Classes] and labels [Rows], in one pass.
// scale is what the gradient of the total is with respect to each loss: 1/Rows for a mean. dlogits may be logits.
func (p *CrossEntropy) Run(pool *par.Pool, loss, dlogits, logits []float32, labels []int32, scale float32) {
	p.scale = scale
	p.run(pool, loss, dlogits, logits, labels)
}

// RunEach is Run with d [Rows], the gradient of the total with respect to each loss.
func (p *CrossEntropy) RunEach(pool *par.Pool, loss, dlogits, logits []float32, labels []int32, d []float32) {
	if len(d) < p.spec.Rows {
		panic("reduce: slice shorter than the plan says")
	}
	p.d = d
	p.run(pool, loss, dlogits, logits, labels)
	p.d = nil
}

func (p *CrossEntropy) run(pool *par.Pool, loss, dlogits, logits []float32, labels []int32) {
	s := p.spec
	if loss != nil && len(loss) < s.Rows || loss == nil && dlogits == nil || len(labels) < s.Rows || len(logits) < s.Rows*s.Classes || dlogits != nil && len(dlogits) < s.Rows*s.Classes {
		panic("reduce: slice shorter than the plan says")
	}
	p.loss, p.grad, p.x, p.labels = loss, dlogits, logits, labels
	pool.Run(ceil(s.Rows, p.per), (*crossEntropyRows)(p))
	p.loss, p.grad, p.x, p.labels = nil, nil, nil, nil
}

// Counted is how many of the labels are not ignored: what a mean divides by.
func (p *CrossEntropy) Counted(labels []int32) int {
	if !p.spec.HasIgnore {
		return len(labels)
	}
	n := 0
	for _, k := range labels {
		if k != p.spec.Ignore {
			n++
		}
	}
	return n
}

type crossEntropyRows CrossEntropy

func (p *crossEntropyRows) setLoss(r int, x float32) {
	if p.loss != nil {
		p.loss[r] = x
	}
}

func (p *crossEntropyRows) Chunk(i, _ int) {
	s, n := p.spec, p.spec.Classes
	for r := i * p.per; r < min((i+1)*p.per, s.Rows); r++ {
		x := p.x[r*n : (r+1)*n]
		var g []float32
		if p.grad != nil {
			g = p.grad[r*n : (r+1)*n]
		}
		k := p.labels[r]
		if s.HasIgnore && k == s.Ignore {
			p.setLoss(r, 0)
			clear(g)
			continue
		}
		if k < 0 || int(k) >= n {
			nan := float32(math.NaN())
			p.setLoss(r, nan)
			for j := range g {
				g[j] = nan
			}
			continue
		}
		m := p.l.row[Max](x)
		margin := float64(m) - float64(x[k]) // lse - x[k] = margin + log Σ
		if e := float64(s.Smoothing); e != 0 {
			mean := float64(p.l.sum(x)) / float64(n)
			margin = (1-e)*margin + e*(float64(m)-mean)
		}
		var sum float32
		if g == nil {
			sum = p.l.sumExp(x, m)
		} else {
			sum = p.l.expSum(g, x, m)
			d := p.scale
			if p.d != nil {
				d = p.d[r]
			}
			p.l.mulAdd(g, g, d/sum, -d*s.Smoothing/float32(n))
			g[k] -= d * (1 - s.Smoothing)
		}
		if p.loss != nil {
			p.loss[r] = float32(margin + math.Log(float64(sum)))
		}
	}
}
