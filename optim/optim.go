// Package optim builds the updates of training: from weights and gradients to new weights, as nodes of the step's graph.
//
// Formulas and defaults are those of Keras 3. The learning rate is an input of the graph, so that schedules and callbacks may set it at each step;
// the step count is a variable, so that a resumed run goes on where it stopped.
package optim

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
)

// IterationVar is the variable that counts the updates done, i64.
const IterationVar = "optimizer/iteration"

// Optimizer is a rule for updates and its settings.
type Optimizer struct {
	Name     string
	Schedule Schedule // the learning rate

	WeightDecay    float64 // decoupled: weights shrink by rate·WeightDecay before each update (arXiv:1711.05101); biases and norms are spared
	ClipValue      float64 // if > 0: every element of a gradient is kept in ±ClipValue
	ClipNorm       float64 // if > 0: each gradient is scaled down to at most this norm
	GlobalClipNorm float64 // if > 0: all gradients together are scaled down to at most this norm

	rule func(u *update) *graph.Node // the new weights
	adam *op.UpdateAttrs             // of Adam and AdamW
}

// update is the update of one parameter.
type update struct {
	g       *graph.Graph
	name    string
	w, grad *graph.Node
	rate    *graph.Node // scalar f32
	shrink  *graph.Node // scalar: the share of itself that the parameter loses
	scale   *graph.Node // scalar: of the gradient
	t       *graph.Node // the number of this update, from 1, scalar f32
	once    map[string]*graph.Node
	factor  float64 // of the rate; 0: 1
	since   string  // names the counter of updates, "" the optimizer's own
}

// slot is a variable of the weights' type that belongs to the parameter, zero at first.
func (u *update) slot(name string) *graph.Node {
	return u.g.Variable("optimizer/"+u.name+"/"+name, u.w.Type())
}

// shared makes a scalar once for all parameters of one factor.
func (u *update) shared(name string, f func() *graph.Node) *graph.Node {
	if u.factor != 0 {
		name += fmt.Sprint(" ", u.factor)
	}
	if u.since != "" {
		name += " since " + u.since
	}
	if u.once[name] == nil {
		u.once[name] = f()
	}
	return u.once[name]
}

func (u *update) num(v float64) *graph.Node { return op.Scalar(u.g, u.w.DType(), v) }

// Build adds to the graph the updates of params from their gradients. rate is a scalar f32.
func (o *Optimizer) Build(g *graph.Graph, params []nn.Param, grads []*graph.Node, rate *graph.Node) {
	ws := make([]*graph.Node, len(params))
	for i, p := range params {
		ws[i] = g.Variable(p.Name, p.Type)
	}
	var scales []*graph.Node
	g.During(graph.Update, func() { grads, scales = o.clip(g, grads) })
	for i, w := range o.updates(g, params, ws, grads, scales, rate) {
		g.Update(ws[i], w)
	}
}

// BuildParts gives the new values of parts of parameters from their old values ws and gradients, all of one type for each, which params have as theirs: state belongs to the part alone.
// Where norms are limited each gradient is multiplied by its factor, a scalar f32, which Factors finds from all parts; factors is nil otherwise.
func (o *Optimizer) BuildParts(g *graph.Graph, params []nn.Param, ws, grads, factors []*graph.Node, rate *graph.Node) (out []*graph.Node) {
	g.During(graph.Update, func() {
		grads = slices.Clone(grads)
		for i := range grads {
			grads[i] = o.clipValue(g, grads[i])
		}
	})
	return o.updates(g, params, ws, grads, factors, rate)
}

// Beta1 is the share of Adam's momentum that a step keeps; ok is false of other optimizers.
func (o *Optimizer) Beta1() (b float64, ok bool) {
	if o.adam == nil {
		return 0, false
	}
	return o.adam.Beta1, true
}

