package nn

import (
	"fmt"
	"math"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// bias are the settings of what follows a product: a bias and an activation.
type bias struct {
	Activation Activation  `json:"activation,omitempty"`
	UseBias    bool        `json:"use_bias"`
	BiasInit   Initializer `json:"bias_initializer"`
}

var defaultBias = bias{UseBias: true, BiasInit: Zeros}

func (b *bias) settings() *bias { return b }

func (b *bias) check() error {
	return first(b.Activation.check(), b.BiasInit.check("bias_initializer"))
}

// finish adds the bias and the activation.
func (b *bias) finish(c *Call, y *graph.Node, channels int) *graph.Node {
	return b.Activation.on(c, b.add(c, y, channels))
}

// add adds the bias.
func (b *bias) add(c *Call, y *graph.Node, channels int) *graph.Node {
	if b.UseBias {
		y = op.Add(y, c.Param("bias", b.BiasInit, true, channels))
	}
	return y
}

// weights are the settings of a kernel, and bias.
type weights struct {
	KernelInit Initializer `json:"kernel_initializer"`
	bias
}

var defaultWeights = weights{GlorotUniform, defaultBias}

func (w *weights) kernelInit() *Initializer { return &w.KernelInit }

func (w *weights) check() error {
	return first(w.KernelInit.check("kernel_initializer"), w.bias.check())
}

type biased interface{ settings() *bias }

func (a Activation) apply(l *Layer) {
	setting{"activation " + string(a), func(k kind) bool {
		switch k := k.(type) {
		case biased:
			k.settings().Activation = a
		case *block:
			k.Activation = a
		case *simpleRNN:
			k.Activation = a
		default:
			return false
		}
		return true
	}}.apply(l)
}

// NoBias leaves out the bias; of a normalisation, the offset β.
func NoBias() Option {
	return setting{"NoBias", func(k kind) bool {
		switch k := k.(type) {
		case biased:
			k.settings().UseBias = false
		case normalizing:
			k.normal().Center = false
		case *block:
			k.UseBias = false
		case cell:
			k.common().UseBias = false
		default:
			return false
		}
		return true
	}}
}

// KernelInit sets the initialiser of the kernel; of an Embedding, that of its table.
func KernelInit(i Initializer) Option {
	return setting{"KernelInit", func(k kind) bool {
		w, ok := k.(interface{ kernelInit() *Initializer })
		if ok {
			*w.kernelInit() = i
		}
		return ok
	}}
}

// BiasInit sets the initialiser of the bias.
func BiasInit(i Initializer) Option {
	return setting{"BiasInit", func(k kind) bool {
		w, ok := k.(biased)
		if ok {
			w.settings().BiasInit = i
		}
		return ok
	}}
}

func init() {
	classes["Dense"] = func() kind { return &dense{weights: defaultWeights} }
	classes["Activation"] = func() kind { return &activation{} }
	classes["ReLU"] = func() kind { return &reluLayer{} }
	classes["LeakyReLU"] = func() kind { return &leakyLayer{0.3} }
	classes["Softmax"] = func() kind { return &softmaxLayer{-1} }
	classes["Embedding"] = func() kind { return &embedding{Init: RandomUniform} }
	classes["Rescaling"] = func() kind { return &rescaling{Scale: 1} }
}

type dense struct {
	Units int `json:"units"`
	weights
}

// Dense is a fully connected layer: x [… in] · kernel [in, units] + bias [units].
func Dense(units int, opts ...Option) *Layer {
	return layer("Dense", &dense{units, defaultWeights}, opts)
}

func (d *dense) check() error { return first(positive("units", d.Units), d.weights.check()) }

func (d *dense) call(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	sh := in.Shape()
	if len(sh) < 2 {
		c.Fail("takes [batch … features], not %v", sh)
	}
	k := sh[len(sh)-1]
	flat := op.Reshape(in, sh[:len(sh)-1].Size(), k)
	var y *graph.Node
	units := d.Units
	switch c.role {
	case columns, last:
		y = c.part(flat, "kernel", d.KernelInit, 1, k, d.Units)
		if units = y.Shape()[1]; d.UseBias {
			y = op.Add(y, c.share("bias", d.BiasInit, 0, d.Units))
		}
		if c.role == last {
			return op.Reshape(y, append(sh[:len(sh)-1].Clone(), units)...)
		}
	case rowsOf:
		y = d.add(c, c.total(c.part(flat, "kernel", d.KernelInit, 0, k*c.Split.Of, d.Units)), d.Units)
	default:
		y = d.add(c, c.product(flat, "kernel", d.KernelInit, k, d.Units), d.Units)
	}
	if a := d.Activation; a != Linear && a != "" && a.elementwise() { // whose gradient needs y: then it takes half the room
		y = c.round(y)
	}
	y = d.Activation.on(c, y)
	return op.Reshape(y, append(sh[:len(sh)-1].Clone(), units)...)
}

// only is the operand of a layer that takes one.
func only(c *Call, x []*graph.Node) *graph.Node {
	if len(x) != 1 {
		c.Fail("takes one value, was given %d", len(x))
	}
	return x[0]
}

type activation struct {
	Activation Activation `json:"activation"`
}

// Activate applies an activation.
func Activate(a Activation) *Layer { return layer("Activation", &activation{a}, nil) }

func (a *activation) check() error { return a.Activation.check() }

func (a *activation) call(c *Call, x []*graph.Node) *graph.Node {
	return a.Activation.on(c, only(c, x))
}

type reluLayer struct {
	MaxValue  *float64 `json:"max_value,omitempty"` // none: no limit
	Slope     float64  `json:"negative_slope"`
	Threshold float64  `json:"threshold"`
}

// ReLULayer is max(x, 0) as a layer of its own. Class "ReLU" in a configuration also takes max_value, negative_slope and threshold: min(x,
// max_value) where x ≥ threshold, else negative_slope·(x - threshold).
func ReLULayer() *Layer { return layer("ReLU", &reluLayer{}, nil) }

func (r *reluLayer) check() error {
	if err := first(finite("negative_slope", r.Slope), finite("threshold", r.Threshold)); err != nil {
		return err
	}
	if r.Slope < 0 || r.Threshold < 0 || r.MaxValue != nil && !(*r.MaxValue >= 0) {
		return fmt.Errorf("max_value, negative_slope and threshold must not be negative")
	}
	return nil
}

func (r *reluLayer) call(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	y := in
	if r.Slope == 0 && r.Threshold == 0 {
		y = op.Relu(in)
	} else {
		t := op.Like(in, r.Threshold)
		y = op.Select(op.Ge(in, t), in, op.Mul(op.Sub(in, t), op.Like(in, r.Slope)))
	}
	if r.MaxValue != nil {
		y = op.Min(y, op.Like(in, *r.MaxValue))
	}
	return y
}

type leakyLayer struct {
	Slope float64 `json:"negative_slope"`
}

// LeakyReLULayer is x where x > 0, else slope·x, as a layer of its own (Keras's slope is 0.3; that of the activation LeakyReLU is 0.2).
func LeakyReLULayer(slope float64) *Layer { return layer("LeakyReLU", &leakyLayer{slope}, nil) }

func (l *leakyLayer) check() error { return finite("negative_slope", l.Slope) }

func (l *leakyLayer) call(c *Call, x []*graph.Node) *graph.Node {
	return op.LeakyRelu(only(c, x), l.Slope)
}

func finite(what string, v float64) error {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return fmt.Errorf("%s must be a finite number, not %g", what, v)
	}
	return nil
}

