package cpu

import (
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/kernel/bgemm"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/kernel/qgemm"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Numbers of 16 and 8 bits. Products of bf16 have kernels. Everything else on bf16 is computed in f32 between conversions, which pass expand puts around it: of elementwise work they become part
// of the region, block by block.

// elements is a row for products of elements of type T with sums of type R.
func elements[T, R tensor.Elem](make func(k *call) (string, func(), error)) row {
	return row{name: "gemm", make: make, ok: func(n *graph.Node) bool {
		_, ok := op.Matrices(n)
		return ok && n.Input(0).DType() == tensor.TypeOf[T]() && n.DType() == tensor.TypeOf[R]()
	}}
}

func makeBF16Dot(k *call) (string, func(), error) {
	p, _ := op.Matrices(k.n)
	g := bgemm.New(bgemm.Spec{M: p.M, N: p.N, K: p.K, TransA: p.TransA, TransB: p.TransB, Batch: p.Batch})
	scratch := k.c.share(g.Scratch())
	a, b, c := k.in[0], k.in[1], k.out[0]
	return g.String(), func() {
		g.Run(k.pool, view[dtype.BFloat16](a), view[dtype.BFloat16](b), c.f32(), *scratch)
	}, nil
}

// share gives kernels memory of at least n words whose contents no kernel needs after it has run: one for all, as great as the greatest asks for.
func (c *compiler) share(n int) *[]uint32 {
	if n > len(c.e.shared) {
		c.e.bytes += 4 * int64(n-len(c.e.shared))
		c.e.shared = make([]uint32, n)
	}
	return &c.e.shared
}

// plainRows are the rows of A in a chunk of plain products.
const plainRows = 16

// plainDot is a batch of products in plain Go.
type plainDot[R gemm.Number] struct {
	p       op.Product
	spec    gemm.Spec
	a, b, c []R
}

func (d *plainDot[R]) Chunk(i, _ int) {
	blocks := (d.p.M + plainRows - 1) / plainRows
	z, r := i/blocks, i%blocks*plainRows
	s := d.spec
	s.M = min(plainRows, d.p.M-r)
	a := d.a[z*d.p.M*d.p.K:]
	if s.TransA {
		s.LDA = d.p.M
		a = a[r:]
	} else {
		a = a[r*d.p.K:]
	}
	gemm.Generic(s, a, d.b[z*d.p.K*d.p.N:], d.c[(z*d.p.M+r)*d.p.N:])
}

func (d *plainDot[R]) run(pool *par.Pool) {
	pool.Run(d.p.Batch*((d.p.M+plainRows-1)/plainRows), d)
}

func makePlainDot[T gemm.Number](k *call) (string, func(), error) {
	p, _ := op.Matrices(k.n)
	d := &plainDot[T]{p: p, spec: gemm.Spec{N: p.N, K: p.K, TransA: p.TransA, TransB: p.TransB}}
	a, b, c := k.in[0], k.in[1], k.out[0]
	return "gemm in plain Go", func() {
		d.a, d.b, d.c = view[T](a), view[T](b), view[T](c)
		d.run(k.pool)
	}, nil
}

// makeIntDot multiplies bytes on the kernels of quantized models. An operand that the graph does not change is packed once.
func makeIntDot(k *call) (string, func(), error) {
	p, _ := op.Matrices(k.n)
	g := qgemm.NewInts(qgemm.IntSpec{M: p.M, N: p.N, K: p.K, TransA: p.TransA, TransB: p.TransB, Batch: p.Batch, Signed: k.in[0].t.DType == dtype.I8})
	k.scratch = int64(g.Bytes())
	a, b, c := k.in[0], k.in[1], k.out[0]
	second := func() []uint8 { return b.raw }
	if vars, ok := k.c.variables(b); ok && p.Batch == 1 {
		seen := k.c.host.Watch(vars...)
		second = func() []uint8 {
			if seen.Changed() {
				return b.raw
			}
			return nil
		}
	}
	return "bytes", func() { g.Run(k.pool, view[int32](c), a.raw, second()) }, nil
}

// widens reports whether a node on bf16 is to be computed in f32.
func widens(n *graph.Node) bool {
	o := n.Op()
	if o.Kind == graph.Leaf || o == op.ConvertOp || o == op.ReshapeOp || o == op.StopGradientOp || o == op.DotOp { // of products see sumsInF32
		return false
	}
	return rowOf(n) < 0 && slices.ContainsFunc(n.Inputs(), func(x *graph.Node) bool { return x.DType() == dtype.BF16 })
}

// widen16 is n of operands in f32, its results brought back to bf16.
func widen16(to *graph.Graph, n *graph.Node, in []*graph.Node) *graph.Node {
	wide := make([]*graph.Node, len(in))
	for i, x := range in {
		if wide[i] = x; x.DType() == dtype.BF16 {
			wide[i] = op.Convert(x, dtype.F32)
		}
	}
	y := to.Apply(n.Op(), n.Attrs(), wide...)
	parts := make([]*graph.Node, len(n.Types()))
	for i, t := range n.Types() {
		if parts[i] = y.Part(i); t.DType == dtype.BF16 {
			parts[i] = op.Convert(parts[i], dtype.BF16)
		}
	}
	return graph.Tuple(to, parts)
}

// sumsInF32 reports whether a product of bf16 has a result of bf16: then it is one of f32 and a conversion.
func sumsInF32(n *graph.Node) bool { return n.Op() == op.DotOp && n.DType() == dtype.BF16 }

func inF32(n *graph.Node, in []*graph.Node) *graph.Node {
	a := n.Attrs().(op.DotAttrs)
	a.Out = dtype.F32
	return op.Convert(op.Dot(in[0], in[1], a), dtype.BF16)
}
