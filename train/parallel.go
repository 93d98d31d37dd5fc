package train

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Training on several processes. A batch is cut into shards; each rank computes the gradients of its shards, all add them up, and every rank makes the same update. The sum's order is that of
// dist.Tree over the shards, so the bits depend on the number of shards, not on how many ranks share them: one process with four shards, two ranks with two each and four ranks with one
// each leave the same weights. A batch in one piece (the default of one process) is another sum, equal up to rounding.

// Parallel says how a training is shared out.
type Parallel struct {
	// Comm joins the ranks; nil is this process alone.
	Comm *dist.Comm
	// Shards is how many pieces a batch is cut into; 0: one for each rank. Batch normalisation sees one shard at a time, and its moving averages are the mean over shards.
	Shards int
	// Bucket is the least number of bytes of gradients that travel together; 0 chooses by the model's size.
	Bucket int
	// AnyOrder leaves the order of sums to the message library: then bits may depend on the number of ranks.
	AnyOrder bool
	// Check is how many steps lie between two comparisons of the ranks' weights; 0: 500, negative: never.
	Check int
	// Compress makes gradients travel in fewer bytes; what one sum leaves out goes into the next. Checkpoints do not keep what is left out: a resumed training has not the same bits.
	Compress *dist.Scheme
	// Local is how many steps a rank takes alone, on its part of each batch, before all ranks average their weights and optimizer state; 0 and 1: none.
	Local int
	// OuterMomentum and OuterRate (0: 1) make of each average a step of an outer optimizer, see DiLoCo (arXiv:2311.08105, there 0.9 and 0.7).
	OuterMomentum, OuterRate float64
	// Zero shares state out over the ranks (ZeRO; arXiv:1910.02054): 1 the optimizer's, 2 gradients as well; 0 nothing. Weights are the same bits, but where norms of gradients are limited.
	Zero int
	// SyncNorm lets batch normalisations take mean and variance over all ranks' examples in place of a shard's: N ranks then give what one process gives that has the whole batch in one
	// piece, up to rounding. It needs as many shards as ranks.
	SyncNorm bool
	// Tensor is how many ranks in a row compute the same examples together (tensor parallelism; tensor.go, nn.Split), each a part of every layer that can be split; 0 and 1: none. A rank has its
	// part alone of the weights of such layers, with their gradients and the optimizer's state (of which Zero leaves it a segment); with values in place of parameters they are whole on every rank. Shards are those of
	// the rows: 0 is one for each. A process alone has all layers.
	Tensor int
	// Pipeline is how many ranks in a row hold consecutive layers each (pipeline parallelism; pipeline.go): parameters, state and activations of those alone; 0 and 1: none. A shard is then a
	// micro-batch, and 0 shards are four for each rank. Weights are the bits of one process with as many shards, but where GlobalClipNorm limits all gradients together. A process alone has all layers.
	Pipeline int
	// Cuts are the layers with which the stages after the first begin; nil: so that all take about as long, by the arithmetic and the bytes of layers.
	Cuts []string
	// Trace, if not nil, is told when what happened on this rank.
	Trace func(Span)
}

// Span is a stretch of time of a rank's work, for timelines.
type Span struct {
	What       string // "gradients", "bucket 2", "wait", "sum" (in common memory), "update"
	Step       int64
	Begin, End time.Time
}

// Across shares steps, evaluation and prediction out. All ranks must compile the same model and call its methods in the same order; Fit makes the weights those of rank 0.
func Across(p Parallel) Option { return option(func(m *Model) { m.parallel = p }) }

// Comm joins the ranks that the model is trained across; nil where this process is alone.
func (m *Model) Comm() *dist.Comm {
	if c := m.parallel.Comm; c != nil && c.Size() > 1 {
		return c
	}
	return nil
}

func (p *Parallel) ranks() int {
	if p.Comm == nil {
		return 1
	}
	return p.Comm.Size()
}

