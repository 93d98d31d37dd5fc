package train

import (
	"fmt"
	"strings"
	"sync"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
)

// State that is shared out (ZeRO; Rajbhandari et al., arXiv:1910.02054). Each bucket of gradients is cut into as many segments as there are ranks. A rank gets the sum of its segments alone, has
// the optimizer's state of those alone, and updates the weights there; then all ranks gather the weights. Messages have the bytes of a sum on all ranks: its second half carries weights in place
// of gradients. Rules of optimizers work element by element, so the bits are those of the whole update; where norms are limited, they are summed up in another order.
//
// Where layers are split over ranks (tensor.go), the segments of a part are those of the ranks that have the same part, one of each row; segments of what is whole are those of all ranks.
//
// Stage 1 keeps the gradients of a batch whole on each rank until they are summed. Stage 2 keeps, while the backward pass runs, only the buckets that are being computed or sent.

// zero is a group's sharing of state.
type zero struct {
	g     *group
	stage int
	parts []part  // this rank's
	at    []int   // where each bucket's segment lies in mine
	mine  *vector // sums of this rank's segments, then the new values

	update, gather, squares *program

	// Of stage 2: the buckets that are being filled or sent.
	mu    sync.Mutex
	freed *sync.Cond
	free  []*vector
	held  []*vector // by bucket
	away  int       // buckets that are complete and not yet summed
	lost  bool      // the sums have failed: nobody gives memory back
}

// part is what one rank updates of a parameter: elements lo <= i < hi of it, one after another.
type part struct {
	param  nn.Param
	lo, hi int // of the parameter as this rank has it
	off    int // in the slot
	bucket int
}

// among is this rank's place among those that share bucket i, and how many they are.
func (z *zero) among(i int) (me, of int) {
	if c, _ := z.g.adders(i); c != nil {
		return c.Rank(), c.Size()
	}
	return 0, 1
}

// vector is memory for f32 numbers, as slice and as tensors.
type vector struct {
	raw []byte
	all []float32
}

func newVector(n int) *vector {
	raw := tensor.AlignedBytes(4 * n)
	return &vector{raw, tensor.Wrap(dtype.F32, []int{n}, raw).F32()}
}

func (v *vector) view(off int, dims ...int) *tensor.Tensor {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return tensor.Wrap(dtype.F32, dims, v.raw[4*off:4*(off+n)])
}

// sharded reports whether a variable of training is shared out over the ranks.
func (m *Model) sharded(name string) bool {
	return m.away(name) || m.part(name) || m.zeroed(name)
}

// zeroed reports whether each rank has a segment of a variable, of those that would have all of it or the same part.
func (m *Model) zeroed(name string) bool {
	return m.parallel.zeroStage() > 0 && (strings.HasPrefix(name, optimizerPrefix) && name != optim.IterationVar || strings.HasPrefix(name, accumulatedPrefix))
}

const (
	optimizerPrefix   = "optimizer/"
	accumulatedPrefix = "accumulated/"
)

// zeroStage is the stage that is in force: a process alone has nobody to share with, and a rank with several shards keeps the gradients of one while it computes the next.
func (p *Parallel) zeroStage() int {
	switch {
	case p.ranks() == 1:
		return 0
	case p.Zero == 2 && p.Shards != 0 && p.Shards != p.rows():
		return 1
	}
	return p.Zero
}

// checkZero reports settings that do not go together with shared state.
func (p *Parallel) checkZero() error {
	switch {
	case p.Zero < 0 || p.Zero > 2:
		return fmt.Errorf("train: stage %d of ZeRO: 1 shares the optimizer's state out, 2 gradients as well, 0 nothing", p.Zero)
	case p.Zero == 0:
		return nil
	case p.Compress != nil:
		return fmt.Errorf("train: ZeRO and the compression %v cannot be used together: each rank would know only its part of what is left out", p.Compress)
	case p.Local > 1:
		return fmt.Errorf("train: ZeRO shares each step's update out, but with %d local steps every rank makes its own", p.Local)
	case p.AnyOrder:
		return fmt.Errorf("train: ZeRO scatters sums, which are always in the fixed order: leave out the sums of any order")
	}
	return nil
}

