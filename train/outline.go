package train

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/dist/plan"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
)

// What ranks would have of a model, for predictions (package dist/plan): graphs are cut and split as a training on ranks does it, and compiled, but not run.

// Outline is what each stage of a pipeline would have of the model, one stage: the whole of it. Shares of time are those of the layers in steps of so many examples that have run; without any, of predicted
// times. The model must not be shared out itself.
func (m *Model) Outline(stages int, batches ...int) ([]plan.Part, error) {
	if err := m.alone(); err != nil {
		return nil, err
	}
	if why := m.unstaged(); why != "" && stages > 1 {
		return nil, fmt.Errorf("train: pipeline stages cannot be used with %s", why)
	}
	l := m.newPipeline(max(1, stages))
	if err := l.settle(); err != nil {
		return nil, err
	}
	_, marks, err := l.forward(programKey{mode: shard, forward: true, batch: 1})
	if err != nil {
		return nil, err
	}
	timed, err := m.timed(batches)
	if err != nil {
		return nil, err
	}
	m.pipe = l
	defer func() { m.pipe = nil }()
	var out []plan.Part
	for s := range l.stages {
		l.stage = s
		p := plan.Part{First: marks[l.begin[s]].layer}
		end := len(marks)
		if s+1 < l.stages {
			end = l.begin[s+1]
		}
		for _, k := range timed {
			own, total := 0.0, 0.0
			for i, t := range portioned(k.of, marks) {
				total += t
				if l.begin[s] <= i && i < end {
					own += t
				}
			}
			p.Shares = append(p.Shares, plan.Share{Batch: k.batch, Of: own / total})
		}
		m.values(&p, func(name string) float64 {
			if max(0, l.stageOf(name)) == s {
				return 1
			}
			return 0
		})
		for _, v := range []struct {
			to *plan.Bytes
			of func(c *cutting) []*graph.Node
		}{
			{&p.Forward, func(c *cutting) []*graph.Node { return l.given(c) }},
			{&p.Backward, func(c *cutting) (out []*graph.Node) {
				for _, i := range c.learned(l.given(c)) {
					out = append(out, l.given(c)[i])
				}
				return out
			}},
		} {
			if *v.to, err = linear(func(n int) (float64, error) {
				c, err := l.cutting(programKey{mode: shard, forward: true, batch: n})
				if err != nil {
					return 0, err
				}
				bytes := 0
				for _, x := range v.of(c) {
					bytes += x.Type().Bytes()
				}
				return float64(bytes), nil
			}); err != nil {
				return nil, err
			}
		}
		if p.Memory, err = linear(func(n int) (float64, error) {
			g, err := l.graph(programKey{mode: shard, forward: true, batch: n}, &op.Link{})
			if err != nil {
				return 0, err
			}
			return m.holds(func(o backend.Options) (backend.Executable, error) { return l.compile(g, o) }, !l.apart())
		}); err != nil {
			return nil, err
		}
		if p.Evaluate, err = linear(func(n int) (float64, error) {
			c, err := l.cutting(programKey{mode: evaluate, batch: n})
			if err != nil {
				return 0, err
			}
			g, err := l.stageGraph(c, nil, false)
			if err != nil {
				return 0, err
			}
			return m.holds(func(o backend.Options) (backend.Executable, error) { return m.backend.Compile(g.g, m.state, o) }, false)
		}); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// given are the values that this stage hands over.
func (l *pipeline) given(c *cutting) []*graph.Node {
	if l.last() {
		return nil
	}
	return c.takes[l.stage+1]
}

// OutlineSplit is what a rank would have of the model if so many computed the same examples together (Parallel.Tensor), with shares of time as in Outline.
func (m *Model) OutlineSplit(ranks int, batches ...int) (p plan.Part, err error) {
	if err := m.alone(); err != nil {
		return p, err
	}
	if why := m.unsplit(); why != "" {
		return p, errors.New("train: " + why)
	}
	timed, err := m.timed(batches)
	if err != nil {
		return p, err
	}
	whole, err := m.priced()
	if err != nil {
		return p, err
	}
	split := &nn.Split{Of: ranks, Group: &op.Group{Name: "tensor"}, Ends: m.loss.parts != nil}
	m.team = &team{copies: ranks, rows: 1, split: split, whole: map[string]graph.Type{}}
	defer func(whole backend.State) { m.team, m.state = nil, whole }(m.state)
	parts, err := m.priced()
	if err != nil {
		return p, err
	}
	if len(split.Layers) == 0 {
		return p, m.nothingSplit(ranks)
	}
	for _, k := range timed {
		own, total := 0.0, 0.0
		for layer, t := range k.of {
			total += t
			if whole[layer] > 0 {
				t *= min(1, parts[layer]/whole[layer])
			}
			own += t
		}
		p.Shares = append(p.Shares, plan.Share{Batch: k.batch, Of: own / total})
	}
	split.Parts = split.Divisible()
	m.values(&p, func(name string) float64 {
		if m.part(name) {
			return 1 / float64(ranks)
		}
		return 1
	})
	var own []backend.Var
	for _, v := range m.declared {
		own = append(own, backend.Var{Name: v.Name, Type: m.ownType(v.Name, v.Type)})
		if bytes := float64(v.Type.Bytes()) / float64(ranks); m.part(v.Name) {
			m.team.whole[v.Name] = v.Type
			if paramOf(v.Name) == "" {
				p.Parted += bytes
			} else {
				p.PartedState += bytes
			}
		}
	}
	if m.state, err = m.backend.NewState(own); err != nil { // for which programs are compiled, and not run
		return p, err
	}
	if p.Memory, err = linear(func(n int) (float64, error) {
		g, _, err := m.graph(programKey{mode: shard, batch: n})
		if err != nil {
			return 0, err
		}
		return m.holds(func(o backend.Options) (backend.Executable, error) { return m.backend.Compile(g, m.state, o) }, true)
	}); err != nil {
		return p, err
	}
	p.Summed, err = linear(func(n int) (float64, error) {
		g, _, err := m.graph(programKey{mode: shard, batch: n})
		if err != nil {
			return 0, err
		}
		bytes := 0
		p.Sums = 0
		live := g.Live()
		for _, x := range g.Nodes() {
			if live[x.ID()] && x.Op() == op.AllReduceOp {
				p.Sums++
				bytes += x.Type().Bytes()
			}
		}
		return float64(bytes), nil
	})
	if err != nil {
		return p, err
	}
	if len(m.params) > 0 {
		p.First, _, _ = strings.Cut(m.params[0].Name, "/")
	}
	p.Evaluate, err = linear(func(n int) (float64, error) {
		g, _, err := m.graph(programKey{mode: evaluate, batch: n, split: true})
		if err != nil {
			return 0, err
		}
		return m.holds(func(o backend.Options) (backend.Executable, error) { return m.backend.Compile(g, m.state, o) }, false)
	})
	return p, err
}

// alone reports a model that is shared out.
func (m *Model) alone() error {
	if m.parallel.ranks() > 1 || m.pipe != nil {
		return errors.New("train: the model is shared out already: outline one that is compiled for this process alone")
	}
	return nil
}

// timing is the time of each layer in forward and backward pass of so many examples.
type timing struct {
	batch int
	of    map[string]float64
}

// timed are the times of steps that have run; if none has, predicted ones.
func (m *Model) timed(batches []int) (out []timing, err error) {
	for _, b := range batches {
		of := map[string]float64{}
		for _, n := range m.NodeCosts(b, false) {
			if n.Phase != graph.Update.String() {
				layer, _, _ := strings.Cut(n.Layer, "/")
				of[layer] += n.Seconds
			}
		}
		if len(of) > 0 {
			out = append(out, timing{b, of})
		}
	}
	if len(out) == 0 {
		of, err := m.priced()
		if err != nil {
			return nil, err
		}
		out = append(out, timing{priceBatch, of})
	}
	return out, nil
}

// values counts the bytes of variables of which a part has a share.
func (m *Model) values(p *plan.Part, share func(name string) float64) {
	for _, v := range m.declared {
		bytes := float64(v.Type.Bytes()) * share(v.Name)
		if strings.HasPrefix(v.Name, optimizerPrefix) || strings.HasPrefix(v.Name, accumulatedPrefix) {
			p.State += bytes
			continue
		}
		p.Parameters += bytes
		if v.Name != seedVar {
			p.Gradients += bytes // of parameters, and moving averages
		}
	}
}

// linear finds how bytes grow with the examples.
func linear(of func(n int) (float64, error)) (plan.Bytes, error) {
	const few, more = 2, 6
	a, err := of(few)
	if err != nil {
		return plan.Bytes{}, err
	}
	b, err := of(more)
	if err != nil {
		return plan.Bytes{}, err
	}
	each := max(0, (b-a)/(more-few))
	return plan.Bytes{Fixed: max(0, a-few*each), Each: each}, nil
}

// holds is the memory of a program that hands its results on at once, as those of training do, or has them as tensors.
func (m *Model) holds(compile func(o backend.Options) (backend.Executable, error), handsOn bool) (float64, error) {
	o := backend.Options{Threads: m.threads}
	if handsOn {
		o.Take, o.Ready = func(int, []byte) bool { return true }, func(int) {}
	}
	e, err := compile(o)
	if err != nil {
		return 0, err
	}
	return float64(e.Memory()), nil
}