// BuildMomenta is Build from the new momenta in place of gradients, with the second moments as they were after warm updates (1-bit Adam; Tang et al., arXiv:2102.02888): m = momentum;
// w -= rate·√(1-β2^warm)/(1-β1^t)·m/(√v + ε). Gradients cannot be clipped.
func (o *Optimizer) BuildMomenta(g *graph.Graph, params []nn.Param, momenta []*graph.Node, rate *graph.Node, warm int64) {
	own := *o
	own.rule = func(u *update) *graph.Node {
		a := o.adam
		alpha := u.shared("momenta/alpha", func() *graph.Node {
			rest := op.Neg(op.Expm1(op.Mul(u.t, u.num(math.Log(a.Beta1)))))
			return op.Div(op.Mul(u.rate, u.num(math.Sqrt(-math.Expm1(float64(warm)*math.Log(a.Beta2))))), rest)
		})
		g.Update(u.slot("m"), u.grad)
		w := u.w
		if o.WeightDecay != 0 {
			w = op.Sub(w, op.Mul(w, u.shrink))
		}
		return op.Sub(w, op.Div(op.Mul(alpha, u.grad), op.Add(op.Sqrt(u.slot("v")), u.num(a.Epsilon))))
	}
	own.Build(g, params, momenta, rate)
}

// Squares is the sum of squares, scalar f32, that Factors takes of a gradient, or of each part of it.
func (o *Optimizer) Squares(g *graph.Graph, grad *graph.Node) *graph.Node {
	return op.SumSquares(o.clipValue(g, grad))
}

// LimitsNorms reports whether ClipNorm or GlobalClipNorm is set, for which whole gradients must be known.
func (o *Optimizer) LimitsNorms() bool { return o.ClipNorm > 0 || o.GlobalClipNorm > 0 }

// Factors gives what each gradient is multiplied by so that the norms are within their limits, from the sum of squares of each.
func (o *Optimizer) Factors(squares []float64) []float32 {
	scale := func(square, limit float64) float64 { return min(1, limit/max(math.Sqrt(square), 1e-30)) }
	f, total := make([]float64, len(squares)), 0.0
	for i, s := range squares {
		f[i] = 1
		if o.ClipNorm > 0 {
			f[i] = scale(s, o.ClipNorm)
		}
		total += f[i] * f[i] * s
	}
	out := make([]float32, len(f))
	for i, v := range f {
		if o.GlobalClipNorm > 0 {
			v *= scale(total, o.GlobalClipNorm)
		}
		out[i] = float32(v)
	}
	return out
}

// updates gives the new values of ws. Each gradient is multiplied by its scale, a scalar; scales is nil where none is.
func (o *Optimizer) updates(g *graph.Graph, params []nn.Param, ws, grads, scales []*graph.Node, rate *graph.Node) []*graph.Node {
	out := make([]*graph.Node, len(params))
	g.During(graph.Update, func() {
		counters := map[string]*graph.Node{}
		count := func(name string) *graph.Node { // of updates, this one included
			if counters[name] == nil {
				it := g.Variable(name, graph.T(dtype.I64))
				next := op.Add(it, op.Scalar(g, dtype.I64, 1))
				g.Update(it, next)
				counters[name] = op.Convert(next, dtype.F32)
			}
			return counters[name]
		}
		t := count(IterationVar)
		once := map[string]*graph.Node{}
		for i, p := range params {
			w := ws[i]
			g.As(grads[i], graph.Update, func() {
				u := &update{g: g, name: p.Name, w: w, grad: grads[i], rate: rate, t: t, once: once, since: p.Since}
				if p.Since != "" {
					u.t = count(IterationVar + "/" + p.Since)
				}
				if u.scale = u.num(1); scales != nil {
					u.scale = scales[i]
				}
				if f := p.RateFactor; f != 0 && f != 1 {
					u.factor = f
					u.rate = u.shared("rate", func() *graph.Node { return op.Mul(rate, u.num(f)) })
				}
				u.shrink = u.num(0)
				if o.WeightDecay != 0 && p.Decay {
					u.shrink = u.shared("shrink", func() *graph.Node { return op.Mul(u.rate, u.num(o.WeightDecay)) })
				}
				out[i] = o.rule(u)
			})
		}
	})
	return out
}

