package cpu

import (
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/kernel/attention"
	"github.com/jouleml/joule/op"
)

func init() {
	rows[op.AttentionOp] = []row{{name: "attention", ok: attentionF32, make: makeAttention}}
	rows[op.AttentionGradOp] = []row{{name: "attention gradient", ok: attentionF32, make: makeAttentionGrad}}
}

func attentionF32(n *graph.Node) bool { return n.Input(0).DType() == dtype.F32 }

// attentionPlan is the kernel's plan for a node of either op, and where its lengths and mask come from.
func attentionPlan(k *call) (p *attention.Plan, lengths func() []int32, mask func() []byte, rest []*buf) {
	a := k.n.Attrs().(op.AttentionAttrs)
	q, key := k.in[0].t.Shape, k.in[1].t.Shape
	s := attention.Spec{
		Batch: q[0], Queries: q[1], Keys: key[1], Heads: q[2], Groups: key[2], Dim: q[3],
		Scale: a.ScaleOf(q[3]), Causal: a.Causal, Window: a.Window, Cached: a.Cached, Ring: a.Ring,
	}
	if a.ALiBi {
		for h := range s.Heads {
			s.Slopes = append(s.Slopes, float32(op.ALiBiSlope(h, s.Heads)))
		}
	}
	lengths, mask = func() []int32 { return nil }, func() []byte { return nil }
	rest = k.in[3:]
	if a.Lengths {
		b := rest[0]
		lengths, rest = func() []int32 { return view[int32](b) }, rest[1:]
	}
	if a.Mask {
		b := rest[0]
		s.MaskBatch, s.MaskHeads = b.t.Shape[0] > 1, b.t.Shape[1] > 1
		mask, rest = func() []byte { return b.raw }, rest[1:]
	}
	p = attention.New(s)
	backward := k.n.Op() == op.AttentionGradOp
	k.scratch = int64(p.ScratchBytes(backward) * k.pool.Threads())
	k.executed, k.bf16 = p.Executed(backward)
	return p, lengths, mask, rest
}

// attentionName is what a kernel that plans so is called.
func attentionName(k *call, name string) string {
	if k.bf16 > 0 {
		return name + ", f32 as three bf16 on AMX"
	}
	return name
}

func makeAttention(k *call) (string, func(), error) {
	p, lengths, mask, _ := attentionPlan(k)
	q, key, v, y, lse := k.in[0], k.in[1], k.in[2], k.out[0], k.out[1]
	return attentionName(k, "attention"), func() { p.Run(k.pool, y.f32(), lse.f32(), q.f32(), key.f32(), v.f32(), lengths(), mask()) }, nil
}

func makeAttentionGrad(k *call) (string, func(), error) {
	p, lengths, mask, rest := attentionPlan(k)
	q, key, v, dq, dk, dv := k.in[0], k.in[1], k.in[2], k.out[0], k.out[1], k.out[2]
	lse, delta, dy := rest[0], rest[1], rest[2]
	return attentionName(k, "attention gradient"), func() {
		p.Backward(k.pool, dq.f32(), dk.f32(), dv.f32(), q.f32(), key.f32(), v.f32(), lengths(), mask(), lse.f32(), delta.f32(), dy.f32())
	}, nil
}
