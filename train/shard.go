package train

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/kernel/vec"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Names of what a shard's program gives and the update's takes.
const (
	gradPrefix  = "gradient/"
	movedPrefix = "moved/"
)

// shardLoss ends the graph of a shard: outputs are its share of the loss, of the gradients and of the moving averages, which the update sums up.
func (m *Model) shardLoss(g *graph.Graph, call *nn.Call, loss, weight *graph.Node, moved []graph.Assign) {
	loss = op.Mul(loss, weight)
	g.Output("loss", loss)
	params, ws := m.trained(g, call.Params)
	for i, d := range grad.Of(loss, ws...) {
		g.Output(gradPrefix+params[i].Name, d)
	}
	g.During(graph.Update, func() {
		for _, a := range moved {
			g.Output(movedPrefix+graph.NameOf(a.Var), op.Mul(a.Value, weight))
		}
	})
}

// applied is the graph of the update from sums over all shards.
func (m *Model) applyGraph(k programKey, l *layout) (*graph.Graph, error) {
	return graph.Build(func(g *graph.Graph) {
		in := make([]*graph.Node, len(l.members))
		for i, v := range l.members {
			in[i] = g.Input(v.name, v.t)
		}
		rate := g.Input("rate", graph.T(dtype.F32))
		params, _ := m.trained(g, slices.DeleteFunc(slices.Clone(m.own()), func(p nn.Param) bool { // what is trained later has no gradient yet
			_, ok := l.byName[gradPrefix+p.Name]
			return !ok
		}))
		grads := make([]*graph.Node, len(params))
		for i, p := range params {
			grads[i] = in[l.byName[gradPrefix+p.Name]]
		}
		if k.mode == applyMomenta {
			warm, _ := m.parallel.Compress.OneBit()
			m.opt.BuildMomenta(g, params, grads, rate, warm)
		} else {
			m.update(g, params, grads, rate, k.mode == applyGather)
		}
		m.moveOn(g, l, func(i int) *graph.Node { return in[i] }, k.batch)
	})
}

// moveOn ends an update: moving averages take their new values, member i of the layout that of in(i), and random layers draw other numbers next.
func (m *Model) moveOn(g *graph.Graph, l *layout, in func(i int) *graph.Node, shards int) {
	g.During(graph.Update, func() {
		for i, v := range l.members {
			if name, ok := strings.CutPrefix(v.name, movedPrefix); ok {
				g.Update(g.Variable(name, v.t), in(i))
			}
		}
		seed := g.Variable(seedVar, graph.T(dtype.I64, 2))
		g.Update(seed, op.Add(seed, g.Const(tensor.Of([]int64{0, int64(shards)}))))
	})
}

// trained are the trainable parameters and their variables.
func (m *Model) trained(g *graph.Graph, all []nn.Param) (params []nn.Param, ws []*graph.Node) {
	for _, p := range all {
		if p.Trainable {
			p.RateFactor, p.Since = m.rateFactor(p.Name), m.since(p.Name)
			params = append(params, p)
			ws = append(ws, g.Variable(p.Name, p.Type))
		}
	}
	if len(ws) == 0 && m.pipe == nil { // a stage may have none
		why := "weights of bytes and of few bits are not trained; train the model of floats that they were made of"
		if len(m.frozen) > 0 {
			why = "all that could be trained is frozen"
		}
		g.Fail("model", nil, "has no trainable parameter: %s", why)
	}
	return params, ws
}

// shardProgram is a compiled shard with its results' places in every slot.
type shardProgram struct {
	*program
	outs    [][]*tensor.Tensor // by slot
	buckets []int              // by output; -1: none
}

// shardProgram compiles the program of a shard of n examples of the batch b.
func (g *group) shardProgram(b *data.Batch, n int) (*shardProgram, error) {
	k := g.shardKey(b, n)
	if p := g.programs[k]; p != nil {
		return p, nil
	}
	p, err := g.buildShard(k, false)
	if err != nil {
		return nil, err
	}
	g.programs[k] = p
	g.m.programs[p.key] = p.program
	return p, nil
}

func (g *group) shardKey(b *data.Batch, n int) programKey {
	return programKey{mode: shard, batch: n, stage: g.stage, shapes: g.m.shapes(b.X, b.Y)}
}

