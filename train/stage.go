package train

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
)

// What a stage of a pipeline computes, as a graph: its part of the model's nodes, from the values that the stage before hands over to those that the next one takes.

// mark is where, in a graph, the nodes of an application of a layer begin.
type mark struct {
	layer string
	at    int
}

// forward is the graph of the whole model, without gradients, and where its layers are.
func (l *pipeline) forward(k programKey) (g *graph.Graph, marks []mark, err error) {
	g, _, err = l.m.graphWith(k, func(layer *nn.Layer, x []*graph.Node) {
		if n := layer.Rows(); n > 0 && len(x) == 1 && x[0].Op() == graph.OpInput {
			if name := graph.NameOf(x[0]); l.rows[name] == 0 || n < l.rows[name] {
				l.rows[name] = n
			}
		}
		marks = append(marks, mark{layer.Name(), len(x[0].Graph().Nodes())})
	})
	return g, marks, err
}

// cutting is a graph of the whole model and which stage has what of it.
type cutting struct {
	f      *graph.Graph
	home   []int           // by node: its stage; -1: each that needs it, for inputs of the model and what follows from constants
	takes  [][]*graph.Node // by stage: what comes from the stage before
	learns []bool          // by node: whether it depends on trained parameters, so that its gradient is of use
}

// cutting cuts the graph of a program.
func (l *pipeline) cutting(k programKey) (*cutting, error) {
	f, marks, err := l.forward(k)
	if err != nil {
		return nil, err
	}
	nodes := f.Nodes()
	c := &cutting{f: f, home: make([]int, len(nodes)), takes: make([][]*graph.Node, l.stages), learns: make([]bool, len(nodes))}
	stage := 0
	for i, n := range nodes {
		for stage+1 < l.stages && i >= marks[l.begin[stage+1]].at {
			stage++
		}
		c.home[i] = stage
		free := n.Op() != graph.OpVariable
		for _, x := range n.Inputs() {
			free = free && c.home[x.ID()] < 0 && x.Op() != graph.OpInput
			c.learns[i] = c.learns[i] || c.learns[x.ID()]
		}
		switch {
		case n.Op() == graph.OpInput || free:
			c.home[i] = -1
		case n.Op() == graph.OpPart: // where its node is
			c.home[i] = c.home[n.Input(0).ID()]
		case n.Op() == graph.OpVariable:
			c.learns[i] = l.trains[graph.NameOf(n)]
		case n.Op() == op.StopGradientOp:
			c.learns[i] = false
		}
	}
	// A variable belongs to the first stage that reads it.
	live, uses := f.Live(), f.Uses()
	for i, n := range nodes {
		if n.Op() != graph.OpVariable {
			continue
		}
		name := graph.NameOf(n)
		first := l.stages
		for _, u := range uses[i] {
			if live[u.ID()] && c.home[u.ID()] >= 0 {
				first = min(first, c.home[u.ID()])
			}
		}
		known, ok := l.home[name]
		switch {
		case ok && known > first:
			return nil, fmt.Errorf("train: %s belongs to pipeline stage %d, but stage %d reads it outside of training", name, known, first)
		case ok:
			c.home[i] = known
		case first == l.stages:
			c.home[i] = 0
		default:
			c.home[i] = first
		}
	}
	for _, o := range f.Outputs() {
		if name, ok := strings.CutPrefix(o.Name, movedPrefix); ok {
			for i, n := range nodes {
				if n.Op() == graph.OpVariable && graph.NameOf(n) == name && c.home[i] != c.home[o.Node.ID()] {
					return nil, fmt.Errorf("train: the moving average %s belongs to a layer that pipeline stages %d and %d both apply: choose other layers to begin stages with (--cuts)", name, c.home[i], c.home[o.Node.ID()])
				}
			}
		}
	}
	last := make([]int, len(nodes)) // the stage that is the last to read a node
	for i := range nodes {
		last[i] = c.home[i]
		for _, u := range uses[i] {
			if live[u.ID()] {
				last[i] = max(last[i], c.home[u.ID()])
			}
		}
	}
	for _, o := range f.Outputs() {
		if !strings.HasPrefix(o.Name, movedPrefix) {
			last[o.Node.ID()] = l.stages - 1
		}
	}
	for i, n := range nodes {
		if !live[i] || c.home[i] < 0 {
			continue
		}
		for s := c.home[i] + 1; s <= last[i]; s++ {
			if len(n.Types()) != 1 {
				return nil, fmt.Errorf("train: layer %s: %s has several results and cannot be handed over to pipeline stage %d: choose other layers to begin stages with (--cuts)", n.Scope(), n.Op().Name, s)
			}
			c.takes[s] = append(c.takes[s], n)
		}
	}
	return c, nil
}

// stageGraph is the graph of a stage.
type stageGraph struct {
	g      *graph.Graph
	inputs []*graph.Node // of the whole model's graph: what each input stands for
	takes  []*graph.Node // of those, what comes from the stage before
	gives  []*graph.Node // likewise, what the next stage takes
	backs  []int         // the numbers of values given of which a gradient comes back
}

// learned are the numbers of values of which gradients are of use.
func (c *cutting) learned(vs []*graph.Node) (out []int) {
	for i, n := range vs {
		if c.learns[n.ID()] && n.DType().IsFloat() {
			out = append(out, i)
		}
	}
	return out
}

// Names of what a stage's program takes and gives beside those of a shard.
const (
	takenPrefix   = "taken/"
	givenPrefix   = "given/"
	backPrefix    = "back/"
	arrivedPrefix = "arrived/" // of the gradients of what it has given, where they are inputs
	handedOver    = "handed over"
)

