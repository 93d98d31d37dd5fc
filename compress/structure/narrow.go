package structure

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// Narrow takes units away: widths says for axes, by name, how many of their units stay, those of the greatest scores (one score for each unit; nil: Magnitude). The result is a smaller dense model with the weights that
// stay, compiled like m, with more options behind. Names of what cannot lose units are an error that says why.
func Narrow(m *train.Model, widths map[string]int, scores map[string][]float64, more ...train.Option) (*train.Model, error) {
	d, err := Analyze(m)
	if err != nil {
		return nil, err
	}
	values, err := parameters(m)
	if err != nil {
		return nil, err
	}
	gone := map[bound]map[int]bool{} // indices of parameters' axes
	for _, name := range sortedKeys(widths) {
		a := d.Axis(name)
		if a == nil {
			return nil, d.why(name)
		}
		n := widths[name]
		if n < 1 || n > a.Units {
			return nil, fmt.Errorf("structure: %s has %d units, of which %d cannot stay", name, a.Units, n)
		}
		by := scores[name]
		if by == nil {
			if by, err = a.magnitude(values); err != nil {
				return nil, err
			}
		}
		if len(by) != a.Units {
			return nil, fmt.Errorf("structure: %s has %d units and %d scores", name, a.Units, len(by))
		}
		order := make([]int, a.Units)
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(by[j], by[i]) })
		dead := make([]bool, a.Units)
		for _, u := range order[n:] {
			dead[u] = true
		}
		for _, p := range a.places {
			k := bound{p.param, p.axis}
			if gone[k] == nil {
				gone[k] = map[int]bool{}
			}
			for i, u := range p.unit {
				if u >= 0 && dead[u] {
					gone[k][i] = true
				}
			}
		}
	}
	for k, g := range gone {
		var stay []int
		for i := range values[k.param].Shape()[k.axis] {
			if !g[i] {
				stay = append(stay, i)
			}
		}
		values[k.param] = pick(values[k.param], k.axis, stay)
	}
	for _, e := range d.net.Layers {
		if err := e.resize(values); err != nil {
			return nil, err
		}
	}
	if err := d.net.reshapes(); err != nil {
		return nil, err
	}
	net, err := d.net.model()
	if err != nil {
		return nil, err
	}
	return carry(m, net, values, more)
}

// Remove takes blocks out whole, by name.
func Remove(m *train.Model, blocks []string, more ...train.Option) (*train.Model, error) {
	return edited(m, more, func(n *network) error {
		for _, name := range blocks {
			var names []string
			for _, b := range n.blocks() {
				names = append(names, b.Name)
			}
			if err := oneOf(name, names, "cannot be taken out whole: what it gives must have the shape of what it takes, and it must be applied once"); err != nil {
				return err
			}
			n.remove(name)
		}
		return nil
	})
}

// edited is a model of m's network after edit, with m's values of the parameters that are left.
func edited(m *train.Model, more []train.Option, edit func(n *network) error) (*train.Model, error) {
	n, err := networkOf(m)
	if err != nil {
		return nil, err
	}
	values, err := parameters(m)
	if err != nil {
		return nil, err
	}
	if err := edit(n); err != nil {
		return nil, err
	}
	net, err := n.model()
	if err != nil {
		return nil, err
	}
	return carry(m, net, values, more)
}

// oneOf says why nothing can be done with a layer that is not among those named.
func oneOf(name string, names []string, why string) error {
	if slices.Contains(names, name) {
		return nil
	}
	return fmt.Errorf("structure: %q %s; those that can: %s", name, why, cmp.Or(strings.Join(names, ", "), "none"))
}

// parameters are the values of all parameters by name.
func parameters(m *train.Model) (map[string]*tensor.Tensor, error) {
	values := map[string]*tensor.Tensor{}
	for _, p := range m.Params() {
		v, err := m.State().Get(p.Name)
		if err != nil {
			return nil, fmt.Errorf("structure: %w", err)
		}
		values[p.Name] = v
	}
	return values, nil
}

// carry compiles a network with the values of parameters.
func carry(m *train.Model, net *nn.Model, values map[string]*tensor.Tensor, more []train.Option) (*train.Model, error) {
	out, err := m.With(net, more...)
	if err != nil {
		return nil, err
	}
	for _, p := range out.Params() {
		v := values[p.Name]
		if v == nil { // of a wrapper among the options
			continue
		}
		if !graph.TypeOf(v).Equal(p.Type) {
			return nil, fmt.Errorf("structure: %s would be %v and is %v: a bug of package structure", p.Name, p.Type, graph.TypeOf(v))
		}
		if err := out.State().Set(p.Name, v); err != nil {
			return nil, fmt.Errorf("structure: %w", err)
		}
	}
	return out, nil
}

