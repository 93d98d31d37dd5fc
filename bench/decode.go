package bench

import (
	"fmt"

	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/kernel/wgemm"
	"github.com/jouleml/joule/internal/par"
)

// decodes are products of one row with great matrices, whose weights are read once and not again: what a language model does for each token. The matrix is 512 MiB of f32.
func decodes() []work {
	const k, n = 8192, 16384
	f32 := product("decode", "decode f32", gemm.Spec{M: 1, N: n, K: k})
	f32.flops, f32.bytes = 0, 4*k*n
	out := []work{f32}
	for _, s := range []wgemm.Spec{{M: 1, N: n, K: k, Bits: 8}, {M: 1, N: n, K: k, Bits: 8, Group: 64}, {M: 1, N: n, K: k, Bits: 4, Group: 64}} {
		name := fmt.Sprintf("decode int%d", s.Bits)
		if s.Group > 0 {
			name += fmt.Sprintf(", groups of %d", s.Group)
		}
		w := work{name: name, group: "decode", request: Request{"work": "decode", "bits": s.Bits, "group": s.Group, "k": k, "n": n}, bytes: k*n*s.Bits/8 + 4*n*s.Groups()}
		w.setup = func(threads int) (func() error, func(), error) {
			p, pool := wgemm.New(s), par.New(threads)
			weights, scales := make([]uint8, p.WeightBytes()), make([]float32, p.ScaleLen())
			for i := range weights {
				weights[i] = uint8(i * 37)
			}
			for i := range scales {
				scales[i] = 1e-3
			}
			x, y := randoms(k), make([]float32, n)
			return func() error { p.Run(pool, y, x, weights, scales); return nil }, pool.Close, nil
		}
		out = append(out, w)
	}
	return out
}
