package cpu

import (
	"fmt"

	"github.com/jouleml/joule/internal/kernel/spgemm"
	"github.com/jouleml/joule/op"
)

func init() { rows[op.SparseMatMulOp] = []row{{name: "sparse", make: makeSparse}} }

func makeSparse(k *call) (string, func(), error) {
	a := k.n.Attrs().(op.SparseAttrs)
	x, w, ix, y := k.in[0], k.in[1], k.in[2], k.out[0]
	p := spgemm.New(spgemm.Spec{M: x.t.Shape[0], N: a.N, K: a.K, Kept: a.Kept, Pairs: a.Pairs})
	if a.Pairs {
		return "sparse 2:4", func() { p.Run(k.pool, y.f32(), x.f32(), w.f32(), nil, ix.raw) }, nil
	}
	// Indices come from files: kernels read only where they have been seen to be.
	fill := func(data []float32) {
		to := words[int32](data)
		for i, v := range view[int32](ix) {
			to[i] = min(max(v, 0), int32(a.K-1))
		}
	}
	inputs := k.derived(ix, fmt.Sprintf("inputs of %d", a.K), ix.n, fill)
	return fmt.Sprintf("sparse blocks %d of %d", a.Kept, a.K), func() {
		p.Run(k.pool, y.f32(), x.f32(), w.f32(), words[int32](inputs()), nil)
	}, nil
}
