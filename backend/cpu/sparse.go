package cpu

import (
	"fmt"
	"unsafe"

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
		to := intsOf(data)
		for i, v := range view[int32](ix) {
			to[i] = min(max(v, 0), int32(a.K-1))
		}
	}
	name := fmt.Sprintf("sparse blocks %d of %d", a.Kept, a.K)
	v, constant := k.c.constant(ix)
	if !constant {
		own := make([]float32, ix.n)
		k.scratch += int64(4 * ix.n)
		return name, func() {
			fill(own)
			p.Run(k.pool, y.f32(), x.f32(), w.f32(), intsOf(own), nil)
		}, nil
	}
	d := k.c.host.Derive(v, fmt.Sprintf("inputs of %d", a.K), ix.n)
	return name, func() {
		d.Fresh(fill)
		p.Run(k.pool, y.f32(), x.f32(), w.f32(), intsOf(d.Data), nil)
	}, nil
}

// intsOf sees floats as the numbers that they lie in.
func intsOf(x []float32) []int32 {
	if len(x) == 0 {
		return nil
	}
	return unsafe.Slice((*int32)(unsafe.Pointer(&x[0])), len(x))
}
