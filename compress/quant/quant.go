// Package quant makes models of 8-bit integers out of trained ones.
//
// Static quantization measures on some examples how large the numbers between layers get, and replaces dense layers and convolutions by layers whose weights (i8, a scale for each
// unit or filter) and activations (u8, a scale and a zero for all) are bytes; sums are exact. From one such layer to the next, through pooling and flattening, activations stay
// bytes; other layers see floats. The result is an ordinary model: it predicts, evaluates, saves and loads like any other, and gives the same bits on every instruction set.
package quant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// Options say how ranges are measured.
type Options struct {
	Examples    int         // how many are looked at, from the beginning of the data; 0: 512
	Calibration Calibration // how the range of activations is chosen; "": Percentile if Clip is set, else MinMax
	Clip        float64     // of Percentile: the share of activations that may lie outside of the range on each side, such as 0.0001
	Symmetric   bool        // ranges have zero in their middle
	PerTensor   bool        // one scale for all weights of a layer, not one for each unit or filter
	Correct     bool        // biases make up for the mean of what rounding weights does to the layer's results (arXiv:1906.04721, section 4.2)
	Keep        []string    // patterns of the names of layers that stay as they are (train.Matches)

	learned *learned
	seen    map[string]*stats // what examples show, where they were looked at before
}

// Layer is what became of a layer.
type Layer struct {
	Name       string
	Bytes      bool    // whether it computes on bytes now; else Why says why not
	Bits       int     `json:",omitempty"` // of weights of few bits
	Why        string  `json:",omitempty"`
	Lo, Hi     float64 // the range of its input
	NoiseRatio float64 // the power of the weights over that of their rounding errors, in decibels
	Before     int     // bytes of its parameters
	After      int
}

// Report is what quantization did.
type Report struct {
	Examples int
	Layers   []Layer
	Warnings []string `json:",omitempty"`
}

// Bytes are the model's parameters in bytes, before and after.
func (r *Report) Bytes() (before, after int) {
	for _, l := range r.Layers {
		before, after = before+l.Before, after+l.After
	}
	return before, after
}

// check fills in what is not set.
func (o *Options) check(examples data.Dataset) error {
	if o.Examples == 0 {
		o.Examples = 512
	}
	if o.Calibration == "" {
		if o.Calibration = MinMax; o.Clip > 0 {
			o.Calibration = Percentile
		}
	}
	switch {
	case o.Examples < 1:
		return fmt.Errorf("quant: ranges are measured on at least 1 example, not %d", o.Examples)
	case !(o.Clip >= 0 && o.Clip < 0.5):
		return fmt.Errorf("quant: a clip of %g: from 0 to below 0.5", o.Clip)
	case !slices.Contains(Calibrations, o.Calibration):
		return fmt.Errorf("quant: unknown calibration %q (known: minmax, percentile, mse, entropy)", o.Calibration)
	case o.Clip > 0 && o.Calibration != Percentile:
		return fmt.Errorf("quant: a clip is for the calibration percentile, not %s", o.Calibration)
	case examples.Len() == 0:
		return errors.New("quant: no examples to measure ranges on")
	}
	if o.Calibration == Percentile && o.Clip == 0 {
		o.Clip = 0.0001
	}
	return nil
}

// finite reports weights that are no numbers: nothing that is made of them, or measured with them, means anything.
func finite(m *train.Model) error {
	for _, p := range m.Params() {
		if p.Type.DType != dtype.F32 {
			continue
		}
		w, err := m.State().Get(p.Name)
		if err != nil {
			return fmt.Errorf("quant: %w", err)
		}
		for _, v := range w.F32() {
			if v-v != 0 {
				return fmt.Errorf("quant: %s has the weight %v: the model has diverged", p.Name, v)
			}
		}
	}
	return nil
}

// fewExamples is below how many examples a warning says that ranges may not hold.
const fewExamples = 100

