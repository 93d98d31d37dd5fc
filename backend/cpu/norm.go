package cpu

import (
	"github.com/jouleml/joule/internal/kernel/reduce"
	"github.com/jouleml/joule/op"
)

func init() {
	rows[op.BatchNormOp] = []row{{name: "batch norm", ok: allF32, make: func(k *call) (string, func(), error) { return makeBatchNorm(k, false) }}}
	rows[op.BatchNormReluOp] = []row{{name: "batch norm, rectified", ok: allF32, make: func(k *call) (string, func(), error) { return makeBatchNorm(k, true) }}}
	rows[op.BatchNormGradOp] = []row{{name: "batch norm gradient", ok: allF32, make: makeBatchNormGrad}}
	rows[op.BatchNormReluGradOp] = []row{{name: "gradient of batch norm, rectified", ok: allF32, make: makeBatchNormReluGrad}}
	rows[op.BatchNormAddReluGradOp] = []row{{name: "gradient of batch norm and sum, rectified", ok: allF32, make: makeBatchNormAddReluGrad}}
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

func batchNormPlan(k *call, relu bool) *reduce.BatchNorm {
	r, c := rowsOf(k.in[0].t.Shape)
	p := reduce.NewBatchNorm(r, c, k.n.Attrs().(op.NormAttrs).Epsilon, relu)
	k.scratch = p.Bytes()
	return p
}

func makeBatchNorm(k *call, relu bool) (string, func(), error) {
	p := batchNormPlan(k, relu)
	x, gamma, beta, y, mean, variance := k.in[0], k.in[1], k.in[2], k.out[0], k.out[1], k.out[2]
	name := "batch norm"
	if relu {
		name = "batch norm, rectified"
	}
	if len(k.in) == 4 {
		z := k.in[3]
		k.mayReplace(0, 3)
		return "batch norm and sum, rectified", func() {
			p.Run(k.pool, y.f32(), mean.f32(), variance.f32(), x.f32(), gamma.f32(), beta.f32(), z.f32())
		}, nil
	}
	k.mayReplace(0, 0)
	return name, func() {
		p.Run(k.pool, y.f32(), mean.f32(), variance.f32(), x.f32(), gamma.f32(), beta.f32(), nil)
	}, nil
}

func makeBatchNormGrad(k *call) (string, func(), error) {
	p := batchNormPlan(k, false)
	x, gamma, mean, variance, dy := k.in[0], k.in[1], k.in[2], k.in[3], k.in[4]
	dx, dg, db := k.out[0], k.out[1], k.out[2]
	k.mayReplace(0, 4)
	k.mayReplace(0, 0)
	return "batch norm gradient", func() {
		p.Backward(k.pool, dx.f32(), dg.f32(), db.f32(), dy.f32(), x.f32(), gamma.f32(), nil, mean.f32(), variance.f32())
	}, nil
}

func makeBatchNormReluGrad(k *call) (string, func(), error) {
	p := batchNormPlan(k, true)
	x, gamma, beta, mean, variance, dy := k.in[0], k.in[1], k.in[2], k.in[3], k.in[4], k.in[5]
	dx, dg, db := k.out[0], k.out[1], k.out[2]
	k.mayReplace(0, 5)
	k.mayReplace(0, 0)
	return "gradient of batch norm, rectified", func() {
		p.Backward(k.pool, dx.f32(), dg.f32(), db.f32(), dy.f32(), x.f32(), gamma.f32(), beta.f32(), mean.f32(), variance.f32())
	}, nil
}

func makeBatchNormAddReluGrad(k *call) (string, func(), error) {
	p := batchNormPlan(k, true)
	x, gamma, mean, variance, y, a := k.in[0], k.in[1], k.in[2], k.in[3], k.in[4], k.in[5]
	dx, dg, db, dz := k.out[0], k.out[1], k.out[2], k.out[3]
	k.mayReplace(0, 0)
	k.mayReplace(3, 5)
	second := func() []float32 { return nil }
	if len(k.in) == 7 {
		k.mayReplace(3, 6)
		second = k.in[6].f32
	}
	return "gradient of batch norm and sum, rectified", func() {
		p.BackwardAdd(k.pool, dx.f32(), dg.f32(), db.f32(), dz.f32(), y.f32(), a.f32(), second(), x.f32(), gamma.f32(), mean.f32(), variance.f32())
	}, nil
}
