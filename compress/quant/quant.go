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
	"io"
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
	Examples int      // how many are looked at, from the beginning of the data; 0: 512
	Clip     float64  // share of the activations that may lie outside of the range on each side, such as 0.0001; 0: none
	Keep     []string // patterns of the names of layers that stay as they are (train.Matches)
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

// unit is a layer of the model on its way, with what is folded into it.
type unit struct {
	layer *nn.Layer
	bytes bool // becomes a layer of bytes
	pass  bool // moves bytes as they are
	relu  bool
	after nn.Activation // an activation that is left for a layer of its own, in floats
	norm  *nn.Layer     // a batch normalisation that is folded in
	why   string
}

// Static quantizes a Sequential model by examples of the kind that it will see.
func Static(ctx context.Context, m *train.Model, examples data.Dataset, o Options) (*train.Model, *Report, error) {
	if o.Examples == 0 {
		o.Examples = 512
	}
	if o.Examples < 1 || !(o.Clip >= 0 && o.Clip < 0.5) {
		return nil, nil, fmt.Errorf("quant: %d examples and a clip of %g: at least 1, and from 0 to below 0.5", o.Examples, o.Clip)
	}
	if examples.Len() == 0 {
		return nil, nil, errors.New("quant: no examples to measure ranges on")
	}
	chain := m.Net.Chain()
	if chain == nil {
		return nil, nil, errors.New("quant: only Sequential models can be quantized so far")
	}
	units, err := parse(chain, o)
	if err != nil {
		return nil, nil, err
	}
	if !slices.ContainsFunc(units, func(u unit) bool { return u.bytes }) {
		return nil, nil, errors.New("quant: the model has no Dense or Conv2D layer that could be quantized")
	}
	r := &Report{Examples: min(o.Examples, examples.Len())}
	ranges, err := measure(ctx, m, data.Take(examples, o.Examples), units, o)
	if err != nil {
		return nil, nil, err
	}
	var layers []*nn.Layer
	values := map[string]*tensor.Tensor{}
	for i, u := range units {
		line := Layer{Name: u.layer.Name(), Bytes: u.bytes, Why: u.why}
		before := func(l *nn.Layer) {
			for _, p := range m.Params() {
				if train.Matches(l.Name(), p.Name) {
					line.Before += p.Type.Bytes()
				}
			}
		}
		before(u.layer)
		if !u.bytes {
			line.After = line.Before
			for _, p := range m.Params() {
				if train.Matches(u.layer.Name(), p.Name) {
					if values[p.Name], err = m.State().Get(p.Name); err != nil {
						return nil, nil, err
					}
				}
			}
			if u.layer.Class() != "Dropout" {
				layers = append(layers, u.layer)
				r.Layers = append(r.Layers, line)
			}
			continue
		}
		if u.norm != nil {
			before(u.norm)
		}
		in := ranges[u.layer.Name()]
		var out *interval
		if u.after == "" {
			for _, v := range units[i+1:] {
				if v.bytes {
					x := ranges[v.layer.Name()]
					out = &x
				}
				if !v.pass && v.layer.Class() != "Dropout" {
					break
				}
			}
		}
		l, noise, err := u.convert(m, in, out, values)
		if err != nil {
			return nil, nil, err
		}
		line.Lo, line.Hi, line.NoiseRatio = in.lo, in.hi, noise
		for _, what := range []string{"kernel", "scale", "offset"} {
			line.After += len(values[u.layer.Name()+"/"+what].Bytes())
		}
		layers = append(layers, l)
		if u.after != "" {
			layers = append(layers, nn.Activate(u.after).Named(u.layer.Name()+"_"+string(u.after)))
		}
		r.Layers = append(r.Layers, line)
	}
	net := nn.Sequential(layers...)
	net.Name = m.Net.Name
	q, err := m.With(net)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range q.Params() {
		if values[p.Name] == nil {
			return nil, nil, fmt.Errorf("quant: parameter %s has no value", p.Name) // a bug
		}
		if err := q.State().Set(p.Name, values[p.Name]); err != nil {
			return nil, nil, err
		}
	}
	return q, r, nil
}

