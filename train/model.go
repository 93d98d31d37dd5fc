// Package train makes models learn: Compile joins a model with data, optimizer and loss, and Fit runs the steps.
//
// # Terminology
//
// A step is one batch forward, backward and update: one graph, compiled once for each batch size, whose weights and optimizer state stay in the
// backend's State between runs. An epoch is one pass over the training data. Everything random (first weights, order of the data, dropout) is a function
// of the seed and of counters that checkpoints keep, so that the same seed gives the same bits whatever the number of threads, and a
// resumed run the same bits as one that was never stopped.
package train

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/cost"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
)

// seedVar is the state of random layers: the seed, and the number of steps that have drawn from it.
const seedVar = "random/state"

// Option refines Compile: a Metric, or Threads, Seed, On, Accumulate.
type Option interface{ compile(m *Model) }

func (k Metric) compile(m *Model) { m.metrics = append(m.metrics, k) }

type option func(m *Model)

func (o option) compile(m *Model) { o(m) }

// Threads sets the number of threads; 0, the default, is one for each CPU.
func Threads(n int) Option { return option(func(m *Model) { m.threads = n }) }

// Seed sets the number that everything random follows from. The default is 0.
func Seed(s uint64) Option { return option(func(m *Model) { m.seed = s }) }

// On sets the backend. The default is the CPU.
func On(b backend.Backend) Option { return option(func(m *Model) { m.backend = b }) }

// Accumulate adds up the gradients of n batches before each update.
func Accumulate(n int) Option { return option(func(m *Model) { m.accumulate = n }) }

// DTypePolicy sets the element types of the computation: nn.Float32, the default, or nn.MixedBFloat16. Writing text token by token (package generate) stays in f32.
func DTypePolicy(p nn.Policy) Option { return option(func(m *Model) { m.precision = p }) }

// Model is a compiled model: weights, and programs that train, evaluate and predict. One goroutine may use it at a time.
type Model struct {
	Net  *nn.Model
	Spec data.Spec

	opt        *optim.Optimizer
	loss       Loss
	metrics    []Metric
	backend    backend.Backend
	threads    int
	seed       uint64
	accumulate int
	precision  nn.Policy

	fixed   bool // for prediction alone
	blank   bool // all its values come from a file: there is no room for first ones
	frozen  []freezing
	epoch   int // of the training, from 0: later ones may train more parameters
	rates   []rateFactor
	wraps   []Wrapper
	merged  bool // wrappers were removed: what they trained may have been all that was trained
	teacher *Teacher

	recompute []string // patterns of layers, nil: none, empty: all Transformer blocks

	parallel  Parallel
	team      *team                     // the ranks that compute the same examples, each its part of layers; nil: none
	norms     *op.Group                 // whose statistics batch normalisations take; nil: their own
	shared    *group                    // once steps are shared out
	pipe      *pipeline                 // this rank's part of the layers; nil: all
	exchanged *exchanged                // likewise; it goes on when Merge begins another group
	declared  []backend.Var             // what training needs, in the order of a checkpoint
	unshared  map[string]*tensor.Tensor // on rank 0: whole state that is shared out among ranks, if it is at hand

	params    []nn.Param
	state     backend.State
	programs  map[programKey]*program
	shaped    map[string]data.Spec // by programKey.shapes
	retired   []*program           // from before Merge
	waited    time.Duration        // for batches, since StartAccount
	waits     int64
	evaluated time.Duration // spent in Evaluate, since StartAccount
}