// newZero finds who updates what. The layout's last bucket ends before the control values, which are summed apart.
func (g *group) newZero() *zero {
	z := &zero{g: g, stage: g.zeroStage(), held: make([]*vector, len(g.flat.buckets))}
	z.freed = sync.NewCond(&z.mu)
	params := map[string]nn.Param{}
	for _, p := range g.m.params {
		p.RateFactor = g.m.rateFactor(p.Name)
		params[p.Name] = p
	}
	size := 0
	for i, b := range g.flat.buckets {
		me, of := z.among(i)
		lo, hi := dist.SegmentOf(b.hi-b.lo, me, of)
		z.at = append(z.at, size)
		size += hi - lo
		lo, hi = lo+b.lo, hi+b.lo
		g.eachGradient(i, func(m *member, _ int) {
			if from, to := max(lo, m.off), min(hi, m.off+m.len); from < to {
				p := params[strings.TrimPrefix(m.name, gradPrefix)]
				p.Type = graph.T(dtype.F32, to-from)
				z.parts = append(z.parts, part{p, from - m.off, to - m.off, from, i})
			}
		})
	}
	z.mine = newVector(size)
	return z
}

// share is where this rank's segment of bucket i lies in mine, and in the bucket.
func (z *zero) share(i int) (at, lo, hi int) {
	b := z.g.flat.buckets[i]
	me, of := z.among(i)
	lo, hi = dist.SegmentOf(b.hi-b.lo, me, of)
	return z.at[i], lo, hi
}

// own is the place of a part of this rank in mine.
func (z *zero) own(p part) *tensor.Tensor {
	at, lo, _ := z.share(p.bucket)
	return z.mine.view(at+p.off-z.g.flat.buckets[p.bucket].lo-lo, p.hi-p.lo)
}

// squares gives, for each parameter, the sum of the squares of its gradient, those accumulated before included: what limits of norms over ranks are made of.
func (m *Model) squares(g *graph.Graph, params []nn.Param, grads []*graph.Node) {
	g.During(graph.Update, func() {
		for i, p := range params {
			d := grads[i]
			if m.accumulate > 1 {
				d = op.Mul(op.Add(g.Variable(accumulatedPrefix+p.Name, p.Type), d), op.Scalar(g, dtype.F32, 1/float64(m.accumulate)))
			}
			g.Output(p.Name, m.opt.Squares(g, d))
		}
	})
}

// build adds this rank's updates to a graph: of the weights, whose new values are outputs, or of accumulated gradients.
func (z *zero) build(k mode) (*graph.Graph, error) {
	m, own := z.g.m, z.parts
	return graph.Build(func(g *graph.Graph) {
		var params []nn.Param
		var ws, grads, factors []*graph.Node
		for _, p := range own {
			params = append(params, p.param)
			grads = append(grads, g.Input(gradPrefix+p.param.Name, p.param.Type))
		}
		if k == applySquares {
			m.squares(g, params, grads)
			return
		}
		m.collect(g, params, grads, k == applyGather)
		if k == apply {
			if m.opt.LimitsNorms() {
				for _, p := range params {
					factors = append(factors, g.Input("factor/"+p.Name, graph.T(dtype.F32)))
				}
			}
			rate := g.Input("rate", graph.T(dtype.F32))
			for i, p := range own {
				w := g.Variable(p.param.Name, z.g.flat.members[z.g.flat.byName[gradPrefix+p.param.Name]].t)
				ws = append(ws, op.SliceAxis(op.Reshape(w, w.Shape().Size()), 0, own[i].lo, own[i].hi))
			}
			for i, w := range m.opt.BuildParts(g, params, ws, grads, factors, rate) {
				g.Output(params[i].Name, w)
			}
		}
		g.During(graph.Update, func() {
			seed := g.Variable(seedVar, graph.T(dtype.I64, 2))
			g.Update(seed, op.Add(seed, g.Const(tensor.Of([]int64{0, int64(z.g.Shards)}))))
		})
	})
}

