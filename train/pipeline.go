package train

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/cost"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/pass"
	"github.com/jouleml/joule/tensor"
)

// Pipeline parallelism by layer: Pipeline ranks in a row (a row computes the same examples) have consecutive layers each, its stage, and hold parameters, optimizer state and activations of those
// alone. A shard of a batch is a micro-batch: it goes through all stages, and its gradients come back. Ranks of one stage (a column) add their gradients up as whole models do, so the sums
// have the same order, and a rank computes the nodes that a process computes that has all layers: weights do not depend on the number of stages.
//
// The graph is cut between applications of layers. Whatever is computed before a cut and used behind it travels: the result of the last layer, ways around, the memory of an encoder; a parameter
// that several stages use belongs to the first of them and travels like any value.

// pipeline is a model's sharing out of layers.
type pipeline struct {
	m              *Model
	stages, copies int
	stage, copy    int      // this rank's
	begin          []int    // of each stage, the number of its first application of a layer
	layers         []string // the layers that these apply
	home           map[string]int
	trains         map[string]bool // the trained parameters
	row, column    *dist.Comm      // the stages of this copy; the copies of this stage
	post           *dist.Poster    // to the row
	rows           map[string]int  // of an input of tokens, how many the model knows
	evaluators     map[programKey]*evaluator
	lanes          map[programKey][]*lane // that no micro-batch is in, by laneKey
	made           map[programKey]int     // how many there are
	split          map[programKey]*halves // likewise, where a backend's programs do not stop in their middle
}

// microBatches is how many micro-batches there are for each stage of a rank's row where nobody says otherwise: with four, stages wait for a fifth of the time or less (Huang et al., GPipe, arXiv:1811.06965).
const microBatches = 4

// pipelined is the number of stages in force: a process alone has all layers.
func (p *Parallel) pipelined() int {
	if p.ranks() == 1 {
		return 1
	}
	return max(1, p.Pipeline)
}

// checkPipeline reports settings that do not go together with layers that are shared out.
func (p *Parallel) checkPipeline(m *Model) error {
	n := p.ranks()
	with := func(what string) error {
		return fmt.Errorf("train: pipeline stages (--pipeline %d) cannot be used with %s", p.Pipeline, what)
	}
	switch {
	case p.Pipeline < 0:
		return fmt.Errorf("train: %d pipeline stages (--pipeline)", p.Pipeline)
	case len(p.Cuts) > 0 && p.Pipeline != len(p.Cuts)+1:
		return fmt.Errorf("train: %d layers begin a stage (--cuts), so there must be %d stages, not %d (--pipeline)", len(p.Cuts), len(p.Cuts)+1, p.Pipeline)
	case p.pipelined() == 1:
		return nil
	case n%p.Pipeline != 0:
		return fmt.Errorf("train: rows of %d pipeline stages (--pipeline) do not divide %d ranks: start a multiple of %d", p.Pipeline, n, p.Pipeline)
	case p.Zero > 0:
		return with(fmt.Sprintf("ZeRO (--zero %d): a rank holds the state of its own layers already", p.Zero))
	case p.Tensor > 1:
		return with(fmt.Sprintf("layers split over ranks (--tensor %d): choose one of the two", p.Tensor))
	case p.Local > 1:
		return with(fmt.Sprintf("steps that each rank takes alone (--local-steps %d): a rank has a part of the layers", p.Local))
	case p.Compress != nil:
		return with(fmt.Sprintf("compressed gradients (--compress %v)", p.Compress))
	case p.AnyOrder:
		return with("sums of any order (--sums any): leave them fixed")
	case p.SyncNorm:
		return with("statistics over all ranks (--sync-batch-norm): a batch normalisation sees one micro-batch at a time")
	}
	if why := m.unstaged(); why != "" {
		return with(why)
	}
	return nil
}

// unstaged is what of the model keeps its layers from being shared out; "": nothing.
func (m *Model) unstaged() string {
	switch {
	case m.teacher != nil:
		return "a teacher (distillation), which reads layers of other stages"
	case len(m.wraps) > 0:
		return "values in place of parameters (masks, low-rank changes, rounded operands)"
	case m.Net.Stateful():
		return "a stateful model: its states go from each batch to the next"
	}
	if b, ok := m.backend.(interface{ Devices() int }); ok && b.Devices() > 1 {
		return fmt.Sprintf("several devices in one process (--devices %d): start a rank for each", b.Devices())
	}
	return ""
}

