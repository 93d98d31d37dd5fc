package quant

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/train"
)

// Aware trains a model with the rounding that Static will do, so that its weights learn to live with it: quantization-aware training (Jacob et al., arXiv:1712.05877). Pass it to Compile with train.Wrapped and
// to Fit as a callback; Convert then makes the model of bytes.
//
// Kernels of dense layers and convolutions are rounded to 8 bits, each unit or filter with a scale that is learned (LSQ, arXiv:1902.08153) and begins at its greatest weight over 127. Operands of these layers are
// rounded to bytes in a range that follows the greatest and least values seen, which are forgotten by a thousandth a step. A batch normalisation behind a layer needs no folding in training: it multiplies each filter
// with a number, and so does a filter's scale.
type Aware struct {
	train.Hooks
	Skip []string // patterns of the names of layers that stay floats (train.Matches)
}

const (
	awarePrefix = "aware/"
	forget      = 0.001 // of a range, a step
)

func (a *Aware) on(layer, class string) bool {
	return slices.Contains(products, class) && !matchesAny(a.Skip, layer)
}

// Freezes implements train.Wrapper.
func (a *Aware) Freezes(nn.Param) bool { return false }

// Wrap implements train.Wrapper: kernels rounded.
func (a *Aware) Wrap(c *nn.Call, p nn.Param, w *graph.Node) *graph.Node {
	l := c.Layer()
	if !a.on(l.Name(), l.Class()) || p.Name != c.Prefix+l.Name()+"/kernel" {
		return w
	}
	dims := scaleShape(l.Class(), w.Shape())
	base := c.Extra(awarePrefix+p.Name+"/scale", nn.Ones, false, dims...)
	power := c.Extra(awarePrefix+p.Name+"/log", nn.Zeros, true, dims...) // learned as a logarithm: optimizers move all parameters alike, and scales are small
	n := 1
	for _, d := range dims {
		n *= d
	}
	// The gradient of a scale is that of all its weights: it is divided by √(weights·127), as LSQ does.
	g := 1 / math.Sqrt(float64(w.Shape().Size()/max(1, n))*127)
	small := op.Mul(power, op.Like(power, g))
	power = op.Add(small, op.StopGradient(op.Sub(power, small)))
	return op.FakeQuant(w, op.Mul(base, op.Exp(power)), op.Like(w, -127), op.Like(w, 127))
}

// scaleShape is that of a kernel's scales: one for each unit or filter.
func scaleShape(class string, kernel []int) []int {
	if class == "DepthwiseConv2D" {
		return kernel[len(kernel)-2:]
	}
	return kernel[len(kernel)-1:]
}

// Operand implements train.OperandWrapper: operands rounded to bytes.
func (a *Aware) Operand(c *nn.Call, l *nn.Layer, i int, x *graph.Node) *graph.Node {
	if i != 0 || !a.on(l.Name(), l.Class()) || !x.DType().IsFloat() {
		return x
	}
	v := c.Extra(c.Prefix+awarePrefix+l.Name()+"/range", nn.Zeros, false, 2)
	r := v
	if c.Training {
		var all []int
		for i := range x.Shape() {
			all = append(all, i)
		}
		seen := op.StopGradient(op.Concat(0, op.Reshape(op.ReduceMax(op.Neg(x), all...), 1), op.Reshape(op.ReduceMax(x, all...), 1)))
		r = op.Max(op.Max(seen, op.Mul(v, op.Like(v, 1-forget))), op.Like(v, 0)) // how far it goes below zero, and above
		c.Leave(v, r)
	}
	below, above := op.Reshape(op.SliceAxis(r, 0, 0, 1)), op.Reshape(op.SliceAxis(r, 0, 1, 2))
	s := op.Max(op.Mul(op.Add(below, above), op.Like(r, 1.0/255)), op.Like(r, 1e-20))
	zero := op.Round(op.Div(below, s))
	return op.FakeQuant(x, s, op.Neg(zero), op.Sub(op.Like(r, 255), zero))
}

// Begin implements train.Callback: scales that have not been set begin at the greatest weights.
func (a *Aware) Begin(t *train.Training) error {
	var layers []string
	for _, l := range t.Model.Net.Layers() {
		layers = append(layers, l.Name())
	}
	if err := train.Unmatched("layer", a.Skip, layers); err != nil {
		return fmt.Errorf("quant: skip: %w", err)
	}
	return a.start(t.Model)
}

