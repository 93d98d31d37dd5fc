package train

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/tensor"
)

// Slow links: gradients that travel compressed, and ranks that take several steps alone before their weights are averaged.

// piece is a stretch of a bucket that one compressor takes; without one it is summed exactly.
type piece struct {
	lo, hi int // in the slot
	by     dist.Compressor
}

// compress shares the buckets out to compressors: moving averages and control values are always exact.
func (g *group) compress() {
	if g.Compress == nil {
		return
	}
	g.pieces = make([][]piece, len(g.flat.buckets))
	whole := g.Compress.New(2, 1) != nil // takes any vector: one for all gradients of a bucket
	for i, b := range g.flat.buckets {
		var ps []piece
		put := func(p piece) {
			if n := len(ps); n > 0 && ps[n-1].by == nil && p.by == nil && ps[n-1].hi == p.lo {
				ps[n-1].hi = p.hi
				return
			}
			ps = append(ps, p)
		}
		at := b.lo
		for k, m := range g.flat.members {
			if m.bucket != i || !strings.HasPrefix(m.name, gradPrefix) {
				continue
			}
			end := b.hi
			if end > g.flat.control {
				end = g.flat.control
			}
			if k+1 < len(g.flat.members) {
				end = min(end, g.flat.members[k+1].off)
			}
			if m.off > at {
				put(piece{lo: at, hi: m.off})
			}
			at = end
			switch n := len(ps); {
			case whole && n > 0 && ps[n-1].by != nil:
				ps[n-1].hi = end
			case whole:
				ps = append(ps, piece{m.off, end, g.Compress.New(2, 1)}) // replaced below, when its length is known
			default:
				cols := m.len
				if s := m.t.Shape; len(s) > 1 {
					cols = s[len(s)-1]
				}
				by := g.Compress.New(m.len/max(1, cols), cols)
				if by == nil {
					put(piece{lo: m.off, hi: end})
					continue
				}
				ps = append(ps, piece{m.off, m.off + m.len, by})
				if m.off+m.len < end {
					put(piece{lo: m.off + m.len, hi: end})
				}
			}
		}
		if at < b.hi {
			put(piece{lo: at, hi: b.hi})
		}
		for k, p := range ps {
			if whole && p.by != nil {
				ps[k].by = g.Compress.New(1, p.hi-p.lo)
			}
		}
		g.pieces[i] = ps
	}
}

// checkOneBit reports what does not go together with 1-bit Adam.
func (g *group) checkOneBit() error {
	if g.Compress == nil {
		return nil
	}
	_, ok := g.Compress.OneBit()
	_, adam := g.m.opt.Beta1()
	switch o := g.m.opt; {
	case !ok:
	case !adam:
		return fmt.Errorf("train: the compression %v is 1-bit Adam: the optimizer must be adam or adamw, not %s", g.Compress, o.Name)
	case g.m.accumulate > 1:
		return fmt.Errorf("train: the compression %v sums momenta, which gradients accumulated over %d batches do not have", g.Compress, g.m.accumulate)
	case o.LimitsNorms() || o.ClipValue > 0:
		return fmt.Errorf("train: the compression %v sums momenta: gradients cannot be clipped", g.Compress)
	}
	return nil
}

// warm begins the compressed stage of 1-bit Adam when its warm-up is over. What travels is the momentum over the root of the second moment, which is of one magnitude everywhere, as one bit a
// number asks; the second moments stay as they are from now on, but those under a hundredth of their parameter's (a root below a tenth of the mean root) are raised to that: a weight whose
// gradient was nearly zero so far would take any rounding for a step.
func (g *group) warm() error {
	if g.Compress == nil || g.m.Comm() == nil || g.bits != nil {
		return nil
	}
	if n, ok := g.Compress.OneBit(); !ok || g.updates < n {
		return nil
	}
	g.bits, g.spread = newVector(g.flat.size), newVector(g.flat.size)
	for _, m := range g.flat.members {
		name, ok := strings.CutPrefix(m.name, gradPrefix)
		if !ok {
			continue
		}
		first, err := g.m.state.Get(optimizerPrefix + name + "/m")
		if err != nil {
			return err
		}
		copy(g.bits.all[m.off:], first.F32())
		second, err := g.m.state.Get(optimizerPrefix + name + "/v")
		if err != nil {
			return err
		}
		v, roots, sum := second.F32(), g.spread.all[m.off:m.off+m.len], 0.0
		for i := range v {
			r := math.Sqrt(float64(v[i]))
			roots[i], sum = float32(r), sum+r
		}
		least := float32(max(sum/float64(10*len(v)), 1e-12))
		for i, r := range roots {
			roots[i] = max(r, least)
			v[i] = roots[i] * roots[i]
		}
		if err := g.m.state.Set(optimizerPrefix+name+"/v", second); err != nil {
			return err
		}
	}
	return nil
}