// Compile joins a model with the data it is for, an optimizer and a loss, and gives the parameters their first values.
func Compile(net *nn.Model, spec data.Spec, opt *optim.Optimizer, loss Loss, opts ...Option) (*Model, error) {
	m := &Model{Net: net, Spec: spec, opt: opt, loss: loss, backend: cpu.Backend{}, accumulate: 1, programs: map[programKey]*program{}}
	for _, o := range opts {
		o.compile(m)
	}
	if err := m.precision.Check(); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	if err := opt.Check(); err != nil {
		return nil, err
	}
	if len(spec.Targets) != 1 {
		return nil, fmt.Errorf("train: a model is compiled for data with one target, this has %d", len(spec.Targets))
	}
	if m.accumulate < 1 {
		return nil, fmt.Errorf("train: gradients cannot be accumulated over %d batches", m.accumulate)
	}
	if m.teacher != nil {
		if err := m.teacher.check(m); err != nil {
			return nil, err
		}
	}
	if err := m.declare(); err != nil {
		return nil, err
	}
	if err := m.checkAdapted(); err != nil {
		return nil, err
	}
	if err := m.checkRecompute(); err != nil {
		return nil, err
	}
	if m.blank {
		return m, nil
	}
	return m, m.Reset()
}

// declare makes the state, with all variables zero.
func (m *Model) declare() error {
	// The training step of one example knows every variable: parameters, moments, counters. A model without a parameter that could be trained is for prediction alone, and so is one with
	// layers of integers that gradients cannot pass.
	mode, whole := train, false
	if m.fixed {
		mode = evaluate
	}
	if _, call, err := m.graph(programKey{mode: evaluate, batch: 1}); err == nil && len(call.Params) > 0 {
		if (len(m.frozen) == 0 || m.merged) && !slices.ContainsFunc(call.Params, func(p nn.Param) bool { return p.Trainable }) {
			mode = evaluate
		}
		whole = slices.ContainsFunc(call.Params, func(p nn.Param) bool { return p.Type.DType.IsInt() })
	}
	m.epoch = never - 1 // all parameters that are ever trained have optimizer state
	defer func() { m.epoch = 0 }()
	g, call, err := m.graph(programKey{mode: mode, batch: 1})
	if err != nil && whole && mode == train {
		g, call, err = m.graph(programKey{mode: evaluate, batch: 1})
	}
	if err != nil {
		return err
	}
	m.params = call.Params
	m.pipe, m.team = nil, nil
	if mode == train {
		if err := m.cut(); err != nil {
			return err
		}
	}
	if mode == train || m.fixed {
		if err := m.together(); err != nil {
			return err
		}
	}
	var vars []backend.Var
	for _, v := range g.Variables() {
		if _, carried := nn.Carried(graph.NameOf(v)); !carried { // they depend on the batch: addOwned
			m.declared = append(m.declared, backend.Var{Name: graph.NameOf(v), Type: v.Type()})
		}
	}
	for _, v := range m.declared {
		if m.part(v.Name) {
			m.team.whole[v.Name] = v.Type
		}
		switch {
		case m.zeroed(v.Name): // the group declares this rank's segments
		case m.part(v.Name):
			vars = append(vars, backend.Var{Name: v.Name, Type: m.ownType(v.Name, v.Type)})
		case !m.sharded(v.Name):
			vars = append(vars, v)
		}
	}
	if m.state, err = m.backend.NewState(vars); err != nil {
		return err
	}
	if m.parallel.zeroStage() > 0 && mode == train {
		if _, err := m.group(); err != nil { // it declares this rank's part
			return err
		}
	}
	return m.declareOuter()
}

// Reset gives every variable its first value again.
func (m *Model) Reset() error {
	made := map[string]*tensor.Tensor{} // of each type one does: a great model's values would lie here twice
	of := func(t graph.Type) *tensor.Tensor {
		if made[t.String()] == nil {
			made[t.String()] = tensor.New(t.DType, t.Shape...)
		}
		return made[t.String()]
	}
	for _, v := range m.state.Vars() {
		if err := m.state.Set(v.Name, of(v.Type)); err != nil {
			return err
		}
	}
	if m.teacher != nil {
		if err := m.teacher.enter(m.state); err != nil {
			return err
		}
	}
	for _, p := range m.params {
		if m.away(p.Name) {
			continue
		}
		t := of(p.Type)
		if err := p.Init.Fill(t, source(m.seed, p.Name)); err != nil {
			return fmt.Errorf("train: parameter %s: %w", p.Name, err)
		}
		if err := m.put(p.Name, t); err != nil {
			return err
		}
	}
	if m.has(seedVar) {
		return m.state.Set(seedVar, tensor.Of([]int64{drawSeed(m.seed), 0}))
	}
	return nil
}

