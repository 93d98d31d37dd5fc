package cpu

import (
	"fmt"

	"github.com/jouleml/joule/internal/kernel/wgemm"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/op"
)

func init() {
	rows[op.QMatMulOp] = []row{{name: "few bits", make: makeQMatMul}}
	rows[op.QRowsOp] = []row{{name: "rows of few bits", make: makeQRows}}
}

func makeQMatMul(k *call) (string, func(), error) {
	a := k.n.Attrs().(op.WeightAttrs)
	x, y := k.in[0], k.out[0]
	p := wgemm.New(wgemm.Spec{M: x.t.Shape[0], N: y.t.Shape[1], K: a.K, Bits: a.Bits, Group: a.Group})
	packed := k.packedWeights(p, k.in[1], k.in[2], 0)
	return fmt.Sprintf("%d bits", a.Bits), func() {
		w, s := packed()
		p.Run(k.pool, y.f32(), x.f32(), w, s)
	}, nil
}

// packedWeights gives weights and scales, from an output on, in the kernel's order. See derived.
func (k *call) packedWeights(p *wgemm.Plan, w, scale *buf, from int) func() ([]uint8, []float32) {
	k.scratch += int64(p.ScratchBytes())
	how := fmt.Sprintf("%s %d+%dx%d %d %d", wgemm.Layout(), from, p.N, p.K, p.Bits, p.Group)
	at := from * w.t.Bytes() / w.t.Shape[0]
	weights := k.derived(w, how, (p.WeightBytes()+3)/4, func(data []float32) { p.PackWeights(bytesOf(data), w.raw[at:]) })
	scales := k.derived(scale, how, p.ScaleLen(), func(data []float32) { p.PackScales(data, scale.f32()[from*p.Groups():]) })
	return func() ([]uint8, []float32) { return bytesOf(weights()), scales() }
}

func makeQRows(k *call) (string, func(), error) {
	a := k.n.Attrs().(op.WeightAttrs)
	w, scale, indices, y := k.in[0], k.in[1], k.in[2], k.out[0]
	n, groups := w.t.Shape[0], a.Groups()
	group := a.K
	if a.Group > 0 {
		group = a.Group
	}
	body := par.Func(func(i, _ int) {
		r := min(max(int(view[int32](indices)[i]), 0), n-1)
		s, out := scale.f32()[r*groups:][:groups], y.f32()[i*a.K:][:a.K]
		if a.Bits == 8 {
			for k, v := range view[int8](w)[r*a.K:][:a.K] {
				out[k] = float32(max(v, -127)) * s[k/group]
			}
			return
		}
		row := w.raw[r*((a.K+1)/2):]
		for k := range out {
			out[k] = float32(int(row[k/2]>>(4*(k%2))&15)-8) * s[k/group]
		}
	})
	return "rows of few bits", func() { k.pool.Run(indices.n, body) }, nil
}