// Static quantizes a model by examples of the kind that it will see: Dense, Conv1D, Conv2D and DepthwiseConv2D, and the sums of branches between them.
func Static(ctx context.Context, m *train.Model, examples data.Dataset, o Options) (*train.Model, *Report, error) {
	if err := o.check(examples); err != nil {
		return nil, nil, err
	}
	if err := finite(m); err != nil {
		return nil, nil, err
	}
	n, err := networkOf(m.Net)
	if err != nil {
		return nil, nil, err
	}
	if err := n.check(o.Keep); err != nil {
		return nil, nil, err
	}
	for _, e := range n.Layers {
		e.original = slices.Clone(e.Inputs)
	}
	n.classify(o.Keep)
	if !slices.ContainsFunc(n.Layers, func(e *entry) bool { return !e.gone && e.kind == takes && e.Class != "Add" }) {
		return nil, nil, n.nothing()
	}
	r := &Report{Examples: min(o.Examples, examples.Len())}
	if r.Examples < fewExamples {
		r.Warnings = append(r.Warnings, fmt.Sprintf("ranges were measured on %d examples alone: what lies outside of them is cut off; %d or more are advised", r.Examples, fewExamples))
	}
	seen := o.seen
	if seen == nil {
		if seen, err = observe(ctx, m, n, data.Take(examples, o.Examples)); err != nil {
			return nil, nil, err
		}
	}
	c := &conversion{m: m, n: n, o: o, r: r, seen: seen, groups: n.flow(), values: map[string]*tensor.Tensor{}, ranges: map[string]interval{}}
	return c.run()
}

// conversion is a model on its way.
type conversion struct {
	m      *train.Model
	n      *network
	o      Options
	r      *Report
	seen   map[string]*stats
	groups map[string]string
	ranges map[string]interval // of values or groups of them
	values map[string]*tensor.Tensor
}

// rangeOf is that of a value: of bytes, what all that take the group's values see.
func (c *conversion) rangeOf(value string) interval {
	key := value
	if g, ok := c.groups[value]; ok {
		key = "group " + g
	}
	if v, ok := c.ranges[key]; ok {
		return v
	}
	var vs []interval
	for _, e := range c.n.Layers {
		if e.gone || e.kind != takes {
			continue
		}
		for i, in := range e.Inputs {
			if g, ok := c.groups[in]; in == value || ok && g == c.groups[value] {
				if l := c.o.learned; l != nil && i == 0 {
					if v, ok := l.ranges[e.Name]; ok {
						vs = append(vs, v)
						continue
					}
				}
				if s := c.seen[e.original[i]]; s != nil {
					vs = append(vs, s.choose(c.o))
				}
			}
		}
	}
	c.ranges[key] = join(vs)
	return c.ranges[key]
}

// run converts all layers.
func (c *conversion) run() (*train.Model, *Report, error) {
	var layers []*entry
	for _, e := range c.n.Layers {
		if e.gone {
			continue
		}
		line := Layer{Name: e.Name, Bytes: e.kind == takes, Why: e.why, Before: c.size(e.Name)}
		layers = append(layers, e)
		var err error
		switch {
		case e.kind == takes && e.Class == "Add":
			err = c.add(e)
		case e.kind == takes:
			if e.norm != nil {
				line.Before += c.size(e.norm.Name)
			}
			in := c.rangeOf(e.Inputs[0])
			if line.NoiseRatio, err = c.convert(e, in); err == nil {
				line.Lo, line.Hi = in.lo, in.hi
				for _, what := range []string{"kernel", "scale", "offset"} {
					line.After += len(c.values[e.Name+"/"+what].Bytes())
				}
			}
		default:
			line.After = line.Before
			for _, p := range c.m.Params() {
				if train.Matches(e.Name, p.Name) {
					if c.values[p.Name], err = c.m.State().Get(p.Name); err != nil {
						break
					}
				}
			}
		}
		if err != nil {
			return nil, nil, err
		}
		c.r.Layers = append(c.r.Layers, line)
		if e.after == "" {
			continue
		}
		// The activation, as a layer whose result takes the place of e's.
		a := &entry{SavedLayer: nn.SavedLayer{Class: "Activation", Name: e.Name + "_" + string(e.after), Inputs: []string{e.Value}}}
		a.Value = a.Name
		if a.Config, err = json.Marshal(map[string]any{"activation": e.after}); err != nil {
			return nil, nil, err
		}
		for _, u := range c.n.Layers {
			for i, v := range u.Inputs {
				if v == e.Value {
					u.Inputs[i] = a.Value
				}
			}
		}
		for i, v := range c.n.Outputs {
			if v == e.Value {
				c.n.Outputs[i] = a.Value
			}
		}
		layers = append(layers, a)
	}
	c.n.Layers = layers
	net, err := c.n.model()
	if err != nil {
		return nil, nil, fmt.Errorf("quant: %w", err)
	}
	q, err := replace(c.m, net, c.values)
	return q, c.r, err
}