func (p *Parallel) rank() int {
	if p.Comm == nil {
		return 0
	}
	return p.Comm.Rank()
}

// Writes reports whether this rank writes files: rank 0 does.
func (m *Model) Writes() bool { return m.parallel.rank() == 0 }

const defaultCheck = 500

// Channels of messages beside that of gradients.
const (
	channelStats = 1 + iota
	channelTensor
	channelRow    // of pipeline stages
	channelColumn // of the ranks that have the same stage
)

// checkNorm reports settings that do not go together with statistics over all ranks.
func (p *Parallel) checkNorm(b backend.Backend) error {
	switch {
	case !p.SyncNorm || p.ranks() == 1:
		return nil
	case p.Shards != 0 && p.Shards != p.rows():
		return fmt.Errorf("train: synchronised batch normalisation needs as many shards as ranks (or rows of ranks that compute together), not %d on %d: a rank's shards are computed one after another", p.Shards, p.rows())
	case p.Local > 1:
		return fmt.Errorf("train: synchronised batch normalisation cannot be used with %d local steps, in which ranks do not wait for each other", p.Local)
	case b.Name() != "cpu" && b.Name() != "ref":
		return fmt.Errorf("train: synchronised batch normalisation is the CPU backend's; backend %s has no messages between processes within a step", b.Name())
	}
	return nil
}

// group is the sharing of a model's steps.
type group struct {
	Parallel
	m      *Model
	plan   *dist.Plan
	lo, hi int   // this rank's shards
	stage  int   // see Model.stage: the slots are for the parameters that are trained in it
	joins  []int // after each of them, how many additions the tree has for it

	flat    layout
	slots   []*slot // vectors of gradients of shards
	total   *slot   // where sums of all ranks come: the first of them, unless they are read in common memory
	window  *dist.Window
	sought  bool // whether it is known if there is one
	applied map[mode]*program
	squares *program       // of gradients that are limited together with those of other ranks; see limit.go
	update  *program       // likewise
	weight  *tensor.Tensor // of a shard's loss
	state   *tensor.Tensor // of random layers

	programs map[programKey]*shardProgram

	norms *op.Group // the ranks whose statistics are one; nil: each shard has its own
	zero  *zero     // nil: every rank has all state

	updates int64   // done before the step in progress
	bits    *vector // of 1-bit Adam, once its warm-up is over: the momenta, at the places of the gradients
	spread  *vector // likewise the roots of the second moments

	pieces  [][]piece                 // by bucket, if gradients are compressed
	anchor  map[string]*tensor.Tensor // the weights from which the ranks last set out alone
	spoiled bool                      // a loss since then was no number
	// Of the step in progress:
	last  bool     // whether its last shard is being computed
	open  []int    // members of each bucket that are not ready
	queue chan int // buckets that are

	*exchanged
}

// slot is a vector of everything that is added up: moved averages, gradients, then control values; and views of it.
type slot struct {
	raw     []byte
	all     []float32        // nil in stage 2 of ZeRO, which keeps no gradients
	control []float32        // the last of all
	views   []*tensor.Tensor // by member, then the loss
}

// member is one value in a slot.
type member struct {
	name     string
	t        graph.Type
	off, len int
	bucket   int
	part     bool // of a parameter of which this rank has a part
}

// layout is the order of members in a slot: that in which they become ready, as far as can be said beforehand.
type layout struct {
	members []member
	byName  map[string]int
	buckets []bucket
	size    int
	control int // where control values begin
}

type bucket struct {
	lo, hi, members int
	part            bool // it is summed over a column; see team
}

// Control values are added up like gradients.
const (
	controlLoss = iota
	controlStop // somebody has been asked to end
	controlSave // rank 0 wants a checkpoint
	controls    = 16
)

// exchangeAccount is what sharing has cost this rank.
type exchangeAccount struct {
	steps  int64
	waited time.Duration // with nothing to compute
	busy   time.Duration // sums in progress, hidden or not
	bubble time.Duration // of waited: for other stages of a pipeline
	within time.Duration // of waited: for sums within the model (layers that are split, statistics of normalisations)
}