// settings are the parts of configurations that matter here.
type settings struct {
	Units      int           `json:"units"`
	Filters    int           `json:"filters"`
	Kernel     any           `json:"kernel_size"`
	Strides    any           `json:"strides"`
	Padding    any           `json:"padding"`
	Dilation   []int         `json:"dilation_rate"`
	Groups     int           `json:"groups"`
	UseBias    bool          `json:"use_bias"`
	Activation nn.Activation `json:"activation"`
	Epsilon    float64       `json:"epsilon"`
	Center     bool          `json:"center"`
	Scale      bool          `json:"scale"`
	MaxValue   *float64      `json:"max_value"`
	Slope      float64       `json:"negative_slope"`
	Threshold  float64       `json:"threshold"`
}

func settingsOf(l *nn.Layer) (s settings, err error) {
	err = json.Unmarshal(l.Config(), &s)
	return s, err
}

// parse finds out what becomes of each layer. Batch normalisations and rectifiers behind a product are folded into it.
func parse(chain []*nn.Layer, o Options) ([]unit, error) {
	seen := map[string]bool{}
	var out []unit
	for i := 0; i < len(chain); i++ {
		l := chain[i]
		if seen[l.Name()] {
			return nil, fmt.Errorf("quant: layer %s is applied twice, which is not supported", l.Name())
		}
		seen[l.Name()] = true
		u := unit{layer: l}
		s, err := settingsOf(l)
		if err != nil {
			return nil, fmt.Errorf("quant: layer %s: %w", l.Name(), err)
		}
		switch l.Class() {
		case "Dense", "Conv2D":
			u.bytes = true
			switch {
			case slices.ContainsFunc(o.Keep, func(p string) bool { return train.Matches(p, l.Name()) }):
				u.bytes, u.why = false, "kept"
			case s.Groups > 1 || slices.ContainsFunc(s.Dilation, func(d int) bool { return d != 1 }):
				u.bytes, u.why = false, "groups or dilation"
			}
			if !u.bytes {
				break
			}
			if s.Activation == "" {
				s.Activation = nn.Linear
			}
			if s.Activation == nn.Linear && i+1 < len(chain) && chain[i+1].Class() == "BatchNormalization" {
				i++
				u.norm = chain[i]
				seen[u.norm.Name()] = true
			}
			if s.Activation == nn.Linear && i+1 < len(chain) {
				n, err := settingsOf(chain[i+1])
				if err != nil {
					return nil, err
				}
				plain := n.MaxValue == nil && n.Slope == 0 && n.Threshold == 0
				if c := chain[i+1].Class(); c == "ReLU" && plain || c == "Activation" && n.Activation == nn.ReLU {
					i++
					seen[chain[i].Name()] = true
					s.Activation = nn.ReLU
				}
			}
			switch s.Activation {
			case nn.ReLU:
				u.relu = true
			case nn.Linear:
			default:
				u.after = s.Activation
			}
		case "MaxPooling2D", "Flatten", "Reshape":
			u.pass = true
		default:
			u.why = l.Class() + " computes on floats"
		}
		out = append(out, u)
	}
	return out, nil
}

// interval is a range of activations; it always has zero in it, which a byte then stands for exactly.
type interval struct{ lo, hi float64 }

// bytes is how the interval becomes bytes: scale and zero.
func (v interval) bytes() (scale float64, zero int) {
	scale = (v.hi - v.lo) / 255
	if scale == 0 {
		return 1, 0
	}
	scale = float64(float32(scale)) // as the kernels have it
	return scale, min(255, max(0, int(math.RoundToEven(-v.lo/scale))))
}

// measure gives the range of each quantized layer's input.
func measure(ctx context.Context, m *train.Model, ds data.Dataset, units []unit, o Options) (map[string]interval, error) {
	loader, err := data.NewLoader(ds, data.LoaderConfig{Batch: 64, Epochs: 1})
	if err != nil {
		return nil, err
	}
	defer loader.Close()
	all := map[string][]float32{}
	out := map[string]interval{}
	for {
		b, err := loader.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		in, err := m.LayerInputs(b.X...)
		if err != nil {
			return nil, err
		}
		for _, u := range units {
			if !u.bytes {
				continue
			}
			name := u.layer.Name()
			v := out[name]
			for _, x := range in[name].F32() {
				if x-x != 0 {
					return nil, fmt.Errorf("quant: the input of layer %s is %v for some example: the model has diverged", name, x)
				}
				v.lo, v.hi = min(v.lo, float64(x)), max(v.hi, float64(x))
			}
			out[name] = v
			if o.Clip > 0 {
				all[name] = append(all[name], in[name].F32()...)
			}
		}
	}
	for name, x := range all {
		slices.Sort(x)
		cut := int(o.Clip * float64(len(x)))
		out[name] = interval{min(0, float64(x[cut])), max(0, float64(x[len(x)-1-cut]))}
	}
	return out, nil
}