func (g *group) buildShard(k programKey, stopAtNaN bool) (*shardProgram, error) {
	sg, call, err := g.m.graph(k)
	if err != nil {
		return nil, err
	}
	sp := &shardProgram{}
	run := sg // the account counts the arithmetic of sg: what is computed again is not asked for
	if g.m.recompute != nil {
		if run, err = g.m.recomputing(sg); err != nil {
			return nil, err
		}
	}
	o := backend.Options{Threads: g.m.threads, StopAtNaN: stopAtNaN, Ready: func(i int) { g.ready(sp.buckets[i]) }}
	if g.zeroStage() == 2 {
		o.Take = func(i int, p []byte) bool {
			j, ok := g.flat.byName[sg.Outputs()[i].Name]
			if ok && !stopAtNaN {
				g.zero.took(j, p)
			}
			return ok
		}
	}
	e, err := g.m.backend.Compile(run, g.m.state, o)
	if err != nil {
		return nil, err
	}
	sp.program = &program{key: k, g: sg, exec: e, in: make([]*tensor.Tensor, len(sg.Inputs()))}
	sp.judged(call)
	for i, o := range sg.Outputs() {
		var own *tensor.Tensor
		b := -1
		switch j, ok := g.flat.byName[o.Name]; {
		case o.Name == "loss":
			b = len(g.flat.buckets) - 1
		case ok:
			b = g.flat.members[j].bucket
		default:
			own = tensor.New(o.Node.DType(), o.Node.Shape()...)
		}
		sp.buckets = append(sp.buckets, b)
		for s := range g.slots {
			if i == 0 {
				sp.outs = append(sp.outs, nil)
			}
			t := own
			if t == nil {
				t = g.slots[s].views[len(g.flat.members)]
				if j, ok := g.flat.byName[o.Name]; ok {
					t = g.slots[s].views[j]
				}
			}
			sp.outs[s] = append(sp.outs[s], t)
		}
	}
	sp.out = sp.outs[0]
	return sp, nil
}

// applyProgram compiles the update.
func (g *group) applyProgram(k mode) (*program, error) {
	if p := g.applied[k]; p != nil {
		return p, nil
	}
	key := programKey{mode: k, batch: g.Shards, stage: g.stage}
	ag, err := g.m.applyGraph(key, &g.flat)
	if err != nil {
		return nil, err
	}
	e, err := g.m.backend.Compile(ag, g.m.state, backend.Options{Threads: g.m.threads})
	if err != nil {
		return nil, err
	}
	p := &program{key: key, g: ag, exec: e, in: append(append([]*tensor.Tensor{}, g.total.views[:len(g.flat.members)]...), tensor.New(dtype.F32))}
	g.applied[k], g.m.programs[key] = p, p
	return p, nil
}

// ready counts a result that a shard has finished; the last shard's complete buckets are sent off.
func (g *group) ready(b int) {
	if b < 0 || !g.last {
		return
	}
	if g.open[b]--; g.open[b] == 0 {
		if g.zero != nil {
			g.zero.complete()
		}
		g.queue <- b
	}
}

// wishes are what ranks want of each other at a step.
type wishes struct{ stop, save bool }

// step computes a batch's gradients together with the other ranks and updates. judge is called with the predictions of this rank's shards.
func (g *group) step(b *data.Batch, k mode, rate float64, wish wishes, judge func(classes int, pred, y *tensor.Tensor)) (loss float64, all wishes, err error) {
	if g.m.pipe != nil {
		return g.m.pipe.step(g, b, k, rate, wish, judge)
	}
	from, _ := g.piece(b.Of, g.lo)
	if b.N > 0 || g.hi > g.lo {
		if err := g.m.stateInto(seedVar, g.state); err != nil {
			return 0, all, err
		}
	}
	if err := g.seek(); err != nil {
		return 0, all, err
	}
	begun := time.Now()
	if g.window != nil {
		if err := g.window.Free(); err != nil {
			return 0, all, err
		}
	}
	seed := g.state
	draw := tensor.Data[int64](seed)
	count := draw[1]
	depth := 0
	g.queue = make(chan int, len(g.flat.buckets))
	g.open = g.open[:0]
	for _, b := range g.flat.buckets {
		g.open = append(g.open, b.members)
	}
	done := make(chan error, 1)
	for s := g.lo; s < g.hi; s++ {
		lo, hi := g.piece(b.Of, s)
		own := g.slots[depth]
		clear(own.control)
		depth++
		if g.last = s == g.hi-1; g.last {
			flag(own.control[controlStop:], wish.stop)
			flag(own.control[controlSave:], wish.save)
			if !g.atEnd() {
				go func() { done <- g.sum(depth, depth-g.joins[len(g.joins)-1]) }()
			}
		}
		draw[1] = count + int64(s)
		if err := g.one(b, lo-from, hi-from, depth-1, judge); err != nil {
			if g.last && !g.atEnd() {
				close(g.queue)
				<-done
			}
			return 0, all, err
		}
		if g.last {
			break
		}
		for range g.joins[s-g.lo] {
			depth--
			add(g.slots[depth-1].all, g.slots[depth].all)
		}
	}
	computed := time.Now()
	if g.atEnd() {
		err = g.sumInWindow(depth)
	} else {
		g.urgent(true)
		err = <-done
		g.urgent(false)
		g.account.waited += time.Since(computed)
	}
	summed := time.Now()
	g.account.steps++
	if err != nil {
		return 0, all, err
	}
	control := g.total.control
	loss = float64(control[controlLoss])
	all = wishes{stop: control[controlStop] > 0, save: control[controlSave] > 0}
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		return loss, all, nil // the weights stay as they are
	}
	if err := g.apply(k, rate); err != nil {
		return 0, all, err
	}
	if g.Trace != nil {
		step := g.account.steps
		g.Trace(Span{"gradients", step, begun, computed})
		if !g.atEnd() {
			g.Trace(Span{"wait", step, computed, summed})
		}
		g.Trace(Span{"update", step, summed, time.Now()})
	}
	return loss, all, nil
}

