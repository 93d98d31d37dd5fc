package nn

import (
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// weights are the settings shared by layers with a kernel and a bias.
type weights struct {
	Activation Activation  `json:"activation,omitempty"`
	UseBias    bool        `json:"use_bias"`
	KernelInit Initializer `json:"kernel_initializer,omitempty"`
	BiasInit   Initializer `json:"bias_initializer,omitempty"`
}

func (w *weights) settings() *weights { return w }

var defaultWeights = weights{UseBias: true, KernelInit: GlorotUniform, BiasInit: Zeros}

// finish adds the bias and the activation.
func (w *weights) finish(c *Call, y *graph.Node, channels int) *graph.Node {
	if w.UseBias {
		y = op.Add(y, c.Param("bias", w.BiasInit, true, channels))
	}
	return w.Activation.on(c, y)
}

type weighted interface{ settings() *weights }

func (a Activation) apply(l *Layer) {
	switch k := l.kind.(type) {
	case weighted:
		k.settings().Activation = a
	default:
		setting{"activation " + string(a), func(kind) bool { return false }}.apply(l)
	}
}

// NoBias leaves out the bias.
func NoBias() Option {
	return setting{"NoBias", func(k kind) bool {
		w, ok := k.(weighted)
		if ok {
			w.settings().UseBias = false
		}
		return ok
	}}
}

// KernelInit sets the initialiser of the kernel.
func KernelInit(i Initializer) Option {
	return setting{"KernelInit", func(k kind) bool {
		w, ok := k.(weighted)
		if ok {
			w.settings().KernelInit = i
		}
		return ok
	}}
}

// BiasInit sets the initialiser of the bias.
func BiasInit(i Initializer) Option {
	return setting{"BiasInit", func(k kind) bool {
		w, ok := k.(weighted)
		if ok {
			w.settings().BiasInit = i
		}
		return ok
	}}
}

func init() {
	classes["Dense"] = func() kind { return &dense{weights: defaultWeights} }
	classes["Flatten"] = func() kind { return &flatten{} }
	classes["Reshape"] = func() kind { return &reshape{} }
	classes["Activation"] = func() kind { return &activation{} }
}

type dense struct {
	Units int `json:"units"`
	weights
}

// Dense is a fully connected layer: x [… in] · kernel [in, units] + bias [units].
func Dense(units int, opts ...Option) *Layer {
	return layer("Dense", &dense{units, defaultWeights}, opts)
}

func (d *dense) call(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	sh := in.Shape()
	if len(sh) < 2 {
		c.Fail("takes [batch … features], not %v", sh)
	}
	if d.Units < 1 {
		c.Fail("units must be at least 1, not %d", d.Units)
	}
	k := sh[len(sh)-1]
	w := c.Param("kernel", d.KernelInit, true, k, d.Units)
	flat := op.Reshape(in, -1, k)
	y := d.finish(c, op.MatMul(flat, w), d.Units)
	return op.Reshape(y, append(sh[:len(sh)-1].Clone(), d.Units)...)
}

// only is the operand of a layer that takes one.
func only(c *Call, x []*graph.Node) *graph.Node {
	if len(x) != 1 {
		c.Fail("takes one value, was given %d", len(x))
	}
	return x[0]
}

type flatten struct{}

// Flatten makes each example a vector.
func Flatten() *Layer { return layer("Flatten", &flatten{}, nil) }

func (*flatten) call(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	n := in.Shape()[0]
	return op.Reshape(in, n, in.Shape()[1:].Size())
}

type reshape struct {
	Shape []int `json:"target_shape"`
}

// Reshape gives each example another shape; one dimension may be -1.
func Reshape(dims ...int) *Layer { return layer("Reshape", &reshape{dims}, nil) }

func (r *reshape) call(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	return op.Reshape(in, append([]int{in.Shape()[0]}, r.Shape...)...)
}

type activation struct {
	Activation Activation `json:"activation"`
}

// Activate applies an activation.
func Activate(a Activation) *Layer { return layer("Activation", &activation{a}, nil) }

func (a *activation) call(c *Call, x []*graph.Node) *graph.Node {
	return a.Activation.on(c, only(c, x))
}
