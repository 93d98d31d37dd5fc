package cpu

import (
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

func init() {
	rows[op.HandOverOp] = []row{{name: "hand_over", make: func(k *call) (string, func(), error) {
		a := k.n.Attrs().(op.HandOverAttrs)
		host := func(bs []*buf) (ts []*tensor.Tensor) {
			for _, b := range bs {
				ts = append(ts, tensor.Wrap(b.t.DType, b.t.Shape, b.raw))
			}
			return ts
		}
		return "hand_over", func() {
			clear(k.out[0].raw)
			if a.Link == nil {
				for _, b := range k.out[1:] {
					clear(b.raw)
				}
				return
			}
			a.Link.Pass(host(k.in), host(k.out[1:]))
		}, nil
	}}}
}
