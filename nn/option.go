package nn

import (
	"fmt"
	"slices"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Option sets part of a layer's configuration: an Activation, a Padding, Strides, … An option that does not apply to a
// layer panics when the layer is made, a bug of the caller.
type Option interface{ apply(l *Layer) }

// Activation names a function that a layer applies to its result.
type Activation string

// The activations, with Keras's names.
const (
	Linear      Activation = "linear"
	ReLU        Activation = "relu"
	ReLU6       Activation = "relu6"
	Softmax     Activation = "softmax"
	LogSoftmax  Activation = "log_softmax"
	Sigmoid     Activation = "sigmoid"
	Tanh        Activation = "tanh"
	GELU        Activation = "gelu"
	GELUTanh    Activation = "gelu_tanh"
	SiLU        Activation = "silu"
	ELU         Activation = "elu"
	SELU        Activation = "selu"
	LeakyReLU   Activation = "leaky_relu"
	Softplus    Activation = "softplus"
	Softsign    Activation = "softsign"
	HardSigmoid Activation = "hard_sigmoid"
	HardSiLU    Activation = "hard_silu"
	Exponential Activation = "exponential"
)

// activations is the table of functions; adding one here makes it known to layers, specs and saved models.
var activations = map[Activation]func(x *graph.Node) *graph.Node{
	"":         func(x *graph.Node) *graph.Node { return x },
	Linear:     func(x *graph.Node) *graph.Node { return x },
	ReLU:       op.Relu,
	ReLU6:      func(x *graph.Node) *graph.Node { return op.Min(op.Relu(x), op.Like(x, 6)) },
	Softmax:    op.Softmax,
	LogSoftmax: op.LogSoftmax,
	Sigmoid:    op.Sigmoid,
	Tanh:       op.Tanh,
	GELU:       func(x *graph.Node) *graph.Node { return op.Gelu(x, false) },
	GELUTanh:   func(x *graph.Node) *graph.Node { return op.Gelu(x, true) },
	SiLU:       op.Silu,
	ELU:        func(x *graph.Node) *graph.Node { return op.Elu(x, 1) },
	SELU: func(x *graph.Node) *graph.Node {
		return op.Mul(op.Elu(x, 1.6732632423543772), op.Like(x, 1.0507009873554805))
	}, // arXiv:1706.02515
	LeakyReLU:   func(x *graph.Node) *graph.Node { return op.LeakyRelu(x, 0.2) },
	Softplus:    op.Softplus,
	Softsign:    func(x *graph.Node) *graph.Node { return op.Div(x, op.Add(op.Abs(x), op.Like(x, 1))) },
	HardSigmoid: hardSigmoid,
	HardSiLU:    func(x *graph.Node) *graph.Node { return op.Mul(x, hardSigmoid(x)) },
	Exponential: op.Exp,
}

func hardSigmoid(x *graph.Node) *graph.Node {
	return op.Min(op.Max(op.Add(op.Mul(x, op.Like(x, 1.0/6)), op.Like(x, 0.5)), op.Like(x, 0)), op.Like(x, 1))
}

// Activations lists the names of all activations in alphabetical order.
func Activations() []string {
	var out []string
	for a := range activations {
		if a != "" {
			out = append(out, string(a))
		}
	}
	slices.Sort(out)
	return out
}

func (a Activation) check() error {
	if activations[a] == nil {
		return unknown("activation", string(a), Activations())
	}
	return nil
}

// on applies the activation, which has been checked, in the graph.
func (a Activation) on(c *Call, x *graph.Node) *graph.Node {
	if !x.DType().IsFloat() {
		c.Fail("activation %s takes floats, not %v", a, x.Type())
	}
	return activations[a](x)
}

// setting is an option that changes fields of the configurations that have them.
type setting struct {
	what string
	set  func(k kind) bool // false: the configuration has no such field
}

func (s setting) apply(l *Layer) {
	if !s.set(l.kind) {
		panic(fmt.Sprintf("nn: %s does not apply to %s", s.what, l.class))
	}
}
