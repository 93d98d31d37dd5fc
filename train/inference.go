package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// With compiles another network for the same data, with the same optimizer, loss, metrics, backend and threads: what m becomes when its layers are replaced. More options go behind these.
func (m *Model) With(net *nn.Model, more ...Option) (*Model, error) {
	opts := []Option{Threads(m.threads), Seed(m.seed), On(m.backend), DTypePolicy(m.precision)}
	if m.fixed {
		opts = append(opts, Fixed())
	}
	for _, k := range m.metrics {
		opts = append(opts, k)
	}
	return Compile(net, m.Spec, m.opt, m.loss, append(opts, more...)...)
}

// LayerInputs are the first operands of all layers, by name, for one batch: of a layer that is applied several times, those of the first.
func (m *Model) LayerInputs(x ...*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	var names []string
	out, err := m.once(x, func(g *graph.Graph, call *nn.Call) {
		seen := map[string]bool{}
		call.Policy = m.precision
		call.Tap = func(l *nn.Layer, in []*graph.Node) {
			if !seen[l.Name()] && len(in) > 0 {
				seen[l.Name()] = true
				names = append(names, l.Name())
				g.Output("input of "+l.Name(), in[0])
			}
		}
	})
	if err != nil {
		return nil, err
	}
	by := map[string]*tensor.Tensor{}
	for i, n := range names {
		by[n] = out[i]
	}
	return by, nil
}

// AttentionMap is what one attention of a model looked at.
type AttentionMap struct {
	Part string         // the layer, and what of it attends: "decoder_1/cross_attention"
	P    *tensor.Tensor // probabilities [batch heads time keys]
}

// AttentionMaps are the probabilities that every attention of the model gives its keys for one batch, in the order of the layers.
func (m *Model) AttentionMaps(x ...*tensor.Tensor) ([]AttentionMap, error) {
	var out []AttentionMap
	p, err := m.once(x, func(g *graph.Graph, call *nn.Call) {
		call.Attend = func(part string, p *graph.Node) {
			out = append(out, AttentionMap{Part: part})
			g.Output(fmt.Sprintf("%d %s", len(out), part), p)
		}
	})
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].P = p[i]
	}
	return out, nil
}

// ProductDepths are the depths K of the products [M, K]·[K, N] with matrices of weights, by the names of their parameters.
func (m *Model) ProductDepths() (map[string]int, error) {
	out := map[string]int{}
	_, err := graph.Build(func(g *graph.Graph) {
		m.forward(g, 1, func(_ *graph.Graph, call *nn.Call) {
			call.Products = func(param string, x *graph.Node) { out[param] = x.Shape()[1] }
		})
	})
	return out, err
}

// once runs a graph of the model's own on one batch and gives its outputs: look adds them while the layers are called.
func (m *Model) once(x []*tensor.Tensor, look func(g *graph.Graph, call *nn.Call)) ([]*tensor.Tensor, error) {
	if err := m.apart(); err != nil {
		return nil, err
	}
	g, err := graph.Build(func(g *graph.Graph) { m.forward(g, x[0].Shape()[0], look) })
	if err != nil {
		return nil, err
	}
	e, err := m.backend.Compile(g, m.state, backend.Options{Threads: m.threads})
	if err != nil {
		return nil, err
	}
	out := backend.NewOutputs(g)
	return out, e.Run(x, out)
}

// forward adds the model's nodes, as it predicts in f32, for a batch of n; look may change how the layers are called.
func (m *Model) forward(g *graph.Graph, n int, look func(g *graph.Graph, call *nn.Call)) {
	call := &nn.Call{G: g, Wrap: m.wrap(), Change: m.change(), Operand: m.operand()}
	look(g, call)
	var in []*graph.Node
	for i, t := range fieldTypes(m.Spec.Inputs, n) {
		in = append(in, g.Input(fmt.Sprintf("x%d", i), t))
	}
	m.Net.Call(call, in)
}

// Moments are what one batch says about the operand x [Rows, K] of products with a matrix of weights.
type Moments struct {
	Rows   int
	Shared string         // the first parameter whose product has this operand
	Second *tensor.Tensor // Σ xᵀ·x [K, K]
	Top    *tensor.Tensor // greatest magnitudes [K]
}

