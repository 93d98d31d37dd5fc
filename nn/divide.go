package nn

import (
	"fmt"
	"slices"

	"github.com/jouleml/joule/graph"
)

// Divide cuts a model in two: the body, all that depends on the inputs through fixed layers alone, and the head, the rest. A layer is fixed if it has parameters, all of which fixed reports, or has none and draws nothing at
// random in training; input are the types of the data's inputs without the batch. The head's first input is what the body gives; inputs of the model that the head needs too follow, in their order, and kept are
// their numbers. Layers are shared with m. A model whose body would give several values, or that has none, cannot be cut.
func (m *Model) Divide(input []graph.Type, fixed func(param string) bool) (body, head *Model, kept []int, err error) {
	trained, has := map[*Layer]bool{}, map[*Layer]bool{}
	types := map[*Layer]graph.Type{} // of the first application
	call := &Call{}
	_, err = graph.Build(func(g *graph.Graph) {
		call.G = g
		before := 0
		call.seen = func(l *Layer, y *graph.Node) {
			for _, p := range call.Params[before:] {
				has[l] = true
				trained[l] = trained[l] || !fixed(p.Name)
			}
			before = len(call.Params)
			if _, again := types[l]; !again {
				types[l] = y.Type()
			}
		}
		in, err := m.Inputs(1, input)
		if err != nil {
			g.Fail("model", nil, "%v", err)
		}
		var x []*graph.Node
		for i, t := range in {
			x = append(x, g.Input(fmt.Sprint("x", i), t))
		}
		m.Call(call, x)
	})
	if err != nil {
		return nil, nil, nil, err
	}
	inputs, outputs, order := m.inputs, m.outputs, m.order
	if m.chain != nil {
		x := InputOf("input", input[0].DType, input[0].Shape...)
		y, err := m.On(x)
		if err != nil {
			return nil, nil, nil, err
		}
		f, err := Functional([]*Value{x}, y)
		if err != nil {
			return nil, nil, nil, err
		}
		inputs, outputs, order = f.inputs, f.outputs, f.order
	}
	uses := map[*Layer]int{}
	for _, v := range order {
		if v.layer != nil {
			uses[v.layer]++
		}
	}
	still := map[*Value]bool{} // depends on the inputs through fixed layers alone
	found := false
	for _, v := range order {
		if v.layer == nil {
			still[v] = true
			continue
		}
		_, random := v.layer.kind.(*dropout)
		ok := !trained[v.layer] && !random && uses[v.layer] == 1
		for _, f := range v.from {
			ok = ok && still[f]
		}
		still[v] = ok
		found = found || ok && has[v.layer]
	}
	if !found {
		return nil, nil, nil, fmt.Errorf("nn: model %q has no frozen layers that everything else comes after", m.Name)
	}
	var border []*Value // what the head takes of the body
	at := map[*Value]*Value{}
	need := func(v *Value) {
		if v.layer != nil && still[v] && at[v] == nil {
			t := types[v.layer]
			at[v] = InputOf("features", t.DType, t.Shape[1:]...)
			border = append(border, v)
		}
	}
	for _, v := range order {
		if still[v] {
			continue
		}
		for _, f := range v.from {
			need(f)
		}
	}
	for _, v := range outputs {
		need(v)
	}
	if len(border) != 1 {
		return nil, nil, nil, fmt.Errorf("nn: the frozen layers of model %q hand on %d values; features are of one value", m.Name, len(border))
	}
	in := []*Value{at[border[0]]}
	for i, v := range inputs {
		if at[v] == nil && slices.ContainsFunc(order, func(o *Value) bool { return !still[o] && slices.Contains(o.from, v) }) {
			at[v] = InputOf(v.name, v.dt, v.shape...)
			in, kept = append(in, at[v]), append(kept, i)
		}
	}
	for _, v := range order {
		if still[v] {
			continue
		}
		from := make([]*Value, len(v.from))
		for i, f := range v.from {
			from[i] = at[f]
		}
		at[v] = v.layer.On(from...)
	}
	out := make([]*Value, len(outputs))
	for i, v := range outputs {
		if out[i] = at[v]; out[i] == in[0] {
			return nil, nil, nil, fmt.Errorf("nn: all of model %q is frozen: nothing is left to train", m.Name)
		}
	}
	if body, err = Functional(inputs, border); err != nil {
		return nil, nil, nil, err
	}
	if head, err = Functional(in, out); err != nil {
		return nil, nil, nil, err
	}
	body.Name, head.Name = m.Name, m.Name
	return body, head, kept, nil
}
