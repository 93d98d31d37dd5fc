package nn

import (
	"fmt"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// On applies all of the model to other values, one for each of its inputs, and gives its outputs: its layers, with their names and weights, become part of another model.
func (m *Model) On(x ...*Value) ([]*Value, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	for i, v := range x {
		if v == nil {
			return nil, fmt.Errorf("nn: operand %d of model %q is nil", i, m.Name)
		}
	}
	if m.chain != nil {
		if len(x) != 1 {
			return nil, fmt.Errorf("nn: a Sequential model takes one input, %d are given", len(x))
		}
		y := x[0]
		for _, l := range m.chain {
			y = l.On(y)
		}
		return []*Value{y}, nil
	}
	if len(x) != len(m.inputs) {
		return nil, fmt.Errorf("nn: model %q takes %d inputs, %d are given", m.Name, len(m.inputs), len(x))
	}
	at := map[*Value]*Value{}
	for i, v := range m.inputs {
		at[v] = x[i]
	}
	for _, v := range m.order {
		if v.layer == nil {
			continue
		}
		from := make([]*Value, len(v.from))
		for i, f := range v.from {
			from[i] = at[f]
		}
		at[v] = v.layer.On(from...)
	}
	out := make([]*Value, len(m.outputs))
	for i, v := range m.outputs {
		out[i] = at[v]
	}
	return out, nil
}

// Until is the part of the model that ends in the last application of the named layer: a trained model without its head. It shares layers with m.
func (m *Model) Until(layer string) (*Model, error) {
	if m.chain != nil {
		for i := len(m.chain) - 1; i >= 0; i-- {
			if m.chain[i].name == layer {
				out := Sequential(m.chain[:i+1]...)
				out.Name = m.Name
				return out, nil
			}
		}
		return nil, m.noLayer(layer)
	}
	for i := len(m.order) - 1; i >= 0; i-- {
		v := m.order[i]
		if v.layer == nil || v.layer.name != layer {
			continue
		}
		out, err := Functional(m.inputs, []*Value{v})
		if err != nil {
			return nil, err
		}
		out.Name = m.Name
		return out, nil
	}
	return nil, m.noLayer(layer)
}

func (m *Model) noLayer(layer string) error {
	var names []string
	for _, l := range m.layers {
		names = append(names, l.name)
	}
	return fmt.Errorf("nn: model %q: %w", m.Name, unknown("layer", layer, names))
}

// InputNames are the names of the model's inputs, as a saved model has them; nil of a Sequential model.
func (m *Model) InputNames() []string {
	var out []string
	for i, v := range m.inputs {
		name := v.name
		if name == "" {
			name = fmt.Sprintf("input_%d", i)
		}
		out = append(out, name)
	}
	return out
}

func init() {
	classes["FirstPosition"] = func() kind { return &firstPosition{} }
	classes["UnitNormalization"] = func() kind { return &unitNorm{} }
}

type firstPosition struct{}

// FirstPosition takes the vector of the first position of a sequence [time, width]: of a BERT, that of [CLS], which stands for the whole text (arXiv:1810.04805).
func FirstPosition() *Layer { return layer("FirstPosition", &firstPosition{}, nil) }

func (*firstPosition) check() error { return nil }

func (*firstPosition) call(c *Call, x []*graph.Node) *graph.Node {
	in := sequence(c, x)
	s := in.Shape()
	if s[1] == 0 {
		c.Fail("takes at least one position, not %v", s)
	}
	return op.Reshape(op.SliceAxis(in, 1, 0, 1), s[0], s[2])
}

type unitNorm struct{}

// UnitNormalization divides the features of each position by the root of the sum of their squares (at least 1e-12), so that products of such vectors are cosines.
func UnitNormalization() *Layer { return layer("UnitNormalization", &unitNorm{}, nil) }

func (*unitNorm) check() error { return nil }

func (*unitNorm) call(c *Call, x []*graph.Node) *graph.Node {
	in, _ := (&norm{}).operand(c, x)
	s := in.Shape()
	last := len(s) - 1
	sum := op.Sum(op.Mul(in, in), last)
	factor := op.Rsqrt(op.Max(sum, op.Like(sum, 1e-24)))
	dims := s.Clone()
	dims[last] = 1
	return op.Mul(in, op.Reshape(factor, dims...))
}