type softmaxLayer struct {
	Axis int `json:"axis"`
}

// SoftmaxLayer is softmax along the last axis, or along the one that Axis says, as a layer of its own.
func SoftmaxLayer(opts ...Option) *Layer { return layer("Softmax", &softmaxLayer{-1}, opts) }

func (s *softmaxLayer) axis() *int { return &s.Axis }

func (*softmaxLayer) check() error { return nil }

func (s *softmaxLayer) call(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	a, last := featureAxis(c, s.Axis, in), len(in.Shape())-1
	if a == last {
		return op.Softmax(in)
	}
	perm := make([]int, last+1)
	for i := range perm {
		perm[i] = i
	}
	perm[a], perm[last] = last, a // its own inverse
	return op.Transpose(op.Softmax(op.Transpose(in, perm...)), perm...)
}

// Axis sets the axis of Concatenate or SoftmaxLayer. The batch is axis 0; negative axes count from the end.
func Axis(a int) Option {
	return setting{"Axis", func(k kind) bool {
		w, ok := k.(interface{ axis() *int })
		if ok {
			*w.axis() = a
		}
		return ok
	}}
}

// featureAxis normalises an axis, which must not be that of the batch.
func featureAxis(c *Call, axis int, x *graph.Node) int {
	a, err := x.Shape().Axis(axis)
	if err != nil {
		c.Fail("%v", err)
	}
	if a == 0 {
		c.Fail("axis %d of %v is the batch", axis, x.Shape())
	}
	return a
}

