package train

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// The step of a pipeline: one forward, one backward (1F1B; Narayanan et al., PipeDream, SOSP 2019, and, with a flush at the end of each step, Efficient Large-Scale Language Model Training on GPU
// Clusters Using Megatron-LM, arXiv:2104.04473). Stage k of n lets n-1-k micro-batches through, then goes forward with one and backward with the oldest by turns, then backward with the rest. It
// takes as long as GPipe's schedule (all forward, then all backward), but at most n-k micro-batches are on their way in a stage, however many there are.
//
// The forward and the backward pass of a stage are one program, which stops in its middle at op.HandOver: nothing is computed twice, and what backends make of both passes together stays. Each
// micro-batch on its way has a program of its own, with its activations, on a goroutine; one of them computes at a time.
//
// Other backends' programs cannot stop. There a stage has two (halves): one that goes forward, and one that goes forward again and backward, as GPipe does (arXiv:1811.06965): a third more arithmetic for activations that nobody keeps.

const (
	tagForward  = 1
	tagBackward = 2
)

// lane is a program of a stage and the micro-batch in it.
type lane struct {
	l       *pipeline
	size    programKey // of its micro-batch
	s       *stageGraph
	p       *program
	first   *program               // of two programs, the one that only goes forward; nil of one that stops in its middle, and in the last stage
	alike   []int                  // of its inputs that do not come from the stage before, the same ones of p
	arrived []*tensor.Tensor       // of two programs: the gradients that come back
	outs    []*tensor.Tensor       // and the results, which take is given when the run is over
	taken   []*tensor.Tensor       // from the stage before
	weight  *tensor.Tensor         // of a shard's loss
	state   *tensor.Tensor         // of random layers
	own     map[int]*tensor.Tensor // outputs that are no sums: predictions, gradients for the stage before
	back    []int                  // those of the latter, in their order
	came    []bool                 // which of them are computed
	sent    int                    // and how many are on their way
	into    []int                  // of other outputs, their place in a slot; -1: they are own
	buckets []int

	g       *group
	at      *slot // where sums go; nil before the backward pass
	adds    bool  // they are added to what is there
	early   map[int][]byte
	dead    bool // the step has failed
	posts   []*dist.Posted
	handed  chan struct{} // the run has come to the hand-over
	resume  chan struct{}
	done    chan error
	values  []*tensor.Tensor // of the hand-over
	grads   []*tensor.Tensor
	failure error // of a message
}

// lane gives a free program for a micro-batch of n examples of a batch.
func (l *pipeline) lane(g *group, b *data.Batch, n int) (*lane, error) {
	size := l.laneKey(b, n)
	if free := l.lanes[size]; len(free) > 0 {
		k := free[len(free)-1]
		l.lanes[size] = free[:len(free)-1]
		if err := arrive(k.posts); err != nil {
			return nil, err
		}
		k.posts = k.posts[:0]
		return k, nil
	}
	return l.newLane(g, size, false)
}

// laneKey names the forward pass of n examples of a batch, which lanes of their number and shapes share.
func (l *pipeline) laneKey(b *data.Batch, n int) programKey {
	return programKey{mode: shard, forward: true, batch: n, shapes: l.m.shapes(b.X, b.Y)}
}