// drawSeed is the seed in the state of random layers: the model's own where float64 holds it exactly, which is what the reference computes in, and
// beyond that 53 bits that depend on all of it (the finaliser of SplitMix64; Steele, Lea & Flood 2014), so that great seeds that differ draw
// differently, and the same on every backend.
func drawSeed(seed uint64) int64 {
	if seed <= 1<<53 {
		return int64(seed)
	}
	seed = (seed ^ seed>>30) * 0xbf58476d1ce4e5b9
	seed = (seed ^ seed>>27) * 0x94d049bb133111eb
	return int64((seed ^ seed>>31) >> 11)
}

// source is the stream of random numbers that a parameter's first values come from: its name's own, so that adding a layer
// leaves the others' values as they were.
func source(seed uint64, name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

func (m *Model) has(name string) bool {
	for _, v := range m.state.Vars() {
		if v.Name == name {
			return true
		}
	}
	return false
}

// Params are the model's parameters, in the order of its layers.
func (m *Model) Params() []nn.Param { return m.params }

// State holds the values of all variables: parameters, optimizer state, counters.
func (m *Model) State() backend.State { return m.state }

// mode is what a program does.
type mode uint8

const (
	train        mode = iota // a step with update
	gather                   // a step that only adds to the accumulated gradients
	shard                    // the gradients of a part of a batch
	apply                    // the update from the sum over all parts
	applyGather              // the addition of that sum to the accumulated gradients
	applyMomenta             // the update from sums of momenta, of 1-bit Adam
	applySquares             // sums of squares of this rank's part of the gradients
	evaluate                 // predictions and loss
	predict                  // predictions alone
	prefill                  // several tokens more of sequences
	decode                   // one token more
	gradients                // the gradients of a batch, as the model predicts
)

func (k mode) String() string {
	return [...]string{"train", "gather", "shard", "apply", "apply-gather", "apply-momenta", "apply-squares", energy.PhaseEvaluate, "predict", "prefill", "decode", "gradients"}[k]
}

type programKey struct {
	mode       mode
	batch      int
	time, room int    // of a decoder: tokens of a run, and those that there is room for
	ragged     bool   // of a decoder: sequences have different numbers of tokens in a run
	ring       bool   // of a decoder: its memories forget the first positions
	begin      bool   // of a decoder: the sequences begin, and what they answer to is read
	top        int    // of a decoder: so many of the most probable tokens are found
	stage      int    // of a step: see Model.stage
	forward    bool   // of a shard: the model without gradients, for pipeline stages
	lane       int    // of a pipeline stage: which of its programs
	split      bool   // outside of training: layers are split over ranks; see Model.inParts
	shapes     string // of the inputs and targets where they are not those of the data's spec: see Model.shapes
}

// program is a compiled graph with the tensors it is run on.
type program struct {
	key     programKey
	g       *graph.Graph
	exec    backend.Executable
	in      []*tensor.Tensor // inputs, targets, rate: as far as the mode has them
	out     []*tensor.Tensor // predictions, as far as the mode has them, then loss
	again   bool             // another program computes all of it again, whose arithmetic the model asks for
	classes int              // of a last layer of which the first output is verdicts; 0: predictions
	rows    []int            // of each input of numbers that an Embedding reads: how many rows that has; 0 of others

	keys   []energy.Key   // of the executed nodes, and of what else the ledger books
	prices []energy.Cost  // of one run of each
	layers [][]layerShare // of the executed nodes that serve several layers
}

// fieldTypes are the types of fields for a batch of n.
func fieldTypes(fields []data.Field, n int) []graph.Type {
	out := make([]graph.Type, len(fields))
	for i, f := range fields {
		out[i] = graph.T(f.DType, append([]int{n}, f.Shape...)...)
	}
	return out
}

// graph builds the graph of a program, as the user's model says it, before any pass.
func (m *Model) graph(k programKey) (*graph.Graph, *nn.Call, error) { return m.graphWith(k, nil) }

// graphWith is graph that shows every layer with its operands to tap.
func (m *Model) graphWith(k programKey, tap func(l *nn.Layer, x []*graph.Node)) (*graph.Graph, *nn.Call, error) {
	var call *nn.Call
	g, err := graph.Build(func(g *graph.Graph) {
		if k.mode == prefill || k.mode == decode {
			call = m.growing(g, k, tap)
			return
		}
		var x []*graph.Node
		spec := m.Spec
		if k.shapes != "" {
			spec = m.shaped[k.shapes]
		}
		for i, t := range fieldTypes(spec.Inputs, k.batch) {
			x = append(x, g.Input(fmt.Sprintf("x%d", i), t))
		}
		call = &nn.Call{G: g, Training: k.mode <= shard, Policy: m.precision, Frozen: m.isFrozen, Wrap: m.wrap(), Change: m.change(), Operand: m.operand(), Carry: k.carry(), Tap: tap}
		var moved []graph.Assign
		var weight *graph.Node
		if k.mode == shard || k.split {
			call.Split = m.split()
		}
		switch {
		case k.mode == shard: // each shard draws its own, and moving averages are those of all shards
			weight = g.Input("weight", graph.T(dtype.F32)) // the shard's examples over those of the batch
			if m.norms != nil {
				call.Mean = func(x *graph.Node) *graph.Node { return op.AllReduce(op.Mul(x, weight), m.norms) }
			}
			call.Seed = g.Input("random", graph.T(dtype.I64, 2))
			call.Moved = func(v, value *graph.Node) { moved = append(moved, graph.Assign{Var: v, Value: value}) }
		case call.Training:
			call.Seed = g.Variable(seedVar, graph.T(dtype.I64, 2))
		}
		var one []graph.Type
		for _, f := range m.Spec.Inputs {
			one = append(one, graph.Type{DType: f.DType, Shape: f.Shape})
		}
		if _, err := m.Net.Inputs(k.batch, one); err != nil {
			g.Fail("model", nil, "%v", err)
		}
		var seen *shown
		if call.Training && m.teacher != nil {
			seen = m.teacher.watch(call)
		}
		pred := m.Net.Call(call, x)
		if len(pred) != 1 {
			g.Fail("model", nil, "a model is compiled with one output, this has %d", len(pred))
		}
		ends, predicted := scoresOf(call), pred[0].Type()
		// Training without metrics needs no predictions: a softmax over a large vocabulary would cost for nothing.
		shows := k.mode == evaluate || k.mode == predict || len(m.metrics) > 0 && k.mode != gradients
		judged, need := false, knows(0) // whether metrics are made of verdicts, and what they look at
		if ends != nil {
			predicted = ends.full()
			need, judged = m.judgesParts()
			judged = judged && shows && k.mode != predict
		}
		switch {
		case shows && ends == nil:
			g.Output("prediction", pred[0])
		case shows && !judged:
			g.In("loss", func() { g.Output("prediction", ends.probabilities()) })
		}
		if k.mode == predict {
			return
		}
		t := fieldTypes(spec.Targets, k.batch)[0]
		lossOf := m.loss
		if lossOf.mixed != nil && t.DType.IsFloat() && m.Spec.Targets[0].DType.IsInt() {
			lossOf = lossOf.mixed()
		}
		if why := lossOf.target(predicted, t); why != "" {
			g.Fail(lossOf.Name, pred[:1], "%s, but the data's targets are %v", why, t)
		}
		y := g.Input("y", t)
		var loss *graph.Node
		g.In("loss", func() {
			if judged {
				g.Output(outJudged, ends.judged(y, need))
			}
			if ends != nil {
				loss = op.MeanAll(lossOf.parts(ends, y))
			} else {
				loss = op.MeanAll(lossOf.each(pred[0], y))
			}
			if call.Training && m.teacher != nil {
				loss = m.teacher.loss(g, m, loss, pred[0], x, seen)
			}
			if k.mode != shard || k.forward {
				g.Output("loss", loss)
			}
		})
		if k.forward {
			for _, a := range moved {
				g.Output(movedPrefix+graph.NameOf(a.Var), a.Value)
			}
			return
		}
		if k.mode == shard {
			m.shardLoss(g, call, loss, weight, moved)
			return
		}
		if k.mode == gradients {
			params, ws := m.trained(g, call.Params)
			for i, dw := range grad.Of(loss, ws...) {
				g.Output(gradientPrefix+params[i].Name, dw)
			}
			return
		}
		if !call.Training {
			return
		}
		m.learn(g, call, loss, k)
	})
	return g, call, err
}

// learn adds gradients and updates.
func (m *Model) learn(g *graph.Graph, call *nn.Call, loss *graph.Node, k programKey) {
	rate := g.Input("rate", graph.T(dtype.F32))
	params, ws := m.trained(g, call.Params)
	m.update(g, params, grad.Of(loss, ws...), rate, k.mode == gather)
	g.During(graph.Update, func() {
		g.Update(call.Seed, op.Add(call.Seed, g.Const(tensor.Of([]int64{0, 1}))))
	})
}

// update adds the optimizer's updates, or (gathering) the addition to the accumulated gradients.
func (m *Model) update(g *graph.Graph, params []nn.Param, grads []*graph.Node, rate *graph.Node, gathering bool) {
	m.collect(g, params, grads, gathering)
	if !gathering {
		m.opt.Build(g, params, grads, rate)
	}
}

// collect adds gradients to the accumulated ones, if they are accumulated; unless it goes on gathering, grads become the means and the sums zero.
func (m *Model) collect(g *graph.Graph, params []nn.Param, grads []*graph.Node, gathering bool) {
	if m.accumulate > 1 {
		g.During(graph.Update, func() {
			for i, p := range params {
				acc := g.Variable(accumulatedPrefix+p.Name, p.Type)
				sum := op.Add(acc, grads[i])
				if gathering {
					g.Update(acc, sum)
					continue
				}
				grads[i] = op.Mul(sum, op.Scalar(g, dtype.F32, 1/float64(m.accumulate)))
				g.Update(acc, op.Full(g, p.Type, 0))
			}
		})
	}
}

// program is the compiled program for a mode and a batch: made at its first use for such shapes, kept.
func (m *Model) program(mode mode, x, y []*tensor.Tensor) (*program, error) {
	return m.programOf(programKey{mode: mode, batch: x[0].Shape()[0], shapes: m.shapes(x, y)})
}

// programOf is the compiled program for a key: made at its first use, kept.
func (m *Model) programOf(k programKey) (*program, error) {
	if k.mode <= gather {
		k.stage = m.stage()
	}
	if p := m.programs[k]; p != nil {
		return p, nil
	}
	p, err := m.build(k, false)
	if err == nil {
		m.programs[k] = p
	}
	return p, err
}

// shapes names the shapes of a batch, "" for those of the data's spec, and keeps a spec with them. Targets that mixup has made probabilities have another type too.
func (m *Model) shapes(x, y []*tensor.Tensor) string {
	y = y[:min(len(y), len(m.Spec.Targets))] // what a teacher has said has the shape of predictions
	same := len(x) <= len(m.Spec.Inputs)
	for i, f := range m.Spec.Inputs {
		same = same && (i >= len(x) || x[i].Shape()[1:].Equal(f.Shape))
	}
	for i, f := range m.Spec.Targets {
		same = same && (i >= len(y) || y[i].Shape()[1:].Equal(f.Shape) && y[i].DType() == f.DType)
	}
	if same || len(x) != len(m.Spec.Inputs) || len(y) > len(m.Spec.Targets) {
		return ""
	}
	s := m.Spec
	s.Inputs, s.Targets = slices.Clone(s.Inputs), slices.Clone(s.Targets)
	name := ""
	for i := range x {
		s.Inputs[i].Shape = x[i].Shape()[1:].Clone()
		name += s.Inputs[i].Shape.String()
	}
	for i := range y {
		s.Targets[i].DType, s.Targets[i].Shape = y[i].DType(), y[i].Shape()[1:].Clone()
		name += s.Targets[i].Shape.String()
		if s.Targets[i].DType != m.Spec.Targets[i].DType {
			name += s.Targets[i].DType.String()
		}
	}
	if m.shaped == nil {
		m.shaped = map[string]data.Spec{}
	}
	m.shaped[name] = s
	return name
}

// build compiles a program; with stopAtNaN it fails at the first node whose result is not finite.
func (m *Model) build(k programKey, stopAtNaN bool) (*program, error) {
	if err := m.apart(); err != nil && !k.split {
		return nil, err
	}
	rows := map[*graph.Node]int{}
	g, call, err := m.graphWith(k, func(l *nn.Layer, x []*graph.Node) {
		if n := l.Rows(); n > 0 && len(x) == 1 && x[0].Op() == graph.OpInput && (rows[x[0]] == 0 || n < rows[x[0]]) {
			rows[x[0]] = n
		}
	})
	if err != nil {
		return nil, err
	}
	if err := m.addOwned(g); err != nil {
		return nil, err
	}
	run := g // the account counts the arithmetic of g: what is computed again is not asked for
	if m.recompute != nil && k.mode <= shard {
		if run, err = m.recomputing(g); err != nil {
			return nil, err
		}
	}
	e, err := m.backend.Compile(run, m.state, backend.Options{Threads: m.threads, StopAtNaN: stopAtNaN})
	if err != nil {
		return nil, err
	}
	p := &program{key: k, g: g, exec: e, out: backend.NewOutputs(g), in: make([]*tensor.Tensor, len(g.Inputs()))}
	p.judged(call)
	for _, n := range g.Inputs() {
		p.rows = append(p.rows, rows[n])
	}
	if k.mode == train || k.mode == gather {
		p.in[len(p.in)-1] = tensor.New(dtype.F32)
	}
	return p, nil
}

// run runs the program on a batch. The slices are used only during the call.
func (p *program) run(x, y []*tensor.Tensor, rate float64) error {
	if err := p.check(x); err != nil {
		return err
	}
	n := copy(p.in, x)
	if p.key.mode != predict {
		p.in[n] = y[0]
		n++
		if p.key.mode <= gather && len(y) > 1 { // what a teacher has said
			p.in[n] = y[1]
			n++
		}
	}
	if n < len(p.in) {
		p.in[n].F32()[0] = float32(rate)
	}
	return p.exec.Run(p.in, p.out)
}

// check finds numbers that stand for nothing: an embedding would take another row for them.
func (p *program) check(x []*tensor.Tensor) error {
	for i, t := range x {
		if i >= len(p.rows) || p.rows[i] == 0 || t.DType() != dtype.I32 {
			continue
		}
		for k, v := range t.I32() {
			if v < 0 || int(v) >= p.rows[i] {
				return fmt.Errorf("train: input %s has token %d (element %d of the batch), but the model knows 0 to %d", graph.NameOf(p.g.Inputs()[i]), v, k, p.rows[i]-1)
			}
		}
	}
	return nil
}

// judged notes whether the program's first output is verdicts.
func (p *program) judged(c *nn.Call) {
	if o := p.g.Outputs(); len(o) > 0 && o[0].Name == outJudged {
		p.classes = c.Scores.Of
	}
}

func (p *program) prediction() *tensor.Tensor { return p.out[0] }

func (p *program) loss() float64 { return p.out[len(p.out)-1].At(0) }

// Step trains on one batch and gives its loss; x and y have the batch as first axis. It is what Fit calls, for loops of one's own.
func (m *Model) Step(x, y []*tensor.Tensor, rate float64) (loss float64, err error) {
	if m.parallel.zeroStage() > 0 {
		return 0, errors.New("train: the optimizer's state is shared out over ranks: a step of one's own is not possible, Fit is")
	}
	if err := m.takes(x); err != nil {
		return 0, err
	}
	if len(y) < len(m.Spec.Targets) {
		return 0, fmt.Errorf("train: a step needs %d targets, there are %d", len(m.Spec.Targets), len(y))
	}
	p, err := m.program(train, x, y)
	if err != nil {
		return 0, err
	}
	if err := p.run(x, y, rate); err != nil {
		return 0, err
	}
	return p.loss(), nil
}

// takes reports inputs that are others than those of the data that the model was compiled for, lengths of axes aside.
func (m *Model) takes(x []*tensor.Tensor) error {
	if len(x) != len(m.Spec.Inputs) {
		return fmt.Errorf("train: the model takes %d inputs, there are %d", len(m.Spec.Inputs), len(x))
	}
	for i, f := range m.Spec.Inputs {
		if t := x[i]; t.DType() != f.DType || len(t.Shape()) != len(f.Shape)+1 {
			return fmt.Errorf("train: input %d (%s) is %v%v, batch first; the model was compiled for %v%v an example", i, f.Name, t.DType(), t.Shape(), f.DType, f.Shape)
		}
	}
	return nil
}

// PredictBatch gives the predictions for one batch. The tensor is overwritten by the next call with this batch size. Of a model that is for prediction alone (Fixed) and of which ranks have parts
// (Parallel.Tensor) all ranks of a row must call it.
func (m *Model) PredictBatch(x ...*tensor.Tensor) (*tensor.Tensor, error) {
	if err := m.takes(x); err != nil {
		return nil, err
	}
	p, err := m.programOf(programKey{mode: predict, batch: x[0].Shape()[0], shapes: m.shapes(x, nil), split: m.fixed && m.inParts()})
	if err != nil {
		return nil, err
	}
	if err := p.run(x, nil, 0); err != nil {
		return nil, err
	}
	return p.prediction(), m.met(p)
}

// ParamCount is the number of elements of all parameters.
func (m *Model) ParamCount() int {
	n := 0
	for _, p := range m.params {
		n += p.Type.Shape.Size()
	}
	return n
}

// StepCost is the arithmetic and the bytes that a train step on a batch asks for.
func (m *Model) StepCost(batch int) energy.Cost { return m.cost(programKey{mode: train, batch: batch}) }

// PredictCost is the arithmetic and the bytes that predicting a batch asks for.
func (m *Model) PredictCost(batch int) energy.Cost {
	return m.cost(programKey{mode: predict, batch: batch})
}

func (m *Model) cost(k programKey) energy.Cost {
	g, _, err := m.graph(k)
	if err != nil {
		return energy.Cost{} // the model was compiled: its graph can be built
	}
	return cost.Graph(g)
}

// Summary describes the model's layers: shapes, parameters, arithmetic.
func (m *Model) Summary() (nn.Description, error) {
	var in []graph.Type
	for _, f := range m.Spec.Inputs {
		in = append(in, graph.Type{DType: f.DType, Shape: f.Shape})
	}
	return m.Net.Describe(in)
}