// exchanged is what a model's groups have cost.
type exchanged struct {
	account, before exchangeAccount // now, and when the account was opened
	stats           dist.Stats      // likewise
}

// group prepares the sharing at its first use.
func (m *Model) group() (*group, error) {
	if m.shared != nil {
		return m.shared, nil
	}
	p := m.parallel
	n, rows := p.ranks(), p.rows()
	if err := cmp.Or(p.checkSlow(), p.checkZero(), p.checkNorm(m.backend)); err != nil {
		return nil, err
	}
	if m.pipe != nil { // those that have the same stage share a batch
		p.Comm, n, rows = m.pipe.column, m.pipe.copies, m.pipe.copies
	}
	if p.Shards == 0 {
		p.Shards = rows
	}
	if p.OuterRate == 0 {
		p.OuterRate = 1
	}
	switch {
	case p.Shards < 1:
		return nil, fmt.Errorf("train: a batch cannot be cut into %d shards", p.Shards)
	case p.Shards < rows && rows < n:
		return nil, fmt.Errorf("train: %d shards cannot be shared out to %d rows of %d ranks that compute together: at least one for each row is needed", p.Shards, rows, p.Tensor)
	case p.Shards < n && rows == n:
		return nil, fmt.Errorf("train: %d shards cannot be shared out to %d ranks: at least one for each is needed", p.Shards, n)
	}
	if m.exchanged == nil {
		m.exchanged = &exchanged{}
	}
	g := &group{Parallel: p, m: m, stage: m.stage(), exchanged: m.exchanged, plan: dist.NewPlan(p.Shards, n), applied: map[mode]*program{}, programs: map[programKey]*shardProgram{}, weight: tensor.New(dtype.F32), state: tensor.New(dtype.I64, 2)}
	g.lo, g.hi = dist.Part(p.Shards, p.rank()/p.copies(), rows)
	if rows < n { // ranks have added up their own shards
		g.plan = dist.NewPlan(n, n)
	}
	if p.SyncNorm && n > 1 {
		all := make([]int, n)
		for i := range all {
			all[i] = i
		}
		c, err := p.Comm.Sub(all, channelStats)
		if err != nil {
			return nil, err
		}
		c.Urgent(true) // a step has nothing else to do meanwhile
		g.norms = &op.Group{Name: "all ranks", Join: c}
	}
	m.norms = g.norms
	if err := g.lay(); err != nil {
		return nil, err
	}
	if p.zeroStage() > 0 {
		g.zero = g.newZero()
		if err := g.zero.declare(); err != nil {
			return nil, err
		}
	}
	g.fold()
	if err := g.checkOneBit(); err != nil {
		return nil, err
	}
	g.compress()
	m.shared = g
	return g, nil
}

// sharing reports whether steps go through a group.
func (m *Model) sharing() bool { return m.parallel.ranks() > 1 || m.parallel.Shards > 1 }

// restage makes slots and programs anew once parameters have thawed.
func (g *group) restage() error {
	if g.stage == g.m.stage() {
		return nil
	}
	g.stage, g.flat, g.slots, g.joins, g.squares, g.update = g.m.stage(), layout{}, nil, nil, nil, nil
	g.total, g.window, g.sought = nil, nil, false
	clear(g.applied)
	clear(g.programs)
	if err := g.lay(); err != nil {
		return err
	}
	g.fold()
	return nil
}

