package reduce

import (
	"math"

	"github.com/jouleml/joule/internal/par"
)

// PartEntropy is a plan for what some of the classes bring to a cross-entropy, by rows of logits x [Rows, Classes]:
//
//	stats[0,r] = log Σc e^x[r,c]     stats[1,r] = x[r,label[r]], 0 of a label that is none of them     stats[2,r] = Σc x[r,c]
//	dx[r,c]    = d[0,r]·e^(x[r,c] - stats[0,r]) + d[1,r]·(c = label[r]) + d[2,r]
//
// Where all logits are -∞, their exponentials being nothing beside those of other parts, stats[0,r] is -∞ and the first term of dx 0.
type PartEntropy struct {
	rows, n, per       int
	l                  *leaves
	labels             []int32
	x, stats, d, grads []float32
}

// NewPartEntropy plans for [rows, classes]. It panics on negative sizes.
func NewPartEntropy(rows, classes int) *PartEntropy {
	if rows < 0 || classes < 0 {
		panic("reduce: negative size")
	}
	return &PartEntropy{rows: rows, n: classes, per: max(1, chunkLen/4/max(1, classes)), l: current()}
}

// Run sets stats [3, rows].
func (p *PartEntropy) Run(pool *par.Pool, stats, x []float32, labels []int32) {
	p.check(stats, x, labels)
	p.stats, p.x, p.labels = stats, x, labels
	pool.Run(ceil(p.rows, p.per), (*partForward)(p))
	p.stats, p.x, p.labels = nil, nil, nil
}

// Backward sets dx [rows, classes] from what Run was given, what it gave, and d [3, rows]; dx may be x.
func (p *PartEntropy) Backward(pool *par.Pool, dx, x []float32, labels []int32, stats, d []float32) {
	p.check(stats, x, labels)
	if len(d) < 3*p.rows || len(dx) < p.rows*p.n {
		panic("reduce: slice shorter than the plan says")
	}
	p.stats, p.x, p.labels, p.d, p.grads = stats, x, labels, d, dx
	pool.Run(ceil(p.rows, p.per), (*partBackward)(p))
	p.stats, p.x, p.labels, p.d, p.grads = nil, nil, nil, nil, nil
}

func (p *PartEntropy) check(stats, x []float32, labels []int32) {
	if len(stats) < 3*p.rows || len(x) < p.rows*p.n || len(labels) < p.rows {
		panic("reduce: slice shorter than the plan says")
	}
}

type partForward PartEntropy

func (p *partForward) Chunk(i, _ int) {
	n := p.n
	for r := i * p.per; r < min((i+1)*p.per, p.rows); r++ {
		x := p.x[r*n : (r+1)*n]
		m := p.l.row[Max](x)
		lse := float64(m)
		if !math.IsInf(lse, -1) { // all of them ruled out: Σ is 0
			lse += math.Log(float64(p.l.sumExp(x, m)))
		}
		p.stats[r] = float32(lse)
		own := float32(0)
		if k := p.labels[r]; k >= 0 && int(k) < n {
			own = x[k]
		}
		p.stats[p.rows+r], p.stats[2*p.rows+r] = own, p.l.sum(x)
	}
}

type partBackward PartEntropy

func (p *partBackward) Chunk(i, _ int) {
	n := p.n
	for r := i * p.per; r < min((i+1)*p.per, p.rows); r++ {
		x, g := p.x[r*n:(r+1)*n], p.grads[r*n:(r+1)*n]
		lse := p.stats[r]
		if math.IsInf(float64(lse), -1) {
			lse = 0 // e^(-∞ - 0) is 0
		}
		p.l.expSum(g, x, lse)
		p.l.mulAdd(g, g, p.d[r], p.d[2*p.rows+r])
		if k := p.labels[r]; k >= 0 && int(k) < n {
			g[k] += p.d[p.rows+r]
		}
	}
}
