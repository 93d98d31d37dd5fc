package quant

import (
	"math"

	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// Equalize scales the channels between two products that only a rectifier, a max pooling or a flattening lies between, so that a channel's weights have the same greatest magnitude on both sides: cross-layer
// equalisation (Nagel et al., arXiv:1906.04721, section 4.1). What the model computes stays the same, up to rounding; one scale for all weights of a layer, or for all channels of activations, then costs less.
// It gives the number of pairs of layers.
func Equalize(m *train.Model) (*train.Model, int, error) {
	n, err := networkOf(m.Net)
	if err != nil {
		return nil, 0, err
	}
	n.classify(nil)
	values := map[string]*tensor.Tensor{}
	for _, p := range m.Params() {
		if values[p.Name], err = m.State().Get(p.Name); err != nil {
			return nil, 0, err
		}
	}
	type pair struct {
		first, second *entry
	}
	var pairs []pair
	for _, e := range n.Layers {
		if e.gone || e.kind != takes || e.Class == "Add" || e.after != "" || !equalizable(e) {
			continue
		}
		u := n.only(e.Value)
		for u != nil && u.kind == passes && u.Class != "Reshape" {
			u = n.only(u.Value)
		}
		if u != nil && u.kind == takes && (u.Class == "Dense" || u.Class == "DepthwiseConv2D" || max(1, u.set.Groups) == 1) {
			pairs = append(pairs, pair{e, u})
		}
	}
	for range 3 { // a layer is in two pairs; the sizes settle
		for _, p := range pairs {
			first, err := tops(values, p.first)
			if err != nil {
				return nil, 0, err
			}
			f := make([]float64, len(first))
			second := inputTops(values[p.second.Name+"/kernel"], p.second, len(f))
			for i := range f {
				if f[i] = 1; first[i] > 1e-20 && second[i] > 1e-20 {
					f[i] = math.Sqrt(second[i] / first[i])
				}
			}
			for _, name := range p.first.outputs() {
				scaleChannels(values, name, f)
			}
			k := values[p.second.Name+"/kernel"]
			in := func(i int) int { return p.second.input(k, i, len(f)) }
			t := k.Clone()
			for i := range t.F32() {
				t.F32()[i] /= float32(f[in(i)])
			}
			values[p.second.Name+"/kernel"] = t
		}
	}
	out, err := m.With(m.Net)
	if err != nil {
		return nil, 0, err
	}
	for name, v := range values {
		if err := out.State().Set(name, v); err != nil {
			return nil, 0, err
		}
	}
	return out, len(pairs), nil
}

// outputs are the parameters in which an entry's results are linear, channel by channel.
func (e *entry) outputs() []string {
	if e.norm != nil {
		return []string{e.norm.Name + "/gamma", e.norm.Name + "/beta"}
	}
	return []string{e.Name + "/kernel", e.Name + "/bias"}
}

// scaleChannels multiplies the last axis (of a depthwise kernel the last two) with factors.
func scaleChannels(values map[string]*tensor.Tensor, name string, f []float64) {
	if values[name] == nil {
		return
	}
	t := values[name].Clone()
	for i := range t.F32() {
		t.F32()[i] *= float32(f[i%len(f)])
	}
	values[name] = t
}

// tops are the greatest weights of each of an entry's outputs, its normalisation counted in.
func tops(values map[string]*tensor.Tensor, e *entry) ([]float64, error) {
	k := values[e.Name+"/kernel"]
	s := k.Shape()
	n := s[len(s)-1]
	if e.Class == "DepthwiseConv2D" {
		n *= s[2]
	}
	out := make([]float64, n)
	for i, v := range k.F32() {
		out[i%n] = max(out[i%n], math.Abs(float64(v)))
	}
	if e.norm != nil {
		gamma, variance := values[e.norm.Name+"/gamma"], values[e.norm.Name+"/moving_variance"]
		for i := range out {
			f := 1 / math.Sqrt(float64(variance.F32()[i])+e.norm.set.Epsilon)
			if gamma != nil {
				f *= math.Abs(float64(gamma.F32()[i]))
			}
			out[i] *= f
		}
	}
	return out, nil
}

// input is the channel, of so many, that element i of an entry's kernel is multiplied with.
func (e *entry) input(k *tensor.Tensor, i, channels int) int {
	s := k.Shape()
	n := s[len(s)-1]
	if e.Class == "DepthwiseConv2D" {
		return i / n % s[2]
	}
	return i / n % channels // behind a flattening, channels are the innermost
}

func inputTops(k *tensor.Tensor, e *entry, channels int) []float64 {
	out := make([]float64, channels)
	for i, v := range k.F32() {
		c := e.input(k, i, channels)
		out[c] = max(out[c], math.Abs(float64(v)))
	}
	return out
}

// equalizable reports whether a normalisation can be scaled: it must have both parameters.
func equalizable(e *entry) bool {
	if e.norm == nil {
		return true
	}
	scaled, _ := e.norm.set.Scale.(bool)
	return scaled && e.norm.set.Center
}
