package cpu

import (
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/kernel/qgemm"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/op"
)

func init() {
	rows[op.QuantizeOp] = []row{{name: "quantize", make: makeQuantize}}
	small := func(n *graph.Node) bool { return n.Input(1).Shape().Size()/max(1, n.Input(2).Shape()[0]) <= qgemm.MaxK }
	rows[op.QLinearOp] = []row{{name: "bytes", ok: small, make: func(k *call) (string, func(), error) { return k.quantized(nil) }}}
	rows[op.QConvOp] = []row{{name: "bytes", ok: small, make: func(k *call) (string, func(), error) {
		a := k.n.Attrs().(op.QAttrs)
		x, w := k.in[0].t.Shape, k.in[1].t.Shape
		outputs := func(i int) int {
			return (x[1+i]+a.Conv.Pad[i][0]+a.Conv.Pad[i][1]-(w[i]-1)*a.Conv.Dilation[i]-1)/a.Conv.Stride[i] + 1
		}
		return k.quantized(&qgemm.Conv{
			H: x[1], W: x[2], C: x[3], KH: w[0], KW: w[1], OH: outputs(0), OW: outputs(1), DilH: a.Conv.Dilation[0], DilW: a.Conv.Dilation[1], StrideH: a.Conv.Stride[0], StrideW: a.Conv.Stride[1],
			PadTop: a.Conv.Pad[0][0], PadLeft: a.Conv.Pad[1][0], Zero: uint8(a.Zero),
		})
	}}}
	rows[op.QAddOp] = []row{{name: "add bytes", make: makeQAdd}}
	rows[op.MaxPoolOp] = append(rows[op.MaxPoolOp], row{name: "max pool of bytes", ok: func(n *graph.Node) bool { return n.DType() == dtype.U8 }, make: makeMaxPoolBytes})
}

// quantizeChunk is the elements of a chunk.
const quantizeChunk = 4096

func makeQuantize(k *call) (string, func(), error) {
	a := k.n.Attrs().(op.QuantizeAttrs)
	x, y := k.in[0], k.out[0]
	body := par.Func(func(i, _ int) {
		lo, hi := i*quantizeChunk, min((i+1)*quantizeChunk, y.n)
		qgemm.Quantize(y.raw[lo:hi], x.f32()[lo:hi], float32(a.Scale), uint8(a.Zero))
	})
	return "quantize", func() { k.pool.Run((y.n+quantizeChunk-1)/quantizeChunk, body) }, nil
}

// quantized plans a product of bytes. The kernel keeps weights in its own order, and makes that again where one of them has changed.
func (k *call) quantized(c *qgemm.Conv) (string, func(), error) {
	a := k.n.Attrs().(op.QAttrs)
	x, w, scale, offset, y := k.in[0], k.in[1], k.in[2], k.in[3], k.out[0]
	n := w.t.Shape[len(w.t.Shape)-1]
	s := qgemm.Spec{M: y.n / n, N: n, K: w.n / n, Low: uint8(a.Low), ReLU: a.ReLU, Conv: c, Pool: a.Pool, Groups: a.Conv.Groups}
	var vars []string
	constant := true
	for _, b := range k.in[1:] {
		v, ok := k.c.variables(b)
		constant, vars = constant && ok, append(vars, v...)
	}
	p := qgemm.New(s)
	seen := k.c.host.Watch(vars...)
	k.scratch = int64(p.Bytes())
	name := "bytes"
	if k.executed = p.Executed(); k.executed > 0 {
		name = "winograd on bytes"
	}
	return name, func() {
		if !constant || seen.Changed() {
			p.Set(view[int8](w), scale.f32(), offset.f32())
		}
		if a.Float {
			p.RunFloat(k.pool, y.f32(), x.raw)
			return
		}
		p.Run(k.pool, y.raw, x.raw)
	}, nil
}

func makeQAdd(k *call) (string, func(), error) {
	a := k.n.Attrs().(op.QAddAttrs)
	x, z, y := k.in[0], k.in[1], k.out[0]
	sa, sb, offset := float32(a.A), float32(a.B), float32(a.Offset)
	body := par.Func(func(i, _ int) {
		lo, hi := i*quantizeChunk, min((i+1)*quantizeChunk, y.n)
		if !a.Float {
			qgemm.Add(y.raw[lo:hi], x.raw[lo:hi], z.raw[lo:hi], sa, sb, offset, float32(a.Low))
			return
		}
		for i, out := lo, y.f32(); i < hi; i++ {
			v := qgemm.AddFloat(x.raw[i], z.raw[i], sa, sb, offset)
			if a.ReLU && v < 0 {
				v = 0
			}
			out[i] = v
		}
	})
	return "add bytes", func() { k.pool.Run((y.n+quantizeChunk-1)/quantizeChunk, body) }, nil
}

func makeMaxPoolBytes(k *call) (string, func(), error) {
	a := k.n.Attrs().(op.PoolAttrs)
	x, y := k.in[0], k.out[0]
	i, o := x.t.Shape, y.t.Shape
	p := &qgemm.MaxPool{N: i[0], H: i[1], W: i[2], C: i[3], OH: o[1], OW: o[2], KH: a.Window[0], KW: a.Window[1], StrideH: a.Stride[0], StrideW: a.Stride[1], PadTop: a.Pad[0][0], PadLeft: a.Pad[1][0]}
	return "max pool of bytes", func() { p.Run(k.pool, y.raw, x.raw) }, nil
}
