package cpu

import (
	"fmt"
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/pass"
)

// row is a kernel that can run an op. The first row of an op whose ok accepts the node is taken.
type row struct {
	name string
	ok   func(n *graph.Node) bool // nil: every node of the op
	make func(k *call) (name string, run func(), err error)
}

// call is what a row's make is given: a node and the places of its operands and results. The memory behind a buf is known only when the
// kernel runs.
type call struct {
	n       *graph.Node
	in, out []*buf
	pool    *par.Pool
	c       *compiler
	scratch int64 // bytes that the kernel holds for itself: set by make
	// executed is the arithmetic of a run where the kernel does less or more than the op counts: set by make.
	executed int64
	bf16     int64 // the part of executed that multiplies bf16, where the operands are f32
}

// mayReplace says that the kernel allows result out to lie where operand in lies, if in is not needed afterwards.
func (k *call) mayReplace(out, in int) {
	b := k.out[out]
	k.c.inPlace[b] = append(k.c.inPlace[b], k.in[in])
}

// rows is the table of kernels. Files beside this one fill it in init.
var rows = map[*graph.Op][]row{}

func init() { rows[op.RegionOp] = []row{{name: "region", make: makeRegion}} }

// rowOf is the place of the first row that takes a node, -1 if none does.
func rowOf(n *graph.Node) int {
	return slices.IndexFunc(rows[n.Op()], func(r row) bool { return r.ok == nil || r.ok(n) })
}

// choose is the row that runs a node, and why.
func choose(n *graph.Node) (row, string) {
	if i := rowOf(n); i >= 0 {
		return rows[n.Op()][i], fmt.Sprintf("row %d of %d", i+1, len(rows[n.Op()]))
	}
	if pass.Fusible(n) {
		return row{make: makeRegion}, "elementwise"
	}
	return row{make: makeReference}, "no row takes it"
}

func hasKernel(n *graph.Node) bool { return rowOf(n) >= 0 || pass.Fusible(n) }

// allF32 accepts nodes whose operands and results are all f32.
func allF32(n *graph.Node) bool {
	for _, x := range n.Inputs() {
		if x.DType() != dtype.F32 {
			return false
		}
	}
	for _, t := range n.Types() {
		if t.DType != dtype.F32 {
			return false
		}
	}
	return true
}

// makeReference runs a node on its op's float64 reference: right for every type, slow, and it allocates.
func makeReference(k *call) (string, func(), error) {
	o := k.n.Op()
	if o.Ref == nil {
		return "", nil, fmt.Errorf("op %s has no kernel, no decomposition and no reference", o.Name)
	}
	in, out := make([]graph.Value, len(k.in)), make([]graph.Value, len(k.out))
	for i, b := range k.in {
		in[i] = graph.Value{Type: b.t, Data: make([]float64, b.n)}
		k.scratch += int64(b.n) * 8
	}
	for i, b := range k.out {
		out[i] = graph.Value{Type: b.t, Data: make([]float64, b.n)}
		k.scratch += int64(b.n) * 8
	}
	return "reference", func() {
		for i, b := range k.in {
			widen(in[i].Data, b.t.DType, b.raw)
		}
		for i := range out {
			clear(out[i].Data)
		}
		o.Ref(k.n.Attrs(), in, out)
		for i, b := range k.out {
			narrow(b.t.DType, b.raw, out[i].Data)
		}
	}, nil
}

// Support says how this backend runs an op: by which kernels, or how else.
func Support(o *graph.Op) string {
	switch {
	case o == op.ReshapeOp:
		return "the operand's memory"
	case len(rows[o]) > 0:
		return "kernel"
	case o.Kind == graph.Elementwise && o.Ref != nil:
		return "elementwise region"
	case o.Decompose != nil:
		return "decomposed"
	}
	return "reference"
}
