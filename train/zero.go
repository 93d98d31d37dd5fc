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
// Stage 1 keeps the gradients of a batch whole on each rank until they are summed. Stage 2 keeps, while the backward pass runs, only the buckets that are being computed or sent.

// zero is a group's sharing of state.
type zero struct {
	g     *group
	stage int
	parts [][]part // by rank
	at    []int    // where each bucket's segment lies in mine
	mine  *vector  // sums of this rank's segments, then the new values

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
	lo, hi int
	off    int // in the slot
	bucket int
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
	return m.away(name) || m.part(name) || m.parallel.zeroStage() > 0 && (strings.HasPrefix(name, optimizerPrefix) && name != optim.IterationVar || strings.HasPrefix(name, accumulatedPrefix))
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
	z := &zero{g: g, stage: g.zeroStage(), parts: make([][]part, g.ranks()), held: make([]*vector, len(g.flat.buckets))}
	z.freed = sync.NewCond(&z.mu)
	params := map[string]nn.Param{}
	for _, p := range g.m.params {
		p.RateFactor = g.m.rateFactor(p.Name)
		params[p.Name] = p
	}
	size := 0
	for i, b := range g.flat.buckets {
		lo, hi := dist.SegmentOf(b.hi-b.lo, g.rank(), g.ranks())
		z.at = append(z.at, size)
		size += hi - lo
		for r := range z.parts {
			lo, hi := dist.SegmentOf(b.hi-b.lo, r, g.ranks())
			lo, hi = lo+b.lo, hi+b.lo
			g.eachGradient(i, func(m *member, _ int) {
				if from, to := max(lo, m.off), min(hi, m.off+m.len); from < to {
					p := params[strings.TrimPrefix(m.name, gradPrefix)]
					p.Type = graph.T(dtype.F32, to-from)
					z.parts[r] = append(z.parts[r], part{p, from - m.off, to - m.off, from, i})
				}
			})
		}
	}
	z.mine = newVector(size)
	return z
}

// share is where this rank's segment of bucket i lies in mine, and in the bucket.
func (z *zero) share(i int) (at, lo, hi int) {
	b := z.g.flat.buckets[i]
	lo, hi = dist.SegmentOf(b.hi-b.lo, z.g.rank(), z.g.ranks())
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
	m, own := z.g.m, z.parts[z.g.rank()]
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
			if name := graph.NameOf(v); z.g.m.sharded(name) {
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
	for _, q := range z.parts[z.g.rank()] {
		p.in = append(p.in, z.own(q))
	}
	switch {
	case k == apply:
		if z.g.m.opt.LimitsNorms() {
			for range z.parts[z.g.rank()] {
				p.in = append(p.in, tensor.New(dtype.F32))
			}
		}
		p.in = append(p.in, tensor.New(dtype.F32))
		for _, q := range z.parts[z.g.rank()] {
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
		if err := z.limit(p.in[len(z.parts[z.g.rank()]):]); err != nil {
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
	own := z.parts[z.g.rank()]
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
		if err := g.m.Comm().AllGatherSegments(v.all); err != nil {
			return err
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
	if err := g.m.Comm().ReduceScatter(g.plan, own, own[0]); err != nil {
		return err
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

// moveShared carries variables that are shared out between the ranks' parts and whole tensors on rank 0: to rank 0 if up, else from it.
func (z *zero) moveShared(up bool, whole map[string]*tensor.Tensor) error {
	g, c := z.g, z.g.m.Comm()
	for _, v := range g.m.declared {
		if !g.m.sharded(v.Name) {
			continue
		}
		var all []byte
		if g.rank() == 0 {
			if up {
				whole[v.Name] = tensor.New(v.Type.DType, v.Type.Shape...)
			}
			all = whole[v.Name].Bytes()
		}
		for r, ps := range z.parts {
			for _, p := range ps {
				if paramOf(v.Name) != p.param.Name {
					continue
				}
				if err := z.movePart(c, up, r, v.Name, p, all); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (z *zero) movePart(c *dist.Comm, up bool, rank int, name string, p part, all []byte) error {
	g := z.g
	if g.rank() != 0 && g.rank() != rank {
		return nil
	}
	var own *tensor.Tensor
	var err error
	if g.rank() == rank {
		if own, err = g.m.state.Get(name); err != nil {
			return err
		}
	}
	var place []byte
	if all != nil {
		place = all[4*p.lo : 4*p.hi]
	}
	switch {
	case rank == 0 && up:
		copy(place, own.Bytes())
	case rank == 0:
		copy(own.Bytes(), place)
	case g.rank() == rank && up:
		err = c.Send(0, 0, own.Bytes())
	case g.rank() == rank:
		err = c.Recv(0, 0, own.Bytes())
	case up:
		err = c.Recv(rank, 0, place)
	default:
		err = c.Send(rank, 0, place)
	}
	if err == nil && own != nil && !up {
		err = g.m.state.Set(name, own)
	}
	return err
}

// Unshare brings what ranks have of the optimizer's state, of layers that are split and of other pipeline stages to rank 0, so that it can Save the model; without Parallel.Zero, Tensor and Pipeline it
// does nothing. All ranks must call it.
func (m *Model) Unshare() (err error) {
	m.unshared = nil
	switch {
	case m.pipe != nil:
		m.unshared, err = m.pipe.collect()
		return err
	case m.inParts():
		m.unshared, err = m.gatherParts()
		return err
	}
	if m.shared == nil || m.shared.zero == nil {
		return nil
	}
	whole := map[string]*tensor.Tensor{}
	if err := m.shared.zero.moveShared(true, whole); err != nil {
		return err
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
	switch {
	case m.pipe != nil:
		err = m.pipe.spread(m.unshared)
	case m.inParts():
		err = m.spreadParts(m.unshared)
	default:
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