func (o *Optimizer) clipValue(g *graph.Graph, d *graph.Node) *graph.Node {
	if o.ClipValue <= 0 {
		return d
	}
	return op.Min(op.Max(d, op.Scalar(g, dtype.F32, -o.ClipValue)), op.Scalar(g, dtype.F32, o.ClipValue))
}

// clip gives the gradients, of which each element is clipped, and the scalars that they are scaled by: down to at most the norms that are set.
func (o *Optimizer) clip(g *graph.Graph, grads []*graph.Node) (out, scales []*graph.Node) {
	num := func(v float64) *graph.Node { return op.Scalar(g, dtype.F32, v) }
	// scale is what brings a norm down to limit: 1 where it is below.
	scale := func(square *graph.Node, limit float64) *graph.Node {
		return op.Min(op.Div(num(limit), op.Max(op.Sqrt(square), num(1e-30))), num(1))
	}
	var total *graph.Node // the square of the norm of all, clipped by then
	for _, d := range grads {
		d = o.clipValue(g, d)
		s := num(1)
		if o.ClipNorm > 0 {
			square := op.SumSquares(d)
			s = scale(square, o.ClipNorm)
			if square = op.Mul(square, op.Mul(s, s)); total == nil {
				total = square
			} else {
				total = op.Add(total, square)
			}
		}
		out, scales = append(out, d), append(scales, s)
	}
	if o.GlobalClipNorm > 0 && len(out) > 0 {
		if total == nil {
			total = op.SumSquares(out...)
		}
		all := scale(total, o.GlobalClipNorm)
		for i, s := range scales {
			if scales[i] = all; o.ClipNorm > 0 {
				scales[i] = op.Mul(s, all)
			}
		}
	}
	return out, scales
}

// Setting changes an optimizer when it is made.
type Setting func(o *Optimizer)

// Rate sets a constant learning rate.
func Rate(lr float64) Setting { return func(o *Optimizer) { o.Schedule = Constant(lr) } }

// Scheduled sets a schedule of learning rates.
func Scheduled(s Schedule) Setting { return func(o *Optimizer) { o.Schedule = s } }

// Decay sets decoupled weight decay.
func Decay(d float64) Setting { return func(o *Optimizer) { o.WeightDecay = d } }

// ClipValue bounds each element of a gradient.
func ClipValue(v float64) Setting { return func(o *Optimizer) { o.ClipValue = v } }

// ClipNorm bounds the norm of each gradient.
func ClipNorm(n float64) Setting { return func(o *Optimizer) { o.ClipNorm = n } }

// GlobalClipNorm bounds the norm of all gradients together.
func GlobalClipNorm(n float64) Setting { return func(o *Optimizer) { o.GlobalClipNorm = n } }

func build(name string, rate float64, rule func(u *update) *graph.Node, set []Setting) *Optimizer {
	o := &Optimizer{Name: name, Schedule: Constant(rate), rule: rule}
	for _, s := range set {
		s(o)
	}
	return o
}

// Check reports settings that make no sense.
func (o *Optimizer) Check() error {
	if o.WeightDecay < 0 || o.ClipValue < 0 || o.ClipNorm < 0 || o.GlobalClipNorm < 0 {
		return fmt.Errorf("optim: %s: weight decay and clipping must not be negative", o.Name)
	}
	if r := o.Schedule.At(0); r < 0 || math.IsNaN(r) || math.IsInf(r, 0) {
		return fmt.Errorf("optim: %s: a learning rate of %g makes no sense", o.Name, r)
	}
	return nil
}

// step is the new parameter by rule a, with its slots under the given names.
func (u *update) step(a op.UpdateAttrs, rate *graph.Node, names ...string) *graph.Node {
	var slots []*graph.Node
	for _, n := range names {
		slots = append(slots, u.slot(n))
	}
	w, next := op.Update(a, u.w, u.grad, slots, rate, u.shrink, u.scale)
	for i, s := range slots {
		u.g.Update(s, next[i])
	}
	return w
}