// eachGradient calls f for each member of bucket i that is a gradient, with its place in the bucket.
func (g *group) eachGradient(i int, f func(m *member, at int)) {
	for k := range g.flat.members {
		if m := &g.flat.members[k]; m.bucket == i && strings.HasPrefix(m.name, gradPrefix) {
			f(m, m.off-g.flat.buckets[i].lo)
		}
	}
}

// momenta puts this rank's share of the new momenta in the place of the gradients of bucket i, which so many ranks (n) add up: (β1·m/n + (1-β1)·g)/√v, which add up to the new momenta over √v.
func (g *group) momenta(i int, x []float32, ranks int) {
	beta, _ := g.m.opt.Beta1()
	keep, take := float32(beta/float64(ranks)), float32(1-beta)
	g.eachGradient(i, func(m *member, at int) {
		for k := range m.len {
			x[at+k] = (float32(keep*g.bits.all[m.off+k]) + float32(take*x[at+k])) / g.spread.all[m.off+k]
		}
	})
}

// settle makes of the sums of bucket i the new momenta.
func (g *group) settle(i int, x []float32) {
	g.eachGradient(i, func(m *member, at int) {
		for k := range m.len {
			x[at+k] *= g.spread.all[m.off+k]
			g.bits.all[m.off+k] = x[at+k]
		}
	})
}