func (l *pipeline) newLane(g *group, size programKey, stopAtNaN bool) (*lane, error) {
	k := &lane{l: l, size: size, g: g, weight: tensor.New(dtype.F32), state: tensor.New(dtype.I64, 2), own: map[int]*tensor.Tensor{}, early: map[int][]byte{}, handed: make(chan struct{}),
		resume: make(chan struct{}), done: make(chan error, 1)}
	var err error
	if k.s, err = l.graph(size, &op.Link{Pass: k.pass}); err != nil {
		return nil, err
	}
	for _, t := range k.s.takes {
		k.taken = append(k.taken, tensor.New(t.DType(), t.Shape()...))
	}
	for i, o := range k.s.g.Outputs() {
		at, b := -1, -1
		switch j, ok := g.flat.byName[o.Name]; {
		case ok:
			at, b = j, g.flat.members[j].bucket
		case o.Name == "loss":
			at, b = len(g.flat.members), len(g.flat.buckets)-1
		default:
			k.own[i] = tensor.New(o.Node.DType(), o.Node.Shape()...)
			if strings.HasPrefix(o.Name, backPrefix) {
				k.back = append(k.back, i)
			}
		}
		k.into, k.buckets = append(k.into, at), append(k.buckets, b)
	}
	if l.apart() {
		return k, k.halves(stopAtNaN)
	}
	e, err := l.compile(k.s, backend.Options{StopAtNaN: stopAtNaN, Take: k.take, Ready: k.ready})
	if err != nil {
		return nil, err
	}
	k.p = &program{key: programKey{mode: shard, batch: size.batch, shapes: size.shapes, lane: l.made[size] + 1}, g: k.s.g, exec: e, in: make([]*tensor.Tensor, len(k.s.inputs)), out: make([]*tensor.Tensor, len(k.s.g.Outputs()))}
	copy(k.p.in, k.taken)
	if !stopAtNaN {
		l.made[size]++
		l.m.programs[k.p.key] = k.p
	}
	return k, nil
}

// pass is called by the run at the hand-over.
func (k *lane) pass(values, grads []*tensor.Tensor) {
	k.values, k.grads = values, grads
	for _, g := range grads {
		clear(g.Bytes())
	}
	k.handed <- struct{}{}
	<-k.resume
}

// take puts an output in its place as soon as it is computed. Sums of the forward pass wait: the slot may still be another micro-batch's.
func (k *lane) take(i int, p []byte) bool {
	switch {
	case k.dead:
	case k.into[i] < 0:
		copy(k.own[i].Bytes(), p)
		if j := slices.Index(k.back, i); j >= 0 {
			k.came[j] = true
			for ; k.sent < len(k.back) && k.came[k.sent]; k.sent++ {
				k.post(k.l.stage-1, tagBackward, k.own[k.back[k.sent]])
			}
		}
	case k.at == nil:
		k.early[i] = append(k.early[i][:0], p...)
	default:
		k.place(i, p)
	}
	return true
}

// place puts an output into the slot.
func (k *lane) place(i int, p []byte) {
	at := k.at.views[k.into[i]]
	if !k.adds {
		copy(at.Bytes(), p)
		return
	}
	add(at.F32(), tensor.Wrap(dtype.F32, at.Shape(), p).F32())
}

func (k *lane) ready(i int) {
	if !k.dead && k.at != nil {
		k.g.ready(k.buckets[i])
	}
}

// post sends a tensor that stays as it is until the next micro-batch.
func (k *lane) post(to, tag int, t *tensor.Tensor) {
	if k.failure != nil {
		return
	}
	p, err := k.l.post.Post(to, tag, t.Bytes())
	if err != nil {
		k.failure = err
		return
	}
	k.posts = append(k.posts, p)
}

// start lets the run go.
func (k *lane) start() {
	if k.l.apart() {
		go func() { k.done <- k.both() }()
		return
	}
	go func() { k.done <- k.p.exec.Run(k.p.in, k.p.out) }()
}

// sums begins the part of a run whose sums go into a slot.
func (k *lane) sums(s *slot, adds bool) {
	k.at, k.adds = s, adds
	for i, p := range k.early {
		k.place(i, p)
		k.g.ready(k.buckets[i])
	}
	clear(k.early)
}

// abandon brings a run that stands at the hand-over to its end.
func (k *lane) abandon() {
	k.dead = true
	k.resume <- struct{}{}
	<-k.done
}

// pipeStep is a step on its way.
type pipeStep struct {
	l     *pipeline
	g     *group
	b     *data.Batch
	from  int // the batch's first example here
	count int64
	seed  int64
	wish  wishes
	judge func(classes int, pred, y *tensor.Tensor)

	way    []*lane // micro-batches that have been handed over, the oldest first; nil: one without examples
	depth  int
	sum    chan error // of the buckets, once the last shard comes back
	waited time.Duration
}