// convert makes the layer of bytes and adds its parameters to values. out is nil where results are to be floats.
func (u *unit) convert(m *train.Model, in interval, out *interval, values map[string]*tensor.Tensor) (*nn.Layer, float64, error) {
	name := u.layer.Name()
	s, err := settingsOf(u.layer)
	if err != nil {
		return nil, 0, err
	}
	kernel, err := m.State().Get(name + "/kernel")
	if err != nil {
		return nil, 0, err
	}
	shape := kernel.Shape()
	n := shape[len(shape)-1]
	k := kernel.Len() / n
	w, bias := make([]float64, k*n), make([]float64, n)
	for i, v := range kernel.F32() {
		w[i] = float64(v)
	}
	if s.UseBias {
		b, err := m.State().Get(name + "/bias")
		if err != nil {
			return nil, 0, err
		}
		for j, v := range b.F32() {
			bias[j] = float64(v)
		}
	}
	if u.norm != nil {
		if err := fold(m, u.norm, w, bias); err != nil {
			return nil, 0, err
		}
	}
	scaleIn, zeroIn := in.bytes()
	kernel8, scale, offset := tensor.New(dtype.I8, shape...), tensor.New(dtype.F32, n), tensor.New(dtype.F32, n)
	config := map[string]any{"input_scale": scaleIn, "input_zero": zeroIn, "activation": nn.Linear}
	if u.relu {
		config["activation"] = nn.ReLU
	}
	scaleOut, zeroOut := 1.0, 0
	if out != nil {
		scaleOut, zeroOut = out.bytes()
		config["output_scale"], config["output_zero"] = scaleOut, zeroOut
	}
	var signal, noise float64
	for j := range n {
		top := 0.0
		for i := range k {
			top = max(top, math.Abs(w[i*n+j]))
		}
		step := top / 127 // of the weights of this unit or filter
		if step == 0 {
			step = 1
		}
		sum := 0.0
		for i := range k {
			v := math.RoundToEven(w[i*n+j] / step)
			kernel8.Set(i*n+j, v)
			sum += v
			signal += w[i*n+j] * w[i*n+j]
			noise += (w[i*n+j] - v*step) * (w[i*n+j] - v*step)
		}
		// Σ (x - zero)·w·scaleIn·step + bias, in units of the result.
		f := scaleIn * step / scaleOut
		scale.Set(j, f)
		offset.Set(j, bias[j]/scaleOut-float64(zeroIn)*sum*f+float64(zeroOut))
	}
	values[name+"/kernel"], values[name+"/scale"], values[name+"/offset"] = kernel8, scale, offset
	class := "QuantizedDense"
	if u.layer.Class() == "Conv2D" {
		class = "QuantizedConv2D"
		config["filters"], config["kernel_size"], config["strides"], config["padding"] = s.Filters, s.Kernel, s.Strides, s.Padding
	} else {
		config["units"] = s.Units
	}
	j, err := json.Marshal(config)
	if err != nil {
		return nil, 0, err
	}
	l, err := nn.LayerOf(class, name, j)
	return l, 10 * math.Log10(signal/max(noise, 1e-300)), err
}

// fold multiplies a batch normalisation into weights [k, n] and bias [n].
func fold(m *train.Model, norm *nn.Layer, w, bias []float64) error {
	s, err := settingsOf(norm)
	if err != nil {
		return err
	}
	n := len(bias)
	get := func(name string, otherwise float32, there bool) ([]float32, error) {
		if !there {
			x := make([]float32, n)
			for i := range x {
				x[i] = otherwise
			}
			return x, nil
		}
		t, err := m.State().Get(norm.Name() + "/" + name)
		if err != nil {
			return nil, err
		}
		return t.F32(), nil
	}
	gamma, err := get("gamma", 1, s.Scale)
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