// apart reports whether the forward and the backward pass of a stage are two programs: only the CPU's programs stop in their middle.
func (l *pipeline) apart() bool { return l.m.backend.Name() != "cpu" }

// stageGraph is this rank's part of c. With a link it is for training: the run hands over and waits, or (apart) it is given the gradients and computes the forward pass again.
func (l *pipeline) stageGraph(c *cutting, link *op.Link, apart bool) (*stageGraph, error) {
	s := &stageGraph{takes: c.takes[l.stage]}
	if !l.last() {
		s.gives = c.takes[l.stage+1]
		s.backs = c.learned(s.gives)
	}
	var err error
	s.g, err = graph.Build(func(g *graph.Graph) {
		m := make([]*graph.Node, len(c.f.Nodes()))
		for i, n := range s.takes {
			m[n.ID()] = g.Input(fmt.Sprint(takenPrefix, i), n.Type())
			s.inputs = append(s.inputs, n)
		}
		var need func(n *graph.Node)
		need = func(n *graph.Node) {
			if m[n.ID()] != nil {
				return
			}
			for _, x := range n.Inputs() {
				need(x)
			}
			graph.CopyTo(g, n, m)
			if n.Op() == graph.OpInput {
				s.inputs = append(s.inputs, n)
			}
		}
		live := c.f.Live()
		for i, n := range c.f.Nodes() {
			if live[i] && c.home[i] == l.stage {
				need(n)
			}
		}
		for _, n := range s.gives {
			need(n)
		}
		of := func(ns []*graph.Node) (out []*graph.Node) {
			for _, n := range ns {
				out = append(out, m[n.ID()])
			}
			return out
		}
		outputs := func(name string) *graph.Node {
			i := slices.IndexFunc(c.f.Outputs(), func(o graph.Named) bool { return o.Name == name })
			if i < 0 {
				return nil
			}
			n := c.f.Outputs()[i].Node
			need(n)
			return m[n.ID()]
		}
		if l.last() {
			if n := outputs("prediction"); n != nil {
				g.Output("prediction", n)
			}
		}
		if link == nil {
			for i, n := range s.gives {
				g.Output(fmt.Sprint(givenPrefix, i), m[n.ID()])
			}
			if l.last() {
				if n := outputs("loss"); n != nil {
					g.Output("loss", n)
				}
			}
			return
		}
		input := func(name string) *graph.Node {
			for _, n := range c.f.Inputs() {
				if graph.NameOf(n) == name {
					need(n)
					return m[n.ID()]
				}
			}
			return nil
		}
		var names []string
		var wrt []*graph.Node
		for _, p := range l.m.own() {
			if p.Trainable {
				names, wrt = append(names, gradPrefix+p.Name), append(wrt, g.Variable(p.Name, p.Type))
			}
		}
		for _, i := range c.learned(s.takes) {
			names, wrt = append(names, fmt.Sprint(backPrefix, i)), append(wrt, m[s.takes[i].ID()])
		}
		var ys, seeds []*graph.Node
		if l.last() {
			loss := op.Mul(outputs("loss"), input("weight"))
			g.Output("loss", loss)
			ys = []*graph.Node{loss}
			g.As(loss, graph.Backward, func() { seeds = []*graph.Node{op.Scalar(g, loss.DType(), 1)} })
		} else {
			if apart {
				for i, k := range s.backs {
					n := g.Input(fmt.Sprint(arrivedPrefix, i), s.gives[k].Type())
					s.inputs, seeds = append(s.inputs, n), append(seeds, n)
				}
			} else {
				var done *graph.Node
				done, seeds = op.HandOver(link, s.backs, of(s.gives)...)
				g.Output(handedOver, done)
			}
			for _, i := range s.backs {
				ys = append(ys, m[s.gives[i].ID()])
			}
		}
		var ds []*graph.Node
		switch {
		case len(wrt) == 0:
		case len(ys) > 0:
			ds = grad.Pull(ys, seeds, wrt...)
		default: // nothing that is trained here has an effect
			for _, w := range wrt {
				g.During(graph.Backward, func() { ds = append(ds, op.Full(g, w.Type(), 0)) })
			}
		}
		for i, d := range ds {
			g.Output(names[i], d)
		}
		for _, o := range c.f.Outputs() {
			if strings.HasPrefix(o.Name, movedPrefix) && c.home[o.Node.ID()] == l.stage {
				g.During(graph.Update, func() { g.Output(o.Name, op.Mul(m[o.Node.ID()], input("weight"))) })
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// graph is the graph of this rank's stage for a micro-batch of a size, see laneKey.
func (l *pipeline) graph(size programKey, link *op.Link) (*stageGraph, error) {
	c, err := l.cutting(size)
	if err != nil {
		return nil, err
	}
	return l.stageGraph(c, link, l.apart())
}

// shardGraph is the graph of what this rank computes of a shard.
func (g *group) shardGraph() (*graph.Graph, error) {
	if g.m.pipe == nil {
		sg, _, err := g.m.graph(programKey{mode: shard, batch: 1})
		return sg, err
	}
	s, err := g.m.pipe.graph(programKey{mode: shard, forward: true, batch: 1}, &op.Link{})
	if err != nil {
		return nil, err
	}
	return s.g, nil
}

// compile makes a stage's graph runnable.
func (l *pipeline) compile(s *stageGraph, o backend.Options) (backend.Executable, error) {
	run, err := s.g, error(nil)
	if l.m.recompute != nil {
		if run, err = l.m.recomputing(s.g); err != nil {
			return nil, err
		}
	}
	o.Threads = l.m.threads
	return l.m.backend.Compile(run, l.m.state, o)
}
