package op

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// SparseMatMulOp is the product with weights of which only some are kept.
var SparseMatMulOp *graph.Op

// sparsePanel is the number of outputs that share a pattern, or lie beside each other.
const sparsePanel = 16

// SparseAttrs say how weights [K, N] are kept in panels of 16 outputs: values f32 [⌈N/16⌉, Kept, 16] and where they stand. With blocks, i32 [⌈N/16⌉, Kept] is the input of each row of values. With Pairs (2:4) an output has
// two of every four inputs, one after the other in values, and u8 [⌈N/16⌉, K/4, 16] says which two, in bits 0, 1 and 2, 3.
type SparseAttrs struct {
	K, N  int
	Kept  int  // a multiple of 4; K/2 with Pairs
	Pairs bool // K is a multiple of 8
}

// Check says what is wrong with the attributes.
func (a SparseAttrs) Check() error {
	switch {
	case a.K < 1 || a.N < 1:
		return fmt.Errorf("sparse weights of %d inputs and %d outputs", a.K, a.N)
	case a.Pairs && (a.K%8 != 0 || a.Kept != a.K/2):
		return fmt.Errorf("two of every four inputs need a multiple of 8 inputs, half of them kept, not %d of %d", a.Kept, a.K)
	case a.Kept < 4 || a.Kept%4 != 0:
		return fmt.Errorf("%d inputs kept of a panel: they must be a multiple of 4, filled up with zeros", a.Kept)
	}
	return nil
}

// Types are the types of values and indices.
func (a SparseAttrs) Types() (values, index graph.Type) {
	p := (a.N + sparsePanel - 1) / sparsePanel
	values, index = graph.T(dtype.F32, p, a.Kept, sparsePanel), graph.T(dtype.I32, p, a.Kept)
	if a.Pairs {
		index = graph.T(dtype.U8, p, a.K/4, sparsePanel)
	}
	return values, index
}

// SparseMatMul is x f32 [M, K] times sparse weights [K, N]. An index outside is clamped.
func SparseMatMul(x, values, index *node, a SparseAttrs) *node {
	return x.Graph().Apply(SparseMatMulOp, a, x, values, index)
}

func init() {
	samples := func() (out []graph.Sample) {
		for _, c := range []struct {
			name string
			SparseAttrs
			bad string
		}{{"blocks", SparseAttrs{K: 11, N: 20, Kept: 8}, ""}, {"blocks, one panel", SparseAttrs{K: 5, N: 16, Kept: 4}, ""}, {"pairs", SparseAttrs{K: 16, N: 33, Kept: 8, Pairs: true}, ""}, {"three kept", SparseAttrs{K: 8, N: 16, Kept: 3}, "multiple of 4"}, {"pairs of 12", SparseAttrs{K: 12, N: 16, Kept: 6, Pairs: true}, "multiple of 8"}} {
			v, ix := c.Types()
			s := graph.Sample{Name: c.name, Attrs: c.SparseAttrs, In: types(f32(3, c.K), v, ix), Bad: c.bad, NoGrad: true, Data: make([]*tensor.Tensor, 3)}
			t := tensor.New(ix.DType, ix.Shape...)
			for i := range t.Len() {
				if t.Set(i, float64(i*5%c.K)); c.Pairs {
					t.Set(i, float64(i*7%16))
				}
			}
			s.Data[2] = t
			out = append(out, s)
		}
		return out
	}()
	SparseMatMulOp = add(def[SparseAttrs]{
		Name: "sparse_matmul", Doc: "product of x f32 [M K] and weights [K N] of which some are kept, in panels of 16 outputs: values f32 [panels kept 16] and indices i32 [panels kept], or u8 [panels K/4 16] of two of every four inputs: f32 [M N]",
		Why: "the zeros between are not there to be multiplied", Kind: graph.Contraction,
		Infer: func(a SparseAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 3); err != nil {
				return nil, err
			}
			if err := a.Check(); err != nil {
				return nil, err
			}
			if in[0].DType != dtype.F32 || len(in[0].Shape) != 2 || in[0].Shape[1] != a.K {
				return nil, fmt.Errorf("takes x f32 [M %d], not %v", a.K, in[0])
			}
			if v, ix := a.Types(); !in[1].Equal(v) || !in[2].Equal(ix) {
				return nil, fmt.Errorf("values and indices must be %v and %v, not %v and %v", v, ix, in[1], in[2])
			}
			return one(dtype.F32, shape.Of(in[0].Shape[0], a.N))
		},
		Ref: func(a SparseAttrs, in, out []value) {
			for m := range in[0].Type.Shape[0] {
				x := in[0].Data[m*a.K:][:a.K]
				for n := range a.N {
					p, col, sum := n/sparsePanel, n%sparsePanel, 0.0
					for s := range a.Kept {
						var k int
						if a.Pairs {
							k = s/2*4 + int(in[2].Data[(p*a.K/4+s/2)*sparsePanel+col])>>(s%2*2)&3
						} else {
							k = min(max(int(in[2].Data[p*a.Kept+s]), 0), a.K-1)
						}
						sum += x[k] * in[1].Data[(p*a.Kept+s)*sparsePanel+col]
					}
					out[0].Data[m*a.N+n] = sum
				}
			}
		},
		NoGrad:  "sparse weights are for prediction: the dense model with zeros is what is trained",
		NoLower: "XLA gains nothing from the zeros: compile the dense model for it",
		FLOPs:   func(a SparseAttrs, in, _ []typ) int64 { return 2 * int64(in[0].Shape[0]) * int64(a.N) * int64(a.Kept) },
		Samples: samples,
	})
}