// cut shares the layers out, if they are to be.
func (m *Model) cut() error {
	p := &m.parallel
	if err := p.checkPipeline(m); err != nil {
		return err
	}
	if p.pipelined() == 1 {
		return nil
	}
	n, s := p.ranks(), p.Pipeline
	if p.Shards == 0 {
		p.Shards = microBatches * n
	}
	l := m.newPipeline(s)
	l.copies, l.stage, l.copy = n/s, p.rank()%s, p.rank()/s
	var row, column []int
	for r := range n {
		if r/s == l.copy {
			row = append(row, r)
		}
		if r%s == l.stage {
			column = append(column, r)
		}
	}
	var err error
	if l.row, err = p.Comm.Sub(row, channelRow); err != nil {
		return err
	}
	if l.column, err = p.Comm.Sub(column, channelColumn); err != nil {
		return err
	}
	l.post = l.row.NewPoster()
	if err := l.settle(); err != nil {
		return err
	}
	m.pipe = l
	return nil
}

// newPipeline is a sharing out that no rank has a place in yet.
func (m *Model) newPipeline(stages int) *pipeline {
	l := &pipeline{m: m, stages: stages, copies: 1, home: map[string]int{}, trains: map[string]bool{}, evaluators: map[programKey]*evaluator{}, lanes: map[programKey][]*lane{}, made: map[programKey]int{}, rows: map[string]int{}, split: map[programKey]*halves{}}
	for _, q := range m.params {
		l.trains[q.Name] = q.Trainable
	}
	return l
}

// settle finds where stages begin and which of them each variable belongs to.
func (l *pipeline) settle() error {
	if err := l.divide(); err != nil {
		return err
	}
	return l.place()
}

// place finds which stage each variable belongs to.
func (l *pipeline) place() error {
	c, err := l.cutting(programKey{mode: shard, forward: true, batch: 1})
	if err != nil {
		return err
	}
	for _, v := range c.f.Variables() {
		l.home[graph.NameOf(v)] = max(0, c.home[v.ID()])
	}
	return nil
}

// divide finds where stages begin: at the layers that are named, or so that the slowest stage is as quick as can be.
func (l *pipeline) divide() error {
	_, marks, err := l.forward(programKey{mode: shard, forward: true, batch: 1})
	if err != nil {
		return err
	}
	if len(marks) < l.stages {
		return fmt.Errorf("train: a model of %d layers cannot be cut into %d pipeline stages (--pipeline)", len(marks), l.stages)
	}
	l.begin = []int{0}
	if cuts := l.m.parallel.Cuts; len(cuts) > 0 {
		for _, name := range cuts {
			i := slices.IndexFunc(marks, func(k mark) bool { return k.layer == name })
			switch {
			case i < 0:
				var names []string
				for _, k := range marks {
					names = append(names, k.layer)
				}
				return fmt.Errorf("train: no layer %q to begin a pipeline stage with (--cuts); layers: %s", name, strings.Join(names, ", "))
			case i == 0:
				return fmt.Errorf("train: the first pipeline stage begins with layer %q anyway: name the layers that the other stages begin with (--cuts)", name)
			case i <= l.begin[len(l.begin)-1]:
				return fmt.Errorf("train: layer %q, which is to begin a pipeline stage (--cuts), does not come after %q", name, marks[l.begin[len(l.begin)-1]].layer)
			}
			l.begin = append(l.begin, i)
		}
	} else {
		prices, err := l.prices(marks)
		if err != nil {
			return err
		}
		l.begin = balance(prices, l.stages)
		if err := l.refine(prices); err != nil {
			return err
		}
	}
	l.layers = nil
	for _, b := range l.begin {
		l.layers = append(l.layers, marks[b].layer)
	}
	return nil
}

// What a core does in a second, for prices of layers against each other: f32 operations in full vectors, and bytes between it and memory. What counts is that one byte takes as long as ten
// operations; docs/benchmarks has machines.
const (
	priceFLOPs = 100e9
	priceBytes = 10e9
	priceBatch = 8 // examples
)

// prices are the predicted times of the applications of layers, forward and backward, from the arithmetic and the bytes of the nodes that run.
func (l *pipeline) prices(marks []mark) ([]float64, error) {
	of, err := l.m.priced()
	if err != nil {
		return nil, err
	}
	return portioned(of, marks), nil
}

// priced is the predicted time of each layer in a step, forward and backward; "": of what belongs to none.
func (m *Model) priced() (map[string]float64, error) {
	g, _, err := m.graph(programKey{mode: shard, batch: priceBatch})
	if err != nil {
		return nil, err
	}
	if g, err = pass.Apply(g, cpu.Passes()...); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	of := map[string]float64{}
	eachPrice(g, func(n *graph.Node, t float64) {
		layer, _, _ := strings.Cut(n.Scope(), "/")
		of[layer] += t
	})
	return of, nil
}

// eachPrice gives the predicted time of each node that runs, but for messages.
func eachPrice(g *graph.Graph, f func(n *graph.Node, t float64)) {
	live := g.Live()
	for _, n := range g.Nodes() {
		if live[n.ID()] && n.Op() != op.AllReduceOp {
			c := cost.Node(n)
			f(n, max(float64(c.Executed)/priceFLOPs, float64(c.Bytes())/priceBytes))
		}
	}
}

