package cpu

import (
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

func init() {
	rows[op.BroadcastOp] = []row{{name: "broadcast", ok: func(n *graph.Node) bool { return n.Shape().Size() > 0 }, make: makeBroadcast}}
}

// broadcastRun writes a repeated array chunk by chunk; it implements par.Body.
type broadcastRun struct {
	sp       *spread
	dst, src *buf
}

func (r *broadcastRun) Chunk(i, _ int) {
	lo := i * chunkLen
	n := min(chunkLen, r.dst.n-lo)
	r.sp.fill(r.dst.raw[lo*r.sp.size:][:n*r.sp.size], r.src.raw, lo, n)
}

func makeBroadcast(k *call) (string, func(), error) {
	r := &broadcastRun{newSpread(k.in[0].t.Shape, k.out[0].t.Shape, k.in[0].t.DType.Size()), k.out[0], k.in[0]}
	chunks := (k.out[0].n + chunkLen - 1) / chunkLen
	return "broadcast", func() { k.pool.Run(chunks, r) }, nil
}
