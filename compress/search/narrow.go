package search

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// link is a product of a chain of layers whose outputs (units, filters) can be taken away, with the next product, which loses as many inputs.
type link struct {
	layer, next string
	outputs     int
	grown       int      // channels that depthwise convolutions between make of each
	between     []string // layers between the two: a kernel that does several at once books its cost to the last
}

// through are the classes of layers that treat each channel by itself, so that channels before them can go.
var through = []string{"ReLU", "LeakyReLU", "Activation", "Dropout", "MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D",
	"GlobalAveragePooling1D", "GlobalAveragePooling2D", "ZeroPadding2D", "UpSampling2D", "Flatten", "BatchNormalization", "DepthwiseConv2D"}

// config is what matters of a configuration.
type config struct {
	Groups     int           `json:"groups"`
	Multiplier int           `json:"depth_multiplier"`
	Activation nn.Activation `json:"activation"`
	Axis       int           `json:"axis"`
}

func configOf(l *nn.Layer) (c config, err error) {
	err = json.Unmarshal(l.Config(), &c)
	return c, err
}

func isProduct(l *nn.Layer, c config) bool {
	return slices.Contains([]string{"Dense", "Conv1D", "Conv2D"}, l.Class()) && c.Groups <= 1
}

// links finds the products of a Sequential model whose outputs can be taken away: those before another product, with nothing between that mixes channels. Of other models there are none.
func links(m *train.Model) ([]link, error) {
	var out []link
	chain := m.Net.Chain()
	seen := map[string]int{}
	for _, l := range chain {
		seen[l.Name()]++
	}
	var open *link
	for _, l := range chain {
		if open != nil {
			open.between = append(open.between, l.Name())
		}
		c, err := configOf(l)
		if err != nil {
			return nil, fmt.Errorf("search: layer %s: %w", l.Name(), err)
		}
		ok := seen[l.Name()] == 1 && c.Activation != nn.Softmax
		switch {
		case isProduct(l, c):
			if open != nil && seen[l.Name()] == 1 {
				open.next, open.between = l.Name(), open.between[:len(open.between)-1]
				out = append(out, *open)
			}
			open = nil
			if k, err := m.State().Get(l.Name() + "/kernel"); ok && err == nil {
				s := k.Shape()
				open = &link{layer: l.Name(), outputs: s[len(s)-1], grown: 1}
			}
		case !ok || !slices.Contains(through, l.Class()) || l.Class() == "BatchNormalization" && c.Axis != -1:
			open = nil
		case l.Class() == "DepthwiseConv2D" && open != nil:
			open.grown *= max(1, c.Multiplier)
		}
	}
	return out, nil
}

// importance is that of each output of a link: the norm of the weights that make it times that of the weights that take it (behind a flattening, all of its pixels').
func (k link) importance(m *train.Model) ([]float64, error) {
	w, err := m.State().Get(k.layer + "/kernel")
	if err != nil {
		return nil, err
	}
	next, err := m.State().Get(k.next + "/kernel")
	if err != nil {
		return nil, err
	}
	made, taken := make([]float64, k.outputs), make([]float64, k.outputs)
	for i, v := range w.F32() {
		made[i%k.outputs] += float64(v) * float64(v)
	}
	s := next.Shape()
	n := s[len(s)-1]
	for i, v := range next.F32() {
		taken[i/n%(k.outputs*k.grown)/k.grown] += float64(v) * float64(v)
	}
	for i := range made {
		made[i] = math.Sqrt(made[i] * taken[i])
	}
	return made, nil
}

// keep are the most important outputs of a link, in their order.
func (k link) keep(m *train.Model, n int) ([]int, error) {
	by, err := k.importance(m)
	if err != nil {
		return nil, err
	}
	order := make([]int, len(by))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case by[a] > by[b]:
			return -1
		case by[a] < by[b]:
			return 1
		}
		return 0
	})
	return slices.Sorted(slices.Values(order[:n])), nil
}