func (a *Aware) start(m *train.Model) error {
	for _, p := range m.Params() {
		name, ok := strings.CutPrefix(p.Name, awarePrefix)
		if !ok || !strings.HasSuffix(name, "/scale") {
			continue
		}
		s, err := m.State().Get(p.Name)
		if err != nil {
			return fmt.Errorf("quant: %w", err)
		}
		if slices.ContainsFunc(s.F32(), func(v float32) bool { return v != 1 }) {
			continue
		}
		w, err := m.State().Get(strings.TrimSuffix(name, "/scale"))
		if err != nil {
			return fmt.Errorf("quant: %w", err)
		}
		n := s.Len()
		clear(s.F32())
		for i, v := range w.F32() {
			s.F32()[i%n] = max(s.F32()[i%n], float32(math.Abs(float64(v)))/127)
		}
		for i, v := range s.F32() {
			if v < 1e-12 {
				s.F32()[i] = 1.0 / 127
			}
		}
		if err := m.State().Set(p.Name, s); err != nil {
			return fmt.Errorf("quant: %w", err)
		}
	}
	return nil
}

// learned are the scales of kernels and the ranges of layers' operands that a model has learned.
type learned struct {
	scales map[string][]float64
	ranges map[string]interval
}

func (a *Aware) learned(m *train.Model) (*learned, error) {
	out := &learned{map[string][]float64{}, map[string]interval{}}
	for _, p := range m.Params() {
		name, ok := strings.CutPrefix(p.Name, awarePrefix)
		if !ok {
			continue
		}
		t, err := m.State().Get(p.Name)
		if err != nil {
			return nil, fmt.Errorf("quant: %w", err)
		}
		if layer, ok := strings.CutSuffix(name, "/range"); ok {
			out.ranges[layer] = interval{-float64(t.F32()[0]), float64(t.F32()[1])}
			continue
		}
		layer, ok := strings.CutSuffix(name, "/kernel/scale")
		if !ok {
			continue
		}
		power, err := m.State().Get(awarePrefix + layer + "/kernel/log")
		if err != nil {
			return nil, fmt.Errorf("quant: %w", err)
		}
		for i, v := range t.F32() {
			out.scales[layer] = append(out.scales[layer], float64(v)*math.Exp(float64(power.F32()[i])))
		}
	}
	if len(out.scales) == 0 {
		return nil, errors.New("quant: the model was not trained with Aware: it has no learned scales")
	}
	return out, nil
}

// Convert makes the model of bytes of one that was trained with a, with the scales and ranges that it has learned. Examples are for the ranges that it has not: those of sums of branches.
func (a *Aware) Convert(ctx context.Context, m *train.Model, examples data.Dataset) (*train.Model, *Report, error) {
	l, err := a.learned(m)
	if err != nil {
		return nil, nil, err
	}
	return Static(ctx, m, examples, Options{Keep: a.present(m), learned: l})
}

// present are the patterns of Skip that match a layer: others are no mistake here.
func (a *Aware) present(m *train.Model) []string {
	var out []string
	for _, p := range a.Skip {
		if slices.ContainsFunc(m.Net.Layers(), func(l *nn.Layer) bool { return train.Matches(p, l.Name()) }) {
			out = append(out, p)
		}
	}
	return out
}

// steps are the scales of a layer's outputs as learned, times what a normalisation folded in multiplies them with; nil where they are not learned.
func (c *conversion) steps(e *entry, n int) ([]float64, error) {
	if c.o.learned == nil || c.o.learned.scales[e.Name] == nil {
		return nil, nil
	}
	s := slices.Clone(c.o.learned.scales[e.Name])
	if len(s) != n {
		return nil, fmt.Errorf("quant: layer %s has %d outputs and %d learned scales", e.Name, n, len(s))
	}
	if e.norm == nil {
		return s, nil
	}
	f, none := make([]float64, n), make([]float64, n)
	for i := range f {
		f[i] = 1
	}
	if err := fold(c.m, e.norm, f, none); err != nil {
		return nil, err
	}
	for i := range s {
		s[i] *= math.Abs(f[i])
	}
	return s, nil
}

var (
	_ train.OperandWrapper = (*Aware)(nil)
	_ train.Callback       = (*Aware)(nil)
)