// ProductMoments looks at the operands of all products with matrices of weights for one batch, by the names of the parameters.
func (m *Model) ProductMoments(x ...*tensor.Tensor) (map[string]Moments, error) {
	out := map[string]Moments{}
	var order []string
	values, err := m.once(x, func(g *graph.Graph, call *nn.Call) {
		by := map[*graph.Node]string{}
		call.Products = func(param string, v *graph.Node) {
			if out[param].Shared != "" { // applied again
				return
			}
			root := v
			for root.Op() == op.ReshapeOp {
				root = root.Input(0)
			}
			if by[root] == "" {
				by[root] = param
				order = append(order, param)
				g.Output("second "+param, op.Dot(v, v, op.DotAttrs{ContractA: []int{0}, ContractB: []int{0}}))
				g.Output("top "+param, op.ReduceMax(op.Abs(v), 0))
			}
			out[param] = Moments{Rows: v.Shape()[0], Shared: by[root]}
		}
	})
	if err != nil {
		return nil, err
	}
	for i, param := range order {
		s := out[param]
		s.Second, s.Top = values[2*i], values[2*i+1]
		out[param] = s
	}
	for param, s := range out {
		s.Second, s.Top = out[s.Shared].Second, out[s.Shared].Top
		out[param] = s
	}
	return out, nil
}

// Operands runs the model on one batch and gives f each operand of each application of a layer, applications in the order in which a saved model lists them; f must not keep it.
func (m *Model) Operands(f func(application, operand int, x *tensor.Tensor), x ...*tensor.Tensor) error {
	type place struct{ application, operand int }
	var order []place
	out, err := m.once(x, func(g *graph.Graph, call *nn.Call) {
		n := 0
		call.Tap = func(l *nn.Layer, in []*graph.Node) {
			for i, v := range in {
				order = append(order, place{n, i})
				g.Output(fmt.Sprintf("operand %d of %d", i, n), v)
			}
			n++
		}
	})
	if err != nil {
		return err
	}
	for i, p := range order {
		f(p.application, p.operand, out[i])
	}
	return nil
}

// gradientPrefix begins the names of outputs that are gradients of parameters.
const gradientPrefix = "gradient of "

// Gradients are those of the mean loss of one batch by all trainable parameters, by name, with the model as it predicts: no dropout, normalisations by moving averages.
func (m *Model) Gradients(x, y []*tensor.Tensor) (map[string]*tensor.Tensor, error) {
	k := programKey{mode: gradients, batch: x[0].Shape()[0], shapes: m.shapes(x, y)}
	p, err := m.programOf(k)
	if err != nil {
		return nil, err
	}
	if err := p.run(x, y, 0); err != nil {
		return nil, err
	}
	out := map[string]*tensor.Tensor{}
	for i, o := range p.g.Outputs() {
		if param, ok := strings.CutPrefix(o.Name, gradientPrefix); ok {
			out[param] = p.out[i]
		}
	}
	return out, nil
}

// Formats are those of the matrices of weights that are not kept as dense floats, by the names of their parameters.
func (m *Model) Formats() (map[string]nn.Format, error) {
	j, err := json.Marshal(m.Net)
	if err != nil {
		return nil, err
	}
	var net struct {
		Layers []struct {
			Name    string
			Formats map[string]nn.Format
		}
	}
	if err := json.Unmarshal(j, &net); err != nil {
		return nil, err
	}
	out := map[string]nn.Format{}
	for _, l := range net.Layers {
		for name, f := range l.Formats {
			out[l.Name+"/"+name] = f
		}
	}
	return out, nil
}

// Divided are the two parts of a model of which the first layers are frozen: the body, for prediction alone, and the head, which is trained.
type Divided struct {
	Body, Head *Model
	Kept       []int // which of the model's inputs the head takes beside the body's result
}