// fold finds the additions among this rank's shards, and makes the slots they need.
func (g *group) fold() {
	var stack []dist.Range
	deepest := 0
	tree, first := g.plan.Tree, 0
	if g.copies() > 1 {
		tree, first = dist.Tree{N: g.hi - g.lo}, g.lo
	}
	for s := g.lo - first; s < g.hi-first; s++ {
		stack = append(stack, dist.Range{Lo: s, Hi: s + 1})
		depth, joins := len(stack), 0
		for n := len(stack); n > 1 && tree.Joins(stack[n-2], stack[n-1]); n = len(stack) {
			stack[n-2].Hi = stack[n-1].Hi
			stack = stack[:n-1]
			joins++
		}
		if g.m.pipe != nil && joins > 0 { // a stage adds a shard to the one before without a slot: pipeStep.backward
			depth--
		}
		deepest = max(deepest, depth)
		g.joins = append(g.joins, joins)
	}
	for range deepest {
		g.slots = append(g.slots, g.flat.slot(g.zeroStage() < 2))
	}
	g.total = g.slots[0]
}

// lay makes the layout from the graph of a shard.
func (g *group) lay() error {
	sg, err := g.shardGraph()
	if err != nil {
		return err
	}
	var moved, grads, parts []member
	for _, o := range sg.Outputs() {
		m := member{name: o.Name, t: o.Node.Type(), len: o.Node.Shape().Size()}
		switch {
		case strings.HasPrefix(o.Name, movedPrefix):
			moved = append(moved, m)
		case strings.HasPrefix(o.Name, gradPrefix):
			if m.part = g.m.part(strings.TrimPrefix(o.Name, gradPrefix)); m.part {
				parts = append(parts, m)
				break
			}
			grads = append(grads, m)
		default:
			continue
		}
		if m.t.DType != dtype.F32 {
			return fmt.Errorf("train: %s is %v: only float32 can be shared out to ranks", o.Name, m.t)
		}
	}
	l := &g.flat
	l.byName = map[string]int{}
	slices.Reverse(parts) // the last layers' gradients come first
	slices.Reverse(grads)
	l.members = slices.Concat(parts, moved, grads) // moved averages are ready in the forward pass
	const align = 16
	apart := 0 // where parts end
	for i := range l.members {
		m := &l.members[i]
		m.off = l.size
		l.size += (m.len + align - 1) / align * align
		l.byName[m.name] = i
		if m.part {
			apart = l.size
		}
	}
	l.control = l.size
	l.size += controls
	// As many as eight buckets, none so small that its messages' delay outweighs their bytes.
	least := func(part bool) int {
		size := l.size - apart
		if part {
			size = apart
		}
		return cmp.Or(max(0, g.Bucket), min(max(4*size/8, 64<<10), 25<<20))
	}
	b := bucket{part: len(parts) > 0}
	for i := range l.members {
		m := &l.members[i]
		if b.part && !m.part { // others add up the rest
			if b.members > 0 {
				l.buckets = append(l.buckets, b)
			}
			b = bucket{lo: m.off}
		}
		b.hi = l.control
		if i+1 < len(l.members) {
			b.hi = l.members[i+1].off
		}
		b.members++
		m.bucket = len(l.buckets)
		if rest := 4 * (l.control - b.hi); 4*(b.hi-b.lo) >= least(b.part) && rest > 0 {
			l.buckets = append(l.buckets, b)
			b = bucket{lo: b.hi, part: b.part}
		}
	}
	if b.part {
		l.buckets = append(l.buckets, b)
		b = bucket{lo: l.control}
	}
	b.hi = l.control
	if g.zeroStage() == 0 {
		b.hi = l.size // the last takes the control values, the loss among them
	}
	b.members++
	l.buckets = append(l.buckets, b)
	return nil
}

// slot makes a slot, or one for control values alone.
func (l *layout) slot(whole bool) *slot {
	if !whole {
		v := newVector(controls)
		return &slot{control: v.all, views: append(make([]*tensor.Tensor, len(l.members)), v.view(controlLoss))}
	}
	return l.slotIn(newVector(l.size))
}

// slotIn makes a slot in memory that is there.
func (l *layout) slotIn(v *vector) *slot {
	s := &slot{raw: v.raw, all: v.all, control: v.all[l.control:]}
	for _, m := range l.members {
		s.views = append(s.views, v.view(m.off, m.t.Shape...))
	}
	s.views = append(s.views, v.view(l.control+controlLoss))
	return s
}