// SGD is gradient descent with momentum μ (0: none), Nesterov's or not: m = μ·m - rate·g; w += m, or w += μ·m - rate·g. Rate 0.01.
func SGD(momentum float64, nesterov bool, set ...Setting) *Optimizer {
	return build("sgd", 0.01, func(u *update) *graph.Node {
		if momentum == 0 {
			return u.step(op.UpdateAttrs{Rule: "sgd"}, u.rate)
		}
		return u.step(op.UpdateAttrs{Rule: "sgd", Momentum: momentum, Nesterov: nesterov}, u.rate, "momentum")
	}, set)
}

// Adam is Kingma & Ba's (arXiv:1412.6980) with Keras's defaults: rate 0.001, β1 0.9, β2 0.999, ε 1e-7.
func Adam(set ...Setting) *Optimizer {
	a := op.UpdateAttrs{Rule: "adam", Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}
	o := build("adam", 0.001, func(u *update) *graph.Node { return adam(u, a) }, set)
	o.adam = &a
	return o
}

// AdamW is Adam with decoupled weight decay of 0.004 (arXiv:1711.05101; Keras's default).
func AdamW(set ...Setting) *Optimizer {
	o := Adam(append([]Setting{Decay(0.004)}, set...)...)
	o.Name = "adamw"
	return o
}

func adam(u *update, a op.UpdateAttrs) *graph.Node {
	// α = rate·√(1-β2^t)/(1-β1^t), with 1-β^t = -expm1(t·ln β), which loses no digits at small t.
	alpha := u.shared("adam/alpha", func() *graph.Node {
		rest := func(beta float64) *graph.Node {
			return op.Neg(op.Expm1(op.Mul(u.t, u.num(math.Log(beta)))))
		}
		return op.Mul(u.rate, op.Div(op.Sqrt(rest(a.Beta2)), rest(a.Beta1)))
	})
	return u.step(a, alpha, "m", "v")
}

// RMSprop is Hinton's (Coursera lecture 6e, 2012): v = ρ·v + (1-ρ)·g²; w -= rate·g/√(v + ε), with Keras's defaults: rate 0.001, ρ 0.9, ε 1e-7.
// momentum and centered are as in Keras.
func RMSprop(momentum float64, centered bool, set ...Setting) *Optimizer {
	a := op.UpdateAttrs{Rule: "rmsprop", Rho: 0.9, Epsilon: 1e-7, Momentum: momentum, Centered: centered}
	names := []string{"velocity"}
	if momentum != 0 {
		names = append(names, "momentum")
	}
	if centered {
		names = append(names, "average")
	}
	return build("rmsprop", 0.001, func(u *update) *graph.Node { return u.step(a, u.rate, names...) }, set)
}

// Lion is Chen et al.'s (arXiv:2302.06675): w -= rate·sign(β1·m + (1-β1)·g); m = β2·m + (1-β2)·g. Rate 0.001, β1 0.9, β2 0.99.
func Lion(set ...Setting) *Optimizer {
	return build("lion", 0.001, func(u *update) *graph.Node {
		return u.step(op.UpdateAttrs{Rule: "lion", Beta1: 0.9, Beta2: 0.99}, u.rate, "momentum")
	}, set)
}

// ByName makes the optimizer of the given name with its default settings, changed by set.
func ByName(name string, set ...Setting) (*Optimizer, error) {
	make, ok := byName[name]
	if !ok {
		return nil, fmt.Errorf("optim: unknown optimizer %q (known: %v)", name, Names())
	}
	return make(set...), nil
}

// Names lists the optimizers in alphabetical order.
func Names() []string { return slices.Sorted(maps.Keys(byName)) }

var byName = map[string]func(set ...Setting) *Optimizer{
	"sgd":     func(set ...Setting) *Optimizer { return SGD(0, false, set...) },
	"adam":    Adam,
	"adamw":   AdamW,
	"rmsprop": func(set ...Setting) *Optimizer { return RMSprop(0, false, set...) },
	"lion":    Lion,
}