// Divide cuts the model behind its frozen layers; see nn.Model.Divide. Both parts have the model's weights, the head also its optimizer, loss, metrics, rates and what else it was compiled with.
// Join brings the head's weights back.
func (m *Model) Divide() (*Divided, error) {
	switch {
	case m.pipe != nil:
		return nil, errStages
	case m.teacher != nil:
		return nil, errors.New("train: a model that learns from a teacher cannot be divided: the teacher looks at the inputs themselves")
	case m.Net.Stateful():
		return nil, errors.New("train: a stateful model cannot be divided: its layers look at examples in their order")
	case len(m.wraps) > 0:
		return nil, errors.New("train: a model with values in place of parameters (masks, low-rank changes) cannot be divided")
	}
	var in []graph.Type
	for _, f := range m.Spec.Inputs {
		in = append(in, graph.Type{DType: f.DType, Shape: f.Shape})
	}
	body, head, kept, err := m.Net.Divide(in, m.Frozen)
	if err != nil {
		return nil, err
	}
	d := &Divided{Kept: kept}
	features := m.Spec
	features.Targets = []data.Field{{Name: "features", DType: dtype.F32, Shape: shape.Of()}}
	features.Classes, features.ClassNames, features.Norm = 0, nil, nil
	if d.Body, err = Compile(body, features, m.opt, predictionOnly, Fixed(), Threads(m.threads), On(m.backend), DTypePolicy(m.precision)); err != nil {
		return nil, err
	}
	given, err := d.Body.Outputs()
	if err != nil {
		return nil, err
	}
	if given.DType != dtype.F32 {
		return nil, fmt.Errorf("train: the frozen layers give %v; features are f32", graph.Type{DType: given.DType, Shape: given.Shape})
	}
	given.Name = "features"
	d.Body.Spec.Targets[0] = given
	spec := m.Spec
	spec.Norm = nil
	spec.Inputs = []data.Field{given}
	for _, i := range kept {
		spec.Inputs = append(spec.Inputs, m.Spec.Inputs[i])
	}
	var names []string
	for _, p := range m.params {
		names = append(names, p.Name)
	}
	opts := []Option{Threads(m.threads), Seed(m.seed), On(m.backend), DTypePolicy(m.precision), Accumulate(m.accumulate), Across(m.parallel)}
	for _, k := range m.metrics {
		opts = append(opts, k)
	}
	names = slices.DeleteFunc(names, func(n string) bool {
		return !slices.ContainsFunc(head.Layers(), func(l *nn.Layer) bool { return Matches(l.Name(), n) })
	})
	opts = append(opts, option(func(h *Model) {
		h.frozen = m.rulesFor(names)
		for _, r := range m.rates {
			if slices.ContainsFunc(names, func(n string) bool { return Matches(r.pattern, n) }) {
				h.rates = append(h.rates, r)
			}
		}
	}))
	if d.Head, err = Compile(head, spec, m.opt, m.loss, opts...); err != nil {
		return nil, err
	}
	for _, part := range []*Model{d.Body, d.Head} {
		if err := part.copyFrom(m, part.params); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// predictionOnly is the loss of a model that has none.
var predictionOnly = Loss{Name: "none", each: func(pred, _ *graph.Node) *graph.Node { return op.SumAll(pred) }, target: func(graph.Type, graph.Type) string { return "" }}

// copyParams copies the values of params from one state to another, where prefix stands before their names.
func copyParams(to, from backend.State, params []nn.Param, prefix string) error {
	for _, p := range params {
		v, err := from.Get(p.Name)
		if err != nil {
			return err
		}
		if err := to.Set(prefix+p.Name, v); err != nil {
			return err
		}
	}
	return nil
}

// copyFrom gives parameters the values that they have in another model. Where weights are in parts all ranks must call it.
func (m *Model) copyFrom(o *Model, params []nn.Param) error {
	for _, p := range params {
		v, err := o.wholeOf(p.Name)
		if err == nil {
			err = m.put(p.Name, v)
		}
		if err != nil {
			return fmt.Errorf("train: %w", err)
		}
	}
	return nil
}

// Join gives the model the weights of the head of its division. Where layers are split over ranks (Parallel.Tensor) all ranks must call it.
func (m *Model) Join(d *Divided) error { return m.copyFrom(d.Head, d.Head.params) }

// Outputs is what the model gives for an example.
func (m *Model) Outputs() (data.Field, error) {
	g, _, err := m.graph(programKey{mode: predict, batch: 1})
	if err != nil {
		return data.Field{}, err
	}
	t := g.Outputs()[0].Node.Type()
	return data.Field{Name: "prediction", Shape: t.Shape[1:].Clone(), DType: t.DType}, nil
}

// OneShape reports whether predictions have one shape whatever the lengths of the texts that are read: of other models examples of several sizes are all brought to the greatest.
func (m *Model) OneShape() bool {
	own, err := m.Outputs()
	if err != nil {
		return false
	}
	shorter := m.Spec
	shorter.Inputs = slices.Clone(m.Spec.Inputs)
	for i, f := range shorter.Inputs {
		if len(f.Shape) > 0 && f.Shape[0] > 1 && f.DType.IsInt() {
			shorter.Inputs[i].Shape = f.Shape.Clone()
			shorter.Inputs[i].Shape[0]--
		}
	}
	if m.shaped == nil {
		m.shaped = map[string]data.Spec{}
	}
	const name = "shorter"
	m.shaped[name] = shorter
	g, _, err := m.graph(programKey{mode: predict, batch: 1, shapes: name})
	return err == nil && g.Outputs()[0].Node.Shape()[1:].Equal(own.Shape)
}