// declare adds this rank's part of the state.
func (z *zero) declare() error {
	for _, k := range []mode{apply, applyGather} {
		if k == applyGather && z.g.m.accumulate == 1 {
			break
		}
		g, err := z.build(k)
		if err != nil {
			return err
		}
		for _, v := range g.Variables() {
			if name := graph.NameOf(v); z.g.m.zeroed(name) {
				if err := z.g.m.state.Add(backend.Var{Name: name, Type: v.Type()}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (z *zero) program(k mode, at **program) (*program, error) {
	if *at != nil {
		return *at, nil
	}
	g, err := z.build(k)
	if err != nil {
		return nil, err
	}
	e, err := z.g.m.backend.Compile(g, z.g.m.state, backend.Options{Threads: z.g.m.threads})
	if err != nil {
		return nil, err
	}
	p := &program{key: programKey{mode: k, batch: z.g.Shards}, g: g, exec: e}
	for _, q := range z.parts {
		p.in = append(p.in, z.own(q))
	}
	switch {
	case k == apply:
		if z.g.m.opt.LimitsNorms() {
			for range z.parts {
				p.in = append(p.in, tensor.New(dtype.F32))
			}
		}
		p.in = append(p.in, tensor.New(dtype.F32))
		for _, q := range z.parts {
			p.out = append(p.out, z.own(q)) // the sums are not needed any more
		}
	default:
		p.out = backend.NewOutputs(g)
	}
	*at = p
	z.g.m.programs[p.key] = p
	return p, nil
}

// apply updates this rank's part from its sums, and gathers the weights.
func (z *zero) apply(k mode, rate float64) error {
	z.g.m.unshared = nil
	if k != train {
		p, err := z.program(applyGather, &z.gather)
		if err != nil {
			return err
		}
		if err := p.exec.Run(p.in, p.out); err != nil {
			return err
		}
		return z.spread(true)
	}
	p, err := z.program(apply, &z.update)
	if err != nil {
		return err
	}
	if z.g.m.opt.LimitsNorms() {
		if err := z.limit(p.in[len(z.parts):]); err != nil {
			return err
		}
	}
	p.in[len(p.in)-1].F32()[0] = float32(rate)
	if err := p.exec.Run(p.in, p.out); err != nil {
		return err
	}
	return z.spread(false)
}

// limit finds the factors that bring norms within their limits, of this rank's parts.
func (z *zero) limit(factors []*tensor.Tensor) error {
	own := z.parts
	p, err := z.program(applySquares, &z.squares)
	if err != nil {
		return err
	}
	if err := p.exec.Run(p.in, p.out); err != nil {
		return err
	}
	// The sums of all members' parts: one that is no gradient has none.
	at := func(q part) int { return z.g.flat.byName[gradPrefix+q.param.Name] }
	n := len(z.g.flat.members)
	mine, all := newVector(n), newVector(n*z.g.ranks())
	for i, q := range own {
		mine.all[at(q)] = p.out[i].F32()[0]
	}
	if err := z.g.m.Comm().AllGather(mine.raw, all.raw); err != nil {
		return err
	}
	squares := make([]float64, n)
	for i, s := range all.all { // in the order of the ranks
		squares[i%n] += float64(s)
	}
	by := z.g.m.opt.Factors(squares)
	for i, q := range own {
		factors[i].F32()[0] = by[at(q)]
	}
	return nil
}

// spread gives every rank all new values: of moving averages and, unless they are as they were, of weights.
func (z *zero) spread(movedOnly bool) error {
	g := z.g
	g.urgent(true)
	defer g.urgent(false)
	for i, b := range g.flat.buckets {
		moves := false
		for _, m := range g.flat.members {
			moves = moves || m.bucket == i && strings.HasPrefix(m.name, movedPrefix)
		}
		if movedOnly && !moves {
			continue
		}
		v := z.bucket(i)
		at, lo, hi := z.share(i)
		copy(v.all[lo:hi], z.mine.all[at:])
		if c, _ := g.adders(i); c != nil {
			if err := c.AllGatherSegments(v.all); err != nil {
				return err
			}
		}
		for _, m := range g.flat.members {
			name, moved := strings.CutPrefix(m.name, movedPrefix)
			if m.bucket != i || movedOnly && !moved {
				continue
			}
			name = strings.TrimPrefix(name, gradPrefix)
			if err := g.m.state.Set(name, v.view(m.off-b.lo, m.t.Shape...)); err != nil {
				return err
			}
		}
		z.release(i)
	}
	return nil
}

// bucket is memory for bucket i of this rank: in stage 1 its place in the slot.
func (z *zero) bucket(i int) *vector {
	b := z.g.flat.buckets[i]
	if z.stage == 1 {
		return &vector{z.g.slots[0].raw[4*b.lo : 4*b.hi], z.g.slots[0].all[b.lo:b.hi]}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	for z.held[i] == nil {
		for k, v := range z.free {
			if len(v.all) >= b.hi-b.lo {
				z.held[i] = &vector{v.raw[:4*(b.hi-b.lo)], v.all[:b.hi-b.lo]}
				z.free = append(z.free[:k:k], z.free[k+1:]...)
				clear(z.held[i].all)
				break
			}
		}
		if z.held[i] != nil {
			break
		}
		if z.away == 0 || z.lost { // nobody will give one back
			z.held[i] = newVector(b.hi - b.lo)
			break
		}
		z.freed.Wait()
	}
	return z.held[i]
}

// release gives the memory of bucket i back.
func (z *zero) release(i int) {
	if z.stage == 1 {
		return
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	v := z.held[i]
	v.raw, v.all = v.raw[:cap(v.raw)/4*4], v.all[:cap(v.all)]
	z.free, z.held[i] = append(z.free, v), nil
	z.freed.Broadcast()
}

// abandon lets nobody wait for buckets of a step that has failed.
func (z *zero) abandon() {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.lost = true
	z.freed.Broadcast()
}

// took puts a gradient of stage 2 into its bucket.
func (z *zero) took(j int, p []byte) {
	m := z.g.flat.members[j]
	b := z.g.flat.buckets[m.bucket]
	copy(z.bucket(m.bucket).raw[4*(m.off-b.lo):], p)
}

// complete says that bucket i goes off to be summed.
func (z *zero) complete() {
	z.mu.Lock()
	z.away++
	z.mu.Unlock()
}

// scatter sums bucket i; own are this rank's nodes of the tree.
func (z *zero) scatter(i int, own [][]float32) error {
	g := z.g
	if z.stage == 2 {
		own = [][]float32{z.bucket(i).all}
	}
	if c, plan := g.adders(i); c != nil {
		if err := c.ReduceScatter(plan, own, own[0]); err != nil {
			return err
		}
	}
	at, lo, hi := z.share(i)
	copy(z.mine.all[at:], own[0][lo:hi])
	if z.stage == 2 {
		z.release(i)
		z.mu.Lock()
		z.away--
		z.mu.Unlock()
	}
	return nil
}

// segment is what a rank has of a parameter, or of its part of it, for other ranks.
type segment struct {
	Param  string
	Lo, Hi int
}

// moveShared carries variables that are shared out between the ranks' segments and whole tensors on rank 0: to rank 0 if up, else from it.
func (z *zero) moveShared(up bool, whole map[string]*tensor.Tensor) error {
	g, c := z.g, z.g.m.Comm()
	var own []segment
	for _, p := range z.parts {
		own = append(own, segment{p.param.Name, p.lo, p.hi})
	}
	all, err := dist.Gather(c, own)
	if err != nil {
		return err
	}
	for _, v := range g.m.declared {
		if !g.m.zeroed(v.Name) {
			continue
		}
		if g.rank() == 0 && up {
			whole[v.Name] = tensor.New(v.Type.DType, v.Type.Shape...)
		}
		for r, segments := range all {
			for _, s := range segments {
				if paramOf(v.Name) != s.Param || g.rank() != 0 && g.rank() != r {
					continue
				}
				if err := z.moveSegment(c, up, r, v.Name, s, whole[v.Name]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// moveSegment moves one of them: this rank is the one that has it, or rank 0, which has the whole.
func (z *zero) moveSegment(c *dist.Comm, up bool, rank int, name string, s segment, whole *tensor.Tensor) error {
	m, mine := z.g.m, z.g.rank() == rank
	if up && mine {
		t, err := m.state.Get(name)
		if err != nil {
			return err
		}
		if rank == 0 {
			m.segment(name, rank, s, whole.Bytes(), t.Bytes(), true)
			return nil
		}
		return c.Send(0, 0, t.Bytes())
	}
	room := make([]byte, 4*(s.Hi-s.Lo))
	switch {
	case !up && !mine:
		m.segment(name, rank, s, whole.Bytes(), room, false)
		return c.Send(rank, 0, room)
	case up:
		if err := c.Recv(rank, 0, room); err != nil {
			return err
		}
		m.segment(name, rank, s, whole.Bytes(), room, true)
		return nil
	case rank == 0:
		m.segment(name, rank, s, whole.Bytes(), room, false)
	default:
		if err := c.Recv(0, 0, room); err != nil {
			return err
		}
	}
	t, err := m.state.Get(name)
	if err != nil {
		return err
	}
	copy(t.Bytes(), room)
	return m.state.Set(name, t)
}

// segment copies a rank's segment of a variable to its places in the whole if in, else from there.
func (m *Model) segment(variable string, rank int, s segment, whole, part []byte, in bool) {
	move := func(w, p, n int) {
		if in {
			copy(whole[w:w+n], part[p:])
		} else {
			copy(part[p:p+n], whole[w:])
		}
	}
	lo, hi := 4*s.Lo, 4*s.Hi
	if !m.part(variable) {
		move(lo, 0, hi-lo)
		return
	}
	m.pieces(variable, rank%m.team.copies, func(w, p, n int) {
		if from, to := max(lo, p), min(hi, p+n); from < to {
			move(w+from-p, from-lo, to-from)
		}
	})
}

// Unshare brings what ranks have of the optimizer's state, of layers that are split and of other pipeline stages to rank 0, so that it can Save the model; without Parallel.Zero, Tensor and Pipeline it
// does nothing. All ranks must call it.
func (m *Model) Unshare() (err error) {
	m.unshared = nil
	switch {
	case m.pipe != nil:
		m.unshared, err = m.pipe.collect()
		return err
	case !m.inParts() && (m.shared == nil || m.shared.zero == nil):
		return nil
	}
	whole := map[string]*tensor.Tensor{}
	if m.inParts() {
		if err := m.gatherParts(whole); err != nil {
			return err
		}
	}
	if m.shared != nil && m.shared.zero != nil {
		if err := m.shared.zero.moveShared(true, whole); err != nil {
			return err
		}
	}
	if m.Writes() {
		m.unshared = whole
	}
	return nil
}

// reshare gives all ranks their parts of the state that rank 0 has from a checkpoint, if it has.
func (m *Model) reshare() error {
	if m.apart() == nil && (m.shared == nil || m.shared.zero == nil) {
		return nil
	}
	has, err := dist.Share(m.Comm(), 0, m.unshared != nil)
	if err != nil || !has {
		return err
	}
	if m.pipe != nil {
		err = m.pipe.spread(m.unshared)
	} else if m.inParts() {
		err = m.spreadParts(m.unshared)
	}
	if err == nil && m.shared != nil && m.shared.zero != nil {
		err = m.shared.zero.moveShared(false, m.unshared)
	}
	m.unshared = nil
	return err
}

// ParameterBytes is the memory of the parameters that this rank has, in bytes.
func (m *Model) ParameterBytes() int {
	n := 0
	for _, p := range m.own() {
		n += p.Type.Bytes()
	}
	return n
}

// OptimizerBytes is the memory of this rank's optimizer state and accumulated gradients, in bytes.
func (m *Model) OptimizerBytes() int {
	n := 0
	for _, v := range m.state.Vars() {
		if strings.HasPrefix(v.Name, optimizerPrefix) || strings.HasPrefix(v.Name, accumulatedPrefix) {
			n += v.Type.Bytes()
		}
	}
	return n
}