type embedding struct {
	Inputs  int         `json:"input_dim"`
	Outputs int         `json:"output_dim"`
	Init    Initializer `json:"embeddings_initializer"`
}

// Embedding turns numbers i32 in [0, inputs) into vectors of outputs elements, which are learned. A number outside is taken for the nearest
// inside. Applied again, to vectors [… outputs] of floats, the layer gives their products with all its vectors, [… inputs]: the scores of a language
// model whose first and last layer share weights (arXiv:1608.05859).
func Embedding(inputs, outputs int, opts ...Option) *Layer {
	return layer("Embedding", &embedding{inputs, outputs, RandomUniform}, opts)
}

func (e *embedding) kernelInit() *Initializer { return &e.Init }

// Rows is how many numbers an Embedding knows, 0 of other layers.
func (l *Layer) Rows() int {
	if e, ok := l.kind.(*embedding); ok {
		return e.Inputs
	}
	return 0
}

func (e *embedding) check() error {
	return first(positive("input_dim", e.Inputs), positive("output_dim", e.Outputs), e.Init.check("embeddings_initializer"))
}

func (e *embedding) call(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	if s := in.Shape(); in.DType().IsFloat() && len(s) > 1 && s[len(s)-1] == e.Outputs {
		flat := op.Reshape(in, s[:len(s)-1].Size(), e.Outputs)
		var y *graph.Node
		n := e.Inputs
		if f, ok := c.format("embeddings"); ok {
			w, scale, a := c.few("embeddings", f, e.Inputs, e.Outputs)
			y = op.QMatMul(flat, w, scale, a)
		} else if c.role == last {
			w := c.share("embeddings", e.Init, 0, e.Inputs, e.Outputs)
			y, n = c.dot(flat, w, op.DotAttrs{ContractA: []int{1}, ContractB: []int{1}}), w.Shape()[0]
		} else {
			y = c.dot(flat, c.Param("embeddings", e.Init, true, e.Inputs, e.Outputs), op.DotAttrs{ContractA: []int{1}, ContractB: []int{1}})
		}
		return op.Reshape(y, append(s[:len(s)-1].Clone(), n)...)
	}
	if !in.DType().IsInt() {
		c.Fail("takes whole numbers, not %v; make the input with nn.InputOf(name, dtype.I32, …)", in.Type())
	}
	if f, ok := c.format("embeddings"); ok {
		w, scale, a := c.few("embeddings", f, e.Inputs, e.Outputs)
		return op.QRows(w, scale, op.Convert(in, dtype.I32), a)
	}
	if c.parted(c.layer, e.Inputs) {
		return c.rows(op.Convert(in, dtype.I32), e.Init, e.Inputs, e.Outputs)
	}
	return op.Gather(c.Param("embeddings", e.Init, true, e.Inputs, e.Outputs), op.Convert(in, dtype.I32), 0)
}

type rescaling struct {
	Scale  float64 `json:"scale"`
	Offset float64 `json:"offset"`
}

// Rescaling is x·scale + offset, for inputs; of integers the result is f32.
func Rescaling(scale, offset float64) *Layer {
	return layer("Rescaling", &rescaling{scale, offset}, nil)
}

func (r *rescaling) check() error { return first(finite("scale", r.Scale), finite("offset", r.Offset)) }

func (r *rescaling) call(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	if !in.DType().IsFloat() {
		in = op.Convert(in, dtype.F32)
	}
	return op.Add(op.Mul(in, op.Like(in, r.Scale)), op.Like(in, r.Offset))
}
