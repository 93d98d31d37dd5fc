package op

import (
	"fmt"

	"github.com/jouleml/joule/graph"
)

// UpdateOp is a step of an optimizer; SumSquaresOp is what its gradients are clipped by.
var UpdateOp, SumSquaresOp *graph.Op

// UpdateAttrs are a rule for updates and its constants.
type UpdateAttrs struct {
	Rule               string  // sgd, adam, rmsprop or lion
	Momentum           float64 `json:",omitzero"` // sgd, rmsprop: μ
	Nesterov, Centered bool    `json:",omitzero"` // sgd; rmsprop
	Beta1, Beta2       float64 `json:",omitzero"` // adam, lion
	Rho, Epsilon       float64 `json:",omitzero"` // rmsprop; adam, rmsprop
}

// Slots is how many arrays of state the rule keeps for a parameter: sgd none, or m with momentum; adam m and v; rmsprop v, m with momentum and the mean a if centered; lion m.
func (a UpdateAttrs) Slots() int {
	n := 0
	switch a.Rule {
	case "adam":
		return 2
	case "lion":
		return 1
	case "rmsprop":
		n = 1
		if a.Centered {
			n = 2
		}
	}
	if a.Momentum != 0 {
		n++
	}
	return n
}

// Operands is how many operands a parameter has: itself, its gradient, its slots, and the scalars rate, shrink and scale.
func (a UpdateAttrs) Operands() int { return 5 + a.Slots() }

// updated is the step of one parameter: its new values and slots.
func (a UpdateAttrs) updated(in []*node) []*node {
	k := a.Slots()
	w, g, s := in[0], in[1], in[2:2+k]
	rate, shrink, scale := in[2+k], in[3+k], in[4+k]
	if v, ok := number(scale); !ok || v != 1 {
		g = Mul(g, scale)
	}
	if v, ok := number(shrink); !ok || v != 0 {
		w = Sub(w, Mul(w, shrink))
	}
	like := func(v float64) *node { return Like(g, v) }
	mix := func(old *node, b float64, new *node) *node { return Add(Mul(old, like(b)), Mul(new, like(1-b))) }
	switch a.Rule {
	case "adam":
		m := Add(s[0], Mul(Sub(g, s[0]), like(1-a.Beta1)))
		v := Add(s[1], Mul(Sub(Mul(g, g), s[1]), like(1-a.Beta2)))
		return []*node{Sub(w, Div(Mul(m, rate), Add(Sqrt(v), like(a.Epsilon)))), m, v}
	case "lion":
		return []*node{Sub(w, Mul(rate, Sign(mix(s[0], a.Beta1, g)))), mix(s[0], a.Beta2, g)}
	case "rmsprop":
		v := mix(s[0], a.Rho, Mul(g, g))
		out, under := []*node{nil, v}, v
		if a.Centered {
			mean := mix(s[len(s)-1], a.Rho, g)
			out, under = append(out, mean), Sub(v, Mul(mean, mean))
		}
		step := Div(Mul(rate, g), Sqrt(Add(under, like(a.Epsilon))))
		if a.Momentum != 0 {
			step = Add(Mul(s[1], like(a.Momentum)), step)
			out = append(out[:2:2], append([]*node{step}, out[2:]...)...)
		}
		out[0] = Sub(w, step)
		return out
	}
	step := Mul(rate, g)
	if a.Momentum == 0 {
		return []*node{Sub(w, step)}
	}
	m := Sub(Mul(s[0], like(a.Momentum)), step)
	if a.Nesterov {
		return []*node{Add(w, Sub(Mul(m, like(a.Momentum)), step)), m}
	}
	return []*node{Add(w, m), m}
}

// number is the value of a constant of one element.
func number(n *node) (float64, bool) {
	if c := graph.ConstOf(n); c != nil && c.Len() == 1 {
		return c.At(0), true
	}
	return 0, false
}