// resize makes the configuration say what the parameters are.
func (e *entry) resize(values map[string]*tensor.Tensor) error {
	dim := func(param string, axis int) int {
		v := values[e.Name+"/"+param]
		if v == nil {
			return 0
		}
		s := v.Shape()
		return s[(axis+len(s))%len(s)]
	}
	changed := map[string]int{}
	switch e.Class {
	case "Dense":
		changed["units"] = dim("kernel", -1)
	case "Conv1D", "Conv2D":
		changed["filters"] = dim("kernel", -1)
	case "Conv2DTranspose":
		changed["filters"] = dim("kernel", 2)
	case "PatchEmbedding":
		changed["output_dim"] = dim("kernel", -1)
	case "Embedding":
		changed["output_dim"] = dim("embeddings", 1)
	case "SimpleRNN", "LSTM", "GRU":
		changed["units"] = dim("recurrent_kernel", 0)
	case "MultiHeadAttention":
		changed["num_heads"] = dim("query/kernel", 1)
		if e.set.KVHeads > 0 {
			changed["num_key_value_heads"] = dim("key/kernel", 1)
		}
	case "TransformerBlock":
		changed["num_heads"], changed["key_dim"] = dim("attention/query/kernel", 1), dim("attention/query/kernel", 2)
		if e.set.KVHeads > 0 {
			changed["num_key_value_heads"] = dim("attention/key/kernel", 1)
		}
		changed["intermediate_dim"] = dim("feed_forward/hidden/kernel", 1)
	}
	for field, n := range changed {
		if n > 0 {
			if err := e.configure(field, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// configure gives a field of the configuration another value.
func (e *entry) configure(field string, v any) error {
	var c map[string]json.RawMessage
	err := json.Unmarshal(e.Config, &c)
	if err == nil {
		if c[field], err = json.Marshal(v); err == nil {
			e.Config, err = json.Marshal(c)
		}
	}
	if err != nil {
		return fmt.Errorf("structure: layer %s: %w", e.Name, err)
	}
	return nil
}

// reshapes gives layers that name the shape of their result the one that it has now: only the last dimension can have changed.
func (n *network) reshapes() error {
	for _, e := range n.Layers {
		if e.Class != "Reshape" || len(e.set.Target) == 0 || slices.Contains(e.set.Target, -1) {
			continue
		}
		// All but the last are as they were, and -1 stands for the last, whatever it has become.
		if err := e.configure("target_shape", append(slices.Clone(e.set.Target[:len(e.set.Target)-1]), -1)); err != nil {
			return err
		}
	}
	return nil
}

// pick takes the given places of an axis.
func pick(t *tensor.Tensor, axis int, places []int) *tensor.Tensor {
	s := t.Shape().Clone()
	inner, n := s[axis+1:].Size(), s[axis]
	s[axis] = len(places)
	out := tensor.New(t.DType(), s...)
	src, dst := t.F32(), out.F32()
	for o := range shape.Shape(s[:axis]).Size() {
		for i, p := range places {
			copy(dst[(o*len(places)+i)*inner:][:inner], src[(o*n+p)*inner:][:inner])
		}
	}
	return out
}

// repeats are classes of which a layer that gives the shape it takes can be left out.
var repeats = []string{"TransformerBlock", "MultiHeadAttention", "Dense", "Conv1D", "Conv2D", "SimpleRNN", "LSTM", "GRU"}

// blocks finds what can be taken out whole.
func (n *network) blocks() []Block {
	times := map[string]int{}
	for _, e := range n.Layers {
		times[e.Name]++
	}
	var out []Block
	for _, e := range n.Layers {
		if times[e.Name] > 1 || n.instead(e) == nil {
			continue
		}
		out = append(out, Block{Name: e.Name, Layers: n.without(e)})
	}
	return out
}

// instead is the value that can stand for an entry's result, nil if there is none.
func (n *network) instead(e *entry) *string {
	if slices.Contains(n.Outputs, e.Value) {
		return nil
	}
	if e.Class == "Add" && len(e.Inputs) == 2 {
		for i, v := range e.Inputs {
			if other := e.Inputs[1-i]; other != v && n.depends(other, v) && slices.Equal(e.in[i].Shape, e.in[1-i].Shape) {
				return &e.Inputs[i]
			}
		}
		return nil
	}
	if !slices.Contains(repeats, e.Class) || len(e.in) == 0 || !slices.Equal(e.in[0].Shape[1:], e.out) || e.set.Activation == nn.Softmax || e.set.Activation == nn.LogSoftmax {
		return nil
	}
	return &e.Inputs[0]
}

// depends reports whether a value is made from another.
func (n *network) depends(value, from string) bool {
	if value == from {
		return true
	}
	e := n.maker(value)
	return e != nil && slices.ContainsFunc(e.Inputs, func(v string) bool { return n.depends(v, from) })
}

// without are the layers that go when an entry does.
func (n *network) without(e *entry) []string {
	c := *n
	c.Layers = nil
	for _, l := range n.Layers {
		d := *l
		d.Inputs = slices.Clone(l.Inputs)
		c.Layers = append(c.Layers, &d)
	}
	c.Outputs = slices.Clone(n.Outputs)
	c.remove(e.Name)
	var out []string
	for _, l := range n.Layers {
		if !slices.ContainsFunc(c.Layers, func(k *entry) bool { return k.Name == l.Name }) && !slices.Contains(out, l.Name) {
			out = append(out, l.Name)
		}
	}
	return out
}

// remove takes an entry out and with it what only it has used.
func (n *network) remove(name string) {
	i := slices.IndexFunc(n.Layers, func(e *entry) bool { return e.Name == name })
	e := n.Layers[i]
	n.bypass(e, *n.instead(e))
	for again := true; again && n.Class != "Sequential"; {
		again = false
		for i, u := range n.Layers {
			used := slices.Contains(n.Outputs, u.Value) || slices.ContainsFunc(n.Layers, func(k *entry) bool { return slices.Contains(k.Inputs, u.Value) })
			if !used {
				n.Layers = slices.Delete(n.Layers, i, i+1)
				again = true
				break
			}
		}
	}
}

// bypass takes an entry out; what used its result uses another value.
func (n *network) bypass(e *entry, v string) {
	n.Layers = slices.DeleteFunc(slices.Clone(n.Layers), func(l *entry) bool { return l == e })
	for _, u := range n.Layers {
		for k := range u.Inputs {
			if u.Inputs[k] == e.Value {
				u.Inputs[k] = v
			}
		}
	}
}
