package cpu

import (
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/kernel/order"
	"github.com/jouleml/joule/internal/kernel/reduce"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

func init() {
	rows[op.SortOp] = ordering("sort")
	rows[op.TopKOp] = ordering("top_k")
}

// ordering are the rows of sort and top_k, one for each element type.
func ordering(name string) []row {
	return []row{
		typed(name, dtype.F32, makeOrder[float32]), typed(name, dtype.F64, makeOrder[float64]), typed(name, dtype.BF16, makeOrder[dtype.BFloat16]),
		typed(name, dtype.I8, makeOrder[int8]), typed(name, dtype.U8, makeOrder[uint8]),
		typed(name, dtype.I32, makeOrder[int32]), typed(name, dtype.I64, makeOrder[int64]),
	}
}

// typed is a row for nodes whose first operand has elements of type dt.
func typed(name string, dt dtype.Type, make func(k *call) (string, func(), error)) row {
	return row{name: name, ok: func(n *graph.Node) bool { return n.Input(0).DType() == dt }, make: make}
}

func makeOrder[T order.Element](k *call) (string, func(), error) {
	s := k.in[0].t.Shape
	var p *order.Plan[T]
	switch a := k.n.Attrs().(type) {
	case op.SortAttrs:
		p = order.NewSort[T](s[:a.Axis].Size(), s[a.Axis], s[a.Axis+1:].Size(), a.Descending, k.pool.Threads())
	case op.TopKAttrs:
		r, c := rowsOf(s)
		p = order.NewTopK[T](r, c, a.K, k.pool.Threads())
	}
	k.scratch = p.Bytes()
	x, y, pos := k.in[0], k.out[0], k.out[1]
	return k.n.Op().Name, func() { p.Run(k.pool, view[T](y), view[int32](pos), view[T](x)) }, nil
}

// The folds of types other than f32 and bf16, on plain Go.
func init() {
	for o, f := range map[*graph.Op]reduce.Op{op.SumOp: reduce.Sum, op.MaxReduceOp: reduce.Max, op.MinReduceOp: reduce.Min, op.ProdOp: reduce.Prod} {
		extreme := f == reduce.Max || f == reduce.Min
		takes := func(n *graph.Node) bool {
			s, ok := middle(n)
			return ok && (s.Reduce > 0 || !extreme)
		}
		rows[o] = append(rows[o],
			plainFold("reduce "+f.String(), takes, fold[float64](f)), plainFold("reduce "+f.String(), takes, fold[int8](f)), plainFold("reduce "+f.String(), takes, fold[uint8](f)),
			plainFold("reduce "+f.String(), takes, fold[int32](f)), plainFold("reduce "+f.String(), takes, fold[int64](f)))
	}
	for o, least := range map[*graph.Op]bool{op.ArgMaxOp: false, op.ArgMinOp: true} {
		rows[o] = append(rows[o], plainFold(o.Name, nil, arg[float64](least)), plainFold(o.Name, nil, arg[int8](least)), plainFold(o.Name, nil, arg[uint8](least)),
			plainFold(o.Name, nil, arg[int32](least)), plainFold(o.Name, nil, arg[int64](least)))
	}
	rows[op.CumSumOp] = append(rows[op.CumSumOp], plainFold("cumsum", nil, cumSum[float64]), plainFold("cumsum", nil, cumSum[int8]), plainFold("cumsum", nil, cumSum[uint8]),
		plainFold("cumsum", nil, cumSum[int32]), plainFold("cumsum", nil, cumSum[int64]))
}

type plainNumber interface {
	reduce.Number
	tensor.Elem
}

// plainFold is a row for nodes of which the operand's elements are T, if takes accepts them.
func plainFold[T plainNumber](name string, takes func(n *graph.Node) bool, plan func(n *graph.Node) *reduce.Plain[T]) row {
	r := typed(name, tensor.TypeOf[T](), func(k *call) (string, func(), error) {
		p := plan(k.n)
		x, y := k.in[0], k.out[0]
		if y.t.DType == x.t.DType {
			return name, func() { p.Run(k.pool, view[T](y), nil, view[T](x)) }, nil
		}
		return name, func() { p.Run(k.pool, nil, view[int32](y), view[T](x)) }, nil
	})
	if ofType := r.ok; takes != nil {
		r.ok = func(n *graph.Node) bool { return ofType(n) && takes(n) }
	}
	return r
}

func fold[T plainNumber](f reduce.Op) func(n *graph.Node) *reduce.Plain[T] {
	return func(n *graph.Node) *reduce.Plain[T] {
		s, _ := middle(n)
		return reduce.NewPlain[T](f, s.Outer, s.Reduce, s.Inner)
	}
}

func arg[T plainNumber](least bool) func(n *graph.Node) *reduce.Plain[T] {
	return func(n *graph.Node) *reduce.Plain[T] {
		s, a := n.Input(0).Shape(), n.Attrs().(op.AxisAttrs).Axis
		return reduce.NewPlainArg[T](s[:a].Size(), s[a], s[a+1:].Size(), least)
	}
}

func cumSum[T plainNumber](n *graph.Node) *reduce.Plain[T] {
	s, a := n.Input(0).Shape(), n.Attrs().(op.CumSumAttrs)
	return reduce.NewPlainCumSum[T](s[:a.Axis].Size(), s[a.Axis], s[a.Axis+1:].Size(), a.Exclusive, a.Reverse)
}
