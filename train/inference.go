package train

import (
	"fmt"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/tensor"
)

// With compiles another network for the same data, with the same loss, metrics, backend and threads: what m becomes when its layers are replaced.
func (m *Model) With(net *nn.Model) (*Model, error) {
	opts := []Option{Threads(m.threads), Seed(m.seed), On(m.backend)}
	for _, k := range m.metrics {
		opts = append(opts, k)
	}
	return Compile(net, m.Spec, m.opt, m.loss, opts...)
}

// LayerInputs are the first operands of all layers, by name, for one batch: of a layer that is applied several times, those of the first.
func (m *Model) LayerInputs(x ...*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	var names []string
	g, err := graph.Build(func(g *graph.Graph) {
		seen := map[string]bool{}
		call := &nn.Call{G: g, Wrap: m.wrap(), Tap: func(l *nn.Layer, in []*graph.Node) {
			if !seen[l.Name()] && len(in) > 0 {
				seen[l.Name()] = true
				names = append(names, l.Name())
				g.Output("input of "+l.Name(), in[0])
			}
		}}
		var in []*graph.Node
		for i, t := range fieldTypes(m.Spec.Inputs, x[0].Shape()[0]) {
			in = append(in, g.Input(fmt.Sprintf("x%d", i), t))
		}
		m.Net.Call(call, in)
	})
	if err != nil {
		return nil, err
	}
	e, err := m.backend.Compile(g, m.state, backend.Options{Threads: m.threads})
	if err != nil {
		return nil, err
	}
	out := backend.NewOutputs(g)
	if err := e.Run(x, out); err != nil {
		return nil, err
	}
	by := map[string]*tensor.Tensor{}
	for i, n := range names {
		by[n] = out[i]
	}
	return by, nil
}