// step is group.step for a stage.
func (l *pipeline) step(g *group, b *data.Batch, k mode, rate float64, wish wishes, judge func(classes int, pred, y *tensor.Tensor)) (loss float64, all wishes, err error) {
	from, _ := g.piece(b.Of, g.lo)
	if err := g.m.stateInto(seedVar, g.state); err != nil {
		return 0, all, err
	}
	draw := tensor.Data[int64](g.state)
	x := &pipeStep{l: l, g: g, b: b, from: from, seed: draw[0], count: draw[1], wish: wish, judge: judge}
	g.queue = make(chan int, len(g.flat.buckets))
	g.open = g.open[:0]
	for _, b := range g.flat.buckets {
		g.open = append(g.open, b.members)
	}
	g.last = false
	l.row.Urgent(true)
	l.column.Urgent(false)
	if err := x.run(); err != nil {
		x.abandon()
		return 0, all, err
	}
	computed := time.Now()
	l.column.Urgent(true)
	if err := <-x.sum; err != nil {
		return 0, all, err
	}
	added := time.Now()
	// A stage has its own control values: the last the loss.
	control := newVector(controls)
	copy(control.all, g.slots[0].control)
	if err := l.row.AllReduce(control.all); err != nil {
		return 0, all, err
	}
	summed := time.Now()
	g.account.waited += summed.Sub(computed) + x.waited
	g.account.bubble += summed.Sub(added) + x.waited
	g.account.steps++
	loss = float64(control.all[controlLoss])
	all = wishes{stop: control.all[controlStop] > 0, save: control.all[controlSave] > 0}
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		return loss, all, nil // the weights stay as they are
	}
	if err := l.apply(g, k, rate); err != nil {
		return 0, all, err
	}
	if g.Trace != nil {
		step := g.account.steps
		g.Trace(Span{"wait", step, computed, summed})
		g.Trace(Span{"update", step, summed, time.Now()})
	}
	return loss, all, nil
}

