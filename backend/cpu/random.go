package cpu

import (
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/kernel/random"
	"github.com/jouleml/joule/op"
)

func init() {
	for o, spec := range map[*graph.Op]random.Spec{
		op.RandomUniformOp: {Kind: random.UniformKind, A: 0, B: 1},
		op.RandomNormalOp:  {Kind: random.NormalKind, A: 0, B: 1},
	} {
		rows[o] = []row{{name: "philox", make: func(k *call) (string, func(), error) {
			spec := spec // several models may be compiled at the same time
			spec.N = k.out[0].n
			p := random.New(spec)
			stream := k.n.Attrs().(op.RandomAttrs).Stream
			state, y := k.in[0], k.out[0]
			return "philox", func() {
				s := view[int64](state)
				p.Run(k.pool, view[float32](y), op.RandomSource(s[0], s[1], stream))
			}, nil
		}}}
	}
}