// portioned shares the times of layers out to their applications; what belongs to no layer, as the loss, is the last one's.
func portioned(of map[string]float64, marks []mark) []float64 {
	times := map[string]float64{}
	for _, k := range marks {
		times[k.layer]++
	}
	out := make([]float64, len(marks))
	for i, k := range marks {
		out[i] = of[k.layer] / times[k.layer]
	}
	for _, layer := range slices.Sorted(maps.Keys(of)) { // all ranks must come to the same sum
		if times[layer] == 0 {
			out[len(out)-1] += of[layer]
		}
	}
	return out
}

// balance cuts a row of prices into parts so that the greatest sum of a part is as small as can be, and gives where each begins.
func balance(prices []float64, parts int) []int {
	n := len(prices)
	sum := make([]float64, n+1)
	for i, p := range prices {
		sum[i+1] = sum[i] + p
	}
	// best[k][i] is the least greatest sum of the first i in k+1 parts, from[k][i] where the last of them begins.
	best, from := make([][]float64, parts), make([][]int, parts)
	for k := range parts {
		best[k], from[k] = make([]float64, n+1), make([]int, n+1)
		for i := k + 1; i <= n; i++ {
			if k == 0 {
				best[k][i] = sum[i]
				continue
			}
			best[k][i] = sum[n] + 1
			for j := k; j < i; j++ {
				if v := max(best[k-1][j], sum[i]-sum[j]); v < best[k][i] {
					best[k][i], from[k][i] = v, j
				}
			}
		}
	}
	begin := make([]int, parts)
	for k, i := parts-1, n; k > 0; k-- {
		i = from[k][i]
		begin[k] = i
	}
	return begin
}

// refine moves cuts by up to two layers to where the slowest stage, compiled by itself and with its messages, is quicker: what balance does not know is that a cut between layers that one kernel
// computes makes both dearer, and how much is handed over there.
func (l *pipeline) refine(prices []float64) error {
	stage := l.stage
	l.m.pipe = l // for what belongs to a stage
	defer func() { l.m.pipe, l.stage = nil, stage; clear(l.home) }()
	sum := func(lo, hi int) (t float64) {
		for _, p := range prices[lo:hi] {
			t += p
		}
		return t
	}
	end := func(begin []int, s int) int {
		if s+1 < len(begin) {
			return begin[s+1]
		}
		return len(prices)
	}
	guess := func(begin []int) (worst float64) {
		for s := range begin {
			worst = max(worst, sum(begin[s], end(begin, s)))
		}
		return worst
	}
	known := map[[2]int]float64{}
	price := func(begin []int) (worst float64, err error) {
		l.begin = begin
		clear(l.home)
		if err := l.place(); err != nil {
			return 0, err
		}
		for s := range begin {
			k := [2]int{begin[s], end(begin, s)}
			if _, ok := known[k]; !ok {
				l.stage = s
				if known[k], err = l.stagePrice(); err != nil {
					return 0, err
				}
			}
			worst = max(worst, known[k])
		}
		return worst, nil
	}
	best := l.begin
	least, err := price(best)
	if err != nil {
		return err
	}
	const farther, better = 1.5, 0.99 // what is not worth a look, and what is worth a move
	balanced := guess(best)
	for i := 1; i < len(best); i++ {
		at := best[i]
		for _, by := range []int{-1, 1, -2, 2} {
			begin := slices.Clone(best)
			begin[i] = at + by
			if begin[i] <= begin[i-1] || begin[i] >= end(begin, i) || guess(begin) >= farther*balanced {
				continue
			}
			if p, err := price(begin); err == nil && p < better*least { // where no cut is possible there is none
				best, least = begin, p
			}
		}
	}
	l.begin = best
	return nil
}

// stagePrice is the predicted time of this stage, forward and backward, with its messages.
func (l *pipeline) stagePrice() (float64, error) {
	s, err := l.graph(programKey{mode: shard, forward: true, batch: priceBatch}, &op.Link{})
	if err != nil {
		return 0, err
	}
	g, err := pass.Apply(s.g, cpu.Passes()...)
	if err != nil {
		return 0, fmt.Errorf("train: %w", err)
	}
	total := 0.0
	eachPrice(g, func(_ *graph.Node, t float64) { total += t })
	for _, n := range slices.Concat(s.takes, s.gives) {
		total += float64(n.Type().Bytes()) / priceBytes
	}
	return total, nil
}

// stageOf is the stage that has a variable; -1: all have it, as counters.
func (l *pipeline) stageOf(name string) int {
	if s, ok := l.home[name]; ok {
		return s
	}
	if s, ok := l.home[paramOf(name)]; ok {
		return s
	}
	return -1
}