// Buckets are the bytes of gradients that travel together, in the order in which they become ready.
func (m *Model) Buckets() ([]int, error) {
	g, err := m.group()
	if err != nil {
		return nil, err
	}
	var out []int
	for _, b := range g.flat.buckets {
		out = append(out, 4*(b.hi-b.lo))
	}
	return out, nil
}

// sync makes every rank's variables those of rank 0, and finds ranks that were started otherwise. what describes the training that this rank is about to do.
func (m *Model) sync(what string) error {
	c := m.Comm()
	if c == nil {
		return nil
	}
	if _, err := c.Machines(); err != nil { // the account says what goes between them
		return err
	}
	team := m.team // whose parts differ from rank to rank
	m.team = nil
	g, _, err := m.graph(programKey{mode: shard, batch: 1})
	m.team = team
	if err != nil {
		return err
	}
	h := fnv.New64a()
	fmt.Fprintln(h, graph.Print(g), what, m.seed, m.opt.Name, m.parallel.settings(), m.Stages())
	sums, err := dist.Gather(c, fmt.Sprintf("%x", h.Sum64()))
	if err != nil {
		return err
	}
	for r, s := range sums {
		if s != sums[0] {
			return known(c, fmt.Errorf("train: rank %d was started with another model, data set, seed or setting than rank 0: start all ranks with the same command", r))
		}
	}
	if err := m.reshare(); err != nil {
		return err
	}
	if m.pipe != nil {
		c = m.pipe.column
	}
	for _, v := range m.kept() {
		c := c
		switch {
		case m.zeroed(v.Name):
			continue
		case m.part(v.Name):
			c = m.team.column
		case m.sharded(v.Name):
			continue
		}
		if c.Size() == 1 {
			continue
		}
		t, err := m.state.Get(v.Name)
		if err != nil {
			return err
		}
		if err := c.Broadcast(0, t.Bytes()); err != nil {
			return err
		}
		if c.Rank() == 0 {
			continue
		}
		if err := m.state.Set(v.Name, t); err != nil {
			return err
		}
	}
	return nil
}

// DivergedError says that ranks that must have the same weights do not.
type DivergedError struct {
	Step  int64
	Ranks []int // that differ from most others
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("train: after step %d the weights of rank(s) %v are not those of the others: a fault of memory or processor, or ranks that run different programs; resume from the last checkpoint, without the machine if it happens again", e.Step, e.Ranks)
}

// known returns an error that every rank has found, when all have: the first that gives up ends the job, maybe before the others could say why.
func known(c *dist.Comm, err error) error {
	_ = c.Barrier() // one that has gone knew
	return err
}

// same compares the ranks' weights by a checksum.
func (m *Model) same(step int64) error {
	whole, parts := fnv.New64a(), fnv.New64a()
	for _, p := range m.own() {
		t, err := m.state.Get(p.Name)
		if err != nil {
			return err
		}
		if m.part(p.Name) {
			parts.Write(t.Bytes())
			continue
		}
		whole.Write(t.Bytes())
	}
	sums, err := dist.Gather(m.Comm(), [2]string{fmt.Sprintf("%x", whole.Sum64()), fmt.Sprintf("%x", parts.Sum64())})
	if err != nil {
		return err
	}
	e := &DivergedError{Step: step}
	e.compare(m.parallel.pipelined(), func(r int) string { return sums[r][0] }, len(sums)) // each stage has weights of its own
	if m.inParts() {
		e.compare(m.team.copies, func(r int) string { return sums[r][1] }, len(sums))
	}
	if len(e.Ranks) == 0 {
		return nil
	}
	slices.Sort(e.Ranks)
	e.Ranks = slices.Compact(e.Ranks)
	return known(m.Comm(), e)
}