// Narrow takes outputs away from layers of a Sequential model: widths says how many of a layer's units or filters stay, the most important ones. What is behind them loses the inputs, and the result is a smaller model of
// ordinary layers. Names of layers that cannot lose outputs are an error.
func Narrow(m *train.Model, widths map[string]int, more ...train.Option) (*train.Model, error) {
	ls, err := links(m)
	if err != nil {
		return nil, err
	}
	kept := map[string][]int{}
	for name, n := range widths {
		i := slices.IndexFunc(ls, func(l link) bool { return l.layer == name })
		if i < 0 {
			return nil, fmt.Errorf("search: layer %q cannot lose outputs: it must be a Dense or convolution of a Sequential model with another one behind it, and nothing between that mixes channels", name)
		}
		if n < 1 || n > ls[i].outputs {
			return nil, fmt.Errorf("search: layer %q has %d outputs, of which %d cannot stay", name, ls[i].outputs, n)
		}
		if kept[name], err = ls[i].keep(m, n); err != nil {
			return nil, err
		}
	}
	values := map[string]*tensor.Tensor{}
	for _, p := range m.Params() {
		if values[p.Name], err = m.State().Get(p.Name); err != nil {
			return nil, err
		}
	}
	var layers []*nn.Layer
	var alive []int // channels of what flows, nil: all
	whole := 0      // how many they were
	for _, l := range m.Net.Chain() {
		c, err := configOf(l)
		if err != nil {
			return nil, err
		}
		changed := map[string]any{}
		switch {
		case isProduct(l, c):
			k := l.Name() + "/kernel"
			s := values[k].Shape()
			if alive != nil {
				values[k] = pick(values[k], len(s)-2, repeat(alive, whole, s[len(s)-2]))
			}
			alive, whole = kept[l.Name()], s[len(s)-1]
			if alive == nil {
				break
			}
			values[k] = pick(values[k], len(s)-1, alive)
			if b := l.Name() + "/bias"; values[b] != nil {
				values[b] = pick(values[b], 0, alive)
			}
			if changed["filters"] = len(alive); l.Class() == "Dense" {
				changed = map[string]any{"units": len(alive)}
			}
		case alive == nil:
		case l.Class() == "DepthwiseConv2D":
			k, b := l.Name()+"/kernel", l.Name()+"/bias"
			values[k] = pick(values[k], 2, alive)
			var grown []int
			for _, i := range alive {
				for j := range max(1, c.Multiplier) {
					grown = append(grown, i*max(1, c.Multiplier)+j)
				}
			}
			if alive, whole = grown, whole*max(1, c.Multiplier); values[b] != nil {
				values[b] = pick(values[b], 0, alive)
			}
		case l.Class() == "BatchNormalization":
			for _, p := range []string{"gamma", "beta", "moving_mean", "moving_variance"} {
				if name := l.Name() + "/" + p; values[name] != nil {
					values[name] = pick(values[name], 0, repeat(alive, whole, values[name].Len()))
				}
			}
		}
		if l, err = reconfigured(l, changed); err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	net := nn.Sequential(layers...)
	net.Name = m.Net.Name
	out, err := m.With(net, more...)
	if err != nil {
		return nil, err
	}
	for _, p := range out.Params() {
		if err := out.State().Set(p.Name, values[p.Name]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// reconfigured is a layer with other values in its configuration.
func reconfigured(l *nn.Layer, changed map[string]any) (*nn.Layer, error) {
	if len(changed) == 0 {
		return l, nil
	}
	var c map[string]any
	if err := json.Unmarshal(l.Config(), &c); err != nil {
		return nil, err
	}
	for k, v := range changed {
		c[k] = v
	}
	j, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return nn.LayerOf(l.Class(), l.Name(), j)
}

// repeat is the channels kept of whole, for n inputs: behind a flattening, of each pixel.
func repeat(kept []int, whole, n int) []int {
	var out []int
	for at := 0; at < n; at += whole {
		for _, i := range kept {
			out = append(out, at+i)
		}
	}
	return out
}

// pick takes the given places of an axis.
func pick(t *tensor.Tensor, axis int, places []int) *tensor.Tensor {
	s := t.Shape()
	to := s.Clone()
	to[axis] = len(places)
	out := tensor.New(t.DType(), to...)
	outer, inner := s[:axis].Size(), s[axis+1:].Size()
	for o := range outer {
		for i, p := range places {
			copy(out.F32()[(o*len(places)+i)*inner:][:inner], t.F32()[(o*s[axis]+p)*inner:][:inner])
		}
	}
	return out
}
