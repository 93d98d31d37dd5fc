package cpu

import (
	"math"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/kernel/move"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

func init() {
	copying := func(o *graph.Op, name string, plan func(k *call, elem int, dims []int) *move.Copy) {
		rows[o] = []row{{name: name, make: func(k *call) (string, func(), error) {
			p := plan(k, k.in[0].t.DType.Size(), k.in[0].t.Shape)
			x, y := k.in[0], k.out[0]
			return name, func() { p.Run(k.pool, y.raw, x.raw) }, nil
		}}}
	}
	copying(op.BroadcastOp, "broadcast", func(k *call, elem int, dims []int) *move.Copy {
		return move.Broadcast(elem, dims, k.out[0].t.Shape)
	})
	copying(op.TransposeOp, "permute", func(k *call, elem int, dims []int) *move.Copy {
		return move.Permute(elem, dims, k.n.Attrs().(op.PermAttrs).Perm)
	})
	copying(op.SliceOp, "slice", func(k *call, elem int, dims []int) *move.Copy {
		a := k.n.Attrs().(op.SliceAttrs)
		return move.Slice(elem, dims, a.Start, a.Limit, a.Stride)
	})
	copying(op.ReverseOp, "reverse", func(k *call, elem int, dims []int) *move.Copy {
		return move.Reverse(elem, dims, k.n.Attrs().(op.AxesAttrs).Axes)
	})
	rows[op.PadOp] = []row{{name: "pad", make: func(k *call) (string, func(), error) {
		a, dt := k.n.Attrs().(op.PadAttrs), k.n.DType()
		p := move.NewPad(dt.Size(), k.in[0].t.Shape, a.Lo, a.Hi, a.Interior, bits(dt, a.Value))
		x, y := k.in[0], k.out[0]
		return "pad", func() { p.Run(k.pool, y.raw, x.raw) }, nil
	}}}
	rows[op.ConcatOp] = []row{{name: "concat", make: func(k *call) (string, func(), error) {
		shapes, srcs := make([][]int, len(k.in)), make([][]byte, len(k.in))
		for i, b := range k.in {
			shapes[i] = b.t.Shape
		}
		p := move.NewConcat(k.n.DType().Size(), k.n.Attrs().(op.AxisAttrs).Axis, shapes)
		return "concat", func() {
			for i, b := range k.in {
				srcs[i] = b.raw
			}
			p.Run(k.pool, k.out[0].raw, srcs)
		}, nil
	}}}
	rows[op.GatherOp] = []row{{name: "gather", make: func(k *call) (string, func(), error) {
		s, axis := k.in[0].t.Shape, k.n.Attrs().(op.AxisAttrs).Axis
		p := move.NewGather(k.n.DType().Size(), s[:axis].Size(), s[axis], k.in[1].n, s[axis+1:].Size())
		x, ix, y := k.in[0], k.in[1], k.out[0]
		return "gather", func() { p.Run(k.pool, y.raw, x.raw, view[int32](ix)) }, nil
	}}}
	rows[op.ScatterAddOp] = []row{
		{name: "scatter_add", ok: func(n *graph.Node) bool { return n.DType() == dtype.F32 }, make: scatterAdd[float32]},
		{name: "scatter_add", ok: func(n *graph.Node) bool { return n.DType() == dtype.F64 }, make: scatterAdd[float64]},
	}
	rows[op.AppendOp] = []row{{name: "append", make: makeAppend}}
	rows[op.IotaOp] = []row{{name: "iota", make: makeIota}}
}

func scatterAdd[T move.Number](k *call) (string, func(), error) {
	s, axis := k.in[0].t.Shape, k.n.Attrs().(op.AxisAttrs).Axis
	p := move.NewScatterAdd[T](s[:axis].Size(), s[axis], k.in[1].n, s[axis+1:].Size())
	x, ix, u, y := k.in[0], k.in[1], k.in[2], k.out[0]
	k.mayReplace(0, 0)
	return "scatter_add", func() {
		if len(y.raw) > 0 && &y.raw[0] != &x.raw[0] {
			copy(y.raw, x.raw)
		}
		p.Run(k.pool, view[T](y), view[int32](ix), view[T](u))
	}, nil
}

// makeAppend copies the memory only where it cannot be written in place.
func makeAppend(k *call) (string, func(), error) {
	memory, x, lengths, y := k.in[0], k.in[1], k.in[2], k.out[0]
	m, room, n := y.t.Bytes(), y.t.Shape[1], x.t.Shape[1]
	ring := k.n.Attrs().(op.AppendAttrs).Ring
	k.mayReplace(0, 0)
	return "append", func() {
		if len(y.raw) == 0 {
			return
		}
		if &y.raw[0] != &memory.raw[0] {
			copy(y.raw, memory.raw)
		}
		batch := view[int32](lengths)
		row := m / max(1, len(batch)*room) // bytes of an element
		for b, length := range batch {
			first := int(length) - n
			from, to := max(first, 0), int(length)
			if !ring {
				to = min(to, room)
			}
			for from < to {
				place, many := from, to-from
				if ring { // up to its end, and then on from its beginning
					place = from % room
					many = min(many, room-place)
				}
				copy(y.raw[(b*room+place)*row:(b*room+place+many)*row], x.raw[(b*n+from-first)*row:])
				from += many
			}
		}
	}, nil
}

// bits is a value's representation as an element, in the low bytes.
func bits(dt dtype.Type, v float64) uint64 {
	t := tensor.New(dt, 1)
	t.Set(0, v)
	var b uint64
	for i, c := range t.Bytes() {
		b |= uint64(c) << (8 * i)
	}
	return b
}

// makeIota computes the constant once, when the graph is compiled, and copies it at each run.
func makeIota(k *call) (string, func(), error) {
	a := k.n.Attrs().(op.IotaAttrs)
	t := tensor.New(a.Type.DType, a.Type.Shape...)
	v := graph.Value{Type: a.Type, Data: make([]float64, t.Len())}
	op.IotaOp.Ref(a, nil, []graph.Value{v})
	for i, x := range v.Data {
		t.Set(i, math.Trunc(x))
	}
	k.scratch = int64(len(t.Bytes()))
	y := k.out[0]
	return "iota", func() { copy(y.raw, t.Bytes()) }, nil
}
