package cpu

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/kernel/recur"
	"github.com/jouleml/joule/op"
)

func init() {
	f32 := func(n *graph.Node) bool {
		a := n.Attrs().(op.RecurrentAttrs)
		_, known := cells[a.Cell]
		return known && n.Types()[0].DType == dtype.F32
	}
	rows[op.RecurrentOp] = []row{{name: "recurrent", ok: f32, make: makeRecurrent}}
	rows[op.RecurrentGradOp] = []row{{name: "recurrent gradient", ok: f32, make: makeRecurrentGrad}}
}

var cells = map[string]recur.Cell{"tanh": recur.Tanh, "relu": recur.ReLU, "gru": recur.GRU, "gru1": recur.GRU1, "lstm": recur.LSTM}

// floats is a buffer's elements at the time of a run, nil of none.
func floats(b *buf) []float32 {
	if b == nil {
		return nil
	}
	return b.f32()
}

// recurrentCall finds a node's plan and operands: those that both ops have are taken from the front of k.in; rest is what follows.
func recurrentCall(k *call, gradient bool) (p *recur.Plan, read func() recur.Operands, rest []*buf) {
	a := k.n.Attrs().(op.RecurrentAttrs)
	in := k.in
	next := func(there bool) *buf {
		if !there {
			return nil
		}
		b := in[0]
		in = in[1:]
		return b
	}
	x, u := next(!gradient), next(true)
	next(a.Bits != 0)
	h0 := next(true)
	c0, bias := next(a.Cell == "lstm"), next(a.Cell == "gru" && !gradient)
	lengths, mask := next(a.Lengths), next(a.Mask)
	s := k.out[0].t.Shape
	p = recur.New(recur.Spec{Cell: cells[a.Cell], Batch: s[0], Time: s[1], Units: h0.t.Shape[1], Reverse: a.Reverse, Bits: a.Bits, Group: a.Group})
	k.scratch = int64(p.ScratchBytes(k.pool.Threads()))
	return p, func() recur.Operands {
		o := recur.Operands{X: floats(x), H0: floats(h0), C0: floats(c0), Bias: floats(bias), Mask: floats(mask)}
		if a.Bits == 0 {
			o.U = floats(u)
		}
		if lengths != nil {
			o.Lengths = view[int32](lengths)
		}
		return o
	}, in
}

func makeRecurrent(k *call) (string, func(), error) {
	p, read, _ := recurrentCall(k, false)
	out := append(append([]*buf{}, k.out...), nil, nil)
	if !k.c.reads(k.n, 2) { // in prediction nobody asks for the gates
		out[2] = nil
	}
	if few, third := p.Few(); few != nil {
		packed, packed3 := k.packedWeights(few, k.in[1], k.in[2], 0), func() ([]uint8, []float32) { return nil, nil }
		if third != nil {
			packed3 = k.packedWeights(third, k.in[1], k.in[2], few.N)
		}
		return "recurrent, few bits", func() {
			o := read()
			o.W, o.Scale = packed()
			o.W3, o.Scale3 = packed3()
			o.States, o.Cells, o.Gate = floats(out[0]), floats(out[1]), floats(out[2])
			p.Run(k.pool, o)
		}, nil
	}
	packed := func() []float32 { return nil }
	if _, ok := k.c.constant(k.in[1]); ok {
		u := k.in[1]
		packed = k.derived(u, fmt.Sprintf("recurrent %s %v", p.Layout(), isa.Current()), p.PackedLen(), func(data []float32) { p.PackU(data, u.f32()) })
	}
	return "recurrent", func() {
		o := read()
		o.Packed = packed()
		o.States, o.Cells, o.Gate = floats(out[0]), floats(out[1]), floats(out[2])
		p.Run(k.pool, o)
	}, nil
}

func makeRecurrentGrad(k *call) (string, func(), error) {
	p, read, rest := recurrentCall(k, true)
	a := k.n.Attrs().(op.RecurrentAttrs)
	states, rest := rest[0], rest[1:]
	var kept, gate, dcells, dq, dc0 *buf
	out := k.out[1:]
	if p.Cell >= recur.GRU {
		kept, gate, rest = rest[0], rest[1], rest[2:]
	}
	if a.CellGrad {
		dcells = rest[1]
	}
	if p.Cell == recur.GRU {
		dq, out = out[0], out[1:]
	}
	if p.Cell == recur.LSTM {
		dc0 = out[1]
	}
	dstates, dx, dh0 := rest[0], k.out[0], out[0]
	return "recurrent gradient", func() {
		o := read()
		o.States, o.Cells, o.Gate = floats(states), floats(kept), floats(gate)
		p.Backward(k.pool, o, recur.Gradients{DStates: floats(dstates), DCells: floats(dcells), DX: floats(dx), DQ: floats(dq), DH0: floats(dh0), DC0: floats(dc0)})
	}, nil
}