// exchangeCompressed sums bucket i over c (nil: this rank alone), of which own are this rank's shards.
func (g *group) exchangeCompressed(c *dist.Comm, i int, own [][]float32) error {
	for _, x := range own[1:] {
		add(own[0], x)
	}
	_, ok := g.Compress.OneBit()
	switch {
	case ok && g.bits != nil:
		ranks := 1
		if c != nil {
			ranks = c.Size()
		}
		g.momenta(i, own[0], ranks)
		defer g.settle(i, own[0])
	case ok && c != nil:
		return c.AllReduce(own[0])
	}
	if c == nil {
		return nil
	}
	base := g.flat.buckets[i].lo
	for _, p := range g.pieces[i] {
		x := own[0][p.lo-base : p.hi-base]
		var err error
		if p.by == nil {
			err = c.AllReduce(x)
		} else {
			err = p.by.Sum(c, x)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// outerPrefix begins the names of the outer optimizer's momenta.
const outerPrefix = "outer/"

// declareOuter adds the outer optimizer's state.
func (m *Model) declareOuter() error {
	if m.parallel.Local <= 1 || m.parallel.OuterMomentum == 0 {
		return nil
	}
	var vars []backend.Var
	for _, p := range m.params {
		if p.Trainable {
			vars = append(vars, backend.Var{Name: outerPrefix + p.Name, Type: p.Type})
		}
	}
	return m.state.Add(vars...)
}

// note is what ranks tell each other when they average.
type note struct {
	Stop, Save, Spoiled bool
	LossSum, Loss       float64
}

// alone is a step on this rank's part of a batch alone. With meet, all ranks then average: weights, moving averages and the optimizer's state, so that they are alike again, and a
// checkpoint of one is a checkpoint of all (McMahan et al., arXiv:1602.05629; Stich, arXiv:1805.09767). lossSum becomes the mean over ranks.
func (g *group) alone(b *data.Batch, k mode, rate float64, wish wishes, meet bool, lossSum *float64, judge func(classes int, pred, y *tensor.Tensor)) (loss float64, all wishes, err error) {
	if err := g.remember(); err != nil {
		return 0, all, err
	}
	if b.N > 0 {
		if err := g.m.stateInto(seedVar, g.state); err != nil {
			return 0, all, err
		}
		tensor.Data[int64](g.state)[1] += int64(g.lo)
		g.last = false
		part := *b
		part.Of = b.N
		if err := g.one(&part, 0, b.N, 0, judge); err != nil {
			return 0, all, err
		}
		loss = float64(g.slots[0].all[g.flat.control+controlLoss])
	}
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		g.spoiled = true
	} else if err := g.apply(k, rate); err != nil {
		return 0, all, err
	}
	g.account.steps++
	if !meet {
		if g.spoiled { // said to all at the next meeting
			loss = 0
		}
		return loss, all, nil
	}
	return g.meet(loss, wish, lossSum)
}

// remember keeps the weights from which the ranks set out.
func (g *group) remember() error {
	if g.anchor != nil || g.OuterMomentum == 0 {
		return nil
	}
	g.anchor = map[string]*tensor.Tensor{}
	for _, p := range g.m.params {
		if !p.Trainable {
			continue
		}
		t, err := g.m.state.Get(p.Name)
		if err != nil {
			return err
		}
		g.anchor[p.Name] = t
	}
	return nil
}

// meet averages.
func (g *group) meet(loss float64, wish wishes, lossSum *float64) (float64, wishes, error) {
	var all wishes
	c := g.m.Comm()
	notes, err := dist.Gather(c, note{wish.stop, wish.save, g.spoiled, *lossSum, finite(loss)})
	if err != nil {
		return 0, all, err
	}
	spoiled := false
	*lossSum, loss = 0, 0
	for _, n := range notes {
		all.stop, all.save, spoiled = all.stop || n.Stop, all.save || n.Save, spoiled || n.Spoiled
		*lossSum += n.LossSum / float64(len(notes))
		loss += n.Loss / float64(len(notes))
	}
	if spoiled {
		return math.NaN(), all, nil
	}
	share := 1 / float32(c.Size())
	for _, v := range g.m.kept() {
		if v.Type.DType != dtype.F32 || strings.HasPrefix(v.Name, outerPrefix) {
			continue
		}
		t, err := g.m.state.Get(v.Name)
		if err != nil {
			return 0, all, err
		}
		x := t.F32()
		if err := c.AllReduce(x); err != nil {
			return 0, all, err
		}
		for i := range x {
			x[i] *= share
		}
		if from := g.anchor[v.Name]; from != nil {
			if err := g.outer(v.Name, from.F32(), x); err != nil {
				return 0, all, err
			}
			copy(from.F32(), x)
		}
		if err := g.m.state.Set(v.Name, t); err != nil {
			return 0, all, err
		}
	}
	return loss, all, nil
}

// finite is v, or 0 where JSON has no word for it.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

// outer takes the way from the anchor to the mean for the gradient of an outer step with Nesterov's momentum (DiLoCo; Douillard et al., arXiv:2311.08105): Δ = anchor - mean; v = μ·v + Δ;
// weights = anchor - rate·(Δ + μ·v). mean becomes the new weights.
func (g *group) outer(name string, anchor, mean []float32) error {
	v, err := g.m.state.Get(outerPrefix + name)
	if err != nil {
		return err
	}
	mu, rate := float32(g.OuterMomentum), float32(g.OuterRate)
	for i, m := range v.F32() {
		d := anchor[i] - mean[i]
		m = float32(mu*m) + d
		v.F32()[i] = m
		mean[i] = anchor[i] - float32(rate*(d+float32(mu*m)))
	}
	return g.m.state.Set(outerPrefix+name, v)
}

// checkSlow reports settings that make no sense or do not go together.
func (p *Parallel) checkSlow() error {
	switch {
	case p.Local < 0:
		return fmt.Errorf("train: %d steps alone: there cannot be fewer than none", p.Local)
	case p.Local > 1 && p.Shards != 0 && p.Shards != p.ranks():
		return fmt.Errorf("train: with steps alone each rank has one shard: %d shards on %d ranks do not fit", p.Shards, p.ranks())
	case p.Local > 1 && p.Compress != nil:
		return fmt.Errorf("train: gradients do not travel when ranks take %d steps alone: leave out the compression %v", p.Local, p.Compress)
	case p.OuterMomentum < 0 || p.OuterMomentum >= 1 || p.OuterRate < 0:
		return fmt.Errorf("train: outer momentum %g must be in [0, 1) and outer rate %g not negative", p.OuterMomentum, p.OuterRate)
	case p.OuterMomentum > 0 && p.Local <= 1:
		return fmt.Errorf("train: an outer momentum needs steps alone (more than 1)")
	}
	return nil
}

// settings is p as text, for comparing ranks.
func (p *Parallel) settings() string {
	text, _ := json.Marshal(map[string]any{"shards": p.Shards, "bucket": p.Bucket, "zero": p.Zero, "norm": p.SyncNorm, "tensor": p.Tensor, "pipeline": p.Pipeline, "cuts": p.Cuts, "any": p.AnyOrder, "check": p.Check, "compress": fmt.Sprint(p.Compress), "local": p.Local, "outer": []float64{p.OuterMomentum, p.OuterRate}})
	return string(text)
}
