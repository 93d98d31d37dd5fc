package backendtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Gradients checks the gradient of every sample of an op, to order 2, in float64 on the reference: the derivative along a random
// direction against central differences.
func Gradients(t *testing.T, o *graph.Op) {
	if o.Grad == nil && o.GradOfBody == nil && o.Decompose == nil {
		if o.NoGrad == "" {
			t.Errorf("op %s has no gradient and no reason (NoGrad) why", o.Name)
		}
		return
	}
	for _, s := range o.Samples {
		if s.Bad != "" || s.NoGrad {
			continue
		}
		t.Run(o.Name+"/"+s.Name, func(t *testing.T) {
			in := Operands(wide(s), 1)
			for order := 1; order <= 2; order++ {
				if err := directional(o, s, in, order); err != nil {
					t.Errorf("order %d: %v", order, err)
					return
				}
			}
		})
	}
}

// wide is a sample with its f32 operands as f64.
func wide(s graph.Sample) graph.Sample {
	in := make([]graph.Type, len(s.In))
	for i, x := range s.In {
		if in[i] = x; x.DType == dtype.F32 {
			in[i].DType = dtype.F64
		}
	}
	s.In = in
	return s
}

// directional compares d/dε f(x + ε·u) at 0 with ∇f·u, where f is the op (order 1) or its gradient (order 2) weighted with fixed numbers.
func directional(o *graph.Op, s graph.Sample, in []*tensor.Tensor, order int) error {
	rng := rand.New(rand.NewPCG(7, uint64(order)))
	weighted := func(g *graph.Graph, ys []*graph.Node) *graph.Node {
		r := rand.New(rand.NewPCG(3, 5)) // the same weights at each call
		var loss *graph.Node
		for _, y := range ys {
			if !y.DType().IsFloat() {
				continue
			}
			w := tensor.New(dtype.F64, y.Shape()...)
			fill(w, r, -1, 1)
			l := op.SumAll(op.Mul(op.Convert(y, dtype.F64), g.Const(w)))
			if loss == nil {
				loss = l
			} else {
				loss = op.Add(loss, l)
			}
		}
		return loss
	}
	build := func(out string) (*graph.Graph, error) {
		return graph.Build(func(g *graph.Graph) {
			xs := make([]*graph.Node, len(in))
			var wrt []*graph.Node
			for i, x := range in {
				xs[i] = g.Input(fmt.Sprint("x", i), graph.TypeOf(x))
				if x.DType() == dtype.F64 {
					wrt = append(wrt, xs[i])
				}
			}
			y := g.Apply(o, s.Attrs, xs...)
			f := weighted(g, Parts(y))
			if f == nil || len(wrt) == 0 {
				f = op.Scalar(g, dtype.F64, 0)
			} else if order == 2 {
				f = weighted(g, grad.Of(f, wrt...))
			}
			if out == "value" {
				g.Output("f", f)
				return
			}
			for i, d := range grad.Of(f, wrt...) {
				g.Output(fmt.Sprint("d", i), d)
			}
		})
	}
	value, err := build("value")
	if err != nil {
		return err
	}
	slope, err := build("slope")
	if err != nil {
		return err
	}
	run := func(g *graph.Graph, x []*tensor.Tensor) ([]*tensor.Tensor, error) {
		st, _ := ref.Backend{}.NewState(nil)
		e, err := ref.Backend{}.Compile(g, st, backend.Options{})
		if err != nil {
			return nil, err
		}
		out := backend.NewOutputs(g)
		return out, e.Run(x, out)
	}
	ds, err := run(slope, in)
	if err != nil {
		return err
	}
	want, scale, k := 0.0, 0.0, 0
	const h = 1e-5
	up, down := clone(in), clone(in)
	for i, x := range in {
		if x.DType() != dtype.F64 {
			continue
		}
		for j := range x.Len() {
			u := rng.Float64()*2 - 1
			up[i].Set(j, x.At(j)+h*u)
			down[i].Set(j, x.At(j)-h*u)
			want += ds[k].At(j) * u
			scale += math.Abs(ds[k].At(j) * u)
		}
		k++
	}
	a, err := run(value, up)
	if err != nil {
		return err
	}
	b, err := run(value, down)
	if err != nil {
		return err
	}
	got := (a[0].At(0) - b[0].At(0)) / (2 * h)
	// Central differences: an error of h² times the third derivative, and of the values' rounding over h.
	if tol := 1e-5*(scale+math.Abs(got)) + 1e-7; math.Abs(got-want) > tol || got != got {
		return fmt.Errorf("along a random direction the gradient gives %.10g, differences give %.10g", want, got)
	}
	return nil
}

func clone(ts []*tensor.Tensor) []*tensor.Tensor {
	out := make([]*tensor.Tensor, len(ts))
	for i, t := range ts {
		out[i] = t.Clone()
	}
	return out
}