// apply updates from the sums in the first slot.
func (g *group) apply(k mode, rate float64) error {
	if g.zero != nil {
		return g.zero.apply(k, rate)
	}
	g.m.unshared = nil
	if d := g.m.team; k == train && g.m.inParts() && g.m.opt.LimitsNorms() {
		return g.limited(d.row, rate, func(param string) bool { return d.split.Rank == 0 || g.m.part(param) })
	}
	if k == train && g.bits != nil {
		k = applyMomenta
	} else if k == train {
		k = apply
	} else {
		k = applyGather
	}
	p, err := g.applyProgram(k)
	if err != nil {
		return err
	}
	p.in[len(p.in)-1].F32()[0] = float32(rate)
	return p.exec.Run(p.in, nil)
}

// urgent says that this rank has nothing to do but wait for sums, or has again.
func (g *group) urgent(yes bool) {
	if c := g.m.Comm(); c != nil {
		c.Urgent(yes)
	}
	if g.m.inParts() {
		g.m.team.column.Urgent(yes)
	}
}

func flag(x []float32, on bool) {
	if on {
		x[0] = 1
	}
}

func add(a, b []float32) { vec.Binary(vec.Add)(a, a, b) }

// one computes the gradients of examples lo to hi of this rank's part of the batch into a slot.
func (g *group) one(b *data.Batch, lo, hi, at int, judge func(classes int, pred, y *tensor.Tensor)) error {
	if lo == hi { // the last batch of an epoch may have fewer examples than there are shards
		if own := g.slots[at]; own.all != nil {
			clear(own.all[:g.flat.control])
		} else {
			for i := range g.flat.buckets {
				clear(g.zero.bucket(i).all)
			}
		}
		g.slots[at].control[controlLoss] = 0
		for i, b := range g.flat.buckets {
			for range b.members {
				g.ready(i)
			}
		}
		return nil
	}
	p, err := g.shardProgram(b, hi-lo)
	if err != nil {
		return err
	}
	n := g.fill(p, b, lo, hi)
	if err := p.exec.Run(p.in, p.outs[at]); err != nil {
		return err
	}
	if err := g.joined(); err != nil {
		return err
	}
	if judge != nil && g.rank()%g.copies() == 0 {
		judge(p.classes, p.outs[at][0], p.in[n])
	}
	return nil
}

// fill points a shard's program at its examples and gives the place of the targets.
func (g *group) fill(p *shardProgram, b *data.Batch, lo, hi int) int {
	n := 0
	for _, x := range b.X {
		p.in[n] = x.Slice(lo, hi)
		n++
	}
	g.weight.F32()[0] = float32(float64(hi-lo) / float64(b.Of*g.copies()))
	p.in[n], p.in[n+1], p.in[n+2] = g.weight, g.state, b.Y[0].Slice(lo, hi)
	if len(b.Y) > 1 { // what a teacher has said
		p.in[n+3] = b.Y[1].Slice(lo, hi)
	}
	return n + 2
}