// run goes through the schedule.
func (x *pipeStep) run() error {
	n := x.g.hi - x.g.lo
	ahead := min(x.l.stages-1-x.l.stage, n)
	for i := range n + ahead {
		if i < n {
			if err := x.forward(x.g.lo + i); err != nil {
				return err
			}
		}
		if i >= ahead {
			if err := x.backward(x.g.lo + i - ahead); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive waits for values of another stage.
func (x *pipeStep) receive(from, tag int, ts []*tensor.Tensor) error {
	if len(ts) == 0 {
		return nil
	}
	begun := time.Now()
	for _, t := range ts {
		if err := x.l.row.Recv(from, tag, t.Bytes()); err != nil {
			return err
		}
	}
	end := time.Now()
	x.waited += end.Sub(begun)
	x.trace("wait", begun, end)
	return nil
}

func (x *pipeStep) trace(what string, begun, end time.Time) {
	if x.g.Trace != nil {
		x.g.Trace(Span{what, x.g.account.steps + 1, begun, end})
	}
}

// forward lets shard s through this stage; at the last stage it comes back at once.
func (x *pipeStep) forward(s int) error {
	lo, hi := x.g.piece(x.b.Of, s)
	if lo == hi { // the last batch of an epoch may have fewer examples than there are shards
		x.way = append(x.way, nil)
		return nil
	}
	k, err := x.l.lane(x.g, x.b, hi-lo)
	if err != nil {
		return err
	}
	k.at, k.failure, k.sent, k.came = nil, nil, 0, make([]bool, len(k.back))
	if err := x.receive(x.l.stage-1, tagForward, k.taken); err != nil {
		return err
	}
	begun := time.Now()
	k.fill(x.b, lo-x.from, hi-x.from, float64(hi-lo)/float64(x.b.Of), x.seed, x.count+int64(s))
	if x.l.last() {
		x.way = append(x.way, k) // it is run by backward
		return nil
	}
	k.start()
	select {
	case <-k.handed:
	case err := <-k.done:
		return fmt.Errorf("train: pipeline stage %d ended before it handed over: %w", x.l.stage, err)
	}
	x.way = append(x.way, k)
	for _, t := range k.values {
		k.post(x.l.stage+1, tagForward, t)
	}
	x.trace(fmt.Sprintf("forward %d", s), begun, time.Now())
	return k.failure
}

// fill points the program at its examples.
func (k *lane) fill(b *data.Batch, lo, hi int, weight float64, seed, draw int64) {
	k.weight.F32()[0] = float32(weight)
	state := tensor.Data[int64](k.state)
	state[0], state[1] = seed, draw
	for i, n := range k.s.inputs[len(k.taken):] {
		var t *tensor.Tensor
		switch name := graph.NameOf(n); name {
		case "weight":
			t = k.weight
		case "random":
			t = k.state
		case "y":
			t = b.Y[0].Slice(lo, hi)
		default:
			if strings.HasPrefix(name, arrivedPrefix) {
				continue
			}
			t = b.X[number(name)].Slice(lo, hi)
		}
		k.p.in[len(k.taken)+i] = t
	}
}

// backward brings shard s, the oldest on its way, back through this stage.
func (x *pipeStep) backward(s int) error {
	g := x.g
	k := x.way[0]
	x.way = x.way[1:]
	// A shard that the tree adds to the one before needs no slot.
	joins := g.joins[s-g.lo]
	adds := joins > 0
	if adds {
		joins--
	} else {
		clear(g.slots[x.depth].control)
		x.depth++
	}
	own := g.slots[x.depth-1]
	fail := func(err error) error {
		if k != nil && !x.l.last() {
			k.abandon()
		}
		return err
	}
	if k != nil && !x.l.last() {
		if err := x.receive(x.l.stage+1, tagBackward, k.grads); err != nil {
			return fail(err)
		}
		if err := arrive(k.posts); err != nil { // the values lie in the program's memory
			return fail(err)
		}
		k.posts = k.posts[:0]
	}
	begun := time.Now()
	if g.last = s == g.hi-1; g.last {
		flag(own.control[controlStop:], x.wish.stop)
		flag(own.control[controlSave:], x.wish.save)
		x.sum = make(chan error, 1)
		depth := x.depth
		go func() { x.sum <- g.sum(depth, depth-joins) }()
	}
	switch {
	case k == nil:
		if zeros := own.all[:g.flat.control]; !adds {
			clear(zeros)
		} else { // to add zeros makes -0 a 0, as in one process
			var zero float32
			for i := range zeros {
				zeros[i] += zero
			}
		}
		for i, b := range g.flat.buckets {
			for range b.members {
				g.ready(i)
			}
		}
	default:
		k.sums(own, adds)
		if !x.l.last() {
			g.ready(len(g.flat.buckets) - 1) // for the loss, which it has not
			k.resume <- struct{}{}
		} else {
			k.start()
		}
		if err := <-k.done; err != nil {
			return err
		}
		if k.failure != nil {
			return k.failure
		}
		if x.l.last() && x.judge != nil {
			for i, o := range k.s.g.Outputs() {
				if o.Name == "prediction" {
					lo, hi := g.piece(x.b.Of, s)
					x.judge(0, k.own[i], x.b.Y[0].Slice(lo-x.from, hi-x.from))
				}
			}
		}
		x.l.lanes[k.size] = append(x.l.lanes[k.size], k)
	}
	what := "backward"
	if x.l.last() {
		what = "forward and backward"
	}
	x.trace(fmt.Sprintf("%s %d", what, s), begun, time.Now())
	if g.last {
		return nil
	}
	for range joins {
		x.depth--
		add(g.slots[x.depth-1].all, g.slots[x.depth].all)
	}
	return nil
}

// abandon ends a step that has failed.
func (x *pipeStep) abandon() {
	if !x.l.last() {
		for _, k := range x.way {
			if k != nil {
				k.abandon()
			}
		}
	}
	if x.sum != nil {
		close(x.g.queue)
		<-x.sum
	}
	clear(x.l.lanes) // a failed step is the last: programs may stand anywhere
}

// limited reports whether an update needs the gradients of all stages.
func (l *pipeline) limited() bool { return l.m.opt.GlobalClipNorm > 0 }

// apply updates this rank's parameters from the sums in the first slot.
func (l *pipeline) apply(g *group, k mode, rate float64) error {
	if k != train || !l.limited() {
		return g.apply(k, rate)
	}
	l.m.unshared = nil
	return g.limited(l.row, rate, func(string) bool { return true })
}