// away reports whether a variable belongs to another stage.
func (m *Model) away(name string) bool {
	if m.pipe == nil {
		return false
	}
	s := m.pipe.stageOf(name)
	return s >= 0 && s != m.pipe.stage
}

// own are the parameters that this rank has, of the types that they have here.
func (m *Model) own() []nn.Param {
	if m.apart() == nil {
		return m.params
	}
	out := slices.DeleteFunc(slices.Clone(m.params), func(p nn.Param) bool { return m.away(p.Name) })
	for i, p := range out {
		out[i].Type = m.ownType(p.Name, p.Type)
	}
	return out
}

// Stages are the layers that the stages of a pipeline begin with; nil where there is none.
func (m *Model) Stages() []string {
	if m.pipe == nil {
		return nil
	}
	return m.pipe.layers
}

// Shards is how many pieces a batch is cut into; 0: it is not.
func (m *Model) Shards() int {
	if s := m.parallel.Shards; s > 0 || !m.sharing() {
		return s
	}
	return m.parallel.rows()
}

// last reports whether this rank's stage ends the model.
func (l *pipeline) last() bool { return l.stage == l.stages-1 }

const tagState = 3

// collect brings the variables of other stages to rank 0, the only one for which the result is not nil.
func (l *pipeline) collect() (map[string]*tensor.Tensor, error) {
	if l.copy > 0 {
		return nil, nil
	}
	var out map[string]*tensor.Tensor
	if l.stage == 0 {
		out = map[string]*tensor.Tensor{}
	}
	for _, v := range l.m.declared {
		s := l.stageOf(v.Name)
		switch {
		case s <= 0 || l.stage != 0 && l.stage != s:
		case l.stage == 0:
			t := tensor.New(v.Type.DType, v.Type.Shape...)
			if err := l.row.Recv(s, tagState, t.Bytes()); err != nil {
				return nil, err
			}
			out[v.Name] = t
		default:
			t, err := l.m.state.Get(v.Name)
			if err != nil {
				return nil, err
			}
			if err := l.row.Send(0, tagState, t.Bytes()); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// spread gives the stages of the first copy the variables that rank 0 has for them.
func (l *pipeline) spread(whole map[string]*tensor.Tensor) error {
	if l.copy > 0 {
		return nil
	}
	for _, v := range l.m.declared {
		s := l.stageOf(v.Name)
		if s == 0 || s > 0 && l.stage != 0 && l.stage != s {
			continue
		}
		if l.stage != 0 {
			t := tensor.New(v.Type.DType, v.Type.Shape...)
			if err := l.row.Recv(0, tagState, t.Bytes()); err != nil {
				return err
			}
			if err := l.m.state.Set(v.Name, t); err != nil {
				return err
			}
			continue
		}
		t, to := whole[v.Name], []int{s}
		if s < 0 { // all have it
			to = to[:0]
			for i := 1; i < l.stages; i++ {
				to = append(to, i)
			}
			var err error
			if t, err = l.m.state.Get(v.Name); err != nil {
				return err
			}
		}
		if t == nil {
			return fmt.Errorf("train: variable %q, which belongs to pipeline stage %d, is missing on rank 0", v.Name, s)
		}
		for _, r := range to {
			if err := l.row.Send(r, tagState, t.Bytes()); err != nil {
				return err
			}
		}
	}
	return nil
}

// errStages is what programs of the whole model give on a rank that has a part of it.
var errStages = errors.New("train: the layers are shared out over ranks as pipeline stages: Fit, Evaluate and Predict work so; all else needs the whole model (Assemble, or load its file)")

// Assemble makes rank 0's model whole when the training is over: it has all parameters and state then, and works as that of a process alone. Without Parallel.Pipeline and Tensor it does nothing.
// All ranks must call it; the other ranks keep their stages, or parts of layers.
func (m *Model) Assemble() error {
	if m.apart() == nil {
		return nil
	}
	if err := m.Unshare(); err != nil || !m.Writes() {
		return err
	}
	whole, err := m.backend.NewState(m.declared)
	if err != nil {
		return err
	}
	for _, v := range m.declared {
		t := m.unshared[v.Name]
		delete(m.unshared, v.Name)
		if t == nil {
			if t, err = m.state.Get(v.Name); err != nil {
				return err
			}
		}
		if err := whole.Set(v.Name, t); err != nil {
			return err
		}
	}
	m.state = whole
	for k, p := range m.programs { // of stages; accounts still count what they have cost
		m.retired = append(m.retired, p)
		delete(m.programs, k)
	}
	m.parallel.Pipeline, m.parallel.Tensor, m.parallel.Zero, m.pipe, m.team, m.shared, m.unshared = 0, 0, 0, nil, nil, nil, nil
	return nil
}
