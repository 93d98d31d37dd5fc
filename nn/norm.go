package nn

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

func init() {
	classes["BatchNormalization"] = func() kind { return newBatchNorm() }
	classes["LayerNormalization"] = func() kind { return &layerNorm{defaultNorm} }
}

// norm are the settings shared by normalisations.
type norm struct {
	Axis      int         `json:"axis"`
	Epsilon   float64     `json:"epsilon"`
	Center    bool        `json:"center"`
	Scale     bool        `json:"scale"`
	BetaInit  Initializer `json:"beta_initializer"`
	GammaInit Initializer `json:"gamma_initializer"`
}

var defaultNorm = norm{-1, 1e-3, true, true, Zeros, Ones}

func (n *norm) normal() *norm { return n }

type normalizing interface{ normal() *norm }

// Epsilon sets what a normalisation adds to the variance (0.001).
func Epsilon(e float64) Option {
	return setting{"Epsilon", func(k kind) bool {
		n, ok := k.(normalizing)
		if ok {
			n.normal().Epsilon = e
		}
		return ok
	}}
}

// NoScale leaves out the factor γ of a normalisation.
func NoScale() Option {
	return setting{"NoScale", func(k kind) bool {
		n, ok := k.(normalizing)
		if ok {
			n.normal().Scale = false
		}
		return ok
	}}
}

func (n *norm) check() error {
	if n.Axis != -1 {
		return fmt.Errorf("axis must be -1, the last: others are not supported, not %d", n.Axis)
	}
	if !(n.Epsilon > 0) || finite("epsilon", n.Epsilon) != nil {
		return fmt.Errorf("epsilon must be a positive number, not %g", n.Epsilon)
	}
	return first(n.BetaInit.check("beta_initializer"), n.GammaInit.check("gamma_initializer"))
}

// operand checks that the features are the last axis, after the batch.
func (n *norm) operand(c *Call, x []*graph.Node) (in *graph.Node, channels int) {
	in = only(c, x)
	s := in.Shape()
	if len(s) < 2 || s.Size() == 0 || !in.DType().IsFloat() {
		c.Fail("takes floats [batch … features], not %v", in.Type())
	}
	return in, s[len(s)-1]
}

// params are γ and β, learned or constant.
func (n *norm) params(c *Call, channels int) (gamma, beta *graph.Node) {
	t := graph.T(dtype.F32, channels)
	if n.Scale {
		gamma = c.Param("gamma", n.GammaInit, true, channels)
	} else {
		gamma = op.Full(c.G, t, 1)
	}
	if n.Center {
		beta = c.Param("beta", n.BetaInit, true, channels)
	} else {
		beta = op.Full(c.G, t, 0)
	}
	return gamma, beta
}

type batchNorm struct {
	norm
	Momentum     float64     `json:"momentum"`
	MeanInit     Initializer `json:"moving_mean_initializer"`
	VarianceInit Initializer `json:"moving_variance_initializer"`
}

func newBatchNorm() *batchNorm { return &batchNorm{defaultNorm, 0.99, Zeros, Ones} }

// BatchNormalization makes each channel's mean 0 and variance 1 over the batch and all positions, times γ plus β (arXiv:1502.03167). It keeps moving
// averages of both, moving·momentum + batch·(1-momentum) after each training step, which take the batch's place outside training.
func BatchNormalization(opts ...Option) *Layer {
	return layer("BatchNormalization", newBatchNorm(), opts)
}

// Momentum sets the share of a BatchNormalization's moving averages that a step keeps (0.99).
func Momentum(m float64) Option {
	return setting{"Momentum", func(k kind) bool {
		b, ok := k.(*batchNorm)
		if ok {
			b.Momentum = m
		}
		return ok
	}}
}

func (b *batchNorm) check() error {
	if !(b.Momentum >= 0 && b.Momentum <= 1) {
		return fmt.Errorf("momentum must be in [0, 1], not %g", b.Momentum)
	}
	return first(b.norm.check(), b.MeanInit.check("moving_mean_initializer"), b.VarianceInit.check("moving_variance_initializer"))
}

func (b *batchNorm) call(c *Call, x []*graph.Node) *graph.Node {
	in, channels := b.operand(c, x)
	gamma, beta := b.params(c, channels)
	mean := c.Param("moving_mean", b.MeanInit, false, channels)
	variance := c.Param("moving_variance", b.VarianceInit, false, channels)
	own := c.Prefix + c.layer.name + "/" + c.prefix
	if !c.Training || c.frozen(own+"gamma") || c.frozen(own+"moving_mean") {
		factor := op.Mul(gamma, op.Rsqrt(op.Add(variance, op.Like(variance, b.Epsilon))))
		return op.Add(op.Mul(op.Sub(in, mean), factor), beta)
	}
	var y, m, v *graph.Node
	if c.Mean == nil {
		y, m, v = op.BatchNorm(in, gamma, beta, b.Epsilon)
	} else {
		axes := make([]int, len(in.Shape())-1)
		for i := range axes {
			axes[i] = i
		}
		m = c.Mean(op.Mean(in, axes...))
		d := op.Sub(in, m)
		v = c.Mean(op.Mean(op.Mul(d, d), axes...))
		y = op.Add(op.Mul(d, op.Mul(op.Rsqrt(op.Add(v, op.Like(v, b.Epsilon))), gamma)), beta)
	}
	c.move(mean, m, b.Momentum)
	c.move(variance, v, b.Momentum)
	return y
}

// move makes the run leave moving·momentum + now·(1-momentum) in a variable. A layer that is applied several times moves its variables once for each,
// in order; Model.Call adds the updates at its end.
func (c *Call) move(v, now *graph.Node, momentum float64) {
	for i := range c.moves {
		if c.moves[i].Var == v {
			c.moves[i].Value = moved(c.G, c.moves[i].Value, now, momentum)
			return
		}
	}
	c.moves = append(c.moves, graph.Assign{Var: v, Value: moved(c.G, v, now, momentum)})
}

func moved(g *graph.Graph, old, now *graph.Node, momentum float64) (y *graph.Node) {
	g.During(graph.Update, func() { // old - old·(1-momentum) + now·(1-momentum): a step of the plainest rule, so that it is taken with all the others
		num := func(v float64) *graph.Node { return op.Scalar(g, old.DType(), v) }
		y, _ = op.Update(op.UpdateAttrs{Rule: "sgd"}, old, op.StopGradient(now), nil, num(momentum-1), num(1-momentum), num(1))
	})
	return y
}

type layerNorm struct{ norm }

// LayerNormalization makes each position's features of mean 0 and variance 1, times γ plus β (arXiv:1607.06450).
func LayerNormalization(opts ...Option) *Layer {
	return layer("LayerNormalization", &layerNorm{defaultNorm}, opts)
}

func (l *layerNorm) call(c *Call, x []*graph.Node) *graph.Node {
	in, channels := l.operand(c, x)
	gamma, beta := l.params(c, channels)
	return op.LayerNorm(in, gamma, beta, l.Epsilon)
}