// sum adds up buckets as they become ready: this rank's shards in depth slots, of which left stay, then all ranks'. It runs beside the backward pass.
func (g *group) sum(depth, left int) error {
	own := make([][]float32, left)
	for range g.flat.buckets {
		i, ok := <-g.queue
		if !ok {
			return nil // the step has failed
		}
		b := g.flat.buckets[i]
		start := time.Now()
		for d := depth; d > left; d-- {
			add(g.slots[d-2].all[b.lo:b.hi], g.slots[d-1].all[b.lo:b.hi])
		}
		for s := range own {
			if g.slots[s].all != nil {
				own[s] = g.slots[s].all[b.lo:b.hi]
			}
		}
		if err := g.exchange(i, own); err != nil {
			if g.zero != nil {
				g.zero.abandon()
			}
			return err
		}
		end := time.Now()
		g.account.busy += end.Sub(start)
		if g.Trace != nil {
			g.Trace(Span{fmt.Sprintf("bucket %d", i), g.account.steps + 1, start, end})
		}
	}
	if g.window != nil {
		g.window.End()
	}
	if g.zero == nil {
		return nil
	}
	for d := depth; d > left; d-- {
		add(g.slots[d-2].control, g.slots[d-1].control)
	}
	for s := range own {
		own[s] = g.slots[s].control
	}
	return g.m.Comm().SumTree(g.plan, own, own[0])
}

// seek finds out, at the first step, whether ranks see common memory: gradients are then computed there, and the sum of all ranks' is read into another slot. If all see it, that is at the end of the step: nothing travels,
// so there is nothing to hide behind the backward pass. Between machines sums travel, bucket by bucket.
func (g *group) seek() error {
	if g.sought {
		return nil
	}
	g.sought = true
	c := g.m.Comm()
	if c == nil || g.m.inParts() || g.zero != nil || g.Compress != nil || g.AnyOrder || g.Local > 1 || len(g.programs) > 0 || len(g.applied) > 0 || !g.plan.OneEach() {
		return nil
	}
	w, err := c.NewWindow(g.flat.size)
	if err != nil || w == nil {
		return err
	}
	raw := w.Own()
	g.window, g.slots[0] = w, g.flat.slotIn(&vector{raw, tensor.Wrap(dtype.F32, []int{len(raw) / 4}, raw).F32()[:g.flat.size]})
	return nil
}

// atEnd reports whether sums are taken at the end of the step, and not beside the backward pass.
func (g *group) atEnd() bool { return g.window != nil && g.window.Whole() }

// sumInWindow adds up this rank's shards in depth slots, and then what all ranks have in common memory.
func (g *group) sumInWindow(depth int) error {
	start := time.Now()
	for d := depth; d > 1; d-- {
		add(g.slots[d-2].all, g.slots[d-1].all)
	}
	c := g.m.Comm()
	c.Urgent(true)
	waited, err := g.window.Sum(g.plan, g.total.all)
	c.Urgent(false)
	end := time.Now()
	g.account.waited += waited
	g.account.busy += end.Sub(start)
	if g.Trace != nil {
		g.Trace(Span{"sum", g.account.steps + 1, start, end})
	}
	return err
}

// exchange adds all ranks' parts of bucket i up into own[0].
func (g *group) exchange(i int, own [][]float32) error {
	c, plan := g.adders(i)
	switch {
	case g.Compress != nil:
		return g.exchangeCompressed(c, i, own)
	case g.zero != nil:
		return g.zero.scatter(i, own)
	case c == nil:
		return nil // the tree is whole: everything is in slot 0
	case g.AnyOrder:
		for _, x := range own[1:] {
			add(own[0], x)
		}
		return c.SumAnyOrder(own[0])
	case g.window != nil:
		b := g.flat.buckets[i]
		_, err := g.window.SumAt(plan, b.lo, g.total.all[b.lo:b.hi])
		return err
	}
	return c.SumTree(plan, own, own[0])
}

// probe finds where a shard's loss that is not finite arises.
func (g *group) probe(b *data.Batch) error {
	if g.m.pipe != nil {
		return g.m.pipe.probe(g, b)
	}
	from, _ := g.piece(b.Of, g.lo)
	draw := tensor.Data[int64](g.state)
	if err := g.m.stateInto(seedVar, g.state); err != nil {
		return err
	}
	count := draw[1]
	g.last = false
	for _, j := range g.groups() { // a rank may stop anywhere
		j.Apart(true)
		defer j.Apart(false)
	}
	for s := g.lo; s < g.hi; s++ {
		lo, hi := g.piece(b.Of, s)
		if lo == hi {
			continue
		}
		p, err := g.buildShard(g.shardKey(b, hi-lo), true)
		if err != nil {
			return err
		}
		draw[1] = count + int64(s)
		g.fill(p, b, lo-from, hi-from)
		if err := p.exec.Run(p.in, p.outs[0]); err != nil {
			return err
		}
	}
	return nil
}

// stateInto copies a variable into t.
func (m *Model) stateInto(name string, t *tensor.Tensor) error {
	v, err := m.state.Get(name)
	if err == nil {
		copy(t.Bytes(), v.Bytes())
	}
	return err
}