func init() {
	UpdateOp = add(def[UpdateAttrs]{
		Name: "update", Doc: "a step of an optimizer for each parameter: its new values and slots from itself, its gradient, its slots and the scalars rate (of adam: corrected for the bias), shrink and scale; first the parameter loses a share shrink of itself and the gradient is scaled",
		Kind: graph.Elementwise,
		Infer: func(a UpdateAttrs, in []typ) ([]typ, error) {
			switch a.Rule {
			case "sgd", "adam", "rmsprop", "lion":
			default:
				return nil, fmt.Errorf("there is no rule %q: the rules are sgd, adam, rmsprop and lion", a.Rule)
			}
			each, k := a.Operands(), a.Slots()
			if len(in) == 0 || len(in)%each != 0 {
				return nil, fmt.Errorf("takes %d operands for each parameter, was given %d", each, len(in))
			}
			if err := floats(len(in))(in); err != nil {
				return nil, err
			}
			var out []typ
			for p := in; len(p) > 0; p = p[each:] {
				for _, t := range p[1 : 2+k] {
					if !t.Shape.Equal(p[0].Shape) {
						return nil, fmt.Errorf("a parameter %v, its gradient and its slots must have one shape, not %v", p[0].Shape, t.Shape)
					}
				}
				for _, t := range p[2+k : each] {
					if len(t.Shape) != 0 {
						return nil, fmt.Errorf("rate, shrink and scale must be scalars, not %v", t.Shape)
					}
				}
				out = append(append(out, p[0]), p[2:2+k]...)
			}
			return out, nil
		},
		Decompose: func(a UpdateAttrs, in []*node) []*node {
			var out []*node
			for p := in; len(p) > 0; p = p[a.Operands():] {
				out = append(out, a.updated(p[:a.Operands()])...)
			}
			return out
		},
		FLOPs: func(a UpdateAttrs, in, _ []typ) (n int64) {
			each := map[string]int64{"sgd": 2, "adam": 12, "rmsprop": 9, "lion": 9}[a.Rule] // and two for shrink and scale
			if a.Momentum != 0 {
				each += 2
			}
			if a.Centered {
				each += 5
			}
			for p := in; len(p) > 0; p = p[a.Operands():] {
				n += (each + 2) * int64(p[0].Shape.Size())
			}
			return n
		},
		Samples: updateSamples(),
	})
	SumSquaresOp = add(def[none]{
		Name: "sum_squares", Doc: "the sum of the squares of all elements of all operands, a scalar: the square of a global norm", Kind: graph.Reduction,
		Infer: func(_ none, in []typ) ([]typ, error) {
			if len(in) == 0 {
				return nil, fmt.Errorf("takes at least one operand")
			}
			for _, t := range in {
				if !t.DType.IsFloat() || t.DType != in[0].DType {
					return nil, fmt.Errorf("takes floats of one element type, not %v and %v", in[0], t)
				}
			}
			return one(in[0].DType, nil)
		},
		Decompose: func(_ none, in []*node) []*node {
			var sum *node
			for _, x := range in {
				s := SumAll(Mul(x, x))
				if sum == nil {
					sum = s
				} else {
					sum = Add(sum, s)
				}
			}
			return []*node{sum}
		},
		FLOPs: func(_ none, in, _ []typ) (n int64) {
			for _, t := range in {
				n += 2 * int64(t.Shape.Size())
			}
			return n
		},
		Samples: []graph.Sample{{Name: "one", In: types(f32(5, 37))}, {Name: "several", In: types(f32(5, 37), f32(), f32(3, 1, 2), f32(0, 4))},
			{Name: "none", Bad: "at least one"}, {Name: "types", In: types(f32(3), u8(3)), Bad: "one element type"}},
	})
}

// updateSamples are every rule on two parameters.
func updateSamples() (out []graph.Sample) {
	for _, c := range []struct {
		name string
		a    UpdateAttrs
	}{
		{"sgd", UpdateAttrs{Rule: "sgd"}},
		{"momentum", UpdateAttrs{Rule: "sgd", Momentum: 0.9}},
		{"nesterov", UpdateAttrs{Rule: "sgd", Momentum: 0.9, Nesterov: true}},
		{"adam", UpdateAttrs{Rule: "adam", Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}},
		{"rmsprop", UpdateAttrs{Rule: "rmsprop", Rho: 0.9, Epsilon: 1e-7}},
		{"rmsprop with momentum", UpdateAttrs{Rule: "rmsprop", Rho: 0.9, Epsilon: 1e-7, Momentum: 0.5}},
		{"rmsprop, centered", UpdateAttrs{Rule: "rmsprop", Rho: 0.9, Epsilon: 2, Centered: true}},
		{"rmsprop, all", UpdateAttrs{Rule: "rmsprop", Rho: 0.9, Epsilon: 2, Centered: true, Momentum: 0.5}},
		{"lion", UpdateAttrs{Rule: "lion", Beta1: 0.9, Beta2: 0.99}},
	} {
		s := graph.Sample{Name: c.name, Attrs: c.a, Lo: 0.1, Hi: 1}
		for _, t := range types(f32(3, 67), f32(5)) {
			for range 2 + c.a.Slots() {
				s.In = append(s.In, t)
			}
			s.In = append(s.In, f32(), f32(), f32())
		}
		out = append(out, s)
	}
	adam := UpdateAttrs{Rule: "adam", Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}
	return append(out,
		graph.Sample{Name: "shapes", Attrs: adam, In: types(f32(3), f32(3), f32(4), f32(3), f32(), f32(), f32()), Bad: "one shape"},
		graph.Sample{Name: "scalars", Attrs: adam, In: types(f32(3), f32(3), f32(3), f32(3), f32(3), f32(), f32()), Bad: "must be scalars"},
		graph.Sample{Name: "count", Attrs: adam, In: types(f32(3), f32(3)), Bad: "7 operands for each parameter"},
		graph.Sample{Name: "rule", Attrs: UpdateAttrs{Rule: "adagrad"}, In: types(f32(3)), Bad: `no rule "adagrad"`})
}

// Update is a step of the rule a for parameter w with gradient g: the new values and slots. rate, shrink and scale are scalars; of adam the rate is corrected for the bias.
func Update(a UpdateAttrs, w, g *node, slots []*node, rate, shrink, scale *node) (w1 *node, slots1 []*node) {
	in := append(append([]*node{w, g}, slots...), rate, shrink, scale)
	n := w.Graph().Apply(UpdateOp, a, in...)
	for i := range slots {
		slots1 = append(slots1, n.Part(1+i))
	}
	return n.Part(0), slots1
}

// SumSquares is the sum of the squares of all elements of all operands.
func SumSquares(xs ...*node) *node { return xs[0].Graph().Apply(SumSquaresOp, none{}, xs...) }
