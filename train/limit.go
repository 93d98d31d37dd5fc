package train

import (
	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/tensor"
)

// Norms of gradients that no rank has whole: of pipeline stages, and of layers that are split. Ranks tell each other the sums of the squares of what they have, and find the factors from all.

// limited updates this rank's parameters from the sums in the first slot, with norms limited together with the ranks of row. Each rank of the row brings the squares of the parameters, or parts of
// them, that counts names: together they are those of the whole model.
func (g *group) limited(row *dist.Comm, rate float64, counts func(param string) bool) error {
	if g.update == nil {
		var err error
		if g.squares, err = g.limit(applySquares); err == nil {
			g.update, err = g.limit(apply)
		}
		if err != nil {
			return err
		}
	}
	if err := g.squares.exec.Run(g.squares.in, g.squares.out); err != nil {
		return err
	}
	// Sums of squares of all trained parameters, in their order.
	at := map[string]int{}
	for _, p := range g.m.params {
		if p.Trainable {
			at[p.Name] = len(at)
		}
	}
	mine, all := newVector(len(at)), newVector(len(at)*row.Size())
	names := g.learns()
	for i, p := range names {
		if counts(p.Name) {
			mine.all[at[p.Name]] = g.squares.out[i].F32()[0]
		}
	}
	if err := row.AllGather(mine.raw, all.raw); err != nil {
		return err
	}
	squares := make([]float64, len(at))
	for i, s := range all.all {
		squares[i%len(at)] += float64(s)
	}
	factors := g.m.opt.Factors(squares)
	in := g.update.in[len(g.flat.members):]
	in[0].F32()[0] = float32(rate)
	for i, p := range names {
		in[1+i].F32()[0] = factors[at[p.Name]]
	}
	return g.update.exec.Run(g.update.in, nil)
}

// learns are the parameters of this rank that have a gradient.
func (g *group) learns() (out []nn.Param) {
	for _, p := range g.m.own() {
		if _, ok := g.flat.byName[gradPrefix+p.Name]; ok && p.Trainable {
			out = append(out, p)
		}
	}
	return out
}

// limit compiles what an update from gradients that are limited together takes: their squares, or the update with a factor for each.
func (g *group) limit(k mode) (*program, error) {
	m, f := g.m, &g.flat
	limited, err := graph.Build(func(to *graph.Graph) {
		in := map[string]*graph.Node{}
		for _, v := range f.members {
			in[v.name] = to.Input(v.name, v.t)
		}
		params := g.learns()
		grads := make([]*graph.Node, len(params))
		for i, p := range params {
			grads[i] = in[gradPrefix+p.Name]
		}
		if k == applySquares {
			m.squares(to, params, grads)
			return
		}
		rate := to.Input("rate", graph.T(dtype.F32))
		var factors, ws []*graph.Node
		for _, p := range params {
			factors = append(factors, to.Input("factor/"+p.Name, graph.T(dtype.F32)))
			ws = append(ws, to.Variable(p.Name, p.Type))
		}
		for i, p := range params {
			params[i].RateFactor, params[i].Since = m.rateFactor(p.Name), m.since(p.Name)
		}
		m.collect(to, params, grads, false)
		for i, w := range m.opt.BuildParts(to, params, ws, grads, factors, rate) {
			to.Update(ws[i], w)
		}
		m.moveOn(to, f, func(i int) *graph.Node { return in[f.members[i].name] }, g.Shards)
	})
	if err != nil {
		return nil, err
	}
	e, err := m.backend.Compile(limited, m.state, backend.Options{Threads: m.threads})
	if err != nil {
		return nil, err
	}
	p := &program{key: programKey{mode: k, batch: g.Shards, stage: g.stage}, g: limited, exec: e, in: append([]*tensor.Tensor{}, g.total.views[:len(f.members)]...), out: backend.NewOutputs(limited)}
	for range len(limited.Inputs()) - len(f.members) {
		p.in = append(p.in, tensor.New(dtype.F32))
	}
	if k == apply {
		p.out = nil
	}
	m.programs[p.key] = p
	return p, nil
}