// size is the bytes of a layer's parameters.
func (c *conversion) size(layer string) int {
	n := 0
	for _, p := range c.m.Params() {
		if train.Matches(layer, p.Name) {
			n += p.Type.Bytes()
		}
	}
	return n
}

// out adds how an entry's results become bytes to its configuration; it gives scale 1 where they are floats.
func (c *conversion) out(e *entry, config map[string]any) (scale float64, zero int) {
	config["activation"] = nn.Linear
	if e.relu {
		config["activation"] = nn.ReLU
	}
	if _, ok := c.groups[e.Value]; !ok {
		return 1, 0
	}
	scale, zero = c.rangeOf(e.Value).bytes()
	config["output_scale"], config["output_zero"] = scale, zero
	return scale, zero
}

func (e *entry) become(class string, config map[string]any) error {
	j, err := json.Marshal(config)
	e.Class, e.Config = class, j
	return err
}

// add makes a sum one of bytes.
func (c *conversion) add(e *entry) error {
	config := map[string]any{}
	var scales []float64
	var zeros []int
	for _, v := range e.Inputs {
		s, z := c.rangeOf(v).bytes()
		scales, zeros = append(scales, s), append(zeros, z)
	}
	config["input_scales"], config["input_zeros"] = scales, zeros
	c.out(e, config)
	return e.become("QuantizedAdd", config)
}

// weights are a product's kernel [k, n], filters last, and bias, with its batch normalisation folded in.
func weightsOf(m *train.Model, e *entry) (w, bias []float64, shape []int, err error) {
	kernel, err := m.State().Get(e.Name + "/kernel")
	if err != nil {
		return nil, nil, nil, err
	}
	shape = kernel.Shape().Clone()
	if e.Class == "DepthwiseConv2D" { // [h, w, channels, multiplier] is [h, w, 1, channels·multiplier]
		shape = []int{shape[0], shape[1], 1, shape[2] * shape[3]}
	}
	n := shape[len(shape)-1]
	w, bias = make([]float64, kernel.Len()), make([]float64, n)
	for i, v := range kernel.F32() {
		if w[i] = float64(v); v-v != 0 {
			return nil, nil, nil, fmt.Errorf("quant: %s has the weight %v: the model has diverged", e.Name, v)
		}
	}
	if e.set.UseBias {
		b, err := m.State().Get(e.Name + "/bias")
		if err != nil {
			return nil, nil, nil, err
		}
		for j, v := range b.F32() {
			bias[j] = float64(v)
		}
	}
	if e.norm != nil {
		err = fold(m, e.norm, w, bias)
	}
	return w, bias, shape, err
}

