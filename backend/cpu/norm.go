package cpu

import (
	"github.com/jouleml/joule/internal/kernel/reduce"
	"github.com/jouleml/joule/op"
)

func init() {
	rows[op.LayerNormOp] = []row{{name: "layer norm", ok: allF32, make: makeLayerNorm}}
	rows[op.LayerNormGradOp] = []row{{name: "layer norm gradient", ok: allF32, make: makeLayerNormGrad}}
	rows[op.RMSNormOp] = []row{{name: "rms norm", ok: allF32, make: makeRMSNorm}}
	rows[op.RMSNormGradOp] = []row{{name: "rms norm gradient", ok: allF32, make: makeRMSNormGrad}}
}

func makeLayerNorm(k *call) (string, func(), error) {
	r, c := rowsOf(k.in[0].t.Shape)
	p := reduce.NewLayerNorm(r, c, k.n.Attrs().(op.NormAttrs).Epsilon)
	x, gamma, beta, y, mean, rstd := k.in[0], k.in[1], k.in[2], k.out[0], k.out[1], k.out[2]
	k.mayReplace(0, 0)
	return "layer norm", func() { p.Run(k.pool, y.f32(), mean.f32(), rstd.f32(), x.f32(), gamma.f32(), beta.f32()) }, nil
}

func makeLayerNormGrad(k *call) (string, func(), error) {
	r, c := rowsOf(k.in[0].t.Shape)
	p := reduce.NewLayerNorm(r, c, 0) // the gradient is made of what the forward pass kept, ε within it
	x, gamma, mean, rstd, d := k.in[0], k.in[1], k.in[2], k.in[3], k.in[4]
	dx, dgamma, dbeta := k.out[0], k.out[1], k.out[2]
	k.mayReplace(0, 4)
	return "layer norm gradient", func() {
		p.Backward(k.pool, dx.f32(), dgamma.f32(), dbeta.f32(), d.f32(), x.f32(), gamma.f32(), mean.f32(), rstd.f32())
	}, nil
}

func makeRMSNorm(k *call) (string, func(), error) {
	r, c := rowsOf(k.in[0].t.Shape)
	p := reduce.NewRMSNorm(r, c, k.n.Attrs().(op.NormAttrs).Epsilon)
	x, gamma, y, rstd := k.in[0], k.in[1], k.out[0], k.out[1]
	k.mayReplace(0, 0)
	return "rms norm", func() { p.Run(k.pool, y.f32(), nil, rstd.f32(), x.f32(), gamma.f32(), nil) }, nil
}

func makeRMSNormGrad(k *call) (string, func(), error) {
	r, c := rowsOf(k.in[0].t.Shape)
	p := reduce.NewRMSNorm(r, c, 0)
	x, gamma, rstd, d, dx, dgamma := k.in[0], k.in[1], k.in[2], k.in[3], k.out[0], k.out[1]
	k.mayReplace(0, 3)
	return "rms norm gradient", func() {
		p.Backward(k.pool, dx.f32(), dgamma.f32(), nil, d.f32(), x.f32(), gamma.f32(), nil, rstd.f32())
	}, nil
}
