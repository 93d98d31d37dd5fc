package pass

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// foldLimit is the greatest number of elements of a constant that Fold makes: beyond, computing it at each run is cheaper than
// holding it in memory.
const foldLimit = 1 << 14

// Fold replaces nodes of which all operands are constants. Broadcasts are left alone: kernels read through them.
func Fold(g *graph.Graph) (*graph.Graph, error) {
	return graph.Rewrite(g, func(to *graph.Graph, n *graph.Node, in []*graph.Node) *graph.Node {
		o := n.Op()
		if o.Kind == graph.Leaf || o == op.BroadcastOp || o == op.IotaOp || o.Ref == nil || len(n.Types()) != 1 || n.Shape().Size() > foldLimit {
			return nil
		}
		vals := make([]graph.Value, len(in))
		for i, x := range in {
			c := graph.ConstOf(x)
			if c == nil {
				return nil
			}
			vals[i] = ref.ValueOf(c)
		}
		if len(in) == 0 {
			return nil
		}
		out := tensor.New(n.DType(), n.Shape()...)
		for i, v := range graph.EvalNode(n, vals)[0].Data {
			out.Set(i, v)
		}
		return to.Const(out)
	})
}

// CSE merges nodes that apply one op with equal attributes to the same operands. The first of them stays, with its scope and phase.
func CSE(g *graph.Graph) (*graph.Graph, error) {
	type key struct {
		op    *graph.Op
		attrs string
		in    string
	}
	seen := map[key]*graph.Node{}
	return graph.Rewrite(g, func(to *graph.Graph, n *graph.Node, in []*graph.Node) *graph.Node {
		o := n.Op()
		if o == graph.OpInput || o == graph.OpVariable {
			return nil
		}
		k := key{op: o}
		switch {
		case o == graph.OpConst:
			c := graph.ConstOf(n)
			if c.Len() > 64 {
				return nil
			}
			k.attrs = c.DType().String() + c.Shape().String() + string(c.Bytes())
		case !plain(reflect.TypeOf(n.Attrs())):
			return nil
		default:
			k.attrs = fmt.Sprintf("%#v", n.Attrs())
		}
		for _, x := range in {
			k.in += fmt.Sprint(x.ID(), ",")
		}
		if old := seen[k]; old != nil {
			return old
		}
		c := to.Copy(n, in)
		seen[k] = c
		return c
	})
}

// plain reports whether a printed attribute struct says all about it: it holds no pointers, functions or graphs.
func plain(t reflect.Type) bool {
	if t == nil {
		return true
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Interface, reflect.Chan, reflect.Map:
		return false
	case reflect.Struct:
		for i := range t.NumField() {
			if !plain(t.Field(i).Type) {
				return false
			}
		}
	case reflect.Slice, reflect.Array:
		return plain(t.Elem())
	}
	return true
}

// scalar is the value of a constant of rank 0, or of one broadcast.
func scalar(n *graph.Node) (float64, bool) {
	if n.Op() == op.BroadcastOp {
		n = n.Input(0)
	}
	if c := graph.ConstOf(n); c != nil && c.Len() == 1 {
		return c.At(0), true
	}
	return 0, false
}

// holds reports whether the type wide has every value of the float type t.
func holds(wide, t dtype.Type) bool {
	return t.IsFloat() && (wide == dtype.F64 || wide == dtype.F32 && t == dtype.BF16)
}

// Digits leaves out a rounding to bf16 between two nodes of the backward pass that are both of f32: a gradient that nobody multiplies in bf16, such as that of a weight on its way
// to the optimizer, need not lose its digits. It is the only pass that changes values, and it makes them more exact. (XLA has it as xla_allow_excess_precision.)
func Digits(g *graph.Graph) (*graph.Graph, error) {
	return graph.Rewrite(g, func(to *graph.Graph, n *graph.Node, in []*graph.Node) *graph.Node {
		if n.Op() != op.ConvertOp || n.DType() != dtype.F32 || n.Phase() != graph.Backward {
			return nil
		}
		x := in[0]
		var shapes []*graph.Node // reshapes and transposes between, which move elements alone
		for x.Op() == op.ReshapeOp || x.Op() == op.TransposeOp {
			shapes = append(shapes, x)
			x = x.Input(0)
		}
		if x.Op() != op.ConvertOp || x.DType() != dtype.BF16 || x.Input(0).DType() != dtype.F32 || x.Phase() != graph.Backward {
			return nil
		}
		y := x.Input(0)
		for _, s := range slices.Backward(shapes) {
			y = to.Apply(s.Op(), s.Attrs(), y)
		}
		return y
	})
}

// Simplify applies rules that hold for every value, infinities and NaN included. (x·0 is not among them.)
func Simplify(g *graph.Graph) (*graph.Graph, error) {
	return graph.Rewrite(g, func(to *graph.Graph, n *graph.Node, in []*graph.Node) *graph.Node {
		is := func(i int, v float64) bool {
			c, ok := scalar(in[i])
			return ok && c == v
		}
		switch n.Op() {
		case op.MulOp:
			switch {
			case is(1, 1):
				return in[0]
			case is(0, 1):
				return in[1]
			case is(1, -1):
				return op.Neg(in[0])
			}
		case op.AddOp:
			switch { // x + 0 is x but for the sign of a zero
			case is(1, 0):
				return in[0]
			case is(0, 0):
				return in[1]
			}
		case op.SubOp:
			if is(1, 0) {
				return in[0]
			}
		case op.DivOp:
			if is(1, 1) {
				return in[0]
			}
		case op.NegOp:
			if in[0].Op() == op.NegOp {
				return in[0].Input(0)
			}
		case op.ConvertOp:
			if in[0].DType() == n.DType() {
				return in[0]
			}
			x := in[0]
			if x.Op() == op.ReshapeOp {
				x = x.Input(0)
			}
			if x.Op() == op.ConvertOp && holds(x.DType(), x.Input(0).DType()) { // nothing was lost on the way
				y := op.Convert(x.Input(0), n.DType())
				if !y.Shape().Equal(n.Shape()) {
					y = op.Reshape(y, n.Shape()...)
				}
				return y
			}
		case op.StopGradientOp:
			return in[0]
		case op.ReshapeOp:
			if in[0].Op() == op.ReshapeOp {
				return op.Reshape(in[0].Input(0), n.Shape()...)
			}
			if in[0].Shape().Equal(n.Shape()) {
				return in[0]
			}
		case op.BroadcastOp:
			if in[0].Shape().Equal(n.Shape()) {
				return in[0]
			}
			if in[0].Op() == op.BroadcastOp {
				return op.BroadcastTo(in[0].Input(0), n.Shape()...)
			}
			// A reshape that only adds or drops leading ones is part of the broadcast.
			if in[0].Op() == op.ReshapeOp && len(in[0].Input(0).Shape()) == 0 {
				return op.BroadcastTo(in[0].Input(0), n.Shape()...)
			}
		case op.SumOp, op.MaxReduceOp, op.MinReduceOp, op.ProdOp:
			if len(n.Attrs().(op.AxesAttrs).Axes) == 0 {
				return in[0]
			}
		}
		return nil
	})
}