// convert makes a product one of bytes and adds its parameters to the values. It gives the power of the weights over that of their errors in decibels.
func (c *conversion) convert(e *entry, in interval) (float64, error) {
	w, bias, shape, err := weightsOf(c.m, e)
	if err != nil {
		return 0, err
	}
	n := len(bias)
	k := len(w) / n
	scaleIn, zeroIn := in.bytes()
	config := map[string]any{"input_scale": scaleIn, "input_zero": zeroIn}
	scaleOut, zeroOut := c.out(e, config)
	class := "QuantizedDense"
	config["units"] = n
	if e.Class != "Dense" {
		class, config["units"] = "QuantizedConv2D", nil
		if e.Class == "Conv1D" {
			class = "QuantizedConv1D"
		}
		delete(config, "units")
		config["filters"], config["kernel_size"], config["strides"], config["padding"], config["dilation_rate"] = n, e.set.Kernel, e.set.Strides, e.set.Padding, e.set.Dilation
		config["groups"] = max(1, e.set.Groups)
		if e.Class == "DepthwiseConv2D" {
			t, err := c.m.State().Get(e.Name + "/kernel")
			if err != nil {
				return 0, err
			}
			config["groups"] = t.Shape()[2]
		}
	}
	tops := make([]float64, n)
	for i, v := range w {
		tops[i%n] = max(tops[i%n], math.Abs(v))
	}
	if c.o.PerTensor {
		if s := spread(tops); s > 10 {
			c.r.Warnings = append(c.r.Warnings, fmt.Sprintf("the outputs of %s have weights whose sizes differ by %.0f times, and one scale for all; equalising first, or a scale for each, is finer", e.Name, s))
		}
		top := slices.Max(tops)
		for j := range tops {
			tops[j] = top
		}
	}
	steps, err := c.steps(e, n)
	if err != nil {
		return 0, err
	}
	kernel8, scale, offset := tensor.New(dtype.I8, shape...), tensor.New(dtype.F32, n), tensor.New(dtype.F32, n)
	var signal, noise float64
	for j := range n {
		step := tops[j] / 127 // of the weights of this unit or filter
		if steps != nil {
			step = steps[j]
		}
		if step < 1e-30 { // all zero
			step = 1
		}
		sum, shift := 0.0, 0.0
		for i := range k {
			x := w[i*n+j]
			v := min(127, max(-127, math.RoundToEven(x/step)))
			kernel8.Set(i*n+j, v)
			sum += v
			signal, noise = signal+x*x, noise+(x-v*step)*(x-v*step)
			shift += (x - v*step) * c.mean(e, i, j, k, n)
		}
		if c.o.Correct {
			bias[j] += shift
		}
		// Σ (x - zero)·w·scaleIn·step + bias, in units of the result.
		f := scaleIn * step / scaleOut
		scale.Set(j, f)
		offset.Set(j, bias[j]/scaleOut-float64(zeroIn)*sum*f+float64(zeroOut))
	}
	c.values[e.Name+"/kernel"], c.values[e.Name+"/scale"], c.values[e.Name+"/offset"] = kernel8, scale, offset
	return 10 * math.Log10(max(signal, 1e-300)/max(noise, 1e-300)), e.become(class, config)
}

// mean is that of what weight (i, j) of [k, n] is multiplied with, padding aside.
func (c *conversion) mean(e *entry, i, j, k, n int) float64 {
	s := c.seen[e.original[0]]
	if !c.o.Correct || s == nil {
		return 0
	}
	channels := len(s.mean)
	if e.Class == "Dense" {
		return s.mean[i%channels]
	}
	groups := max(1, e.set.Groups)
	if e.Class == "DepthwiseConv2D" {
		groups = channels
	}
	in := channels / groups // channels of a filter
	return s.mean[j/(n/groups)*in+i%in]
}

// fold multiplies a batch normalisation into weights [k, n] and bias [n].
func fold(m *train.Model, norm *entry, w, bias []float64) error {
	s := norm.set
	scaled, _ := s.Scale.(bool)
	n := len(bias)
	get := func(name string, otherwise float32, there bool) ([]float32, error) {
		if !there {
			x := make([]float32, n)
			for i := range x {
				x[i] = otherwise
			}
			return x, nil
		}
		t, err := m.State().Get(norm.Name + "/" + name)
		if err != nil {
			return nil, err
		}
		return t.F32(), nil
	}
	gamma, err := get("gamma", 1, scaled)
	if err != nil {
		return err
	}
	beta, err := get("beta", 0, s.Center)
	if err != nil {
		return err
	}
	mean, err := get("moving_mean", 0, true)
	if err != nil {
		return err
	}
	variance, err := get("moving_variance", 1, true)
	if err != nil {
		return err
	}
	for j := range n {
		f := float64(gamma[j]) / math.Sqrt(float64(variance[j])+s.Epsilon)
		for i := j; i < len(w); i += n {
			w[i] *= f
		}
		bias[j] = (bias[j]-float64(mean[j]))*f + float64(beta[j])
	}
	return nil
}