// compare finds the ranks that differ from most of those that should have the same weights: every so many ranks.
func (e *DivergedError) compare(every int, sum func(rank int) string, ranks int) {
	for first := range every {
		count := map[string]int{}
		for r := first; r < ranks; r += every {
			count[sum(r)]++
		}
		most := sum(first) // of equals, the first rank's
		for r := first; r < ranks; r += every {
			if count[sum(r)] > count[most] {
				most = sum(r)
			}
		}
		for r := first; r < ranks; r += every {
			if sum(r) != most {
				e.Ranks = append(e.Ranks, r)
			}
		}
	}
}

// joinMeters adds up all ranks' meters, in the order of the ranks.
func (m *Model) joinMeters(own []meter) ([]meter, error) {
	c := m.Comm()
	if c == nil {
		return own, nil
	}
	texts := make([]json.RawMessage, len(own))
	for i, k := range own {
		var err error
		if texts[i], err = json.Marshal(k.running()); err != nil {
			return nil, fmt.Errorf("train: %w", err)
		}
	}
	all, err := dist.Gather(c, texts)
	if err != nil {
		return nil, err
	}
	var sum []meter
	for r, texts := range all {
		if len(texts) != len(own) {
			return nil, fmt.Errorf("train: rank %d has %d metrics, this one %d", r, len(texts), len(own))
		}
		for i, t := range texts {
			k := m.metrics[i].make()
			if err := json.Unmarshal(t, k.running()); err != nil {
				return nil, fmt.Errorf("train: metric %s of rank %d: %w", m.metrics[i].Name, r, err)
			}
			if r == 0 {
				sum = append(sum, k)
				continue
			}
			sum[i].join(k)
		}
	}
	return sum, nil
}

// Exchange is what sharing steps out has cost one rank since the last StartAccount.
type Exchange struct {
	Steps    int64   `json:"steps"`
	Sent     int64   `json:"bytes_sent"`
	Across   int64   `json:"bytes_across_machines"` // of those sent, to ranks of other machines
	Received int64   `json:"bytes_received"`
	Messages int64   `json:"messages"`
	Summing  float64 `json:"seconds_summing"`          // with sums of gradients in progress, behind computing or not
	Waiting  float64 `json:"seconds_waiting"`          // with nothing to compute before they are done
	Bubble   float64 `json:"seconds_bubble,omitempty"` // of that, for other stages of a pipeline
	Within   float64 `json:"seconds_within,omitempty"` // of that, for sums within the model: of layers that are split, and of synchronised normalisations
}

// Exchange is this rank's; zero where steps are not shared out.
func (m *Model) Exchange() Exchange {
	if m.exchanged == nil {
		return Exchange{}
	}
	a, b := m.exchanged.account, m.exchanged.before
	e := Exchange{Steps: a.steps - b.steps, Summing: (a.busy - b.busy).Seconds(), Waiting: (a.waited - b.waited).Seconds(), Bubble: (a.bubble - b.bubble).Seconds(), Within: (a.within - b.within).Seconds()}
	if c := m.Comm(); c != nil {
		s := c.Since(m.exchanged.stats)
		e.Sent, e.Across, e.Received, e.Messages = s.Sent, s.Across, s.Received, s.Messages
	}
	return e
}

// restart begins a new account of the exchange.
func (x *exchanged) restart(m *Model) {
	x.before = x.account
	if c := m.Comm(); c != nil {
		x.stats = c.Stats()
	}
}

// adders join the ranks that add up bucket i of the gradients; nil where this process does alone.
func (g *group) adders(i int) (*dist.Comm, *dist.Plan) {
	c, plan := g.m.Comm(), g.plan
	switch {
	case g.m.pipe != nil:
		c = g.Comm
	case g.flat.buckets[i].part:
		c, plan = g.m.team.column, g.m.team.plan
	}
	if c != nil && c.Size() == 1 {
		c = nil
	}
	return c, plan
}
